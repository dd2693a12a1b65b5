"""A baseline makes REINFORCE learn sooner; actor-critics learn before an episode has ended, from a few steps at a time.

Five learners on one task: REINFORCE without a baseline, with the mean of the batch, with a value baseline;
QAC and A2C. All act and are judged alike, on the first greedy episodes by start.

Source: Williams 1992; Greensmith, Bartlett & Baxter 2004 (baselines); Mnih et al. 2016, arXiv:1602.01783.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms
from dodona.errors import ConfigError
from dodona.objectives import a2c, reinforce
from dodona.recipes import _clips as clips
from dodona.recipes import _control as control
from dodona.recipes._kept import keeping
from dodona.rl import (
    A2CConfig,
    Evaluation,
    QACConfig,
    ReinforceConfig,
    a2c_trainer,
    make_env,
    qac_trainer,
    reinforce_trainer,
)

NUM_EVALUATIONS = 12
EVAL_ROWS = 50  # environments that play an evaluation
NUM_ENVS = 16
A2C_STEPS = 5  # A3C's: many small updates, for a critic that has to climb to values of 100
BY = 500_000  # environment steps in which a value baseline should solve CartPole
BASELINES: Mapping[str, Mapping[str, Any]] = {
    "REINFORCE, no baseline": {"baseline": "none"},
    "REINFORCE, mean": {"baseline": "mean"},
    "REINFORCE, value": {"baseline": "value", "value_coef": 1.0},
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """On what, how often, how long."""

    env: str = "CartPole-v1"
    """a Gymnasium id with vectors as observations and numbered actions, whose episodes end"""
    num_seeds: int = 3
    """independent runs of every learner"""
    num_updates: int = 80
    """gradient steps of REINFORCE"""
    num_episodes: int = 16
    """episodes of each, a multiple of 16"""
    num_env_steps: int = 250_000
    """steps of the actor-critics"""
    lr: float = 1e-2
    """learning rate of REINFORCE at the start"""
    actor_critic_lr: float = 2e-3
    """of the actors of A2C and QAC at the start"""
    gamma: float = 0.99
    """discount in [0, 1]"""
    num_eval_episodes: int = 100
    """episodes of an evaluation"""
    seed: int = 0
    """the first seed"""

    def __post_init__(self) -> None:
        for name in (
            "num_seeds", "num_updates", "num_episodes", "num_env_steps", "num_eval_episodes"
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.num_episodes % NUM_ENVS:
            raise ConfigError(
                f"num_episodes must be a multiple of {NUM_ENVS}, got {self.num_episodes}: so many "
                "environments play at once."
            )
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0, got {self.seed}.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_seeds=1, num_updates=30),
    "laptop": Config(),
    "paper": Config(num_seeds=20, num_updates=200, num_env_steps=500_000),
}


def build(config: Config) -> Trainer:
    """Every learner with every seed, one after another."""
    arms: dict[str, Callable[[int], Trainer]] = {
        name: functools.partial(_reinforce, config, switches)
        for name, switches in BASELINES.items()
    }
    arms |= {
        "QAC": functools.partial(_qac, config), "A2C": functools.partial(_a2c, config),
    }  # fmt: skip
    _qac(config, config.seed)  # a wrong id is said before anything runs
    arms = {name: keeping(name, learner) for name, learner in arms.items()}
    return Arms(arms, seeds=tuple(range(config.seed, config.seed + config.num_seeds)))


def _reinforce(config: Config, switches: Mapping[str, Any], seed: int) -> Trainer:
    settings = ReinforceConfig(
        num_updates=config.num_updates, num_episodes=config.num_episodes, lr=config.lr,
        objective=reinforce(gamma=config.gamma, **switches), seed=seed,
    )  # fmt: skip
    env = make_env(config.env, NUM_ENVS, seed=seed)
    return reinforce_trainer(
        None, env, config=settings, evaluation=_evaluation(config, config.num_updates, seed)
    )


def _qac(config: Config, seed: int) -> Trainer:
    settings = QACConfig(
        num_env_steps=config.num_env_steps, lr=config.actor_critic_lr / 2,
        critic_lr=2 * config.actor_critic_lr, gamma=config.gamma, seed=seed,
    )  # fmt: skip
    updates = config.num_env_steps // (settings.num_steps * NUM_ENVS)
    env = make_env(config.env, NUM_ENVS, seed=seed)
    return qac_trainer(None, env, config=settings, evaluation=_evaluation(config, updates, seed))


def _a2c(config: Config, seed: int) -> Trainer:
    settings = A2CConfig(
        num_env_steps=config.num_env_steps, num_steps=A2C_STEPS, lr=config.actor_critic_lr,
        objective=a2c(gamma=config.gamma, gae_lambda=0.95, entropy_coef=0.01), seed=seed,
    )  # fmt: skip
    updates = config.num_env_steps // (settings.num_steps * NUM_ENVS)
    env = make_env(config.env, NUM_ENVS, seed=seed)
    return a2c_trainer(None, env, config=settings, evaluation=_evaluation(config, updates, seed))


def _evaluation(config: Config, num_updates: int, seed: int) -> Evaluation:
    return Evaluation(
        env=make_env(config.env, min(EVAL_ROWS, config.num_eval_episodes), seed=seed),
        every=max(1, num_updates // NUM_EVALUATIONS),
        num_episodes=config.num_eval_episodes,
        seed=10_000 + seed,
    )


def judge(events: Sequence[Event]) -> list[Row]:
    """The value baseline and A2C reach the threshold, no baseline is slower, QAC gets better."""
    config = next((e.data["config"] for e in events if "config" in e.data), None)
    goal = None if config is None else control.threshold(config["env"])
    rows: list[Row] = []
    if goal is not None:
        for arm in ("REINFORCE, value", "A2C"):
            rows += control.judge_arm(events, arm, goal, by=BY)
    rows += control.judge_progress(events, "QAC")
    none, value = (_area(events, f"REINFORCE, {name}") for name in ("no baseline", "value"))
    if none is not None and value is not None:
        rows.append(Row(name="REINFORCE: mean return over the run, value baseline less none", measured=value - none, expected="> 0: the baseline takes noise away", verdict=control.verdict(value > none)))  # fmt: skip
    return rows


def _area(events: Sequence[Event], arm: str) -> float | None:
    """Mean of all evaluations of all seeds."""
    returns = control.table(events, arm)[1]
    return float(returns.mean()) if returns.size else None


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Returns of all five with intervals, a clip of the best."""
    arms = list(dict.fromkeys(e.data["arm"] for e in events if "arm" in e.data))
    config = next((e.data["config"] for e in events if "config" in e.data), None)
    goal = None if config is None else control.threshold(config["env"])
    out: dict[str, go.Figure] = {}
    figure = control.returns_figure(
        events, arms, goals={} if goal is None else {f"solved: {goal:g}": goal},
        title="Without a baseline REINFORCE is held up by noise, QAC by values that have none (IQM, 95 % over seeds)",
    )  # fmt: skip
    if figure is not None:
        out["returns"] = figure
    out |= clips.figures(events, artifacts)
    return out
