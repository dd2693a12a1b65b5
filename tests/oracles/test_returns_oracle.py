"""The oracle of returns against numbers worked by hand and published, so that it is not judged by what it judges."""

import math

import numpy as np
import pytest

from dodona.oracles import returns as oracle

NONE = np.zeros(3, dtype=bool)


def test_gae_has_the_golden_table():
    """Card environments-and-rollouts, 4.3."""
    got = oracle.gae_by_definition(
        [1.0, 0, -1, 2, 0, 1], [0.5, 0.2, -0.3, 0.4, 0.1, 0.6], np.arange(6) == 2, np.arange(6) == 4,
        gamma=0.9, gae_lambda=0.8, next_values=[0.2, -0.3, math.nan, 0.1, 0.9, 0.7],
    )  # fmt: skip
    np.testing.assert_allclose(got, [-0.02128, -0.974, -0.7, 2.2012, 0.71, 1.03], atol=1e-14)


def test_the_mixture_of_n_step_returns_has_the_published_numbers():
    """tianshou, test/base/test_returns.py."""
    after = np.array([2.0, 3, 4, -1])
    got = oracle.returns_by_definition(
        [101.0, 102, 103, 200], np.roll(after, 1), np.arange(4) == 3, np.zeros(4, bool), gamma=0.99,
        gae_lambda=0.95, next_values=after,
    )  # fmt: skip
    np.testing.assert_allclose(got, [454.8344, 376.1143, 291.298, 200.0], atol=1e-4)


def test_n_step_returns_by_hand():
    v = [0.0, 16.0, 32.0, 64.0]
    got = oracle.returns_by_definition(np.ones(3), v, NONE, NONE, gamma=0.5, num_steps=2)
    np.testing.assert_array_equal(got, [9.5, 17.5, 33.0])
    got = oracle.returns_by_definition(
        np.ones(3), v, [False, True, False], NONE, gamma=0.5, num_steps=2
    )
    np.testing.assert_array_equal(got, [1.5, 1.0, 33.0])
    got = oracle.returns_by_definition(np.ones(3), None, NONE, NONE, gamma=0.5, final_values=8.0)
    np.testing.assert_array_equal(got, [2.75, 3.5, 5.0])


def test_masked_rows_are_stepped_over_and_a_cut_looks_at_its_reset_row():
    v, mask = [0.0, 4.0, 2.0, 8.0], [True, False, True]
    gap = oracle.returns_by_definition(np.ones(3), v, NONE, NONE, gamma=0.5, num_steps=1, mask=mask)
    np.testing.assert_array_equal(gap, [2.0, 0.0, 5.0])
    cut = oracle.returns_by_definition(np.ones(3), v, NONE, [True, False, False], gamma=0.5, num_steps=1, mask=mask)  # fmt: skip
    np.testing.assert_array_equal(cut, [3.0, 0.0, 5.0])


def test_vtrace_by_hand():
    """Ratios 4 and 1/2, errors of 1 before their ratios; rho <= 2, c <= 1."""
    targets, advantages = oracle.vtrace_by_definition(
        [1.0, 1.0], [16.0, 32.0, 64.0], NONE[:2], NONE[:2], log_ratio=np.log([4.0, 0.5]), gamma=0.5,
        rho_max=2.0,
    )  # fmt: skip
    # delta = (2, 1/2);  targets = (16 + 2 + 1/2 * 1 * 1/2, 32 + 1/2);  advantages = (2 (1 + 1/4), 1/2)
    np.testing.assert_allclose(targets, [18.25, 32.5], rtol=1e-15)
    np.testing.assert_allclose(advantages, [2.5, 0.5], rtol=1e-15)


def test_lanes_are_apart():
    r, v = np.arange(6.0).reshape(3, 2), np.zeros((4, 2))
    none = np.zeros((3, 2), bool)
    got = oracle.returns_by_definition(r, v, none, none, gamma=1.0)
    np.testing.assert_array_equal(got, [[6.0, 9.0], [6.0, 8.0], [4.0, 5.0]])


def test_group_advantages_have_the_numbers_of_the_card():
    """Card grpo, 4d."""
    rewards, group = [1.0, 0, 0, 1, 0, 0, 0, 0], [0] * 8
    got = oracle.group_advantages_by_definition(rewards, group, ddof=0)
    np.testing.assert_allclose(got[:2], [1.732051, -0.577350], atol=1e-6)
    got = oracle.group_advantages_by_definition(rewards, group)
    np.testing.assert_allclose(got[:2], [1.620185, -0.540062], atol=1e-6)
    got = oracle.group_advantages_by_definition([1.0, 4.0, 1.0], [0, 0, 0], baseline="loo", scale="none")  # fmt: skip
    assert got == [-1.5, 3.0, -1.5]
    assert oracle.group_advantages_by_definition([0.1] * 3, [0] * 3) == [0.0] * 3


def test_process_advantages_have_the_numbers_of_the_card():
    """Card grpo, 4d."""
    got = oracle.process_advantages_by_definition(
        [[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]], [[1, 1, 0], [1, 1, 1]], [0, 0], ddof=0
    )
    np.testing.assert_allclose(got, [[-0.408248, 0.816497, 0], [0.408248, -0.408248, -1.224745]], atol=1e-6)  # fmt: skip


@pytest.mark.parametrize(
    "kind, v, expected",
    [("mse", 1.0, 0.5), ("clipped", 1.0, 1.125), ("clipped_no_max", 1.0, 1.125), ("clipped", -1.0, 4.5),
     ("clipped_no_max", -1.0, 3.125), ("huber", 1.0, 0.5), ("huber", -1.0, 2.5)],
)  # fmt: skip
def test_value_losses_have_the_numbers_of_the_card(kind, v, expected):
    """Card ppo, 4.4."""
    got = oracle.value_loss_by_definition([v], [2.0], kind=kind, values_old=[0.0], clip_eps=0.5)
    assert got == expected


def test_dqn_losses_by_hand():
    q, actions, targets = [[1.0, 9.0], [9.0, 4.0]], [0, 1], [1.5, 1.0]
    assert oracle.dqn_loss_by_definition(q, actions, targets) == (0.25 + 9.0) / 2
    assert oracle.dqn_loss_by_definition(q, actions, targets, kind="huber") == (0.125 + 2.5) / 2
    assert oracle.dqn_loss_by_definition(q, actions, targets, [True, False]) == 0.25


def test_explained_variance_by_hand():
    assert oracle.explained_variance_by_definition([1.0, 2.0], [2.0, 4.0]) == pytest.approx(0.75)
