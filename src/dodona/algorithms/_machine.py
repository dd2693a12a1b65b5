"""The machine under every matcher: all patterns in one automaton, and the fastest walk along a text.

One pattern gives the automaton of Knuth, Morris and Pratt, several that of Aho and Corasick. Where the
table of all transitions is too large, only the shallow states have a row and the others fall back along
failure links. A long text is searched by several threads, each on its own stretch.

Source: Aho & Corasick 1975, algorithms 1-4; rows for the shallow states only: ours.
Not here: which occurrences count (aho_corasick.py), what is held back (stopping.py).
"""

import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np

from dodona.algorithms._machine_kernels import (
    FAIL,
    count_levels,
    encode_rows,
    grow_trie,
    link_states,
    walk_links,
    walk_rows,
)
from dodona.algorithms._symbols import Alphabet, codes_of, join, kind_of, require_same_kind
from dodona.errors import InputError

TABLE_BYTES = 1 << 27  # of transitions that are tabulated for every state of several patterns
SINGLE_BYTES = 1 << 20  # of one pattern: its failure form is nearly as fast and made in no time
ROWS_BYTES = 1 << 18  # else only for the states that are met often: more rows would miss the caches
MAX_BYTES = 1 << 28  # of a table that a caller asks for: the default limit
BLOCK = 1 << 20  # symbols per call of a kernel: bounds the room for hits to 12 MB a thread
STRETCH = 1 << 21  # symbols per thread at least: about 1 ms, a thread takes 0.1 ms to start

