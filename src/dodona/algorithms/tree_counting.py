"""What preorder and postorder leave open: whether a tree is unique, how many there are, and all of them.

With positions P in preorder and O in postorder, u is an ancestor of v iff P[u] < P[v] and O[u] > O[v].
So the two determine who is below whom and in which order, that is, the *ordered* tree, uniquely. A
binary tree says more: a node with two children is settled, a node with one may hold it left or right,
and neither sequence shows which. With k such nodes there are 2^k binary trees, one iff every node has
no child or two. (The leaf cases again: "left only" and "right only" look the same here, and that is
what inorder would tell.)

Source: Knuth, TAOCP vol. 1, 2.3.1, ex. 7; 2.3.2 (ordered trees as binary trees); LeetCode 889.
Not here: sequences that determine a tree (trees.py).
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Integer, Shaped

from dodona.algorithms._tree_growing import Grown, grown
from dodona.algorithms._tree_labels import Labels, item_of, spell
from dodona.algorithms.tree_arrays import Tree, proven
from dodona.errors import AmbiguousTreeError, InconsistentTraversalsError, InputError, ShapeError

NAMES = ("pre", "post")
FREE_LIMIT = 20  # 2^20 trees are listed without being asked for a limit
SPELLED = 60  # above, 2^k is no number that a reader compares with anything


def from_pre_post(pre: Labels, post: Labels, *, choose: Any = "error") -> Tree:
    """A binary tree with this preorder and this postorder; there are 2^k, k = nodes with one child.

    >>> from_pre_post("abc", "bca").to_nested()
    ('a', ('b', None, None), ('c', None, None))
    >>> from_pre_post("ab", "ba", choose="right").to_nested()
    ('a', None, ('b', None, None))

    Args:
        pre, post: distinct hashable labels, as in trees.from_pre_in.
        choose: what to do with only children.
            "error": refuse them, so that a result is the only tree there is.
            "left", "right": all to one side.
            number j, 0 <= j < 2^k: bit b (the least is bit 0) puts the b-th only child, in preorder,
            to the right if it is 1. Any tree by its number.
            [k] bools or 0/1: those bits, first one first.
            numpy.random.Generator: each side with probability 1/2, so that all trees are equally likely.
    Returns: the tree, whose node i is labelled pre[i].
    Raises:
        AmbiguousTreeError: choose="error" and k > 0; has k.
        InconsistentTraversalsError: no tree has both orders; or a node has three children or more,
            with the node and its children (ordered_from_pre_post gives that tree).
        ShapeError, DuplicateLabelError, TypeError, InputError: as trees.from_pre_in; a choice that is
            none of the above.
    Source: Knuth, TAOCP vol. 1, 2.3.1, ex. 7; LeetCode 889.
    Oracle: oracles.trees.trees_with (search over all shapes).
    Cost: O(n).
    """
    open_tree = _open(pre, post)
    return open_tree.tree(_bits(choose, open_tree.k))


def count_pre_post(pre: Labels, post: Labels) -> int:
    """How many binary trees have this preorder and this postorder: 2^k, exactly.

    >>> count_pre_post(range(100), range(99, -1, -1)) == 2**99
    True

    k counts the nodes with exactly one child: those v for which the label before v in post (its last
    child) is the label after v in pre (its first).

    Args, Raises: as from_pre_post, but nothing is ambiguous.
    Source: Knuth, TAOCP vol. 1, 2.3.1, ex. 7.
    Oracle: oracles.trees.trees_with, oracles.trees.only_children.  Cost: O(n).
    """
    return 1 << _open(pre, post).k


def iter_pre_post(pre: Labels, post: Labels, *, limit: int | None = None) -> Iterator[Tree]:
    """All binary trees with this preorder and this postorder, lazily, one child moved from tree to tree.

    In Gray code: tree number t, counted from 0, has choose = t ^ (t >> 1). The first holds every only
    child left.

    >>> [tree.to_nested() for tree in iter_pre_post("ab", "ba")]
    [('a', ('b', None, None), None), ('a', None, ('b', None, None))]

    Args:
        pre, post: as from_pre_post.
        limit: stop after that many; needed where k > 20.
    Raises: as from_pre_post, at the call and not at the first tree; InputError: limit is missing or
        negative.
    Source: Gray code: Knuth, TAOCP vol. 4A, 7.2.1.1.
    Oracle: oracles.trees.trees_with.  Cost: O(n) a tree, for the copy that it is.
    """
    open_tree = _open(pre, post)
    k = open_tree.k
    if limit is None and k > FREE_LIMIT:
        raise InputError(
            f"{_power(k)} trees have these sequences; limit is needed above 2^{FREE_LIMIT}. For a single "
            "one by number or at random: from_pre_post(pre, post, choose=...)."
        )
    if limit is not None and limit < 0:
        raise InputError(f"limit must be at least 0, got {limit}.")
    return itertools.islice(open_tree.trees(), limit)


def ordered_from_pre_post(pre: Labels, post: Labels) -> list[list[int]]:
    """The one ordered tree with this preorder and this postorder, any number of children to a node.

    A stack over pre: pop while O[top] < O[v], then top is the parent of v.

    >>> ordered_from_pre_post("abcd", "bcda")
    [[1, 2, 3], [], [], []]

    Args, Raises: as from_pre_post; three children and more are welcome here.
    Returns: for node i, labelled pre[i], the numbers of its children from left to right.
    Source: Knuth, TAOCP vol. 1, 2.3.2 (natural correspondence).
    Oracle: oracles.trees.ordered_shapes, by definition.  Cost: O(n).
    """
    _, child, sibling = _ordered(pre, post)
    children: list[list[int]] = [[] for _ in child]
    following = sibling.tolist()
    for v, c in enumerate(child.tolist()):
        while c >= 0:
            children[v].append(c)
            c = following[c]
    return children


# ---------------------------------------------------------------------- private
class _Open(NamedTuple):
    """The tree with every only child left, and the nodes that have one, in preorder."""

    label: Shaped[np.ndarray, "n"]
    left: Int32[np.ndarray, "n"]
    right: Int32[np.ndarray, "n"]
    single: Integer[np.ndarray, "k"]

    @property
    def k(self) -> int:
        return len(self.single)

    def tree(self, to_right: Bool[np.ndarray, "k"]) -> Tree:
        moved = self.single[to_right]
        left, right = self.left.copy(), self.right.copy()
        left[moved], right[moved] = -1, self.left[moved]
        return proven(left, right, self.label)

    def trees(self) -> Iterator[Tree]:
        left, right = self.left.copy(), self.right.copy()
        for t in itertools.count(1):
            yield proven(left.copy(), right.copy(), self.label)
            bit = (t & -t).bit_length() - 1  # the bit in which Gray numbers t - 1 and t differ
            if bit >= self.k:
                return
            v = self.single[bit]
            left[v], right[v] = right[v], left[v]


def _ordered(pre: Labels, post: Labels) -> Grown:
    """(label, first child, next sibling): postorder of the ordered tree is inorder of these links."""
    found = grown(pre, post, NAMES, kind="ordered tree")
    if len(found.label) and found.right[0] >= 0:
        first, last = item_of(found.label[0]), item_of(found.label[found.right[0]])
        raise InconsistentTraversalsError(
            f"no tree has both sequences: pre begins with {spell(first)}, post does not end with it, but "
            f"goes on to {spell(last)}. The root is first in one and last in the other.",
            position=0,
            labels=(first, last),
        )
    return found


def _open(pre: Labels, post: Labels) -> _Open:
    label, child, sibling = _ordered(pre, post)
    n = len(label)
    # a first child is the next number in preorder, so its sibling is in the next place
    second = np.full(n, -1, dtype=np.int32)
    if n:
        parents = np.flatnonzero(child >= 0)
        second[parents] = sibling[parents + 1]
        twins = parents[second[parents] >= 0]
        third = sibling[second[twins]]
        if (third >= 0).any():
            _refuse_many(label, child, sibling, int(twins[np.argmax(third >= 0)]))
    return _Open(label, child, second, np.flatnonzero((child >= 0) & (second < 0)))


def _refuse_many(label: np.ndarray, child: np.ndarray, sibling: np.ndarray, node: int) -> None:
    children, c = [], int(child[node])
    while c >= 0:
        children.append(item_of(label[c]))
        c = int(sibling[c])
    shown = ", ".join(map(spell, children[:5])) + (", ..." if len(children) > 5 else "")
    raise InconsistentTraversalsError(
        f"{spell(label[node])} has {len(children)} children, {shown}: these are the traversals of an "
        "ordered tree, not of a binary tree. ordered_from_pre_post gives it.",
        position=node,
        labels=(item_of(label[node]), *children),
    )


def _bits(choose: Any, k: int) -> Bool[np.ndarray, "k"]:
    """[k] True = right."""
    if isinstance(choose, str):
        if choose not in ("error", "left", "right"):
            raise InputError(f"choose must be 'error', 'left', 'right', bits or a Generator, got {choose!r}.")  # fmt: skip
        if choose == "error" and k:
            raise AmbiguousTreeError(
                f"{_power(k)} binary trees have this preorder and this postorder: k = {k} nodes have one "
                "child, whose side neither sequence shows. Choose 'left', 'right', a number, bits or a "
                "random generator, or list them with iter_pre_post; inorder would settle it.",
                k=k,
            )
        return np.full(k, choose == "right")
    if isinstance(choose, np.random.Generator):
        return choose.random(k) < 0.5
    if isinstance(choose, (int, np.integer)) and not isinstance(choose, bool):
        number = int(choose)
        if not 0 <= number < 1 << k:
            raise InputError(
                f"choose must be a number from 0 to below {_power(k)}, got {spell(number)}."
            )
        packed = np.frombuffer(number.to_bytes(k // 8 + 1, "little"), dtype=np.uint8)
        return np.unpackbits(packed, bitorder="little", count=k).astype(bool)
    bits = np.asarray(choose)
    if bits.shape != (k,) or not np.isin(bits, (0, 1)).all():
        raise ShapeError(f"choose must hold k = {k} entries of 0 or 1, got {spell(choose)}.")
    return bits.astype(bool)


def _power(k: int) -> str:
    return f"2^{k} = {1 << k}" if k <= SPELLED else f"2^{k}"
