"""Matching against definitions: every small word, every chunking, every state and token."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from dodona.algorithms import kmp
from dodona.checks.kmp_bugs import MUTANTS, VOCABULARY
from dodona.core.protocols import Check
from dodona.oracles import strings

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    "prefix_function": kmp.prefix_function,
    "next_table": kmp.next_table,
    "strong_failure": kmp.strong_failure,
    "borders": kmp.borders,
    "periods": kmp.periods,
    "exponent": kmp.exponent,
    "z_function": kmp.z_function,
    "z_from_prefix": kmp.z_from_prefix,
    "prefix_from_z": kmp.prefix_from_z,
    "prefix_counts": kmp.prefix_counts,
    "automaton": kmp.automaton,
    "find": kmp.find,
    "find_all": kmp.find_all,
    "trace_search": kmp.trace_search,
    "KMPStream": kmp.KMPStream,
    "AhoCorasick": kmp.AhoCorasick,
    "StopMatcher": kmp.StopMatcher,
    "TokenStopTable": kmp.TokenStopTable,
    "RepeatDetector": kmp.RepeatDetector,
}
__all__ = ["MUTANTS", "SUBJECTS", "run"]
KINDS = ("all", "earliest_end", "leftmost_first", "leftmost_longest")


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` goes to the lengths of the card.

    Groups with a replaced subject come first, so that a known bug is caught before the rest has run.
    """
    replaced = {name for name, function in SUBJECTS.items() if subjects[name] is not function}
    for group in sorted(GROUPS, key=lambda group: not replaced & set(GROUPS[group])):
        yield from group(subjects, full)


