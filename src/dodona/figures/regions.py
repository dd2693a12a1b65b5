"""Where one policy gives way to the next along a parameter: bands with break points."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dodona.errors import InputError, ShapeError
from dodona.figures.style import COLOURS, styled


def policy_regions(
    parameters: Sequence[float],
    values: Sequence[float],
    breaks: Sequence[float],
    *,
    title: str,
    x: str,
    y: str,
    log_y: bool = False,
) -> go.Figure:
    """A curve over coloured bands, one band per policy region.

    Args:
        parameters: [K], increasing.  values: [K], drawn as a curve.
        breaks: where the policy changes, increasing, within the parameters.
        title: the finding in one sentence.  x, y: axis names with units.
    Raises: ShapeError: lengths that do not fit together.  InputError: a break outside the parameters.
    """
    if len(parameters) != len(values) or len(parameters) < 2:
        raise ShapeError(
            "parameters and values must have one length of at least 2, got "
            f"{len(parameters)} and {len(values)}."
        )
    if (
        not parameters[0]
        <= min(breaks, default=parameters[0])
        <= max(breaks, default=parameters[0])
        <= parameters[-1]
    ):
        raise InputError(
            f"breaks must lie within {parameters[0]:g}..{parameters[-1]:g}, got {list(breaks)}."
        )
    figure = go.Figure()
    edges = [parameters[0], *breaks, parameters[-1]]
    for i, (left, right) in enumerate(zip(edges, edges[1:], strict=False)):
        figure.add_vrect(
            x0=left, x1=right, fillcolor=COLOURS[i % len(COLOURS)], opacity=0.22, line_width=0, layer="below"
        )  # fmt: skip
        if right - left > 0.03 * (parameters[-1] - parameters[0]):
            figure.add_annotation(
                x=(left + right) / 2, y=1.0, yref="paper", yanchor="bottom", showarrow=False,
                text=f"policy {i + 1}", font={"size": 12},
            )  # fmt: skip
    figure.add_scatter(
        x=list(parameters), y=list(values), mode="lines", line={"color": COLOURS[0], "width": 2.5},
        showlegend=False, hovertemplate="%{x:.4f}: %{y:.6g}<extra></extra>",
    )  # fmt: skip
    for point in breaks:
        figure.add_vline(x=point, line={"dash": "dot", "width": 1.5, "color": "#8C8C8C"})
    figure.add_scatter(
        x=list(breaks), y=[_at(point, parameters, values) for point in breaks], mode="markers",
        marker={"size": 9, "color": COLOURS[5]}, showlegend=False,
        hovertemplate="the policy changes at %{x:.10f}<extra></extra>",
    )  # fmt: skip
    styled(figure, title=title, x=x, y=y)
    figure.update_layout(margin={"t": 80})
    figure.update_yaxes(type="log" if log_y else "linear", exponentformat="power")
    figure.update_xaxes(showgrid=False)
    return figure


def _at(point: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """The curve's height at a point, linear between samples."""
    i = min(max(sum(x <= point for x in xs), 1), len(xs) - 1)
    share = (point - xs[i - 1]) / (xs[i] - xs[i - 1])
    return ys[i - 1] + share * (ys[i] - ys[i - 1])
