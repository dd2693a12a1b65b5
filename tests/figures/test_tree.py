"""Trees are drawn tidily, and the walk around them visits every node in the three orders."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import trees
from dodona.errors import InputError, ShapeError
from dodona.figures.compose import panels, slider
from dodona.figures.style import COLOURS
from dodona.figures.tree import tree as draw
from dodona.figures.tree_layout import around, tidy
from dodona.oracles import trees as oracle

SMALL = [trees.Tree.from_nested(oracle.labelled(s, range(n))) for n in range(1, 6) for s in oracle.shapes(n)]  # fmt: skip


def _random(n, seed):
    return trees.random_tree(n, rng=np.random.default_rng(seed))


def _tidy(tree):
    return tidy(tree.left.tolist(), tree.right.tolist())


# ---------------------------------------------------------------------- layout
@given(st.integers(1, 150), st.integers(0, 2**32 - 1))
def test_a_layout_is_tidy(n, seed):
    tree = _random(n, seed)
    x, y = _tidy(tree)
    assert y == [-d for d in tree.depth.tolist()] and x[0] == 0.0
    for _, level in itertools.groupby(trees.levelorder_nodes(tree).tolist(), key=y.__getitem__):
        places = [x[v] for v in level]
        assert all(b - a >= 1.0 - 1e-9 for a, b in itertools.pairwise(places))
    for v in range(n):
        a, b = tree.left[v], tree.right[v]
        if a >= 0 and b >= 0:
            assert x[v] == pytest.approx((x[a] + x[b]) / 2)
        elif a >= 0 or b >= 0:
            assert x[max(a, b)] - x[v] == pytest.approx(-0.5 if a >= 0 else 0.5)


def test_twins_stand_as_close_as_their_subtrees_allow():
    for tree in SMALL:
        x, y = _tidy(tree)
        for v in range(len(tree)):
            a, b = int(tree.left[v]), int(tree.right[v])
            if a < 0 or b < 0:
                continue
            facing = [
                min(x[u] for u in _below(tree, b) if y[u] == level) - max(x[u] for u in _below(tree, a) if y[u] == level)
                for level in {y[u] for u in _below(tree, a)} & {y[u] for u in _below(tree, b)}
            ]  # fmt: skip
            assert min(facing) == pytest.approx(1.0)  # some level touches, none is too close


def _below(tree, v):
    return range(v, v + int(tree.size[v]))


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_mirror_image_has_the_mirrored_picture(n, seed):
    tree = _random(n, seed)
    mirror = tree.mirror()  # keeps the labels, which are the numbers of the tree
    x, mirrored = _tidy(tree)[0], _tidy(mirror)[0]
    assert [-x[v] for v in mirror.label.tolist()] == pytest.approx(mirrored)


@given(st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_a_subtree_looks_the_same_wherever_it_hangs(n, seed):
    tree = _random(n, seed)
    v = seed % n
    x = _tidy(tree)[0]
    inside = [x[u] - x[v] for u in _below(tree, v)]
    assert inside == pytest.approx(_tidy(tree.subtree(v))[0])


def test_a_long_path_needs_no_recursion():
    n = 50_000
    x, y = tidy([*range(1, n), -1], [-1] * n)
    assert (x[-1], y[-1]) == (-(n - 1) / 2, -(n - 1))


# ---------------------------------------------------------------------- the walk
def test_the_walk_passes_nodes_in_all_three_orders():
    for tree in SMALL:
        x, y = _tidy(tree)
        walk = around(tree.left.tolist(), tree.right.tolist(), x, y, radius=0.3, beside=0.15)
        assert all(0 <= i < len(walk.x) for stops in walk.visits for i in stops)
        orders = [sorted(range(len(tree)), key=lambda v, k=k: walk.visits[v][k]) for k in range(3)]
        assert orders[0] == list(range(len(tree)))
        assert orders[1] == trees.inorder_nodes(tree).tolist()
        assert orders[2] == trees.postorder_nodes(tree).tolist()


def test_the_walk_keeps_its_distance_from_nodes_and_passes_on_the_right_side():
    tree = trees.Tree.from_nested(oracle.rebuild([3, 9, 20, 15, 7], [9, 3, 15, 20, 7]))
    x, y = _tidy(tree)
    walk = around(tree.left.tolist(), tree.right.tolist(), x, y, radius=0.3, beside=0.15)
    for px, py in zip(walk.x, walk.y, strict=True):
        assert min(math.hypot(px - a, py - b) for a, b in zip(x, y, strict=True)) >= 0.3 - 1e-9
    for v, (before, between, after) in enumerate(walk.visits):
        assert walk.x[before] < x[v] < walk.x[after]
        assert walk.y[between] < y[v]


# ---------------------------------------------------------------------- the picture
LEFT, RIGHT, LABEL = [1, -1, 3, -1, -1], [2, -1, 4, -1, -1], [3, 9, 20, 15, 7]


def test_paths_carry_the_places_of_the_nodes():
    orders = {"preorder": range(5), "inorder": [1, 0, 3, 2, 4]}
    figure = draw(LEFT, RIGHT, LABEL, title="t", orders=orders)
    named = [t.name for t in figure.data if t.showlegend]
    assert named == ["preorder", "inorder"]
    badges = [t for t in figure.data if t.mode == "markers+text"]
    assert [list(t.text) for t in badges[:2]] == [["1", "2", "3", "4", "5"]] * 2
    nodes = badges[2]
    assert list(nodes.text) == ["3", "9", "20", "15", "7"]
    assert nodes.customdata[1] == "preorder: 2<br>inorder: 1"
    # the first badge of inorder is below node 1
    assert badges[1].x[0] == pytest.approx(nodes.x[1]) and badges[1].y[0] < nodes.y[1]
    assert badges[0].x[0] < nodes.x[0] and badges[0].y[0] == pytest.approx(nodes.y[0])


def test_marked_nodes_are_filled_and_faint_ones_stand_back():
    figure = draw(LEFT, RIGHT, LABEL, title="t", marked={0}, faint={4}, legend=False)
    faint, strong, nodes = figure.data
    assert nodes.marker.color[0] == COLOURS[5] and nodes.marker.color[1] == "#ffffff"
    assert (len(faint.x), len(strong.x)) == (3, 9)  # three entries a link
    assert nodes.marker.line.color[4] != nodes.marker.line.color[3]


def test_links_of_a_growing_tree_replace_its_own():
    figure = draw(LEFT, RIGHT, LABEL, title="t", links=[(0, 3)])
    nodes = figure.data[-1]
    assert list(figure.data[1].x) == [nodes.x[0], nodes.x[3], None]


def test_trees_stand_side_by_side_and_under_a_slider():
    one = draw(LEFT, RIGHT, LABEL, title="", legend=False)
    both = panels({"a": one, "b": one}, title="t")
    assert both.layout.yaxis2.scaleanchor == "x2"
    assert len(slider({"1": one, "2": one}, title="t").frames) == 2


def test_one_node_and_a_wide_tree_have_pictures():
    assert draw([-1], [-1], ["a"], title="t", orders={"inorder": [0]}).layout.height > 100
    wide = _random(200, 1)
    figure = draw(wide.left, wide.right, wide.label, title="t")
    assert figure.data[-1].marker.size >= 12


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((LEFT, RIGHT[:-1], LABEL), {}, ShapeError, "lengths 5, 4 and 5"),
        (([], [], []), {}, InputError, "needs at least one"),
        ((LEFT, RIGHT, LABEL), {"orders": {"zigzag": range(5)}}, InputError, "one of preorder, inorder, postorder, got 'zigzag'"),
        ((LEFT, RIGHT, LABEL), {"orders": {"inorder": [0, 0, 1, 2, 3]}}, ShapeError, r"every node 0\.\.4 once"),
    ],
)  # fmt: skip
def test_bad_input_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        draw(*arguments, title="t", **options)
