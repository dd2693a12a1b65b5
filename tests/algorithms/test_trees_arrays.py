"""Flat trees: their numbering is checked, walks equal the definition, adaptors go there and back."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import trees
from dodona.algorithms.trees import Tree
from dodona.errors import InputError, MissingDependencyError, ShapeError
from dodona.oracles import trees as oracle

SMALL = [oracle.labelled(s, range(n)) for n in range(8) for s in oracle.shapes(n)]
LEETCODE = (3, (9, None, None), (20, (15, None, None), (7, None, None)))
LONG = 200_000


def _random(n, seed=0):
    return trees.random_tree(n, rng=np.random.default_rng(seed))


def _path(n=LONG, side="left"):
    after, none = np.append(np.arange(1, n), -1), np.full(n, -1)
    return Tree(after, none, range(n)) if side == "left" else Tree(none, after, range(n))


# ---------------------------------------------------------------------- walks
@pytest.mark.parametrize("name", ["preorder", "inorder", "postorder", "levelorder", "zigzag"])
def test_a_walk_equals_its_definition_on_every_small_shape(name):
    wrong = [
        t
        for t in SMALL
        if getattr(trees, name)(Tree.from_nested(t)).tolist() != getattr(oracle, name)(t)
    ]
    assert wrong == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_walks_of_a_long_path_need_no_recursion(side):
    tree = _path(side=side)
    down, up = np.arange(LONG), np.arange(LONG)[::-1]
    assert np.array_equal(trees.inorder(tree), up if side == "left" else down)
    assert np.array_equal(trees.postorder(tree), up)
    assert np.array_equal(trees.levelorder(tree), down)
    assert np.array_equal(trees.zigzag(tree), down)


def test_node_numbers_are_the_walks_of_a_tree_labelled_by_number():
    tree = _random(50)
    for name in ("inorder", "postorder", "levelorder"):
        nodes = getattr(trees, f"{name}_nodes")(tree)
        assert np.array_equal(nodes, getattr(trees, name)(tree))


# ---------------------------------------------------------------------- derived arrays
def test_depth_size_and_parent_equal_their_definitions():
    for t in SMALL:
        tree = Tree.from_nested(t)
        assert dict(enumerate(tree.depth.tolist())) == oracle.depths(t)
        assert dict(enumerate(tree.size.tolist())) == oracle.sizes(t)
        children = [(v, c) for links in (tree.left, tree.right) for v, c in enumerate(links) if c >= 0]  # fmt: skip
        assert all(tree.parent[c] == v for v, c in children)
        assert len(tree) == 0 or tree.parent[0] == -1


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_depth_size_and_places_are_tied_together(n, seed):
    tree = _random(n, seed)
    place = np.argsort(trees.postorder_nodes(tree))
    # O[v] - P[v] = size(v) - 1 - depth(v); the sum of sizes is the sum of depths + 1
    assert np.array_equal(place - np.arange(n), tree.size - 1 - tree.depth)
    assert tree.size.sum() == (tree.depth + 1).sum()
    assert np.array_equal(trees.levelorder_nodes(tree), np.argsort(tree.depth, kind="stable"))


def test_a_subtree_is_a_slice():
    tree = Tree.from_nested(LEETCODE)
    assert tree.subtree(2).to_nested() == (20, (15, None, None), (7, None, None))
    assert tree.subtree(0) == tree and tree.subtree(1).to_nested() == (9, None, None)
    with pytest.raises(InputError, match=r"node must be in 0\.\.4, got 5"):
        tree.subtree(5)


def test_the_mirror_image_twice_is_the_tree():
    for t in SMALL:
        tree = Tree.from_nested(t)
        assert tree.mirror().to_nested() == oracle.mirror(t)
        assert tree.mirror().mirror() == tree


# ---------------------------------------------------------------------- numbering
def test_preorder_numbering_is_accepted_and_nothing_else():
    for n in range(5):
        links = [range(-1, n)] * (2 * n)
        valid = {
            (tuple(tree.left.tolist()), tuple(tree.right.tolist()))
            for tree in (Tree.from_nested(oracle.labelled(s, range(n))) for s in oracle.shapes(n))
        }
        found = set()
        for row in np.ndindex(*[len(r) for r in links]) if n < 4 else _some_rows(n):
            left, right = ([x - 1 for x in part] for part in (row[:n], row[n:]))
            try:
                Tree(left, right, range(n))
            except InputError:
                continue
            found.add((tuple(left), tuple(right)))
        assert found == valid if n < 4 else found <= valid


def _some_rows(n):
    return np.random.default_rng(0).integers(0, n + 1, size=(3000, 2 * n)).tolist()


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ([1, -1, -1], [-1, -1, -1], "node 0 has left = 1 and right = -1, which is not preorder"),
        ([2, -1, -1], [1, -1, -1], "node 0 has left = 2"),
        ([1, 2, 0], [-1, -1, -1], "node 2 has left = 0"),
        ([1, 2, -1], [2, -1, -1], r"node 0 has left = 1 and right = 2"),
        ([3, -1, -1], [-1, -1, -1], r"left\[0\] is 3, expected a node in 0\.\.2, or -1"),
        ([-2, -1, -1], [-1, -1, -1], r"left\[0\] is -2"),
    ],
)
def test_a_wrong_numbering_names_its_node(left, right, message):
    with pytest.raises(InputError, match=message):
        Tree(left, right, "abc")


def test_links_have_one_entry_per_label_and_are_integers():
    with pytest.raises(ShapeError, match=r"right has shape \(2,\), expected \(3,\)"):
        Tree([-1, -1, -1], [-1, -1], "abc")
    with pytest.raises(TypeError, match="left must hold integers, got dtype float64"):
        Tree([-1.0], [-1], "a")


def test_labels_need_not_be_distinct_in_a_tree():
    tree = Tree([1, -1], [-1, -1], [7, 7])
    assert trees.inorder(tree).tolist() == [7, 7]


def test_trees_are_equal_by_links_and_labels():
    tree = Tree([1, -1], [-1, -1], "ab")
    assert tree == Tree(np.array([1, -1], dtype=np.int8), [-1, -1], ["a", "b"])
    assert tree != Tree([1, -1], [-1, -1], "ac") and tree != Tree([-1, -1], [1, -1], "ab")
    assert tree != "ab" and tree != Tree([], [], [])
    with pytest.raises(TypeError, match="unhashable"):
        hash(tree)


def test_a_tree_shows_its_size_and_first_labels():
    assert repr(Tree([1, -1], [-1, -1], "ab")) == "Tree(2 nodes, preorder 'a', 'b')"
    assert repr(_path(10)) == "Tree(10 nodes, preorder 0, 1, 2, 3, 4, 5, 6, 7, ...)"


# ---------------------------------------------------------------------- other numberings
@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_links_in_any_numbering_give_the_same_tree(n, seed):
    tree = _random(n, seed)
    name = np.random.default_rng(seed).permutation(n)  # node v is called name[v]
    left, right, label = np.full(n, -1), np.full(n, -1), np.empty(n, dtype=int)
    for v in range(n):
        left[name[v]] = name[tree.left[v]] if tree.left[v] >= 0 else -1
        right[name[v]] = name[tree.right[v]] if tree.right[v] >= 0 else -1
        label[name[v]] = v
    assert Tree.from_links(left, right, label) == tree


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ([1, -1, -1], [2, 2, -1], "node 2 is a child 2 times"),
        ([-1, -1, -1], [-1, 2, -1], "one node that is no child, here nodes 0 and 1 are none"),
        ([1, 2, 0], [-1, -1, -1], "one node that is no child, here every node is one"),
        ([-1, 2, 1], [-1, -1, -1], "the root 0 reaches 1 of 3 nodes: the others run in a circle"),
    ],
)
def test_links_that_are_no_tree_are_named(left, right, message):
    with pytest.raises(InputError, match=message):
        Tree.from_links(left, right, "abc")


# ---------------------------------------------------------------------- nested nodes
def test_nested_nodes_come_and_go():
    for t in SMALL:
        assert Tree.from_nested(t).to_nested() == t


def test_objects_are_read_and_made():
    def node(val, left, right):
        return SimpleNamespace(val=val, left=left, right=right)

    made = Tree.from_nested(LEETCODE).to_nested(make=node)
    assert (made.val, made.right.left.val) == (3, 15)
    back = Tree.from_nested(made, read=lambda v: (v.val, v.left, v.right))
    assert back.to_nested() == LEETCODE


def test_a_nested_path_of_200_000_nodes_needs_no_recursion():
    nested = None
    for label in range(LONG - 1, -1, -1):
        nested = (label, nested, None)
    tree = Tree.from_nested(nested)
    assert tree == _path()
    again = tree.to_nested()
    for label in range(5):
        assert again[0] == label
        again = again[1]


def test_a_circle_of_nested_nodes_is_refused():
    top = ["a", None, None]
    top[2] = ["b", ["c", None, None], top]
    with pytest.raises(InputError, match="node labelled 'b' has a child above itself"):
        Tree.from_nested(top)


def test_a_node_that_hangs_in_two_places_becomes_two():
    leaf = ("b", None, None)
    assert Tree.from_nested(("a", leaf, leaf)).label.tolist() == ["a", "b", "b"]


def test_what_is_no_node_is_shown():
    with pytest.raises(InputError, match=r"must be \(label, left, right\), got \('a', None\)"):
        Tree.from_nested(("a", None))


def test_networkx_gets_labels_and_sides():
    networkx = pytest.importorskip("networkx")
    graph = Tree.from_nested(LEETCODE).to_networkx()
    assert networkx.is_arborescence(graph)
    assert [graph.nodes[v]["label"] for v in graph] == [3, 9, 20, 15, 7]
    assert graph.edges[2, 3]["side"] == "left" and graph.edges[0, 2]["side"] == "right"


def test_a_missing_networkx_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(MissingDependencyError, match="pip install networkx"):
        Tree([], [], []).to_networkx()


# ---------------------------------------------------------------------- random trees
def test_random_trees_are_uniform_over_shapes():
    from scipy.stats import chisquare

    rng = np.random.default_rng(0)
    known = {str(oracle.labelled(s, range(5))): 0 for s in oracle.shapes(5)}
    for _ in range(42 * 60):
        known[str(trees.random_tree(5, rng=rng).to_nested())] += 1
    # level 1e-6; random search trees give p = 0
    assert chisquare(list(known.values())).pvalue > 1e-6


def test_random_trees_take_labels_and_repeat_with_their_seed():
    tree = trees.random_tree(3, rng=np.random.default_rng(5), labels="abc")
    assert tree.label.tolist() == ["a", "b", "c"]
    assert tree == trees.random_tree(3, rng=np.random.default_rng(5), labels="abc")
    assert len(trees.random_tree(0, rng=np.random.default_rng(0))) == 0
    with pytest.raises(ShapeError, match="labels holds 3 labels for 4 nodes"):
        trees.random_tree(4, rng=np.random.default_rng(0), labels="abc")
    with pytest.raises(InputError, match="num_nodes must be at least 0, got -1"):
        trees.random_tree(-1, rng=np.random.default_rng(0))


def test_a_large_random_tree_is_about_as_deep_as_it_should_be():
    # mean depth of the deepest node: 2 sqrt(pi n) (Flajolet & Odlyzko 1982), here 1121, spread about a third
    depth = max(int(_random(100_000, seed).depth.max()) for seed in range(3))
    assert 700 < depth < 2300
