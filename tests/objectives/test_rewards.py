"""Scores before they become advantages: worked numbers, properties, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.core.statistics import RunningMoments
from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.objectives import (
    kl_penalized_rewards,
    length_rewards,
    normalize_rewards,
    overlong_penalty,
    pay_at_the_end,
    repetition_penalty,
)

MASK = torch.tensor([[True, True, False], [True, True, True]])


def test_the_score_is_paid_on_the_last_counted_token_and_the_penalty_on_each():
    old, ref = torch.tensor([[-1.0, -2.0, 9.0], [-1.0, -1.0, -1.0]]), torch.full((2, 3), -1.5)
    got = kl_penalized_rewards(torch.tensor([1.0, 2.0]), old, ref, MASK, kl_coef=0.1)
    assert got.numpy() == pytest.approx(np.array([[-0.05, 1.05, 0.0], [-0.05, -0.05, 1.95]]))


def test_padding_on_either_side_is_found_by_the_mask_alone():
    left = torch.tensor([[False, True, True], [True, True, True]])
    got = pay_at_the_end(torch.tensor([3.0, 4.0]), left)
    assert got.tolist() == [[0.0, 0.0, 3.0], [0.0, 0.0, 4.0]]


def test_normalised_scores_have_the_numbers_of_the_card():  # card rlhf-ppo-max, 4d
    moments = RunningMoments()
    normalize_rewards(torch.tensor([1.0, 2.0, 3.0]), moments)
    got = normalize_rewards(torch.tensor([5.0, 7.0]), moments, clip=0.8)
    assert got.tolist() == pytest.approx([0.5813184, 0.8], abs=1e-6)


def test_scaling_leaves_the_mean():
    moments = RunningMoments()
    scores = torch.tensor([1.0, 2.0, 6.0])
    got = normalize_rewards(scores, moments, mode="scale")
    assert got.tolist() == pytest.approx((scores / scores.std()).tolist())


def test_scores_without_spread_are_centred_with_a_warning():
    with pytest.warns(RuntimeWarning, match="1 scores without spread.*reward_norm='none'"):
        got = normalize_rewards(torch.tensor([5.0]), RunningMoments())
    assert got.tolist() == [0.0]


def test_overlong_answers_lose_linearly_within_the_cache():
    lengths = torch.tensor([0, 16384, 18432, 20480, 30000])
    got = overlong_penalty(lengths, max_length=20480, cache=4096)
    assert got.tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_length_rewards_have_the_numbers_of_the_card():  # card kimi-k1.5, 4g
    got = length_rewards(
        torch.tensor([10, 20, 30, 20]), torch.tensor([True, True, False, False]), torch.zeros(4, dtype=torch.int64)
    )  # fmt: skip
    assert got.tolist() == [0.5, 0.0, -0.5, 0.0]


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 9))  # fmt: skip
def test_length_rewards_ignore_shift_and_scale_and_never_reward_a_wrong_answer(rows, factor, shift):
    lengths = torch.tensor([n for n, _ in rows])
    correct = torch.tensor([c for _, c in rows])
    group = torch.zeros(len(rows), dtype=torch.int64)
    got = length_rewards(lengths, correct, group)
    assert got.numpy() == pytest.approx(
        length_rewards(factor * lengths + shift, correct, group).numpy(), abs=1e-6
    )
    assert (got[~correct] <= 0).all() and (got[correct].abs() <= 0.5).all()
    if lengths.unique().numel() == 1:
        assert not got.any()


def test_groups_are_judged_apart():
    got = length_rewards(
        torch.tensor([10, 100, 20, 200]), torch.ones(4, dtype=torch.bool), torch.tensor([5, 9, 5, 9]), weight=2.0
    )  # fmt: skip
    assert got.tolist() == [1.0, 1.0, -1.0, -1.0]


def test_repeated_n_grams_are_counted_by_sets():
    tokens = torch.tensor([[1, 2, 1, 2, 1, 2], [1, 2, 3, 4, 5, 6], [7, 7, 0, 0, 0, 0]])
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[2, 1:] = False
    grams = {tuple(tokens[0, i : i + 2].tolist()) for i in range(5)}
    got = repetition_penalty(tokens, mask, ngram=2)
    assert got.tolist() == pytest.approx([len(grams) / 5 - 1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pay_at_the_end(torch.ones(3), MASK), ShapeError, "one score per row"),
        (lambda: pay_at_the_end(torch.ones(2), MASK & False), InputError, "row 0 has no counted token"),
        (lambda: overlong_penalty(torch.tensor([1]), max_length=4, cache=5), InputError, "cache must be at most max_length = 4"),
        (lambda: length_rewards(torch.tensor([1]), torch.tensor([1.0]), torch.tensor([0])), TypeError, "correct must be bool"),
        (lambda: normalize_rewards(torch.tensor([1.0, float("nan")]), RunningMoments()), NonFiniteError, "scores"),
        (lambda: normalize_rewards(torch.ones(2), RunningMoments(), clip=0.0), InputError, r"clip must be in \(0, inf\)"),
        (lambda: kl_penalized_rewards(torch.ones(2), MASK * 1.0, MASK * 1.0, MASK, kl_coef=-1.0), InputError, "kl_coef"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