def _tables(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    words = _words("ab", 9 if full else 6) + _words("abc", 6 if full else 3)
    # KMP 1977 prints next[j] of abcabcacab, counted from 1
    paper = [j - 1 for j in (0, 1, 1, 0, 1, 1, 0, 5, 0, 1)]
    got = subjects["strong_failure"]("abcabcacab").tolist()[:-1]
    yield _agree("the table of the paper", [(got, paper)], source="Knuth, Morris & Pratt 1977")
    for word, expected in (("aabaabaaa", "010123452"), ("aabcdaabc", "010001234")):
        got = "".join(map(str, subjects["prefix_function"](word)))
        yield _agree(f"prefix function of {word}", [(got, expected)], source="card kmp")
    for name in (
        "prefix_function",
        "next_table",
        "strong_failure",
        "borders",
        "periods",
        "z_function",
    ):
        truth = getattr(strings, name)
        cases = ((subjects[name](w).tolist(), truth(w)) for w in words)
        yield _agree(f"{name}, {len(words)} words", cases)
    cases = ((subjects["exponent"](w), strings.exponent(w)) for w in words)
    yield _agree(f"exponent, {len(words)} words", cases)
    for name, source, target in (
        ("z_from_prefix", strings.prefix_function, strings.z_function),
        ("prefix_from_z", strings.z_function, strings.prefix_function),
    ):
        cases = ((subjects[name](np.array(source(w))).tolist(), target(w)) for w in words)
        yield _agree(f"{name}, {len(words)} words", cases)
    cases = (
        (subjects["automaton"](w, "abc").tolist(), strings.automaton(w, "abc"))
        for w in words
        if len(w) <= 5
    )
    yield _agree("automaton, words up to 5", cases)


def _searches(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    pattern, text = (5, 10) if full else (4, 7)
    patterns, texts = _words("ab", pattern), ["", *_words("ab", text)]
    whole = "|".join(texts)  # a foreign symbol between two texts is a new beginning
    for overlap in (True, False):
        cases = (
            (subjects["find_all"](whole, p, overlap=overlap).tolist(), strings.occurrences(whole, p, overlap=overlap))
            for p in patterns
        )  # fmt: skip
        size = f"{len(patterns)} patterns, {len(texts)} texts"
        yield _agree(f"find_all, overlap {overlap}, {size}", cases)
    counts = (
        (subjects["prefix_counts"](whole, p).tolist(), [len(strings.occurrences(whole, p[: k + 1])) for k in range(len(p))])
        for p in patterns
        if len(p) == pattern
    )  # fmt: skip
    yield _agree("counts of prefixes", counts)
    firsts = (
        (subjects["find"](t, q), next(iter(strings.occurrences(t, q)), -1))
        for p in [*_words("ab", 3), ""]
        for s in texts[:: max(1, len(texts) // 40)]
        for t, q in ((s, p), (tuple(s.encode()), tuple(p.encode())))
    )
    yield _agree("find, characters and tokens", firsts)
    some = ["a" * 9, *texts[:: max(1, len(texts) // 60)]]
    for failure in ("prefix", "strong", "none"):
        traces = [
            (t, p, subjects["trace_search"](t, p, failure=failure)) for t in some for p in patterns
        ]
        cases = ((list(trace.starts), strings.occurrences(t, p)) for t, p, trace in traces)
        yield _agree(f"trace of the search, failure {failure}", cases)
        if failure != "none":
            worst = max(len(trace.comparisons) - 2 * len(t) + 1 for t, _, trace in traces if t)
            yield _agree(
                f"largest number of comparisons less 2 n - 1, failure {failure}",
                [(worst, 0)],
                source="theorem, attained by ab in a^n",
            )


def _streams(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    n = 9 if full else 5
    texts = ["".join(t) for t in itertools.product("ab", repeat=n)]
    for p in ("a", "aa", "aba", "abab"):
        whole = {t: [(i, i + len(p)) for i in strings.occurrences(t, p)] for t in texts}
        cases = (
            ([tuple(row) for c in chunks for row in stream.feed(c).tolist()], found)
            for t, found in whole.items()
            for chunks in _chunkings(t)
            for stream in [subjects["KMPStream"](p)]
        )
        yield _agree(f"stream for {p}, {len(texts)} texts, {2 ** (n - 1)} chunkings", cases)
    tokens = np.array([7, 8, 7, 8, 7, 9])
    stream = subjects["KMPStream"](np.array([7, 8, 7]))
    got = [tuple(row) for c in (tokens[:2], tokens[2:4], tokens[4:]) for row in stream.feed(c).tolist()]  # fmt: skip
    yield _agree("stream of tokens", [(got, [(0, 3), (2, 5)])], source="by hand")


def _several(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    num_cases = 20_000 if full else 100
    words, text = ["he", "her", "here"], "he here her"
    got = [(words[w], e - 1) for w, _, e in subjects["AhoCorasick"](words).find_all(text).tolist()]
    expected = [("he", 1), ("he", 4), ("her", 5), ("here", 6), ("he", 9), ("her", 10)]
    yield _agree("he, her, here in 'he here her'", [(got, expected)], source="card kmp")
    for kind in KINDS:
        rng = random.Random(0)

        def cases(kind: str = kind, rng: random.Random = rng) -> Iterator[tuple[Any, Any]]:
            for _ in range(num_cases):
                patterns, chunks = _drawn(rng)
                automaton, t = subjects["AhoCorasick"](patterns, kind=kind), "".join(chunks)
                truth = strings.matches(t, patterns, kind)
                yield [tuple(row) for row in automaton.find_all(t).tolist()], truth
                stream = automaton.stream()
                pieces = [*(stream.feed(c) for c in chunks), stream.flush()]
                yield [tuple(row) for piece in pieces for row in piece.tolist()], truth

        yield _agree(f"{kind}, {num_cases} random cases, whole and in chunks", cases())


def _stops(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    num_cases = 20_000 if full else 200
    got = subjects["StopMatcher"](["b", "a"]).feed("xab").text
    yield _agree("stops b, a in xab leave x", [(got, "x")], source="earliest end, card kmp")
    rng = random.Random(1)

    def cases() -> Iterator[tuple[Any, Any]]:
        for _ in range(num_cases):
            stops, chunks = _drawn(rng)
            matcher, read, shown = subjects["StopMatcher"](stops), "", ""
            for chunk in chunks:
                event = matcher.feed(chunk)
                read, shown = read + chunk, shown + event.text
                truth = strings.first_stop(read, stops)
                yield event[1:], (True, *truth) if truth else (False, None, None, None)
                if truth:
                    yield shown, read[: truth[1]]
                    break
                # exactly what may become a stop is held back, not a symbol more
                yield shown, read[: len(read) - strings.held(read, stops)]
            else:
                yield shown + matcher.flush().text, read

    yield _agree(f"stops, {num_cases} random texts in chunks", cases())


def _tokens(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    length = 5 if full else 3
    for stops in (["a"], ["aba", "bb"], ["ab", "b", "ab"], ["abab", "ba"]):
        table = subjects["TokenStopTable"](stops, VOCABULARY)
        # every row of tokens at once: other rows must not matter
        rows = np.array(list(itertools.product(range(len(VOCABULARY)), repeat=length)))
        state, seen = table.start(len(rows)), []
        for column in rows.T:
            state, hit = table.step(state, column)
            seen.append(hit)
        cases = (
            (
                [int(h) for h in hits],
                _expected_hits([VOCABULARY[token].decode() for token in row], stops),
            )
            for row, hits in zip(rows, np.transpose(seen), strict=True)
        )
        yield _agree(f"token table, stops {stops}, {len(rows)} rows", cases)


def _expected_hits(pieces: list[str], stops: list[str]) -> list[int]:
    truth = strings.first_stop("".join(pieces), stops)
    hits, begun = [], 0
    for piece in pieces:
        inside = truth is not None and begun < truth[2] <= begun + len(piece)
        hits.append(truth[2] - begun if inside else -1)
        begun += len(piece)
    return hits


def _repeats(subjects: Mapping[str, Callable[..., Any]], full: bool) -> Iterator[Check]:
    longest = 10 if full else 6
    options = {"min_repeats": 2, "min_tokens": 2, "max_period": 3}
    rows = np.array(list(itertools.product(range(3), repeat=longest)))
    detector = subjects["RepeatDetector"](**options)
    flags = np.array([detector.step(column) for column in rows.T])[-1].tolist()
    tuples = [tuple(row) for row in rows.tolist()]
    for name in ("repeats", "repeats_by_borders"):
        oracle = getattr(strings, name)
        cases = ((flag, oracle(row, **options)) for flag, row in zip(flags, tuples, strict=True))
        yield _agree(f"repetition, {len(rows)} rows against {name}", cases)


GROUPS: Mapping[Callable[..., Iterator[Check]], tuple[str, ...]] = {
    _tables: (
        "prefix_function", "next_table", "strong_failure", "borders", "periods", "exponent", "z_function",
        "z_from_prefix", "prefix_from_z", "automaton",
    ),
    _searches: ("find_all", "prefix_counts", "find", "trace_search"),
    _streams: ("KMPStream",),
    _several: ("AhoCorasick",),
    _stops: ("StopMatcher",),
    _tokens: ("TokenStopTable",),
    _repeats: ("RepeatDetector",),
}  # fmt: skip
"""Groups of checks and the subjects that each of them asks."""


# ---------------------------------------------------------------------- private
def _agree(
    name: str, cases: Iterable[tuple[Any, Any]], *, source: str = "oracles.strings"
) -> Check:
    """The number of cases in which both differ, which must be 0; shows the first of them."""
    wrong = [(got, expected) for got, expected in cases if got != expected]
    got, expected = wrong[0] if wrong else ("the same", "the same")
    return Check(
        name=name,
        got=str(got),
        expected=str(expected),
        error=float(len(wrong)),
        tolerance=0.0,
        source=source,
    )


def _words(alphabet: str, longest: int) -> list[str]:
    return [
        "".join(w) for n in range(1, longest + 1) for w in itertools.product(alphabet, repeat=n)
    ]


def _chunkings(t: str) -> Iterator[list[str]]:
    for cuts in itertools.product([False, True], repeat=len(t) - 1):
        edges = [0, *(i for i, cut in enumerate(cuts, start=1) if cut), len(t)]
        yield [t[a:b] for a, b in itertools.pairwise(edges)]


def _drawn(rng: random.Random) -> tuple[list[str], list[str]]:
    """1-4 patterns of 1-4 letters, and a text of up to 12 in chunks."""
    patterns = [
        "".join(rng.choice("ab") for _ in range(rng.randint(1, 4)))
        for _ in range(rng.randint(1, 4))
    ]
    chunks = [
        "".join(rng.choice("ab") for _ in range(rng.randint(0, 4)))
        for _ in range(rng.randint(1, 4))
    ]
    return patterns, chunks
