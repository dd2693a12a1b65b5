"""DQN balances a pole, and on the book's grid its values are right exactly where the data say so.

CartPole to 475 and more over 100 episodes, seed by seed; then the 5x5 grid, whose q* is known: from acting,
from 1000 recorded steps in which every state-action pair occurs, and from 100 in which most do not. There the
loss vanishes all the same. What it does vanish at is the optimum of the model that the data define, if
actions that were never tried are left out.

Source: Mnih et al. 2015; Zhao 2025, sec. 8.4, figs. 8.11 and 8.12; Barto et al. 1983 (the pole).
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from dodona.core.batch import Batch
from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms
from dodona.errors import ConfigError
from dodona.mdp import solve, worlds
from dodona.oracles.empirical import empirical_mdp
from dodona.oracles.linear_program import optimal_lp
from dodona.recipes import _clips as clips
from dodona.recipes import _dqn_figures as pictures
from dodona.recipes._kept import keeping
from dodona.rl.dqn import DQNConfig, dqn_trainer
from dodona.rl.environments import make_env, mdp_env
from dodona.rl.episodes import evaluate
from dodona.rl.q_networks import QNetwork
from dodona.rl.transitions import Transitions, sample_transitions

POLE = "CartPole-v1"
GAMMA, NUM_STATES, NUM_ACTIONS = 0.9, 25, 5
HIDDEN = (100,)  # the book's network
LONG, SHORT = 1000, 100  # recorded steps of the book's two figures
NEAR, FAR = 0.1, 1.0  # root mean square errors of action values, reward units
ARMS = {
    "acting": "acting with exploration",
    "long": f"{LONG} recorded steps",
    "short": f"{SHORT} recorded steps",
    "tried": f"{SHORT} recorded steps, tried actions only",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many runs, how long, and what counts as arrived."""

    num_seeds: int = 3
    """runs of CartPole; 0 leaves it out"""
    num_env_steps: int = 60_000
    """steps of a run of CartPole, at most; it ends when it has arrived"""
    bar: float = 475.0
    """mean return that ends a run, of at most 500"""
    num_confirm: int = 100
    """episodes over which the mean must hold"""
    num_updates: int = 5000
    """updates of every run on the grid, at least 100"""
    double: bool = False
    """the online network chooses, the target network judges"""
    dueling: bool = False
    """v and advantages as separate outputs"""
    prioritized: bool = False
    """large errors are replayed more often"""
    num_steps: int = 1
    """rewards in a target; more than 1 suits data of the policy that is learnt"""
    seed: int = 0
    """seed of everything that is drawn"""

    def __post_init__(self) -> None:
        least = {"num_seeds": 0, "num_env_steps": 1000, "num_confirm": 1, "num_updates": 100, "num_steps": 1}  # fmt: skip
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} must be at least {minimum}, got {getattr(self, name)}.")
        if not 0 < self.bar <= 500:
            raise ConfigError(f"bar must be in (0, 500], got {self.bar}. {POLE} counts as solved at 475.")  # fmt: skip


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_seeds=1, num_updates=3000),
    "laptop": Config(),
    "paper": Config(num_seeds=20, num_updates=20_000),
}


def build(config: Config) -> Trainer:
    """The pole, seed by seed, then four ways to learn the grid."""
    arms: dict[str, Callable[[int], Trainer]] = {}
    for k in range(config.num_seeds):
        arms[f"pole | {k}"] = keeping(f"pole | {k}", functools.partial(_pole, config, k))
    for name in ARMS:
        arms[f"grid | {name}"] = functools.partial(_Grid, config, name)
    return Arms(arms, seeds=(config.seed,))


def _switches(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("double", "dueling", "prioritized")}


