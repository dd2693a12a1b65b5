"""PPO solves the classic control tasks in seconds to minutes, with most of its seeds, and any other task by its id.

    dodona run ppo                            CartPole, Acrobot and Pendulum, five seeds each
    dodona run ppo --env LunarLander-v3       any environment of Gymnasium with vectors or numbered states

Every seed trains alone, is evaluated on the first 100 greedy episodes by start, and is judged by its last
evaluation; what is not given comes from what the task is known to need.

Source: Schulman et al. 2017, arXiv:1707.06347; Agarwal et al. 2021, arXiv:2108.13264 (several seeds).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms
from dodona.errors import ConfigError
from dodona.objectives import ppo
from dodona.recipes import _clips as clips
from dodona.recipes import _control as control
from dodona.recipes._kept import keeping
from dodona.rl import Evaluation, PPOConfig, make_env, ppo_trainer

CLASSIC = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")
NUM_EVALUATIONS = 10
EVAL_ROWS = 50  # environments that play an evaluation


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a task is known to need, and by when it should be solved."""

    num_envs: int
    config: PPOConfig
    by: float | None = None
    """environment steps"""


TASKS: Mapping[str, Task] = {
    "CartPole-v1": Task(num_envs=16, config=PPOConfig(), by=100_000),
    "Acrobot-v1": Task(
        num_envs=16,
        config=PPOConfig(
            num_env_steps=100_000, num_steps=128, minibatches=8, lr=1e-3,
            objective=ppo(gamma=0.99, gae_lambda=0.95, entropy_coef=0.01),
        ),
        by=500_000,
    ),
    "Pendulum-v1": Task(
        num_envs=16,
        config=PPOConfig(
            num_env_steps=160_000, num_steps=200, epochs=10, minibatches=8,
            # a swing takes some forty steps; a longer horizon only adds noise
            objective=ppo(gamma=0.95, gae_lambda=0.95),
        ),
        by=200_000,
    ),
}  # fmt: skip
OTHER = Task(
    num_envs=16,
    config=PPOConfig(
        num_env_steps=300_000, num_steps=128, epochs=10, minibatches=16, lr=1e-3, normalize_obs=True,
        normalize_rewards=True, objective=ppo(gamma=0.99, gae_lambda=0.95, entropy_coef=0.005),
    ),
)  # fmt: skip
"""For everything else: scales that are learnt along, and a moderate rate."""
NUMBERED = replace(
    OTHER, config=replace(OTHER.config, normalize_obs=False, normalize_rewards=False, lr=3e-2)
)
"""For numbered states, whose tables have no scale and share nothing."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is learnt, how often, and every setting that should differ from what the task is known to need."""

    env: str = "classic"
    """a Gymnasium id; classic: CartPole, Acrobot and Pendulum one after another"""
    num_seeds: int = 5
    """independent runs of every task"""
    num_env_steps: int | None = None
    """steps of a run; none: the task's own"""
    num_envs: int | None = None
    """environments side by side; none: the task's own"""
    num_steps: int | None = None
    """steps of each per collection; none: the task's own"""
    epochs: int | None = None
    """passes over a collection; none: the task's own"""
    minibatches: int | None = None
    """optimizer steps of a pass; none: the task's own"""
    lr: float | None = None
    """learning rate at the start; none: the task's own"""
    gamma: float | None = None
    """discount in [0, 1]; none: the task's own"""
    entropy_coef: float | None = None
    """weight of the entropy; none: the task's own"""
    num_eval_episodes: int = 100
    """episodes of an evaluation"""
    backend: Literal["auto", "native", "gymnasium", "envpool"] = "auto"
    """who steps the environments"""
    gae_lambda: float | None = None
    """trace parameter in [0, 1]; none: the task's own"""
    clip_eps: float | None = None
    """clip range in (0, 1); none: the task's own"""
    normalize: bool | None = None
    """running scales of observations and rewards; none: the task's own"""
    target_kl: float | None = None
    """leaves a collection early beyond 1.5 times this KL, nats; none: never"""
    seed: int = 0
    """the first seed"""

    def __post_init__(self) -> None:
        for name in ("num_seeds", "num_eval_episodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0, got {self.seed}.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(env="CartPole-v1", num_seeds=2, num_env_steps=40_000),
    "laptop": Config(),
    "paper": Config(num_seeds=20),
}


