"""Every place of every round is drawn once: excluded before, excluded now, or still possible."""

import pytest

from dodona.errors import InputError, ShapeError
from dodona.figures.compose import panels, slider
from dodona.figures.intervals import intervals

STEPS = [(0, 5, 10, True), (0, 2, 5, False), (3, 4, 5, True), (3, 3, 4, False)]
TEXT = {"title": "t", "x": "position"}


def _places(trace, row):
    """The places that a trace of bars covers in one row."""
    covered = set()
    for start, end, y in zip(trace.x[0::3], trace.x[1::3], trace.y[0::3], strict=True):
        if y == row:
            covered |= set(range(round(start + 0.45), round(end - 0.45) + 1))
    return covered


def test_a_row_shows_what_goes_and_what_stays():
    before, now, left = intervals(STEPS, ends=(0, 10), answer=4, **TEXT).data[:3]
    assert _places(now, 1) == set(range(6, 11)) and _places(left, 1) == set(range(6))
    assert _places(before, 2) == set(range(6, 11)) and _places(now, 2) == {0, 1, 2}
    assert _places(left, 5) == {4} and _places(before, 5) == set(range(11)) - {4}
    for row in range(1, 6):
        parts = [_places(trace, row) for trace in (before, now, left)]
        assert set().union(*parts) == set(range(11)) and sum(map(len, parts)) == 11


def test_marks_say_where_was_asked_and_what_the_answer_was():
    figure = intervals(STEPS, ends=(0, 10), answer=4, **TEXT)
    yes, no = figure.data[3:]
    assert (list(yes.x), list(yes.y), yes.name) == ([5, 4], [1, 3], "asked: yes")
    assert (list(no.x), list(no.y), no.name) == ([2, 3], [2, 4], "asked: no")


def test_a_stopped_search_has_no_answer_and_excludes_nothing_at_last():
    figure = intervals([(3, 3, 4, True)] * 3, ends=(0, 5), answer=None, **TEXT)
    assert [len(figure.data[1].x), _places(figure.data[2], 3)] == [0, {3, 4}]
    assert "answer" not in figure.layout.yaxis.ticktext


def test_frames_have_the_axes_of_the_whole():
    frames = {
        str(k): intervals(STEPS, ends=(0, 10), answer=4, shown=k, **TEXT) for k in range(1, 6)
    }
    assert len({str(f.layout.yaxis.range) for f in frames.values()}) == 1
    assert len(frames["2"].data[3].x) + len(frames["2"].data[4].x) == 2
    assert _places(frames["4"].data[2], 5) == set() and _places(frames["5"].data[2], 5) == {4}
    assert len(slider(frames, title="t").frames) == 5


def test_notes_stand_beside_their_rounds_and_panels_keep_one_legend():
    noted = intervals(STEPS, ends=(0, 10), answer=4, notes=["a", "b", "c", "d"], shown=2, **TEXT)
    assert [(n.y, n.text) for n in noted.layout.annotations] == [(1, "a"), (2, "b")]
    assert noted.layout.xaxis.range[1] > 14
    quiet = intervals(STEPS, ends=(0, 10), answer=4, legend=False, **TEXT)
    both = panels({"a": intervals(STEPS, ends=(0, 10), answer=4, **TEXT), "b": quiet}, title="t")
    assert [trace.showlegend for trace in both.data] == [True] * 5 + [False] * 5


def test_what_can_not_be_drawn_is_named():
    with pytest.raises(InputError, match="at least one round"):
        intervals([], ends=(0, 5), answer=1, **TEXT)
    with pytest.raises(InputError, match="round 2 has left, mid, right = 0, 9, 5"):
        intervals([STEPS[0], (0, 9, 5, True)], ends=(0, 10), answer=1, **TEXT)
    with pytest.raises(ShapeError, match="got 1 for 4"):
        intervals(STEPS, ends=(0, 10), answer=4, notes=["a"], **TEXT)
