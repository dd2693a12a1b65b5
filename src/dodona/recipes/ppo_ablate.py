"""What each detail of PPO is worth on a small task: one switch at a time, several seeds, intervals.

    dodona run ppo-ablate                                  seven details on CartPole, eight seeds of each in step
    dodona run ppo-ablate --details all --env both         all 13 of the core, Acrobot as well

PPO with CleanRL's settings is trained with everything as given, and with each detail the other way. A score is the
mean return of the episodes of the last quarter of the steps, 0 for a policy that has learnt nothing and 1 for solved.
A difference is judged only where a source says what it should be; of twenty intervals one misses its truth.

Source: Huang et al. 2022, "The 37 implementation details of PPO"; Engstrom et al. 2020, arXiv:2005.12729; Andrychowicz
et al. 2020, arXiv:2006.05990; Agarwal et al. 2021, arXiv:2108.13264. Not here: the study itself (rl/ablation.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.statistics import iqm
from dodona.errors import ConfigError
from dodona.figures import COLOURS, styled
from dodona.figures.forest import ROW, forest
from dodona.recipes import _control as control
from dodona.rl import (
    Ablation,
    AblationTask,
    PPOConfig,
    PPODetails,
    ablation_arms,
    ablation_effects,
    make_env,
)

NUM_ENVS = 4  # CleanRL's
SOME = ("orthogonal_init", "anneal_lr", "gae", "minibatches", "normalize_advantages", "clip", "clip_value")  # fmt: skip
"""Settings of the loss and the update, whose seeds can all be trained in step."""
TASKS: Mapping[str, AblationTask] = {
    "CartPole-v1": AblationTask(
        make=lambda seed: make_env("CartPole-v1", NUM_ENVS, seed=seed), low=20.0, high=500.0
    ),
    "Acrobot-v1": AblationTask(
        make=lambda seed: make_env("Acrobot-v1", NUM_ENVS, seed=seed), low=-500.0, high=-80.0
    ),
}
LEARNS = 0.2  # score of everything as given, below which a comparison would compare nothing
EXPECTED: Mapping[str, tuple[Literal["helps", "no help", "nothing"], str]] = {
    "minibatches": ("helps", "the point of PPO, arXiv:1707.06347"),
    "clip_value": ("no help", "arXiv:2006.05990"),
    "debug_variables": ("nothing", "it only tells"),
}
"""Detail -> what its interval should say, and who says so."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which details, on what, how often, how long."""

    env: Literal["CartPole-v1", "Acrobot-v1", "both"] = "CartPole-v1"
    """the tasks whose scores are pooled"""
    details: Literal["some", "all"] = "some"
    """seven of the core, or all 13 of it"""
    num_seeds: int = 8
    """runs of every variant, at least 2"""
    num_env_steps: int = 60_000
    """steps of a run, at least 2048"""
    lr: float = 2.5e-4
    """learning rate at the start; CleanRL's"""
    seed: int = 0
    """the first seed"""

    def __post_init__(self) -> None:
        for name, least in {"num_seeds": 2, "num_env_steps": 2048, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_seeds=4, num_env_steps=30_000),
    "laptop": Config(),
    "paper": Config(env="both", details="all", num_seeds=20, num_env_steps=500_000),
}


def build(config: Config) -> Trainer:
    """Everything as given, then each detail the other way."""
    return ablation_arms(
        _settings(config), PPODetails(), _tasks(config), switches=SOME if config.details == "some" else None,
        seeds=tuple(range(config.seed, config.seed + config.num_seeds)),
    )  # fmt: skip


