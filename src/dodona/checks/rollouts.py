"""Environments, rollouts and their statistics against closed forms and plain loops: part of environments-and-rollouts.

A ring says what a time limit is worth, a script what three ways of resetting must agree on, a lottery which
episodes an evaluation may count; Gymnasium's own environments say what the compiled ones must do. Seeds fixed.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dodona.checks.compare import holds
from dodona.mdp import MDP
from dodona.rl import Step, make_env, mdp_env
from dodona.rl.native.native_env import TASKS

COLUMNS = ("next_obs", "rewards", "terminated", "truncated", "mask")
GAMMA, EXACT, STORED = 0.5, 1e-12, 2e-6
NEW = 1e6  # what a scripted episode shows first, and what must never be taken for a successor
SCRIPTS = (
    [(3, "terminated"), (1, "truncated"), (2, "both")],
    [(1, "terminated"), (4, "truncated")],
)
CARD = "card environments-and-rollouts"
# where states of each task are drawn from
SPANS = {
    "CartPole-v1": (2.6, 4.0, 0.25, 4.0), "MountainCar-v0": (0.6, 0.07),
    "MountainCarContinuous-v0": (0.6, 0.07), "Pendulum-v1": (12.0, 8.0),
    "Acrobot-v1": (np.pi, np.pi, 12.0, 28.0),
}  # fmt: skip


def ring_checks(subjects) -> Iterator[Any]:
    """TD through environments whose time limit cuts a circle that has no end."""
    K = 5
    one = subjects["mdp_env"](_ring(np.ones(K)), 4, seed=0, max_episode_steps=K)
    yield (
        "reward 1, cut after a round",
        _td(one, K),
        np.full(K, 1 / (1 - GAMMA)),
        1e-6,
        "closed form",
    )
    rewards = np.array([4.0, 0.0, -2.0, 1.0, 8.0])
    ahead = np.roll(np.eye(K), 1, axis=1)
    truth = np.linalg.solve(np.eye(K) - GAMMA * ahead, rewards)
    # begun anywhere, so that the first observation is seldom the successor
    uneven = subjects["mdp_env"](_ring(rewards, even_start=True), 8, seed=0, max_episode_steps=3)
    yield "uneven rewards, cut after 3", _td(uneven, K), truth, 1e-6, "linear system"


def script_checks(subjects) -> Iterator[Any]:
    """The same episodes under the three ways of resetting: the same transitions, once each."""
    truth = np.array(sorted(row for n, script in enumerate(SCRIPTS) for row in _told(n, script)))
    for mode in AutoresetMode:
        makers = [lambda s=script, n=n: _Scripted(n, s) for n, script in enumerate(SCRIPTS)]
        env = subjects["GymnasiumEnv"](SyncVectorEnv(makers, autoreset_mode=mode), seed=0)
        env.reset()
        found = []
        for _ in range(12):
            step = env.step(torch.zeros(2, dtype=torch.int64))
            columns = [getattr(step, name).numpy() for name in COLUMNS]
            found += [(*row[0].tolist(), *(float(x) for x in row[1:4])) for row in zip(*columns, strict=True) if row[4]]  # fmt: skip
        counted = sorted(row for row in found if row[1] < len(SCRIPTS[int(row[0])]))
        yield f"counted transitions, {mode.value}", np.array(counted), truth, 0.0, "the script"


def stream_checks(subjects) -> Iterator[Any]:
    """What row n does depends on its number, and a saved environment goes on."""
    make, mdp = subjects["mdp_env"], _lottery(length=4)
    eight, four = make(mdp, 8, seed=3), make(mdp, 4, seed=3)
    wide, narrow = _played(eight, 12), _played(four, 12)
    yield "rows 0..3 of 8 are 4 rows", wide[:, :, :4], narrow, 0.0, "definition"
    tail = make(mdp, 4, seed=3, first_env=4)
    yield "rows 4..7 of 8 in another process", wide[:, :, 4:], _played(tail, 12), 0.0, "definition"
    state, other = eight.state_dict(), make(mdp, 8, seed=9)
    expected = _played(eight, 12, reset=False)
    other.load_state_dict(state)
    yield "saved and loaded", _played(other, 12, reset=False), expected, 0.0, "definition"


def collect_checks(subjects) -> Iterator[Any]:
    """What a batch holds, against the environment stepped by hand, and what its critic was asked."""
    mdp = _lottery(length=4)
    table = torch.tensor(np.random.default_rng(0).normal(size=mdp.num_states)).float()
    batch = subjects["collect"](_only_action, _mdp_env(mdp, 6, 3), 11, critic=lambda s: table[s], rng=None)  # fmt: skip
    by_hand = _played(_mdp_env(mdp, 6, 3), 11)
    got = np.array([getattr(batch, name).numpy().T for name in COLUMNS], dtype=float)
    yield "columns", got.transpose(1, 0, 2), by_hand, 0.0, "by hand"
    follows = np.where(by_hand[:, 2], 0.0, table.numpy()[by_hand[:, 0].astype(int)])
    yield "next_values", batch.next_values.T, follows, EXACT, "definition"
    yield "values", batch.values, table[batch.obs], EXACT, "definition"
    ended = batch.info["episodes"]
    rows = np.concatenate([np.diff(np.flatnonzero(x), prepend=-1) for x in (by_hand[:, 2] + by_hand[:, 3]).T])  # fmt: skip
    yield "lengths of episodes", np.sort(ended.lengths), np.sort(rows), 0.0, "by hand"


def lottery_checks(subjects) -> Iterator[Any]:
    """Episodes of length 1 or 50, as likely: the mean is 25.5, unless short ones are counted first."""
    N = 512
    seen = subjects["evaluate"](_only_action, _mdp_env(_lottery(), N, 60), num_episodes=N, seed=0)
    for name in ("lengths", "returns"):
        gap = abs(float(getattr(seen, name).mean()) - 25.5)
        slack = 4.5 * 24.5 / np.sqrt(N) - gap  # level 7e-6
        yield holds(f"mean of {name}", slack, tolerance=0.0, source="closed form")
    yield "number of episodes", len(seen), N, 0.0, "definition"


def normalizer_checks(subjects) -> Iterator[Any]:
    """Statistics that ran along, against the moments of everything at once."""
    T, B, gamma = 60, 4, 0.9
    rng = np.random.default_rng(0)
    scale = subjects["Normalizer"](make_env("Pendulum-v1", B, seed=0), gamma=gamma)
    obs = rng.normal(size=(B, 3)).astype(np.float32)
    scale.begin(torch.from_numpy(obs))
    seen, sums, running = [*obs], [], np.zeros(B)
    for _ in range(T):
        after, fresh = rng.normal(2.0, 3.0, (2, B, 3)).astype(np.float32)
        rewards = (5.0 + rng.normal(size=B)).astype(np.float32)
        ended, cut = rng.random((2, B)) < 0.15
        mask = rng.random(B) < 0.85
        over = (ended | cut) & mask
        shown = np.where((over | ~mask)[:, None], fresh, after)
        given = map(torch.from_numpy, (shown, after, rewards, ended, cut, mask))
        scale.observe(Step(*given))
        running = np.where(mask, gamma * running + rewards, running)
        sums += running[mask].tolist()
        running[over] = 0.0
        seen += [*after[mask], *shown[over | ~mask]]
    unit = scale.rewards(torch.tensor([1.0, 2.0, -3.0]))
    expected = np.array([1.0, 2.0, -3.0]) / np.std(sums, ddof=1)
    yield "scale of rewards", unit, expected, 1e-6, "moments of all sums at once"
    seen = np.array(seen, dtype=np.float64)
    got = scale.obs(torch.from_numpy(seen[:50]).float())
    expected = (seen[:50] - seen.mean(axis=0)) / seen.std(axis=0, ddof=1)
    yield "scale of observations", got, expected, 1e-5, "moments of all states at once"


def native_checks(subjects, *, full: bool = False) -> Iterator[Any]:
    """The compiled tasks, state by state, against Gymnasium's; then their clock and their resets."""
    for env_id in TASKS:
        states, actions, after, obs, rewards, terminated = _gymnasiums(env_id, 20_000 if full else 300)  # fmt: skip
        env = subjects["make_env"](env_id, 200, seed=0, max_episode_steps=3, backend="native")
        got = env.step_from(torch.from_numpy(states), torch.from_numpy(actions))
        yield f"{env_id}, successors", got[0], after, EXACT, "Gymnasium"
        yield f"{env_id}, rewards", got[1], rewards, EXACT, "Gymnasium"
        yield f"{env_id}, terminated", got[2], terminated, 0.0, "Gymnasium"
        yield f"{env_id}, observations", env.observe(got[0]), obs, STORED, "Gymnasium"
        env.reset()
        for t in range(1, 4):
            before, push = env.states, _pushes(env)
            after, rewards, terminated = env.step_from(before, push)
            step = env.step(push)
            flags = torch.stack([terminated, torch.full_like(terminated, t == 3)])
            yield f"{env_id}, flags of step {t}", torch.stack([step.terminated, step.truncated]), flags, 0.0, "definition"  # fmt: skip
            yield f"{env_id}, step {t}", step.next_obs, env.observe(after), 0.0, "definition"
            yield f"{env_id}, reward {t}", step.rewards, rewards.float(), 0.0, "definition"
        yield f"{env_id}, begins anew", step.obs, env.observe(env.states), 0.0, "definition"


