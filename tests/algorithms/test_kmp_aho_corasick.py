"""Several patterns at once equal the union of single ones, and the kinds equal their definitions."""

import itertools
import random
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dodona.algorithms import _machine, kmp
from dodona.algorithms.aho_corasick import Kind
from dodona.errors import InputError
from dodona.oracles import strings

KINDS = get_args(Kind)


def _tuples(found: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(row) for row in found.tolist()]


def _streamed(automaton: kmp.AhoCorasick, chunks) -> list[tuple[int, ...]]:
    stream = automaton.stream()
    found = [row for chunk in chunks for row in _tuples(stream.feed(chunk))]
    return found + _tuples(stream.flush())


def test_the_worked_example():
    # end indices of the card are inclusive, ours are not
    patterns, text = ["he", "her", "here"], "he here her"
    found = kmp.AhoCorasick(patterns).find_all(text)
    assert [(patterns[w], end - 1) for w, _, end in found.tolist()] == [
        ("he", 1), ("he", 4), ("her", 5), ("here", 6), ("he", 9), ("her", 10),
    ]  # fmt: skip
    longest = kmp.AhoCorasick(patterns, kind="leftmost_longest").find_all(text)
    assert [(patterns[w], end - 1) for w, _, end in longest.tolist()] == [
        ("he", 1), ("here", 6), ("her", 10),
    ]  # fmt: skip


