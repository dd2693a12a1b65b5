"""Tasks of the house and the fused rollout, against their rules and a plain rollout: part of environments-and-rollouts.

The regulator against products by hand and covariances, finite tasks against rules played by hand, the fused rollout
against EnvCollector and a Normalizer that play the same actions. Seeds fixed.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from dodona.checks.compare import holds
from dodona.oracles import sequences
from dodona.policies import MLPCritic, MLPPolicy
from dodona.rl import EnvCollector, Normalizer, make_env
from dodona.rl.native.lqr_env import Regulator

EXACT, STORED = 1e-12, 2e-6
SIGMAS = 4.5  # level 7e-6
COLUMNS = ("obs", "rewards", "terminated", "truncated", "next_obs", "values", "next_values", "logp_old")  # fmt: skip


def regulator_checks(subjects) -> Iterator[Any]:
    """One step of many rows, then the clock."""
    N, p = 4000, _regulator()
    env = subjects["LQREnv"](p, N, seed=0, max_episode_steps=3)
    env.reset()
    rng = np.random.default_rng(0)
    yield _covariance("first states", env.states.numpy(), p.X0)
    for t in range(1, 7):
        x = env.states.numpy()
        u = rng.normal(size=(N, 2)).astype(np.float32)
        step = env.step(torch.from_numpy(u))
        cost = ((x @ p.Q) * x).sum(axis=1) + ((u @ p.R) * u).sum(axis=1)
        yield f"rewards of step {t}", step.rewards.numpy() / -cost, np.ones(N), 1e-5, "by hand"
        noise = step.next_obs.numpy() - (x @ p.A.T + u @ p.B.T)
        yield _covariance(f"noise of step {t}", noise, p.W)
        yield f"next to act on {t}", step.obs, env.states.float(), 0.0, "definition"
        flags = [step.terminated.double().mean(), step.truncated.double().mean()]
        yield f"flags of step {t}", flags, [0.0, float(t % 3 == 0)], 0.0, "definition"


def world_checks(subjects) -> Iterator[Any]:
    """Rules by hand, chances by counting."""
    yield from _ball(subjects)
    yield from _sea(subjects)
    yield from _ice(subjects)
    N = 4000
    env = subjects["WorldEnv"]("ContextualBandit-v0", N, seed=0)
    obs = env.reset()
    step = env.step(obs.argmax(dim=1) % 4)  # the best arm of each context
    slack = SIGMAS * np.sqrt(0.09 / N) - abs(float(step.rewards.double().mean()) - 0.9)
    yield holds("mean of the best arm", slack, tolerance=0.0, source="closed form")
    problem = sequences.tm40()
    env, every = subjects["WorldEnv"]("Tokens-v0", 40, seed=0), problem.sequences
    env.reset()
    earned = np.zeros(40)
    for t in range(every.tokens.shape[1]):
        said = np.where(every.mask[:, t], every.tokens[:, t], 0).astype(np.int64)
        step = env.step(torch.from_numpy(said))
        earned += np.where(every.mask[:, t], step.rewards.numpy(), 0.0)
    yield "rewards of all answers", earned, problem.rewards, 0.0, "oracles.sequences"


def fused_checks(subjects) -> Iterator[Any]:
    """Two collections of rows with running statistics, on the actions that were drawn."""
    for env_id in ("Pendulum-v1", "CartPole-v1"):
        ours, theirs = (make_env(env_id, 4, seed=0, max_episode_steps=9) for _ in range(2))
        policy, critic = MLPPolicy.for_env(ours, hidden=(8,)), MLPCritic.for_env(ours, hidden=(8,))
        with torch.no_grad():
            policy.net[-1].weight.mul_(30.0)
            if policy.log_std is not None:
                policy.log_std.fill_(0.5)  # beyond the bounds now and then
        fused = subjects["FusedCollector"](ours, 25, critic=critic, normalizer=Normalizer(ours))
        plain = EnvCollector(theirs, 25, critic=critic, normalizer=Normalizer(theirs))
        for call in (1, 2):
            batch = fused.collect(policy)
            expected = plain.collect(_replay(batch.actions, policy))
            for name in COLUMNS:
                got, wanted = getattr(batch, name), getattr(expected, name)
                yield f"{env_id}, {name}, collection {call}", got.double(), wanted.double(), 1e-4, "EnvCollector"  # fmt: skip
            found, wanted = (x.info["episodes"].returns for x in (batch, expected))
            yield f"{env_id}, returns, collection {call}", found, wanted, 1e-4, "EnvCollector"
        one, other = (x.normalizer.state_dict() for x in (fused, plain))
        for part in ("obs", "returns"):
            for name in ("count", "mean", "squares"):
                yield f"{env_id}, {name} of {part}", one[part][name], other[part][name], 1e-6, "Normalizer"  # fmt: skip


# ---------------------------------------------------------------------- what is played
def _ball(subjects) -> Iterator[Any]:
    """Catch: what the board must show next, and 1 for whoever follows the ball."""
    env, N = subjects["WorldEnv"]("Catch-v0", 30, seed=0), 30
    before = env.reset().reshape(N, 10, 5).numpy()
    rng, every = np.random.default_rng(0), np.arange(N)
    for t in range(9):
        ball, paddle = before[:, t].argmax(axis=1), before[:, 9].argmax(axis=1)
        actions = rng.integers(3, size=N) if t < 5 else np.sign(ball - paddle) + 1
        step = env.step(torch.from_numpy(actions.astype(np.int64)))
        moved = np.clip(paddle + actions - 1, 0, 4)
        board = np.zeros((N, 10, 5))
        board[every, t + 1, ball] = board[every, 9, moved] = 1.0
        reward = np.where(ball == moved, 1.0, -1.0) if t == 8 else np.zeros(N)
        yield f"board {t + 1} of Catch", step.next_obs.reshape(N, 10, 5), board, 0.0, "by hand"
        yield f"reward {t + 1} of Catch", step.rewards, reward, 0.0, "by hand"
        yield f"end {t + 1} of Catch", step.terminated, np.full(N, t == 8), 0.0, "by hand"
        before = step.next_obs.reshape(N, 10, 5).numpy()


def _sea(subjects) -> Iterator[Any]:
    """DeepSea: the one dive that pays, and one that goes left at every cell."""
    right = np.random.RandomState(42).binomial(1, 0.5, (10, 10))
    env = subjects["WorldEnv"]("DeepSea-v0", 2, seed=0)
    env.reset()
    total = np.zeros(2)
    for t in range(10):
        actions = torch.tensor([right[t, t], 1 - right[t, 0]])
        step = env.step(actions)
        total += step.rewards.numpy()
        if t < 9:
            yield f"cells after {t + 1} moves", step.next_obs.argmax(dim=1), [11 * (t + 1), 10 * (t + 1)], 0.0, "by hand"  # fmt: skip
    yield "returns of two dives", total, [0.99, 0.0], STORED, "closed form"


def _ice(subjects) -> Iterator[Any]:
    """FrozenLake: from the start, each action slips evenly among three ways."""
    N = 3000
    where = {0: (0, 0, 4), 1: (0, 4, 1), 2: (4, 1, 0), 3: (1, 0, 0)}
    env = subjects["WorldEnv"]("FrozenLake-v1", N, seed=0, max_episode_steps=1)
    env.reset()
    for a, ways in where.items():
        step = env.step(torch.full((N,), a))
        share = np.bincount(step.next_obs.numpy(), minlength=16)[:16] / N
        p = np.bincount(ways, minlength=16) / 3
        slack = float((SIGMAS * np.sqrt(p * (1 - p) / N) - np.abs(share - p)).min())
        yield holds(f"where action {a} leads", slack, tolerance=0.0, source="Gymnasium's rule")
        flags = [step.terminated.double().mean(), step.truncated.double().mean(), step.rewards.double().sum()]  # fmt: skip
        yield f"ends of action {a}", flags, [0.0, 1.0, 0.0], 0.0, "definition"


def _replay(actions: torch.Tensor, policy: MLPPolicy) -> Any:
    """A policy that plays what was recorded."""
    columns = iter(actions.unbind(dim=1))
    return SimpleNamespace(
        sample=lambda obs, rng: (drawn := next(columns), policy.log_prob(obs, drawn)),
        env_actions=policy.env_actions,
    )


def _regulator() -> Regulator:
    A, B = np.array([[0.9, 0.2], [-0.1, 0.8]]), np.array([[0.3, 0.0], [0.1, 0.5]])
    Q, W = np.array([[1.0, 0.3], [0.3, 0.5]]), np.array([[0.2, 0.1], [0.1, 0.4]])
    return Regulator(A=A, B=B, Q=Q, R=np.diag([0.5, 0.2]), W=W, X0=np.array([[2.0, -1.0], [-1.0, 3.0]]))  # fmt: skip


def _covariance(name: str, x: np.ndarray, covariance: np.ndarray) -> Any:
    """[N, n] numbers of mean 0 and this covariance, entry by entry."""
    spread = np.sqrt((covariance**2 + np.outer(covariance.diagonal(), covariance.diagonal())) / len(x))  # fmt: skip
    slack = float((SIGMAS * spread - np.abs(x.T @ x / len(x) - covariance)).min())
    return holds(f"covariance of {name}", slack, tolerance=0.0, source="definition")


SECTIONS = {
    "regulator": (regulator_checks, {"LQREnv"}),
    "worlds": (world_checks, {"WorldEnv"}),
    "fused": (fused_checks, {"FusedCollector"}),
}
"""case -> (its checks, whom they put to the test)."""