def build(config: Config) -> Trainer:
    """Every task with every seed, one after another."""
    arms = {
        env_id: keeping(env_id, functools.partial(_run, config, env_id))
        for env_id in _env_ids(config)
    }
    _run(
        config, next(iter(arms)), config.seed
    )  # a wrong id or setting is said before anything runs
    return Arms(arms, seeds=tuple(range(config.seed, config.seed + config.num_seeds)))


def _env_ids(config: Config) -> tuple[str, ...]:
    return CLASSIC if config.env == "classic" else (config.env,)


def _run(config: Config, env_id: str, seed: int) -> Trainer:
    given = {
        name: getattr(config, name)
        for name in ("num_env_steps", "num_steps", "epochs", "minibatches", "lr", "target_kl")
        if getattr(config, name) is not None
    }
    of_objective = {
        name: getattr(config, name)
        for name in ("gamma", "gae_lambda", "clip_eps", "entropy_coef")
        if getattr(config, name) is not None
    }
    make = functools.partial(make_env, env_id, backend=config.backend)
    task = TASKS.get(env_id)
    if task is None:
        numbered = make(1, seed=0).num_states is not None
        task = NUMBERED if numbered else OTHER
    if config.normalize is not None:
        given |= {"normalize_obs": config.normalize, "normalize_rewards": config.normalize}
    settings = replace(
        task.config, **given, objective=replace(task.config.objective, **of_objective), seed=seed
    )
    env = make(config.num_envs or task.num_envs, seed=seed)
    updates = settings.num_env_steps // (settings.num_steps * env.num_envs)
    evaluation = Evaluation(
        env=make(min(EVAL_ROWS, config.num_eval_episodes), seed=seed),
        every=max(1, updates // NUM_EVALUATIONS),
        num_episodes=config.num_eval_episodes,
        seed=10_000 + seed,
    )
    return ppo_trainer(None, env, config=settings, evaluation=evaluation)


def judge(events: Sequence[Event]) -> list[Row]:
    """Four of five seeds at the threshold, the IQM of all, and how soon; progress where no threshold is known."""
    rows: list[Row] = []
    for env_id in _arms(events):
        goal, task = control.threshold(env_id), TASKS.get(env_id)
        if goal is None:
            rows += control.judge_progress(events, env_id)
        else:
            rows += control.judge_arm(events, env_id, goal, by=None if task is None else task.by)
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Returns with intervals and a clip per task; how far the policy moves, how well the critic explains."""
    arms, out = _arms(events), {}
    for env_id in arms:
        goal = control.threshold(env_id)
        rows = [row for row in judge(events) if row.name.startswith(f"{env_id}:")]
        ending = "return of the evaluations" if goal is None else "not solved"
        if goal is not None and rows and all(row.verdict == "pass" for row in rows):
            ending = f"solved, by {rows[0].measured} seeds"
        figure = control.returns_figure(
            events, [env_id], goals={} if goal is None else {f"solved: {goal:g}": goal},
            title=f"{env_id}: {ending} (IQM, 95 % over seeds)",
        )  # fmt: skip
        if figure is not None:
            out[f"returns {env_id}"] = figure
    out |= clips.figures(events, artifacts)
    for name, metric, title, y in (
        ("clipped", "policy/clip_fraction", "As lr falls, fewer and fewer steps are cut off by the clip", "share of ratios outside 1 +- eps"),
        ("divergence", "policy/kl_old", "Nothing but the clip holds it, and the policy moves little per collection", "KL(old || new), k3 (nats)"),
        ("critic", "value/explained", "The critic keeps up with the policy; where returns hardly vary, nothing is left to explain", "share of their variance explained"),
    ):  # fmt: skip
        figure = control.metric_figure(events, arms, metric, title=title, y=y)
        if figure is not None:
            out[name] = figure
    return out


def _arms(events: Sequence[Event]) -> list[str]:
    return list(dict.fromkeys(e.data["arm"] for e in events if "arm" in e.data))
