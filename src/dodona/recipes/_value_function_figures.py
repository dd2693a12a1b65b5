"""Pictures of the value-function recipe: levels, surfaces, staircases, divergence.

Not here: what is measured (value_function_approximation.py).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dodona.core.protocols import Event
from dodona.figures.compose import panels
from dodona.figures.curves import curves
from dodona.figures.style import COLOURS, INK, styled

COLUMNS = 4  # surfaces in a row
TICKS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # of errors on their logarithmic axis


def learning_curves(
    runs: Mapping[str, list[Event]],
    levels: Mapping[str, Event],
    names: Sequence[str],
    episode: int,
) -> go.Figure:
    """One panel per map: the error of TD over episodes and the exact levels, named by ``names``."""
    shown = {}
    for name, run in runs.items():
        xs = [e.step / episode for e in run]
        series = {"TD, root mean square over runs": (xs, [e.metrics["value/rmse"] for e in run])}
        for level in names:
            value = levels[name].metrics[f"level/{level}"]
            series[level] = ([xs[0], xs[-1]], [value, value])
        picture = curves(series, title="", x="episodes", y="RMSE to v_pi", log_y=True)
        for i, trace in enumerate(picture.data):
            line = {"color": COLOURS[i], "width": 1.5 if i else 2, "dash": "dot" if i else "solid"}
            trace.update(legendgroup=trace.name, showlegend=not shown, mode="lines", line=line)
        shown[f"{name}, {levels[name].data['num_features']} features"] = picture
    title = f"Error to v_pi (reward units) over episodes of {episode} steps: TD comes down to its fixed point"
    whole = panels(shown, title=title, columns=3)
    whole.update_yaxes(tickvals=TICKS, ticktext=[f"{t:g}" for t in TICKS])
    whole.update_layout(legend={"orientation": "h", "y": -0.06}, margin={"t": 90})
    return whole


def surfaces(ended: Mapping[str, list[float]], truth: list[float]) -> go.Figure:
    """The true values of the 5x5 grid and what each map made of them; height and colour are the value."""
    shown = {"true values": truth, **ended}
    rows = math.ceil(len(shown) / COLUMNS)
    whole = make_subplots(
        rows=rows, cols=COLUMNS, subplot_titles=list(shown), specs=[[{"type": "scene"}] * COLUMNS] * rows,
        horizontal_spacing=0.01, vertical_spacing=0.06,
    )  # fmt: skip
    low, high = min(truth), max(truth)
    for i, values in enumerate(shown.values()):
        surface = go.Surface(
            z=np.reshape(values, (5, 5)), cmin=low, cmax=high, colorscale="Viridis", showscale=False,
            hovertemplate="row %{y}, column %{x}: %{z:.4f}<extra></extra>",
        )  # fmt: skip
        whole.add_trace(surface, row=i // COLUMNS + 1, col=i % COLUMNS + 1)
    title = "More features, closer to the true values: state values learnt by TD (reward units)"
    styled(whole, title=title, height=320 * rows)
    small = {"title": {"font": {"size": 11}}, "tickfont": {"size": 10}, "color": INK}
    cells = {"tickvals": [0, 2, 4], "ticktext": ["1", "3", "5"], **small}
    whole.update_scenes(
        xaxis=cells, yaxis=cells, zaxis={"range": [low - 0.2, high + 0.2], **small},
        camera={"eye": {"x": -1.8, "y": -1.9, "z": 1.0}}, aspectmode="cube",
    )  # fmt: skip
    whole.update_scenes(xaxis_title_text="column", yaxis_title_text="row", zaxis_title_text="value")
    for caption in whole.layout.annotations:
        caption.update(font={"size": 13})
    whole.update_layout(margin={"l": 0, "r": 0, "t": 90, "b": 10})
    return whole


def lstd(event: Event) -> go.Figure:
    """Distance to the fixed point, LSTD and TD on the same number of steps."""
    d = event.data
    times = d["td"][-1] / d["lstd"][-1]
    return curves(
        {"LSTD": (d["steps"], d["lstd"]), f"TD, alpha {d['alpha']:g}": (d["steps"], d["td"])},
        title=f"LSTD is {times:.0f} times closer to its fixed point after the same {d['steps'][-1]} steps",
        x="steps", y="RMS distance (reward units)", log_x=True, log_y=True,
    )  # fmt: skip


def walk(event: Event) -> go.Figure:
    """Values of the 1000-state walk in ten groups."""
    d = event.data
    edges = np.repeat(np.arange(11) * 100, 2)[1:-1].tolist()
    series: dict[str, tuple[Any, Any]] = {"true values": (list(range(1, 1001, 10)), d["truth"])}
    for name, limit in (("Monte Carlo", "best projection"), ("TD", "TD fixed point")):
        series[f"{limit} (exact)"] = (edges, np.repeat(d[name]["limit"], 2).tolist())
        series[f"{name} (mean of runs)"] = (edges, np.repeat(d[name]["mean"], 2).tolist())
    title = "The 1000-state walk: TD settles for flatter steps than Monte Carlo"
    picture = curves(series, title=title, x="state", y="value (reward units)")
    looks = (
        (INK, "solid"), (COLOURS[0], "dot"), (COLOURS[0], "solid"), (COLOURS[1], "dot"), (COLOURS[1], "solid"),
    )  # fmt: skip
    for trace, (colour, dash) in zip(picture.data, looks, strict=True):
        trace.update(mode="lines", line={"color": colour, "dash": dash, "width": 2})
    return picture


def baird(event: Event) -> go.Figure:
    """Projected Bellman error of expected updates on Baird's star."""
    d = event.data
    return curves(
        {f"{n}, step {d['alphas'][n]:g}": (d["steps"], series) for n, series in d["series"].items()},
        title=f"Baird's star: expected TD grows by {event.metrics['rate/measured']:.6f} a step, the others do not",
        x="expected updates", y="root projected error (reward units)", log_y=True,
    )  # fmt: skip


def pair(event: Event) -> go.Figure:
    """The factor that one update puts on the weight, over the discount."""
    d = event.data
    picture = curves(
        {"predicted: 1 + alpha (2 gamma - 1)": (d["gammas"], d["predicted"]),
         "measured": (d["gammas"], d["measured"])},
        title="w to 2w: updates on the first step alone diverge for every discount above 1/2",
        x="discount gamma", y="factor of the weight per update", lines={"edge of stability": 1.0},
    )  # fmt: skip
    picture.data[0].update(mode="lines")
    picture.data[1].update(mode="markers", marker={"size": 7})
    return picture


def car(lengths: Sequence[Sequence[int]]) -> go.Figure:
    """Steps to the top, episode by episode."""
    table = np.array(lengths)
    tail = table[:, -max(10, table.shape[1] // 10) :].mean()
    return curves(
        {"mean": (list(range(1, table.shape[1] + 1)), table.mean(axis=0).tolist())},
        bands={"mean": (table.min(axis=0).tolist(), table.max(axis=0).tolist())},
        title=f"Tile-coded Sarsa drives up in {tail:.0f} steps (band: best to worst of {len(table)} runs)",
        x="episode", y="steps to the top", log_y=True,
    )  # fmt: skip
