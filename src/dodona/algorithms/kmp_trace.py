"""Matching one comparison at a time: what pictures draw, counters count and language tasks ask for.

The algorithms as they are taught, in plain Python, over any symbols that can be compared with ``==``.
Each loop compares exactly where it records, so the length of a trace is the number of comparisons.

Source: Knuth, Morris & Pratt, SIAM J. Comput. 6(2), 1977.
Not here: speed. Use kmp.find_all.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from dodona.errors import InputError


class Comparison(NamedTuple):
    """Symbol i of the text against symbol k of the pattern, which then lies at i - k."""

    i: int
    k: int
    equal: bool


class Trace(NamedTuple):
    """Every comparison in order; states [n]: symbols matched behind each symbol; starts of occurrences."""

    comparisons: tuple[Comparison, ...]
    states: tuple[int, ...]
    starts: tuple[int, ...]


def trace_prefix(p: Sequence[Any]) -> Trace:
    """The prefix function step by step: the pattern read as a text, from its second symbol on.

    >>> trace_prefix("aabaa").states
    (0, 1, 0, 1, 2)

    Args: p: any sequence; may be empty.
    Returns: states are pi, starts is empty; at most 2 (m - 1) comparisons.
    Source: Knuth, Morris & Pratt 1977.  Oracle: oracles.strings.prefix_function.  Cost: O(m).
    """
    comparisons: list[Comparison] = []
    pi = [0] * len(p)
    for i in range(1, len(p)):
        pi[i] = _advance(p, i, p[i], pi[i - 1], [-1, *pi[:i]], comparisons)
    return Trace(tuple(comparisons), tuple(pi), ())


def trace_search(
    t: Sequence[Any],
    p: Sequence[Any],
    *,
    failure: Literal["prefix", "strong", "none"] = "prefix",
) -> Trace:
    """Every comparison of a search for all occurrences, overlaps included.

    On a mismatch at p_k the pattern moves on by k - next_k (its matched part less the border of that)
    and the text is never read again.

    >>> len(trace_search("aaaaaa", "aab").comparisons), len(trace_search("aaaaaa", "aab", failure="none").comparisons)
    (10, 12)

    Args:
        t, p: sequences of symbols; p not empty.
        failure: "prefix" falls back by next_table, "strong" by strong_failure, "none" is the naive
            search: it moves on by one and reads the text again (its states are empty).
    Returns: at most 2 n - 1 comparisons with "prefix" and "strong", (n - m + 1) m with "none".
    Raises: InputError: an empty pattern.
    Source: Knuth, Morris & Pratt 1977.
    Oracle: oracles.strings.occurrences; a symbol that counts its comparisons.  Cost: O(n + m).
    """
    m = len(p)
    if m == 0:
        raise InputError("pattern must not be empty: there is nothing to compare.")
    comparisons: list[Comparison] = []
    if failure == "none":
        starts = [i for i in range(len(t) - m + 1) if _stands(t, p, i, comparisons)]
        return Trace(tuple(comparisons), (), tuple(starts))
    fall = [-1, *trace_prefix(p).states]
    if failure == "strong":
        for j in range(1, m):  # left to right: fall[fall[j]] is final
            if p[fall[j]] == p[j]:
                fall[j] = fall[fall[j]]
    states: list[int] = []
    k = 0
    for i, symbol in enumerate(t):
        k = _advance(p, i, symbol, fall[m] if k == m else k, fall, comparisons)
        states.append(k)
    starts = [i - m + 1 for i, k in enumerate(states) if k == m]
    return Trace(tuple(comparisons), tuple(states), tuple(starts))


def _advance(
    p: Sequence[Any], i: int, symbol: Any, k: int, fall: list[int], comparisons: list[Comparison]
) -> int:
    """The state behind one more symbol, from a state k in which p_k is to be compared."""
    while k >= 0:
        equal = bool(p[k] == symbol)
        comparisons.append(Comparison(i, k, equal))
        if equal:
            return k + 1
        k = fall[k]
    return 0


def _stands(t: Sequence[Any], p: Sequence[Any], start: int, comparisons: list[Comparison]) -> bool:
    for k, symbol in enumerate(p):
        comparisons.append(Comparison(start + k, k, bool(symbol == t[start + k])))
        if not comparisons[-1].equal:
            return False
    return True
