"""Repeating rows are flagged exactly when their tail repeats, each row for itself."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import kmp
from dodona.errors import InputError, ShapeError
from dodona.oracles import strings

SETTINGS = [(2, 1, 3), (3, 1, 2), (2, 3, 4), (2, 1, 1), (4, 6, 5)]


@pytest.mark.parametrize(("min_repeats", "min_tokens", "max_period"), SETTINGS)
def test_every_small_row_is_flagged_as_brute_force_says(min_repeats, min_tokens, max_period):
    rows = np.array(list(itertools.product(range(3), repeat=6)))
    options = {"min_repeats": min_repeats, "min_tokens": min_tokens, "max_period": max_period}
    detector = kmp.RepeatDetector(**options)
    for t, column in enumerate(rows.T, start=1):
        flags = detector.step(column).tolist()
        seen = [tuple(row[:t].tolist()) for row in rows]
        assert flags == [strings.repeats(row, **options) for row in seen]
        assert flags == [strings.repeats_by_borders(row, **options) for row in seen]


@given(
    st.lists(st.integers(0, 1), min_size=1, max_size=40),
    st.sampled_from(SETTINGS),
)
def test_long_rows_wrap_around_the_memory_of_the_detector(row, setting):
    options = dict(zip(("min_repeats", "min_tokens", "max_period"), setting, strict=True))
    detector = kmp.RepeatDetector(**options)
    for t in range(1, len(row) + 1):
        assert detector.step(np.array([row[t - 1]])).tolist() == [
            strings.repeats(row[:t], **options)
        ]


def test_defaults_let_a_short_laugh_pass_and_stop_a_long_one():
    detector = kmp.RepeatDetector()
    flags = [bool(detector.step(np.array([17, t])).tolist()[0]) for t in range(40)]
    assert flags == [False] * 32 + [True] * 8
    assert not detector.step(np.array([18, 40])).any()


def test_rows_are_kept_copied_and_reordered():
    rows = np.array([[1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6], [7, 8, 7, 8, 7, 8]])
    detector = kmp.RepeatDetector(min_repeats=3, min_tokens=2)
    for column in rows.T[:4]:
        detector.step(column)
    detector.select(np.array([2, 0, 2]))
    picked = rows[[2, 0, 2]]
    assert detector.step(picked[:, 4]).tolist() == [False, True, False]
    assert detector.step(picked[:, 5]).tolist() == [True, True, True]
    detector.select(np.array([False, True, False]))
    assert detector.step(np.array([9])).tolist() == [False]


def test_the_state_restores_in_the_middle():
    row = np.array([5, 6] * 6)
    whole = kmp.RepeatDetector(min_repeats=3, min_tokens=2)
    expected = [whole.step(row[t : t + 1]).tolist() for t in range(12)]
    for cut in range(12):
        first = kmp.RepeatDetector(min_repeats=3, min_tokens=2)
        begun = [first.step(row[t : t + 1]).tolist() for t in range(cut)]
        second = kmp.RepeatDetector(min_repeats=3, min_tokens=2)
        second.restore(first.state())
        assert begun + [second.step(row[t : t + 1]).tolist() for t in range(cut, 12)] == expected


def test_selecting_before_the_first_step_changes_nothing():
    detector = kmp.RepeatDetector()
    detector.select(np.array([0]))
    assert detector.state() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_repeats": 1}, "min_repeats must be at least 2, got 1"),
        ({"min_tokens": 0}, "min_tokens must be at least 1, got 0"),
        ({"max_period": 0}, "max_period must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        kmp.RepeatDetector(**options)


def test_another_number_of_rows_is_an_error():
    detector = kmp.RepeatDetector()
    detector.step(np.array([1, 2]))
    with pytest.raises(ShapeError, match="tokens has 3 rows, the detector follows 2"):
        detector.step(np.array([1, 2, 3]))


def test_a_state_of_another_detector_is_refused():
    detector = kmp.RepeatDetector(max_period=8)
    detector.step(np.array([1]))
    with pytest.raises(ShapeError, match="blocks up to 8 tokens, this detector has max_period 9"):
        kmp.RepeatDetector(max_period=9).restore(detector.state())


def test_tokens_must_be_a_row_of_integers():
    step = (
        kmp.RepeatDetector.step.__wrapped__
    )  # past the annotation, which stands before it in tests
    with pytest.raises(TypeError, match=r"shape \(2, 1\), dtype int64"):
        step(kmp.RepeatDetector(), np.array([[1], [2]]))