NO_ENDS = np.empty(0, dtype=np.int64)
NO_STATES = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Machine:
    """Patterns as one automaton. State 0 has matched nothing; see _machine_kernels.py for the fields.

    patterns: copies.  kind: "str", "bytes" or "tokens".  lengths [N].
    nodes [S+1, 4], depth [S], own [S], link [S], witness [S].
    rows [R * classes]: transitions of the first R states.
    """

    patterns: tuple[Any, ...]
    kind: str
    alphabet: Alphabet
    lengths: np.ndarray
    nodes: np.ndarray
    depth: np.ndarray
    own: np.ndarray
    link: np.ndarray
    witness: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(
        cls, patterns: Sequence[Any], *, name: str = "pattern", table_bytes: int | None = None
    ) -> "Machine":
        """Build the automaton.

        Args: name: of a pattern in messages. table_bytes: largest table of transitions, by default
            TABLE_BYTES or SINGLE_BYTES.
        Raises:
            InputError: no pattern, or an empty one (its index is named).
            TypeError: patterns of different kinds, or of none.
        Cost: O(sum of lengths) and a sort of the patterns.
        """
        if isinstance(patterns, (str, bytes, bytearray, memoryview)):
            raise TypeError(
                f"{name}s must be a list, got one {kind_of(patterns)}: its single symbols are hardly "
                f"meant. Write [{name}]."
            )
        patterns = tuple(patterns)
        if not patterns:
            raise InputError(f"at least one {name} is needed, got none.")
        kind = kind_of(patterns[0])
        for i, pattern in enumerate(patterns):
            if kind_of(pattern) != kind:
                require_same_kind(pattern, kind, names=(f"{name} {i}", f"{name} 0"))
        if kind != "str":  # a copy: buffers may change later, what is held back must not
            patterns = tuple(map(bytes if kind == "bytes" else np.array, patterns))
        lengths = np.fromiter(map(len, patterns), dtype=np.int64, count=len(patterns))
        if not lengths.all():
            where = f" (index {int(lengths.argmin())})" if len(patterns) > 1 else ""
            raise InputError(
                f"{name} must not be empty{where}: an empty one would match everywhere."
            )
        codes = codes_of(patterns[0] if len(patterns) == 1 else join(patterns, kind))
        alphabet = Alphabet.of(codes)
        if table_bytes is None:
            table_bytes = SINGLE_BYTES if len(patterns) == 1 else TABLE_BYTES
        return cls._grown(
            patterns, kind, alphabet, lengths, alphabet.numbers(codes), table_bytes=table_bytes
        )

    @classmethod
    def _grown(
        cls,
        patterns: tuple[Any, ...],
        kind: str,
        alphabet: Alphabet,
        lengths: np.ndarray,
        numbers: np.ndarray,
        *,
        table_bytes: int,
    ) -> "Machine":
        starts = np.concatenate([[0], np.cumsum(lengths)])
        order = _sorted_order(patterns, kind, numbers, starts)
        levels = np.zeros(int(lengths.max()), dtype=np.int64)
        count_levels(numbers, starts, order, levels)
        num_states = 1 + int(levels.sum())
        fresh = 1 + np.cumsum(levels) - levels
        nodes = np.zeros((num_states + 1, 4), dtype=np.int32)
        parent, depth, link, witness = np.zeros((4, num_states), dtype=np.int32)
        own = np.full(num_states, -1, dtype=np.int32)
        grow_trie(numbers, starts, order, fresh, nodes, parent, depth, own, witness)
        size = alphabet.size
        num_rows = num_states
        if 4 * num_states * size > table_bytes:
            num_rows = min(num_states, max(1, ROWS_BYTES // (4 * size)))
        rows = np.zeros(num_rows * size, dtype=np.int32)
        link_states(nodes, parent, own, link, rows, size)
        encode_rows(nodes, rows, size if num_rows == num_states else 1)
        return cls(
            patterns=patterns, kind=kind, alphabet=alphabet, lengths=lengths, nodes=nodes, depth=depth,
            own=own, link=link, witness=witness, rows=rows,
        )  # fmt: skip

    # ------------------------------------------------------------------ facts
    @property
    def num_states(self) -> int:
        return len(self.depth)

    @cached_property
    def tabulated(self) -> bool:
        """Every state has a row."""
        return len(self.rows) == self.num_states * self.alphabet.size

    @cached_property
    def longest(self) -> int:
        """Length of the longest pattern."""
        return int(self.lengths.max())

    @cached_property
    def which(self) -> np.ndarray:
        """[S] longest pattern that ends in a state, -1 where none does."""
        return np.where(self.own >= 0, self.own, self.own[self.link])

    def word(self, state: int) -> Any:
        """The symbols that a state stands for, as a slice of a pattern."""
        return self.patterns[self.witness[state]][: int(self.depth[state])]

    def shorten(self, state: int, limit: int) -> int:
        """The longest suffix of a state's word, of at most ``limit`` symbols, that is a state."""
        while self.depth[state] > limit:
            state = int(self.nodes[state, FAIL])
        return state

    def checked(self, state: Any) -> tuple[int, int]:
        """A pair (state, symbols read) that a caller brings back.  Raises: InputError: not one of ours."""
        try:
            number, offset = map(operator.index, state)
            good = 0 <= number < self.num_states and offset >= self.depth[number]
        except (TypeError, ValueError):
            good = False
        if not good:
            raise InputError(
                f"state must be (number, symbols read) with a number below {self.num_states}, got "
                f"{state!r}. It must come from state() of a matcher with the same patterns."
            )
        return number, offset

    def codes(self, text: Any) -> np.ndarray:
        """A text as the walk reads it.  Raises: TypeError: it is not of the patterns' kind."""
        require_same_kind(text, self.kind)
        return self.alphabet.ranks(codes_of(text))

    def table(self, alphabet: Any, *, max_bytes: int) -> np.ndarray:
        """[S, A] int32: the state behind every state and symbol.  Raises: see kmp.automaton."""
        if alphabet is None and self.kind == "bytes":
            alphabet = 256
        if alphabet is None:
            columns = np.append(np.arange(1, self.alphabet.size), 0)
        else:
            columns = self.alphabet.columns(alphabet, self.kind)
        # no larger table is needed on the way: the alphabet holds every symbol of the patterns
        size = 4 * self.num_states * max(len(columns), self.alphabet.size)
        if size > max_bytes:
            raise MemoryError(
                f"the table of {self.num_states} states and {len(columns)} symbols takes {size} bytes, "
                f"max_bytes is {max_bytes}. Search with the failure form instead, which find_all, "
                "KMPStream and AhoCorasick choose by themselves, or raise max_bytes."
            )
        rows = np.zeros(self.num_states * self.alphabet.size, dtype=np.int32)
        nodes, link = self.nodes.copy(), self.link.copy()
        link_states(nodes, self._parents(), self.own, link, rows, self.alphabet.size)
        return rows.reshape(self.num_states, -1)[:, columns]

    def _parents(self) -> np.ndarray:
        children = np.diff(self.nodes[:, 0])
        parents = np.zeros(self.num_states, dtype=np.int32)
        parents[1:] = np.repeat(np.arange(self.num_states, dtype=np.int32), children)
        return parents

    # ------------------------------------------------------------------ walking
    def hits(self, codes: np.ndarray, state: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
        """(ends [k], states [k], state at the end): where patterns end, counted from 0, exclusive."""
        n = len(codes)
        if n <= BLOCK:
            ends, states = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int32)
            count, state, _ = self._walk(codes, state, False, ends, states)
            return (ends[:count], states[:count], state) if count else (NO_ENDS, NO_STATES, state)
        threads = min(numba.config.NUMBA_NUM_THREADS, n // STRETCH)
        reach = self.longest - 1
        if threads < 2 or reach > STRETCH // 16:
            return self._stretch(codes, state, 0)
        edges = np.linspace(0, n, threads + 1).astype(np.int64).tolist()

        def search(begin: int, stop: int) -> tuple[np.ndarray, np.ndarray, int]:
            if begin == 0:
                return self._stretch(codes[:stop], state, 0)
            # what ends before ``begin`` is found by the thread before
            ends, states, last = self._stretch(codes[begin - reach : stop], 0, begin - reach)
            own = np.searchsorted(ends, begin, side="right")
            return ends[own:], states[own:], last

        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(search, edges[:-1], edges[1:]))
        ends, states, last = zip(*found, strict=True)
        return np.concatenate(ends), np.concatenate(states), last[-1]

    def first_hit(self, codes: np.ndarray, state: int = 0) -> tuple[int, int]:
        """(end of the first hit or -1, state there or at the end of the text)."""
        ends, states = np.empty(1, dtype=np.int64), np.empty(1, dtype=np.int32)
        count, state, _ = self._walk(codes, state, True, ends, states)
        return (int(ends[0]) if count else -1), state

    def _stretch(
        self, codes: np.ndarray, state: int, offset: int
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Block by block through one room for hits; codes[0] stands at ``offset`` of the text."""
        ends, states = np.empty(BLOCK, dtype=np.int64), np.empty(BLOCK, dtype=np.int32)
        found = []
        for at in range(0, len(codes), BLOCK):
            count, state, _ = self._walk(codes[at : at + BLOCK], state, False, ends, states)
            found.append((ends[:count] + (offset + at), states[:count].copy()))
        return (*(np.concatenate(column) for column in zip(*found, strict=True)), state)

    def _walk(
        self, codes: np.ndarray, state: int, only_first: bool, ends: np.ndarray, states: np.ndarray
    ) -> tuple[int, int, int]:
        a, size = self.alphabet, self.alphabet.size
        if self.tabulated:
            return walk_rows(
                codes, a.low, a.classes, self.rows, size, state, self.longest - 1, only_first, ends, states
            )  # fmt: skip
        return walk_links(
            codes, a.low, a.classes, self.rows, size, self.nodes, state, only_first, ends, states
        )


def _sorted_order(
    patterns: tuple[Any, ...], kind: str, numbers: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """[N] the patterns in lexicographic order; equal ones keep their order."""
    if kind == "tokens":  # big-endian bytes sort as the numbers do
        raw = numbers.astype(">u4").tobytes()
        keys = [raw[4 * a : 4 * b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
    else:
        keys = list(patterns)
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
