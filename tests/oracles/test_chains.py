"""Long-run shares, moments, arrival and ending: closed forms, enumeration, chance."""

import numpy as np
import pytest
from hypothesis import given

from dodona.oracles import chains, fixtures
from dodona.oracles import mdp as oracles
from dodona.oracles.strategies import st_mdp, st_policy

DEAD_END = np.array([[[0.5, 0.5, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]])
LAST = np.array([False, False, True])


def test_elimination_keeps_the_digits_the_null_vector_loses():
    up = 1e-3
    P = np.zeros((8, 1, 8))
    for s in range(8):
        P[s, 0, min(s + 1, 7)] += up
        P[s, 0, max(s - 1, 0)] += 1 - up
    exact = (up / (1 - up)) ** np.arange(8)
    exact /= exact.sum()
    share = oracles.stationary(P, np.zeros(8, dtype=int))
    assert np.abs(share / exact - 1).max() <= 1e-13
    assert exact[-1] < 1e-20
    assert np.abs(oracles.null_vector(P, np.zeros(8, dtype=int)) / exact - 1).max() > 1e-4


def test_transient_states_have_no_share():
    P = np.array([[[0.5, 0.5, 0.0]], [[0.0, 0.5, 0.5]], [[0.0, 1.0, 0.0]]])
    for oracle in (oracles.stationary, oracles.null_vector):
        assert oracle(P, [0, 0, 0]) == pytest.approx([0.0, 2 / 3, 1 / 3], abs=1e-15)


def test_a_long_run_that_is_not_one_is_refused():
    with pytest.raises(ValueError, match="states 0 and 1 lie in different closed classes"):
        oracles.stationary(np.eye(2)[:, None, :], [0, 0])
    with pytest.raises(ValueError, match="state 2 ends: there is no long run"):
        oracles.stationary(DEAD_END, [0, 0, 0])


def test_a_wrong_elimination_is_noticed_by_the_null_vector(monkeypatch):
    monkeypatch.setattr(chains, "_null", lambda P: (np.full(len(P), 1 / len(P)), 1.0))
    case = fixtures.random_mdp(np.random.default_rng(0), 4, 1)
    with pytest.raises(AssertionError, match="GTH != null vector"):
        oracles.stationary(case.P, [0, 0, 0, 0])


@given(st_mdp(max_states=3, max_actions=2, gammas=(0.0, 0.5, 0.9), largest_reward=1e3).flatmap(
    lambda case: st_policy(case, stochastic=True).map(lambda policy: (case, policy))
))  # fmt: skip
def test_moments_are_those_of_every_trajectory(drawn):
    case, share = drawn
    moments = oracles.return_moments(
        case.P, case.R, case.gamma, share, terminal=case.terminal, horizon=3
    )
    size = 1 + np.abs(case.R).max() ** 2
    for s in range(len(case.P)):
        chances, returns = oracles.trajectory_tree(
            case.P, case.R, case.gamma, share, 3, s, terminal=case.terminal
        )
        mean = chances @ returns
        assert chances.sum() == pytest.approx(1.0, abs=1e-12)
        assert moments.mean[s] == pytest.approx(mean, abs=1e-12 * size)
        assert moments.variance[s] == pytest.approx(
            chances @ (returns - mean) ** 2, abs=1e-10 * size
        )


def test_the_moments_of_a_coin_are_known():
    # one throw, 1 or 0, then the end
    P = np.array([[[0.0, 0.5, 0.5]], [[0.0] * 3], [[0.0] * 3]])
    R = np.zeros((3, 1, 3))
    R[0, 0, 1] = 1.0
    moments = oracles.return_moments(P, R, 1.0, [0, 0, 0], terminal=[False, True, True])
    assert moments.mean.tolist() == [0.5, 0, 0] and moments.variance.tolist() == [0.25, 0, 0]
    assert moments.standard_error(100)[0] == pytest.approx(0.05)


def test_moments_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="gamma is 1 and some state never ends"):
        oracles.return_moments(DEAD_END, np.zeros((3, 1)), 1.0, [0, 0, 0], terminal=LAST)


def test_a_state_with_no_way_to_the_target_never_gets_there():
    P = np.array([[[0.5, 0.25, 0.25]], [[0.0, 1.0, 0.0]], [[0.0] * 3]])
    chance = oracles.hitting_probability(P, [0, 0, 0], LAST, terminal=LAST)
    assert chance == pytest.approx([0.5, 0.0, 1.0], abs=1e-15)


def test_a_policy_is_proper_only_if_it_surely_ends():
    P = np.array([[[0.5, 0.25, 0.25]], [[0.0, 1.0, 0.0]], [[0.0] * 3]])
    assert oracles.proper_policy(P, [0, 0, 0], terminal=LAST).tolist() == [False, False, True]
    lossy = np.array([[[0.0, 0.9]], [[1.0, 0.0]]])  # a tenth of the mass leaves the model
    assert oracles.proper_policy(lossy, [0, 0]).all()


@given(st_mdp(terminal=True).flatmap(lambda case: st_policy(case).map(lambda p: (case, p))))
def test_ending_by_reachability_is_ending_by_probability(drawn):
    case, policy = drawn
    chance = oracles.hitting_probability(case.P, policy, case.terminal, terminal=case.terminal)
    proper = oracles.proper_policy(case.P, policy, terminal=case.terminal)
    assert np.array_equal(proper, chance > 1 - 1e-9)


@given(
    st_mdp(gammas=(0.0, 0.5, 0.9)).flatmap(lambda case: st_policy(case).map(lambda p: (case, p)))
)
def test_occupancy_is_a_distribution_and_its_worth_is_the_value(drawn):
    case, policy = drawn
    S, A = case.R.shape
    start = np.full(S, 1 / S)
    time = oracles.occupancy(case.P, case.gamma, policy, start, terminal=case.terminal)
    assert time.sum() == pytest.approx(1.0, abs=1e-12) and np.all(time >= 0)
    v, bound = oracles.policy_value(case.P, case.R, case.gamma, policy, terminal=case.terminal)
    share = policy if policy.ndim == 2 else np.eye(A)[policy] * case.mask
    worth = (time[:, None] * share * case.R).sum() / (1 - case.gamma)
    assert worth == pytest.approx(start @ v, abs=bound + 1e-11 * (1 + np.abs(case.R).max()))
