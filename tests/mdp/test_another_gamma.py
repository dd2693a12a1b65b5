"""What replace(gamma=...) and sweeps of gamma do to a model whose transitions carry their discounts."""

import gymnasium
import numpy as np
import pytest

from dodona.errors import MDPError
from dodona.mdp import MDP, blackwell_gamma, solve, sweep_gamma, worlds


def renewed(gamma, *, extra=None):
    """State 0 pays 1 and starts again after every end, half of the time; state 1 pays 2 and returns."""
    rows = [(0, 0, 0, 0.5, 1.0, 1), (0, 0, 1, 0.5, 1.0, 0), (1, 0, 0, 1.0, 2.0, 0)]
    return MDP.from_table(rows + (extra or []), gamma=gamma)


def test_another_gamma_reaches_discounts_that_only_mark_ends():
    mdp = renewed(0.9)
    assert sorted(mdp.discounts.tolist()) == [0.0, 0.9, 0.9]
    for gamma in (0.0, 0.5, 0.9, 0.999):
        changed, made = mdp.replace(gamma=gamma), renewed(gamma)
        assert np.array_equal(changed.discounts, made.discounts)
        # by hand: v0 = 1 + gamma v1 / 2, v1 = 2 + gamma v0
        v0 = (1 + gamma) / (1 - gamma**2 / 2)
        assert solve(changed).values == pytest.approx([v0, 2 + gamma * v0], abs=1e-7)
    assert mdp.replace(gamma=0.5, discounts=None).discounts is None
    assert mdp.replace(rewards=mdp.rewards).discounts is mdp.discounts
    with pytest.raises(MDPError, match=r"gamma must be in \[0, 1\], got 1\.5"):
        mdp.replace(gamma=1.5)


def test_another_gamma_is_refused_where_discounts_have_a_life_of_their_own():
    own = renewed(0.9).replace(discounts=np.array([0.0, 0.9, 0.7]))
    message = r"gamma=0\.5 alone has no meaning for it: discounts\[2\] is 0\.7, neither 0 nor gamma.*discounts=None"
    with pytest.raises(MDPError, match=message):
        own.replace(gamma=0.5)
    with pytest.raises(MDPError, match=r"gamma=0\.5 alone has no meaning"):
        sweep_gamma(own, [0.5, 0.6])
    assert own.replace(gamma=0.9).discounts.tolist() == [0.0, 0.9, 0.7]
    with pytest.raises(MDPError, match="at gamma 0 they do not tell which transitions end"):
        renewed(0.0).replace(gamma=0.5)


def test_a_sweep_of_gamma_reaches_discounts_that_only_mark_ends():
    # action 1 of state 0 pays 1.5 and ends, into 0 itself; action 0 goes on, so it wins from where
    # 1 + gamma v1 / 2 = 1.5 with v0 = 1.5: gamma (2 + 1.5 gamma) = 1
    model = renewed(0.9, extra=[(0, 1, 0, 1.0, 1.5, 1)])
    edge = (np.sqrt(10) - 2) / 3
    sweep = sweep_gamma(model, [0.1, 0.3, 0.5, 0.9])
    assert sweep.policies[:, 0].tolist() == [1, 1, 0, 0]
    assert sweep.breaks == pytest.approx([edge], abs=1e-8)
    assert blackwell_gamma(model) == pytest.approx(edge, abs=1e-8)
    for gamma, values in zip(sweep.parameters, sweep.values, strict=True):
        made = renewed(gamma, extra=[(0, 1, 0, 1.0, 1.5, 1)])
        assert values == pytest.approx(solve(made).values, abs=1e-7)


def test_a_gymnasium_model_at_another_gamma_is_the_table_at_that_gamma():
    # Taxi delivers into states that live on: its transitions carry their discounts
    env = gymnasium.make("Taxi-v4").unwrapped
    whole = MDP.from_gymnasium(env, gamma=1.0)
    assert whole.discounts is not None
    for gamma in (0.9, 0.99):
        made = MDP.from_gymnasium(env, gamma=gamma)
        assert np.array_equal(whole.replace(gamma=gamma).discounts, made.discounts)


def test_a_step_of_a_sweep_costs_two_policy_evaluations_at_most():
    mdp = worlds.book_grid()
    gammas = np.linspace(0.0, 0.99, 200)
    sweep = sweep_gamma(mdp, gammas)
    assert len(gammas) <= sweep.evaluations <= 2 * len(gammas)
    assert sweep.breaks and sweep.refinements <= 3 * 40 * len(sweep.breaks)
    for k in (0, 60, 199):
        known = solve(mdp.replace(gamma=float(gammas[k])), tol=1e-10)
        assert sweep.values[k] == pytest.approx(known.values, abs=1e-8)
