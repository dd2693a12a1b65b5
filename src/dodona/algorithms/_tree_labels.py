"""Two sequences of labels as two arrays of integers that can be compared, and what is wrong with them.

Integers stay what they are; anything else that is hashable becomes its position in the first sequence.
Not here: trees (_tree_growing.py).
"""

import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Int32, Integer, Shaped

from dodona.algorithms._tree_kernels import (
    extent_kernel,
    hash_kernel,
    hashed_positions_kernel,
    repeated_kernel,
    table_kernel,
    table_positions_kernel,
)
from dodona.errors import DuplicateLabelError, InputError, ShapeError

Labels = Sequence[Any] | Shaped[np.ndarray, "..."]
"""A one-dimensional array, or a sequence (a str is one of characters), of labels."""

MOST = 2**31 - 1  # links are int32
DENSE = 4  # integers that fill a range this many times their number are looked up in a table
EQUAL_TO_THEMSELVES = {str, bytes, int, bool}
ADVICE = "Label the nodes by number and keep the values beside them."


class Pair(NamedTuple):
    """label [n]: a copy of the first sequence; first, second [n]: integers, equal where labels are."""

    label: Shaped[np.ndarray, "n"]
    first: Integer[np.ndarray, "n"]
    second: Integer[np.ndarray, "n"]


def label_array(labels: Any, name: str) -> Shaped[np.ndarray, "n"]:
    """[n] read-only: integers as integers, arrays with their type, the rest as objects.

    It never shares memory with an array of the caller, who may write to it.
    Raises: TypeError: no sequence.  ShapeError: not one-dimensional.
        InputError: more than 2^31 - 1 labels.
    """
    _require_row(labels, name)
    if isinstance(labels, np.ndarray):
        return frozen(labels.copy())
    numbers = _integers(labels)
    return frozen(_objects(labels) if numbers is None else numbers)


def matched(first: Any, second: Any, names: tuple[str, str]) -> Pair:
    """Both sequences as comparable integers; the labels of the first are distinct.

    Raises:
        ShapeError: lengths that differ, more than one dimension.
        DuplicateLabelError: a label that the first sequence holds twice.
        InputError: a label that is not equal to itself (NaN), more than 2^31 - 1 labels.
        TypeError: no sequence, or a label that is not hashable.
    """
    _require_row(first, names[0]), _require_row(second, names[1])
    n = len(first)
    if len(second) != n:
        raise ShapeError(
            f"{names[0]} holds {n} labels and {names[1]} holds {len(second)}: both must list every node "
            "once."
        )
    numbers, others = _integers(first), _integers(second)
    if numbers is not None and others is not None:
        kind = np.result_type(numbers, others)
        if kind.kind in "iu":  # int64 and uint64 have no common type but float64
            codes = plain(numbers, kind)
            _require_distinct(codes, first, names[0])
            return Pair(label_array(first, names[0]) if numbers is first else frozen(numbers), codes, plain(others, kind))  # fmt: skip
    places = _places_by_hash(_items(first), _items(second))
    if places is None:
        index, items = label_index(first, names[0]), _items(second)
        require_equal_to_itself(items, names[1])
        places = np.fromiter(map(index.get, items, itertools.repeat(-1)), dtype=np.int32, count=n)
    label = frozen(first.copy() if isinstance(first, np.ndarray) else _objects(first))
    return Pair(label, frozen(np.arange(n, dtype=np.int32)), frozen(places))


def permutation(pair: Pair, second: Any, names: tuple[str, str]) -> Int32[np.ndarray, "n"]:
    """[n] where the first sequence holds each label of the second.

    Raises:
        InputError: a label of one sequence only.
        DuplicateLabelError: a label that the second sequence holds twice.
    """
    places = positions(pair.first, pair.second)
    assert places is not None  # matched has seen to it
    if len(places) and places.min() < 0:
        j = int(np.argmax(places < 0))
        raise InputError(
            f"{names[1]} holds {spell(second[j])} at position {j} and {names[0]} does not hold it: both "
            "must list the same labels."
        )
    seen = np.zeros(len(places), dtype=bool)
    seen[places] = True
    if not seen.all():
        before, again = first_repeat(places.tolist())
        refuse_duplicate(second[again], (before, again), names[1])
    return frozen(places)


def positions(
    first: Integer[np.ndarray, "n"], second: Integer[np.ndarray, "m"]
) -> Int32[np.ndarray, "m"] | None:
    """[m] the index in ``first`` of every label of ``second``, -1 where it is not there.

    None where ``first`` holds a label twice.
    """
    out = np.empty(len(second), dtype=np.int32)
    low, span = _range(first)
    if span <= DENSE * len(first):
        table = np.empty(span, dtype=np.int32)
        if table_kernel(first, low, table) >= 0:
            return None
        table_positions_kernel(low, table, second, out)
    else:
        table = _hash_table(len(first))
        if hash_kernel(first, table) >= 0:
            return None
        hashed_positions_kernel(first, table, second, out)
    return out


def label_index(labels: Any, name: str) -> dict[Any, int]:
    """Label -> position.

    Raises: TypeError: not hashable.  InputError: NaN.  DuplicateLabelError: a label comes twice.
    """
    items = _items(labels)
    try:
        index = dict(zip(items, range(len(items)), strict=True))
    except TypeError:
        i = next(i for i, item in enumerate(items) if not _hashable(item))
        raise TypeError(
            f"labels must be hashable, {name} holds a {type(items[i]).__name__} at position {i}. {ADVICE}"
        ) from None
    require_equal_to_itself(items, name)
    if len(index) < len(items):
        before, again = first_repeat(items)
        refuse_duplicate(items[again], (before, again), name)
    return index


