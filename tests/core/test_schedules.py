"""Schedules at their ends, between them, and for arrays of counts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.core.schedules import constant, cosine, inverse_visits, linear
from dodona.errors import InputError, NonFiniteError

VALUES = st.floats(-10, 10)


@given(VALUES, VALUES, st.integers(1, 50), st.data())
def test_a_ramp_begins_and_ends_exactly_and_then_stays(start, end, num_steps, data):
    for ramp in (linear, cosine):
        schedule = ramp(start, end, num_steps)
        assert (
            schedule(0) == start and schedule(num_steps) == end and schedule(num_steps + 7) == end
        )
        n = data.draw(st.integers(0, num_steps))
        x = n / num_steps
        share = x if ramp is linear else (1 - math.cos(math.pi * x)) / 2
        assert schedule(n) == pytest.approx(start + (end - start) * share, abs=1e-12)


@given(st.integers(1, 20), st.integers(1, 20))
def test_warm_up_climbs_from_above_zero_to_start(num_warmup, rest):
    for ramp in (linear, cosine):
        schedule = ramp(2.0, 0.5, num_warmup + rest, num_warmup=num_warmup)
        climb = [schedule(n) for n in range(num_warmup + 1)]
        assert climb == pytest.approx(
            [2.0 * (n + 1) / (num_warmup + 1) for n in range(num_warmup + 1)]
        )
        assert climb[0] > 0 and schedule(num_warmup) == 2.0 and schedule(num_warmup + rest) == 0.5
        unwarmed = ramp(2.0, 0.5, rest)
        assert schedule(num_warmup + rest // 2) == pytest.approx(unwarmed(rest // 2))


def test_visits_meet_the_conditions_of_robbins_and_monro():
    alpha = inverse_visits(0.8)
    assert alpha(1) == 1.0 and alpha(32) == pytest.approx(1 / 16)
    # with alpha_n = 1 / n an exponential average is the plain mean
    mean = 0.0
    for n, x in enumerate([3.0, 5.0, 10.0], start=1):
        mean += inverse_visits(1.0)(n) * (x - mean)
    assert mean == pytest.approx(6.0)


@pytest.mark.parametrize(
    "schedule",
    [constant(0.3), linear(1.0, 0.1, 5, num_warmup=2), cosine(1.0, 0.0, 5), inverse_visits()],
)
def test_arrays_of_counts_are_answered_in_kind(schedule):
    counts = np.array([[1, 2, 3], [4, 5, 6]])
    single = [[schedule(int(n)) for n in row] for row in counts]
    assert all(isinstance(x, float) for row in single for x in row)
    assert np.array_equal(schedule(counts), single)
    tensor = schedule(torch.tensor(counts))
    assert isinstance(tensor, torch.Tensor) and np.allclose(tensor.numpy(), single, rtol=1e-15)


def test_a_schedule_reads_and_compares_by_its_parameters():
    assert str(linear(1.0, 0.1, 9)) == "linear(1, 0.1, 9, 0)"
    assert linear(1.0, 0.1, 9) == linear(1.0, 0.1, 9) != cosine(1.0, 0.1, 9)
    assert inverse_visits().parameters == (0.8,) and inverse_visits().name == "inverse_visits"
    assert constant(0.1)(10**9) == 0.1


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: constant(float("nan")), NonFiniteError, "value must be finite"),
        (lambda: linear(1.0, 0.0, 0), InputError, "num_steps must be at least 1, got 0"),
        (lambda: cosine(1.0, float("inf"), 3), NonFiniteError, "end must be finite"),
        (
            lambda: cosine(1.0, 0.0, 3, num_warmup=3),
            InputError,
            r"num_warmup must be in \[0, 3\), got 3",
        ),
        (lambda: inverse_visits(0.5), InputError, r"omega must be in \(0.5, 1\], got 0.5. Robbins"),
        (
            lambda: inverse_visits()(0),
            InputError,
            "count must be in .*got 0. The first count is 1.",
        ),
        (
            lambda: linear(1.0, 0.0, 3)(-1),
            InputError,
            "count must be in .*got -1. The first count is 0.",
        ),
        (lambda: inverse_visits()(np.array([1, 0])), InputError, "got 0 at index 1"),
    ],
)
def test_wrong_schedules_are_answered(make, error, message):
    with pytest.raises(error, match=message):
        make()
