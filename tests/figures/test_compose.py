"""Panels and sliders keep what the single pictures show."""

import pytest

from dodona.errors import InputError
from dodona.figures.compose import panels, slider
from dodona.figures.curves import curves
from dodona.figures.grid import grid_policy


def _grid(optimal, values=(0.0, 1.0)):
    ties = [[bool(tie) for tie in row] for row in optimal]
    return grid_policy(values, ties, grid=(1, 2), actions=("left", "right", "stay"), title="one")


def test_every_panel_keeps_its_traces_and_numbers():
    one, two = _grid([[1, 0, 0], [0, 0, 1]]), _grid([[0, 1, 0], [0, 1, 0]])
    whole = panels({"a": one, "b": two}, title="both")
    assert len(whole.data) == len(one.data) + len(two.data)
    assert len(whole.layout.annotations) == 2 + 2 * 2  # captions and numbers
    assert {note.xref for note in whole.layout.annotations[2:]} == {"x", "x2"}
    assert {trace.xaxis for trace in whole.data[len(one.data) :]} == {"x2"}
    assert whole.layout.title.text == "both"


def test_panels_leave_the_single_pictures_as_they_were():
    one = _grid([[1, 0, 0], [0, 0, 1]])
    before = one.to_json()
    panels({"a": one, "b": one}, title="both")
    assert one.to_json() == before


def test_panels_reverse_the_rows_of_every_grid():
    whole = panels({name: _grid([[1, 0, 0], [0, 0, 1]]) for name in "abc"}, title="t", columns=2)
    assert [whole.layout[f"yaxis{n}"].autorange for n in ("", "2", "3")] == ["reversed"] * 3
    assert whole.layout.yaxis3.scaleanchor == "x3"


def test_a_slider_has_a_stop_and_a_frame_per_picture_and_opens_at_the_last():
    stops = {"0": _grid([[1, 0, 0], [0, 0, 1]]), "1": _grid([[0, 1, 0], [0, 1, 0]], (5.0, 6.0))}
    whole = slider(stops, title="t", prefix="gamma ")
    assert [frame.name for frame in whole.frames] == ["0", "1"]
    assert whole.layout.sliders[0].active == 1
    assert list(whole.data[0].z[0]) == [5.0, 6.0]


def test_every_frame_replaces_every_trace():
    with_dot, without = _grid([[1, 0, 0], [0, 0, 1]]), _grid([[0, 1, 0], [0, 1, 0]])
    assert len(with_dot.data) != len(without.data)
    whole = slider({"0": with_dot, "1": without}, title="t")
    assert {len(frame.data) for frame in whole.frames} == {len(whole.data)}


@pytest.mark.parametrize("make", [panels, slider])
def test_no_picture_is_an_error(make):
    with pytest.raises(InputError, match="at least one is needed"):
        make({}, title="t")


def test_no_column_is_an_error():
    one = curves({"a": ([1, 2], [3, 4])}, title="t", x="x", y="y")
    with pytest.raises(InputError, match="columns must be at least 1, got 0"):
        panels({"a": one}, title="t", columns=0)