def require_equal_to_itself(items: Sequence[Any], name: str) -> None:
    """Raises: InputError: NaN, or another label that no look-up would find."""
    if set(map(type, items)) <= EQUAL_TO_THEMSELVES:
        return
    if any(map(operator.ne, items, items)):
        i = next(i for i, item in enumerate(items) if item != item)
        raise InputError(
            f"{name} holds {items[i]!r} at position {i}, which is not equal to itself: it could not be "
            f"found again. {ADVICE}"
        )


def first_repeat(items: Sequence[Any]) -> tuple[int, int]:
    """(where it came before, position) of the first item that came before; there must be one."""
    seen: dict[Any, int] = {}
    for i, item in enumerate(items):
        if item in seen:
            return seen[item], i
        seen[item] = i
    raise AssertionError("all items are distinct")


def refuse_duplicate(label: Any, positions: tuple[int, int], name: str) -> NoReturn:
    """Raises: DuplicateLabelError."""
    raise DuplicateLabelError(
        f"{name} holds {spell(label)} twice, at positions {positions[0]} and {positions[1]}: with equal "
        f"labels the tree need not be determined. {ADVICE}",
        label=item_of(label),
        positions=positions,
    )


# ---------------------------------------------------------------------- small words
def frozen(array: np.ndarray) -> np.ndarray:
    """The array itself, read-only: for a kernel that is another type, so all that it gets are."""
    array.flags.writeable = False
    return array


def plain(label: Shaped[np.ndarray, "n"], kind: np.dtype) -> Integer[np.ndarray, "n"]:
    """[n] as int32 or int64, so that kernels are compiled for two types and one layout."""
    # uint64 wraps, which keeps equal what was equal
    wide = kind.itemsize == 8 or kind == np.uint32
    return frozen(np.ascontiguousarray(label, dtype=np.int64 if wide else np.int32).view())


def item_of(label: Any) -> Any:
    """A label as plain Python has it."""
    return label.item() if isinstance(label, np.generic) else label


def spell(label: Any) -> str:
    """A label in a message, cut where it is long."""
    text = repr(item_of(label))
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---------------------------------------------------------------------- private
def _require_row(labels: Any, name: str) -> None:
    if not isinstance(labels, (np.ndarray, Sequence)):
        raise TypeError(
            f"{name} must be a sequence or an array of labels, got {type(labels).__name__}."
        )
    if isinstance(labels, np.ndarray) and labels.ndim != 1:
        raise ShapeError(f"{name} must be one-dimensional, got shape {labels.shape}.")
    if len(labels) > MOST:
        raise InputError(f"{name} holds {len(labels)} labels, at most 2^31 - 1 = {MOST} fit.")


def _integers(labels: Any) -> np.ndarray | None:
    """[n] the array itself, or a new one of a sequence; None where some label is no integer."""
    if isinstance(labels, np.ndarray):
        return labels if labels.dtype.kind in "iu" else None
    if not len(labels):
        return np.empty(0, dtype=np.int64)
    if not all(kind is int or issubclass(kind, np.integer) for kind in set(map(type, labels))):
        return None
    array = np.array(labels if isinstance(labels, list) else list(labels))
    return array if array.dtype.kind in "iu" else None  # beyond 64 bits they are objects


def _objects(labels: Sequence[Any]) -> np.ndarray:
    return np.fromiter(labels, dtype=object, count=len(labels))  # np.array would unpack tuples


def _items(labels: Any) -> Sequence[Any]:
    return labels.tolist() if isinstance(labels, np.ndarray) else labels


def _places_by_hash(first: Sequence[Any], second: Sequence[Any]) -> np.ndarray | None:
    """[n] where ``first`` holds each label of ``second``; None where a dictionary has to look closer.

    Hashes are read in the order of the labels and sorted out as plain integers; a dictionary would
    visit the labels themselves in random order, which takes four times as long for a million strings.
    """
    n = len(first)
    try:
        codes, others = (frozen(np.fromiter(map(hash, items), dtype=np.int64, count=n)) for items in (first, second))  # fmt: skip
    except TypeError:
        return None
    places = positions(codes, others)
    if places is None or (n and places.min() < 0):
        return None
    # equal hashes are no proof; NaN fails here too
    found = map(first.__getitem__, places.tolist())
    return places if all(map(operator.eq, second, found)) else None


def _range(codes: np.ndarray) -> tuple[int, int]:
    """(least code, how many integers there are from it to the largest)."""
    if not len(codes):
        return 0, 0
    low, high = map(int, extent_kernel(codes))
    return low, high - low + 1


def _hash_table(n: int) -> np.ndarray:
    return np.empty(1 << (2 * n - 1).bit_length(), dtype=np.int32)


def _require_distinct(codes: np.ndarray, labels: Any, name: str) -> None:
    low, span = _range(codes)
    if span <= DENSE * len(codes):
        again = repeated_kernel(codes, low, np.zeros(span // 64 + 1, dtype=np.uint64))
    else:
        again = hash_kernel(codes, _hash_table(len(codes)))
    if again >= 0:
        before = int(np.argmax(codes == codes[again]))
        refuse_duplicate(labels[again], (before, int(again)), name)


def _hashable(item: Any) -> bool:
    try:
        hash(item)
    except TypeError:
        return False
    return True