SECTIONS = {
    "ring of environments": (ring_checks, {"mdp_env"}),
    "scripted": (script_checks, {"GymnasiumEnv"}),
    "streams": (stream_checks, {"mdp_env"}),
    "collect": (collect_checks, {"collect"}),
    "lottery": (lottery_checks, {"evaluate"}),
    "Normalizer": (normalizer_checks, {"Normalizer"}),
    "native": (native_checks, {"make_env"}),
}
"""case -> (its checks, whom they put to the test)."""


# ---------------------------------------------------------------------- what is played
def _ring(rewards: np.ndarray, *, even_start: bool = False) -> MDP:
    K = len(rewards)
    start = np.full(K, 1 / K) if even_start else np.eye(K)[0]
    ahead = np.roll(np.eye(K), 1, axis=1)[:, None]
    return MDP.from_dense(ahead, rewards[:, None], gamma=GAMMA, start=start)


def _td(env: Any, num_states: int) -> np.ndarray:
    """Values after TD(0) with step size 1, which the ring's certainty allows."""
    v = np.zeros(num_states)
    obs = env.reset().numpy()
    for _ in range(150):
        step = env.step(torch.zeros(env.num_envs, dtype=torch.int64))
        ahead = np.where(step.terminated, 0.0, v[step.next_obs.numpy()])
        v[obs] = step.rewards.numpy() + GAMMA * ahead
        obs = step.obs.numpy()
    return v


