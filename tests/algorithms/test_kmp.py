"""Search, streams and the automaton equal the naive search, however the text is cut."""

import copy
import doctest
import importlib
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import _machine, kmp
from dodona.errors import InputError
from dodona.oracles import strings


def _words(alphabet: str, longest: int, shortest: int = 1) -> list[str]:
    return [
        "".join(w)
        for n in range(shortest, longest + 1)
        for w in itertools.product(alphabet, repeat=n)
    ]


def _starts(stream: kmp.KMPStream, chunks) -> list[int]:
    return [start for chunk in chunks for start, _ in stream.feed(chunk).tolist()]


@pytest.mark.parametrize(
    ("alphabet", "pattern", "text", "overlap"),
    [("ab", 5, 10, True), ("abc", 3, 7, True), ("ab", 5, 8, False)],
)
def test_every_small_pattern_is_found_in_every_small_text(alphabet, pattern, text, overlap):
    # a foreign symbol between two texts is a new beginning
    whole = "|".join(_words(alphabet, text, shortest=0))
    for p in _words(alphabet, pattern):
        expected = strings.occurrences(whole, p, overlap=overlap)
        assert kmp.find_all(whole, p, overlap=overlap).tolist() == expected, p


@pytest.mark.parametrize("overlap", [True, False])
def test_no_chunking_changes_the_answer(overlap):
    # a chunking is a path over the positions 0..n: when every chunk [a, b) leads from the one state at
    # a to the one state at b and reports what ends in it, all 2^(n-1) chunkings agree
    n = 6
    for p in ("a", "aa", "aba", "abab"):
        stream = kmp.KMPStream(p, overlap=overlap)
        for t in map("".join, itertools.product("ab", repeat=n)):
            truth = [i + len(p) for i in strings.occurrences(t, p, overlap=overlap)]
            states = {0: (0, 0)}
            for a, b in itertools.combinations(range(n + 1), 2):
                stream.restore(states[a])
                ends = stream.feed(t[a:b])[:, 1].tolist()
                assert ends == [end for end in truth if a < end <= b], (p, t, a, b)
                assert states.setdefault(b, stream.state()) == stream.state(), (p, t, a, b)


def test_every_row_of_the_automaton_is_the_longest_beginning():
    for p in _words("ab", 6):
        assert kmp.automaton(p, "ab").tolist() == strings.automaton(p, "ab")
    for p in _words("abc", 4):
        assert kmp.automaton(p, "cdab").tolist() == strings.automaton(p, "cdab")


def test_the_states_of_a_trace_are_a_walk_on_the_automaton():
    text, p = "abaababaabab", "abaab"
    table, state = kmp.automaton(p.encode(), 256), 0
    for c, expected in zip(text.encode(), kmp.trace_search(text, p).states, strict=True):
        state = table[state, c]
        assert state == expected


@pytest.mark.parametrize(
    "kind", ["str", "wide str", "bytes", "memoryview", "int32", "int64", "list"]
)
def test_all_kinds_of_text_give_the_same_answer(kind):
    t, p = "hello there hero!", "he"
    convert = {
        "str": str,
        "wide str": lambda s: s.translate({ord("h"): "\U0001f600", ord("e"): "é"}),
        "bytes": str.encode,
        "memoryview": lambda s: memoryview(s.encode()),
        "int32": lambda s: np.frombuffer(s.encode(), np.uint8).astype(np.int32),
        "int64": lambda s: np.array([ord(c) * 10**15 for c in s]),
        "list": lambda s: [ord(c) for c in s],
    }[kind]
    assert kmp.find_all(convert(t), convert(p)).tolist() == [0, 7, 12]
    assert kmp.find(convert(t), convert(p)) == 0
    assert kmp.find(convert(t[1:]), convert("hero")) == 11
    assert kmp.find(convert(t), convert("xyz")) == -1


def test_negative_and_distant_tokens_are_ordinary_symbols():
    t = [-5, 2**62, -(2**62), -5, 2**62, 0]
    assert kmp.find_all(t, [-5, 2**62]).tolist() == [0, 3]
    assert kmp.find_all([0, -1, 255, 256], [-1, 255]).tolist() == [1]


def test_astral_and_ascii_chunks_mix():
    stream = kmp.KMPStream("a😀b")
    assert _starts(stream, ["xa", "😀", "b a", "\ud800", "a😀b"]) == [1, 7]


