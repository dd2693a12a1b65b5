"""Which entries of a matrix are not zero: one mark per entry, its size of value as colour."""

from collections.abc import Sequence

import plotly.graph_objects as go

from dodona.errors import ShapeError
from dodona.figures.style import styled


def sparsity(
    rows: Sequence[int],
    columns: Sequence[int],
    weights: Sequence[float],
    *,
    shape: tuple[int, int],
    title: str,
    unit: str = "probability",
    x: str = "next state",
    y: str = "state",
) -> go.Figure:
    """The pattern of a sparse matrix.

    Args:
        rows, columns, weights: [nnz], the entries that are not zero.
        shape: (number of rows, number of columns).
        title: the finding in one sentence.  unit: what a weight is.
    Raises: ShapeError: lists of different length.
    """
    if not len(rows) == len(columns) == len(weights):
        raise ShapeError(
            f"rows, columns and weights must have one length, got {len(rows)}, {len(columns)}, {len(weights)}."
        )
    height = 460
    figure = go.Figure(
        go.Scatter(
            x=list(columns),
            y=list(rows),
            mode="markers",
            marker={
                "symbol": "square",
                "size": max(2.0, min(14.0, 0.62 * (height - 130) / max(shape))),
                "color": list(weights),
                "colorscale": "Cividis",
                "cmin": 0.0,
                "colorbar": {"title": {"text": unit, "side": "right"}},
            },
            hovertemplate=f"{y} %{{y}} to {x} %{{x}}: %{{marker.color:.4g}}<extra></extra>",
            showlegend=False,
        )
    )
    styled(figure, title=title, x=x, y=y, height=height)
    figure.update_xaxes(range=[-0.7, shape[1] - 0.3], constrain="domain")
    figure.update_yaxes(range=[shape[0] - 0.3, -0.7], scaleanchor="x")
    return figure
