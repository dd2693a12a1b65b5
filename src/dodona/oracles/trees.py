"""Trees by definition: nested tuples, recursion, and a search through all shapes. For a dozen nodes.

A binary tree is None or (label, left, right); an ordered tree is (label, children). A shape is a binary
tree whose labels are all None.

Source: definitions; Knuth, TAOCP vol. 1, 2.3; Touchard 1924 (the sum of class sizes).
"""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


# ---------------------------------------------------------------------- all trees
@functools.cache
def shapes(n: int) -> tuple[Any, ...]:
    """Every shape of n nodes: each split of n - 1 nodes, each pair of subtrees."""
    if n == 0:
        return (None,)
    return tuple((None, a, b) for i in range(n) for a in shapes(i) for b in shapes(n - 1 - i))


@functools.cache
def ordered_shapes(n: int) -> tuple[Any, ...]:
    """Every ordered tree of n > 0 nodes: a root and a forest of n - 1."""
    return tuple((None, forest) for forest in _forests(n - 1))


@functools.cache
def _forests(n: int) -> tuple[Any, ...]:
    if n == 0:
        return ((),)
    return tuple(
        (first, *rest)
        for i in range(1, n + 1)
        for first in ordered_shapes(i)
        for rest in _forests(n - i)
    )


def labelled(shape: Any, labels: Sequence[Any]) -> Any:
    """A binary shape with labels given out in preorder."""
    return _filled(shape, iter(labels))


def _filled(node: Any, labels: Iterator[Any]) -> Any:
    if node is None:
        return None
    label = next(labels)
    left = _filled(node[1], labels)
    return (label, left, _filled(node[2], labels))


def ordered_labelled(shape: Any, labels: Sequence[Any]) -> Any:
    """An ordered shape with labels given out in preorder."""
    return _ordered_filled(shape, iter(labels))


def _ordered_filled(node: Any, labels: Iterator[Any]) -> Any:
    return (next(labels), tuple(_ordered_filled(child, labels) for child in node[1]))


# ---------------------------------------------------------------------- traversals
def preorder(t: Any) -> list[Any]:
    """Root, left, right."""
    return [] if t is None else [t[0], *preorder(t[1]), *preorder(t[2])]


def inorder(t: Any) -> list[Any]:
    """Left, root, right."""
    return [] if t is None else [*inorder(t[1]), t[0], *inorder(t[2])]


def postorder(t: Any) -> list[Any]:
    """Left, right, root."""
    return [] if t is None else [*postorder(t[1]), *postorder(t[2]), t[0]]


def levels(t: Any) -> list[list[Any]]:
    """Labels of each depth, from left to right."""
    if t is None:
        return []
    below = itertools.zip_longest(levels(t[1]), levels(t[2]), fillvalue=[])
    return [[t[0]], *([*a, *b] for a, b in below)]


def levelorder(t: Any) -> list[Any]:
    """By depth, from left to right."""
    return [label for level in levels(t) for label in level]


def zigzag(t: Any) -> list[Any]:
    """By depth; odd ones from right to left."""
    return [x for d, level in enumerate(levels(t)) for x in (level[::-1] if d % 2 else level)]


def ordered_traversals(t: Any) -> tuple[list[Any], list[Any]]:
    """(preorder, postorder) of an ordered tree."""
    parts = [ordered_traversals(child) for child in t[1]]
    pre = [x for part in parts for x in part[0]]
    post = [x for part in parts for x in part[1]]
    return [t[0], *pre], [*post, t[0]]


def children(t: Any) -> dict[Any, list[Any]]:
    """Label -> labels of the children, of an ordered tree with distinct labels."""
    found = {t[0]: [child[0] for child in t[1]]}
    for child in t[1]:
        found |= children(child)
    return found


def marked(t: Any, order: str, null: Any) -> list[Any]:
    """One row with null markers: "pre", "post", or "level" without the markers at its end."""
    if order == "level":
        row, queue = [], [t]
        while any(node is not None for node in queue):
            node = queue.pop(0)
            row.append(null if node is None else node[0])
            queue += [] if node is None else [node[1], node[2]]
        while row and row[-1] == null:
            row.pop()
        return row
    if t is None:
        return [null]
    below = [*marked(t[1], order, null), *marked(t[2], order, null)]
    return [t[0], *below] if order == "pre" else [*below, t[0]]


