"""Many patterns in one pass: the trie of all of them with failure links, by Aho and Corasick.

The state behind each symbol is the longest suffix of the text that is a beginning of some pattern. What
counts as a match among those that overlap is a choice with four names, and all of them work on a text
in pieces with the same two numbers as state.

Source: Aho & Corasick, "Efficient string matching", CACM 18(6), 1975. Names of the kinds as in the
field's libraries.
Not here: stop strings while text is generated (stopping.py).
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int32, Int64

from dodona.algorithms._machine import MAX_BYTES, Machine
from dodona.algorithms._machine_kernels import (
    count_outputs,
    keep_leftmost,
    list_earliest,
    list_outputs,
)
from dodona.algorithms._symbols import Text
from dodona.errors import InputError, nearest

Kind = Literal["all", "earliest_end", "leftmost_first", "leftmost_longest"]
NO_MATCHES = np.empty((0, 3), dtype=np.int64)


class AhoCorasick:
    """Several patterns as one automaton.

    >>> AhoCorasick(["he", "her", "here"]).find_all("here").tolist()
    [[0, 0, 2], [1, 0, 3], [2, 0, 4]]
    >>> AhoCorasick(["he", "her", "here"], kind="leftmost_longest").find_all("he here").tolist()
    [[0, 0, 2], [2, 3, 7]]

    Args:
        patterns: str, bytes or 1-D arrays of integers, all of one kind, none empty. Of equal patterns
            the first is reported.
        kind: which matches count.
            "all": every occurrence of every pattern, by end, the longest first.
            "earliest_end": what ends first, of those the longest; the next starts behind it.
            "leftmost_first": what starts first, of those the first in the list; likewise.
            "leftmost_longest": what starts first, of those the longest; likewise.
    Raises:
        InputError: no pattern, an empty one, an unknown kind.  TypeError: kinds of text that differ.
    Source: Aho & Corasick 1975.  Oracle: oracles.strings.matches.
    Cost: O(sum of lengths) to build, plus a sort of the patterns. Above 128 MB of transitions the
        search uses failure links.
    """

    def __init__(self, patterns: Sequence[Text], *, kind: Kind = "all"):
        if kind not in get_args(Kind):
            raise InputError(f"unknown kind '{kind}'. {nearest(str(kind), get_args(Kind))}")
        self.kind = kind
        self._machine = Machine.of(patterns)

    @property
    def patterns(self) -> tuple[Any, ...]:
        """As they were given."""
        return self._machine.patterns

    @property
    def num_states(self) -> int:
        """States: different beginnings of patterns, the empty one included."""
        return self._machine.num_states

    @property
    def depth(self) -> Int32[np.ndarray, "S"]:
        """[S] length of the beginning that each state stands for."""
        return self._machine.depth

    def outputs(self, state: int) -> tuple[int, ...]:
        """The patterns that end in a state, longest first."""
        own, link = self._machine.own, self._machine.link
        found = []
        while state > 0:
            if own[state] >= 0:
                found.append(int(own[state]))
            state = int(link[state])
        return tuple(found)

    def find_all(self, t: Text) -> Int64[np.ndarray, "k 3"]:
        """The matches in a text.

        Args: t: of the patterns' kind; may be empty.
        Returns: [k, 3] rows (which, start, end): index of the pattern, and t[start:end] is it. By end
            for "all" and "earliest_end", by start for the others (which is by end, too).
        Raises: TypeError: another kind of text.
        Oracle: oracles.strings.matches.
        Cost: O(n + number of occurrences); the leftmost kinds sort the occurrences.
        """
        stream = self.stream()
        found, rest = stream.feed(t), stream.flush()
        return np.concatenate([found, rest]) if len(rest) else found

    def stream(self) -> "AhoCorasickStream":
        """A matcher for a text in pieces; streams of one automaton share its tables."""
        return AhoCorasickStream(self)

    def dfa(
        self, alphabet: Text | int | None = None, *, max_bytes: int = MAX_BYTES
    ) -> Int32[np.ndarray, "S A"]:
        """Every transition as one table; what ends in a state is ``outputs(state)``.

        Args:
            alphabet: as for kmp.automaton; None: 256 for bytes, else the symbols of the patterns in
                order and a last column for every other symbol.
            max_bytes: largest table allowed.
        Returns: [S, A] state behind every state and symbol; state 0 has matched nothing.
        Raises: InputError, TypeError: as kmp.automaton.  MemoryError: a table above max_bytes.
        Oracle: oracles.strings.longest_beginning.  Cost: O(S A).
        """
        return self._machine.table(alphabet, max_bytes=max_bytes)


class AhoCorasickStream:
    """One text in pieces: feed, then flush. Made by AhoCorasick.stream.

    For the leftmost kinds a match is reported as soon as the text read decides it: what may still
    start a longer or an earlier one waits, which is the word of the state and no more.

    Source: ours for the leftmost kinds.  Oracle: oracles.strings.matches, for every chunking.
    """

    def __init__(self, automaton: AhoCorasick):
        self._machine, self._kind = automaton._machine, automaton.kind
        self._state, self._offset = 0, 0

    def feed(self, chunk: Text) -> Int64[np.ndarray, "k 3"]:
        """Read a piece of the text.

        Returns: [k, 3] rows (which, start, end) decided by it, counted from the beginning of the text.
        Raises: TypeError: another kind of text.
        """
        machine = self._machine
        codes = machine.codes(chunk)
        if self._kind.startswith("leftmost"):
            return self._leftmost(codes, final=False)
        ends, states, state = machine.hits(codes, self._state)
        begin, self._offset = self._offset, self._offset + len(codes)
        self._state = state
        if not len(ends):
            return NO_MATCHES
        ends = ends + begin
        if self._kind == "all":
            return self._outputs(ends, states)
        found = np.empty((len(ends), 3), dtype=np.int64)
        # nothing can start before the word of the last state, which begins behind the last match
        count, free = list_earliest(
            ends, states, machine.own, machine.link, machine.lengths, 0, found
        )
        self._state = machine.shorten(state, self._offset - free)
        return found[:count]

    def flush(self) -> Int64[np.ndarray, "k 3"]:
        """The text ends here: the matches that were waiting. The stream begins a new text then."""
        waiting = NO_MATCHES
        if self._kind.startswith("leftmost"):
            waiting = self._leftmost(self._machine.codes(self._machine.word(0)), final=True)
        self._state, self._offset = 0, 0
        return waiting

    def state(self) -> tuple[int, int]:
        """(number of the state, symbols read): all that a continuation needs."""
        return self._state, self._offset

    def restore(self, state: Sequence[int]) -> None:
        """Go on from a state of a stream with the same patterns.  Raises: InputError: not one."""
        self._state, self._offset = self._machine.checked(state)

    def _outputs(self, ends: np.ndarray, states: np.ndarray) -> np.ndarray:
        m = self._machine
        found = np.empty((count_outputs(states, m.own, m.link), 3), dtype=np.int64)
        list_outputs(ends, states, m.own, m.link, m.lengths, found)
        return found

    def _leftmost(self, codes: np.ndarray, *, final: bool) -> np.ndarray:
        """Everything before the word of the state is decided, so that word is read again from its start.

        Where a state of depth d stands behind symbol i, an occurrence that starts before i - d and
        has not ended by i would make the state deeper.
        """
        machine = self._machine
        held = int(machine.depth[self._state])
        begin = self._offset - held
        if held:
            codes = np.concatenate([machine.codes(machine.word(self._state)), codes])
            codes.flags.writeable = False
        ends, states, state = machine.hits(codes)
        self._offset = begin + len(codes)
        if not len(ends):
            self._state = state
            return NO_MATCHES
        matches = self._outputs(ends + begin, states)
        preference = matches[:, 0] if self._kind == "leftmost_first" else -matches[:, 2]
        matches = matches[np.lexsort((preference, matches[:, 1]))]
        count, self._state = keep_leftmost(
            matches, self._offset, final, state, machine.depth, machine.nodes, begin
        )
        return matches[:count]
