"""A grid world as people draw it: value as colour, every optimal action as an arrow."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Shaped

from dodona.figures.style import styled

MOVES = {"up": (0, -1), "right": (1, 0), "down": (0, 1), "left": (-1, 0), "stay": (0, 0)}


def grid_policy(
    values: Sequence[float] | Shaped[np.ndarray, "S"],
    optimal: Sequence[Sequence[bool]] | Shaped[np.ndarray, "S A"],
    *,
    grid: tuple[int, int],
    actions: Sequence[str],
    title: str,
    terminal: Sequence[bool] | Shaped[np.ndarray, "S"] | None = None,
    forbidden: Sequence[bool] | Shaped[np.ndarray, "S"] | None = None,
    unit: str = "value (reward units)",
) -> go.Figure:
    """Value map with policy arrows.

    Args:
        values: [S] row-major.  optimal: [S, A] True for every optimal action.
        grid: (rows, columns).  actions: names among up, right, down, left, stay.
        terminal, forbidden: [S] cells drawn with a ring or a cross.
    """
    rows, columns = grid
    table = np.asarray(values, dtype=float).reshape(rows, columns)
    figure = go.Figure(
        go.Heatmap(
            z=table,
            colorscale="Viridis",
            colorbar={"title": {"text": unit, "side": "right"}},
            xgap=2,
            ygap=2,
            hovertemplate="row %{y}, column %{x}: %{z:.6g}<extra></extra>",
        )
    )
    numbers = rows * columns <= 120
    if numbers:
        low, high = float(table.min()), float(table.max())
        notes = []
        for r in range(rows):
            for c in range(columns):
                light = high > low and (table[r, c] - low) / (high - low) > 0.6
                notes.append({
                    "x": c, "y": r, "yshift": -16 if rows <= 8 else -11, "showarrow": False,
                    "text": f"{table[r, c]:.{3 if columns <= 6 else 2}g}",  # what fits beside an arrow
                    "font": {"size": 10, "color": "#222" if light else "#ddd"},
                })  # fmt: skip
        figure.layout.annotations = notes  # one by one, each would copy those before it
    _arrows(figure, table, np.asarray(optimal, dtype=bool), actions, terminal)
    for name, mask, symbol in (
        ("end", terminal, "circle-open"),
        ("forbidden", forbidden, "x-thin"),
    ):
        if mask is not None and np.any(mask):
            r, c = np.divmod(np.flatnonzero(mask), columns)
            figure.add_scatter(
                x=c, y=r, mode="markers", name=name, hoverinfo="skip",
                marker={"symbol": symbol, "size": 22, "color": "#fff", "line": {"width": 2, "color": "#fff"}},
                showlegend=False,
            )  # fmt: skip
    styled(figure, title=title, x="column", y="row", height=max(360, 60 * min(rows, 10) + 120))
    figure.update_yaxes(autorange="reversed", scaleanchor="x", showgrid=False, dtick=1)
    figure.update_xaxes(showgrid=False, constrain="domain", dtick=1)
    return figure


def _arrows(
    figure: go.Figure,
    table: np.ndarray,
    optimal: np.ndarray,
    actions: Sequence[str],
    terminal: Sequence[bool] | Shaped[np.ndarray, "S"] | None,
) -> None:
    rows, columns = table.shape
    if rows * columns > 1600:
        return  # a cell is then smaller than an arrow
    xs: list[float | None] = []
    ys: list[float | None] = []
    dots = []
    for s in range(rows * columns):
        if terminal is not None and terminal[s]:
            continue
        r, c = divmod(s, columns)
        for a, name in enumerate(actions):
            if a < optimal.shape[1] and optimal[s, a] and name in MOVES:
                dx, dy = MOVES[name]
                if (dx, dy) == (0, 0):
                    dots.append((c, r))
                    continue
                tip = np.array([c + 0.38 * dx, r + 0.38 * dy])
                side = np.array([-dy, dx])
                back = tip - 0.13 * np.array([dx, dy])
                points = [(c, r), tip, None, back + 0.09 * side, tip, back - 0.09 * side, None]
                for point in points:
                    xs.append(None if point is None else float(point[0]))
                    ys.append(None if point is None else float(point[1]))
    for width, colour in ((4, "#1a1a1a"), (2, "#ffffff")):
        figure.add_scatter(
            x=xs, y=ys, mode="lines", line={"width": width, "color": colour}, hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    if dots:
        figure.add_scatter(
            x=[d[0] for d in dots], y=[d[1] for d in dots], mode="markers", hoverinfo="skip", showlegend=False,
            marker={"size": 9, "color": "#fff", "line": {"width": 1, "color": "#1a1a1a"}},
        )  # fmt: skip