def judge(events: Sequence[Event]) -> list[Row]:
    """It learns at all; and each detail of which a source says something, by its interval."""
    found = _found(events)
    if found is None:
        return []
    base = float(iqm(found.base))
    rows = [Row(name=f"as given: IQM of the score, {len(found.base)} seeds (0: nothing learnt, 1: solved)", measured=round(base, 3), expected=f">= {LEARNS:g}", verdict=control.verdict(base >= LEARNS))]  # fmt: skip
    for effect in found.effects:
        if effect.switch not in EXPECTED:
            continue
        kind, who = EXPECTED[effect.switch]
        expected, good = {
            "helps": ("interval above 0", effect.low > 0),
            "no help": ("interval not above 0", effect.low <= 0),
            "nothing": ("interval holds 0", effect.low <= 0 <= effect.high),
        }[kind]
        name = f"{effect.switch}: score with it less without (95 %: {effect.low:.2f} to {effect.high:.2f})"
        rows.append(Row(name=name, measured=round(effect.difference, 3), expected=f"{expected}: {who}", verdict=control.verdict(good)))  # fmt: skip
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """The differences with their intervals; the scores of all seeds behind them."""
    del artifacts
    found = _found(events)
    if found is None or not found.effects:
        return {}
    shown = sorted(found.effects, key=lambda e: -e.difference)
    sure = [e for e in shown if not e.low <= 0 <= e.high]
    what = f"{len(sure)} of {len(shown)} details make a difference beyond chance"
    return {
        "details": forest(
            [(e.switch, e.low, e.difference, e.high) for e in shown],
            title=f"{what}, each switched alone ({len(found.base)} seeds, 95 %)",
            x="score with the detail less score without (IQM; 1 = solved)",
        ),
        "scores": _scores(found),
    }


# ---------------------------------------------------------------------- private
def _settings(config: Config) -> PPOConfig:
    return PPOConfig.cleanrl(num_env_steps=config.num_env_steps, lr=config.lr)


def _tasks(config: Config) -> dict[str, AblationTask]:
    return {name: task for name, task in TASKS.items() if config.env in (name, "both")}


def _found(events: Sequence[Event]) -> Ablation | None:
    """What the variants say that are over; None before the first is."""
    config = next((Config(**e.data["config"]) for e in events if "config" in e.data), None)
    if config is None:
        return None
    settings, tasks = _settings(config), _tasks(config)
    last: dict[str, dict[tuple[str, int], int]] = {}
    told = [e for e in events if "arm" in e.data]
    for e in told:
        name, task = e.data["arm"].split(" / ")
        last.setdefault(name, {})[task, e.data["seed"]] = e.num_samples
    # an incomplete collection at the end is not played
    least = settings.num_env_steps - settings.num_steps * NUM_ENVS
    over = {
        name for name, runs in last.items()
        if len(runs) == len(tasks) * config.num_seeds and min(runs.values()) > least
    }  # fmt: skip
    if "as given" not in over:
        return None
    kept = (e for e in told if e.data["arm"].split(" / ")[0] in over)
    return ablation_effects(kept, settings, PPODetails(), tasks)


def _scores(found: Ablation) -> go.Figure:
    """A point per run: with everything as given, and without each detail."""
    variants: dict[str, Any] = {"as given": found.base}
    variants |= {f"no {e.switch}": e.off for e in found.effects}
    figure = go.Figure()
    for k, task in enumerate(found.tasks):
        points = [(float(x), name) for name, scores in variants.items() for x in scores[:, k]]
        figure.add_scatter(
            x=[x for x, _ in points], y=[name for _, name in points], mode="markers", name=task,
            marker={"size": 7, "color": COLOURS[k], "opacity": 0.6},
        )  # fmt: skip
    figure.add_scatter(
        x=[float(iqm(scores)) for scores in variants.values()], y=list(variants), mode="markers", name="IQM",
        marker={"size": 14, "symbol": "line-ns-open", "color": COLOURS[len(found.tasks)], "line": {"width": 3}},
    )  # fmt: skip
    apart = float(found.base.mean(axis=1).max() - found.base.mean(axis=1).min())
    less = sum(abs(e.difference) < apart for e in found.effects)
    styled(
        figure, title=f"Seeds of one setting lie up to {apart:.2f} apart; {less} of {len(found.effects)} details change less",
        x="score (0: nothing learnt, 1: solved)", height=ROW * len(variants) + 190,
    )  # fmt: skip
    return figure.update_yaxes(categoryorder="array", categoryarray=list(variants)[::-1], automargin=True)  # fmt: skip
