"""Random binary trees, every shape equally likely.

Not here: search trees of keys inserted in random order, whose shapes are not equally likely.
"""

import numpy as np

from dodona.algorithms._tree_growing import links
from dodona.algorithms._tree_kernels import marked_preorder_kernel
from dodona.algorithms._tree_labels import Labels, frozen, label_array
from dodona.algorithms.tree_arrays import Tree, proven
from dodona.core.inputs import check_count
from dodona.errors import ShapeError


def random_tree(num_nodes: int, *, rng: np.random.Generator, labels: Labels | None = None) -> Tree:
    """A binary tree drawn uniformly from the Catalan(n) = C(2n, n) / (n + 1) shapes.

    A preorder with null markers is n labels and n + 1 markers such that every proper beginning has at
    least as many labels as markers. Of the 2n + 1 rotations of any arrangement exactly one is such a row
    (the cycle lemma), so a shuffled row, rotated to begin behind its first deepest point, is uniform.

    Args:
        num_nodes: n >= 0. A node is sqrt(pi n) deep on average, the deepest one 2 sqrt(pi n).
        rng: numpy.random.Generator.
        labels: [n] in preorder; default 0..n-1.
    Raises: InputError: n < 0.  ShapeError: another number of labels.  TypeError: n is no integer.
    Source: Dvoretzky & Motzkin, Duke Math. J. 14, 1947 (cycle lemma); Knuth, TAOCP vol. 4A, 7.2.1.6.
    Oracle: oracles.trees.shapes, chi-square over all of them.
    Cost: O(n), one shuffle of 2 n + 1 bytes.
    """
    check_count(0, num_nodes=num_nodes)
    label = label_array(range(num_nodes) if labels is None else labels, "labels")
    if len(label) != num_nodes:
        raise ShapeError(f"labels holds {len(label)} labels for {num_nodes} nodes.")
    present = np.zeros(2 * num_nodes + 1, dtype=bool)
    present[:num_nodes] = True
    rng.shuffle(present)
    height = np.cumsum(np.where(present, np.int8(1), np.int8(-1)), dtype=np.int32)
    present = np.roll(present, -1 - int(np.argmin(height)))
    left, right = links(num_nodes)
    marked_preorder_kernel(frozen(present), left, right)
    return proven(left, right, label)
