"""Bands lie between break points."""

import pytest

from dodona.errors import InputError, ShapeError
from dodona.figures.regions import policy_regions

TEXT = {"title": "t", "x": "gamma", "y": "value"}


def test_one_band_per_policy_between_the_breaks():
    figure = policy_regions([0.0, 0.5, 1.0], [0.0, 1.0, 4.0], [0.25, 0.75], **TEXT)
    bands = [(s.x0, s.x1) for s in figure.layout.shapes if s.type == "rect"]
    assert bands == [(0.0, 0.25), (0.25, 0.75), (0.75, 1.0)]


def test_break_points_lie_on_the_curve():
    figure = policy_regions([0.0, 0.5, 1.0], [0.0, 1.0, 4.0], [0.25, 0.75], **TEXT)
    marks = figure.data[1]
    assert list(marks.x) == [0.25, 0.75]
    assert list(marks.y) == pytest.approx([0.5, 2.5])


def test_one_policy_everywhere_is_one_band():
    figure = policy_regions([0.0, 1.0], [0.0, 1.0], [], **TEXT)
    assert sum(s.type == "rect" for s in figure.layout.shapes) == 1


def test_lengths_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="got 2 and 3"):
        policy_regions([0.0, 1.0], [0.0, 1.0, 2.0], [], **TEXT)


def test_a_break_outside_the_parameters_is_named():
    with pytest.raises(InputError, match=r"within 0\.\.1, got \[1\.5\]"):
        policy_regions([0.0, 1.0], [0.0, 1.0], [1.5], **TEXT)
