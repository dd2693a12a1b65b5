"""Trees from traversals equal their definition on every small shape; what is wrong is named with its place."""

import doctest
import importlib
import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import _tree_labels, trees
from dodona.errors import (
    DuplicateLabelError,
    InconsistentTraversalsError,
    InputError,
    ShapeError,
)
from dodona.oracles import trees as oracle

SMALL = [oracle.labelled(s, range(n)) for n in range(8) for s in oracle.shapes(n)]
EIGHT = [oracle.labelled(s, range(8)) for s in oracle.shapes(8)]
BUILDERS = {
    "from_pre_in": ("preorder", "inorder"),
    "from_post_in": ("postorder", "inorder"),
    "from_in_level": ("inorder", "levelorder"),
}
LONG = 200_000


def _pair(name, t):
    return [getattr(oracle, walk)(t) for walk in BUILDERS[name]]


def _flat_pair(name, tree):
    return [getattr(trees, walk)(tree) for walk in BUILDERS[name]]


def _random(n, seed=0, labels=None):
    return trees.random_tree(n, rng=np.random.default_rng(seed), labels=labels)


# ---------------------------------------------------------------------- right answers
@pytest.mark.parametrize("name", BUILDERS)
def test_every_shape_up_to_8_nodes_comes_back(name):
    build = getattr(trees, name)
    assert [t for t in (*SMALL, *EIGHT) if build(*_pair(name, t)).to_nested() != t] == []


@pytest.mark.parametrize("name", BUILDERS)
def test_a_result_is_a_tree_in_preorder_numbers(name):
    for t in SMALL:
        tree = getattr(trees, name)(*_pair(name, t))
        assert trees.Tree(tree.left, tree.right, tree.label) == tree
        assert tree.label.tolist() == oracle.preorder(t)


def test_published_trees():
    tree = trees.from_pre_in([3, 9, 20, 15, 7], [9, 3, 15, 20, 7])  # LeetCode 105
    assert trees.serialize(tree, order="level").tolist() == [3, 9, 20, None, None, 15, 7]
    assert trees.from_post_in([9, 15, 7, 20, 3], [9, 3, 15, 20, 7]) == tree  # LeetCode 106


@pytest.mark.parametrize("name", BUILDERS)
def test_exactly_catalan_many_permutations_have_a_tree(name):
    along = "levelorder" if name == "from_in_level" else BUILDERS[name][0]
    for n in range(1, 7):
        built = 0
        for p in itertools.permutations(range(n)):
            pair = (list(p), list(range(n))) if name == "from_in_level" else (list(range(n)), list(p))  # fmt: skip
            try:
                t = getattr(trees, name)(*pair).to_nested()
            except InconsistentTraversalsError:
                continue
            built += 1
            assert getattr(oracle, along)(t) == list(range(n)) and oracle.inorder(t) == list(p)
        assert built == oracle.catalan(n)


@given(st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_random_trees_agree_with_slices(n, seed):
    rng = np.random.default_rng(seed)
    tree = trees.random_tree(n, rng=rng, labels=rng.permutation(n))
    pre, ino, post, level = (
        getattr(trees, walk)(tree) for walk in ("preorder", "inorder", "postorder", "levelorder")
    )
    assert trees.from_pre_in(pre, ino).to_nested() == oracle.rebuild(pre.tolist(), ino.tolist())
    assert (
        trees.from_pre_in(pre, ino) == trees.from_post_in(post, ino)
        == trees.from_in_level(ino, level) == tree
    )  # fmt: skip


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_postorder_backwards_is_the_preorder_of_the_mirror_image(n, seed):
    tree = _random(n, seed)
    post, ino = trees.postorder(tree), trees.inorder(tree)
    assert trees.from_post_in(post, ino) == trees.from_pre_in(post[::-1], ino[::-1]).mirror()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=30))
def test_bst_from_pre_equals_pre_with_sorted_labels(keys):
    tree = trees.Tree([], [], []) if not keys else _inserted(keys)
    pre = trees.preorder(tree)
    assert trees.bst_from_pre(pre) == trees.from_pre_in(pre, np.sort(pre)) == tree


def _inserted(keys):
    """A search tree by one insertion after another."""
    left, right = [-1] * len(keys), [-1] * len(keys)
    for v in range(1, len(keys)):
        u, parent = 0, -1
        while u >= 0:
            parent, side = u, left if keys[v] < keys[u] else right
            u = side[u]
        side[parent] = v
    return trees.Tree.from_links(left, right, keys)


