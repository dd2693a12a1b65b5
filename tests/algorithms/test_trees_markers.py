"""Rows with null markers go there and back in three orders; traces tell what the algorithms do."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import trees
from dodona.algorithms.trees import Tree
from dodona.errors import InconsistentTraversalsError, InputError
from dodona.oracles import trees as oracle

SMALL = [oracle.labelled(s, range(n)) for n in range(7) for s in oracle.shapes(n)]
ORDERS = ("pre", "post", "level")
LONG = 200_000


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("null", [None, -1, "#"])
def test_every_small_tree_is_written_as_defined_and_read_back(order, null):
    for t in SMALL:
        tree = Tree.from_nested(t)
        row = trees.serialize(tree, order=order, null=null)
        assert row.tolist() == oracle.marked(t, order, null)
        assert trees.deserialize(row, order=order, null=null) == tree
        assert trees.deserialize(row.tolist(), order=order, null=null) == tree


@given(st.integers(0, 200), st.integers(0, 2**32 - 1), st.sampled_from(ORDERS))
def test_equal_labels_survive(n, seed, order):
    rng = np.random.default_rng(seed)
    tree = trees.random_tree(n, rng=rng, labels=rng.integers(0, 3, n))
    assert trees.deserialize(trees.serialize(tree, order=order, null=-1), order=order, null=-1) == tree  # fmt: skip


def test_the_level_form_of_leetcode():
    tree = trees.deserialize([1, 2, 3, None, None, 4, None, None, 5], order="level")
    assert tree.to_nested() == (1, (2, None, None), (3, (4, None, (5, None, None)), None))
    full = [1, None, 2, None, None]  # markers at the end may stay
    assert trees.deserialize(full, order="level").to_nested() == (1, None, (2, None, None))


def test_a_row_has_the_type_of_the_labels_where_null_fits():
    tree = Tree([1, -1], [-1, -1], np.array([3, 5], dtype=np.uint8))
    assert trees.serialize(tree, null=0).dtype == np.uint8
    assert trees.serialize(tree, null=-1).dtype == object
    assert trees.serialize(tree, null=0.5).tolist() == [3, 5, 0.5, 0.5, 0.5]
    assert trees.serialize(tree).tolist() == [3, 5, None, None, None]
    words = Tree([1, -1], [-1, -1], np.array(["a", "b"]))
    assert trees.serialize(words, null="null").tolist() == ["a", "b", "null", "null", "null"]


def test_nan_can_be_the_marker():
    tree = Tree([1, -1], [-1, -1], np.array([3.0, 5.0]))
    row = trees.serialize(tree, null=np.nan)
    assert row.dtype == np.float64 and np.isnan(row[2:]).all()
    assert trees.deserialize(row, null=np.nan) == tree
    assert trees.deserialize([3.0, 5.0, *[float("nan")] * 3], null=float("nan")).label.tolist() == [3.0, 5.0]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_a_path_of_200_000_nodes_needs_no_recursion(order):
    n = LONG
    sides = np.arange(n) % 2 == 0
    after = np.append(np.arange(1, n), -1)
    tree = Tree(np.where(sides, after, -1), np.where(sides, -1, after), np.arange(n))
    row = trees.serialize(tree, order=order, null=-1)
    assert trees.deserialize(row, order=order, null=-1) == tree


@pytest.mark.parametrize("order", ORDERS)
def test_exactly_the_rows_of_trees_are_read(order):
    nodes = range(8 if order == "level" else 4)
    valid = {
        tuple(oracle.marked(oracle.labelled(s, [0] * n), order, None)) for n in nodes for s in oracle.shapes(n)
    }  # fmt: skip
    for n in range(1, 8):
        for row in itertools.product((0, None), repeat=n):
            if order == "level" and row[-1] is None:
                continue
            try:
                trees.deserialize(list(row), order=order)
                taken = True
            except InputError:
                taken = False
            assert taken == (row in valid), row


@pytest.mark.parametrize(
    ("row", "order", "message"),
    [
        ([1, 2, None], "pre", "the preorder ends too early: 2 of the children in its 3 entries"),
        ([1, None, None, 2], "pre", "complete with 3 entries, the preorder has one more at position 3"),
        ([None, 2, 1], "post", "the postorder begins too late: 2 of the children"),
        ([5, None, None, 1], "post", "complete with 3 entries, the postorder has one more at position 0"),
        ([1, None, None, 2], "level", r"complete after 3 entries, .* at position 3: entry t is a child"),
        ([None, 1], "level", "complete after 1 entries"),
    ],
)  # fmt: skip
def test_rows_that_are_no_tree_are_named_with_the_place(row, order, message):
    with pytest.raises(InputError, match=message):
        trees.deserialize(row, order=order)


def test_a_label_that_is_the_marker_is_refused():
    tree = Tree([1, -1], [-1, -1], [4, -1])
    with pytest.raises(InputError, match="node 1 is labelled -1, which is the null marker"):
        trees.serialize(tree, null=-1)


# ---------------------------------------------------------------------- traces
def test_the_tree_grows_as_inorder_is_read():
    for t in SMALL:
        tree = Tree.from_nested(t)
        scans = trees.trace_build(oracle.preorder(t), oracle.inorder(t))
        left, right = [-1] * len(tree), [-1] * len(tree)
        for i, scan in enumerate(scans, start=1):
            left[scan.node] = scan.popped[-1] if scan.popped else -1
            if len(scan.stack) > 1:
                right[scan.stack[-2]] = scan.node
            # behind i labels it is the tree of those labels, in the order of their ancestors
            seen = oracle.inorder(t)[:i]
            assert _nested(left, right, scan.stack[0]) == _least_on_top(seen)
        assert (left, right) == (tree.left.tolist(), tree.right.tolist())
        popped = [node for scan in scans for node in scan.popped]
        assert len(set(popped)) == len(popped) < max(1, len(tree))


def _nested(left, right, v):
    return None if v < 0 else (v, _nested(left, right, left[v]), _nested(left, right, right[v]))


def _least_on_top(ino):
    if not ino:
        return None
    r = ino.index(min(ino))
    return (ino[r], _least_on_top(ino[:r]), _least_on_top(ino[r + 1 :]))


def test_a_trace_refuses_what_is_no_pair():
    with pytest.raises(InconsistentTraversalsError, match="pre holds 2 at position 1"):
        trees.trace_build([1, 2, 3], [3, 1, 2])


def test_morris_visits_in_order_and_cuts_every_thread_it_laid():
    for t in SMALL:
        tree = Tree.from_nested(t)
        steps = trees.trace_morris(tree)
        assert [s.node for s in steps if s.action == "visit"] == oracle.inorder(t)
        lay, cut = ([(s.node, s.at) for s in steps if s.action == kind] for kind in ("lay", "cut"))
        assert sorted(lay) == sorted(cut) and len(lay) == (tree.left >= 0).sum()
        # a thread is laid from the last node of the left subtree in inorder
        assert all(oracle.inorder(t).index(a) + 1 == oracle.inorder(t).index(v) for v, a in lay)
