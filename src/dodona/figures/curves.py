"""Curves with bands, on linear or log axes."""

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from dodona.figures.style import COLOURS, DASHES, styled


def curves(
    series: Mapping[str, tuple[Sequence[float] | Sequence[str], Sequence[float]]],
    *,
    title: str,
    x: str,
    y: str,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    lines: Mapping[str, float] | None = None,
) -> go.Figure:
    """One line per series, with an optional band and horizontal reference lines.

    Args:
        series: name -> (x values, or words that stand side by side; y values).
        title: the finding in one sentence.  x, y: axis names with units.
        bands: name -> (lower, upper) at the same x values.
        lines: name -> y of a horizontal line.
    """
    figure = go.Figure()
    for i, (name, (xs, ys)) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        if bands and name in bands:
            lower, upper = bands[name]
            figure.add_scatter(
                x=[*xs, *reversed(list(xs))],
                y=[*upper, *reversed(list(lower))],
                fill="toself",
                fillcolor=colour,
                opacity=0.18,
                line={"width": 0},
                showlegend=False,
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=list(xs),
            y=list(ys),
            name=name,
            mode="lines+markers" if len(xs) <= 40 else "lines",
            line={"color": colour, "width": 2, "dash": DASHES[i // len(COLOURS) % len(DASHES)]},
            marker={"size": 5},
        )
    for name, level in (lines or {}).items():
        figure.add_hline(y=level, line={"dash": "dot", "color": "#8C8C8C"})
        figure.add_annotation(
            text=name, xref="x domain", x=1, xanchor="right", yanchor="bottom", showarrow=False,
            y=math.log10(level) if log_y else level,  # Plotly wants shapes in units, texts in powers
        )  # fmt: skip
    styled(figure, title=title, x=x, y=y)
    figure.update_xaxes(type="log" if log_x else "linear")
    figure.update_yaxes(type="log" if log_y else "linear", exponentformat="power")
    return figure
