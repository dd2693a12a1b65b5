"""The pictures of the planners' race: gap against work and time, depth of truncation, values by discount."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import Event
from dodona.figures import curves, grid_policy
from dodona.figures.cells import numbers_in_corners
from dodona.figures.compose import slider

Runs = Mapping[str, list[Event]]  # planner -> its events
DEPTHS = {"value iteration": 1.0, "policy iteration": math.inf}


def race(problem: str, runs: Runs, clock: Mapping[str, list[float]]) -> dict[str, go.Figure]:
    """Proven gap of every planner against full sweeps and against its own seconds."""
    gaps = {p: [max(e.metrics["bracket/gap"], 1e-16) for e in run] for p, run in runs.items()}
    sweeps = {p: [e.metrics["sweeps"] for e in run] for p, run in runs.items()}
    fewest = min(runs, key=lambda p: sweeps[p][-1])
    fastest = min(clock, key=lambda p: clock[p][-1])
    axes = {"y": "proven gap (reward units)", "log_x": True, "log_y": True}
    return {
        f"{problem}-sweeps": curves(
            {p: (sweeps[p], gaps[p]) for p in runs},
            title=f"{problem}: {fewest} needs the least work, {sweeps[fewest][-1]:.3g} sweeps",
            x="work (full sweeps over the model)",
            **axes,
        ),
        f"{problem}-seconds": curves(
            {p: (clock[p], gaps[p]) for p in runs},
            title=f"{problem}: {fastest} is first on the clock, {1e3 * clock[fastest][-1]:.3g} ms",
            x="time (seconds)",
            **axes,
        ),
    }


def truncation(problems: Mapping[str, Runs]) -> go.Figure | None:
    """Outer iterations and work of truncated policy iteration against its depth j, per model."""
    series = {}
    for problem, runs in problems.items():
        by_depth = sorted((depth(p), run) for p, run in runs.items() if depth(p) is not None)
        if len(by_depth) < 3:
            continue
        names = ["inf" if math.isinf(j) else f"{j:.0f}" for j, _ in by_depth]
        series[f"{problem}: improvements"] = (names, [run[-1].step for _, run in by_depth])
        series[f"{problem}: work"] = (
            names,
            [run[-1].metrics["sweeps"] for _, run in by_depth],
        )
    if not series:
        return None
    figure = curves(
        series,
        title="Deeper evaluation needs fewer improvements; too deep wastes work",
        x="depth j: sweeps per evaluation (1 = value iteration, inf = policy iteration)",
        y="count until the gap is proven",
        log_y=True,
    )
    return figure.update_xaxes(type="category")


def depth(planner: str) -> float | None:
    """j of a planner's name, None where it has none."""
    if planner in DEPTHS:
        return DEPTHS[planner]
    name, found, j = planner.partition(" j=")
    return float(j) if found and name == "truncated" else None


def value_map(picture: Mapping[str, Any], *, title: str) -> go.Figure:
    """Values and every optimal action of a grid model, as its last event holds them."""
    return grid_policy(
        picture["values"],
        picture["optimal"],
        grid=tuple(picture["grid"]),
        actions=picture["actions"],
        terminal=picture["terminal"],
        title=title,
    )


def discounts(problem: str, events: Sequence[Event]) -> go.Figure:
    """The value map under a slider of discounts."""
    pictures = {f"{e.data['picture']['gamma']:.4g}": e.data["picture"] for e in events}
    values = [v for p in pictures.values() for v in p["values"]]
    limits = {"zmin": min(values), "zmax": max(values)}  # one scale, so that stops compare
    return slider(
        {
            name: numbers_in_corners(
                value_map(p, title="").update_traces(limits, selector={"type": "heatmap"})
            )
            for name, p in pictures.items()
        },
        title=f"{problem}: the larger the discount, the farther the goal is felt",
        prefix="discount gamma = ",
    )


def picture_of(labels: Any, values: np.ndarray, optimal: np.ndarray, terminal: np.ndarray, gamma: float) -> dict[str, Any]:  # fmt: skip
    """What value_map needs, as data of an event."""
    return {
        "grid": list(labels.grid),
        "actions": list(labels.actions),
        "values": values,
        "optimal": optimal,
        "terminal": terminal,
        "gamma": gamma,
    }
