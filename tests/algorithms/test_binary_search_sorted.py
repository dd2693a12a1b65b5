"""Positions in sorted sequences against counting, the standard bisect and NumPy."""

import bisect
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms.binary_search import count, equal_range, find, lower_bound, upper_bound
from dodona.algorithms.sorted_search import MANY
from dodona.errors import InputError, ShapeError
from dodona.oracles import search as scans

FORMS = {"list": list, "tuple": tuple, "array": lambda a: np.array(a, dtype=np.int64)}


@pytest.mark.parametrize("form", FORMS)
def test_every_short_sequence_agrees_with_counting(form):
    for n in range(7 if form == "list" else 5):
        for a in itertools.combinations_with_replacement(range(4), n):
            for x in range(-1, 5):
                up, down = FORMS[form](a), FORMS[form](a[::-1])
                assert equal_range(up, x) == (bisect.bisect_left(a, x), bisect.bisect_right(a, x))
                assert equal_range(up, x) == scans.bounds_by_counting(a, x)
                assert equal_range(down, x, reverse=True) == scans.bounds_by_counting(
                    a[::-1], x, reverse=True
                )
                assert count(up, x) == a.count(x)
                assert find(up, x) == scans.first_index(a, x)
                assert find(down, x, reverse=True) == scans.first_index(a[::-1], x)


@pytest.mark.parametrize("size", [5, MANY + 77])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int16])
def test_many_queries_agree_with_numpy(dtype, size):
    rng = np.random.default_rng(1)
    a = np.sort(rng.integers(-300, 300, 1001).astype(dtype))
    x = rng.integers(-310, 310, size).astype(dtype)
    if a.dtype.kind == "f":
        a = np.sort(
            np.concatenate([a, np.array([-np.inf, np.inf, np.inf, np.nan, np.nan], dtype=dtype)])
        )
        x[:4] = [np.inf, -np.inf, np.nan, -0.0]
    np.testing.assert_array_equal(lower_bound(a, x), np.searchsorted(a, x))
    np.testing.assert_array_equal(upper_bound(a, x), np.searchsorted(a, x, "right"))
    if a.dtype.kind == "i":
        down = a[::-1]
        np.testing.assert_array_equal(
            lower_bound(down, x, reverse=True), len(a) - np.searchsorted(a, x, "right")
        )
        np.testing.assert_array_equal(
            upper_bound(down, x, reverse=True), len(a) - np.searchsorted(a, x)
        )


@given(st.lists(st.floats(allow_nan=False), max_size=30), st.floats(allow_nan=False))
def test_doubles_with_infinities_agree_with_numpy(values, x):
    a = np.sort(np.array(values))
    assert lower_bound(a, x) == np.searchsorted(a, x) == lower_bound(a.tolist(), x)
    assert upper_bound(a, x) == np.searchsorted(a, x, "right") == upper_bound(a.tolist(), x)


def test_queries_keep_their_shape_and_few_keys_are_enough():
    x = np.arange(2 * MANY).reshape(2, MANY)
    assert lower_bound(np.array([3]), x).shape == (2, MANY)
    np.testing.assert_array_equal(lower_bound(np.array([], dtype=np.int64), x), np.zeros_like(x))
    np.testing.assert_array_equal(lower_bound([3, 9], np.array([3, 4, 10])), [0, 1, 2])
    np.testing.assert_array_equal(
        find(np.array([3, 9]), np.array([[3, 4], [9, 10]])), [[0, -1], [1, -1]]
    )
    np.testing.assert_array_equal(find(np.array([], dtype=np.int64), np.array([3])), [-1])
    np.testing.assert_array_equal(count(np.array([3, 3, 9]), np.array([3, 4])), [2, 0])


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6),
    st.one_of(st.floats(), st.integers(-(2**70), 2**70)),
)
def test_a_number_of_another_type_is_compared_exactly(values, x):
    ordered = sorted(values)
    a = np.array(ordered, dtype=np.int64)
    if isinstance(x, float) and math.isnan(x):
        assert lower_bound(a, x) == upper_bound(a, x) == len(a)
    else:
        assert lower_bound(a, x) == sum(v < x for v in ordered)
        assert upper_bound(a, x) == sum(v <= x for v in ordered)


