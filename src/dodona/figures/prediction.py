"""Measurements with error bars on the curve that a theory predicts for them."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from dodona.errors import ShapeError
from dodona.figures.curves import curves
from dodona.figures.style import COLOURS


def prediction(
    places: Sequence[float],
    measured: Sequence[float],
    errors: Sequence[float],
    curve: tuple[Sequence[float], Sequence[float]],
    *,
    title: str,
    x: str,
    y: str,
    name: str = "predicted",
    others: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    lines: Mapping[str, float] | None = None,
) -> go.Figure:
    """Dots with whiskers over a smooth line.

    Args:
        places, measured, errors: [n] x, y and half a whisker (1.96 standard errors are 95 %).
        curve: (x values, y values) of the prediction, named ``name``.
        others: further lines to compare with.
        title: the finding in one sentence.  x, y: axis names with units.
        log_x, log_y, lines: as curves.
    Raises: ShapeError: lengths of places, measured and errors that differ.
    """
    if not len(places) == len(measured) == len(errors):
        raise ShapeError(
            "places, measured and errors must have one length, got "
            f"{len(places)}, {len(measured)} and {len(errors)}."
        )
    figure = curves(
        {name: curve, **(others or {})}, title=title, x=x, y=y, log_x=log_x, log_y=log_y, lines=lines
    )  # fmt: skip
    figure.update_traces(mode="lines")
    return figure.add_scatter(
        x=list(places), y=list(measured), mode="markers", name="measured (95 %)",
        marker={"size": 8, "color": COLOURS[5]}, error_y={"type": "data", "array": list(errors), "width": 3},
    )  # fmt: skip
