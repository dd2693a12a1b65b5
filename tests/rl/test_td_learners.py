"""The compiled rules against plain loops on the same transitions, and the identities between them."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona import rl
from dodona.core.schedules import constant, inverse_visits, linear
from dodona.errors import InputError, SamplingError, ShapeError
from dodona.oracles import learning

S, A = 4, 3


def transitions(seed: int, N: int = 60):
    """Episodes in one piece, some cut from outside: rows of (s, a, r, s2, terminated, truncated, a2)."""
    rng = np.random.default_rng(seed)
    rows, s, a = [], int(rng.integers(S)), int(rng.integers(A))
    for _ in range(N):
        s2, a2 = int(rng.integers(S)), int(rng.integers(A))
        end = rng.choice(3, p=[0.75, 0.15, 0.1])
        rows.append((s, a, float(rng.normal()), s2, end == 1, end == 2, a2))
        s, a = (int(rng.integers(S)), int(rng.integers(A))) if end else (s2, a2)
    return rows


def columns(rows):
    s, a, r, s2, terminated, truncated, a2 = (np.array(x) for x in zip(*rows, strict=True))
    return s, a, r, s2, terminated, truncated, a2


MADE = {
    "td": rl.TD0, "sarsa": rl.Sarsa, "expected": rl.ExpectedSarsa, "max": rl.QLearning,
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
@given(seed=st.integers(0, 10**6))
def test_one_step_rules_equal_plain_loops_to_the_last_bit(kind, seed):
    rows = transitions(seed)
    learner = MADE[kind](S, A, gamma=0.9, alpha=0.3, initial=0.5)
    learner.update(*columns(rows), epsilon=0.2)
    truth = learning.replay(kind, rows, S, A, gamma=0.9, alpha=0.3, epsilon=0.2, initial=0.5)
    np.testing.assert_array_equal(learner.tables[0].reshape(S, -1), truth)


@pytest.mark.parametrize("kind, made", [("td", rl.NStepTD), ("sarsa", rl.NStepSarsa), ("expected", rl.NStepExpectedSarsa)])  # fmt: skip
@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_n_step_rules_equal_plain_loops_with_the_tail_flushed(kind, made, n):
    rows = transitions(n)
    learner = made(S, A, num_steps=n, gamma=0.9, alpha=0.3)
    learner.update(*columns(rows), epsilon=0.2)
    truth = learning.replay(kind, rows, S, A, gamma=0.9, alpha=0.3, epsilon=0.2, num_steps=n)
    np.testing.assert_allclose(learner.tables[0].reshape(S, -1), truth, atol=1e-13)


@pytest.mark.parametrize("visits", ["every", "first"])
@pytest.mark.parametrize("omega", [0.0, 1.0])
def test_monte_carlo_equals_plain_loops(visits, omega):
    rows = transitions(3, 200)
    alpha = inverse_visits(omega) if omega else 0.3
    learner = rl.MonteCarlo(S, A, gamma=0.9, alpha=alpha, visits=visits)
    learner.update(*columns(rows), epsilon=0.2)
    truth = learning.replay(
        "monte carlo", rows, S, A, gamma=0.9, alpha=0.3, epsilon=0.2, omega=omega,
        first_visit=visits == "first",
    )  # fmt: skip
    np.testing.assert_allclose(learner.q, truth, atol=1e-13)


def test_one_by_one_is_all_at_once():
    rows = transitions(4)
    whole, single = (rl.NStepSarsa(S, A, num_steps=3, gamma=0.9) for _ in range(2))
    deltas = whole.update(*columns(rows))
    assert [single.update(*row) for row in rows] == deltas.tolist()
    np.testing.assert_array_equal(whole.q, single.q)


@pytest.mark.parametrize("made", [rl.TD0, rl.Sarsa, rl.ExpectedSarsa, rl.QLearning])
def test_an_update_moves_alpha_of_the_way_to_the_public_target(made):
    learner = made(S, A, gamma=0.9, alpha=0.5)
    learner.update(*columns(transitions(5)))
    before = learner.tables[0].copy()
    target = learner.target(np.array([1.5]), np.array([0.9]), np.array([2]), np.array([1]), epsilon=0.1)  # fmt: skip
    learner.update(1, 0, 1.5, 2, False, False, 1, epsilon=0.1)
    place = (1,) if made is rl.TD0 else (1, 0)
    assert learner.tables[0][place] == pytest.approx(
        before[place] + 0.5 * (target[0] - before[place]), rel=1e-14
    )


def test_double_q_moves_one_table_towards_the_other():
    learner = rl.DoubleQLearning(2, 2, gamma=0.5, alpha=1.0)
    learner.tables[0][1], learner.tables[1][1] = [1.0, 2.0], [10.0, 20.0]
    target = learner.target(np.array([1.0]), np.array([0.5]), np.array([1]))
    assert target[0] == 1.0 + 0.5 * 20.0  # the first table prefers action 1, the second judges it
    learner.tables[0][1] = [3.0, 2.0]
    seen = set()
    for _ in range(20):
        learner.update(0, 0, 1.0, 1, False, False)
        seen |= {float(learner.tables[0][0, 0]), float(learner.tables[1][0, 0])}
    # table 0 prefers action 0 (judged 10), table 1 prefers action 1 (judged 2)
    assert seen == {0.0, 6.0, 2.0}


def episode(seed: int, length: int):
    rng = np.random.default_rng(seed)
    states = rng.integers(0, S, length + 1)
    return states, rng.normal(size=length)


def play(learner, states, rewards, *, truncated=False):
    T = len(rewards)
    ends = np.arange(T) == T - 1
    learner.update(
        states[:-1], np.zeros(T, dtype=int), rewards, states[1:], ends & (not truncated), ends & truncated
    )  # fmt: skip


@pytest.mark.parametrize("gae_lambda", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("truncated", [False, True])
@given(seed=st.integers(0, 10**6))
def test_offline_backward_view_is_the_forward_view(gae_lambda, truncated, seed):
    states, rewards = episode(seed, 12)
    first = np.random.default_rng(seed + 1).normal(size=S)
    learner = rl.TDLambda(S, 1, gae_lambda=gae_lambda, gamma=0.9, alpha=0.2, initial=first, offline=True)  # fmt: skip
    play(learner, states, rewards, truncated=truncated)
    truth = learning.lambda_episode(
        states[:-1].tolist(), rewards.tolist(), first.tolist(), gamma=0.9, gae_lambda=gae_lambda, alpha=0.2,
        last_value=float(first[states[-1]]) if truncated else 0.0,
    )  # fmt: skip
    np.testing.assert_allclose(learner.values, truth, atol=1e-12)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.6, 1.0])
def test_dutch_traces_are_the_online_lambda_return(gae_lambda):
    states, rewards = episode(7, 10)
    first = np.random.default_rng(8).normal(size=S)
    learner = rl.TDLambda(S, 1, gae_lambda=gae_lambda, gamma=0.9, alpha=0.2, initial=first, trace="dutch")  # fmt: skip
    play(learner, states, rewards)
    truth = learning.online_lambda_episode(
        states[:-1].tolist(),
        rewards.tolist(),
        first.tolist(),
        gamma=0.9,
        gae_lambda=gae_lambda,
        alpha=0.2,
    )
    np.testing.assert_allclose(learner.values, truth, atol=1e-10)


def same(a, b, rows, atol=0.0):
    a.update(*columns(rows))
    b.update(*columns(rows))
    np.testing.assert_allclose(a.tables[0], b.tables[0], atol=atol, rtol=0)


def test_identities_between_the_rules():
    rows = transitions(9, 300)
    k = {"gamma": 0.9, "alpha": 0.2}
    same(rl.NStepTD(S, A, num_steps=1, **k), rl.TD0(S, A, **k), rows)
    same(rl.NStepSarsa(S, A, num_steps=1, **k), rl.Sarsa(S, A, **k), rows)
    same(rl.TDLambda(S, A, gae_lambda=0.0, **k), rl.TD0(S, A, **k), rows)
    same(rl.TDLambda(S, A, gae_lambda=0.0, trace="dutch", **k), rl.TD0(S, A, **k), rows, 1e-15)
    same(rl.SarsaLambda(S, A, gae_lambda=0.0, **k), rl.Sarsa(S, A, **k), rows)
    same(rl.WatkinsQLambda(S, A, gae_lambda=0.0, **k), rl.QLearning(S, A, **k), rows)


def test_n_beyond_the_episode_is_monte_carlo_and_so_is_lambda_1_offline():
    rows = [(s, 0, r, s2, t or c, False, 0) for s, _, r, s2, t, c, _ in transitions(10, 100)]
    k = {"gamma": 0.9, "alpha": 0.2}
    same(rl.NStepTD(S, 1, num_steps=100, **k), rl.MonteCarlo(S, 1, of="states", **k), rows)
    # every visit of a state in one episode from the same old value: a state once per episode
    rows = [(s % S, 0, 1.0, (s + 1) % S, s % S == S - 1, False, 0) for s in range(40)]
    same(
        rl.TDLambda(S, 1, gae_lambda=1.0, offline=True, **k), rl.MonteCarlo(S, 1, of="states", **k), rows, 1e-14
    )  # fmt: skip


def test_q_learning_with_alpha_1_is_asynchronous_value_iteration():
    to, reward = np.array([[1, 2], [2, 0], [0, 1]]), np.array([[1.0, 0.0], [0.5, 2.0], [0.0, -1.0]])
    learner, q = rl.QLearning(3, 2, gamma=0.9, alpha=1.0), np.zeros((3, 2))
    for _ in range(50):
        for s in range(3):
            for a in range(2):
                learner.update(s, a, reward[s, a], to[s, a], False, False)
                q[s, a] = reward[s, a] + 0.9 * q[to[s, a]].max()
    np.testing.assert_array_equal(learner.q, q)


def test_expected_sarsa_of_a_given_policy_needs_no_next_action():
    policy = np.random.default_rng(0).dirichlet(np.ones(A), S)
    learner = rl.ExpectedSarsa(S, A, gamma=0.9, alpha=0.5, target_policy=policy)
    learner.tables[0][:] = np.arange(S * A).reshape(S, A)
    before = learner.q[0, 0]
    learner.update(0, 0, 1.0, 2, False, False)
    assert learner.q[0, 0] == pytest.approx(
        before + 0.5 * (1.0 + 0.9 * policy[2] @ np.array([6.0, 7.0, 8.0]) - before)
    )
    np.testing.assert_allclose(learner.probabilities(0.1), policy)


def test_step_sizes_follow_their_schedule():
    learner = rl.TD0(1, 1, gamma=0.0, alpha=inverse_visits(1.0))
    rewards = np.array([1.0, 2.0, 6.0])
    learner.update(np.zeros(3, int), np.zeros(3, int), rewards, np.zeros(3, int), np.ones(3, bool), np.zeros(3, bool))  # fmt: skip
    assert learner.values[0] == pytest.approx(3.0)  # the plain mean
    assert learner.visits[0] == 3
    slow = rl.TD0(1, 1, gamma=0.0, alpha=linear(1.0, 0.0, 2))
    for r in (4.0, 8.0, 100.0):
        slow.update(0, 0, r, 0, True, False)
    assert slow.values[0] == 6.0  # sizes 1, 1/2, 0


def test_wrong_arguments_are_named():
    with pytest.raises(InputError, match=r"alpha must be in \(0, inf\), got 0"):
        rl.TD0(2, 1, gamma=0.9, alpha=0.0)
    with pytest.warns(UserWarning, match=r"alpha is 1.5.*constant"):
        rl.TD0(2, 1, gamma=0.9, alpha=1.5)
    rl.TD0(2, 1, gamma=0.9, alpha=constant(1.5))
    with pytest.raises(InputError, match=r"gamma must be in \[0, 1\]"):
        rl.QLearning(2, 2, gamma=1.1)
    with pytest.raises(InputError, match="num_steps must be at least 1, got 0"):
        rl.NStepTD(2, 1, num_steps=0, gamma=0.9)
    with pytest.raises(InputError, match="gae_lambda"):
        rl.TDLambda(2, 1, gae_lambda=1.5, gamma=0.9)
    with pytest.raises(InputError, match="dutch traces correct a table that moves"):
        rl.TDLambda(2, 1, gae_lambda=0.5, gamma=0.9, trace="dutch", offline=True)
    with pytest.raises(
        ShapeError, match=r"initial has shape \(3,\), expected a number or \(2, 2\)"
    ):
        rl.QLearning(2, 2, gamma=0.9, initial=np.zeros(3))
    with pytest.raises(InputError, match="TD0 learns values of states and has no q"):
        _ = rl.TD0(2, 1, gamma=0.9).q
    learner = rl.Sarsa(2, 2, gamma=0.9)
    with pytest.raises(InputError, match="Sarsa needs a2.*ExpectedSarsa.*QLearning"):
        learner.update(0, 0, 1.0, 1, False, False)
    learner.update(0, 0, 1.0, 1, True, False)  # nothing follows, so no action does
    with pytest.raises(InputError, match=r"s2 must be in 0..1, got 2"):
        learner.update(0, 0, 1.0, 2, True, False)
    with pytest.raises(InputError, match="s2 must be in 0..1, got -1"):
        learner.update(0, 0, 1.0, -1, True, False)
    with pytest.raises(TypeError, match="terminated must be bool.*One 'done' is not enough"):
        learner.update(0, 0, 1.0, 1, 1.0, False)
    with pytest.raises(TypeError, match="s must be a whole number"):
        learner.update(0.5, 0, 1.0, 1, True, False)
    short = rl.MonteCarlo(2, 1, gamma=0.9, longest_episode=3)
    short.update(*[np.zeros(2, int)] * 2, np.zeros(2), np.zeros(2, int), *[np.zeros(2, bool)] * 2)
    with pytest.raises(SamplingError, match="an episode took more than 3 steps"):
        short.update(
            *[np.zeros(2, int)] * 2, np.zeros(2), np.zeros(2, int), *[np.zeros(2, bool)] * 2
        )
    with pytest.raises(ShapeError, match="must be equally long"):
        learner.update(np.zeros(2, int), np.zeros(2, int), np.zeros(3), np.zeros(2, int), np.ones(2, bool), np.ones(2, bool))  # fmt: skip


def test_the_tabular_learners_do_not_wait_for_torch():
    code = "import sys, dodona.rl.td; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_no_learner():
    with pytest.raises(AttributeError, match="no attribute 'Sarse'"):
        rl.Sarse  # noqa: B018
