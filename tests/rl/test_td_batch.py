"""Batch TD and batch Monte Carlo: where repeated sweeps over a record come to rest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona import rl
from dodona.errors import InputError, SamplingError
from dodona.mdp import worlds
from dodona.oracles import learning_from_memory
from dodona.oracles.empirical import empirical_mdp
from dodona.oracles.mdp import policy_value

S = 5


def transitions(seed: int, N: int = 40):
    """Episodes in one piece, some cut from outside; the last one may still be going."""
    rng = np.random.default_rng(seed)
    rows, s = [], int(rng.integers(S))
    for _ in range(N):
        s2, end = int(rng.integers(S)), rng.choice(3, p=[0.7, 0.2, 0.1])
        rows.append((s, 0, float(rng.normal()), s2, bool(end == 1), bool(end == 2), 0))
        s = int(rng.integers(S)) if end else s2
    return rows


def columns(rows):
    return tuple(np.array(x) for x in zip(*rows, strict=True))


@pytest.mark.parametrize("kind, n", [("td", 1), ("td", 3), ("monte carlo", 1), ("first visits", 1)])
@given(seed=st.integers(0, 10**6))
def test_they_are_where_sweeps_come_to_rest(kind, n, seed):
    rows = transitions(seed)
    if kind == "td":
        learner = rl.BatchTD(S, 1, gamma=0.8, num_steps=n, initial=0.5)
    else:
        learner = rl.BatchMC(S, 1, gamma=0.8, initial=0.5, visits="first" if "first" in kind else "every")  # fmt: skip
    learner.update(*columns(rows))
    truth = learning_from_memory.at_rest(kind, rows, S, gamma=0.8, num_steps=n, initial=0.5, sweeps=150)  # fmt: skip
    np.testing.assert_allclose(learner.values, truth, atol=1e-4)


@given(seed=st.integers(0, 10**6))
def test_batch_td_is_certainty_equivalence(seed):
    rows = [(*x[:5], False, 0) for x in transitions(seed)]
    learner = rl.BatchTD(S, 1, gamma=0.8)
    learner.update(*columns(rows))
    seen = empirical_mdp(*columns(rows)[:5], num_states=S, num_actions=1)
    model, _ = policy_value(seen.P, seen.R, 0.8, np.zeros(S + 1, int), terminal=seen.terminal)
    np.testing.assert_allclose(learner.values, model[:S], atol=1e-10)


def test_the_two_answers_of_the_book():
    """Example 6.4: eight episodes, A only once; 3/4 by the model, 0 by what was seen."""
    A, B, end = 0, 1, 2
    rows = [(A, 0, 0.0, B, False, False, 0), (B, 0, 0.0, end, True, False, 0)]
    rows += [(B, 0, 1.0, end, True, False, 0)] * 6 + [(B, 0, 0.0, end, True, False, 0)]
    td, mc = rl.BatchTD(3, 1, gamma=1.0), rl.BatchMC(3, 1, gamma=1.0)
    for learner in (td, mc):
        learner.update(*columns(rows))
    np.testing.assert_allclose(td.values[:2], [0.75, 0.75])
    np.testing.assert_allclose(mc.values[:2], [0.0, 0.75])
    assert td.visits.tolist() == [1, 8, 0]


def test_online_td_with_small_steps_over_and_over_comes_there_too():
    rows = transitions(5)
    online, batch = rl.TD0(S, 1, gamma=0.8, alpha=0.002), rl.BatchTD(S, 1, gamma=0.8)
    batch.update(*columns(rows))
    for _ in range(2000):
        online.update(*columns(rows))
    np.testing.assert_allclose(online.values, batch.values, atol=0.02)


def test_td_is_better_than_monte_carlo_on_the_walk():
    """The experiment of Sutton & Barto's fig. 6.2: below at every number of episodes."""
    truth = np.arange(7) / 6
    curve = {}
    for made in (rl.BatchTD, rl.BatchMC):
        history = made(7, 1, gamma=1.0, initial=0.5).learn(
            worlds.random_walk(5),
            num_episodes=100,
            record_every=10,
            num_runs=100,
            truth=truth,
            seed=0,
        )
        curve[made] = history.mean("rmse")
    assert (curve[rl.BatchTD] < curve[rl.BatchMC]).all()
    assert curve[rl.BatchTD][-1] < 0.05 < 0.1 < curve[rl.BatchTD][0] + 0.05


def test_one_by_one_is_all_at_once_and_records_go_on():
    rows = transitions(6)
    whole, single = rl.BatchMC(S, 1, gamma=0.8), rl.BatchMC(S, 1, gamma=0.8)
    whole.update(*columns(rows))
    for row in rows:
        single.update(*row)
    np.testing.assert_array_equal(whole.values, single.values)
    learner = rl.BatchTD(7, 1, gamma=1.0)
    learner.learn(worlds.random_walk(5), num_episodes=5, seed=0)
    first = int(learner.visits.sum())
    learner.learn(worlds.random_walk(5), num_episodes=5, num_runs=2, seed=1)
    assert learner.visits.sum() > first


def test_an_environment_and_its_time_limit_are_recorded_too():
    learner = rl.BatchTD(16, 4, gamma=0.9)
    history = learner.learn("FrozenLake-v1", num_steps=500, seed=0)
    assert learner.visits.sum() == 500 and history.episodes[0, -1] > 0
    with pytest.raises(InputError, match="learns values of states and has no q"):
        _ = learner.q


def test_what_can_not_be_solved_is_named():
    learner = rl.BatchTD(3, 1, gamma=1.0)
    with pytest.raises(InputError, match="from state 0 no recorded path comes to an end"):
        learner.update(
            np.array([0, 1]), np.zeros(2, int), np.ones(2), np.array([1, 0]), np.zeros(2, bool), np.zeros(2, bool)
        )  # fmt: skip
    short = rl.BatchMC(S, 1, gamma=0.8, longest_record=3)
    with pytest.raises(SamplingError, match=r"record of BatchMC is full \(3 transitions\)"):
        short.update(*columns(transitions(0)))
    with pytest.raises(InputError, match="num_steps must be at least 1"):
        rl.BatchTD(S, 1, gamma=0.8, num_steps=0)
