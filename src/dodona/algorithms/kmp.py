"""Knuth-Morris-Pratt: every occurrence of a pattern in one pass, no symbol read twice.

A state k says that the last k symbols read are the longest beginning of the pattern that ends there;
it is all that a search has to remember, so a text may come in pieces. This module also offers the
public names of its siblings: borders, several patterns, stop strings, repetition, traces.

Source: Knuth, Morris & Pratt, "Fast pattern matching in strings", SIAM J. Comput. 6(2), 1977.
Not here: approximate matching, regular expressions.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from dodona.algorithms._machine import MAX_BYTES, Machine
from dodona.algorithms._machine_kernels import keep_apart
from dodona.algorithms._symbols import Text, kind_of, require_same_kind
from dodona.algorithms.aho_corasick import AhoCorasick, AhoCorasickStream
from dodona.algorithms.borders import (
    borders,
    exponent,
    next_table,
    periods,
    prefix_counts,
    prefix_from_z,
    prefix_function,
    strong_failure,
    z_from_prefix,
    z_function,
)
from dodona.algorithms.kmp_trace import Comparison, Trace, trace_prefix, trace_search
from dodona.algorithms.repeats import RepeatDetector
from dodona.algorithms.stopping import StopEvent, StopMatcher, TokenStopTable

__all__ = [
    "AhoCorasick",
    "AhoCorasickStream",
    "Comparison",
    "KMPStream",
    "RepeatDetector",
    "StopEvent",
    "StopMatcher",
    "TokenStopTable",
    "Trace",
    "automaton",
    "borders",
    "exponent",
    "find",
    "find_all",
    "next_table",
    "periods",
    "prefix_counts",
    "prefix_from_z",
    "prefix_function",
    "strong_failure",
    "trace_prefix",
    "trace_search",
    "z_from_prefix",
    "z_function",
]

NO_PAIRS = np.empty((0, 2), dtype=np.int64)


def automaton(
    p: Text, alphabet: Text | int, *, max_bytes: int = MAX_BYTES
) -> Int32[np.ndarray, "states A"]:
    """The matching automaton as a table: one look-up per symbol, no failure links.

    delta(s, c) = s + 1 if s < m and p_s = c, else delta(pi_{s-1}, c), and 0 from state 0.

    >>> automaton("aba", "ab").tolist()
    [[1, 0], [1, 2], [3, 0], [1, 2]]

    Args:
        p: str, bytes or 1-D array of integers, not empty.
        alphabet: the symbols of the columns, of the kind of p, each once; or a number A for the
            codes 0..A-1 (256 for bytes).
        max_bytes: largest table allowed. A row takes 4 bytes a symbol: 1 KiB for bytes.
    Returns: [m + 1, A]; state m is an occurrence.
    Raises:
        InputError: an empty pattern, a symbol of it that the alphabet lacks, or one given twice.
        TypeError: kinds that differ.  MemoryError: a table above max_bytes.
    Source: Knuth, Morris & Pratt 1977.  Oracle: oracles.strings.automaton.
    Cost: O(m A).
    """
    return Machine.of([p]).table(alphabet, max_bytes=max_bytes)


def find(t: Text, p: Text) -> int:
    """The first occurrence of p in t, -1 if there is none.

    For str and bytes this *is* the built-in ``find`` (Two-Way with a vectorised scan), which is the
    right tool for one pattern that is looked for once; the automaton serves token arrays.

    >>> find("hello there hero!", "her"), find([5, 7, 7, 9], [7, 9])
    (7, 2)

    Args: t, p: str, bytes or 1-D arrays of integers, both of one kind. An empty p is found at 0.
    Returns: where it starts, in symbols.
    Raises: TypeError: kinds that differ, tokens that are not 1-D integers.
    Source: Crochemore & Perrin, JACM 38(3), 1991, in CPython.  Oracle: oracles.strings.occurrences.
    Cost: O(n + m).
    """
    kind = kind_of(p)
    require_same_kind(t, kind)
    if kind == "tokens":
        if len(p) == 0:
            return 0
        machine = Machine.of([p])
        end, _ = machine.first_hit(machine.codes(t))
        return end - len(p) if end >= 0 else -1
    return (bytes(t) if isinstance(t, memoryview) else t).find(p)


def find_all(t: Text, p: Text, *, overlap: bool = True) -> Int64[np.ndarray, "k"]:
    """Where p occurs in t, in order.

    >>> find_all("aaaa", "aa").tolist(), find_all("aaaa", "aa", overlap=False).tolist()
    ([0, 1, 2], [0, 2])

    Args:
        t, p: str, bytes or 1-D arrays of integers, both of one kind; p not empty.
        overlap: after an occurrence go on with its border (True) or with nothing (False).
    Returns: [k] starts, in symbols.
    Raises: InputError: an empty pattern.  TypeError: kinds that differ, tokens that are not 1-D integers.
    Source: Knuth, Morris & Pratt 1977.  Oracle: oracles.strings.occurrences.
    Cost: O(n + m), one look-up per symbol; texts above some MB use several threads. A loop over the
        built-in find is faster where occurrences are rare, slower on repetitive texts, and O(n m)
        for overlaps like those of a^m in a^n.
    """
    return KMPStream(p, overlap=overlap).feed(t)[:, 0]


class KMPStream:
    """One pattern in a text that comes in pieces; where the pieces end never changes the answer.

    >>> stream = KMPStream("here")
    >>> [stream.feed(piece).tolist() for piece in ("the", "re he", "re")]
    [[], [[1, 5]], [[6, 10]]]

    Args:
        p: str, bytes or 1-D array of integers, not empty.
        overlap: report occurrences that overlap; else the first of them, from left to right.
    Raises: InputError: an empty pattern.  TypeError: not a text.
    Source: Knuth, Morris & Pratt 1977.
    Oracle: every chunking of every small text gives find_all of the whole.
    Cost: O(m) to build. A call costs about 3 microseconds and then a look-up per symbol, so hand over
        pieces of 4 kB and more where you can.
    """

    def __init__(self, p: Text, *, overlap: bool = True):
        self._machine = Machine.of([p])
        self._overlap = overlap
        self._state, self._offset = 0, 0

    def feed(self, chunk: Text) -> Int64[np.ndarray, "k 2"]:
        """Read a piece of the text.

        Args: chunk: of the pattern's kind; may be empty.
        Returns: [k, 2] start and end (exclusive) of the occurrences that end in it, counted from the
            beginning of the text.
        Raises: TypeError: a chunk of another kind.
        """
        machine = self._machine
        codes = machine.codes(chunk)
        begin, self._offset = self._offset, self._offset + len(codes)
        ends, _, self._state = machine.hits(codes, self._state)
        if not len(ends):
            return NO_PAIRS
        if not self._overlap:
            ends = ends[: keep_apart(ends, machine.longest)]
            self._state = machine.shorten(self._state, len(codes) - int(ends[-1]))
        ends = ends + begin
        return np.stack([ends - machine.longest, ends], axis=1)

    def state(self) -> tuple[int, int]:
        """(symbols matched, symbols read): all that a continuation needs."""
        return self._state, self._offset

    def restore(self, state: Sequence[int]) -> None:
        """Go on from a state of a stream with the same pattern.  Raises: InputError: not one."""
        self._state, self._offset = self._machine.checked(state)
