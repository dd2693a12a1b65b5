"""The orders in which a tree can be walked: labels in preorder, inorder, postorder, level by level, zigzag.

Nothing recurs; trees are numbered in preorder (tree_arrays.py), which makes every walk one loop.
Two identities tie them together: O[v] - P[v] = size(v) - 1 - depth(v) for the positions P in preorder
and O in postorder, and the sum of all sizes is the sum of all depths plus n.

Source: Knuth, TAOCP vol. 1, 2.3.1.
Not here: the way back (trees.py), walks in constant memory (tree_trace.py).
"""

from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped

from dodona.algorithms import _tree_kernels as kernels
from dodona.algorithms.tree_arrays import Tree


def preorder(tree: Tree) -> Shaped[np.ndarray, "n"]:
    """Root, left subtree, right subtree.

    >>> preorder(Tree([1, -1, -1], [2, -1, -1], "bac")).tolist()
    ['b', 'a', 'c']

    Args: tree: may be empty.
    Returns: [n] labels: a copy of tree.label, since nodes are numbered in this order.
    Source: Knuth, TAOCP vol. 1, 2.3.1.
    Oracle: oracles.trees.preorder (the definition, recursive).  Cost: O(n).
    """
    return tree.label.copy()


def inorder(tree: Tree) -> Shaped[np.ndarray, "n"]:
    """Left subtree, root, right subtree.

    >>> inorder(Tree([1, -1, -1], [2, -1, -1], "bac")).tolist()
    ['a', 'b', 'c']

    Args: tree: may be empty.
    Returns: [n] labels; ascending in a search tree.
    Source: Knuth, TAOCP vol. 1, 2.3.1.
    Oracle: oracles.trees.inorder.  Cost: O(n), a stack of the tree's height.
    """
    return tree.label[inorder_nodes(tree)]


def postorder(tree: Tree) -> Shaped[np.ndarray, "n"]:
    """Left subtree, right subtree, root.

    >>> postorder(Tree([1, -1, -1], [2, -1, -1], "bac")).tolist()
    ['a', 'c', 'b']

    Args: tree: may be empty.
    Returns: [n] labels.
    Source: Knuth, TAOCP vol. 1, 2.3.1.
    Oracle: oracles.trees.postorder.  Cost: O(n), a stack of the tree's height.
    """
    return tree.label[postorder_nodes(tree)]


def levelorder(tree: Tree) -> Shaped[np.ndarray, "n"]:
    """By depth, from left to right in each.

    Args: tree: may be empty.
    Returns: [n] labels.
    Source: LeetCode 102.
    Oracle: oracles.trees.levelorder.  Cost: O(n).
    """
    return tree.label[levelorder_nodes(tree)]


def zigzag(tree: Tree) -> Shaped[np.ndarray, "n"]:
    """By depth, even levels from left to right, odd levels from right to left; the root is level 0.

    Args: tree: may be empty.
    Returns: [n] labels.
    Source: LeetCode 103, in one row.
    Oracle: oracles.trees.zigzag.  Cost: O(n).
    """
    order = levelorder_nodes(tree)
    kernels.turn_odd_levels_kernel(order, tree.depth)
    return tree.label[order]


def inorder_nodes(tree: Tree) -> Int32[np.ndarray, "n"]:
    """Node numbers in inorder: what a picture, or an array of values per node, needs.

    Returns: [n].
    Source, Cost: as inorder.  Oracle: inorder of a tree labelled by number.
    """
    return _nodes(tree, kernels.inorder_kernel)


def postorder_nodes(tree: Tree) -> Int32[np.ndarray, "n"]:
    """Node numbers in postorder.

    Returns: [n].
    Source, Cost: as postorder.  Oracle: postorder of a tree labelled by number.
    """
    return _nodes(tree, kernels.postorder_kernel)


def levelorder_nodes(tree: Tree) -> Int32[np.ndarray, "n"]:
    """Node numbers in level order: by depth, then by number.

    Returns: [n].
    Source, Cost: as levelorder.  Oracle: levelorder of a tree labelled by number.
    """
    return _nodes(tree, kernels.levelorder_kernel)


def _nodes(tree: Tree, kernel: Any) -> Int32[np.ndarray, "n"]:
    order = np.empty(len(tree), dtype=np.int32)
    kernel(tree.left, tree.right, order)
    return order
