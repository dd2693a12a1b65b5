"""Arrays in pieces and searches on the answer, against exhaustive lists and enumeration."""

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import binary_search as searches
from dodona.checks.binary_search import EXERCISES
from dodona.errors import InputError, NoSolutionError
from dodona.oracles import search as scans

small = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@pytest.mark.parametrize(("name", "arguments", "answer", "number"), EXERCISES)
def test_published_exercises(name, arguments, answer, number):
    assert getattr(searches, name)(*arguments) == answer
    assert searches.rotated_min([3, 4, 5, 1, 2]) == 1  # LeetCode 153
    assert searches.equal_range([5, 7, 7, 8, 8, 10], 8) == (
        3,
        5,
    )  # LeetCode 34, as a half-open range


def test_every_rotation_of_every_short_sequence():
    for n in range(1, 7):
        for a in map(list, itertools.combinations_with_replacement(range(4), n)):
            for cut in range(n):
                b = a[cut:] + a[:cut]
                assert searches.rotation(b) == scans.rotation_by_trial(b)
                assert searches.rotated_min(b) == min(b)
                for x in range(-1, 5):
                    i = searches.rotated_find(b, x)
                    assert b[i] == x if i >= 0 else x not in b


def test_a_rotation_without_duplicates_takes_log_n_comparisons():
    class Counted(int):
        compared = 0

        def __lt__(self, other):
            Counted.compared += 1
            return int(self) < int(other)

    n = 1024
    for cut in (0, 1, 500, n - 1):
        Counted.compared = 0
        a = [Counted((i + cut) % n) for i in range(n)]
        assert searches.rotated_min(a) == 0
        assert Counted.compared <= 2 * 10


def test_every_short_sequence_has_its_peak():
    for n in range(1, 7):
        for a in itertools.product(range(3), repeat=n):
            assert scans.is_peak(a, searches.find_peak(a))


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)), st.integers(-1, 22))
def test_mountains(rise, fall, x):
    a = [*sorted(rise), 21, *sorted(fall, reverse=True)]
    assert searches.mountain_find(a, x) == scans.first_index(a, x)


def test_a_slope_is_a_mountain_too():
    assert [searches.mountain_find(a, 2) for a in ([1, 2], [3, 2], [2], [])] == [1, 1, 0, -1]


@given(st.integers(1, 4), st.integers(1, 5), st.randoms(use_true_random=False))
def test_matrices(rows, columns, random):
    matrix = [sorted(random.randint(0, 9) for _ in range(columns)) for _ in range(rows)]
    matrix = [
        list(row)
        for row in zip(*(sorted(column) for column in zip(*matrix, strict=True)), strict=True)
    ]
    ranked = sorted(e for row in matrix for e in row)
    assert [searches.kth_in_matrix(matrix, k + 1) for k in range(len(ranked))] == ranked
    for x in range(-1, 11):
        assert searches.matrix_find(matrix, x) == scans.first_cell(matrix, x)


def test_ragged_rows_of_any_ordered_type_have_ranks():
    assert searches.kth_in_matrix([["b", "d"], [], ["a", "c", "z"]], 4) == "d"


@given(small, st.integers(1, 9))
def test_pieces_with_the_least_largest_sum(values, parts):
    assert searches.minimal_capacity(values, parts) == scans.split_by_enumeration(
        values, parts, exactly=False
    )
    if parts <= len(values):
        assert searches.minimal_largest_sum(values, parts) == scans.split_by_enumeration(
            values, parts
        )


@given(small, st.integers(0, 30))
def test_least_speed(piles, spare):
    hours = len(piles) + spare
    scan = scans.least_by_scan(
        lambda k: sum(math.ceil(p / k) for p in piles) <= hours, range(1, 13)
    )
    assert searches.minimal_speed(piles, hours) == searches.smallest_divisor(piles, hours) == scan


@given(st.lists(st.integers(1, 6), min_size=4, max_size=9), st.integers(1, 2), st.integers(1, 2))
def test_least_day(bloom, bouquets, flowers):
    def enough(day):
        runs = [len(list(g)) for opened, g in itertools.groupby(b <= day for b in bloom) if opened]
        return sum(r // flowers for r in runs) >= bouquets

    assert searches.minimal_days(bloom, bouquets, flowers) == scans.least_by_scan(
        enough, range(1, 7)
    )


@given(
    st.lists(st.integers(-9, 9), max_size=7), st.lists(st.integers(-9, 9), min_size=1, max_size=7)
)
def test_median_of_both(a, b):
    assert searches.median_of_two(sorted(a), sorted(b)) == statistics.median(a + b)


@given(st.lists(st.integers(0, 6), max_size=9), st.booleans())
def test_longest_increasing_is_one_and_is_longest(values, strict):
    found = searches.longest_increasing(values, strict=strict)
    assert len(found) == scans.longest_by_enumeration(values, strict=strict)
    rest = iter(values)
    assert all(any(e == v for v in rest) for e in found)
    assert all(p < q or (p == q and not strict) for p, q in itertools.pairwise(found))


@given(st.integers(0, 10**40))
def test_integer_square_roots(n):
    assert searches.integer_sqrt(n) == math.isqrt(n)


@given(st.integers(1, 8), st.data())
def test_duplicates(n, data):
    values = data.draw(st.lists(st.integers(1, n), min_size=n + 1, max_size=n + 1))
    repeated = {v for v in values if values.count(v) > 1}
    assert searches.duplicate_number(values) in repeated


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: searches.integer_sqrt(-1), InputError, "n must be >= 0, got -1"),
        (lambda: searches.minimal_speed([3, 0], 5), InputError, r"piles\[1\] must be >= 1, got 0"),
        (lambda: searches.minimal_speed([], 5), InputError, "piles must not be empty"),
        (
            lambda: searches.minimal_speed([3, 3], 1),
            NoSolutionError,
            "2 piles need 2 hours at any speed, got 1",
        ),
        (lambda: searches.minimal_capacity([3], 0), InputError, "days must be at least 1, got 0"),
        (
            lambda: searches.minimal_largest_sum([3], 2),
            NoSolutionError,
            "1 values can not be cut into 2 pieces",
        ),
        (
            lambda: searches.minimal_largest_sum([3, -1], 2),
            InputError,
            r"values\[1\] must be >= 0, got -1",
        ),
        (lambda: searches.minimal_days([1], 2, 1), NoSolutionError, "need 2 flowers, got 1"),
        (
            lambda: searches.duplicate_number([1, 4, 2]),
            InputError,
            r"values\[1\] = 4 is outside 1\.\.2",
        ),
        (lambda: searches.duplicate_number([1]), InputError, "at least two values"),
        (lambda: searches.kth_in_matrix([[1, 2]], 3), InputError, r"k must be in 1\.\.2, .*got 3"),
        (lambda: searches.kth_in_matrix([[3, 1, 2]], 1), InputError, "some row is not ascending"),
        (lambda: searches.median_of_two([], []), InputError, "two empty sequences"),
        (lambda: searches.rotation([]), InputError, "at least one element"),
        (lambda: searches.find_peak([]), InputError, "at least one element"),
        (
            lambda: searches.matrix_find([[1], [1, 2]], 1),
            InputError,
            "row 1 has 2 elements, row 0 has 1",
        ),
        (lambda: searches.integer_sqrt(2.5), TypeError, "integer"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