def test_the_example_of_the_paper():
    # Aho & Corasick 1975, fig. 1: "ushers" with he, she, his, hers
    automaton = kmp.AhoCorasick(["he", "she", "his", "hers"])
    assert automaton.num_states == 10
    assert _tuples(automaton.find_all("ushers")) == [(1, 1, 4), (0, 2, 4), (3, 2, 6)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_small_set_of_patterns_in_every_small_text(kind):
    words = ["".join(w) for n in (1, 2, 3) for w in itertools.product("ab", repeat=n)]
    texts = ["".join(w) for w in itertools.product("ab", repeat=6)]
    sets = [s for n in (1, 2) for s in itertools.permutations(words, n)]
    for patterns in random.Random(0).sample(sets, 60):
        for t in ("|".join(texts[i : i + 4]) for i in range(0, len(texts), 4)):
            found = _tuples(kmp.AhoCorasick(patterns, kind=kind).find_all(t))
            assert found == strings.matches(t, patterns, kind), (patterns, t)


@pytest.mark.parametrize("kind", KINDS)
@given(
    st.lists(st.text(alphabet="ab", min_size=1, max_size=5), min_size=1, max_size=5),
    st.lists(st.text(alphabet="ab", max_size=6), max_size=5),
)
def test_no_chunking_changes_the_matches(kind, patterns, chunks):
    automaton = kmp.AhoCorasick(patterns, kind=kind)
    assert _streamed(automaton, chunks) == strings.matches("".join(chunks), patterns, kind)


def test_a_match_that_shortens_the_state_decides_the_next_one():
    # behind "...aab|bbaa" the word "bbaa" waits; the match of "aab" takes its first b, so what waits is
    # "aa" and the single b before it is decided, too
    automaton = kmp.AhoCorasick(["b", "aab", "bbaa"], kind="leftmost_first")
    text = "aabbbaa"
    for cut in range(len(text)):
        assert _streamed(automaton, [text[:cut], text[cut:]]) == strings.matches(
            text, ["b", "aab", "bbaa"], "leftmost_first"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_restores_in_the_middle_of_a_match(kind):
    patterns, text = ["ab", "abcd", "bc", "cdab"], "xabcabcdabcx"
    automaton = kmp.AhoCorasick(patterns, kind=kind)
    for cut in range(len(text)):
        first, second = automaton.stream(), automaton.stream()
        begun = _tuples(first.feed(text[:cut]))
        second.restore(first.state())
        rest = _tuples(second.feed(text[cut:])) + _tuples(second.flush())
        assert begun + rest == strings.matches(text, patterns, kind)


def test_all_is_the_union_of_the_single_patterns():
    rng = random.Random(3)
    text = "".join(rng.choice("abc") for _ in range(500))
    patterns = list(
        {"".join(rng.choice("abc") for _ in range(rng.randint(1, 6))) for _ in range(40)}
    )
    found = set(_tuples(kmp.AhoCorasick(patterns).find_all(text)))
    assert found == {
        (which, start, start + len(p))
        for which, p in enumerate(patterns)
        for start in kmp.find_all(text, p).tolist()
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text_kind", ["str", "bytes", "tokens"])
def test_lanes_threads_and_failure_links_agree(monkeypatch, kind, text_kind):
    rng = random.Random(5)
    convert = {"str": str, "bytes": str.encode, "tokens": lambda s: np.array([ord(c) for c in s])}[
        text_kind
    ]
    text = convert("".join(rng.choice("aabc") for _ in range(9000)))
    patterns = [
        convert("".join(rng.choice("abc") for _ in range(rng.randint(1, 9)))) for _ in range(30)
    ]
    automaton = kmp.AhoCorasick(patterns, kind=kind)
    assert automaton._machine.tabulated
    plain = automaton.find_all(text)
    assert len(plain) > 300
    pieces = [text[i : i + 40] for i in range(0, 9000, 40)]  # too short for lanes
    assert _streamed(automaton, pieces) == _tuples(plain)
    monkeypatch.setattr(_machine, "STRETCH", 2000)
    monkeypatch.setattr(_machine, "BLOCK", 700)
    monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", 4)
    np.testing.assert_array_equal(automaton.find_all(text), plain)
    monkeypatch.setattr(_machine, "TABLE_BYTES", 1000)
    for room in (1, 200, 1000):
        monkeypatch.setattr(_machine, "ROWS_BYTES", room)
        links = kmp.AhoCorasick(patterns, kind=kind)
        assert not links._machine.tabulated
        np.testing.assert_array_equal(links.find_all(text), plain)


def test_a_dictionary_of_many_words_is_searched_by_failure_links(monkeypatch):
    monkeypatch.setattr(_machine, "TABLE_BYTES", 1 << 12)
    rng = np.random.default_rng(0)
    patterns = [rng.integers(0, 400, rng.integers(2, 5)) for _ in range(3000)]
    text = np.concatenate([np.concatenate([p, [999]]) for p in patterns[:500]])
    found = kmp.AhoCorasick(patterns).find_all(text)
    at, spans = 0, {(int(s), int(e)) for _, s, e in found}
    for p in patterns[:500]:
        assert (at, at + len(p)) in spans
        at += len(p) + 1
    assert all((text[s:e] == patterns[w]).all() for w, s, e in found.tolist())


def test_of_equal_patterns_the_first_is_reported():
    for kind in KINDS:
        assert _tuples(kmp.AhoCorasick(["ab", "c", "ab"], kind=kind).find_all("ab")) == [(0, 0, 2)]


def test_every_row_of_the_table_is_the_longest_beginning():
    patterns = ["aba", "bb", "abba", "b"]
    automaton = kmp.AhoCorasick(patterns)
    table, words = automaton.dfa("abx"), {0: ""}
    for state in range(automaton.num_states):  # breadth first: a word is known before its children
        for column, c in enumerate("abx"):
            word = words[state] + c
            length = strings.longest_beginning(word, patterns)
            reached = int(table[state, column])
            assert automaton.depth[reached] == length
            assert (
                words.setdefault(reached, word[len(word) - length :]) == word[len(word) - length :]
            )
    assert len(words) == automaton.num_states
    for state, word in words.items():
        ending = [w for w, p in enumerate(patterns) if word.endswith(p)]
        assert sorted(automaton.outputs(state)) == ending
    np.testing.assert_array_equal(automaton.dfa(), table)  # a, b, and any other symbol


def test_the_table_of_one_pattern_is_that_of_kmp():
    np.testing.assert_array_equal(kmp.AhoCorasick([b"abab"]).dfa(), kmp.automaton(b"abab", 256))


@pytest.mark.parametrize(
    ("patterns", "error", "message"),
    [
        ([], InputError, "at least one pattern is needed"),
        (["a", ""], InputError, r"pattern must not be empty \(index 1\)"),
        (["a", b"a"], TypeError, "pattern 1 is bytes and pattern 0 is str"),
        ("abc", TypeError, r"patterns must be a list, got one str.*Write \[pattern\]"),
    ],
)
def test_bad_patterns_are_named(patterns, error, message):
    with pytest.raises(error, match=message):
        kmp.AhoCorasick(patterns)


def test_an_unknown_kind_names_the_nearest():
    from dodona.algorithms.aho_corasick import AhoCorasick

    check = AhoCorasick.__init__.__wrapped__  # past the annotation, which stands before it in tests
    with pytest.raises(InputError, match="unknown kind 'leftmost_long'.*'leftmost_longest'"):
        check(object.__new__(AhoCorasick), ["a"], kind="leftmost_long")


def test_a_text_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="text is bytes and pattern is str"):
        kmp.AhoCorasick(["a"]).find_all(b"a")


def test_a_table_that_is_too_large_is_refused():
    with pytest.raises(MemoryError, match="3 states and 256 symbols takes 3072 bytes"):
        kmp.AhoCorasick([b"ab"]).dfa(max_bytes=1000)


def test_a_foreign_state_is_refused():
    with pytest.raises(InputError, match="number below 3"):
        kmp.AhoCorasick(["ab"]).stream().restore((3, 10))
