"""Samples against the density they must have: bars with their counting error, the exact curve over them."""

from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go

from dodona.errors import InputError
from dodona.figures.style import COLOURS, INK, styled

ERRORS = 2.0  # standard errors that a bar's whisker spans to each side


def distribution(
    samples: Sequence[float] | np.ndarray,
    density: Callable[[np.ndarray], np.ndarray],
    *,
    title: str,
    x: str,
    support: tuple[float, float] | None = None,
    num_bins: int = 24,
    verdict: str = "",
    colour: str = COLOURS[0],
) -> go.Figure:
    """Histogram of numbers over their exact density.

    A bar is the share of samples in it, divided by its width; its whiskers are two standard errors of
    the count, so that about one bar in twenty of a correct sampler misses the curve.

    Args:
        samples: numbers, at least one.
        density: exact density at an array of places.
        title: the finding in one sentence.  x: axis name with unit.
        support: (first, last) edge of the bars; default: from the least to the largest sample.
        num_bins: at least 2.
        verdict: a line of text at the top of the plot, for instance a test's p-value.
    Returns: bars, then the curve.
    Raises: InputError: no samples, fewer than 2 bins, an empty support.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if len(samples) == 0:
        raise InputError("distribution needs at least one sample, got none.")
    low, high = (float(samples.min()), float(samples.max())) if support is None else support
    if num_bins < 2 or not low < high:
        raise InputError(
            f"distribution needs at least 2 bins over low < high, got {num_bins} over [{low}, {high}]."
        )
    edges = np.linspace(low, high, num_bins + 1)
    width = edges[1] - edges[0]
    counts, _ = np.histogram(samples, edges)
    share = counts / len(samples)
    error = ERRORS * np.sqrt(share * (1 - share) / len(samples)) / width
    places = np.linspace(low, high, 201)
    curve = density(places)
    figure = go.Figure()
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2, y=share / width, width=0.94 * width, name=f"{len(samples)} samples",
        marker={"color": colour, "opacity": 0.55},
        error_y={"type": "data", "array": error, "thickness": 1, "width": 0, "color": colour},
        hovertemplate="%{x:.4g}: %{y:.4g}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=places, y=curve, mode="lines", name="exact density", line={"color": INK, "width": 2.5}
    )  # fmt: skip
    styled(figure, title=title, x=x, y="density")
    top = 1.22 * max(float(np.max(share / width + error)), float(np.max(curve)))
    figure.update_yaxes(range=[0, top])
    if verdict:
        # in data coordinates, so that it stays in place when panels move the axes
        figure.add_annotation(
            x=(low + high) / 2, y=top, yanchor="top", showarrow=False, text=verdict, font={"size": 12}
        )  # fmt: skip
    return figure
