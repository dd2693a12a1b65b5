"""Tabular learners: updates per second on one core, against a loop over lists and the usual NumPy agent.

Recorded transitions: all three learn from the same rows, so only the rule is timed. From a model: dodona
draws the transition too, the agents step a table in Python, as tutorials do. Then many seeds at once, and
what a learner adds to a step of Gymnasium.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from _timing import absolute_row, in_turn, once, ratio_row

from dodona import rl
from dodona.mdp import worlds

NUM_RECORDED = 1_000_000
NUM_DRAWN = 5_000_000
NUM_LISTS, NUM_AGENT = 300_000, 30_000
GAMMA, ALPHA, EPSILON = 0.9, 0.1, 0.1


def run() -> list[dict[str, Any]]:
    """Rows in updates or steps per second; ratio > 1: dodona is ahead."""
    return [*_recorded(), *_drawn(), *_seeds(), *_gymnasium()]


def _recorded() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    S, A, N = 48, 4, NUM_RECORDED
    columns = (
        rng.integers(0, S, N), rng.integers(0, A, N), rng.normal(size=N), rng.integers(0, S, N),
        rng.random(N) < 0.05, np.zeros(N, dtype=bool),
    )  # fmt: skip
    lists = list(zip(*(x[:NUM_LISTS].tolist() for x in columns[:5]), strict=True))
    td, q = rl.TD0(S, A, gamma=GAMMA, alpha=ALPHA), rl.QLearning(S, A, gamma=GAMMA, alpha=ALPHA)
    rows = []
    for name, ours, loop, agent, target in (
        ("TD(0)", td, td_over_lists, td_over_arrays, 20e6),
        ("Q-learning", q, q_over_lists, q_over_arrays, 10e6),
    ):
        few = [x[:NUM_AGENT] for x in columns[:5]]
        speed = _per_second({
            "ours": (N, lambda ours=ours: ours.update(*columns)),
            "lists": (NUM_LISTS, lambda loop=loop: loop(lists, S, A)),
            "arrays": (NUM_AGENT, lambda agent=agent, few=few: agent(*few, S, A)),
        })  # fmt: skip
        title = f"{name}, recorded transitions, one core"
        rows += [
            absolute_row(title, ours=speed["ours"], unit="updates/s", target=target, larger_is_better=True),
            ratio_row(title, peer="plain Python over lists", ours=speed["ours"], theirs=speed["lists"], target=4.0, unit="updates/s"),
            ratio_row(title, peer="the usual agent, NumPy-indexed", ours=speed["ours"], theirs=speed["arrays"], target=30.0, unit="updates/s"),
        ]  # fmt: skip
    return rows


def _drawn() -> list[dict[str, Any]]:
    walk, cliff = worlds.random_walk(19, left_reward=-1.0), worlds.cliff()
    options = {"num_steps": NUM_DRAWN, "record_every": NUM_DRAWN, "seed": 0}
    td, q = rl.TD0(21, 1, gamma=1.0), rl.QLearning(48, 4, gamma=1.0)
    speed = _per_second({
        "td": (NUM_DRAWN, lambda: td.learn(walk, **options)),
        "q": (NUM_DRAWN, lambda: q.learn(cliff, epsilon=EPSILON, **options)),
        "walk agent": (NUM_LISTS, lambda: walking_agent(NUM_LISTS)),
        "cliff agent": (NUM_AGENT, lambda: cliff_agent(cliff, NUM_AGENT)),
    })  # fmt: skip
    return [
        absolute_row("TD(0), walk of 19 drawn, one core", ours=speed["td"], unit="updates/s", target=20e6, larger_is_better=True),
        absolute_row("Q-learning, cliff drawn, one core", ours=speed["q"], unit="updates/s", target=10e6, larger_is_better=True),
        ratio_row("TD(0), walk of 19 drawn", peer="plain Python over lists", ours=speed["td"], theirs=speed["walk agent"], target=4.0, unit="updates/s"),
        ratio_row("Q-learning, cliff drawn", peer="the usual agent, NumPy-indexed", ours=speed["q"], theirs=speed["cliff agent"], target=100.0, unit="updates/s"),
    ]  # fmt: skip


def _seeds() -> list[dict[str, Any]]:
    """1000 seeds of ten episodes of the walk of nineteen states: together, and one after another."""
    walk = worlds.random_walk(19, left_reward=-1.0)
    truth = np.where(walk.terminal, 0.0, np.arange(-10, 11) / 10)

    def together() -> None:
        learner = rl.NStepTD(21, 1, num_steps=4, gamma=1.0, alpha=0.4)
        learner.learn(walk, num_episodes=10, record_every=1, num_runs=1000, truth=truth, seed=0)

    def single(seed: int) -> None:
        learner = rl.NStepTD(21, 1, num_steps=4, gamma=1.0, alpha=0.4)
        learner.learn(walk, num_episodes=10, record_every=1, truth=truth, seed=seed)

    together()
    single(0)
    ours, _ = once(together)
    theirs, _ = once(lambda: [single(seed) for seed in range(1000)])
    title = "1000 seeds of the walk of 19, ten episodes, n = 4"
    return [
        absolute_row(title, ours=ours, unit="s", target=5.0),
        ratio_row(title, peer="dodona, seed by seed", ours=ours, theirs=theirs, target=10.0),
    ]


def _gymnasium() -> list[dict[str, Any]]:
    """What a learner adds to a step: beside a loop that only repeats the same steps."""
    import gymnasium

    class Recorded(gymnasium.Wrapper):
        """Keeps the first seed and every action."""

        actions: list[int]

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            if seed is not None:
                self.seed, self.actions = seed, []
            return self.env.reset(seed=seed, options=options)

        def step(self, action: Any) -> Any:
            self.actions.append(action)
            return self.env.step(action)

    rows, num = [], 20_000
    for env_id in ("CliffWalking-v1", "Taxi-v4", "FrozenLake-v1"):
        env = gymnasium.make(env_id)
        S, A = int(env.observation_space.n), int(env.action_space.n)
        options = {"num_steps": num, "record_every": num, "seed": 0}
        recorded = Recorded(env)
        rl.QLearning(S, A, gamma=0.99).learn(recorded, **options)

        def bare(env: Any = env, recorded: Recorded = recorded) -> None:
            env.reset(seed=recorded.seed)
            for action in recorded.actions:
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()

        taken = in_turn({
            "learning": lambda env=env, S=S, A=A, options=options: rl.QLearning(S, A, gamma=0.99).learn(env, **options),
            "bare": bare,
        })  # fmt: skip
        share = taken["learning"] / taken["bare"] - 1.0
        rows.append(absolute_row(f"{env_id}: what Q-learning adds to env.step", ours=share, unit="of a step", target=0.25))  # fmt: skip
    return rows


def _per_second(calls: dict[str, tuple[int, Callable[[], Any]]]) -> dict[str, float]:
    taken = in_turn({name: call for name, (_, call) in calls.items()})
    return {name: num / taken[name] for name, (num, _) in calls.items()}


# ---------------------------------------------------------------------- what people write
def td_over_lists(rows: list[tuple], S: int, A: int) -> list[float]:
    """TD(0) in plain Python, as fast as it gets: lists, local names, one tuple per transition."""
    v, alpha, gamma = [0.0] * S, ALPHA, GAMMA
    for s, _, r, s2, end in rows:
        v[s] += alpha * ((r if end else r + gamma * v[s2]) - v[s])
    return v


def q_over_lists(rows: list[tuple], S: int, A: int) -> list[list[float]]:
    """Q-learning likewise: a list of rows, and max of a row."""
    q, alpha, gamma = [[0.0] * A for _ in range(S)], ALPHA, GAMMA
    for s, a, r, s2, end in rows:
        row = q[s]
        row[a] += alpha * ((r if end else r + gamma * max(q[s2])) - row[a])
    return q


def td_over_arrays(s: Any, a: Any, r: Any, s2: Any, end: Any, S: int, A: int) -> np.ndarray:
    """TD(0) as tutorials write it, with arrays that are read one number at a time."""
    v = np.zeros(S)
    for t in range(len(s)):
        target = r[t] + GAMMA * v[s2[t]] * (not end[t])
        v[s[t]] = v[s[t]] + ALPHA * (target - v[s[t]])
    return v


def q_over_arrays(s: Any, a: Any, r: Any, s2: Any, end: Any, S: int, A: int) -> np.ndarray:
    """Q-learning as tutorials write it."""
    q = np.zeros((S, A))
    for t in range(len(s)):
        target = r[t] + GAMMA * np.max(q[s2[t]]) * (not end[t])
        q[s[t], a[t]] = q[s[t], a[t]] + ALPHA * (target - q[s[t], a[t]])
    return q


def walking_agent(num_steps: int) -> list[float]:
    """TD(0) on the walk of nineteen states, drawn in plain Python."""
    v, s, flip, alpha = [0.0] * 21, 10, random.Random(0).random, ALPHA
    for _ in range(num_steps):
        s2 = s + 1 if flip() < 0.5 else s - 1
        r = 1.0 if s2 == 20 else -1.0 if s2 == 0 else 0.0
        v[s] += alpha * (r + v[s2] - v[s])
        s = 10 if s2 in (0, 20) else s2
    return v


def cliff_agent(model: Any, num_steps: int) -> np.ndarray:
    """Epsilon-greedy Q-learning on a table of the cliff, with NumPy for everything."""
    rng, q = np.random.default_rng(0), np.zeros((48, 4))
    to = np.full((48, 4), -1)
    to[model.pair_state, model.actions] = model.indices
    reward = np.zeros((48, 4))
    reward[model.pair_state, model.actions] = model.rewards
    s = 36
    for _ in range(num_steps):
        if rng.random() < EPSILON:
            a = rng.integers(4)
        else:
            a = rng.choice(np.flatnonzero(q[s] == q[s].max()))
        s2, r = to[s, a], reward[s, a]
        end = s2 == 47
        q[s, a] += ALPHA * (r + np.max(q[s2]) * (not end) - q[s, a])
        s = 36 if end else s2
    return q
