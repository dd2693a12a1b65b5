"""The exact neighbouring double, wherever it lies, in at most 64 questions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms.binary_search import (
    first_true_float,
    from_ordered_bits,
    last_true_float,
    ordered_bits,
)
from dodona.errors import InputError, NonMonotoneError, NoSolutionError
from dodona.oracles import search as scans

INF = math.inf
numbers = st.floats(allow_nan=False)


@given(numbers, numbers)
def test_bits_stand_in_the_order_of_the_numbers(x, y):
    assert (ordered_bits(x) < ordered_bits(y)) == (x < y)
    assert from_ordered_bits(ordered_bits(x)) == x


@given(st.floats(allow_nan=False, width=32))
def test_single_precision_bits_come_back(x):
    assert from_ordered_bits(ordered_bits(x, "float32"), "float32") == x


def test_neighbours_have_neighbouring_places():
    for middle in (0.0, 1.0, -1.0, 2.0**-1022, 1.7976931348623157e308):
        row = scans.neighbours(middle, 2**6)
        places = [ordered_bits(x) for x in row if math.isfinite(x)]
        assert places == list(range(places[0], places[0] + len(places)))


@pytest.mark.parametrize("middle", [0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.0, -3.0])
def test_every_neighbour_is_found(middle):
    row = scans.neighbours(middle, 2**11 if middle == 0.0 else 40)
    for t in row[:: 64 if middle == 0.0 else 5]:
        assert first_true_float(lambda x, t=t: x >= t, row[0], row[-1]) == t
        assert last_true_float(lambda x, t=t: x <= t, row[0], row[-1]) == t


@given(numbers)
def test_any_number_is_found_on_the_whole_line(t):
    first = first_true_float(lambda x: x >= t, -INF, INF, check="none", return_info=True)
    last = last_true_float(lambda x: x <= t, -INF, INF, check="none", return_info=True)
    assert first.value == last.value == t
    assert max(first.evaluations, last.evaluations) <= 64


def test_the_root_of_two_is_exact():
    above = first_true_float(lambda x: Fraction(x) ** 2 >= 2, 0.0, 1e308, return_info=True)
    assert Fraction(above.value) ** 2 >= 2 > Fraction(math.nextafter(above.value, 0)) ** 2
    assert above.bracket == (math.nextafter(above.value, 0), above.value)
    assert above.evaluations <= 63 + 2


def test_the_last_allowed_step_is_allowed_and_the_next_is_not():
    ok = lambda x: x**3 - x <= 5.0  # noqa: E731
    x = last_true_float(ok, 0.0, 100.0)
    assert ok(x) and not ok(math.nextafter(x, INF))


def test_ends_are_closed_where_an_answer_needs_them():
    assert last_true_float(lambda x: True, 0.0, 1.0) == 1.0
    assert last_true_float(lambda x: False, 0.0, 1.0) == 0.0
    assert first_true_float(lambda x: True, 0.0, 1.0) == 0.0
    assert first_true_float(lambda x: False, 0.0, 1.0) == 1.0
    assert first_true_float(bool, 2.0, 2.0) == last_true_float(bool, 2.0, 2.0) == 2.0


def test_the_guarded_end_is_never_asked():
    asked: list[float] = []
    first_true_float(lambda x: asked.append(x) or x > 0.3, 0.0, 1.0, check="probes")
    assert 1.0 not in asked
    asked.clear()
    last_true_float(lambda x: asked.append(x) or x <= 0.3, 0.0, 1.0, check="probes")
    assert 0.0 not in asked


def test_minus_zero_is_zero():
    assert first_true_float(lambda x: x >= 0.5, -0.0, 1.0) == 0.5
    assert first_true_float(lambda x: x >= 0.0, -1.0, 1.0) == 0.0


def test_a_tolerance_ends_early_at_a_point_that_holds():
    exact = first_true_float(lambda x: x * x >= 2.0, 0.0, 2.0, return_info=True)
    rough = first_true_float(lambda x: x * x >= 2.0, 0.0, 2.0, xtol=1e-3, return_info=True)
    assert rough.evaluations < exact.evaluations - 30
    a, b = rough.bracket
    assert b - a <= 1e-3 and a * a < 2.0 <= b * b and rough.value == b
    last = last_true_float(lambda x: x * x <= 2.0, 0.0, 2.0, xtol=1e-3, return_info=True)
    assert last.value == last.bracket[0] and last.value**2 <= 2.0 < last.bracket[1] ** 2


def test_single_precision_takes_half_the_questions():
    third = first_true_float(
        lambda x: Fraction(float(x)) * 3 >= 1, 0.0, 4.0, dtype="float32", return_info=True
    )
    assert third.value == float(np.float32(1) / np.float32(3)) and third.evaluations <= 34
    kinds = set()
    first_true_float(lambda x: kinds.add(type(x)) or x > 1, 0.0, 4.0, dtype="float32")
    assert kinds == {np.float32}


def test_probes_fall_on_ordinary_numbers_too():
    with pytest.raises(NonMonotoneError) as caught:
        first_true_float(lambda x: x > 0.3 and not 0.5 < x < 0.7, 0.0, 1.0, check="probes")
    assert 0.3 < caught.value.witness[0] < caught.value.witness[1] < 0.7


def test_a_full_check_of_neighbours_is_possible():
    row = scans.neighbours(1.0, 100)
    holes = set(row[120:124])
    with pytest.raises(NonMonotoneError):
        first_true_float(lambda x: x >= row[50] and x not in holes, row[0], row[-1], check="full")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((math.nan, 1.0), {}, "lo is NaN"),
        ((0.0, math.nan), {}, "hi is NaN"),
        ((1.0, 0.0), {}, "got lo=1.0 and hi=0.0"),
        ((0.0, 1.0), {"xtol": 0.0}, "xtol must be > 0, got 0.0"),
        ((0.0, 0.1), {"dtype": "float32"}, "hi = 0.1 is not a float32 number"),
    ],
)
def test_bad_ranges_are_named(arguments, options, message):
    for search in (first_true_float, last_true_float):
        with pytest.raises(InputError, match=message):
            search(lambda x: x > 0.5, *arguments, **options)


def test_strictness_holds_for_floats():
    with pytest.raises(NoSolutionError, match="False from 0.0 to 0.9999999999999999"):
        first_true_float(lambda x: False, 0.0, 1.0, strict=True)
    with pytest.raises(TypeError, match="must return a bool, got ndarray"):
        first_true_float(lambda x: np.array([x > 0.5]), 0.0, 1.0)
