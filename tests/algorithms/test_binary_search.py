"""The templates find every boundary with ceil(log2 k) questions, and say when there is none."""

import doctest
import importlib
import inspect
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import binary_search as searches
from dodona.algorithms.binary_search import (
    Step,
    audit_monotone,
    first_true,
    last_true,
)
from dodona.algorithms.interval_exclusion import integer_range, locate
from dodona.algorithms.search_record import Questions
from dodona.errors import InputError, NonMonotoneError, NoSolutionError
from dodona.oracles import search as scans

FILES = (
    "search_record", "interval_exclusion", "float_search", "monotone_audit", "batch_search", "sorted_search",
    "shaped_search", "search_answers", "noisy_search", "open_search", "kl_coefficient",
)  # fmt: skip


@pytest.mark.parametrize("check", ["none", "ends", "probes", "full"])
def test_every_step_of_every_short_range_is_found(check):
    for n in range(65 if check in ("none", "ends") else 20):
        for k in range(n + 1):
            assert first_true(lambda i, k=k: i >= k - 5, -5, n - 5, check=check) == k - 5
            assert last_true(lambda i, k=k: i < k - 5, -5, n - 5, check=check) == k - 6


def test_questions_reach_the_bound_and_never_pass_it():
    for n in range(65):
        for search, turn in (
            (first_true, lambda k: lambda i: i >= k),
            (last_true, lambda k: lambda i: i < k),
        ):
            plain = [
                search(turn(k), 0, n, check="none", return_info=True).evaluations
                for k in range(n + 1)
            ]
            ends = [search(turn(k), 0, n, return_info=True).evaluations for k in range(n + 1)]
            assert max(plain) == n.bit_length()  # ceil(log2(n + 1))
            assert max(ends) <= n.bit_length() + 2


def test_the_far_end_is_never_asked():
    for n in range(1, 20):
        for k in range(n + 1):
            asked: list[int] = []
            first_true(lambda i, k=k, asked=asked: asked.append(i) or i >= k, 0, n)
            last_true(lambda i, k=k, asked=asked: asked.append(i) or i < k, 0, n)
            assert set(asked) <= set(range(n))
            assert len(asked) <= 2 * (n.bit_length() + 2)


def test_no_point_is_asked_twice():
    asked: list[int] = []
    first_true(lambda i: asked.append(i) or i >= 700, 0, 1000, check="full")
    assert sorted(asked) == list(range(1000))


def test_the_trace_tells_every_round():
    result = first_true(lambda i: i >= 4, 0, 10, check="none", return_info=True)
    assert result.trace == (
        Step(0, 5, 10, True),
        Step(0, 2, 5, False),
        Step(3, 4, 5, True),
        Step(3, 3, 4, False),
    )
    assert (result.value, result.bracket, result.evaluations) == (4, (3, 4), 4)
    upper = last_true(lambda i: i <= 4, 0, 10, check="none", return_info=True)
    assert upper.trace[0] == Step(-1, 4, 9, True)
    assert upper.bracket == (4, 5)


@given(st.integers(-(10**30), 10**30), st.integers(0, 10**30), st.data())
def test_integers_of_any_size_are_searched(lo, length, data):
    k = data.draw(st.integers(lo, lo + length))
    assert first_true(lambda i: i >= k, lo, lo + length) == k
    assert last_true(lambda i: i < k, lo, lo + length) == k - 1


@pytest.mark.parametrize("falling", [False, True])
def test_a_full_check_refuses_exactly_what_does_not_turn_once(falling):
    search = last_true if falling else first_true
    for n in range(1, 9):
        for row in itertools.product((False, True), repeat=n):
            if scans.turns_once(row, falling=falling):
                scan = scans.last_true_by_scan(row) if falling else scans.first_true_by_scan(row)
                assert search(row.__getitem__, 0, n, check="full") == scan
                continue
            with pytest.raises(NonMonotoneError) as caught:
                search(row.__getitem__, 0, n, check="full")
            a, b = caught.value.witness
            assert a < b
            assert row[a] == (not falling) and row[b] == falling


def test_one_search_alone_can_not_notice_anything():
    assert first_true(lambda i: i % 2 == 0, 0, 100, check="none") in range(101)


def test_contradicting_ends_are_noticed_by_default():
    with pytest.raises(
        NonMonotoneError, match=r"is True at 0 and False at 99; False\.\.False True\.\.True"
    ):
        first_true(lambda i: i % 2 == 0, 0, 100)
    with pytest.raises(
        NonMonotoneError, match=r"is False at 0 and True at 99; True\.\.True False\.\.False"
    ):
        last_true(lambda i: i % 2 == 1, 0, 100)


