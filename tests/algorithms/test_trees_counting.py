"""Preorder and postorder: 2^k trees, counted, listed in Gray code, chosen by number, side, bits or chance."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import trees
from dodona.errors import (
    AmbiguousTreeError,
    InconsistentTraversalsError,
    InputError,
    ShapeError,
)
from dodona.oracles import trees as oracle

LONG = 200_000


def _classes(n):
    found = {}
    for shape in oracle.shapes(n):
        t = oracle.labelled(shape, range(n))
        found.setdefault(tuple(oracle.postorder(t)), []).append(t)
    return found


def _random_pair(n, seed):
    tree = trees.random_tree(n, rng=np.random.default_rng(seed))
    return trees.preorder(tree), trees.postorder(tree), tree


@pytest.mark.parametrize("n", range(1, 9))
def test_every_class_is_counted_and_listed_exactly(n):
    classes = _classes(n)
    assert len(classes) == oracle.motzkin(n - 1)
    sizes = Counter()
    for post, members in classes.items():
        pair = (range(n), list(post))
        count = trees.count_pre_post(*pair)
        sizes[count] += 1
        found = [t.to_nested() for t in trees.iter_pre_post(*pair)]
        assert count == len(found) == len(members) and set(found) == set(members)
        assert set(oracle.gray_neighbours(found)) <= {1}
    assert sizes == Counter(oracle.class_sizes(n))  # Touchard


def test_the_class_is_what_the_search_over_shapes_finds():
    for post in _classes(5):
        pair = (list(range(5)), list(post))
        assert {t.to_nested() for t in trees.iter_pre_post(*pair)} == set(
            oracle.trees_with(pre=pair[0], post=pair[1])
        )


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_k_is_counted_by_neighbours_in_both_sequences(n, seed):
    pre, post, tree = _random_pair(n, seed)
    lone = int(((tree.left >= 0) != (tree.right >= 0)).sum())
    assert trees.count_pre_post(pre, post) == 2**lone
    assert oracle.only_children(pre.tolist(), post.tolist()) == lone


def test_published_pair_is_unique():
    tree = trees.from_pre_post([1, 2, 4, 5, 3, 6, 7], [4, 5, 2, 6, 7, 3, 1])  # LeetCode 889
    assert trees.inorder(tree).tolist() == [4, 2, 5, 1, 6, 3, 7]


# ---------------------------------------------------------------------- choosing
def test_a_tree_by_number_is_the_gray_coded_one_of_the_list():
    for post in _classes(6):
        pair = (range(6), list(post))
        for t, tree in enumerate(trees.iter_pre_post(*pair)):
            assert trees.from_pre_post(*pair, choose=t ^ (t >> 1)) == tree
            assert trees.from_pre_post(*pair, choose=np.int64(t ^ (t >> 1))) == tree


@given(st.integers(1, 120), st.integers(0, 2**32 - 1))
def test_every_choice_keeps_both_sequences(n, seed):
    pre, post, tree = _random_pair(n, seed)
    rng = np.random.default_rng(seed)
    k = trees.count_pre_post(pre, post).bit_length() - 1
    bits = rng.random(k) < 0.5
    number = sum(1 << b for b in np.flatnonzero(bits).tolist())
    lone = np.flatnonzero((tree.left >= 0) != (tree.right >= 0))
    assert trees.from_pre_post(pre, post, choose=tree.right[lone] >= 0) == tree
    for choose in ("left", "right", bits, bits.astype(int).tolist(), number, rng):
        found = trees.from_pre_post(pre, post, choose=choose)
        assert np.array_equal(trees.preorder(found), pre)
        assert np.array_equal(trees.postorder(found), post)
        assert trees.Tree(found.left, found.right, found.label) == found
    assert trees.from_pre_post(pre, post, choose=bits) == trees.from_pre_post(pre, post, choose=number)  # fmt: skip


def test_random_choices_are_even():
    from scipy.stats import chisquare

    rng = np.random.default_rng(0)
    drawn = Counter(
        str(trees.from_pre_post("abcd", "dcba", choose=rng).to_nested()) for _ in range(1600)
    )
    assert len(drawn) == 8 and chisquare(list(drawn.values())).pvalue > 1e-6


def test_what_is_ambiguous_is_refused_with_k():
    with pytest.raises(AmbiguousTreeError, match=r"2\^2 = 4 binary trees .* k = 2 nodes") as caught:
        trees.from_pre_post("abc", "cba")
    assert caught.value.k == 2 and isinstance(caught.value, ValueError)
    with pytest.raises(AmbiguousTreeError, match=r"^2\^99 binary trees"):
        trees.from_pre_post(range(100), range(99, -1, -1))


@pytest.mark.parametrize(
    ("choose", "error", "message"),
    [
        ("random", InputError, "choose must be 'error', 'left', 'right', .* got 'random'"),
        (4, InputError, r"a number from 0 to below 2\^2 = 4, got 4"),
        (-1, InputError, "got -1"),
        ([True], ShapeError, r"k = 2 entries of 0 or 1, got \[True\]"),
        ([0, 2], ShapeError, r"got \[0, 2\]"),
        (True, ShapeError, "got True"),
        (None, ShapeError, "got None"),
    ],
)
def test_a_choice_that_is_none_is_named(choose, error, message):
    with pytest.raises(error, match=message):
        trees.from_pre_post("abc", "cba", choose=choose)


# ---------------------------------------------------------------------- large
def test_a_path_of_200_000_nodes_has_2_to_the_199_999_trees():
    pre = np.arange(LONG)
    post = pre[::-1]
    assert trees.count_pre_post(pre, post) == 1 << (LONG - 1)
    right = trees.from_pre_post(pre, post, choose="right")
    assert np.array_equal(trees.inorder(right), pre)
    last = (1 << (LONG - 1)) - 1
    assert trees.from_pre_post(pre, post, choose=last) == right
    assert trees.ordered_from_pre_post(pre, post)[:2] == [[1], [2]]
    first = list(trees.iter_pre_post(pre, post, limit=3))
    assert [t.right[:3].tolist() for t in first] == [[-1, -1, -1], [1, -1, -1], [1, 2, -1]]


def test_a_long_list_needs_a_limit():
    pair = (range(22), range(21, -1, -1))
    with pytest.raises(InputError, match=r"2\^21 = 2097152 trees .* limit is needed above 2\^20"):
        trees.iter_pre_post(*pair)
    assert len(list(trees.iter_pre_post(*pair, limit=5))) == 5
    with pytest.raises(InputError, match="limit must be at least 0, got -1"):
        trees.iter_pre_post("ab", "ba", limit=-1)


def test_listed_trees_are_independent():
    first, second = trees.iter_pre_post("ab", "ba")
    assert not np.shares_memory(first.left, second.left) and first != second


# ---------------------------------------------------------------------- ordered trees
def test_every_ordered_shape_comes_back():
    for n in range(1, 8):
        for shape in oracle.ordered_shapes(n):
            t = oracle.ordered_labelled(shape, range(n))
            pre, post = oracle.ordered_traversals(t)
            below = oracle.children(t)
            assert trees.ordered_from_pre_post(pre, post) == [below[v] for v in range(n)]


def test_catalan_many_permutations_are_the_postorder_of_an_ordered_tree():
    for n in range(1, 7):
        fits = 0
        for post in itertools.permutations(range(n)):
            try:
                trees.ordered_from_pre_post(range(n), list(post))
            except InconsistentTraversalsError:
                continue
            fits += 1
        assert fits == oracle.catalan(n - 1)


def test_three_children_are_named_and_the_ordered_tree_is_offered():
    with pytest.raises(
        InconsistentTraversalsError,
        match="'a' has 3 children, 'b', 'c', 'd': .* an ordered tree, not of a binary tree.* ordered_from_pre_post",
    ) as caught:
        trees.from_pre_post("abcd", "bcda")
    assert caught.value.labels == ("a", "b", "c", "d") and caught.value.position == 0
    with pytest.raises(
        InconsistentTraversalsError, match=r"0 has 7 children, 1, 2, 3, 4, 5, \.\.\.:"
    ):
        trees.count_pre_post(range(8), [1, 2, 3, 4, 5, 6, 7, 0])


def test_two_roots_and_crossed_sequences_are_named():
    with pytest.raises(InconsistentTraversalsError, match="pre begins with 'a', post does not end with it, but goes on to 'b'"):  # fmt: skip
        trees.ordered_from_pre_post("ab", "ab")
    with pytest.raises(InconsistentTraversalsError, match="no ordered tree has both sequences: pre holds 'b' at position 1"):  # fmt: skip
        trees.from_pre_post("abc", "cab")
    assert trees.count_pre_post([], []) == 1 and trees.ordered_from_pre_post("", "") == []
