"""A cloud keeps its points, its circle and equal axes."""

import numpy as np
import pytest

from dodona.errors import ShapeError
from dodona.figures.compose import panels
from dodona.figures.points import points


def test_points_lie_in_a_drawn_circle_with_equal_axes():
    figure = points([[1.0, 2.0], [3.0, 2.5]], title="t", radius=2.0, center=(2.0, 2.0), unit="m")
    np.testing.assert_array_equal(figure.data[0].x, [1.0, 3.0])
    (circle,) = figure.layout.shapes
    assert (circle.type, circle.x0, circle.x1, circle.y0, circle.y1) == ("circle", 0, 4, 0, 4)
    assert figure.layout.yaxis.scaleanchor == "x"
    assert figure.layout.xaxis.title.text == "x (m)"


def test_clouds_keep_their_circles_in_panels():
    one = points(np.zeros((3, 2)), title="")
    both = panels({"a": one, "b": one}, title="t")
    assert [s.xref for s in both.layout.shapes] == ["x", "x2"]


def test_points_have_two_coordinates():
    with pytest.raises(ShapeError, match=r"xy must have shape \[n, 2\], got \(4, 3\)"):
        points(np.zeros((4, 3)), title="t")
