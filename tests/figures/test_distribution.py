"""Bars are densities with counting errors, the curve is the density that was given."""

import numpy as np
import pytest

from dodona.errors import InputError
from dodona.figures.distribution import distribution


def _flat(x):
    return np.ones_like(x)


def test_bars_are_shares_divided_by_their_width():
    figure = distribution([0.1, 0.1, 0.6, 1.9], lambda x: x / 2, title="t", x="r (m)", support=(0.0, 2.0), num_bins=4)  # fmt: skip
    bars, curve = figure.data
    np.testing.assert_allclose(bars.y, [1.0, 0.5, 0.0, 0.5])
    np.testing.assert_allclose(bars.x, [0.25, 0.75, 1.25, 1.75])
    np.testing.assert_allclose(bars.error_y.array, 2 * np.sqrt([0.25 / 4, 0.1875 / 4, 0, 0.1875 / 4]) / 0.5)  # fmt: skip
    assert curve.y[-1] == 1.0 and (curve.x[0], curve.x[-1]) == (0.0, 2.0)
    assert figure.layout.xaxis.title.text == "r (m)"


def test_samples_beyond_the_support_lower_the_bars():
    figure = distribution([0.25, 0.75, 5.0, 6.0], _flat, title="t", x="x", support=(0.0, 1.0), num_bins=2)  # fmt: skip
    np.testing.assert_allclose(figure.data[0].y, [0.5, 0.5])


def test_the_verdict_stands_inside_the_plot():
    figure = distribution(np.linspace(0, 1, 50), _flat, title="t", x="x", verdict="p = 0.4")
    (note,) = figure.layout.annotations
    low, high = figure.layout.yaxis.range
    assert note.text == "p = 0.4" and 0 <= note.x <= 1 and low < note.y <= high
    assert not distribution(np.linspace(0, 1, 50), _flat, title="t", x="x").layout.annotations


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ([], {}, "at least one sample, got none"),
        ([1.0], {}, r"over low < high, got 24 over \[1.0, 1.0\]"),
        ([1.0, 2.0], {"num_bins": 1}, "at least 2 bins .* got 1"),
    ],
)
def test_bad_input_is_named(samples, options, message):
    with pytest.raises(InputError, match=message):
        distribution(samples, _flat, title="t", x="x", **options)
