"""Reward per step: against plain loops, and judged by the exact gain of queue and river."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona import rl
from dodona.errors import InputError, MDPError
from dodona.mdp import MDP, average_reward, relative_value_iteration, worlds
from dodona.oracles import fixtures, learning_differential
from dodona.oracles.mdp import average_reward_lp

KINDS = {"sarsa": rl.DifferentialSarsa, "q": rl.DifferentialQLearning, "r": rl.RLearning}
Z = 4.5


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10**6))
def test_table_and_gain_are_those_of_a_plain_loop(kind, seed):
    rng = np.random.default_rng(seed)
    s, a, s2, a2 = (rng.integers(0, n, 40) for n in (4, 3, 4, 3))
    r, no = rng.normal(size=40), np.zeros(40, bool)
    learner = KINDS[kind](4, 3, alpha=0.3, eta=0.2, initial_gain=0.5)
    learner.update(s, a, r, s2, no, no, a2)
    rows = list(zip(s.tolist(), a.tolist(), r.tolist(), s2.tolist(), no.tolist(), no.tolist(), a2.tolist(), strict=True))  # fmt: skip
    table, gain = learning_differential.differential(kind, rows, 4, 3, alpha=0.3, eta=0.2, initial_gain=0.5)  # fmt: skip
    np.testing.assert_array_equal(learner.q, table)
    assert learner.gain == gain


def dense(model: MDP):
    P = np.zeros((model.num_states, model.num_actions, model.num_states))
    R = np.zeros((model.num_states, model.num_actions))
    pair = np.repeat(np.arange(model.num_pairs), np.diff(model.indptr))
    P[model.pair_state[pair], model.actions[pair], model.indices] = model.probs
    R[model.pair_state, model.actions] = model.rewards
    return P, R


def gains(learner, model, **options):
    trainer = learner.trainer(model, **options)
    for event in trainer:
        assert event.metrics["reward/gain"] == trainer.memory.gain.mean()
    return trainer.memory.gain, trainer.history()


def test_at_the_access_control_queue_sarsa_earns_what_exploring_policies_can():
    queue = worlds.access_control_queue()
    P, R = learning_differential.exploring(*dense(queue), 0.1, action_mask=queue.action_mask)
    best = average_reward_lp(P, R, action_mask=queue.action_mask)
    assert best == pytest.approx(2.6468943, abs=6e-8)  # published
    assert average_reward_lp(*dense(queue), action_mask=queue.action_mask) == pytest.approx(2.7476419506, abs=1e-7)  # fmt: skip
    learner = rl.DifferentialSarsa(44, 2, alpha=0.01, eta=0.1)
    found, history = gains(learner, queue, num_steps=400_000, num_runs=20, epsilon=0.1, seed=0)
    earned = history.reward[:, 50:].mean(axis=1)
    # nobody who explores earns more; constant steps leave a little
    assert best - 0.03 < earned.mean() < best + Z * earned.std(ddof=1) / 20**0.5
    # and g is what it earns, not what it might
    assert abs(found.mean() - earned.mean()) < Z * found.std(ddof=1) / 20**0.5


@pytest.mark.parametrize("made", KINDS.values())
def test_the_gain_at_the_river_is_the_exact_one(made):
    river = worlds.river_swim()
    exact = relative_value_iteration(river).gain
    if made is rl.DifferentialSarsa:
        exact = average_reward_lp(*learning_differential.exploring(*dense(river), 0.2))
    # high first values for going right: nobody else gets there by chance
    learner = made(6, 2, alpha=0.02, eta=0.02, initial=np.tile([0.0, 2.0], (6, 1)))
    found, history = gains(learner, river, num_steps=300_000, num_runs=20, epsilon=0.2, seed=1)
    assert learner.gain == found[0]
    # constant steps leave a little; what others would earn is .34 (epsilon .1), .005 (drifting)
    assert found.mean() == pytest.approx(exact, abs=0.01)
    best = np.ones(6, dtype=int)
    assert (history.tables.argmax(axis=2) == best).all()
    assert average_reward(river, best).gain == pytest.approx(0.4286224338, abs=1e-9)


def test_a_fixed_policy_s_gain_is_found_by_any_step_size_that_falls():
    case = fixtures.random_mdp(np.random.default_rng(3), 4, 2, branching=3, gamma=0.9)
    model = MDP.from_dense(case.P, case.R, gamma=0.9, layout="sas")
    policy = np.random.default_rng(0).dirichlet(np.ones(2), 4)
    learner = rl.DifferentialSarsa(4, 2, alpha=0.005, eta=0.2)
    found, _ = gains(learner, model, num_steps=60_000, num_runs=50, policy=policy, seed=2)
    truth = average_reward(model, policy).gain
    error = found.std(ddof=1) / 50**0.5
    assert abs(found.mean() - truth) <= Z * error + 0.005


def test_an_end_is_not_for_them():
    learner = rl.RLearning(3, 2)
    with pytest.raises(InputError, match="never ends, and here an episode terminates"):
        learner.update(0, 0, 1.0, 1, True, False)
    with pytest.raises(MDPError, match="RLearning measures reward per step"):
        rl.RLearning(48, 4).learn(worlds.cliff(), num_steps=1)
    with pytest.raises(InputError, match="terminates"):
        rl.DifferentialQLearning(16, 4).learn("FrozenLake-v1", num_steps=100)
    with pytest.raises(InputError, match=r"eta must be in \(0, inf\), got 0"):
        rl.DifferentialSarsa(3, 2, eta=0.0)
    with pytest.raises(InputError, match="DifferentialSarsa needs a2"):
        rl.DifferentialSarsa(3, 2).update(0, 0, 1.0, 1, False, False)


def test_a_time_limit_and_a_second_learn_keep_the_gain():
    river = worlds.river_swim()
    learner = rl.DifferentialQLearning(6, 2, initial_gain=0.3)
    assert learner.target(np.array([1.0]), np.array([1.0]), np.array([0]))[0] == pytest.approx(0.7)
    learner.learn(river, num_steps=100, max_episode_steps=10, seed=0)
    before = learner.gain
    assert before != 0.3
    trainer = learner.trainer(river, num_steps=1, num_runs=3, seed=1)
    np.testing.assert_array_equal(trainer.memory.gain, before)