# ---------------------------------------------------------------------- labels of every kind
@pytest.mark.parametrize(
    "kind",
    ["int8", "int32", "uint32", "uint64", "float64", "str", "objects", "tuples", "strided", "range",
     "beyond 64 bits", "equal hashes", "numpy scalars", "bytes"],
)  # fmt: skip
def test_labels_of_every_kind(kind):
    ino = [1, 0, 3, 2, 4]
    convert = {
        "int8": lambda x: np.array(x, dtype=np.int8) - 2,
        "int32": lambda x: np.array(x, dtype=np.int32),
        "uint32": lambda x: np.array(x, dtype=np.uint32) + np.uint32(2**31),
        "uint64": lambda x: np.array(x, dtype=np.uint64) + np.uint64(2**63 - 2),
        "float64": lambda x: np.array(x) / 2,
        "str": lambda x: "".join("abcde"[i] for i in x),
        "objects": lambda x: [("a", 1, 2.5, b"c", None)[i] for i in x],
        "tuples": lambda x: [(i, i) for i in x],
        "strided": lambda x: np.repeat(np.array(x), 3)[::3],
        "range": lambda x: range(5) if x == list(range(5)) else x,
        "beyond 64 bits": lambda x: [2**70 + i for i in x],
        "equal hashes": lambda x: [i * (2**61 - 1) for i in x],  # hash(k * (2^61 - 1)) = 0
        "numpy scalars": lambda x: [np.int16(i) for i in x],
        "bytes": lambda x: bytes(x),
    }[kind]
    tree = trees.from_pre_in(convert([0, 1, 2, 3, 4]), convert(ino))
    assert tree.left.tolist() == [1, -1, 3, -1, -1] and tree.right.tolist() == [2, -1, 4, -1, -1]
    assert list(trees.inorder(tree)) == list(convert(ino))
    level = convert([0, 1, 2, 3, 4])
    assert trees.from_in_level(convert(ino), level) == tree
    assert trees.from_post_in(convert([1, 3, 4, 2, 0]), convert(ino)) == tree


def test_integers_far_apart_are_found_as_well():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.unique(rng.integers(-(2**63), 2**63 - 1, 5000)))
    tree = _random(len(labels), labels=labels)
    for name in BUILDERS:
        assert getattr(trees, name)(*_flat_pair(name, tree)) == tree
    twice = labels.copy()
    twice[4000] = twice[7]
    with pytest.raises(DuplicateLabelError, match="at positions 7 and 4000"):
        trees.from_pre_in(twice, labels)


def test_signed_and_unsigned_64_bit_labels_are_not_mixed_up():
    pre = np.array([2**64 - 1, 0], dtype=np.uint64)  # the same bits as -1
    with pytest.raises(InputError, match="ino holds -1 at position 0"):
        trees.from_pre_in(pre, np.array([-1, 0]))


def test_a_tree_does_not_share_memory_with_its_input():
    pre, ino = np.array([0, 1]), np.array([1, 0])
    tree = trees.from_pre_in(pre, ino)
    pre[0] = 7
    assert tree.label.tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        tree.label[0] = 7


def test_no_traversal_at_all_is_the_empty_tree():
    for name in (*BUILDERS, "from_pre_post"):
        assert len(getattr(trees, name)([], [])) == 0
    assert len(trees.bst_from_pre([])) == 0


# ---------------------------------------------------------------------- depth and repetition
@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("side", ["left", "right", "zigzag"])
def test_a_path_of_200_000_nodes_needs_no_recursion(name, side):
    after = np.append(np.arange(1, LONG), -1)
    to_left = {"left": True, "right": False, "zigzag": np.arange(LONG) % 2 == 0}[side]
    path = trees.Tree(np.where(to_left, after, -1), np.where(to_left, -1, after), np.arange(LONG))
    assert getattr(trees, name)(*_flat_pair(name, path)) == path