def _pole(config: Config, k: int, seed: int) -> Trainer:
    """Every 1000 steps 20 greedy episodes; where their mean is above the bar, the mean of as many as confirm it."""
    number = 1000 * seed + k
    few, many = (make_env(POLE, n, seed=number) for n in (20, config.num_confirm))

    def judge(net: torch.nn.Module) -> dict[str, float]:
        def greedy(obs: torch.Tensor) -> torch.Tensor:
            return net(obs).argmax(1)

        found = {"return": _mean(greedy, few, 20, number)}
        if found["return"] >= config.bar:
            found["confirmed"] = _mean(greedy, many, config.num_confirm, number + 500)
        return found

    settings = DQNConfig(
        num_env_steps=config.num_env_steps, evaluate_every=1000, num_steps=config.num_steps, seed=number,
        **_switches(config),
    )  # fmt: skip
    return dqn_trainer(
        None, make_env(POLE, 8, seed=number), settings, evaluate=judge,
        until=lambda found: found.get("confirmed", 0.0) >= config.bar,
    )  # fmt: skip


def _mean(policy: Any, env: Any, num_episodes: int, seed: int) -> float:
    return evaluate(policy, env, num_episodes=num_episodes, seed=seed).mean_return


class _Grid:
    """DQN on the 5x5 grid with forbidden cells of -10; every event carries its distance to the truth."""

    def __init__(self, config: Config, name: str, seed: int):
        grid = worlds.book_grid(r_forbidden=-10.0)
        self.name, self.truth = name, solve(grid, tol=1e-10).q
        self.tried: np.ndarray | None = None
        settings = DQNConfig(
            gamma=GAMMA, lr=0.005, lr_decay=1.0, learning_starts=100, train_every=1, gradient_steps=1,
            num_env_steps=config.num_updates, record_every=max(1, config.num_updates // 60), seed=seed,
            batch_size=50 if name in ("short", "tried") else 100, num_steps=1, **_switches(config),
        )  # fmt: skip
        if name == "acting":
            env = mdp_env(grid, 10, seed=seed, max_episode_steps=50)
            net = QNetwork.for_env(env, hidden=HIDDEN, dueling=config.dueling, seed=seed)
            several = {"train_every": 40, "gradient_steps": 10, "epsilon": (1.0, 0.2, 0.5)}
            steps = 4 * config.num_updates
            settings = replace(settings, num_env_steps=steps, record_every=max(1, steps // 60), **several)  # fmt: skip
            self.trainer = dqn_trainer(net, env, settings)
            return
        rows = _recorded(grid, LONG if name == "long" else SHORT, seed)
        model = empirical_mdp(
            rows.states, rows.actions, rows.rewards, rows.next_states, num_states=NUM_STATES,
            num_actions=NUM_ACTIONS,
        )  # fmt: skip
        best, _ = optimal_lp(model.P, model.R, GAMMA, terminal=model.terminal, action_mask=model.action_mask)  # fmt: skip
        self.tried = model.counts[:NUM_STATES]
        self.of_data = (model.R + GAMMA * model.P @ best)[:NUM_STATES]
        mask = None
        if name == "tried":
            dead = ~(self.tried > 0).any(axis=1)  # nothing is known of what follows them
            mask = (self.tried > 0) | dead[:, None]
            rows = replace(rows, terminated=rows.terminated | dead[rows.next_states])
        net = QNetwork(NUM_STATES, NUM_ACTIONS, hidden=HIDDEN, dueling=config.dueling, action_mask=mask, seed=seed)  # fmt: skip
        self.trainer = dqn_trainer(net, None, settings, dataset=_as_batch(rows))

    def __iter__(self) -> Iterator[Event]:
        for event in self.trainer:
            yield replace(event, metrics={**event.metrics, **self._errors()}, data=self._table())

    def _q(self) -> np.ndarray:
        return self.trainer.q(torch.arange(NUM_STATES)).double().numpy()

    def _errors(self) -> dict[str, float]:
        """Root mean square over pairs: to q*, and over tried pairs to the optimum of the data's own model."""
        q = self._q()
        if self.name == "tried":
            return {"error/data": _rms((q - self.of_data)[self.tried > 0])}
        found = {"error/q": _rms(q - self.truth)}
        if self.tried is not None:
            found["error/data"] = _rms((q - self.of_data)[self.tried > 0])
        return found

    def _table(self) -> dict[str, Any]:
        """For the picture of the last event: how often every pair was tried, and how far off it is."""
        if self.tried is None or not self.trainer.finished or self.name == "tried":
            return {}
        return {
            "tried": self.tried.ravel().tolist(),
            "off": np.abs(self._q() - self.truth).ravel().round(4).tolist(),
        }

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state)


def judge(events: Sequence[Event]) -> list[Row]:
    """The pole stands, the values are right where they can be, and wrong where they can not."""
    config = next((e.data["config"] for e in events if e.kind == "start"), None)
    bar = config["bar"] if config else Config.bar
    rows = []
    for arm in sorted({a for e in events if (a := e.data.get("arm", "")).startswith("pole")}):
        seen = [e.metrics for e in _of(events, arm) if e.kind == "evaluation"]
        steps = _of(events, arm)[-1].num_samples
        confirmed = max((m.get("eval/confirmed", -math.inf) for m in seen), default=-math.inf)
        reached = confirmed >= bar
        best = max((m["eval/return"] for m in seen), default=math.nan)
        name = f"{POLE}, run {int(arm[7:]) + 1}, {steps} steps: mean return"
        if not reached:
            name += " of the best 20 episodes, never confirmed"
        rows.append(_row(name, confirmed if reached else best, f">= {bar:g}", reached))
    for name, what in ARMS.items():
        run = _of(events, f"grid | {name}")
        if run:
            rows += _grid_rows(name, what, run[-1])
    return rows


def _grid_rows(name: str, what: str, last: Event) -> list[Row]:
    m, title = last.metrics, f"grid, {what}"
    if name == "tried":
        near = m["error/data"]
        return [_row(f"{title}: RMSE to the optimum of the data", near, f"< {NEAR:g}", near < NEAR)]
    error = m["error/q"]
    if name != "short":
        return [_row(f"{title}: RMSE to q*", error, f"< {NEAR:g}", error < NEAR)]
    never = sum(count == 0 for count in last.data.get("tried", []))
    why = f"> {FAR:g}: {never} of {NUM_STATES * NUM_ACTIONS} pairs were never tried"
    loss = m["loss/td"]
    return [
        _row(f"{title}: RMSE to q*", error, why, error > FAR),
        _row(f"{title}: the loss, which says nothing of it", loss, f"< {NEAR:g}", loss < NEAR),
    ]


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Returns of the pole, loss and error on the grid, error of every pair over how often it was tried."""
    config = next((e.data["config"] for e in events if e.kind == "start"), None)
    out: dict[str, go.Figure] = {}
    poles = {
        f"run {k + 1}": seen
        for k in range(config["num_seeds"] if config else 0)
        if (seen := [e for e in _of(events, f"pole | {k}") if e.kind == "evaluation"])
    }
    if poles:
        out["pole"] = pictures.pole(poles, config["bar"])
    out |= clips.figures(events, artifacts)
    grids = {what: run for name, what in ARMS.items() if (run := _of(events, f"grid | {name}"))}
    if grids:
        out["grid"] = pictures.grid(grids)
    tables = {
        ARMS[name]: run[-1].data
        for name in ("long", "short")
        if (run := _of(events, f"grid | {name}")) and "off" in run[-1].data
    }
    if tables:
        out["pairs"] = pictures.pairs(tables)
    return out


# ---------------------------------------------------------------------- private
def _recorded(grid: Any, num: int, seed: int) -> Transitions:
    """A walk of the uniform policy; of the long one the first in which every pair occurs."""
    for number in range(seed, seed + 1000):
        rows = sample_transitions(grid, num, seed=number)
        if num != LONG or len(set(zip(rows.states.tolist(), rows.actions.tolist(), strict=True))) == NUM_STATES * NUM_ACTIONS:  # fmt: skip
            return rows
    raise AssertionError("six walks in ten see every pair")


def _as_batch(rows: Transitions) -> Batch:
    return Batch(
        obs=torch.from_numpy(rows.states), actions=torch.from_numpy(rows.actions),
        rewards=torch.from_numpy(rows.rewards).float(), next_obs=torch.from_numpy(rows.next_states),
        terminated=torch.from_numpy(rows.terminated), truncated=torch.from_numpy(rows.truncated),
        mask=torch.ones(len(rows.rewards), dtype=torch.bool),
    )  # fmt: skip


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]


def _row(name: str, measured: float, expected: str, good: bool) -> Row:
    return Row(
        name=name, measured=float(f"{measured:.4g}"), expected=expected, verdict="pass" if good else "miss"
    )  # fmt: skip