@given(
    st.lists(st.floats(width=32, allow_nan=False), max_size=6),
    st.one_of(st.floats(allow_nan=False), st.integers(-(2**70), 2**70)),
)
def test_a_double_is_compared_exactly_with_single_precision(values, x):
    ordered = sorted(values)
    a = np.array(ordered, dtype=np.float32)
    assert lower_bound(a, x) == sum(v < x for v in ordered)
    assert upper_bound(a, x) == sum(v <= x for v in ordered)


def test_integers_beyond_the_doubles_are_searched():
    assert lower_bound(np.array([1.0, 2.0]), 10**400) == 2
    assert lower_bound(np.array([1.0, 2.0]), -(10**400)) == 0


@dataclass
class Person:
    name: str
    age: int


PEOPLE = [Person("a", 20), Person("b", 30), Person("c", 30), Person("d", 41)]


def test_key_applies_to_elements_and_x_of_to_x():
    assert equal_range(PEOPLE, 30, key=lambda p: p.age) == (1, 3)
    assert lower_bound(PEOPLE, Person("x", 30), key=lambda p: p.age, x_of=lambda p: p.age) == 1
    assert find(PEOPLE, Person("x", 41), key=lambda p: p.age, x_of=lambda p: p.age) == 3
    assert lower_bound(PEOPLE[::-1], 30, key=lambda p: p.age, reverse=True) == 1
    np.testing.assert_array_equal(
        lower_bound(PEOPLE, np.array([20, 35]), key=lambda p: p.age), [0, 3]
    )
    with pytest.raises(
        TypeError,
        match=r"key is applied to the elements only\. Search for key\(x\), or pass x_of=key",
    ):
        lower_bound(PEOPLE, Person("x", 30), key=lambda p: p.age)
    with pytest.raises(TypeError, match="not supported"):
        lower_bound([1, 2], "a")


def test_the_form_with_early_exit_compares_more():
    a = list(range(0, 200, 2))
    for x in range(-1, 200):
        early = find(a, x, early_exit=True, return_info=True)
        plain = find(a, x, return_info=True)
        assert early.value == plain.value == scans.first_index(a, x)
        assert plain.evaluations <= 7 + 1  # ceil(log2 101) and the test for equality
        assert early.evaluations <= 2 * 7
    absent = [find(a, x, early_exit=True, return_info=True).evaluations for x in range(1, 199, 2)]
    assert min(absent) > 8
    assert find([5, 5, 5], 5, early_exit=True) == 1  # any of the equal ones
    assert find([9, 7, 4], 4, reverse=True, early_exit=True) == 2
    assert find([9, 7, 4], 5, reverse=True, return_info=True).value == -1


def test_order_and_nan_are_checked_on_request_only():
    assert lower_bound([3, 1, 2], 5) == 3
    for a in ([1, 5, 2, 3, 1], np.array([1, 5, 2, 3, 1])):
        with pytest.raises(
            InputError, match=r"a is not ascending: a\[1\] = .*5\)? and a\[2\] = .*2"
        ):
            lower_bound(a, 3, validate=True)
    with pytest.raises(InputError, match=r"a is not descending: a\[0\] = 1 and a\[1\] = 2"):
        find([1, 2], 2, reverse=True, validate=True)
    for a in ([1.0, math.nan, 2.0], np.array([1.0, math.nan, 2.0])):
        with pytest.raises(InputError, match=r"a\[1\] is NaN"):
            upper_bound(a, 3.0, validate=True)
    with pytest.raises(InputError, match=r"x is NaN"):
        equal_range([1.0, 2.0], math.nan, validate=True)
    assert equal_range([1, 2, 2, 3], 2, validate=True) == (1, 3)
    assert find([1, 2], 2, early_exit=True, validate=True) == 1


def test_what_can_not_be_searched_is_named():
    with pytest.raises(ShapeError, match=r"sorted array \[n\], got shape \(2, 2\)"):
        lower_bound(np.zeros((2, 2)), 1.0)
    with pytest.raises(TypeError, match="torch.searchsorted"):
        lower_bound(torch.arange(3), 1)
    with pytest.raises(InputError, match=r"for one x, got queries of shape \(1,\)"):
        find([1], np.array([1]), early_exit=True)
