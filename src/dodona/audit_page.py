"""The audit as one self-contained HTML page: findings, policies, and what a time limit does, in pictures.

Outside the rooms, because a model (mdp) may not know pictures (figures) or pages (runs).
Not here: the numbers (mdp.audit) and the sentences (mdp.audit_text).
"""

import html
import math
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.figures.cells import numbers_in_corners, outline
from dodona.figures.compose import slider
from dodona.figures.curves import curves
from dodona.figures.grid import grid_policy
from dodona.figures.style import GRID, INK
from dodona.mdp.audit.report import AuditReport
from dodona.mdp.audit.text import decisive, findings, headline, number, place, policy_table, sizes
from dodona.mdp.optimality import optimal_actions
from dodona.runs.folder import write_atomically
from dodona.runs.report import details, figures_html, page, table

STOPS = (1, 3, 10, 30, 100, 300, 1000)  # steps left that the grid's slider shows
POINTS = 160  # of a curve over time limits, spread evenly on a log axis
NUMBERS = "<style>.numbers th + th, .numbers td + td { text-align: right; }</style>"
CELLS = 1600  # cells of a grid that can still be drawn one by one


def write_page(report: AuditReport, folder: str | Path, *, command: str = "") -> Path:
    """Write audit.html, and audit.json and audit.txt beside it.

    Args:
        folder: made where it is missing; an older audit in it is replaced.
        command: the command line that repeats the audit.
    Returns: the path of audit.html.
    Raises: InputError: the folder can not be written.
    """
    folder = report.write(folder)
    path = folder / "audit.html"
    write_atomically(path, page(f"audit of {report.env_id}", page_body(report, command)).encode())
    return path


def page_body(report: AuditReport, command: str = "") -> str:
    """What stands in the page, as HTML."""
    told = headline(report)
    claim = html.escape(told[0].upper() + told[1:])
    parts = [
        f"<h1>{html.escape(report.env_id)}</h1><p class='claim'>{claim}.</p>",
        _verdict(report),
    ]
    found = [[topic, sentence] for topic, sentence in findings(report)]
    parts += [table(["about", "finding"], found), "<h2>Policies</h2>"]
    parts.append(f"<div class='numbers'>{NUMBERS}{table(*policy_table(report))}</div>")
    parts.append(figures_html(figures(report)))
    parts += ["<h2>Model</h2>", f"<p>{html.escape(sizes(report))}</p>"]
    if report.sizes.num_starts > 1:
        parts.append(details("Start states", table(*_start_table(report))))
    if command:
        parts += ["<h2>Reproduce</h2>", f"<pre>{html.escape(command)}</pre>"]
    parts.append(
        "<footer>Every number is exact up to the rounding of float64 that is stated, or within bounds "
        "that are proven; nothing was sampled. All of them are in audit.json beside this file.</footer>"
    )
    return "\n".join(parts)


def figures(report: AuditReport) -> dict[str, go.Figure]:
    """Name -> picture: returns by time limit, optimal actions on the grid, values of the starts."""
    out = {"limits": _limits(report)}
    grid = None if report.mdp.labels is None else report.mdp.labels.grid
    if grid is not None and report.mdp.num_states <= CELLS:
        out["grid"] = _grid(report, grid)
    if report.sizes.num_starts > 1 and report.solution is not None:
        out["starts"] = _starts(report)
    return out


# ---------------------------------------------------------------------- private
def _verdict(report: AuditReport) -> str:
    attained = decisive(report)
    if attained is None:
        return ""
    kind = "pass" if attained.reached else "miss"
    said = {True: "can be reached", False: "out of reach", None: "equal to the optimum"}
    return f"<div class='verdict {kind}'>threshold {number(report.threshold)}: {said[attained.reached]}</div>"


def _limits(report: AuditReport) -> go.Figure:
    """Return by time limit: the optimum, and the stationary policies that differ from each other."""
    horizon, steps = len(report.limited.policy), report.limits(POINTS)
    best = (report.limited.values @ report.mdp.start)[::-1]
    series = {"time-aware optimum": (steps.tolist(), best[steps].tolist())}
    shown = [best]
    for p in report.plays:
        if p.kind == "stationary" and not any(np.allclose(p.returns, r, 1e-9, 1e-9) for r in shown):
            shown.append(p.returns)
            series[p.name] = (steps.tolist(), p.returns[steps].tolist())
    lines = (
        {}
        if report.threshold is None
        else {f"threshold {number(report.threshold)}": report.threshold}
    )
    figure = curves(
        series,
        title=_limits_title(report, best),
        x="time limit (steps)",
        y="expected return (reward units)",
        log_x=True,
        lines=lines,
    )
    # without a range of its own, an annotation on a log axis would stretch it to its exponent
    figure.update_xaxes(range=[0.0, math.log10(horizon)])
    if report.limit is not None:
        figure.add_vline(x=report.limit, line={"dash": "dash", "color": INK, "width": 1.5})
        figure.add_annotation(
            x=math.log10(report.limit), y=1.0, yref="paper", xanchor="left", yanchor="bottom", showarrow=False,
            text=f"registered: {report.limit}",
        )  # fmt: skip
    # at the left, where no curve has risen to it yet
    figure.update_annotations(x=0.0, xanchor="left", selector={"xref": "x domain"})
    figure.update_layout(legend={"orientation": "h", "y": -0.22})
    return figure


