"""Stops end the text at the smallest end, hold back no symbol too many, and know one row from another."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dodona.algorithms import kmp
from dodona.errors import InputError, ShapeError
from dodona.oracles import strings

STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=4)
SETS = [
    ("a",),
    ("b", "a"),
    ("ab", "b"),
    ("aab", "ab"),
    ("aba", "bab", "bb"),
    ("a", "a"),
    ("abab", "ba"),
]


@pytest.mark.parametrize("stops", SETS)
@pytest.mark.parametrize("include_stop", [False, True])
def test_every_small_text_stops_where_brute_force_says(stops, include_stop):
    for t in ("".join(w) for n in range(7) for w in itertools.product("ab", repeat=n)):
        matcher = kmp.StopMatcher(stops, include_stop=include_stop)
        event, truth = matcher.feed(t), strings.first_stop(t, stops)
        if truth is None:
            assert event == (t[: len(t) - strings.held(t, stops)], False, None, None, None)
        else:
            assert event == (t[: truth[2] if include_stop else truth[1]], True, *truth)


@given(STOPS, st.lists(st.text(alphabet="ab", max_size=4), max_size=6), st.booleans())
def test_output_is_exact_after_every_chunk(stops, chunks, include_stop):
    matcher, read, shown = kmp.StopMatcher(stops, include_stop=include_stop), "", ""
    for chunk in chunks:
        read += chunk
        event = matcher.feed(chunk)
        shown += event.text
        truth = strings.first_stop(read, stops)
        if truth is not None:
            assert event[1:] == (True, *truth)
            assert shown == read[: truth[2] if include_stop else truth[1]]
            assert matcher.flush() == ("", True, *truth)
            return
        assert event[1:] == (False, None, None, None)
        assert shown + matcher.held == read
        assert len(matcher.held) == strings.held(read, stops)
    assert shown + matcher.flush().text == read


class Beams(RuleBasedStateMachine):
    """Feed, save, restore and copy in any order: the matcher always equals brute force on its text."""

    @initialize(stops=STOPS)
    def begin(self, stops):
        self.stops = stops
        self.matcher, self.read, self.shown = kmp.StopMatcher(stops), "", ""
        self.saved = [(self.matcher.state(), "", "")]

    @precondition(lambda self: not self.matcher.stopped)
    @rule(chunk=st.text(alphabet="abc", max_size=5))
    def feed(self, chunk):
        self.read += chunk
        self.shown += self.matcher.feed(chunk).text

    @rule()
    def save(self):
        self.saved.append((self.matcher.state(), self.read, self.shown))

    @rule(data=st.data())
    def restore(self, data):
        state, self.read, self.shown = data.draw(st.sampled_from(self.saved))
        self.matcher = copy.copy(self.matcher)
        self.matcher.restore(state)

    @invariant()
    def the_output_is_the_text_up_to_its_stop(self):
        truth = strings.first_stop(self.read, self.stops)
        assert self.matcher.stopped == (truth is not None)
        expected = self.read[: truth[1]] if truth else self.read
        assert self.shown + self.matcher.held == expected


test_beams_equal_brute_force = Beams.TestCase


def test_the_smallest_end_wins_and_not_the_first_in_the_list():
    assert kmp.StopMatcher(["b", "a"]).feed("xab").text == "x"
    assert kmp.StopMatcher(["ab", "xab"]).feed("xxab") == ("x", True, 1, 1, 4)  # a tie: the longest


def test_only_what_may_become_a_stop_is_held_back():
    matcher = kmp.StopMatcher(["</s>", "\n\nQ:"])
    assert matcher.feed("no stop at all").text == "no stop at all"
    assert (matcher.feed("a < b").text, matcher.held) == ("a < b", "")
    assert (matcher.feed(" <").text, matcher.held) == (" ", "<")
    assert (matcher.feed("/").text, matcher.held) == ("", "</")
    assert (matcher.feed("p>\n").text, matcher.held) == ("</p>", "\n")
    assert matcher.flush() == ("\n", False, None, None, None)
    assert matcher.held == ""


def test_stops_of_one_letter_hold_nothing():
    matcher = kmp.StopMatcher(["a", "b", "c"])
    assert matcher.feed("xyz").text == "xyz" and matcher.held == ""
    assert matcher.feed("c").which == 2


def test_half_a_character_is_passed_through_untouched():
    matcher = kmp.StopMatcher(["é!".encode()])
    assert matcher.feed(b"\xff\xe2\x82").text == b"\xff\xe2\x82"
    assert (matcher.feed(b"\xc3").text, matcher.held) == (b"", b"\xc3")
    assert matcher.feed(b"\xa9!").end == 6


def test_token_rows_have_stops_as_well():
    matcher = kmp.StopMatcher([[7, 8], np.array([9])])
    event = matcher.feed(np.array([1, 2, 7]))
    assert event.text.tolist() == [1, 2]
    event = matcher.feed([8, 5])
    assert event.text.tolist() == [] and event[1:] == (True, 0, 2, 4)


def test_feeding_after_a_stop_is_an_error():
    matcher = kmp.StopMatcher(["."])
    matcher.feed("end. more")
    with pytest.raises(RuntimeError, match=r"stopped at 4 with stop 0; nothing may follow"):
        matcher.feed("x")
    matcher.restore((0, 0))
    assert matcher.feed("x").text == "x"


def test_a_matcher_survives_pickling():
    matcher = kmp.StopMatcher(["ab"])
    matcher.feed("xa")
    assert pickle.loads(pickle.dumps(matcher)).feed("b") == ("", True, 0, 1, 3)


@pytest.mark.parametrize(
    ("stops", "error", "message"),
    [
        ([], InputError, "at least one stop is needed"),
        (["a", ""], InputError, r"stop must not be empty \(index 1\)"),
        ("</s>", TypeError, r"stops must be a list, got one str.*Write \[stop\]"),
        (["a", b"b"], TypeError, "stop 1 is bytes and stop 0 is str"),
    ],
)
def test_bad_stops_are_named(stops, error, message):
    with pytest.raises(error, match=message):
        kmp.StopMatcher(stops)


# ---------------------------------------------------------------------- tokens
VOCABULARY = [b"", b"a", b"b", b"ab", b"ba", b"aab", b"abab", b"\xff", b"bba"]


@pytest.mark.parametrize("stops", SETS)
def test_the_table_equals_feeding_the_bytes_for_every_state_and_token(stops):
    table = kmp.TokenStopTable(stops, VOCABULARY)
    matcher = kmp.StopMatcher([s.encode() for s in stops])
    for state in range(table.num_states):
        for token, piece in enumerate(VOCABULARY):
            matcher.restore((state, 10))
            after, hit = table.step(np.array([state]), np.array([token]))
            if matcher.stopped:  # a row that has stopped stays as it is
                assert (after[0], hit[0]) == (state, -1)
                continue
            event = matcher.feed(piece)
            assert after[0] == matcher.state()[0]
            assert hit[0] == (event.end - 10 if event.stopped else -1)
            if event.stopped:
                assert table.which[after[0]] == event.which
            else:
                assert table.depth[after[0]] == len(matcher.held)


def test_every_tokenisation_of_every_small_text_stops_alike():
    stops = ["aba", "bb"]
    table = kmp.TokenStopTable(stops, VOCABULARY)
    rows = np.array(list(itertools.product(range(len(VOCABULARY)), repeat=4)))
    state, ends, begun = (
        table.start(len(rows)),
        np.full(len(rows), -1),
        np.zeros(len(rows), dtype=int),
    )
    lengths = np.array([len(piece) for piece in VOCABULARY])
    for column in rows.T:
        state, hit = table.step(state, column)
        ends = np.where(hit >= 0, begun + hit, ends)
        begun += lengths[column]
    for i in range(0, len(rows), 7):
        text = b"".join(VOCABULARY[token] for token in rows[i]).decode("latin-1")
        truth = strings.first_stop(text, stops)
        assert ends[i] == (truth[2] if truth else -1)
        assert bool(table.stopped(state)[i]) == (truth is not None)
        if truth:
            assert table.which[state[i]] == truth[0]


def test_no_row_ends_another():
    table = kmp.TokenStopTable([b"ab", b"\n"], [bytes([c]) for c in range(256)])
    rows = [b"xxab", b"aaaa", b"a\nxb", b"bbba"]
    state = table.start(4)
    hits = []
    for column in np.array([list(row) for row in rows]).T:
        state, hit = table.step(state, column)
        hits.append(hit.tolist())
    assert hits == [[-1] * 4, [-1, -1, 1, -1], [-1] * 4, [1, -1, -1, -1]]
    assert table.stopped(state).tolist() == [True, False, True, False]
    assert table.which[state].tolist() == [0, -1, 1, -1]
    assert table.depth[state].tolist() == [0, 1, 0, 1]


@given(st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=12), STOPS, st.booleans())
def test_a_row_is_cut_as_its_text_is(tokens, stops, include_stop):
    table = kmp.TokenStopTable(stops, VOCABULARY)
    matcher = kmp.StopMatcher([s.encode() for s in stops], include_stop=include_stop)
    event = matcher.feed(b"".join(VOCABULARY[token] for token in tokens))
    expected = event if event.stopped else event._replace(text=event.text + matcher.flush().text)
    assert table.text(tokens, include_stop=include_stop) == expected


def test_tables_on_a_device_step_like_those_here():
    table = kmp.TokenStopTable(["aba", "bb"], VOCABULARY)
    there = table.to("cpu")
    rng = np.random.default_rng(0)
    here_state, there_state = table.start(50), there.start(50)
    assert there_state.dtype == torch.int32
    for _ in range(6):
        tokens = rng.integers(0, len(VOCABULARY), 50)
        here_state, here_hit = table.step(here_state, tokens)
        there_state, there_hit = there.step(there_state, torch.from_numpy(tokens))
        assert there_state.tolist() == here_state.tolist()
        assert there_hit.tolist() == here_hit.tolist()
    assert there.stopped(there_state).tolist() == table.stopped(here_state).tolist()
    assert there.depth[there_state].tolist() == table.depth[here_state].tolist()
    assert table.to("cpu").text([3, 1, 4]) == table.text([3, 1, 4])


def test_token_ids_and_states_out_of_range_are_named():
    table = kmp.TokenStopTable(["ab"], VOCABULARY)
    with pytest.raises(InputError, match=r"row 1: token id 9 with state 0; ids must be in 0\.\.8"):
        table.step(table.start(2), np.array([0, 9]))
    with pytest.raises(InputError, match="token id -1"):
        table.step(table.start(1), np.array([-1]))
    with pytest.raises(InputError, match=r"state 3; .* states in 0\.\.2"):
        table.step(np.array([3]), np.array([0]))
    with pytest.raises(InputError, match="token id 9 at position 1 is outside"):
        table.text([0, 9])


def test_state_and_tokens_must_have_one_shape():
    table = kmp.TokenStopTable(["ab"], VOCABULARY)
    step = type(table).step.__wrapped__  # past the annotations, which stand before it in tests
    with pytest.raises(ShapeError, match=r"state \(2,\) and tokens \(3,\)"):
        step(table, table.start(2), np.array([0, 0, 0]))


@pytest.mark.parametrize(
    ("stops", "vocabulary", "error", "message"),
    [
        ([""], VOCABULARY, InputError, "stop must not be empty"),
        ("ab", VOCABULARY, TypeError, "stops must be a list"),
        (["ab"], [], InputError, "the vocabulary is empty"),
    ],
)
def test_bad_tables_are_named(stops, vocabulary, error, message):
    with pytest.raises(error, match=message):
        kmp.TokenStopTable(stops, vocabulary)


def test_a_vocabulary_of_text_is_refused():
    make = kmp.TokenStopTable.__init__.__wrapped__
    with pytest.raises(TypeError, match="token 1 is str, expected bytes"):
        make(object.__new__(kmp.TokenStopTable), ["ab"], [b"a", "b"])


def test_tables_that_are_too_large_are_refused():
    with pytest.raises(MemoryError, match="3 states and 9 tokens take 108 bytes, max_bytes is 100"):
        kmp.TokenStopTable(["ab"], VOCABULARY, max_bytes=100)


def test_a_token_of_many_bytes_needs_wide_entries():
    table = kmp.TokenStopTable(["ab"], [b"x" * 40_000 + b"ab", b"a"])
    assert table.step(table.start(1), np.array([0]))[1].tolist() == [40_002]


def test_a_stop_of_thousands_of_bytes_has_a_table():
    stop = bytes(range(256)) * 8
    table = kmp.TokenStopTable([stop], [stop[:-1], stop[-1:], b"x"])
    state, _ = table.step(table.start(2), np.array([0, 0]))
    assert table.depth[state].tolist() == [2047, 2047]
    assert table.step(state, np.array([1, 2]))[1].tolist() == [1, -1]
