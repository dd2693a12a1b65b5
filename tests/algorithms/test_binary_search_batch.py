"""Many searches in one call: each lane as if it were alone, on arrays and on tensors."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms.binary_search import first_true, first_true_batch, first_true_float
from dodona.errors import InputError, NonMonotoneError, ShapeError

KINDS = {"array": np.asarray, "tensor": torch.as_tensor}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guessed", [False, True])
def test_every_lane_is_a_search_of_its_own(kind, guessed):
    rng, make = np.random.default_rng(0), KINDS[kind]
    lo = rng.integers(-50, 50, 300)
    hi = lo + rng.integers(0, 60, 300)
    turn = rng.integers(-60, 120, 300)
    alone = [
        first_true(lambda i, t=t: i >= t, a, b)
        for a, b, t in zip(lo.tolist(), hi.tolist(), turn.tolist(), strict=True)
    ]
    guess = make(rng.integers(-60, 120, 300)) if guessed else None
    got = first_true_batch(lambda x: x >= make(turn), make(lo), make(hi), guess=guess)
    assert type(got) is type(make(lo)) and got.dtype == make(lo).dtype
    assert got.tolist() == alone


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=8), st.floats(allow_nan=False))
def test_any_doubles_are_found_from_any_guess(turns, near):
    turn = np.array(turns)
    ends = np.full(len(turn), -np.inf), np.full(len(turn), np.inf)
    for guess in (None, np.full(len(turn), near), turn):
        got = first_true_batch(lambda x: x >= turn, *ends, guess=guess)
        np.testing.assert_array_equal(got, turn)
    tensors = [torch.as_tensor(end) for end in ends]
    got = first_true_batch(lambda x: x >= torch.as_tensor(turn), *tensors)
    np.testing.assert_array_equal(got.numpy(), turn)


def test_lanes_agree_with_the_scalar_search():
    c = np.array([2.0, 3.0, 1e-300, 7e200])
    got = first_true_batch(lambda x: x >= np.sqrt(c), np.zeros(4), np.full(4, 1e308))
    assert got.tolist() == [first_true_float(lambda x, s=s: x >= s, 0.0, 1e308) for s in np.sqrt(c)]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint64, np.int64])
def test_ends_of_every_integer_type_do_not_overflow(dtype):
    limits = np.iinfo(dtype)
    turn = np.array(
        [limits.min, limits.min + 1, limits.max // 2, limits.max - 1, limits.max], dtype=dtype
    )
    lo, hi = np.full(5, limits.min, dtype=dtype), np.full(5, limits.max, dtype=dtype)
    for guess in (None, lo, hi, turn, turn[::-1].copy()):
        np.testing.assert_array_equal(
            first_true_batch(lambda x: x >= turn, lo, hi, guess=guess), turn
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int32])
def test_short_tensors_are_searched_too(dtype):
    turn = torch.tensor([-3.0, 0.0, 1.5, 96.0]).to(dtype)
    lo, hi = torch.full((4,), -100, dtype=dtype), torch.full((4,), 100, dtype=dtype)
    assert first_true_batch(lambda x: x >= turn, lo, hi).tolist() == turn.tolist()
    assert first_true_batch(lambda x: x >= turn, lo, hi, guess=turn).tolist() == turn.tolist()


def test_rounds_are_those_of_the_widest_lane():
    calls = []
    turn = np.array([3, 500])
    first_true_batch(
        lambda x: calls.append(1) is None and x >= turn,
        np.array([0, 0]),
        np.array([7, 1023]),
        check="none",
    )
    assert len(calls) == 10


def test_a_good_guess_saves_rounds_and_a_bad_one_only_costs_some():
    turn = np.array([0.3, 1234.5])

    def rounds(guess):
        calls = []
        got = first_true_batch(
            lambda x: calls.append(1) is None and x >= turn, np.zeros(2), np.full(2, 1e300), guess=guess, check="none"
        )  # fmt: skip
        np.testing.assert_array_equal(got, turn)
        return len(calls)

    assert rounds(np.nextafter(turn, 0.0)) <= 3
    assert rounds(turn * (1 + 1e-12)) < 30
    assert rounds(np.array([1e299, np.nan])) <= 2 * 64


def test_points_outside_a_lane_are_never_asked():
    lo, hi, turn = np.array([0, 10, 4]), np.array([8, 12, 4]), np.array([3, 11, 0])
    seen: list[np.ndarray] = []
    for guess in (None, np.array([100, -100, 4])):
        first_true_batch(lambda x: seen.append(x.copy()) is None and x >= turn, lo, hi, guess=guess)
    asked = np.stack(seen)
    assert np.all(asked >= lo)
    assert np.all(asked[:, :2] < hi[:2])  # the third lane is empty and is asked at lo


def test_no_lane_is_no_answer():
    assert len(first_true_batch(lambda x: x > 0, np.zeros(0), np.zeros(0))) == 0
    assert len(first_true_batch(lambda x: x > 0, np.zeros(0), np.zeros(0), guess=np.zeros(0))) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_contradicting_ends_name_lane_and_witness(kind):
    make = KINDS[kind]
    with pytest.raises(
        NonMonotoneError, match="in lane 1 the predicate is True at 0 and False at"
    ) as caught:
        first_true_batch(
            lambda x: (x >= make([4, 0])) & (x < make([100, 5])), make([0, 0]), make([9, 9])
        )
    a, b = caught.value.witness
    assert caught.value.lane == 1 and a < b and 0 <= a < 5 <= b < 9
    first_true_batch(lambda x: x < make([3, 3]), make([0, 0]), make([9, 9]), check="none")


@pytest.mark.parametrize("kind", KINDS)
def test_bad_lanes_are_named(kind):
    make = KINDS[kind]
    zeros, nines = make([0.0, 0.0]), make([9.0, 9.0])
    with pytest.raises(InputError, match="lane 1 has lo=9.0 and hi=0.0"):
        first_true_batch(lambda x: x > 1, make([0.0, 9.0]), make([9.0, 0.0]))
    with pytest.raises(InputError, match="lane 0 has lo=nan"):
        first_true_batch(lambda x: x > 1, make([np.nan, 0.0]), nines)
    with pytest.raises(
        ShapeError, match=r"hi must be one number per lane.*got \(3,\) and lo \(2,\)"
    ):
        first_true_batch(lambda x: x > 1, zeros, make([1.0, 2.0, 3.0]))
    with pytest.raises(TypeError, match="hi has type .*int64 and lo .*float"):
        first_true_batch(lambda x: x > 1, zeros, make([1, 2]))
    with pytest.raises(TypeError, match="must return bool answers, got .*float"):
        first_true_batch(lambda x: x, zeros, nines)
    with pytest.raises(ShapeError, match="one answer per lane, shape .*got bool"):
        first_true_batch(lambda x: True, zeros, nines)
    with pytest.raises(TypeError, match="integers or floats of at most 64 bits, got"):
        first_true_batch(lambda x: x, make([True]), make([True]))
    with pytest.raises(
        InputError, match="check must be 'none' or 'ends' for many searches, got 'full'"
    ):
        first_true_batch(lambda x: x > 1, zeros, nines, check="full")


def test_arrays_are_searched_without_importing_torch():
    code = (
        "import sys, numpy as np; from dodona.algorithms.binary_search import first_true_batch as f; "
        "f(lambda x: x > 1, np.zeros(2), np.ones(2)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