def test_a_second_call_and_a_second_thread_change_nothing():
    expected = _random(2000, labels=np.arange(2000))
    pre, ino = trees.preorder(expected), trees.inorder(expected)
    found = [trees.from_pre_in(pre, ino), trees.from_pre_in(pre, ino)]
    work = [
        threading.Thread(target=lambda: found.append(trees.from_pre_in(pre, ino))) for _ in range(8)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 10 and all(tree == expected for tree in found)


# ---------------------------------------------------------------------- what is wrong
def _only_candidate(ino, rank):
    """The tree in which every root is the label of least rank: the only one that may fit."""
    if not ino:
        return None
    r = min(range(len(ino)), key=lambda i: rank[ino[i]])
    return (ino[r], _only_candidate(ino[:r], rank), _only_candidate(ino[r + 1 :], rank))


@pytest.mark.parametrize("name", BUILDERS)
def test_inconsistent_traversals_are_diagnosed_at_the_first_difference(name):
    words = "abcde"
    walk = next(w for w in BUILDERS[name] if w != "inorder")
    refused = 0
    for p in itertools.permutations(words):
        ino = list(p)
        pair = (words, ino) if name != "from_in_level" else (ino, words)
        backward = name == "from_post_in"
        rank = {x: -i if backward else i for i, x in enumerate(words)}
        implied = getattr(oracle, walk)(_only_candidate(ino, rank))
        if implied == list(words):
            continue
        i = next(i for i in range(5) if implied[i] != words[i])
        with pytest.raises(InconsistentTraversalsError) as caught:
            getattr(trees, name)(*pair)
        assert caught.value.position == i and caught.value.labels == (words[i], implied[i])
        refused += 1
    assert refused == 120 - 42


def test_the_message_of_an_inconsistent_pair():
    message = (
        r"no binary tree has both sequences: pre holds 2 at position 1, and the only candidate that ino "
        r"leaves has 3 there\. Look for a label out of place"
    )
    with pytest.raises(InconsistentTraversalsError, match=message):
        trees.from_pre_in([1, 2, 3], [3, 1, 2])
    with pytest.raises(
        InconsistentTraversalsError, match="level holds 'c' at position 2, .* 'd' there"
    ):
        trees.from_in_level("bcad", "abcd")


@pytest.mark.parametrize(
    ("name", "pair", "error", "message"),
    [
        ("from_pre_in", ([1, 2], [1, 2, 3]), ShapeError, "pre holds 2 labels and ino holds 3"),
        ("from_pre_in", ([1, 2, 2], [1, 2, 3]), DuplicateLabelError, "pre holds 2 twice, at positions 1 and 2"),
        ("from_pre_in", ([1, 2, 3], [2, 3, 2]), DuplicateLabelError, "ino holds 2 twice, at positions 0 and 2"),
        ("from_pre_in", ("aba", "aab"), DuplicateLabelError, "pre holds 'a' twice, at positions 0 and 2"),
        ("from_pre_in", ("abc", "cbb"), DuplicateLabelError, "ino holds 'b' twice, at positions 1 and 2"),
        ("from_pre_in", ([1, 2], [2, 3]), InputError, "ino holds 3 at position 1 and pre does not hold it"),
        ("from_post_in", ("ab", "ca"), InputError, "ino holds 'c' at position 0 and post does not hold it"),
        ("from_in_level", ([1, 5], [1, 2]), InputError, "ino holds 5 at position 1 and level does not hold it"),
        ("from_pre_post", ([1, 5], [5, 2]), InputError, "post holds 2 at position 1 and pre does not hold it"),
        ("from_pre_in", ([np.nan, 1.0], [1.0, np.nan]), InputError, "pre holds nan at position 0, which is not equal to itself"),
        ("from_pre_in", ([1.0, 2.0], [1.0, np.nan]), InputError, "ino holds nan at position 1"),
        ("from_pre_in", (np.array([np.nan]), np.array([np.nan])), InputError, "pre holds nan"),
        ("from_pre_in", ([[1], [2]], [[2], [1]]), TypeError, "labels must be hashable, pre holds a list at position 0"),
        ("from_pre_in", (np.zeros((2, 2), int), [1, 2]), ShapeError, r"pre must be one-dimensional, got shape \(2, 2\)"),
        ("bst_from_pre", ([5, 2, 9, 3],), InconsistentTraversalsError, "pre holds 3 at position 3, right of 5 at position 0"),
        ("bst_from_pre", ([5, 2, 9, 2],), DuplicateLabelError, "pre holds 2 twice, at positions 1 and 3"),
        ("bst_from_pre", ([5, 2, 2],), DuplicateLabelError, "pre holds 2 twice, at positions 1 and 2"),
        ("bst_from_pre", (np.array([1.0, np.nan]),), InputError, "pre holds nan at position 1"),
        ("bst_from_pre", ([1, "a"],), TypeError, "labels of a search tree must have an order"),
    ],
)  # fmt: skip
def test_bad_input_is_named_with_its_place(name, pair, error, message):
    with pytest.raises(error, match=message) as caught:
        getattr(trees, name)(*pair)
    assert isinstance(caught.value, ValueError | TypeError)


def test_a_duplicate_carries_its_label_and_positions():
    with pytest.raises(DuplicateLabelError) as caught:
        trees.from_pre_in(np.array([2**64 - 1, 5, 2**64 - 1], dtype=np.uint64), [1, 2, 3])
    assert (caught.value.label, caught.value.positions) == (2**64 - 1, (0, 2))


def test_more_nodes_than_links_can_number_are_refused():
    many = np.broadcast_to(np.int8(0), _tree_labels.MOST + 1)
    with pytest.raises(InputError, match=r"pre holds 2147483648 labels, at most 2\^31 - 1"):
        trees.from_pre_in(many, many)


def test_a_long_label_is_cut_in_a_message():
    with pytest.raises(DuplicateLabelError, match=r"pre holds 'x{56}\.\.\. twice"):
        trees.from_pre_in(["x" * 500] * 2, ["x" * 500] * 2)


@pytest.mark.parametrize(
    "name",
    ["trees", "tree_arrays", "tree_walks", "tree_counting", "tree_markers", "tree_trace"],
)
def test_the_examples_of_the_documentation_hold(name):
    outcome = doctest.testmod(importlib.import_module(f"dodona.algorithms.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0
