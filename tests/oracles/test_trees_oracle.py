"""The oracles of trees agree with each other: shapes, classes, and the identities that count them."""

from collections import Counter

import pytest

from dodona.oracles import trees as oracle

CATALAN = [1, 1, 2, 5, 14, 42, 132, 429, 1430, 4862, 16796]
MOTZKIN = [1, 1, 2, 4, 9, 21, 51, 127, 323, 835]


def test_shapes_are_distinct_and_counted_by_catalan_numbers():
    for n in range(9):
        found = oracle.shapes(n)
        assert len(set(found)) == len(found) == CATALAN[n] == oracle.catalan(n)
    assert oracle.catalan(10) == CATALAN[10]


def test_ordered_shapes_are_catalan_numbers_too():
    for n in range(1, 9):
        assert len(set(oracle.ordered_shapes(n))) == CATALAN[n - 1]


def test_classes_of_equal_pre_and_post_are_counted_by_motzkin_numbers():
    assert [oracle.motzkin(n) for n in range(10)] == MOTZKIN
    for n in range(1, 9):
        posts = Counter(
            tuple(oracle.postorder(oracle.labelled(s, range(n)))) for s in oracle.shapes(n)
        )
        assert len(posts) == MOTZKIN[n - 1]
        assert Counter(posts.values()) == Counter(oracle.class_sizes(n))


@pytest.mark.parametrize("n", range(1, 21))
def test_class_sizes_sum_to_all_trees(n):
    # Touchard 1924: sum over b of 2^(n-1-2b) C(n-1, 2b) Catalan(b) = Catalan(n)
    sizes = oracle.class_sizes(n)
    assert sum(size * number for size, number in sizes.items()) == oracle.catalan(n)
    assert sum(sizes.values()) == oracle.motzkin(n - 1)


def test_the_search_over_shapes_finds_the_one_tree_and_the_whole_class():
    for shape in oracle.shapes(4):
        t = oracle.labelled(shape, "abcd")
        pre, ino, post = oracle.preorder(t), oracle.inorder(t), oracle.postorder(t)
        assert oracle.trees_with(pre=pre, ino=ino) == [t] == oracle.trees_with(ino=ino, post=post)
        assert oracle.trees_with(ino=ino, level=oracle.levelorder(t)) == [t]
        members = oracle.trees_with(pre=pre, post=post)
        assert t in members and len(members) == 2 ** oracle.only_children(pre, post)
        assert oracle.rebuild(pre, ino) == t
        assert oracle.mirror(oracle.mirror(t)) == t


def test_depths_and_sizes_of_a_small_tree():
    t = ("a", ("b", None, ("c", None, None)), ("d", None, None))
    assert oracle.depths(t) == {"a": 0, "b": 1, "c": 2, "d": 1}
    assert oracle.sizes(t) == {"a": 4, "b": 2, "c": 1, "d": 1}
    assert oracle.zigzag(t) == ["a", "d", "b", "c"]
    assert list(oracle.gray_neighbours([t, t])) == [0]
