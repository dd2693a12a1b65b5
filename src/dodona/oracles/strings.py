"""Matching by definition: compare slices, try everything, remember nothing.

Everything takes sequences (str, bytes, tuples) and compares their slices with ``==``. No function here
knows a failure link; most are cubic and meant for a dozen symbols.

Source: definitions.
"""

from collections.abc import Sequence
from typing import Any


# ---------------------------------------------------------------------- one pattern
def borders(p: Sequence[Any]) -> list[int]:
    """Lengths of the proper prefixes that are suffixes, longest first, without the empty one."""
    return [k for k in range(len(p) - 1, 0, -1) if p[:k] == p[len(p) - k :]]


def prefix_function(p: Sequence[Any]) -> list[int]:
    """The longest border of every prefix, by trying every length."""
    return [max(borders(p[: i + 1]), default=0) for i in range(len(p))]


def next_table(p: Sequence[Any]) -> list[int]:
    """Longest border of p[:j] for j = 0..m, and -1 for j = 0, which has not even an empty one."""
    return [-1] + [max(borders(p[:j]), default=0) for j in range(1, len(p) + 1)]


def strong_failure(p: Sequence[Any]) -> list[int]:
    """Longest border of p[:j] that p_j does not follow; -1 if there is none. Entry m as next_table."""
    m = len(p)
    found = []
    for j in range(m):
        lengths = [*borders(p[:j]), 0] if j else []
        found.append(next((k for k in lengths if p[k] != p[j]), -1))
    return [*found, next_table(p)[m] if m else -1]


def periods(p: Sequence[Any]) -> list[int]:
    """Every q in 1..m with p_i = p_{i+q} wherever both exist."""
    m = len(p)
    return [q for q in range(1, m + 1) if all(p[i] == p[i + q] for i in range(m - q))]


def exponent(p: Sequence[Any]) -> int:
    """The largest e such that p is e times its first m / e symbols."""
    m = len(p)
    return max(e for e in range(1, m + 1) if m % e == 0 and p[: m // e] * e == p)


def z_function(p: Sequence[Any]) -> list[int]:
    """Longest k with p[:k] == p[i:i+k], for every i."""
    m = len(p)
    return [max(k for k in range(m - i + 1) if p[:k] == p[i : i + k]) for i in range(m)]


def longest_beginning(word: Sequence[Any], patterns: Sequence[Sequence[Any]]) -> int:
    """Length of the longest suffix of a word that some pattern begins with."""
    return max(
        k for k in range(len(word) + 1) if any(word[len(word) - k :] == p[:k] for p in patterns)
    )


def automaton(p: Sequence[Any], alphabet: Sequence[Any]) -> list[list[int]]:
    """delta(s, c): the longest suffix of p[:s] c that p begins with. alphabet: one-symbol sequences."""
    return [[longest_beginning(p[:s] + c, [p]) for c in alphabet] for s in range(len(p) + 1)]


def occurrences(t: Sequence[Any], p: Sequence[Any], *, overlap: bool = True) -> list[int]:
    """Every i with t[i:i+m] == p; without overlap each takes its symbols, from left to right."""
    found: list[int] = []
    for i in range(len(t) - len(p) + 1):
        if t[i : i + len(p)] == p and (overlap or not found or i >= found[-1] + len(p)):
            found.append(i)
    return found


# ---------------------------------------------------------------------- several patterns
def matches(
    t: Sequence[Any], patterns: Sequence[Sequence[Any]], kind: str
) -> list[tuple[int, int, int]]:
    """(which, start, end) of every match; kinds as in aho_corasick.AhoCorasick."""
    first = {}
    for which, p in enumerate(patterns):
        first.setdefault(tuple(p), which)
    every = [
        (which, start, start + len(patterns[which]))
        for which in first.values()
        for start in occurrences(t, patterns[which])
    ]
    if kind == "all":
        return sorted(every, key=lambda m: (m[2], m[1]))
    order = {
        "earliest_end": lambda m: (m[2], m[1]),
        "leftmost_first": lambda m: (m[1], m[0]),
        "leftmost_longest": lambda m: (m[1], -m[2]),
    }[kind]
    found, free = [], 0
    while left := [m for m in every if m[1] >= free]:
        found.append(min(left, key=order))
        free = found[-1][2]
    return found


# ---------------------------------------------------------------------- stops
def first_stop(text: Sequence[Any], stops: Sequence[Sequence[Any]]) -> tuple[int, int, int] | None:
    """(which, start, end): the first prefix that ends with a stop, and the longest such stop."""
    for end in range(1, len(text) + 1):
        ending = [
            (-len(s), which) for which, s in enumerate(stops) if text[:end][-len(s) :] == s and len(s) <= end
        ]  # fmt: skip
        if ending:
            length, which = min(ending)
            return which, end + length, end
    return None


def held(text: Sequence[Any], stops: Sequence[Sequence[Any]]) -> int:
    """Length of the longest suffix that is a proper beginning of a stop."""
    return max(
        k
        for k in range(len(text) + 1)
        if any(k < len(s) and text[len(text) - k :] == s[:k] for s in stops)
    )


# ---------------------------------------------------------------------- repetition
def repeats(row: Sequence[Any], *, min_repeats: int, min_tokens: int, max_period: int) -> bool:
    """The tail repeats a block: see repeats.RepeatDetector, counted backwards for each period."""
    for p in range(1, max_period + 1):
        run = 0
        while run + p < len(row) and row[-1 - run] == row[-1 - run - p]:
            run += 1
        if run >= max((min_repeats - 1) * p, min_tokens):
            return True
    return False


def repeats_by_borders(
    row: Sequence[Any], *, min_repeats: int, min_tokens: int, max_period: int
) -> bool:
    """The same by borders: n symbols with a border of b have period n - b, and b repeat others."""
    tail = row[::-1]
    return any(
        b >= max((min_repeats - 1) * (n - b), min_tokens) and n - b <= max_period
        for n, b in enumerate(prefix_function(tail), start=1)
    )
