"""Links from two traversals, or the reason why no tree has both.

One pass serves three pairs. Preorder and inorder are pushes and pops of one stack. Postorder read from
its end is the preorder of the mirror image. Preorder and postorder of an ordered tree are preorder and
inorder of the binary tree whose links are "first child" and "next sibling".

Source: Knuth, TAOCP vol. 1, 2.3.1 and 2.3.2 (natural correspondence).
Not here: which sequences make sense to a caller (trees.py, tree_counting.py).
"""

from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Int32, Integer, Shaped

from dodona.algorithms._tree_kernels import cartesian_kernel, grow_kernel, renumber_kernel
from dodona.algorithms._tree_labels import frozen, item_of, matched, permutation, spell
from dodona.errors import InconsistentTraversalsError


class Grown(NamedTuple):
    """label [n]: the first sequence; left, right [n]: links, numbered by it (from its end if backward)."""

    label: Shaped[np.ndarray, "n"]
    left: Int32[np.ndarray, "n"]
    right: Int32[np.ndarray, "n"]


def grown(
    first: Any,
    second: Any,
    names: tuple[str, str],
    *,
    backward: bool = False,
    kind: str = "binary tree",
) -> Grown:
    """The links of the tree that has both sequences as preorder and inorder.

    Equality of labels is all that is asked, so a success proves that both sequences hold the same
    distinct labels and belong together; why they do not is found out afterwards.

    Args:
        backward: read both from their ends, which makes them traversals of the mirror image.
        kind: what the caller builds, for the message.
    Raises: as trees.from_pre_in.
    Cost: O(n), one pass.
    """
    pair = matched(first, second, names)
    a, b = (_turned(pair.first), _turned(pair.second)) if backward else (pair.first, pair.second)
    left, right = links(len(a))
    if not grow_kernel(a, b, left, right, np.empty(len(a), dtype=np.int32)):
        places = permutation(pair, second, names)
        if backward:
            implied = len(a) - 1 - _implied_preorder(_turned(len(a) - 1 - places))[::-1]
        else:
            implied = _implied_preorder(places)
        refuse_inconsistent(pair.label, implied, names, kind)
    return Grown(pair.label, left, right)


def renumbered(
    left: Int32[np.ndarray, "n"], right: Int32[np.ndarray, "n"], root: int = 0
) -> tuple[Int32[np.ndarray, "n"], Int32[np.ndarray, "n"], Int32[np.ndarray, "k"]]:
    """(left, right, order) of the same tree in preorder numbers; order[i]: what node i was called.

    Only what the root reaches is numbered: where k < n, the rest of the links is not written.
    """
    n = len(left)
    new_left, new_right = links(n)
    order = np.empty(n, dtype=np.int32)
    reached = 0
    if n:
        reached = renumber_kernel(frozen(left), frozen(right), root, new_left, new_right, order)
    return new_left, new_right, order[:reached]


def links(n: int) -> tuple[Int32[np.ndarray, "n"], Int32[np.ndarray, "n"]]:
    """Two uninitialised arrays of links, rows of one block: large blocks come as huge pages."""
    both = np.empty((2, n), dtype=np.int32)
    return both[0], both[1]


def refuse_inconsistent(
    label: Shaped[np.ndarray, "n"],
    implied: Integer[np.ndarray, "n"],
    names: tuple[str, str],
    kind: str,
) -> NoReturn:
    """Raises: InconsistentTraversalsError at the first place where ``implied`` is not 0, 1, 2, ...

    Args: implied: [n] the traversal of the tree that the other sequence and the order of ancestors
        in this one leave, as positions in this one.
    """
    i = int(np.argmax(implied != np.arange(len(implied))))
    given, other = item_of(label[i]), item_of(label[implied[i]])
    raise InconsistentTraversalsError(
        f"no {kind} has both sequences: {names[0]} holds {spell(given)} at position {i}, and the only "
        f"candidate that {names[1]} leaves has {spell(other)} there. Look for a label out of place, or for "
        "sequences of two trees.",
        position=i,
        labels=(given, other),
    )


# ---------------------------------------------------------------------- private
def _turned(codes: np.ndarray) -> np.ndarray:
    return frozen(np.ascontiguousarray(codes[::-1]))


def _implied_preorder(keys: np.ndarray) -> np.ndarray:
    """[n] preorder of the tree with these keys as inorder and every parent before its children."""
    left, right = links(len(keys))
    cartesian_kernel(keys, left, right, np.empty(len(keys), dtype=np.int32))
    return renumbered(left, right)[2]
