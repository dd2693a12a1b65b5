"""The recipe grpo on control: group-relative objectives, made for language models, solve it with the same loop.

    dodona run grpo --policy mlp --env CartPole-v1 --objective grpo

Groups of episodes begin in one state; an episode is good if it beats its group. The trainer is the one of
everything that acts, the objective is the record that a language model is trained with: only policy and
collector are others.

Source: Shao et al. 2024, arXiv:2402.03300; Kimi Team 2025, arXiv:2501.12599; Ahmadian et al. 2024,
arXiv:2402.14740.
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go

from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.schedules import linear
from dodona.core.trainer import Arms
from dodona.core.updates import GradientUpdate
from dodona.errors import ConfigError
from dodona.objectives import PolicyObjective, dr_grpo, grpo, kimi, rloo
from dodona.policies import MLPPolicy
from dodona.recipes import _clips as clips
from dodona.recipes import _control as control
from dodona.recipes._kept import keeping
from dodona.rl import EpisodeCollector, Evaluation, make_env

NUM_EVALUATIONS = 10
EVAL_ROWS = 50  # environments that play an evaluation
TAU = 30.0  # of mirror descent, reward units, like the spread within a group: a step moves a log ratio by gain / tau
OBJECTIVES: Mapping[str, Callable[[], PolicyObjective]] = {
    "grpo": grpo,
    # episodes have up to 500 steps; the constant keeps the loss near 1
    "dr_grpo": functools.partial(dr_grpo, length=500.0),
    "rloo": functools.partial(rloo, kl="none", kl_coef=0.0),
    "kimi": functools.partial(kimi, TAU),
}
"""name -> objective; all but grpo without a penalty on the distance to where it began."""

EPOCHS: Mapping[str, int] = {"kimi": 8}
"""objective -> optimizer steps per collection, 4 for the others: mirror descent solves a regression each time."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which objectives, on what, how long."""

    env: str = "CartPole-v1"
    """a Gymnasium id with vectors as observations, whose episodes end"""
    objective: Literal["all", "grpo", "dr_grpo", "rloo", "kimi"] = "all"
    """what is maximised; all: one after another"""
    num_seeds: int = 3
    """independent runs of every objective"""
    num_updates: int = 40
    """collections"""
    num_groups: int = 4
    """start states per collection"""
    group_size: int = 8
    """episodes per start state, at least 2"""
    epochs: int | None = None
    """optimizer steps per collection, each over all of it; none: the objective's own, see EPOCHS"""
    lr: float = 1e-2
    """learning rate at the start; it falls linearly to 0"""
    num_eval_episodes: int = 100
    """episodes of an evaluation"""
    seed: int = 0
    """the first seed"""

    def __post_init__(self) -> None:
        least = {"num_seeds": 1, "num_updates": 1, "num_groups": 1, "group_size": 2, "epochs": 1, "num_eval_episodes": 1, "seed": 0}  # fmt: skip
        for name, minimum in least.items():
            given = getattr(self, name)
            if given is not None and given < minimum:
                raise ConfigError(f"{name} must be at least {minimum}, got {given}.")
        if not self.lr > 0:
            raise ConfigError(f"lr must be above 0, got {self.lr}. 0.01 suits small perceptrons.")


def build(config: Config) -> Trainer:
    """Every objective with every seed, one after another."""
    names = list(OBJECTIVES) if config.objective == "all" else [config.objective]
    arms = {name: keeping(name, functools.partial(_run, config, name)) for name in names}
    arms[names[0]](config.seed)  # a wrong id is said before anything runs
    return Arms(arms, seeds=tuple(range(config.seed, config.seed + config.num_seeds)))


def _run(config: Config, name: str, seed: int) -> Trainer:
    env = make_env(config.env, config.num_groups * config.group_size, seed=seed)
    policy, objective = MLPPolicy.for_env(env, seed=seed), OBJECTIVES[name]()
    eval_env = make_env(config.env, min(EVAL_ROWS, config.num_eval_episodes), seed=seed)
    every = max(1, config.num_updates // NUM_EVALUATIONS)
    evaluation = Evaluation(
        env=eval_env, every=every, num_episodes=config.num_eval_episodes, seed=10_000 + seed
    )
    return PolicyTrainer(
        policy,
        EpisodeCollector(
            env, num_groups=config.num_groups, group_size=config.group_size, seed=seed
        ),
        objective,
        update=GradientUpdate(
            lr=linear(config.lr, 0.0, config.num_updates),
            epochs=config.epochs or EPOCHS.get(name, 4),
        ),
        reference=_still(policy) if objective.needs_reference else None,
        num_updates=config.num_updates,
        seed=seed,
        evaluate=evaluation.bind(),
        evaluate_every=evaluation.every,
    )


def _still(policy: MLPPolicy) -> MLPPolicy:
    """A copy of where it began, which nothing trains."""
    return copy.deepcopy(policy).requires_grad_(False)


def judge(events: Sequence[Event]) -> list[Row]:
    """Every objective reaches the threshold, or makes progress where none is known."""
    env_id = _setting(events, "env")
    goal = None if env_id is None else control.threshold(env_id)
    rows: list[Row] = []
    for arm in _arms(events):
        rows += (
            control.judge_progress(events, arm)
            if goal is None
            else control.judge_arm(events, arm, goal)
        )
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Returns of every objective with intervals, a clip of the best, how far each moves per collection."""
    arms, env_id, out = _arms(events), _setting(events, "env"), {}
    goal = None if env_id is None else control.threshold(env_id)
    figure = control.returns_figure(
        events, arms, goals={} if goal is None else {f"solved: {goal:g}": goal},
        title=f"{env_id}: comparisons within groups are enough (IQM, 95 % over seeds)",
    )  # fmt: skip
    if figure is not None:
        out["returns"] = figure
    out |= clips.figures(events, artifacts)
    figure = control.metric_figure(
        events, arms, "policy/kl_old", y="KL(old || new), k3 (nats)",
        title="How far each policy moves per collection: farthest without a clip",
    )  # fmt: skip
    if figure is not None:
        # below a millionth it has stopped
        out["divergence"] = figure.update_yaxes(type="log", range=[-6, 0.3], exponentformat="power")
    return out


def _arms(events: Sequence[Event]) -> list[str]:
    return list(dict.fromkeys(e.data["arm"] for e in events if "arm" in e.data))


def _setting(events: Sequence[Event], name: str) -> Any:
    return next((e.data["config"][name] for e in events if "config" in e.data), None)
