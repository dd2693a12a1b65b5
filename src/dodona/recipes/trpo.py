"""TRPO solves CartPole and Pendulum without a learning rate; every step is inside its radius, and says how far it went.

    dodona run trpo                            a map of all steps; CartPole and Pendulum, five seeds each
    dodona run trpo --env LunarLander-v3       any environment of Gymnasium with vectors or numbered states

First a policy of two numbers, on which every step of the family is drawn. Then TRPO with backtracking and with
the exact radius, and on CartPole beside them at equal samples: the natural policy gradient, PPO and the plain gradient.

Source: Schulman et al. 2015, arXiv:1502.05477; Kakade 2001; Agarwal et al. 2021, arXiv:2108.13264 (several seeds).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms, Prepared, Stages
from dodona.errors import ConfigError
from dodona.figures import COLOURS, styled
from dodona.recipes import _clips as clips
from dodona.recipes import _control as control
from dodona.recipes import _trpo_map as map_of_steps
from dodona.recipes._kept import keeping
from dodona.rl import (
    A2CConfig,
    Evaluation,
    PPOConfig,
    TRPOConfig,
    TrustRegionUpdate,
    a2c_trainer,
    make_env,
    npg_trainer,
    ppo_trainer,
    trpo_objective,
    trpo_trainer,
)

CLASSIC = ("CartPole-v1", "Pendulum-v1")
SEARCH, EXACT, NPG, PPO, GRADIENT = "TRPO", "TRPO, exact radius", "NPG", "PPO", "plain gradient"
REGIONS = (SEARCH, EXACT)
NUM_EVALUATIONS = 10
EVAL_ROWS = 50  # environments that play an evaluation


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a task is known to need, by when it should be solved, and what is compared on it."""

    config: TRPOConfig
    by: float | None = None
    """environment steps"""
    methods: tuple[str, ...] = REGIONS


TASKS: Mapping[str, Task] = {
    "CartPole-v1": Task(
        config=TRPOConfig(num_env_steps=60_000), by=100_000,
        methods=(*REGIONS, NPG, PPO, GRADIENT),
    ),
    "Pendulum-v1": Task(
        config=TRPOConfig(
            num_env_steps=160_000, num_steps=200,
            # a swing takes some forty steps; a longer horizon only adds noise
            objective=trpo_objective(gamma=0.95, gae_lambda=0.95),
        ),
        by=200_000,
    ),
}  # fmt: skip
OTHER = Task(config=TRPOConfig(num_env_steps=300_000, normalize_obs=True, normalize_rewards=True))
"""For everything else: scales that are learnt along."""
NUMBERED = Task(config=TRPOConfig(num_env_steps=300_000))
"""For numbered states, whose tables have no scale."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is learnt, how often, and every setting that should differ from what the task is known to need."""

    env: str = "classic"
    """a Gymnasium id; classic: CartPole, then Pendulum"""
    num_seeds: int = 5
    """independent runs of every method"""
    num_env_steps: int | None = None
    """steps of a run; none: the task's own"""
    num_envs: int = 16
    """environments side by side"""
    num_steps: int | None = None
    """steps of each per collection; none: the task's own"""
    max_kl: float = 0.01
    """radius of every step, nats"""
    num_cg_iters: int = 10
    """products with the Fisher matrix per step"""
    damping: float = 1e-2
    """of the direction, times the curvature along the gradient"""
    gamma: float | None = None
    """discount in [0, 1]; none: the task's own"""
    compare: bool = True
    """the natural policy gradient, PPO and the plain gradient run beside TRPO where the task has them"""
    num_eval_episodes: int = 100
    """episodes of an evaluation"""
    backend: Literal["auto", "native", "gymnasium", "envpool"] = "auto"
    """who steps the environments"""
    seed: int = 0
    """the first seed"""
    critic_iters: int = 10
    """passes of the critic over a collection"""
    gae_lambda: float | None = None
    """trace parameter in [0, 1]; none: the task's own"""

    def __post_init__(self) -> None:
        for name in ("num_seeds", "num_envs", "num_eval_episodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0, got {self.seed}.")
        if self.max_kl <= 0:
            raise ConfigError(
                f"max_kl must be above 0, got {self.max_kl}. The TRPO paper uses 0.01."
            )