def _lottery(*, length: int = 50) -> MDP:
    """Half of the episodes end at once, half after so many steps; reward 1 a step."""
    rows = [(0, 0, length, 0.5, 1.0, 1), (0, 0, 1, 0.5, 1.0, 0)]
    rows += [(s, 0, s + 1, 1.0, 1.0, int(s + 1 == length)) for s in range(1, length)]
    return MDP.from_table(rows, gamma=GAMMA)


def _mdp_env(mdp: MDP, num_envs: int, limit: int) -> Any:
    return mdp_env(mdp, num_envs, seed=1, max_episode_steps=limit)


def _only_action(obs: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(obs), dtype=torch.int64)


def _played(env: Any, num_steps: int, *, reset: bool = True) -> np.ndarray:
    """[T, 5, B] the columns of num_steps steps."""
    if reset:
        env.reset()
    steps = [env.step(torch.zeros(env.num_envs, dtype=torch.int64)) for _ in range(num_steps)]
    return np.array([[getattr(s, x).numpy() for x in COLUMNS] for s in steps], dtype=float)


class _Scripted(gymnasium.Env):
    """Episodes (length, kind); observation [row, episode, step], and [row, episode, NEW] at a reset."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, row: int, script: list[tuple[int, str]]):
        self.row, self.script, self.episode, self.t = row, script, -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.row, self.episode, NEW], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        length, kind = self.script[self.episode % len(self.script)]
        self.t += 1
        over = self.t >= length
        obs = np.array([self.row, self.episode, self.t], dtype=np.float32)
        return obs, 10.0 * self.episode + self.t, over and kind != "truncated", over and kind != "terminated", {}  # fmt: skip


def _told(row: int, script: list[tuple[int, str]]) -> Iterator[tuple[float, ...]]:
    """(next_obs, reward, terminated, truncated) of every step that a script has."""
    for episode, (length, kind) in enumerate(script):
        for t in range(1, length + 1):
            flags = (t == length and kind != "truncated", t == length and kind != "terminated")
            yield float(row), float(episode), float(t), 10.0 * episode + t, *map(float, flags)


@cache
def _gymnasiums(env_id: str, num: int) -> tuple[np.ndarray, ...]:
    """Random states and actions, and what Gymnasium's own environment makes of them."""
    env: Any = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    rng, span = np.random.default_rng(0), np.array(SPANS[env_id])
    states = rng.uniform(-span, span, (num, len(span)))
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    actions = rng.integers(env.action_space.n, size=num) if discrete else rng.uniform(-2.5, 2.5, (num, 1))  # fmt: skip
    found: list[tuple] = []
    for state, action in zip(states, actions, strict=True):
        env.state, env.steps_beyond_terminated = state.copy(), None
        obs, reward, terminated, _, _ = env.step(int(action) if discrete else action)
        found.append((np.array(env.state, dtype=np.float64), obs, float(reward), terminated))
    return states, actions, *map(np.array, zip(*found, strict=True))


def _pushes(env: Any) -> torch.Tensor:
    if env.num_actions is not None:
        return torch.arange(env.num_envs) % env.num_actions
    return torch.linspace(-1, 1, env.num_envs)[:, None]
