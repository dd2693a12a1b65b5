"""Numbers and frames sit in the right cells."""

import pytest

from dodona.errors import ShapeError
from dodona.figures.cells import numbers_in_corners, outline
from dodona.figures.grid import grid_policy


def _grid():
    return grid_policy([0.0, 10.0, 5.0, 1.0], [[True]] * 4, grid=(2, 2), actions=("up",), title="t")


def test_numbers_stay_in_their_cell_and_leave_its_middle():
    figure = numbers_in_corners(_grid())
    found = {(round(n.y), round(n.x)): n.text for n in figure.layout.annotations}
    assert found == {(0, 0): "0", (0, 1): "10", (1, 0): "5", (1, 1): "1"}
    assert all(abs(n.x - round(n.x)) > 0.3 for n in figure.layout.annotations)


def test_ink_is_dark_on_light_cells_and_light_on_dark_ones():
    ink = {n.text: n.font.color for n in numbers_in_corners(_grid()).layout.annotations}
    assert ink["10"] == "#111111"
    assert ink["0"] == "#f4f4f4"


def test_ink_follows_a_fixed_colour_range():
    figure = _grid().update_traces(zmin=0, zmax=1000, selector={"type": "heatmap"})
    assert {n.font.color for n in numbers_in_corners(figure).layout.annotations} == {"#f4f4f4"}


def test_masked_cells_are_framed_row_by_row():
    figure = outline(_grid(), [False, True, False, False], grid=(2, 2))
    (frame,) = figure.layout.shapes
    assert frame.x0 < 1 < frame.x1
    assert frame.y0 < 0 < frame.y1


def test_a_mask_of_the_wrong_length_is_named():
    with pytest.raises(ShapeError, match=r"shape \(3,\), expected \(4,\)"):
        outline(_grid(), [True, False, True], grid=(2, 2))
