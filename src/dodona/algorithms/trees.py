"""A binary tree from its traversals: one pass, no recursion, and a reason where there is no such tree.

Preorder with inorder, postorder with inorder, and level order with inorder determine a tree; preorder
with postorder leaves the side of every only child open (tree_counting.py). This module also offers the
public names of its siblings: the flat-array Tree, walks, text forms, random trees, traces.

Source: Knuth, TAOCP vol. 1, 2.3.1; Burgdorff, Jajodia, Springsteel & Zalcstein, "Alternative methods
for the reconstruction of trees from their traversals", BIT 27, 1987 (linear time); Vuillemin, "A
unifying look at data structures", CACM 23(4), 1980 (Cartesian trees); LeetCode 105, 106, 889, 297.
Not here: preorder or postorder with level order, which do not determine a tree.
"""

import numpy as np
from jaxtyping import Shaped

from dodona.algorithms._tree_growing import grown, links, refuse_inconsistent, renumbered
from dodona.algorithms._tree_kernels import (
    cartesian_kernel,
    is_levelorder_kernel,
    levelorder_kernel,
    search_tree_kernel,
)
from dodona.algorithms._tree_labels import (
    Labels,
    frozen,
    item_of,
    label_array,
    label_index,
    matched,
    permutation,
    plain,
    refuse_duplicate,
    require_equal_to_itself,
    spell,
)
from dodona.algorithms.random_trees import random_tree
from dodona.algorithms.tree_arrays import Tree, proven
from dodona.algorithms.tree_counting import (
    count_pre_post,
    from_pre_post,
    iter_pre_post,
    ordered_from_pre_post,
)
from dodona.algorithms.tree_markers import deserialize, serialize
from dodona.algorithms.tree_trace import MorrisStep, Scan, trace_build, trace_morris
from dodona.algorithms.tree_walks import (
    inorder,
    inorder_nodes,
    levelorder,
    levelorder_nodes,
    postorder,
    postorder_nodes,
    preorder,
    zigzag,
)
from dodona.errors import InconsistentTraversalsError

__all__ = [
    "MorrisStep", "Scan", "Tree", "bst_from_pre", "count_pre_post", "deserialize", "from_in_level",
    "from_post_in", "from_pre_in", "from_pre_post", "inorder", "inorder_nodes", "iter_pre_post",
    "levelorder", "levelorder_nodes", "ordered_from_pre_post", "postorder", "postorder_nodes", "preorder",
    "random_tree", "serialize", "trace_build", "trace_morris", "zigzag",
]  # fmt: skip


def from_pre_in(pre: Labels, ino: Labels) -> Tree:
    """The one binary tree with this preorder and this inorder.

    It is unique, by induction on n: the root is pre[0]; r labels precede it in ino, and they are the
    left subtree, the n - 1 - r behind it the right one; pre[1..r] and the rest are their preorders.
    The leaf cases are where an only child could change sides unnoticed, and it can not: r = 0 says
    there is no left child, r = n - 1 no right one, n = 1 a leaf, and all three look different in ino.

    >>> tree = from_pre_in([3, 9, 20, 15, 7], [9, 3, 15, 20, 7])
    >>> levelorder(tree).tolist()
    [3, 9, 20, 15, 7]

    Args:
        pre: the labels, root first; distinct and hashable. Integer arrays are the fast path, a str is
            a sequence of characters.
        ino: the same labels, left subtree first.
    Returns: the tree, whose node i is labelled pre[i].
    Raises:
        ShapeError: lengths that differ, with both.
        DuplicateLabelError: a label comes twice in one sequence, with both positions: n equal labels
            would fit Catalan(n) trees.
        InputError: a label of one sequence only; NaN.
        InconsistentTraversalsError: both hold the same labels, and no tree has both orders. For one pre,
            Catalan(n) of the n! orders are the inorder of a tree.
        TypeError: no sequence; a label that is not hashable.
    Source: Knuth, TAOCP vol. 1, 2.3.1, ex. 7; Burgdorff et al. 1987; LeetCode 105.
    Oracle: oracles.trees.rebuild (slices, recursive); all shapes with n <= 9.
    Cost: O(n): a bit per label for distinctness, then one stack pass. Other labels than integers: one
        dictionary more.
    """
    label, left, right = grown(pre, ino, ("pre", "ino"))
    return proven(left, right, label)


