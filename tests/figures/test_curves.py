"""Curves show the numbers that were given, on the axes that were asked for."""

from dodona.figures.curves import curves
from dodona.figures.style import COLOURS

SERIES = {"a": ([1.0, 10.0], [1e-3, 1e-6]), "b": ([1.0, 10.0], [1e-2, 1e-4])}


def test_every_series_is_a_curve_with_its_own_colour():
    figure = curves(SERIES, title="t", x="sweeps", y="gap")
    assert [trace.name for trace in figure.data] == ["a", "b"]
    assert [list(trace.y) for trace in figure.data] == [[1e-3, 1e-6], [1e-2, 1e-4]]
    assert [trace.line.color for trace in figure.data] == list(COLOURS[:2])


def test_axes_are_named_and_logarithmic_on_request():
    figure = curves(SERIES, title="t", x="sweeps", y="gap", log_x=True, log_y=True)
    assert (figure.layout.xaxis.title.text, figure.layout.xaxis.type) == ("sweeps", "log")
    assert (figure.layout.yaxis.title.text, figure.layout.yaxis.type) == ("gap", "log")


def test_a_band_is_closed_around_its_curve():
    figure = curves(SERIES, title="t", x="x", y="y", bands={"a": ([1.0, 2.0], [3.0, 4.0])})
    band = figure.data[0]
    assert list(band.x) == [1.0, 10.0, 10.0, 1.0]
    assert list(band.y) == [3.0, 4.0, 2.0, 1.0]


def test_more_series_than_colours_differ_by_their_dashes():
    many = {str(i): ([0.0, 1.0], [0.0, float(i)]) for i in range(len(COLOURS) + 1)}
    first, *_, last = curves(many, title="t", x="x", y="y").data
    assert first.line.color == last.line.color
    assert first.line.dash != last.line.dash


def test_paper_is_transparent_so_that_light_and_dark_pages_work():
    figure = curves(SERIES, title="t", x="x", y="y")
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