PRESETS: Mapping[str, Config] = {
    "quick": Config(env="CartPole-v1", num_seeds=2, num_env_steps=40_000, compare=False),
    "laptop": Config(),
    "paper": Config(num_seeds=20),
}


def build(config: Config) -> Trainer:
    """The map, then every method on every task with every seed."""
    arms: dict[str, Callable[[int], Trainer]] = {}
    for env_id in CLASSIC if config.env == "classic" else (config.env,):
        task = _task(config, env_id)
        for method in task.methods:
            if config.compare or method in REGIONS:
                arm, run = f"{env_id}, {method}", functools.partial(_run, config, env_id, method)
                arms[arm] = keeping(arm, run)
    next(iter(arms.values()))(config.seed)  # a wrong id or setting is said before anything runs
    seeds = tuple(range(config.seed, config.seed + config.num_seeds))
    return Stages(
        ("map", lambda _: Prepared(map_of_steps.events)), ("control", lambda _: Arms(arms, seeds=seeds))
    )  # fmt: skip


def _task(config: Config, env_id: str) -> Task:
    if env_id in TASKS:
        return TASKS[env_id]
    return NUMBERED if make_env(env_id, 1, seed=0, backend=config.backend).num_states is not None else OTHER  # fmt: skip


def _run(config: Config, env_id: str, method: str, seed: int) -> Trainer:
    task = _task(config, env_id)
    given = {
        name: getattr(config, name)
        for name in ("num_env_steps", "num_steps")
        if getattr(config, name) is not None
    }
    of_objective = {
        name: getattr(config, name)
        for name in ("gamma", "gae_lambda")
        if getattr(config, name) is not None
    }
    update = TrustRegionUpdate(
        max_kl=config.max_kl, num_cg_iters=config.num_cg_iters, damping=config.damping,
        critic_iters=config.critic_iters, radius="exact" if method == EXACT else "backtrack",
    )  # fmt: skip
    settings = replace(
        task.config, **given, update=update, objective=replace(task.config.objective, **of_objective), seed=seed
    )  # fmt: skip
    make = functools.partial(make_env, env_id, backend=config.backend)
    env = make(config.num_envs, seed=seed)

    def evaluation(num_steps: int) -> Evaluation:
        updates = settings.num_env_steps // (num_steps * env.num_envs)
        return Evaluation(
            env=make(min(EVAL_ROWS, config.num_eval_episodes), seed=seed),
            every=max(1, updates // NUM_EVALUATIONS),
            num_episodes=config.num_eval_episodes,
            seed=10_000 + seed,
        )

    if method in (*REGIONS, NPG):
        make_trainer = npg_trainer if method == NPG else trpo_trainer
        return make_trainer(None, env, config=settings, evaluation=evaluation(settings.num_steps))
    steps: dict[str, Any] = {"num_env_steps": settings.num_env_steps, "seed": seed}
    if method == PPO:
        other = PPOConfig(**steps)
        return ppo_trainer(None, env, config=other, evaluation=evaluation(other.num_steps))
    plain = A2CConfig(**steps)
    return a2c_trainer(None, env, config=plain, evaluation=evaluation(plain.num_steps))


def judge(events: Sequence[Event]) -> list[Row]:
    """The map; seeds at the threshold; every step inside its radius, nearly all taken, the exact one spent."""
    rows = map_of_steps.judge(events)
    for arm in _arms(events):
        env_id, _, method = arm.partition(", ")
        if method not in REGIONS:
            continue
        goal, task = control.threshold(env_id), TASKS.get(env_id)
        if goal is None:
            rows += control.judge_progress(events, arm)
        else:
            rows += control.judge_arm(events, arm, goal, by=None if task is None else task.by)
        share, taken = (_steps(events, arm, f"trust/{name}") for name in ("kl_share", "accepted"))
        if not len(share):
            continue
        most, often = float(share.max()), float(taken.mean())
        rows += [
            Row(name=f"{arm}: largest KL of a step over max_kl", measured=round(most, 4), expected="<= 1", verdict=control.verdict(most <= 1.0)),
            Row(name=f"{arm}: share of steps taken", measured=round(often, 4), expected=">= 0.95", verdict=control.verdict(often >= 0.95)),
        ]  # fmt: skip
        if method == EXACT:
            spent = float(np.median(share[taken > 0])) if taken.any() else 0.0
            rows.append(Row(name=f"{arm}: share of the radius a step spends, median", measured=round(spent, 4), expected=">= 0.99", verdict=control.verdict(spent >= 0.99)))  # fmt: skip
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """The map, returns with intervals, a clip per task, what steps spend of their radius and gain of what is promised."""
    out: dict[str, go.Figure] = {}
    drawn = map_of_steps.figure(events)
    if drawn is not None:
        out["map"] = drawn
    arms = _arms(events)
    for env_id in dict.fromkeys(arm.partition(", ")[0] for arm in arms):
        goal, here = control.threshold(env_id), [a for a in arms if a.startswith(f"{env_id}, ")]
        figure = control.returns_figure(
            events, here, goals={} if goal is None else {f"solved: {goal:g}": goal},
            title=f"{env_id}: return of the evaluations at equal samples (IQM, 95 % over seeds)",
        )  # fmt: skip
        if figure is not None:
            out[f"returns {env_id}"] = figure
    out |= clips.figures(events, artifacts)
    spent, gains = _spent(events, arms), _gains(events, arms)
    out |= {name: f for name, f in (("radius", spent), ("gains", gains)) if f is not None}
    figure = control.metric_figure(
        events, [a for a in arms if a.partition(", ")[2] in (*REGIONS, NPG)], "trust/angle_to_gradient",
        title="The natural direction is far from that of the gradient", y="angle (degrees)",
    )  # fmt: skip
    if figure is not None:
        out["angle"] = figure
    return out


def _spent(events: Sequence[Event], arms: Sequence[str]) -> go.Figure | None:
    """Histogram of KL over max_kl."""
    figure = go.Figure()
    for arm in arms:
        share = _steps(events, arm, "trust/kl_share")
        if len(share):
            figure.add_histogram(
                x=share, name=arm, opacity=0.6, xbins={"start": 0.0, "end": 2.0, "size": 0.025}, histnorm="probability",
                marker={"color": COLOURS[len(figure.data) % len(COLOURS)]},
            )  # fmt: skip
    if not figure.data:
        return None
    figure.update_layout(barmode="overlay")
    figure.add_vline(x=1.0, line={"dash": "dot", "color": "#8C8C8C"})
    return styled(
        figure, title="The exact radius is spent to the last percent; without a search some steps leave it",
        x="KL(old || new) of a step over max_kl", y="share of steps",
    )  # fmt: skip


def _gains(events: Sequence[Event], arms: Sequence[str]) -> go.Figure | None:
    """Predicted against realised gain of the surrogate, a point per step taken."""
    figure = go.Figure()
    top = 0.0
    for arm in arms:
        predicted, found = (_steps(events, arm, f"trust/{name}") for name in ("predicted", "improvement"))  # fmt: skip
        if not len(found):
            continue
        kept = slice(None, None, 1 + len(found) // 300)
        figure.add_scatter(
            x=predicted[kept], y=found[kept], mode="markers", name=arm, marker={"size": 5, "opacity": 0.6},
        )  # fmt: skip
        top = max(top, float(np.quantile(predicted, 0.99)))
    if not figure.data:
        return None
    figure.add_scatter(x=[0, top], y=[0, top], mode="lines", name="as predicted", line={"dash": "dot", "color": "#8C8C8C"})  # fmt: skip
    return styled(
        figure, title="The surrogate gains most of what its gradient promises: the radius is where the model holds",
        x="predicted gain g^T step (whitened advantages)", y="gain of the surrogate on the batch",
    )  # fmt: skip


def _steps(events: Sequence[Event], arm: str, metric: str) -> np.ndarray:
    """A number of every update of all seeds."""
    runs = control.of_arm(events, arm, "update").values()
    return np.array([e.metrics[metric] for run in runs for e in run if metric in e.metrics])


def _arms(events: Sequence[Event]) -> list[str]:
    return list(dict.fromkeys(e.data["arm"] for e in events if "arm" in e.data))