def from_post_in(post: Labels, ino: Labels) -> Tree:
    """The one binary tree with this postorder and this inorder.

    Unique as from_pre_in, with the root post[-1]; or at once: post reversed is the preorder of the
    mirror image, and ino reversed its inorder.

    >>> levelorder(from_post_in([9, 15, 7, 20, 3], [9, 3, 15, 20, 7])).tolist()
    [3, 9, 20, 15, 7]

    Args, Raises: as from_pre_in, with post in the place of pre.
    Source: Burgdorff et al. 1987; LeetCode 106.
    Oracle: oracles.trees shapes with n <= 9; mirror symmetry with from_pre_in.
    Cost: O(n), one pass more than from_pre_in to number the nodes.
    """
    label, mirror_left, mirror_right = grown(post, ino, ("post", "ino"), backward=True)
    left, right, order = renumbered(mirror_right, mirror_left)
    return proven(left, right, label[len(label) - 1 - order])


def from_in_level(ino: Labels, level: Labels) -> Tree:
    """The one binary tree with this inorder and this level order.

    Level ranks are distinct and a parent comes before its children, so the root of any stretch of ino
    is its label of least rank: the tree is the Cartesian tree of the ranks, and there is only one.

    >>> levelorder(from_in_level([9, 3, 15, 20, 7], [3, 9, 20, 15, 7])).tolist()
    [3, 9, 20, 15, 7]

    Args, Raises: as from_pre_in. Level order and preorder alone, or with postorder, would not do.
    Source: Vuillemin 1980.
    Oracle: oracles.trees shapes with n <= 9.
    Cost: O(n); labels are looked up, which from_pre_in does not need: a scattered read per node.
    """
    names = ("level", "ino")
    pair = matched(level, ino, names)
    ranks = permutation(pair, ino, names)
    level_left, level_right = links(len(ranks))
    cartesian_kernel(ranks, level_left, level_right, np.empty(len(ranks), dtype=np.int32))
    if not is_levelorder_kernel(level_left, level_right):
        implied = np.empty(len(ranks), dtype=np.int32)
        levelorder_kernel(level_left, level_right, implied)
        refuse_inconsistent(pair.label, implied, names, "binary tree")
    left, right, order = renumbered(level_left, level_right)
    return proven(left, right, pair.label[order])


def bst_from_pre(pre: Labels) -> Tree:
    """The one binary search tree with this preorder.

    Its inorder is pre sorted, so pre alone says everything; a number that steps back below a node
    whose right subtree has begun can not be placed.

    >>> inorder(bst_from_pre([5, 2, 1, 3, 8])).tolist()
    [1, 2, 3, 5, 8]

    Args: pre: distinct labels with an order: numbers, strings, ...
    Raises:
        DuplicateLabelError: a label comes twice.
        InconsistentTraversalsError: no search tree has this preorder; names the label and the one that it
            can not follow.
        InputError: NaN.  TypeError: labels that can not be compared.
    Source: Knuth, TAOCP vol. 3, 6.2.2; LeetCode 1008.
    Oracle: from_pre_in(pre, sorted(pre)).
    Cost: O(n) for integers and floats, other labels are sorted first.
    """
    label = label_array(pre, "pre")
    left, right = links(len(label))
    keys = _ordered_numbers(label, "pre")
    i, j = search_tree_kernel(keys, left, right, np.empty(len(keys), dtype=np.int32))
    if i >= 0:
        before = np.flatnonzero(keys[:i] == keys[i])
        if len(before):
            refuse_duplicate(label[i], (int(before[0]), int(i)), "pre")
        raise InconsistentTraversalsError(
            f"no search tree has this preorder: pre holds {spell(label[i])} at position {i}, right of "
            f"{spell(label[j])} at position {j}, than which it is smaller.",
            position=int(i),
            labels=(item_of(label[i]), item_of(label[j])),
        )
    return proven(left, right, label)


def _ordered_numbers(label: Shaped[np.ndarray, "n"], name: str) -> Shaped[np.ndarray, "n"]:
    """[n] numbers in the order of the labels: themselves, or their ranks where they are no numbers."""
    kind = label.dtype
    if kind.kind in "if" and kind.itemsize <= 8 or kind.kind == "u" and kind.itemsize < 8:
        if kind.kind != "f":
            return plain(label, kind)
        if np.isnan(label).any():
            require_equal_to_itself(label.tolist(), name)
        return frozen(np.ascontiguousarray(label, dtype=np.float64))
    ranks = label_index(label, name)
    try:
        ranks.update((item, rank) for rank, item in enumerate(sorted(ranks)))
    except TypeError as error:
        raise TypeError(f"the labels of a search tree must have an order: {error}.") from None
    return frozen(np.array([ranks[item] for item in label.tolist()], dtype=np.int64))