def depths(t: Any, depth: int = 0) -> dict[Any, int]:
    """Label -> depth."""
    if t is None:
        return {}
    return {t[0]: depth, **depths(t[1], depth + 1), **depths(t[2], depth + 1)}


def sizes(t: Any) -> dict[Any, int]:
    """Label -> nodes of its subtree."""
    return {} if t is None else {t[0]: len(preorder(t)), **sizes(t[1]), **sizes(t[2])}


def mirror(t: Any) -> Any:
    """Left and right exchanged."""
    return None if t is None else (t[0], mirror(t[2]), mirror(t[1]))


# ---------------------------------------------------------------------- rebuilding
def rebuild(pre: Sequence[Any], ino: Sequence[Any]) -> Any:
    """The textbook: cut inorder at the root, recurse on slices. Trusts its input."""
    if not pre:
        return None
    r = ino.index(pre[0])
    return (pre[0], rebuild(pre[1 : r + 1], ino[:r]), rebuild(pre[r + 1 :], ino[r + 1 :]))


def trees_with(
    pre: Sequence[Any] | None = None,
    ino: Sequence[Any] | None = None,
    post: Sequence[Any] | None = None,
    level: Sequence[Any] | None = None,
) -> list[Any]:
    """Every binary tree with all the given traversals, by trying every shape and every labelling.

    Shapes are labelled along one traversal that is given, and the others are compared.
    """
    given = [
        (walk, list(labels))
        for walk, labels in (
            (preorder, pre),
            (inorder, ino),
            (postorder, post),
            (levelorder, level),
        )
        if labels is not None
    ]
    walk, labels = given[0]
    found = []
    for shape in shapes(len(labels)):
        numbered = labelled(shape, range(len(labels)))
        place = {number: label for number, label in zip(walk(numbered), labels, strict=True)}
        tree = labelled(shape, [place[number] for number in range(len(labels))])
        if all(other(tree) == expected for other, expected in given):
            found.append(tree)
    return found


def only_children(pre: Sequence[Any], post: Sequence[Any]) -> int:
    """k from the sequences alone: the label before v in post is the label after v in pre."""
    place = {label: i for i, label in enumerate(post)}
    return sum(place[u] > 0 and post[place[u] - 1] == v for u, v in itertools.pairwise(pre))


# ---------------------------------------------------------------------- counting
def catalan(n: int) -> int:
    """Binary trees of n nodes: the sum over the size of the left subtree."""
    row = [1]
    for m in range(1, n + 1):
        row.append(sum(row[i] * row[m - 1 - i] for i in range(m)))
    return row[n]


def motzkin(n: int) -> int:
    """M(n): 1, 1, 2, 4, 9, ...; M(n) = M(n - 1) + sum of M(i) M(n - 2 - i)."""
    row = [1, 1]
    for m in range(2, n + 1):
        row.append(row[m - 1] + sum(row[i] * row[m - 2 - i] for i in range(m - 1)))
    return row[n]


def class_sizes(n: int) -> Mapping[int, int]:
    """2^k -> how many pairs (pre, post), pre fixed, have 2^k binary trees.

    A pair whose tree has b nodes with two children has k = n - 1 - 2 b with one, and there are
    C(n - 1, 2 b) Catalan(b) such pairs. All trees together: Catalan(n) (Touchard's identity).
    """
    return {
        2 ** (n - 1 - 2 * b): math.comb(n - 1, 2 * b) * catalan(b) for b in range((n - 1) // 2 + 1)
    }


def gray_neighbours(trees: Sequence[Any]) -> Iterator[int]:
    """Number of nodes whose children differ from each tree to the next; 1 throughout in Gray code."""
    for a, b in itertools.pairwise(trees):
        yield sum(x != y for x, y in zip(_sides(a), _sides(b), strict=True))


def _sides(t: Any) -> list[tuple[bool, bool]]:
    """For every node in preorder: has it a left child, has it a right one?"""
    return [] if t is None else [(t[1] is not None, t[2] is not None), *_sides(t[1]), *_sides(t[2])]