@given(st.binary(max_size=30), st.binary(max_size=3))
def test_find_is_the_built_in_find(t, p):
    assert kmp.find(t, p) == t.find(p) == kmp.find(list(t), list(p))
    assert kmp.find(t.decode("latin-1"), p.decode("latin-1")) == t.find(p)


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("rows", [False, True])
def test_lanes_threads_and_failure_links_agree_with_the_built_in_search(monkeypatch, stretch, rows):
    if rows:
        monkeypatch.setattr(_machine, "SINGLE_BYTES", 40)
        monkeypatch.setattr(_machine, "ROWS_BYTES", 40)
    if stretch:
        monkeypatch.setattr(_machine, "STRETCH", 5000)
        monkeypatch.setattr(_machine, "BLOCK", 1500)
        monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", 3)
    rng = np.random.default_rng(0)
    t = bytes(rng.choice(np.frombuffer(b"aab", np.uint8), 40_000))
    for p in (b"a", b"ab", b"aabaab", b"abaabaaabaab", t[17:60], b"z" + t[:9]):
        expected, at = [], t.find(p)
        while at >= 0:
            expected.append(at)
            at = t.find(p, at + 1)
        assert kmp.find_all(t, p).tolist() == expected
        stream = kmp.KMPStream(p)
        chunks = [t[a : a + 7919] for a in range(0, len(t), 7919)]
        assert _starts(stream, chunks) == expected


def test_a_pattern_as_long_as_its_text_is_found():
    t = "ab" * 3000
    assert kmp.find_all(t, t).tolist() == [0]
    assert kmp.find_all(t, t[2:]).tolist() == [0, 2]
    assert kmp.find_all(t[1:], t).tolist() == []


def test_a_long_pattern_of_many_symbols_needs_no_table():
    rng = np.random.default_rng(1)
    p = rng.integers(0, 5000, 4000)
    t = np.concatenate([p[:3999], p, p[:10], p])
    assert kmp.find_all(t, p).tolist() == [3999, 8009]


def test_the_state_restores_in_the_middle_of_a_match():
    for p in ("aab", "abab"):
        for cut in range(1, 9):
            t = "abababaab"
            first, second = kmp.KMPStream(p), kmp.KMPStream(p)
            begun = first.feed(t[:cut]).tolist()
            state = first.state()
            assert all(isinstance(number, int) for number in state)
            second.restore(state)
            assert begun + second.feed(t[cut:]).tolist() == kmp.KMPStream(p).feed(t).tolist()


def test_a_copy_goes_its_own_way_and_a_stream_survives_pickling():
    stream = kmp.KMPStream("abc")
    stream.feed("xab")
    twin, sent = copy.copy(stream), pickle.loads(pickle.dumps(stream))
    assert stream.feed("d").tolist() == []
    assert twin.feed("c").tolist() == sent.feed("c").tolist() == [[1, 4]]


def test_an_empty_pattern_is_found_at_once_or_is_an_error():
    assert kmp.find("abc", "") == kmp.find([1, 2], []) == kmp.find(b"", b"") == 0
    for call in (
        lambda: kmp.find_all("abc", ""),
        lambda: kmp.KMPStream(b""),
        lambda: kmp.automaton([], 3),
    ):
        with pytest.raises(InputError, match="pattern must not be empty"):
            call()


def test_an_empty_text_holds_nothing():
    assert kmp.find_all("", "a").tolist() == []
    assert kmp.find("", "a") == kmp.find([], [1]) == -1
    assert kmp.find_all(np.array([], dtype=np.int32), [3]).tolist() == []


@pytest.mark.parametrize(
    ("t", "p", "message"),
    [
        ("abc", b"a", "text is str and pattern is bytes"),
        (b"abc", [97], "text is bytes and pattern is tokens"),
        ([1, 2], "a", "text is tokens and pattern is str"),
    ],
)
def test_mixed_kinds_are_named(t, p, message):
    with pytest.raises(TypeError, match=message):
        kmp.find(t, p)
    with pytest.raises(TypeError, match=message):
        kmp.find_all(t, p)


def test_an_alphabet_must_hold_the_pattern_once():
    with pytest.raises(InputError, match="'c', which is not in the alphabet of 2 symbols"):
        kmp.automaton("abc", "ab")
    with pytest.raises(InputError, match="token 7, which is not in the alphabet of 5 symbols"):
        kmp.automaton([1, 7], 5)
    with pytest.raises(InputError, match="the alphabet holds byte 97 twice"):
        kmp.automaton(b"a", b"aba")
    with pytest.raises(TypeError, match="alphabet is bytes and pattern is str"):
        kmp.automaton("a", b"a")


def test_a_table_that_is_too_large_says_how_large():
    with pytest.raises(MemoryError, match="takes 4400 bytes, max_bytes is 4000.*failure form"):
        kmp.automaton([1] * 10, 100, max_bytes=4000)


@pytest.mark.parametrize("state", [(9, 9), (-1, 0), (2, 1), (0,), [], [0, -1]])
def test_a_foreign_state_is_refused(state):
    with pytest.raises(InputError, match="state must be"):
        kmp.KMPStream("abc").restore(state)


@pytest.mark.parametrize(
    "name", ["kmp", "kmp_trace", "borders", "aho_corasick", "stopping", "repeats"]
)
def test_the_examples_of_the_documentation_hold(name):
    module = importlib.import_module(f"dodona.algorithms.{name}")
    outcome = doctest.testmod(module, extraglobs={"np": np})
    assert outcome.attempted > 0
    assert outcome.failed == 0
