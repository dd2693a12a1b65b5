"""A tree as one row with null markers, and back: three orders, each of which is enough alone.

With a marker for every child that is not there, a single preorder, postorder or level order
determines the tree, and labels need not be distinct. n nodes take 2 n + 1 entries; the level form drops
the markers at its end, as LeetCode prints it.

Source: LeetCode 297, 449; Knuth, TAOCP vol. 1, 2.3 (extended binary trees).
Not here: heap layout, in which node i has children 2 i + 1 and 2 i + 2 whether they exist or not (the
level form leaves out the children of what is not there), and inorder, which markers do not save.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Shaped

from dodona.algorithms import _tree_kernels as kernels
from dodona.algorithms._tree_growing import links, renumbered
from dodona.algorithms._tree_labels import Labels, frozen, label_array, spell
from dodona.algorithms.tree_arrays import Tree, proven
from dodona.algorithms.tree_walks import levelorder_nodes
from dodona.core.inputs import check_choice
from dodona.errors import InputError

Order = Literal["pre", "post", "level"]
ORDERS = ("pre", "post", "level")


def serialize(
    tree: Tree, *, order: Order = "pre", null: Any = None
) -> Shaped[np.ndarray, "entries"]:
    """One row that holds the whole tree.

    pre: root, left, right; post: left, right, root; level: by depth. ``null`` stands for no child.

    >>> tree = Tree([1, -1, 3, -1, -1], [2, -1, 4, -1, -1], [3, 9, 20, 15, 7])
    >>> serialize(tree, order="level").tolist()
    [3, 9, 20, None, None, 15, 7]
    >>> serialize(tree, null=-1).tolist()
    [3, 9, -1, -1, 20, 15, -1, -1, 7, -1, -1]

    Args: null: not one of the labels; None, a number, NaN for floats, "#", ...
    Returns: 2 n + 1 entries, fewer for "level"; of the labels' type where null is of it, else objects.
    Raises: InputError: a label is null, or an unknown order.
    Source: LeetCode 297; the extended binary tree of Knuth, TAOCP vol. 1, 2.3.
    Oracle: oracles.trees.marked (the definition).  Cost: O(n).
    """
    check_choice(ORDERS, order=order)
    n, label = len(tree), tree.label
    wrong = _is_null(label, null)
    if wrong.any():
        raise InputError(f"node {int(np.argmax(wrong))} is labelled {spell(null)}, which is the null marker. Choose another.")  # fmt: skip
    place = np.empty(n, dtype=np.int64)
    if order == "level":
        kernels.marked_level_places_kernel(tree.left, tree.right, levelorder_nodes(tree), place)
        total = int(place.max()) + 1 if n else 0
    else:
        kernels.marked_places_kernel(tree.left, tree.right, tree.size, order == "pre", place)
        total = 2 * n + 1
    row = np.empty(total, dtype=label.dtype if _fits(null, label.dtype) else object)
    row[:] = null
    row[place] = label
    return row


def deserialize(row: Labels, *, order: Order = "pre", null: Any = None) -> Tree:
    """The tree of a row that serialize made, or of LeetCode's level form.

    pre: an open child takes the next entry, a label opens two more, until none is open. post: the same
    from the end, right before left. level: entry t > 0 is a child of the node (t - 1) // 2.

    >>> deserialize([3, 9, 20, None, None, 15, 7], order="level").to_nested()
    (3, (9, None, None), (20, (15, None, None), (7, None, None)))

    Args:
        row: labels and null markers; empty = the empty tree.
        order, null: as it was serialised. In "level", markers at the end may be missing.
    Raises: InputError: a row that ends too early, or that goes on after its tree is complete, with the
        position; an unknown order.  ShapeError, TypeError: no row.
    Source: LeetCode 297.
    Oracle: oracles.trees.marked.  Cost: O(n).
    """
    check_choice(ORDERS, order=order)
    entries = label_array(row, "row")
    present = ~_is_null(entries, null)
    label = label_array(entries[present].tolist(), "row") if entries.dtype == object else entries[present]  # fmt: skip
    if order == "level":
        left, right = _level_links(present)
        left, right, number = renumbered(left, right)
        return proven(left, right, label[number])
    left, right = links(len(label))
    forward = present if order == "pre" else present[::-1]
    read, missing = kernels.marked_preorder_kernel(
        frozen(np.ascontiguousarray(forward)), left, right
    )
    if len(present) and (missing or read < len(present)):
        _refuse(order, len(present), int(read), int(missing))
    if order == "pre":
        return proven(left, right, label)
    left, right, number = renumbered(right, left)
    return proven(left, right, label[len(label) - 1 - number])


def _level_links(present: Bool[np.ndarray, "entries"]) -> tuple[np.ndarray, np.ndarray]:
    """Links of nodes numbered by level, from which entries are there."""
    count = np.cumsum(present)
    n = int(count[-1]) if len(present) else 0
    left, right = links(n)
    left[:] = right[:] = -1
    t = np.arange(1, len(present))
    orphan = (t - 1) // 2 >= count[:-1]  # its parent would be a node that has not come
    if orphan.any():
        at = int(t[np.argmax(orphan)])
        raise InputError(
            f"the tree is complete after {at} entries, the level order goes on at position {at}: entry t "
            "is a child of node (t - 1) // 2, counted without markers. Children of what is not there "
            "are left out, which a heap layout does not do."
        )
    t = t[present[1:]]
    for side, parity in ((left, 1), (right, 0)):
        some = t[t % 2 == parity]
        side[(some - 1) // 2] = count[some] - 1
    return left, right


def _refuse(order: str, entries: int, read: int, missing: int) -> None:
    name, fault = ("preorder", "ends too early") if order == "pre" else ("postorder", "begins too late")  # fmt: skip
    if missing:
        raise InputError(
            f"the {name} {fault}: {missing} of the children in its {entries} entries are neither "
            "labels nor markers. n nodes take 2 n + 1 entries, n + 1 of them markers."
        )
    at = read if order == "pre" else entries - 1 - read
    raise InputError(
        f"the tree is complete with {read} entries, the {name} has one more at position {at}. n nodes "
        "take 2 n + 1 entries, n + 1 of them markers."
    )


def _is_null(entries: Shaped[np.ndarray, "n"], null: Any) -> Bool[np.ndarray, "n"]:
    if null is None and entries.dtype.kind != "O":
        return np.zeros(len(entries), dtype=bool)
    if entries.dtype.kind == "O":
        nan = null != null
        items = entries.tolist()
        found = (x is null or (x != x if nan else x == null) for x in items)
        return np.fromiter(found, dtype=bool, count=len(items))
    if null != null:
        return entries != entries
    return np.broadcast_to(
        np.asarray(entries == null), entries.shape
    )  # a scalar where types differ


def _fits(null: Any, kind: np.dtype) -> bool:
    """Does an array of this type keep null as it is?"""
    if null is None or kind.kind == "O":
        return False
    try:
        kept = np.array([null], dtype=kind)[0]
    except (TypeError, ValueError, OverflowError):
        return False
    return bool(kept == null or (null != null and kept != kept))
