"""The regulator as an environment: products by hand, the law of its noise, and the cost of a gain by Lyapunov's equation."""

import numpy as np
import pytest
import torch
from scipy import stats

from dodona.errors import CheckpointError, InputError, NonFiniteError, ShapeError
from dodona.oracles.lqr import LQR, lqr2
from dodona.policies import MLPPolicy
from dodona.rl import EnvCollector, check_env, make_env
from dodona.rl.environments import NATIVE, GroupedEnv
from dodona.rl.native.lqr_env import LQREnv, Regulator

NAMES = ("obs", "next_obs", "rewards", "terminated", "truncated")


def wide():
    """Three states, two actions, nothing diagonal, noise in one direction only."""
    rng = np.random.default_rng(0)
    A, B, M, N = rng.normal(size=(3, 3)) / 2, rng.normal(size=(3, 2)), rng.normal(size=(3, 3)), rng.normal(size=(2, 2))  # fmt: skip
    w = np.array([[1.0], [2.0], [-1.0]])
    return Regulator(A=A, B=B, Q=M @ M.T, R=N @ N.T, W=w @ w.T, X0=M.T @ M)


def actions_of(env, num, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(num, env.num_envs, env.action_dim)).astype(np.float32))


def test_a_step_is_the_products_by_hand():
    p = wide()
    env = LQREnv(Regulator(A=p.A, B=p.B, Q=p.Q, R=p.R, W=np.zeros((3, 3)), X0=p.X0), 7, seed=0)
    obs = env.reset()
    for u in actions_of(env, 5):
        x, v = env.states.numpy(), u.double().numpy()
        step = env.step(u)
        after = np.array([p.A @ a + p.B @ b for a, b in zip(x, v, strict=True)])
        cost = [a @ p.Q @ a + b @ p.R @ b for a, b in zip(x, v, strict=True)]
        np.testing.assert_allclose(env.states, after, atol=1e-12)
        np.testing.assert_allclose(step.rewards, -np.array(cost), rtol=1e-6)
        assert torch.equal(step.next_obs, env.states.float())
        assert torch.equal(step.obs, step.next_obs) and torch.equal(
            obs, torch.from_numpy(x).float()
        )
        mean, rewards = env.step_from(torch.from_numpy(x), u.double())
        np.testing.assert_allclose(mean, after, atol=1e-12)
        np.testing.assert_allclose(rewards, -np.array(cost), rtol=1e-12)
        obs = step.obs


def test_noise_and_first_states_have_their_covariance():
    """Level 1e-4 for each number: Kolmogorov-Smirnov along three directions, and the covariance's entries."""
    p, N = wide(), 20_000
    env = LQREnv(p, N, seed=0)
    env.reset()
    first = env.states.numpy()
    u = torch.zeros(N, 2)
    mean, _ = env.step_from(env.states, u.double())
    env.step(u)
    noise = (env.states - mean).numpy()
    for found, covariance in ((first, p.X0), (noise, p.W)):
        slack = 3.9 * np.sqrt((covariance**2 + np.outer(*[covariance.diagonal()] * 2)) / N)
        assert (abs(found.T @ found / N - covariance) < slack).all()
        for d in np.random.default_rng(1).normal(size=(3, 3)):
            spread = np.sqrt(d @ covariance @ d)
            assert stats.kstest(found @ d / spread, "norm").pvalue > 1e-4
    across = np.array([1.0, 0.0, 1.0])  # no noise that way
    assert abs(noise @ across).max() < 1e-9
    assert abs((first[:, 0] * noise[:, 0]).mean()) < 3.9 * np.sqrt(p.X0[0, 0] * p.W[0, 0] / N)


@pytest.mark.parametrize("gain", ["best", "other"])
def test_a_gain_costs_what_the_oracle_says(gain):
    """Level 1e-4; after 1500 steps less than 1e-6 of the discounted cost is left."""
    problem = lqr2()
    K = problem.optimal_gain() if gain == "best" else np.array([[1.0, 1.0]])
    env = make_env("LQR-v0", 2000, seed=0, max_episode_steps=1501)
    x, total = env.reset(), torch.zeros(2000, dtype=torch.float64)
    for t in range(1500):
        step = env.step(-(x.double() @ torch.from_numpy(K).T).float())
        x, total = step.obs, total + 0.99**t * step.rewards.double()
    off = float(total.mean()) + problem.cost(K)
    assert abs(off) < 3.9 * float(total.std()) / np.sqrt(2000)
    if gain == "best":
        assert problem.cost(K) == pytest.approx(35.51543895)


