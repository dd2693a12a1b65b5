"""Advantages against a critic and against a group: by their definitions, in every layout, and what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona import objectives
from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.objectives import group_advantages, informative_groups, process_advantages
from dodona.oracles.returns import (
    gae_by_definition,
    group_advantages_by_definition,
    process_advantages_by_definition,
)

# the golden table of the card environments-and-rollouts, 4.3
R = np.array([1.0, 0.0, -1.0, 2.0, 0.0, 1.0])
V = np.array([0.5, 0.2, -0.3, 0.4, 0.1, 0.6])
AFTER = np.array([0.2, -0.3, 0.0, 0.1, 0.9, 0.7])
ENDS, CUTS = np.arange(6) == 2, np.arange(6) == 4
GOLDEN = np.array([-0.02128, -0.974, -0.7, 2.2012, 0.71, 1.03])
FACTORS = {"gamma": 0.9, "gae_lambda": 0.8}


def answers(seed: int, B: int = 12, T: int = 5):
    """Ragged groups of at least two answers, in any order and under any numbers."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.append(rng.choice([3, -7, 40], B - 6), [3, 3, -7, -7, 40, 40]))
    ends = rng.random((B, T)) < 0.5
    ends[:, 2] = True
    return {
        "rewards": torch.as_tensor(rng.integers(0, 3, B).astype(float)), "group": torch.as_tensor(group),
        "steps": torch.as_tensor(rng.integers(0, 3, (B, T)).astype(float)), "ends": torch.as_tensor(ends),
    }  # fmt: skip


def test_gae_has_the_numbers_worked_by_hand():
    got = objectives.gae(R, V, ENDS, CUTS, next_values=AFTER, **FACTORS)
    np.testing.assert_allclose(got, GOLDEN, atol=1e-12)
    given = [torch.as_tensor(x) for x in (R, V, ENDS, CUTS)]
    got = objectives.gae(*given, next_values=torch.as_tensor(AFTER), **FACTORS)
    np.testing.assert_allclose(got.numpy(), GOLDEN, atol=1e-12)
    given = [x.float() if x.is_floating_point() else x for x in given]
    got = objectives.gae(*given, next_values=torch.as_tensor(AFTER).float(), **FACTORS)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), GOLDEN, atol=1e-6)


def test_a_truncation_taken_for_a_termination_shows():
    got = objectives.gae(R, V, ENDS | CUTS, CUTS, next_values=AFTER, **FACTORS)
    np.testing.assert_allclose(got[3:5], [1.618, -0.1], atol=1e-12)


@given(seed=st.integers(0, 10**6), T=st.integers(1, 9), B=st.integers(1, 3))
def test_gae_is_the_double_sum(seed, T, B):
    rng = np.random.default_rng(seed)
    r, v, after = rng.normal(size=(3, T, B))
    end, cut, mask = rng.random((3, T, B)) < [[[0.2]], [[0.2]], [[0.7]]]
    how = {"next_values": after, "mask": mask, **FACTORS}
    got, truth = objectives.gae(r, v, end, cut, **how), gae_by_definition(r, v, end, cut, **how)
    np.testing.assert_allclose(got, truth, rtol=1e-12, atol=1e-12)
    rows = objectives.gae(
        *(torch.as_tensor(x.T) for x in (r, v, end, cut)), next_values=torch.as_tensor(after.T),
        mask=torch.as_tensor(mask.T), time_dim=1, **FACTORS,
    )  # fmt: skip
    np.testing.assert_array_equal(rows.numpy().T, got)


def test_gae_does_not_look_at_the_mask_or_past_an_end():
    mask = np.array([True, True, True, False, True, True])
    how = {"mask": mask, **FACTORS}
    truth = objectives.gae(R, V, ENDS, CUTS, next_values=AFTER, **how)
    r, v, after = (np.where(mask, x, np.nan) for x in (R, V, AFTER))
    after[2] = np.inf
    np.testing.assert_array_equal(objectives.gae(r, v, ENDS, CUTS, next_values=after, **how), truth)
    assert truth[3] == 0.0


def test_gae_and_its_values_are_lambda_returns():
    how = {"next_values": AFTER, **FACTORS}
    got = objectives.lambda_returns(R, V, ENDS, CUTS, **how)
    np.testing.assert_allclose(got, objectives.gae(R, V, ENDS, CUTS, **how) + V, rtol=1e-14)


