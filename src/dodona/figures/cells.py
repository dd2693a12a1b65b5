"""Marks in the cells of a grid picture, in cell coordinates, so that they stay right at any size."""

# pyright: reportAttributeAccessIssue=false
# plotly tells type checkers nothing of what a figure holds

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from dodona.errors import ShapeError
from dodona.figures.style import COLOURS

CORNER = (
    0.45  # from the middle of a cell, in cells: clear of the arrows, which leave from the middle
)


def numbers_in_corners(figure: go.Figure) -> go.Figure:
    """Move the numbers of a grid picture to the upper left corner of their cells, away from arrows.

    Ink is black on light cells and white on dark ones, judged by the heatmap's colour range.

    Args: figure: of grid_policy, or any heatmap with one annotation per cell at its middle.
    Returns: the same figure, changed in place.
    """
    heat = next(trace for trace in figure.data if trace.type == "heatmap")
    table = np.asarray(heat.z, dtype=float)
    low = float(table.min()) if heat.zmin is None else heat.zmin
    high = float(table.max()) if heat.zmax is None else heat.zmax
    notes = [note.to_plotly_json() for note in figure.layout.annotations]
    for note in notes:
        column, row = round(note["x"]), round(note["y"])
        share = (table[row, column] - low) / (high - low) if high > low else 0.0
        note.update(
            x=column - CORNER, y=row - CORNER, xanchor="left", yanchor="top", xshift=0, yshift=0, borderpad=0,
            font={"size": 9, "color": "#111111" if share > 0.55 else "#f4f4f4"},
        )  # fmt: skip
    figure.layout.annotations = (
        notes  # set at once: changed in place, each would be validated alone
    )
    return figure


def outline(
    figure: go.Figure,
    mask: Sequence[bool] | np.ndarray,
    *,
    grid: tuple[int, int],
    colour: str = COLOURS[5],
) -> go.Figure:
    """Frame the masked cells.

    Args:
        mask: [S] row-major.  grid: (rows, columns).
    Returns: the same figure, changed in place.
    Raises: ShapeError: the mask does not have one entry per cell.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != (grid[0] * grid[1],):
        raise ShapeError(
            f"mask has shape {mask.shape}, expected ({grid[0] * grid[1]},) for {grid[0]} x {grid[1]} cells."
        )
    for s in np.flatnonzero(mask):
        row, column = divmod(int(s), grid[1])
        figure.add_shape(
            type="rect", x0=column - 0.47, x1=column + 0.47, y0=row - 0.47, y1=row + 0.47,
            line={"color": colour, "width": 3}, fillcolor="rgba(0,0,0,0)",
        )  # fmt: skip
    return figure
