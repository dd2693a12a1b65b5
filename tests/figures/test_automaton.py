"""The walk and the slide show the states and comparisons they were given."""

import numpy as np
import pytest

from dodona.errors import InputError, ShapeError
from dodona.figures.automaton import DIFFERENT, EQUAL, automaton, sliding

TABLE = np.array([[1, 0], [1, 2], [3, 0], [1, 2]])  # of "aba" over a, b
WALK = {"alphabet": "ab", "title": "t"}


def _trace(figure, row: float):
    """The cells that lie on one row."""
    return next(t for t in figure.data if t.mode == "markers+text" and set(t.y) == {row})


def test_there_is_a_frame_before_the_text_and_one_behind_each_symbol():
    figure = automaton(TABLE, [0, 1, 0, 1], **WALK)
    assert [frame.name for frame in figure.frames] == ["0", "1", "2", "3", "4"]
    assert figure.layout.title.text == "t"


def test_the_pattern_is_read_off_the_table_and_lies_under_what_it_matches():
    figure = automaton(TABLE, [1, 0, 1, 0, 1], **WALK)
    last = figure.frames[-1]
    assert list(_trace(last, 3.0).text) == list("babab")
    pattern = _trace(last, 2.0)
    assert list(pattern.text) == list("aba")
    assert list(pattern.x) == [3, 4, 5]  # state 2 behind five symbols
    assert list(pattern.marker.color)[:2] == [EQUAL, EQUAL] != pattern.marker.color[2]


def test_the_state_of_the_walk_is_filled():
    for frame, state in zip(automaton(TABLE, [0, 1, 0], **WALK).frames, (0, 1, 2, 3), strict=True):
        nodes = _trace(frame, 0.0)
        filled = [i for i, c in enumerate(nodes.marker.color) if not c.startswith("rgba")]
        assert filled == [state]


def test_a_transition_is_drawn_when_it_is_taken():
    frames = automaton(TABLE, [0, 1, 1], **WALK).frames
    taken = [next(t for t in frame.data if t.line.color == DIFFERENT) for frame in frames]
    assert len(taken[0].x or ()) == 0
    assert taken[1].x[0] < taken[1].x[1]  # 0 -> 1
    assert taken[3].x[0] > taken[3].x[-2]  # 2 -> 0, which the quiet edges leave out


def test_every_frame_has_the_same_traces():
    figure = automaton(TABLE, [0, 1, 1, 0], **WALK)
    assert {len(frame.data) for frame in figure.frames} == {len(figure.data)}


@pytest.mark.parametrize(
    ("table", "trace", "error", "message"),
    [
        (TABLE[:, :1], [0], ShapeError, r"shape \(4, 1\), expected \[states, 2\]"),
        (TABLE, [], InputError, r"at least one, got \[\]"),
        (TABLE, [0, 2], InputError, r"columns 0\.\.1"),
        (np.zeros((3, 2), dtype=int), [0], InputError, "state 0 has 0 ways to state 1"),
    ],
)
def test_a_walk_that_can_not_be_drawn_is_named(table, trace, error, message):
    with pytest.raises(error, match=message):
        automaton(table, trace, **WALK)


COMPARISONS = [(0, 0, True), (1, 1, True), (2, 2, False), (2, 0, True), (3, 1, True), (4, 2, True)]


def test_every_place_of_the_pattern_is_a_row_with_its_jump():
    figure = sliding("ababc", "abc", COMPARISONS, title="t")
    assert list(figure.layout.yaxis.ticktext) == ["text", "at 0", "at 2 (+2) found"]
    cells = {trace.name: sorted(zip(trace.y, trace.x, strict=True)) for trace in figure.data}
    assert cells["equal"] == [(1, 0), (1, 1), (2, 2), (2, 3), (2, 4)]
    assert cells["different"] == [(1, 2)]
    assert cells["known, not compared"] == cells["not reached"] == []


def test_what_a_border_already_knows_is_not_compared_again():
    comparisons = [(i, i, True) for i in range(3)] + [(3, 3, False), (3, 1, True)]
    figure = sliding("abab", "abac", comparisons, title="t")
    cells = {trace.name: sorted(zip(trace.y, trace.x, strict=True)) for trace in figure.data}
    assert cells["known, not compared"] == [(2, 2)]
    assert cells["not reached"] == [(2, 4), (2, 5)]


def test_white_space_is_shown():
    figure = sliding("a b", "a\n", [(0, 0, True), (1, 1, False)], title="t")
    shown = {symbol for trace in figure.data for symbol in trace.text or ()}
    assert shown == {"a", "b", "␣", "⏎"}


def test_comparisons_must_exist_and_lie_inside():
    with pytest.raises(InputError, match="comparisons is empty"):
        sliding("ab", "a", [], title="t")
    with pytest.raises(InputError, match=r"comparison \(2, 0\) lies outside"):
        sliding("ab", "a", [(2, 0, True)], title="t")