def test_the_default_is_the_oracles_problem():
    ours, theirs = Regulator(), lqr2()
    assert all(np.array_equal(getattr(ours, x), getattr(theirs, x)) for x in ("A", "B", "Q", "R", "W", "X0"))  # fmt: skip
    assert isinstance(theirs, LQR) and NATIVE["LQR-v0"].endswith(":lqr_env")


def test_it_keeps_every_promise():
    env = LQREnv(None, 4, seed=0, max_episode_steps=20, bound=1.0)
    assert isinstance(env, GroupedEnv) and check_env(env).ok
    obs = env.reset_groups(2, seed=4)
    assert torch.equal(obs[0], obs[1]) and not torch.equal(obs[0], obs[2])
    tail = LQREnv(None, 2, seed=0, first_env=2)
    assert torch.equal(tail.reset_groups(2, seed=4), obs[2:])
    assert make_env("LQR-v0", 1, seed=0).max_episode_steps == 100


def test_the_time_limit_cuts_and_shows_the_true_successor():
    env = LQREnv(wide(), 3, seed=0, max_episode_steps=4)
    env.reset()
    for t, u in enumerate(actions_of(env, 9), start=1):
        step = env.step(u)
        assert (
            step.truncated.all() == (t % 4 == 0) and not step.terminated.any() and step.mask.all()
        )
        assert torch.equal(step.obs, env.states.float())
        assert torch.equal(step.obs, step.next_obs) == (t % 4 != 0)


def test_a_row_depends_on_its_number_alone_and_goes_on_when_saved():
    env, tail = LQREnv(wide(), 5, seed=1), LQREnv(wide(), 2, seed=1, first_env=3)
    assert torch.equal(env.reset()[3:], tail.reset())
    for u in actions_of(env, 120):
        whole, part = env.step(u), tail.step(u[3:])
        assert all(torch.equal(getattr(whole, x)[3:], getattr(part, x)) for x in NAMES)
    state, u = env.state_dict(), actions_of(env, 1)[0]
    expected, other = env.step(u), LQREnv(wide(), 5, seed=9)
    other.load_state_dict(state)
    assert torch.equal(other.step(u).next_obs, expected.next_obs)
    with pytest.raises(CheckpointError, match=r"holds states \(5, 3\), this environment \(4, 3\)"):
        LQREnv(wide(), 4, seed=0).load_state_dict(state)


def test_a_gaussian_policy_plays_it():
    env = make_env("LQR-v0", 3, seed=0)
    batch = EnvCollector(env, 7).collect(MLPPolicy.for_env(env))
    assert batch.actions.shape == (3, 7, 1) and torch.isfinite(batch.rewards).all()


@pytest.mark.parametrize(
    "error, message, call",
    [
        (ShapeError, r"Q has shape \(3, 3\), expected \(2, 2\) beside B \(2, 1\)", lambda: Regulator(Q=np.eye(3))),
        (ShapeError, r"B has shape \(2,\), expected \[n, m\]", lambda: Regulator(B=np.ones(2))),
        (NonFiniteError, r"A is not finite", lambda: Regulator(A=np.full((2, 2), np.nan))),
        (InputError, r"R must have no negative eigenvalue, its least is -1", lambda: Regulator(R=[[-1.0]])),
        (InputError, r"W must be symmetric", lambda: Regulator(W=[[1.0, 0.5], [0.0, 1.0]])),
        (InputError, r"bound must be in \(0, inf\], got 0", lambda: LQREnv(None, 1, seed=0, bound=0.0)),
        (InputError, r"LQR-v0 was stepped before its first reset", lambda: LQREnv(None, 1, seed=0).step(torch.zeros(1, 1))),
        (InputError, r"action\[0\] of environment 0 is 2, expected within \[-1, 1\]", lambda: begun(bound=1.0).step(torch.full((1, 1), 2.0))),
        (NonFiniteError, r"action\[0\] of environment 0 is inf", lambda: begun().step(torch.full((1, 1), torch.inf))),
        (ShapeError, r"states have shape \(2, 3\).*expected \(N, 2\) and \(N, 1\)", lambda: begun().step_from(torch.zeros(2, 3), torch.zeros(2, 1))),
        (InputError, r"3 rows from row 0 on are no groups of 2", lambda: LQREnv(None, 3, seed=0).reset_groups(2)),
        (InputError, r"num_envs must be at least 1", lambda: LQREnv(None, 0, seed=0)),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


def begun(**options):
    env = LQREnv(None, 1, seed=0, **options)
    env.reset()
    return env