def test_gae_names_wrong_arguments():
    with pytest.raises(InputError, match=r"gae_lambda must be in \[0, 1\], got 95"):
        objectives.gae(R, V, ENDS, CUTS, gamma=0.99, gae_lambda=95, next_values=AFTER)
    with pytest.raises(InputError, match="row 4 is truncated and another counted row follows"):
        objectives.gae(R, np.append(V, 0.7), ENDS, CUTS, **FACTORS)
    with pytest.raises(NonFiniteError, match="values must be finite, got nan at index 1"):
        objectives.gae(R, np.where(np.arange(6) == 1, np.nan, V), ENDS, CUTS, next_values=AFTER, **FACTORS)  # fmt: skip


# ---------------------------------------------------------------------- groups
def test_outcome_advantages_have_the_numbers_of_the_card():
    """Card grpo, 4d."""
    rewards, group = torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0]), torch.zeros(8, dtype=torch.int64)
    for ddof, right, wrong in ((0, 1.732051, -0.577350), (1, 1.620185, -0.540062)):
        got = group_advantages(rewards, group, ddof=ddof)
        np.testing.assert_allclose(got[[0, 3]], right, atol=1e-6)
        np.testing.assert_allclose(got[rewards == 0], wrong, atol=1e-6)


def test_process_advantages_have_the_numbers_of_the_card():
    """Card grpo, 4d: steps (0, 1) and (1, 1, 0)."""
    rewards = torch.tensor([[0.0, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.float64)
    ends = torch.tensor([[True, False, True, False], [True, True, True, False]])
    for ddof, first, second in (
        (0, [-0.408248, 0.816497, 0.816497, 0], [0.408248, -0.408248, -1.224745, 0]),
        (1, [-0.365148, 0.730297, 0.730297, 0], [0.365148, -0.365148, -1.095445, 0]),
    ):
        got = process_advantages(rewards, ends, torch.tensor([5, 5]), ddof=ddof)
        np.testing.assert_allclose(got, [first, second], atol=1e-6)


@pytest.mark.parametrize("baseline", ["mean", "loo", "none"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@given(seed=st.integers(0, 10**6), ddof=st.integers(0, 1))
def test_group_advantages_are_their_definition(baseline, scale, seed, ddof):
    x = answers(seed)
    how = {"baseline": baseline, "scale": scale, "ddof": ddof}
    got = group_advantages(x["rewards"], x["group"], **how)
    truth = group_advantages_by_definition(x["rewards"].tolist(), x["group"].tolist(), **how)
    np.testing.assert_allclose(got, truth, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 10**6), ddof=st.integers(0, 1))
def test_process_advantages_are_their_definition(seed, ddof):
    x = answers(seed)
    got = process_advantages(x["steps"], x["ends"], x["group"], ddof=ddof)
    truth = process_advantages_by_definition(
        x["steps"].tolist(), x["ends"].tolist(), x["group"].tolist(), ddof=ddof
    )
    np.testing.assert_allclose(got, truth, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 10**6))
def test_one_step_per_answer_is_outcome_supervision(seed):
    x = answers(seed)
    ends = torch.zeros_like(x["ends"])
    ends[:, 3] = True
    steps = torch.where(
        ends, x["rewards"][:, None], torch.nan
    )  # nothing is read where no step ends
    got = process_advantages(steps, ends, x["group"])
    each = group_advantages(x["rewards"], x["group"])
    np.testing.assert_allclose(got[:, :4], each[:, None].expand(-1, 4), rtol=1e-12, atol=1e-12)
    assert not got[:, 4].any()


@given(seed=st.integers(0, 10**6), shift=st.floats(-100, 100), size=st.floats(0.01, 100))
def test_scaled_advantages_forget_the_unit_of_rewards(seed, shift, size):
    x = answers(seed)
    got = group_advantages(size * x["rewards"] + shift, x["group"])
    np.testing.assert_allclose(got, group_advantages(x["rewards"], x["group"]), atol=1e-9)


@given(seed=st.integers(0, 10**6))
def test_the_order_of_answers_does_not_matter(seed):
    x = answers(seed)
    order = torch.as_tensor(np.random.default_rng(seed).permutation(12))
    got = group_advantages(x["rewards"][order], x["group"][order])
    np.testing.assert_allclose(got, group_advantages(x["rewards"], x["group"])[order], atol=1e-14)


def test_groups_sum_to_zero_and_loo_is_g_over_g_minus_one_of_it():
    rewards, group = torch.tensor([3.0, 1, 8, 0, 5]), torch.tensor([0, 1, 0, 1, 0])
    mean = group_advantages(rewards, group, scale="none")
    np.testing.assert_allclose(torch.zeros(2).index_add(0, group, mean), 0.0, atol=1e-6)
    loo = group_advantages(rewards, group, baseline="loo", scale="none")
    np.testing.assert_allclose(loo, mean * torch.tensor([1.5, 2.0, 1.5, 2.0, 1.5]), rtol=1e-6)


def test_groups_that_agree_teach_exactly_nothing():
    rewards = torch.tensor([0.1, 0.1, 0.1, 0.0, 1.0, 0.1 + 1e-7])
    group = torch.tensor([0, 0, 0, 1, 1, 0])
    close = group_advantages(rewards, group)
    assert close[5] > 1.0 and informative_groups(rewards, group).all()  # float noise, blown up
    got = group_advantages(rewards, group, tol=1e-6)
    assert not got[[0, 1, 2, 5]].any() and got[3] == -got[4] != 0
    assert informative_groups(rewards, group, tol=1e-6).tolist() == [False] * 3 + [True] * 2 + [
        False
    ]
    kept = group_advantages(rewards, group, baseline="none", scale="none")
    np.testing.assert_array_equal(kept, rewards)  # where the group is not asked, it says nothing
    constant = group_advantages(torch.full((4,), 0.3), torch.zeros(4, dtype=torch.int64), scale="batch")  # fmt: skip
    assert not constant.any()


def test_tiny_and_huge_spreads_are_no_trouble():
    group = torch.zeros(2, dtype=torch.int64)
    for unit in (1e-30, 1e30):
        got = group_advantages(torch.tensor([0.0, unit]), group, ddof=0)
        np.testing.assert_allclose(got, [-1.0, 1.0], rtol=1e-6)
    got = group_advantages(torch.tensor([0.0, 1.0], dtype=torch.bfloat16), group, ddof=0)
    assert got.dtype == torch.float32


def test_a_group_of_one_is_allowed_only_where_groups_do_not_matter():
    rewards, group = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 7])
    for how in ({}, {"baseline": "loo", "scale": "none"}, {"baseline": "none"}):
        with pytest.raises(InputError, match="group 7 has 1 row, at least 2 are needed"):
            group_advantages(rewards, group, **how)
    group_advantages(rewards, group, baseline="none", scale="batch")
    assert informative_groups(rewards, group).tolist() == [True, True, False]
    with pytest.raises(InputError, match="group 7 has 1 row.*one step reward has no spread"):
        process_advantages(rewards[:, None], torch.ones(3, 1, dtype=torch.bool), group)