def test_probes_notice_a_dent_as_often_as_promised():
    """One tenth wrong, 10 probes: missed with .9^10 = .3487; 400 seeds, five standard errors = .12."""
    missed = 0
    for seed in range(400):
        try:
            first_true(
                lambda i: i >= 100 and not 700 <= i < 800,
                0,
                1000,
                check="probes",
                num_probes=10,
                seed=seed,
            )
            missed += 1
        except NonMonotoneError:
            pass
    assert abs(missed / 400 - 0.9**10) < 0.12


def test_probes_of_one_seed_are_the_same():
    def points(seed):
        asked: list[int] = []
        first_true(lambda i: asked.append(i) or i >= 3, 0, 10**9, check="probes", seed=seed)
        return asked

    assert points(1) == points(1) != points(2)


def test_nothing_found_is_a_sentinel_or_an_error():
    assert first_true(lambda i: False, 3, 9) == 9
    assert last_true(lambda i: False, 3, 9) == 2
    assert (first_true(lambda i: True, 4, 4), last_true(lambda i: True, 4, 4)) == (4, 3)
    with pytest.raises(NoSolutionError, match=r"False from 3 to 8 \(6 points\)"):
        first_true(lambda i: False, 3, 9, strict=True)
    with pytest.raises(NoSolutionError, match="drop strict=True to get 2"):
        last_true(lambda i: False, 3, 9, strict=True)


@pytest.mark.parametrize("answer", [None, 1, np.array([True]), "yes", np.float64(1.0)])
def test_an_answer_that_is_no_bool_is_refused(answer):
    with pytest.raises(TypeError, match=rf"must return a bool, got {type(answer).__name__}"):
        first_true(lambda i: answer, 0, 5)


def test_numpy_answers_and_ends_are_taken():
    assert first_true(lambda i: np.bool_(i >= 3), np.int64(0), np.int8(9)) == 3


@pytest.mark.parametrize("search", [first_true, last_true])
def test_bad_ranges_and_checks_are_named(search):
    with pytest.raises(InputError, match="got lo=5 and hi=2"):
        search(bool, 5, 2)
    with pytest.raises(TypeError, match="got 0.5 and 3. For floats use first_true_float"):
        integer_range(0.5, 3, instead="first_true_float")
    with pytest.raises(InputError, match="none, ends, probes, full, got 'all'"):
        locate(Questions(bool), 0, 3, check="all")
    with pytest.raises(InputError, match="at most 65536; the range has 70000"):
        search(bool, 0, 70_000, check="full")


@pytest.mark.parametrize("falling", [False, True])
def test_an_audit_within_its_budget_is_a_proof(falling):
    for n in range(1, 9):
        for row in itertools.product((False, True), repeat=n):
            audit = audit_monotone(row.__getitem__, 0, n, falling=falling)
            assert audit.complete and audit.excluded_share() == 0.0
            assert (audit.witness is None) == scans.turns_once(row, falling=falling)
            if audit.witness:
                a, b = audit.witness
                assert a < b and row[a] == (not falling) and row[b] == falling


def test_an_audit_keeps_its_budget_and_says_what_it_would_have_seen():
    asked: list[int] = []
    audit = audit_monotone(lambda i: asked.append(i) or i >= 123_456, 0, 10**9, budget=80)
    assert len(asked) == audit.evaluations <= 80
    assert audit.boundary == 123_456 and audit.witness is None and not audit.complete
    assert audit.excluded_share(0.95) == pytest.approx(1 - 0.05 ** (1 / audit.num_probes))


def test_an_audit_of_floats_finds_a_dent_between_ordinary_numbers():
    audit = audit_monotone(lambda x: x > 0.3 and not 0.5 < x < 0.7, 0.0, 1.0, seed=4)
    a, b = audit.witness
    assert 0.3 < a < b <= 0.7


def test_bad_audits_are_named():
    with pytest.raises(
        InputError, match="budget must be at least 22 for a range of 1000000 points"
    ):
        audit_monotone(bool, 0, 10**6, budget=5)
    with pytest.raises(InputError, match="empty range"):
        audit_monotone(bool, 3, 3)
    with pytest.raises(InputError, match=r"confidence must be in \(0, 1\), got 1"):
        audit_monotone(lambda i: i > 2, 0, 5).excluded_share(1)


def test_everything_public_is_offered_by_one_module():
    for name in searches.__all__:
        assert inspect.getdoc(getattr(searches, name)), name
    text = searches.__doc__
    assert (
        "right = mid" in text
        and "left = mid + 1" in text
        and "The rule" in text
        and "Termination" in text
    )


@pytest.mark.parametrize("file", FILES)
def test_examples_in_docstrings_hold(file):
    module = importlib.import_module(f"dodona.algorithms.{file}")
    assert doctest.testmod(module).failed == 0
