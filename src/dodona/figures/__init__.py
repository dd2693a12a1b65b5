"""The few kinds of picture, each a function that returns a Plotly figure; report and lab show the same."""

from dodona.figures.curves import curves
from dodona.figures.grid import grid_policy
from dodona.figures.style import COLOURS, styled

__all__ = ["COLOURS", "curves", "grid_policy", "styled"]
