"""Dots stand on the curve that was predicted, each with its error."""

import pytest

from dodona.errors import ShapeError
from dodona.figures.prediction import prediction


def test_measurements_have_whiskers_and_predictions_are_lines():
    figure = prediction(
        [1, 2], [0.5, 0.7], [0.1, 0.2], ([1, 1.5, 2], [0.4, 0.6, 0.8]), title="t", x="x", y="y",
        name="theory", others={"other": ([1, 2], [1, 1])}, log_x=True,
    )  # fmt: skip
    theory, other, measured = figure.data
    assert (theory.name, theory.mode, other.mode) == ("theory", "lines", "lines")
    assert measured.mode == "markers" and list(measured.y) == [0.5, 0.7]
    assert list(measured.error_y.array) == [0.1, 0.2]
    assert figure.layout.xaxis.type == "log"


def test_lengths_must_agree():
    with pytest.raises(ShapeError, match="one length, got 2, 1 and 2"):
        prediction([1, 2], [0.5], [0.1, 0.1], ([1], [1]), title="t", x="x", y="y")