def _limits_title(report: AuditReport, best: np.ndarray) -> str:
    free = report.undiscounted_optimum
    if free is None or abs(free.middle) < 1e-9:  # nothing, or nothing to take a share of
        return "What the best policy earns, by the number of steps it may take"
    far = np.flatnonzero(np.abs(best - free.middle) > 0.01 * abs(free.middle))
    needed = int(far[-1]) + 1
    if needed < len(best):
        return f"From {needed} steps on, a time limit changes the optimum by less than 1 %"
    return f"Even {len(best) - 1} steps are not enough to come within 1 % of the unlimited optimum"


def _grid(report: AuditReport, grid: tuple[int, int]) -> go.Figure:
    """The map at several numbers of steps left, and without a limit."""
    mdp, far = report.limited.mdp, report.limit or len(report.limited.policy)
    stops = [*(t for t in STOPS if t < far), far]
    frames = {
        f"{t}": (report.values_with(t), optimal_actions(mdp, report.values_with(t - 1)))
        for t in stops
    }
    title = "Every optimal action, by the number of steps left"
    if report.undiscounted is not None:
        last = frames[f"{far}"][1]
        free = optimal_actions(mdp, report.undiscounted.values, tol=1e-7)
        frames["no limit"] = (report.undiscounted.values, free)
        live = ~mdp.terminal
        other = int(np.count_nonzero(live & ~(last & free).any(axis=1)))
        if report.limit is not None:
            title = (
                f"With {far} steps left, {other} of {live.sum()} states ask for another action than without a limit"
                if other
                else f"With {far} steps left, the best actions are still those without a limit"
            )
    low = min(float(v.min()) for v, _ in frames.values())
    high = max(float(v.max()) for v, _ in frames.values())
    return slider(
        {name: _map(report, grid, v, a, (low, high)) for name, (v, a) in frames.items()},
        title=title,
        prefix="steps left: ",
    )


def _map(
    report: AuditReport,
    grid: tuple[int, int],
    values: np.ndarray,
    optimal: np.ndarray,
    limits: tuple[float, float],
) -> go.Figure:
    labels, reached = report.mdp.labels, report.reached
    figure = grid_policy(
        np.where(reached, values, np.nan).tolist(),
        optimal.tolist(),
        grid=grid,
        actions=labels.actions or (),
        title="",
        terminal=(report.mdp.terminal & reached).tolist(),
    )
    figure.update_traces(zmin=limits[0], zmax=limits[1], selector={"type": "heatmap"})
    numbers_in_corners(figure)
    # set at once: changed one by one, each would be validated with all the others
    figure.layout.annotations = [
        {**note.to_plotly_json(), "text": _short(note.text, limits[1] - limits[0])}
        for note in figure.layout.annotations
        if note.text != "nan"
    ]
    if not reached.all():
        outline(figure, ~reached, grid=grid)
        figure.update_shapes(fillcolor=GRID, line={"width": 0})
        figure.update_xaxes(title="column (grey cells are never entered)")
    return figure


def _short(text: str, span: float) -> str:
    """At most two decimals where that tells cells apart: more would run into the arrows."""
    return f"{round(float(text), 2) + 0.0:g}" if span < 10 else text


def _start_table(report: AuditReport) -> tuple[list[str], list[list[str]]]:
    """(head, rows): every start with its bracket, and what the limit leaves of it."""
    rows = [
        [
            place(report, row["state"]),
            number(row["probability"]),
            "-" if "optimum" not in row else number(row["optimum"]["value"]),
            "-" if "optimum" not in row else f"{row['optimum']['lower']:.13g} to {_upper(row)}",
            "-" if "within_limit" not in row else number(row["within_limit"]),
        ]
        for row in report.starts()
    ]
    return ["start", "probability", "optimum", "proven", "within the limit"], rows


def _upper(row: dict[str, Any]) -> str:
    upper = row["optimum"]["upper"]
    return "no bound" if upper is None else f"{upper:.13g}"


def _starts(report: AuditReport) -> go.Figure:
    """Value of every start, sorted: how much of a return is luck of the draw."""
    starts = np.flatnonzero(report.mdp.start)
    order = starts[np.argsort(report.solution.values[starts])]
    share = np.cumsum(report.mdp.start[order])
    values = report.solution.values[order]
    lines = {}
    if report.threshold is not None and report.gamma == 1.0:
        lines[f"threshold {number(report.threshold)}"] = report.threshold
    return curves(
        {"optimum from this start": (share.tolist(), values.tolist())},
        title=f"A start is worth {number(values[0])} to {number(values[-1])}, {number(report.optimum.middle)} on average",
        x="starts, sorted by value (share)",
        y="optimal value (reward units)",
        lines=lines,
    )
