"""The pattern of a matrix shows each entry once."""

import pytest

from dodona.errors import ShapeError
from dodona.figures.sparsity import sparsity


def test_every_entry_is_one_mark_at_its_row_and_column():
    figure = sparsity([0, 1, 2], [2, 1, 0], [0.5, 1.0, 0.25], shape=(3, 3), title="t")
    marks = figure.data[0]
    assert list(marks.y) == [0, 1, 2]
    assert list(marks.x) == [2, 1, 0]
    assert list(marks.marker.color) == [0.5, 1.0, 0.25]


def test_row_zero_is_at_the_top():
    figure = sparsity([0], [0], [1.0], shape=(4, 4), title="t")
    bottom, top = figure.layout.yaxis.range
    assert bottom > top


def test_lists_of_different_length_are_named():
    with pytest.raises(ShapeError, match="got 1, 2, 1"):
        sparsity([0], [0, 1], [1.0], shape=(2, 2), title="t")