def test_wrong_arguments_are_named():
    rewards, group = torch.tensor([1.0, 2.0]), torch.tensor([0, 0])
    outcome, process = (
        group_advantages.__wrapped__,
        process_advantages.__wrapped__,
    )  # past annotations
    with pytest.raises(
        InputError, match="baseline must be one of 'mean', 'loo', 'none', got 'median'"
    ):
        outcome(rewards, group, baseline="median")
    with pytest.raises(ShapeError, match=r"group has shape \(1,\) and rewards has shape \(2,\)"):
        outcome(rewards, group[:1])
    with pytest.raises(ShapeError, match=r"group has shape \(2,\) and rewards has shape \(3, 2\)"):
        process(torch.ones(3, 2), torch.ones(3, 2, dtype=torch.bool), group)
    with pytest.raises(InputError, match=r"ddof must be in \[0, 1\], got 2"):
        group_advantages(rewards, group, ddof=2)
    with pytest.raises(InputError, match=r"tol must be in \[0, inf\), got -1"):
        informative_groups(rewards, group, tol=-1.0)
    with pytest.raises(NonFiniteError, match=r"NaN or infinity in groups \[4, 9\]"):
        group_advantages(torch.tensor([torch.nan, 1.0, torch.inf, 1.0]), torch.tensor([9, 9, 4, 4]))
    with pytest.raises(TypeError, match="rewards requires grad"):
        group_advantages(rewards.clone().requires_grad_(), group)


@pytest.mark.parametrize(
    "bug",
    [
        lambda r, g: r - r.mean(),  # one baseline for the whole batch
        lambda r, g: group_advantages(r, g, ddof=0),  # divided by n
        lambda r, g: group_advantages(r, g, scale="batch"),
        lambda r, g: group_advantages(r, g, baseline="loo"),
        lambda r, g: group_advantages(r, g, baseline="none"),
        lambda r, g: group_advantages(r, g.sort().values),  # groups taken for blocks of rows
    ],
)
def test_wrong_group_advantages_are_caught(bug):
    x = answers(1)
    truth = group_advantages_by_definition(x["rewards"].tolist(), x["group"].tolist())
    assert np.abs(bug(x["rewards"], x["group"]).numpy() - truth).max() > 1e-3
