"""Pictures of the DQN recipe: returns of the pole, loss against truth, errors pair by pair.

Not here: what is measured (dqn.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import Event
from dodona.figures.compose import panels
from dodona.figures.curves import curves
from dodona.figures.style import COLOURS

FLOOR = 1e-6  # what a logarithmic axis shows of smaller losses
RIGHT = 1e-3  # and of smaller errors of a pair, which is right then


def pole(runs: Mapping[str, Sequence[Event]], bar: float) -> go.Figure:
    """Mean return of 20 greedy episodes over steps of the environment."""
    arrived = [
        run[-1].num_samples
        for run in runs.values()
        if run[-1].metrics.get("eval/confirmed", 0.0) >= bar
    ]
    finding = f"{len(arrived)} of {len(runs)} runs balance the pole"
    if arrived:
        finding += f", at the latest after {max(arrived)} steps"
    return curves(
        {name: ([e.num_samples for e in run], [e.metrics["eval/return"] for e in run]) for name, run in runs.items()},
        title=f"CartPole-v1: {finding}", x="steps of the environment",
        y="mean return of 20 greedy episodes", lines={f"{bar:g}": bar},
    )  # fmt: skip


def grid(runs: Mapping[str, Sequence[Event]]) -> go.Figure:
    """Loss and error over updates, one colour per source of experience."""
    parts = {
        "TD loss (squared reward units)": "loss/td",
        "RMSE to q* (reward units)": "error/q",
        "RMSE to the optimum of the data, tried pairs": "error/data",
    }
    shown = {}
    for i, (caption, metric) in enumerate(parts.items()):
        series = {
            name: ([e.step for e in has], [max(e.metrics[metric], FLOOR) for e in has])
            for name, run in runs.items()
            if (has := [e for e in run if metric in e.metrics])
        }
        if not series:
            continue
        picture = curves(series, title="", x="updates", y=caption, log_y=True)
        for trace in picture.data:
            k = list(runs).index(trace.name)
            trace.update(mode="lines", line={"color": COLOURS[k], "width": 2, "dash": "solid"})
            # one entry per run, at the first panel that shows it
            trace.update(legendgroup=trace.name, showlegend=i == 0)
        shown[caption] = picture
    whole = panels(
        shown, title="The loss vanishes in all runs, the error only where the data say enough", columns=3
    )  # fmt: skip
    whole.update_xaxes(title="updates")
    return whole.update_layout(legend={"orientation": "h", "y": -0.25}, margin={"t": 90, "b": 110})


def pairs(tables: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """One point per state-action pair: how far its value is from q*, over how often it was tried."""
    series = {}
    for name, data in tables.items():
        tried, off = np.array(data["tried"]), np.array(data["off"])
        # pairs tried equally often would hide each other
        moved = tried + np.linspace(-0.3, 0.3, len(tried))
        series[name] = (moved.tolist(), np.maximum(off, RIGHT).tolist())
    picture = curves(
        series, title="A pair is wrong where it, or what follows it, was never tried (one point per pair)",
        x="times tried (spread a little)", y=f"|q - q*| (reward units), {RIGHT:g} at least", log_y=True,
    )  # fmt: skip
    for trace in picture.data:
        trace.update(mode="markers", marker={"size": 6})
    return picture
