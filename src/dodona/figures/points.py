"""Points of the plane in the circle that should hold them."""

import numpy as np
import plotly.graph_objects as go

from dodona.errors import ShapeError
from dodona.figures.style import COLOURS, INK, styled


def points(
    xy: np.ndarray | list[list[float]],
    *,
    title: str,
    radius: float = 1.0,
    center: tuple[float, float] = (0.0, 0.0),
    unit: str = "",
    colour: str = COLOURS[0],
) -> go.Figure:
    """A cloud of points and the rim of its disc, with equal axes.

    Args:
        xy: [n, 2].
        title: the finding in one sentence.
        radius, center: of the circle that is drawn.
        unit: of both axes, for instance "m".
    Raises: ShapeError: xy is not [n, 2].
    """
    xy = np.asarray(xy, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ShapeError(f"xy must have shape [n, 2], got {xy.shape}.")
    figure = go.Figure()
    figure.add_scatter(
        x=xy[:, 0], y=xy[:, 1], mode="markers", showlegend=False, hoverinfo="skip",
        marker={"size": 3, "color": colour, "opacity": 0.6},
    )  # fmt: skip
    figure.add_shape(
        type="circle", x0=center[0] - radius, x1=center[0] + radius, y0=center[1] - radius, y1=center[1] + radius,
        line={"color": INK, "width": 1.5},
    )  # fmt: skip
    axis = f" ({unit})" if unit else ""
    styled(figure, title=title, x=f"x{axis}", y=f"y{axis}", height=480)
    reach = 1.06 * radius
    figure.update_xaxes(range=[center[0] - reach, center[0] + reach], constrain="domain", showgrid=False)  # fmt: skip
    figure.update_yaxes(range=[center[1] - reach, center[1] + reach], scaleanchor="x", showgrid=False)  # fmt: skip
    return figure
