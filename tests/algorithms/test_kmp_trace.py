"""Traces compare exactly as often as they say, and never more than the theory allows."""

import itertools

import pytest

from dodona.algorithms import kmp
from dodona.errors import InputError
from dodona.oracles import strings


class Symbol:
    """A letter that counts how often it is compared."""

    def __init__(self, letter: str, counter: list[int]):
        self.letter, self.counter = letter, counter

    def __eq__(self, other: object) -> bool:
        self.counter[0] += 1
        return self.letter == (other.letter if isinstance(other, Symbol) else other)


def _words(alphabet: str, longest: int) -> list[str]:
    return [
        "".join(w) for n in range(1, longest + 1) for w in itertools.product(alphabet, repeat=n)
    ]


@pytest.mark.parametrize("failure", ["prefix", "strong", "none"])
def test_every_search_finds_the_same_occurrences(failure):
    for p in _words("ab", 3):
        for t in _words("ab", 5):
            assert list(kmp.trace_search(t, p, failure=failure).starts) == strings.occurrences(t, p)


@pytest.mark.parametrize("failure", ["prefix", "strong"])
def test_a_text_of_n_symbols_takes_at_most_2n_minus_1_comparisons(failure):
    n, worst = 6, 0
    for p in _words("ab", 4):
        for t in map("".join, itertools.product("ab", repeat=n)):
            worst = max(worst, len(kmp.trace_search(t, p, failure=failure).comparisons))
    assert worst == 2 * n - 1


@pytest.mark.parametrize("failure", ["prefix", "strong"])
def test_the_bound_is_attained_at_every_length(failure):
    for n in (1, 9, 50):
        assert len(kmp.trace_search("a" * n, "ab", failure=failure).comparisons) == 2 * n - 1


@pytest.mark.parametrize("failure", ["prefix", "strong", "none"])
def test_a_trace_holds_every_comparison_that_was_made(failure):
    for p, t in itertools.product(["ab", "aab", "abab", "aaa"], ["aabaabab", "bbbb", "aaaaaaaa"]):
        counter = [0]
        text = [Symbol(c, counter) for c in t]
        trace = kmp.trace_search(text, p, failure=failure)
        assert counter[0] == len(trace.comparisons)
        assert all(c.equal == (p[c.k] == t[c.i]) for c in trace.comparisons)


def test_a_prefix_function_takes_at_most_2m_minus_2_comparisons():
    for p in [*_words("ab", 7), *_words("abc", 4)]:
        trace = kmp.trace_prefix(p)
        assert list(trace.states) == strings.prefix_function(p)
        assert len(trace.comparisons) <= 2 * (len(p) - 1)


def test_the_text_is_never_read_backwards():
    trace = kmp.trace_search("abababcababab", "ababc")
    places = [c.i for c in trace.comparisons]
    assert places == sorted(places)


def test_the_naive_search_compares_every_start_in_full():
    n, m = 40, 7
    naive = kmp.trace_search("a" * n, "a" * (m - 1) + "b", failure="none")
    assert len(naive.comparisons) == (n - m + 1) * m


def _longest_chain(p: str, failure: str) -> int:
    """Most comparisons that one foreign symbol costs, over all states."""
    chains = []
    for k in range(1, len(p)):
        trace = kmp.trace_search(p[:k] + "c", p, failure=failure)
        chains.append(sum(c.i == k for c in trace.comparisons))
    return max(chains)


def test_strong_failures_shorten_the_worst_chain():
    assert _longest_chain("a" * 20, "prefix") == 20
    assert _longest_chain("a" * 20, "strong") == 1
    # Fibonacci words are the worst case of the strong function: one comparison more for each of them
    assert [_longest_chain(w, "strong") for w in ("abaab", "abaababa", "abaababaabaab")] == [
        3,
        4,
        5,
    ]


def test_an_empty_pattern_is_an_error():
    with pytest.raises(InputError, match="pattern must not be empty"):
        kmp.trace_search("abc", "")
    assert kmp.trace_prefix("").states == ()
