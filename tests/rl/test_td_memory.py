"""Replay, models of counts, priorities, speedy Q-learning: bit by bit against loops over lists and dictionaries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona import rl
from dodona.core.schedules import inverse_visits
from dodona.errors import InputError, SamplingError, SupportError
from dodona.mdp import MDP, shortest_path_value_iteration, solve, worlds
from dodona.oracles import fixtures, learning_from_memory
from dodona.oracles.empirical import empirical_mdp
from dodona.oracles.mdp import optimal_lp
from dodona.rl import _td_updates as updates

S, A = 4, 3
STEP = {"gamma": 0.9, "alpha": 0.3}


def transitions(seed: int, N: int = 60):
    """Episodes in one piece, some cut from outside: rows of (s, a, r, s2, terminated, truncated, a2)."""
    rng = np.random.default_rng(seed)
    rows, s, a = [], int(rng.integers(S)), int(rng.integers(A))
    for _ in range(N):
        s2, a2 = int(rng.integers(S)), int(rng.integers(A))
        end = rng.choice(3, p=[0.8, 0.12, 0.08])
        rows.append((s, a, float(rng.normal()), s2, bool(end == 1), bool(end == 2), a2))
        s, a = (int(rng.integers(S)), int(rng.integers(A))) if end else (s2, a2)
    return rows


def columns(rows):
    return tuple(np.array(x) for x in zip(*rows, strict=True))


MADE = {
    "replay": lambda n: rl.ReplayQLearning(S, A, num_replays=n, capacity=25, **STEP),
    "dyna": lambda n: rl.DynaQ(S, A, num_plans=n, **STEP),
    "prioritized": lambda n: rl.PrioritizedDyna(S, A, num_plans=n, least=0.05, **STEP),
}


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("n", [0, 1, 7])
@given(seed=st.integers(0, 10**6))
def test_memories_are_what_plain_loops_make_of_them(kind, n, seed):
    rows = transitions(seed)
    learner = MADE[kind](n)
    learner.update(*columns(rows))
    truth = learning_from_memory.remembering(
        kind, rows, S, A, num_plans=n, capacity=25, least=0.05, **STEP
    )
    np.testing.assert_allclose(learner.q, truth, atol=1e-13)


@pytest.mark.parametrize("kind", MADE)
def test_one_by_one_is_all_at_once_and_without_plans_it_is_q_learning(kind):
    rows = transitions(1)
    whole, single = MADE[kind](3), MADE[kind](3)
    deltas = whole.update(*columns(rows))
    assert [single.update(*row) for row in rows] == deltas.tolist()
    np.testing.assert_array_equal(whole.q, single.q)
    if kind != "prioritized":
        plain, none = rl.QLearning(S, A, **STEP), MADE[kind](0)
        np.testing.assert_array_equal(plain.update(*columns(rows)), none.update(*columns(rows)))


@given(seed=st.integers(0, 10**6))
def test_speedy_q_learning_averages_rounds(seed):
    rows = transitions(seed, 150)
    learner = rl.SpeedyQLearning(S, A, gamma=0.9)
    learner.update(*columns(rows))
    np.testing.assert_allclose(
        learner.q, learning_from_memory.speedy(rows, S, A, gamma=0.9), atol=1e-12
    )


def test_speedy_q_learning_in_sweeps_is_its_published_recursion():
    to, reward = np.array([[1, 2], [2, 0], [0, 1]]), np.array([[1.0, 0.0], [0.5, 2.0], [0.0, -1.0]])
    learner = rl.SpeedyQLearning(3, 2, gamma=0.9)

    def T(q):
        return reward + 0.9 * q.max(axis=1)[to]

    before = q = np.zeros((3, 2))
    learner.memory.visits[:], learner.memory.count[:, updates.KNOWN] = (
        1,
        6,
    )  # every pair has been met
    for k in range(30):
        for s in range(3):
            for a in range(2):
                learner.update(s, a, reward[s, a], to[s, a], False, False)
        alpha = 1 / (k + 1)
        before, q = q, q + alpha * (T(before) - q) + (1 - alpha) * (T(q) - T(before))
        np.testing.assert_allclose(learner.q, q, atol=1e-12)


def test_speedy_q_learning_is_faster_than_its_step_size_with_q_learning():
    model = worlds.book_grid(gamma=0.9)
    uniform = np.full((25, 5), 0.2)
    truth = solve(model).values
    options = {"num_steps": 100_000, "policy": uniform, "num_runs": 20, "seed": 0}
    error = {}
    for made, alpha in ((rl.SpeedyQLearning, {}), (rl.QLearning, {"alpha": inverse_visits(1.0)})):
        tables = made(25, 5, gamma=0.9, **alpha).learn(model, **options).tables
        error[made] = np.abs(tables.max(axis=2) - truth).max(axis=1).mean()
    assert error[rl.SpeedyQLearning] < 0.5 * error[rl.QLearning]


def test_planning_makes_more_of_each_episode():
    model = worlds.cliff()
    length = {}
    for made, options in (
        (rl.QLearning, {}), (rl.ReplayQLearning, {"num_replays": 10}), (rl.DynaQ, {"num_plans": 10}),
        (rl.PrioritizedDyna, {"num_plans": 10}),
    ):  # fmt: skip
        history = made(48, 4, gamma=1.0, **options).learn(
            model, num_episodes=20, record_every=20, num_runs=50, epsilon=0.1, seed=0
        )
        length[made] = history.mean("episode_length")[-1]
    assert length[rl.PrioritizedDyna] < length[rl.DynaQ] < 0.7 * length[rl.QLearning]
    assert length[rl.ReplayQLearning] < 0.7 * length[rl.QLearning]


def small(seed: int = 0):
    case = fixtures.random_mdp(np.random.default_rng(seed), 3, 2, terminal=1, gamma=0.5)
    return case, MDP.from_dense(case.P, case.R, gamma=0.5, layout="sas", terminal=case.terminal)


@pytest.mark.parametrize("made", [rl.ReplayQLearning, rl.DynaQ, rl.SpeedyQLearning])
def test_they_find_the_optimum(made):
    case, model = small(1)
    optimum = optimal_lp(case.P, case.R, 0.5, terminal=case.terminal)[0]
    alpha = {} if made is rl.SpeedyQLearning else {"alpha": inverse_visits(0.8)}
    history = made(3, 2, gamma=0.5, **alpha).learn(model, num_steps=10_000, num_runs=50, epsilon=0.5, seed=1)  # fmt: skip
    values = history.tables.max(axis=2)[:, ~case.terminal]
    error = values.std(axis=0, ddof=1) / 50**0.5
    assert (np.abs(values.mean(axis=0) - optimum[~case.terminal]) <= 4.5 * error + 0.02).all()


def test_prioritized_dyna_solves_the_model_it_has_seen():
    rows = transitions(3, 200)
    learner = rl.PrioritizedDyna(S, A, gamma=0.5, num_plans=400, least=1e-12)
    learner.update(*columns(rows))
    seen = empirical_mdp(*columns(rows)[:5], num_states=S, num_actions=A)
    truth = optimal_lp(seen.P, seen.R, 0.5, terminal=seen.terminal, action_mask=seen.action_mask)[0]
    tried = seen.counts[:S] > 0
    assert tried.all()
    np.testing.assert_allclose(learner.values, truth[:S], atol=1e-6)


@pytest.mark.parametrize("made", [rl.DynaQ, rl.PrioritizedDyna, rl.ReplayQLearning, rl.SpeedyQLearning])  # fmt: skip
def test_what_was_remembered_goes_along(made):
    _, model = small(2)
    learner = made(3, 2, gamma=0.5)
    learner.update(0, 1, 3.0, 1, False, False)
    learner.update(1, 1, 2.0, 0, False, False)
    kept = learner.memory.count.copy()
    learner.learn(model, num_steps=1, num_runs=3, seed=0)
    after = learner.memory.count
    if made is rl.SpeedyQLearning:
        assert after[0, updates.KNOWN] >= kept[0, updates.KNOWN]
    else:
        assert after[0, 0] in (kept[0, 0], kept[0, 0] + 1)
        place = 0 if made is rl.ReplayQLearning else 1
        assert learner.memory.past_reward[0, place] == 3.0


def test_a_continued_trainer_goes_on_bit_for_bit():
    _, model = small(2)

    def trainer():
        return rl.PrioritizedDyna(3, 2, gamma=0.5).trainer(model, num_steps=200, record_every=20, num_runs=3, seed=6)  # fmt: skip

    whole, first, second = trainer(), trainer(), trainer()
    events = [repr(e) for e in whole]
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(4)]
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == events
    np.testing.assert_array_equal(second.tables, whole.tables)


def test_high_first_values_make_a_greedy_learner_explore():
    model = worlds.deep_sea(6)
    found = {}
    for first in (0.0, 1.0):
        learner = rl.QLearning(
            model.num_states, model.num_actions, gamma=1.0, alpha=0.5, initial=first
        )
        history = learner.learn(
            model, num_episodes=500, epsilon=0.0, num_runs=10, record_every=100, seed=0
        )
        found[first] = history.mean("episode_return")[-1]
    best = model.start @ shortest_path_value_iteration(model).values
    assert found[1.0] == pytest.approx(best) and found[0.0] < 0.5 * best


def test_there_may_be_no_room():
    learner = rl.DynaQ(S, A, gamma=0.9, max_outcomes=3)
    rows = transitions(4)
    with pytest.raises(
        SamplingError, match=r"more distinct outcomes .* than it has room for \(3\)"
    ):
        learner.update(*columns(rows))
    with pytest.raises(InputError, match="num_plans must be at least 0, got -1"):
        rl.DynaQ(S, A, gamma=0.9, num_plans=-1)
    with pytest.raises(InputError, match="capacity must be at least 1, got 0"):
        rl.ReplayQLearning(S, A, gamma=0.9, capacity=0)
    with pytest.raises(InputError, match="least must be"):
        rl.PrioritizedDyna(S, A, gamma=0.9, least=-1.0)


def test_an_action_that_the_model_lacks_teaches_nothing():
    queue = worlds.access_control_queue(gamma=0.9)
    learner = rl.QLearning(44, 2, gamma=0.9)
    learner.learn(queue, num_steps=10)
    with pytest.raises(
        SupportError, match=r"action 1 was taken in state 2, which the model .* lacks: it has \[0\]"
    ):
        learner.update(2, 1, 4.0, 3, False, False)
    learner.update(2, 0, 0.0, 3, False, False)
