"""Positions in sorted sequences: lower_bound, upper_bound, equal_range, count, find.

Lists go to ``bisect`` and arrays to ``searchsorted``, which are C; many queries in one call go to an
interleaved kernel. Sortedness is a precondition: checking it on every call would make a search
O(n), so it is checked on request only.
NaN in an array stands at its end, as np.sort puts it, and a NaN query is the greatest of all.
Not for predicates (interval_exclusion.py); tensors have torch.searchsorted.
Source: Knuth, TAOCP vol. 3, 6.2.1; Khuong & Morin 2015, arXiv:1509.05053 (many queries).
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy import ndarray

from dodona.algorithms.interval_exclusion import first_true
from dodona.algorithms.search_record import SearchResult, Step
from dodona.core.shapes import IntArray
from dodona.errors import InputError, ShapeError

DOUBLE = np.dtype(np.float64)
MANY = 2**13  # queries from which the compiled kernel pays for being loaded


def lower_bound(
    a: Any,
    x: Any,
    *,
    key: Callable[[Any], Any] | None = None,
    x_of: Callable[[Any], Any] | None = None,
    reverse: bool = False,
    validate: bool = False,
) -> int | IntArray:
    """First i with a[i] >= x, len(a) where there is none: the leftmost place where x keeps the order.

    >>> lower_bound([5, 7, 7, 8], 7), lower_bound([8, 7, 7, 5], 7, reverse=True)
    (1, 1)

    Args:
        a: a sorted sequence or [n] array.
        x: one value, or an array of queries of any shape.
        key: applied to the elements of a, never to x (as in bisect): search for the key itself.
        x_of: applied to x; give key here too to search for an object.
        reverse: a is descending, and the first i with a[i] <= x is meant.
        validate: check order and NaN first, O(n).
    Returns: the position, or an integer array of the shape of x. A number whose type differs from
        the array's is compared exactly and without converting the array.
    Raises:
        InputError: with validate, a NaN (its index), or the first pair out of order.
        ShapeError: an array that is not [n].
        TypeError: x and the keys can not be compared; tensors.
    Source: Knuth, TAOCP vol. 3, 6.2.1.
    Oracle: oracles.search.bounds_by_counting; the standard bisect.
    Cost: O(log n); 1M random queries in 1M keys cost a fraction of np.searchsorted's time.
    """
    if key is None and x_of is None and not (reverse or validate):  # the common calls, in C at once
        if type(a) is list and type(x) is not ndarray:
            return bisect_left(a, x)
        if type(a) is ndarray and a.dtype is DOUBLE and type(x) is float and a.ndim == 1:
            return int(a.searchsorted(x))
    return _bound(a, x, False, key, x_of, reverse, validate)


def upper_bound(
    a: Any,
    x: Any,
    *,
    key: Callable[[Any], Any] | None = None,
    x_of: Callable[[Any], Any] | None = None,
    reverse: bool = False,
    validate: bool = False,
) -> int | IntArray:
    """First i with a[i] > x (a[i] < x in a descending one), len(a) where there is none.

    >>> upper_bound([5, 7, 7, 8], 7)
    3

    Args, Returns, Raises, Source, Cost: as lower_bound.
    Oracle: oracles.search.bounds_by_counting; the standard bisect.
    """
    if key is None and x_of is None and not (reverse or validate):  # the common calls, in C at once
        if type(a) is list and type(x) is not ndarray:
            return bisect_right(a, x)
        if type(a) is ndarray and a.dtype is DOUBLE and type(x) is float and a.ndim == 1:
            return int(a.searchsorted(x, "right"))
    return _bound(a, x, True, key, x_of, reverse, validate)


def equal_range(a: Any, x: Any, **options: Any) -> tuple[int | IntArray, int | IntArray]:
    """(lower_bound, upper_bound): the elements equal to x are a[lower:upper].

    >>> equal_range([5, 7, 7, 8, 8, 10], 8)
    (3, 5)

    Args, Raises, Source: as lower_bound; ``options`` are its keyword arguments.
    Oracle: oracles.search.bounds_by_counting.
    """
    lower = lower_bound(a, x, **options)
    return lower, upper_bound(a, x, **{**options, "validate": False})


def count(a: Any, x: Any, **options: Any) -> int | IntArray:
    """How many elements equal x: upper_bound - lower_bound.

    Args, Raises, Source: as lower_bound.  Oracle: oracles.search.bounds_by_counting.
    """
    lower, upper = equal_range(a, x, **options)
    return upper - lower


def find(
    a: Any,
    x: Any,
    *,
    key: Callable[[Any], Any] | None = None,
    x_of: Callable[[Any], Any] | None = None,
    reverse: bool = False,
    validate: bool = False,
    early_exit: bool = False,
    return_info: bool = False,
) -> int | IntArray | SearchResult:
    """The first position of x, -1 where it is not there.

    Args:
        a, x, key, x_of, reverse, validate: as lower_bound.
        early_exit: the textbook form with three branches (``while left <= right``, return on a hit),
            for comparison: of equal elements it finds any, and a round may compare twice.
        return_info: return a SearchResult: ``evaluations`` counts comparisons of elements. One x only.
    Returns: a position or -1, or an array of them.
    Raises: as lower_bound; InputError: early_exit or return_info with an array of queries.
    Source: Knuth, TAOCP vol. 3, 6.2.1, algorithm B is the form with early exit.
    Oracle: oracles.search.first_index.
    Cost: at most ceil(log2(n + 1)) + 1 comparisons; twice that with early_exit.
    """
    many = isinstance(x, np.ndarray) and x.ndim > 0
    if many and (early_exit or return_info):
        raise InputError(
            f"early_exit and return_info are for one x, got queries of shape {x.shape}. Leave them out."
        )
    if early_exit or return_info:
        if validate:
            _require_sorted(a, key, reverse)
        x = x if x_of is None else x_of(x)
        result = (_three_branches if early_exit else _by_template)(a, x, key or _itself, reverse)
        return result if return_info else result.value
    i = lower_bound(a, x, key=key, x_of=x_of, reverse=reverse, validate=validate)
    wanted = x if x_of is None else x_of(x)
    if not many:
        return i if i < len(a) and (key or _itself)(a[i]) == wanted else -1
    if not len(a):
        return i - 1
    elements = np.asarray(a if key is None else [key(e) for e in a])
    hit = (i < len(a)) & (elements[np.minimum(i, len(a) - 1)] == wanted)
    return np.where(hit, i, -1)


# ---------------------------------------------------------------------- private
def _itself(x: Any) -> Any:
    return x


def _bound(a: Any, x: Any, right: bool, key: Any, x_of: Any, reverse: bool, validate: bool) -> Any:
    if type(a).__module__.partition(".")[0] == "torch":
        raise TypeError("a is a tensor; for tensors call torch.searchsorted, or pass a.numpy().")
    if validate:
        _require_sorted(a, key, reverse)
        if np.any(x != x):
            raise InputError(f"x is NaN ({x!r}), which has no place in the order. Remove it first.")
    if x_of is not None:
        x = x_of(x)
    many = isinstance(x, np.ndarray) and x.ndim > 0
    if many or (isinstance(a, np.ndarray) and key is None):
        elements = np.asarray(a if key is None else [key(e) for e in a])
        if elements.ndim != 1:
            raise ShapeError(f"a must be a sorted array [n], got shape {elements.shape}.")
        if reverse:
            # places in the ascending array, counted from its other end
            flipped = np.ascontiguousarray(elements[::-1]) if many else elements[::-1]
            found = _positions(flipped, x, not right) if many else _position(flipped, x, not right)
            return len(elements) - found
        return _positions(elements, x, right) if many else _position(elements, x, right)
    return _in_sequence(a, x, right, key, reverse)


def _in_sequence(
    a: Sequence[Any], x: Any, right: bool, key: Callable[[Any], Any] | None, reverse: bool
) -> int:
    try:
        if not reverse:
            return (bisect_right if right else bisect_left)(a, x, key=key)
        of = key or _itself
        beyond = (lambda i: bool(of(a[i]) < x)) if right else (lambda i: not x < of(a[i]))
        return first_true(beyond, 0, len(a), check="none")
    except TypeError as error:
        if key is None:
            raise
        raise TypeError(
            f"x = {x!r} can not be compared with key(a[0]) = {key(a[0])!r}: key is applied to the "
            "elements only. Search for key(x), or pass x_of=key as well."
        ) from error


def _position(a: np.ndarray, x: Any, right: bool) -> int:
    """One query. A number of another type would make searchsorted convert all of the array."""
    kind = type(x)
    if kind is not a.dtype.type and not (kind is float and a.dtype.char == "d"):
        if a.dtype.kind in "iuf" and isinstance(x, (int, float, np.integer, np.floating)):
            nearest = _nearest_element(a.dtype, x)
            if nearest == nearest and nearest != x:  # NaN has no neighbour to step to
                right = not nearest > x  # what equals the neighbour below x lies left of x
            x = a.dtype.type(nearest)
    return int(a.searchsorted(x, "right" if right else "left"))


def _nearest_element(dtype: np.dtype, x: Any) -> Any:
    """A number of the array's type next to x, as an exact Python number: x itself where it fits."""
    x = x.item() if isinstance(x, np.generic) else x
    if dtype.kind == "f":
        try:
            with np.errstate(over="ignore"):
                return dtype.type(float(x)).item()
        except OverflowError:  # an integer beyond the doubles
            return math.inf if x > 0 else -math.inf
    limits = np.iinfo(dtype)
    if isinstance(x, float) and not math.isfinite(x):
        return limits.min if x < 0 else limits.max
    return min(max(math.floor(x), int(limits.min)), int(limits.max))


