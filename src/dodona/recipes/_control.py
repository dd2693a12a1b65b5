"""What recipes of control share: thresholds, judging several seeds, curves with intervals.

An arm is one task or method; every arm runs once per seed, and its "evaluation" events hold eval/return.

Source: Agarwal et al. 2021, arXiv:2108.13264 (interquartile means, bootstrap intervals).
Not here: the methods, and what each of them is expected to reach besides.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import Event, Row
from dodona.core.shapes import FloatArray
from dodona.core.statistics import bootstrap_interval, iqm
from dodona.figures.curves import curves

THRESHOLDS: Mapping[str, float] = {
    "CartPole-v1": 475.0,
    "Acrobot-v1": -100.0,
    "MountainCarContinuous-v0": 90.0,
    "Pendulum-v1": -200.0,
}
"""Environment -> mean return that counts as solved; Gymnasium's own, and -200 where it names none."""
SHARE = 0.8  # of seeds that must solve a task: four of five
RESAMPLES = 5000


def threshold(env_id: str) -> float | None:
    """The return that counts as solved: THRESHOLDS, else what Gymnasium registers, else None."""
    if env_id in THRESHOLDS:
        return THRESHOLDS[env_id]
    import gymnasium

    spec = gymnasium.registry.get(env_id.rpartition(":")[2])
    return None if spec is None else spec.reward_threshold


def of_arm(events: Sequence[Event], arm: str, kind: str) -> dict[int, list[Event]]:
    """seed -> its events of a kind, in order."""
    found: dict[int, list[Event]] = {}
    for event in events:
        if event.data.get("arm") == arm and event.kind == kind:
            found.setdefault(event.data["seed"], []).append(event)
    return found


def table(
    events: Sequence[Event], arm: str, metric: str = "eval/return", kind: str = "evaluation"
) -> tuple[FloatArray, FloatArray]:
    """(steps [n], values [seeds, n]) of the seeds that have come as far as the first.

    Steps are means over seeds, which differ where an update is a number of episodes. Events without the
    metric are left out, so it must be in the same ones for every seed.
    """
    runs = [[e for e in run if metric in e.metrics] for run in of_arm(events, arm, kind).values()]
    runs = [run for run in runs if len(run) == len(runs[0])]
    if not runs or not runs[0]:
        return np.zeros(0), np.zeros((0, 0))
    steps = np.array([[e.num_samples for e in run] for run in runs], dtype=float)
    return steps.mean(axis=0), np.array([[e.metrics[metric] for e in run] for run in runs])


def judge_arm(
    events: Sequence[Event],
    arm: str,
    goal: float,
    *,
    by: float | None = None,
    played: str = "greedy",
) -> list[Row]:
    """Seeds that end at the goal, the IQM of all, and how soon the median seed was there.

    Args: goal: reward units.  by: environment steps; None: not judged.  played: how episodes were, for the name.
    """
    steps, returns = table(events, arm)
    if not len(returns):
        return []
    n = len(returns)
    enough = math.ceil(SHARE * n)
    solved = int((returns[:, -1] >= goal).sum())
    middle = iqm(returns[:, -1:])
    spread = interval(returns[:, -1:])
    shown = "" if spread is None else f" (95 %: {spread[0][0]:.1f} to {spread[1][0]:.1f})"
    rows = [
        Row(name=f"{arm}: seeds whose last evaluation reaches {goal:g}", measured=f"{solved} of {n}", expected=f">= {enough} of {n}", verdict=verdict(solved >= enough)),
        Row(name=f"{arm}: IQM over seeds of the mean return, {played} episodes{shown}", measured=round(float(middle), 2), expected=f">= {goal:g}", verdict=verdict(middle >= goal)),
    ]  # fmt: skip
    if by is not None:
        there = returns >= goal
        first = np.where(there.any(axis=1), steps[there.argmax(axis=1)], np.inf)
        soon = float(np.median(first))
        rows.append(Row(name=f"{arm}: steps until an evaluation first reaches {goal:g}, median of seeds", measured=soon if math.isfinite(soon) else "never", expected=f"<= {by:,.0f}", verdict=verdict(soon <= by)))  # fmt: skip
    return rows


def judge_progress(events: Sequence[Event], arm: str) -> list[Row]:
    """Where no goal is known: every seed ends better than it began."""
    steps, returns = table(events, arm)
    begun = {
        seed: [e.metrics["episode/return"] for e in run if "episode/return" in e.metrics]
        for seed, run in of_arm(events, arm, "update").items()
    }
    first = [run[0] for run in begun.values() if run][: len(returns)]
    if not len(returns) or len(first) < len(returns):
        return []
    n, better = len(returns), int((returns[:, -1] > np.array(first)).sum())
    enough = math.ceil(SHARE * n)
    return [Row(name=f"{arm}: seeds whose last evaluation ({iqm(returns[:, -1:]):.4g}) beats their first episodes ({np.mean(first):.4g})", measured=f"{better} of {n}", expected=f">= {enough} of {n}", verdict=verdict(better >= enough))]  # fmt: skip


def interval(values: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """95 % of the IQM over seeds, pointwise, for values [seeds, n]; None for a single seed."""
    if len(values) < 2:
        return None
    low, high = bootstrap_interval(
        values[:, None, :], iqm, num_samples=RESAMPLES, rng=np.random.default_rng(0)
    )
    return np.atleast_1d(low), np.atleast_1d(high)


def returns_figure(
    events: Sequence[Event], arms: Sequence[str], *, title: str, goals: Mapping[str, float]
) -> go.Figure | None:
    """IQM over seeds of the evaluations of each arm, with its interval; None before the first."""
    return _figure(
        events, arms, "eval/return", "evaluation", title=title,
        y="mean return of an evaluation (reward units)", lines=goals,
    )  # fmt: skip


def metric_figure(
    events: Sequence[Event], arms: Sequence[str], metric: str, *, title: str, y: str
) -> go.Figure | None:
    """The same of a number of every update, thinned; None where nobody reports it."""
    return _figure(events, arms, metric, "update", title=title, y=y, lines={})


def verdict(good: bool) -> str:
    return "pass" if good else "miss"


def _figure(
    events: Sequence[Event], arms: Sequence[str], metric: str, kind: str, *, title: str, y: str,
    lines: Mapping[str, float],
) -> go.Figure | None:  # fmt: skip
    series, bands = {}, {}
    for arm in arms:
        steps, values = table(events, arm, metric, kind)
        if not values.size:
            continue
        if len(steps) > 60:
            kept = np.linspace(0, len(steps) - 1, 60).round().astype(int)
            steps, values = steps[kept], values[:, kept]
        name = arm if len(values) == 1 else f"{arm} ({len(values)} seeds)"
        series[name] = (steps.tolist(), np.atleast_1d(iqm(values[:, None, :])).tolist())
        spread = interval(values)
        if spread is not None:
            bands[name] = (spread[0].tolist(), spread[1].tolist())
    if not series:
        return None
    return curves(series, bands=bands, title=title, x="environment steps", y=y, lines=lines)
