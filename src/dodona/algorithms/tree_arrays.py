"""A binary tree as flat arrays, numbered in preorder, for millions of nodes.

In this numbering a left child is the next number, a subtree is a slice, and children come after their
parents: bottom-up passes are one loop backwards, top-down passes one loop forwards, and nothing recurs.

Source: Knuth, TAOCP vol. 1, 2.3.3 (sequential representation of trees in preorder).
Not here: building from traversals (trees.py), walking (tree_walks.py), text forms (tree_markers.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped

from dodona.algorithms import _tree_kernels as kernels
from dodona.algorithms._tree_growing import renumbered
from dodona.algorithms._tree_labels import Labels, frozen, label_array
from dodona.errors import InputError, MissingDependencyError, ShapeError

Links = Sequence[Any] | Shaped[np.ndarray, "..."]
"""One integer per node: the number of a child, -1 = none."""


@dataclass(frozen=True, eq=False, repr=False)
class Tree:
    """A binary tree of n nodes numbered in preorder; 0 is the root.

    left[v] = v + 1 or -1;  right[v] = v + 1 + size of the left subtree, or -1.

    Args:
        left, right: [n] number of the child, -1 = none. Numbered otherwise: ``Tree.from_links``.
        label: [n] of node 0, 1, ..., hence the preorder itself. Labels need not be distinct here.
    Arrays are copied and read-only. Two trees are equal if their links and labels are.
    Raises:
        ShapeError: lengths that differ.
        InputError: links that are no tree in preorder; names the last node that breaks it.
        TypeError: links that are no integers.
    Oracle: oracles.trees (nested tuples).
    Cost: O(n) time, 8 n bytes and the labels.

    >>> tree = Tree([1, -1, 3, -1, -1], [2, -1, 4, -1, -1], [3, 9, 20, 15, 7])
    >>> tree.depth.tolist(), tree.size.tolist()
    ([0, 1, 1, 2, 2], [5, 1, 3, 1, 1])
    """

    left: Links
    right: Links
    label: Labels

    def __post_init__(self) -> None:
        label = label_array(self.label, "label")
        left, right = _links_of(self.left, self.right, len(label))
        size = np.empty(len(label), dtype=np.int32)
        wrong = kernels.misnumbered_kernel(left, right, size)
        if wrong >= 0:
            raise InputError(
                f"node {wrong} has left = {left[wrong]} and right = {right[wrong]}, which is not preorder "
                f"numbering: left is {wrong + 1} or -1, right the first number after the left subtree or "
                f"-1, and the root reaches all {len(label)} nodes. For other numberings: Tree.from_links."
            )
        for name, array in (("left", left), ("right", right), ("label", label)):
            object.__setattr__(self, name, frozen(array))

    @classmethod
    def from_links(cls, left: Links, right: Links, label: Labels) -> "Tree":
        """The tree of links in any numbering, say of a heap or of another library's arrays.

        >>> Tree.from_links([-1, 2, -1], [-1, 0, -1], "cab").label.tolist()
        ['a', 'b', 'c']

        Args: left, right, label: [n], node v in place v; -1 = none. The root is the node that is no
            child.
        Raises:
            ShapeError: lengths that differ.
            InputError: links out of range; two ways to a node; no root, two of them, or a circle.
        Oracle: Tree.to_nested.  Cost: O(n).
        """
        labels = label_array(label, "label")
        n = len(labels)
        left, right = _links_of(left, right, n)
        children = np.concatenate([left[left >= 0], right[right >= 0]])
        parents = np.bincount(children, minlength=n)
        if n and parents.max() > 1:
            node = int(np.argmax(parents > 1))
            raise InputError(
                f"node {node} is a child {parents[node]} times; in a tree it is one once."
            )
        roots = np.flatnonzero(parents == 0)
        if n and len(roots) != 1:
            found = (
                f"nodes {roots[0]} and {roots[1]} are none" if len(roots) else "every node is one"
            )
            raise InputError(f"a tree has one node that is no child, here {found}.")
        new_left, new_right, order = renumbered(left, right, int(roots[0]) if n else 0)
        if len(order) < n:
            raise InputError(
                f"the root {roots[0]} reaches {len(order)} of {n} nodes: the others run in a circle."
            )
        return proven(new_left, new_right, labels[order])

    @classmethod
    def from_nested(
        cls, root: Any, *, read: Callable[[Any], tuple[Any, Any, Any]] | None = None
    ) -> "Tree":
        """The tree of nested nodes, None = no child; iterative, so depth does not matter.

        >>> len(Tree.from_nested(("a", None, ("b", None, None))))
        2

        Args:
            root: a node or None.
            read: node -> (label, left, right); default: the node is such a triple. For objects:
                ``read=lambda v: (v.val, v.left, v.right)``.
        Raises: InputError: a node below itself, or no triple.
        Oracle: oracles.trees.  Cost: O(n). A node that hangs in two places becomes two nodes.
        """
        left, right, labels, above = [], [], [], set()
        work = [] if root is None else [(root, -1, left)]
        while work:
            node, parent, side = work.pop()
            if side is None:  # everything below this node is done
                above.remove(id(node))
                continue
            if id(node) in above:
                raise InputError(
                    f"the node labelled {labels[parent]!r} has a child above itself: the links run in a "
                    "circle, which no tree does."
                )
            label, a, b = _read(node) if read is None else read(node)
            v = len(labels)
            if parent >= 0:
                side[parent] = v
            left.append(-1), right.append(-1), labels.append(label)
            above.add(id(node))
            work.append((node, v, None))
            work += [
                (child, v, links) for child, links in ((b, right), (a, left)) if child is not None
            ]
        numbers = (np.array(x, dtype=np.int32) for x in (left, right))
        return proven(*numbers, label_array(labels, "label"))

    def to_nested(self, *, make: Callable[[Any, Any, Any], Any] | None = None) -> Any:
        """Nested nodes, None for the empty tree.

        >>> Tree([1, -1], [-1, -1], "ab").to_nested()
        ('a', ('b', None, None), None)

        Args: make: (label, left, right) -> node; default: that triple.
        Oracle: from_nested.  Cost: O(n).
        """
        nodes: list[Any] = [None] * (len(self) + 1)  # the last one is what link -1 finds
        labels, left, right = self.label.tolist(), self.left.tolist(), self.right.tolist()
        for v in range(len(self) - 1, -1, -1):
            parts = labels[v], nodes[left[v]], nodes[right[v]]
            nodes[v] = parts if make is None else make(*parts)
        return nodes[0]

    def to_networkx(self) -> Any:
        """A networkx.DiGraph: nodes 0..n-1 with ``label``, edges from parent to child with ``side``.

        Raises: MissingDependencyError: networkx is not installed.
        """
        try:
            import networkx
        except ImportError:
            raise MissingDependencyError(
                "to_networkx needs networkx, which is not installed: pip install networkx"
            ) from None
        graph = networkx.DiGraph()
        graph.add_nodes_from((v, {"label": x}) for v, x in enumerate(self.label.tolist()))
        for side, children in (("left", self.left), ("right", self.right)):
            graph.add_edges_from((v, int(children[v]), {"side": side}) for v in np.flatnonzero(children >= 0).tolist())  # fmt: skip
        return graph

    @cached_property
    def parent(self) -> Int32[np.ndarray, "n"]:
        """[n] number of the parent, -1 for the root."""
        return self._pass(kernels.parents_kernel)

    @cached_property
    def depth(self) -> Int32[np.ndarray, "n"]:
        """[n] edges from the root."""
        return self._pass(kernels.depths_kernel)

    @cached_property
    def size(self) -> Int32[np.ndarray, "n"]:
        """[n] nodes of the subtree, itself included; it is the slice [v, v + size[v])."""
        return self._pass(kernels.sizes_kernel)

    def subtree(self, node: int) -> "Tree":
        """The tree below a node, which becomes 0.  Raises: InputError: no such node."""
        if not 0 <= node < len(self):
            raise InputError(f"node must be in 0..{len(self) - 1}, got {node}.")
        part = slice(node, node + int(self.size[node]))
        left, right = (np.where(x[part] < 0, -1, x[part] - node) for x in (self.left, self.right))
        return proven(left.astype(np.int32), right.astype(np.int32), self.label[part].copy())

    def mirror(self) -> "Tree":
        """Left and right exchanged everywhere."""
        left, right, order = renumbered(self.right, self.left)
        return proven(left, right, self.label[order])

    def __len__(self) -> int:
        return len(self.left)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tree):
            return NotImplemented
        return all(
            np.array_equal(a, b)
            for a, b in (
                (self.left, other.left),
                (self.right, other.right),
                (self.label, other.label),
            )
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash

    def __repr__(self) -> str:
        labels = ", ".join(repr(x) for x in self.label[:8].tolist())
        return f"Tree({len(self)} nodes, preorder {labels}{', ...' if len(self) > 8 else ''})"

    def _pass(self, kernel: Callable[..., None]) -> np.ndarray:
        out = np.empty(len(self), dtype=np.int32)
        kernel(self.left, self.right, out)
        return frozen(out)


def proven(
    left: Int32[np.ndarray, "n"], right: Int32[np.ndarray, "n"], label: Shaped[np.ndarray, "n"]
) -> Tree:
    """A Tree of fresh arrays whose numbering is known from how they were made: nothing is checked."""
    tree = object.__new__(Tree)
    for name, array in (("left", left), ("right", right), ("label", label)):
        object.__setattr__(tree, name, frozen(array))
    return tree


def _links_of(left: Links, right: Links, n: int) -> tuple[np.ndarray, np.ndarray]:
    """[n] int32 copies, in -1..n-1."""
    out = []
    for name, given in (("left", left), ("right", right)):
        array = np.asarray(given) if len(given) else np.empty(0, dtype=np.int32)
        if array.shape != (n,):
            raise ShapeError(f"{name} has shape {array.shape}, expected ({n},): one per label.")
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must hold integers, got dtype {array.dtype}.")
        wrong = (array < -1) | (array >= n)
        if wrong.any():
            v = int(np.argmax(wrong))
            raise InputError(f"{name}[{v}] is {array[v]}, expected a node in 0..{n - 1}, or -1.")
        out.append(array.astype(np.int32))
    return out[0], out[1]


def _read(node: Any) -> tuple[Any, Any, Any]:
    if isinstance(node, (tuple, list)) and len(node) == 3:
        return node[0], node[1], node[2]
    raise InputError(
        f"a nested node must be (label, left, right), got {node!r}. For objects give read=, for instance "
        "lambda v: (v.val, v.left, v.right)."
    )