def _positions(a: np.ndarray, x: np.ndarray, right: bool) -> IntArray:
    """Many queries: the kernel where it pays and knows the type, else NumPy."""
    if x.dtype != a.dtype and np.can_cast(x.dtype, a.dtype, "safe"):
        x = x.astype(a.dtype)
    plain = a.dtype == x.dtype and a.dtype.kind in "iuf" and a.dtype.itemsize in (4, 8)
    if x.size < MANY or not len(a) or not plain or not a.dtype.isnative or not a.flags.c_contiguous:
        return a.searchsorted(x, "right" if right else "left")
    from dodona.algorithms._search_kernels import positions  # Numba is slow to import

    last = len(a) if right or a.dtype.kind != "f" else int(a.searchsorted(np.nan))
    out = np.empty(x.size, dtype=np.int64)
    positions(a, np.ascontiguousarray(x).ravel(), right, last, out)
    return out.reshape(x.shape)


def _require_sorted(a: Any, key: Callable[[Any], Any] | None, reverse: bool) -> None:
    """Raises: InputError: a NaN, or the first neighbours in the wrong order."""
    if isinstance(a, np.ndarray) and key is None and a.ndim == 1:
        nan = np.flatnonzero(a != a)
        wrong = np.flatnonzero(a[:-1] < a[1:] if reverse else a[1:] < a[:-1])
        keys: Sequence[Any] = a
    else:
        keys = [(key or _itself)(e) for e in a]
        nan = [i for i, e in enumerate(keys) if e != e]
        wrong = [i for i, (e, f) in enumerate(pairwise(keys)) if (e < f if reverse else f < e)]
    if len(nan):
        raise InputError(f"a[{nan[0]}] is NaN; a search needs elements in order. Remove it first.")
    if len(wrong):
        i = int(wrong[0])
        order = "descending" if reverse else "ascending"
        raise InputError(
            f"a is not {order}: a[{i}] = {keys[i]!r} and a[{i + 1}] = {keys[i + 1]!r}. Sort it first"
            f"{'' if reverse else ', or pass reverse=True for a descending one'}."
        )


def _by_template(a: Any, x: Any, of: Callable[[Any], Any], reverse: bool) -> SearchResult:
    if reverse:
        found = first_true(lambda i: not x < of(a[i]), 0, len(a), check="none", return_info=True)
    else:
        found = first_true(lambda i: not of(a[i]) < x, 0, len(a), check="none", return_info=True)
    i = found.value
    asks_equal = i < len(a)
    return SearchResult(
        value=i if asks_equal and of(a[i]) == x else -1,
        evaluations=found.evaluations + asks_equal,
        bracket=found.bracket,
        trace=found.trace,
    )


def _three_branches(a: Any, x: Any, of: Callable[[Any], Any], reverse: bool) -> SearchResult:
    left, right, compared = 0, len(a) - 1, 0
    trace: list[Step] = []
    value = -1
    while left <= right and value < 0:
        mid = left + (right - left) // 2
        element = of(a[mid])
        trace.append(Step(left, mid, right, bool(element == x)))
        compared += 1
        if element == x:
            value = mid
            break
        compared += 1
        if (x < element) if reverse else (element < x):
            left = mid + 1
        else:
            right = mid - 1
    return SearchResult(
        value=value, evaluations=compared, bracket=(left, right), trace=tuple(trace)
    )
