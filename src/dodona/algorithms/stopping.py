"""Stop strings while text is generated: exact, for text in pieces and for token ids in a batch.

Generation stops at the smallest end over all stop strings; of those that end there the longest counts.
Text that may still become a stop is held back, and only that: the longest suffix of the output that is
a proper beginning of a stop, which is the depth of the automaton's state. One string has many
tokenisations, so stops are matched on bytes and never on token ids.

Source: Aho & Corasick 1975; the table over a vocabulary: ours.
Not here: end-of-sequence token ids, which the engine compares itself.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Integer

from dodona.algorithms._machine import MAX_BYTES, Machine
from dodona.algorithms._stop_kernels import fill_token_table, step_batch
from dodona.algorithms._symbols import Text, codes_of, join
from dodona.errors import InputError, ShapeError


class StopEvent(NamedTuple):
    """What may be shown now, and whether the text has stopped.

    text: new output that no stop can take back.
    which, start, end: the stop that was found and where it stands, in symbols from the beginning of
        the text; None while there is none. ``which`` is the first of equal stops.
    """

    text: Any
    stopped: bool = False
    which: int | None = None
    start: int | None = None
    end: int | None = None


class StopMatcher:
    """Several stop strings in one text that comes in pieces.

    >>> matcher = StopMatcher(["</s>", "\\n\\nQ:"])
    >>> matcher.feed("42 <"), matcher.feed("/b></s> and more").text
    (StopEvent(text='42 ', stopped=False, which=None, start=None, end=None), '</b>')

    Args:
        stops: str, bytes or 1-D arrays of integers, all of one kind, none empty.
        include_stop: the output ends behind the stop (True) or before it (False).
    Raises: InputError: no stop, or an empty one.  TypeError: stops of different kinds.
    Source: Aho & Corasick 1975.  Oracle: oracles.strings.first_stop and held.
    Cost: O(sum of lengths) to build; about 4 microseconds a call and a look-up per symbol. The state is
        two integers: ``copy.copy(matcher)`` for a beam shares the tables.
    """

    def __init__(self, stops: Sequence[Text], *, include_stop: bool = False):
        self._machine = Machine.of(stops, name="stop")
        self.include_stop = include_stop
        self._state, self._offset = 0, 0

    @property
    def stopped(self) -> bool:
        """A stop was found."""
        return bool(self._machine.which[self._state] >= 0)

    @property
    def held(self) -> Any:
        """Text that was read and not given out: a proper beginning of a stop."""
        return self._machine.word(0 if self.stopped else self._state)

    def feed(self, chunk: Text) -> StopEvent:
        """Read a piece of the text.

        Args: chunk: of the stops' kind; may be empty. Bytes need not be whole characters.
        Returns: the text that is now certain. After a stop the rest of the chunk is dropped.
        Raises: RuntimeError: the text has stopped.  TypeError: another kind of text.
        """
        machine = self._machine
        if self.stopped:
            event = self._event(self.held)
            raise RuntimeError(
                f"the text stopped at {event.end} with stop {event.which}; nothing may follow. Make a new "
                "matcher, or restore an earlier state."
            )
        codes = machine.codes(chunk)
        before = machine.word(self._state)
        end, state = machine.first_hit(codes, self._state)
        self._state = state
        if end >= 0:
            self._offset += end
            event = self._event(before)
            keep = end if self.include_stop else event.start - self._offset + end
            return event._replace(text=_first(before, chunk, len(before) + keep))
        self._offset += len(codes)
        keep = len(before) + len(codes) - int(machine.depth[state])
        return StopEvent(_first(before, chunk, keep))

    def flush(self) -> StopEvent:
        """The text ends here: what was held back. A later feed begins without a partial match."""
        if self.stopped:
            return self._event(self.held)
        held, self._state = self.held, 0
        return StopEvent(held)

    def state(self) -> tuple[int, int]:
        """(number of the state, symbols read): all that a continuation needs, held text included."""
        return self._state, self._offset

    def restore(self, state: Sequence[int]) -> None:
        """Go on from a state of a matcher with the same stops.  Raises: InputError: not one."""
        self._state, self._offset = self._machine.checked(state)

    def _event(self, text: Any) -> StopEvent:
        which = int(self._machine.which[self._state])
        start = self._offset - int(self._machine.lengths[which])
        return StopEvent(text, True, which, start, self._offset)


class TokenStopTable:
    """Stop strings over token ids: one gather per decoding step for the whole batch.

    next [S, V]: the state behind every state and token. hit [S, V]: how many bytes of the token belong
    to the text up to and including the first stop, -1 if none ends in it. A row that has stopped stays
    in its state and hits no more, so pads may follow; no row can end another.

    >>> table = TokenStopTable(["ab"], [b"a", b"b", b"ba"])
    >>> state, hit = table.step(table.start(2), np.array([0, 2]))
    >>> table.step(state, np.array([2, 1]))
    (array([2, 2], dtype=int32), array([1, 1], dtype=int32))

    Args:
        stops: bytes, or str to be encoded as UTF-8; none empty.
        vocab_bytes: [V] the bytes of every token; b"" for one without text.
        max_bytes: largest size of the two tables together.
    Raises:
        InputError: no stop, an empty one, no vocabulary.
        TypeError: tokens that are not bytes (the id is named), stops of different kinds.
        MemoryError: tables above max_bytes.
    Source: ours.  Oracle: StopMatcher fed with the token's bytes, for every state and token.
    Cost: O(S bytes of the vocabulary) to build, 8 S V bytes to hold (4 S V on the CPU below 32 768
        states and bytes a token).
    """

    def __init__(
        self,
        stops: Sequence[str | bytes],
        vocab_bytes: Sequence[bytes],
        *,
        max_bytes: int = MAX_BYTES,
    ):
        if not isinstance(stops, (str, bytes)):  # Machine.of explains what is wrong with those
            stops = [s.encode() if isinstance(s, str) else s for s in stops]
        self._machine = Machine.of(stops, name="stop", table_bytes=max_bytes)
        if self._machine.kind != "bytes":
            raise TypeError("stops must be bytes, or str to be encoded, got token arrays.")
        self._vocab = _checked_vocabulary(vocab_bytes)
        starts = np.zeros(len(self._vocab) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, self._vocab), np.int64, len(self._vocab)), out=starts[1:])
        codes = codes_of(join(self._vocab, "bytes"))
        S, V = self._machine.num_states, len(self._vocab)
        small = max(S, int(np.diff(starts).max())) < 1 << 15
        entry = np.dtype(np.int16 if small else np.int32)
        size = 2 * entry.itemsize * S * V
        if size > max_bytes or not self._machine.tabulated:
            raise MemoryError(
                f"the tables of {S} states and {V} tokens take {size} bytes, max_bytes is {max_bytes}. "
                "Use fewer or shorter stops, a StopMatcher per row, or raise max_bytes."
            )
        self.next, self.hit = np.empty((S, V), dtype=entry), np.empty((S, V), dtype=entry)
        self.depth = np.where(self._machine.which >= 0, 0, self._machine.depth).astype(np.int32)
        self.which = self._machine.which.astype(np.int32)
        a, rows = self._machine.alphabet, self._machine.rows
        fill_token_table(
            codes, starts, a.low, a.classes, rows, a.size, self.which >= 0, self.next, self.hit
        )

    @property
    def num_states(self) -> int:
        """S, states of the automaton: different beginnings of stops."""
        return self._machine.num_states

    def start(self, num_rows: int) -> Integer[Any, "B"]:
        """[B] states of rows without text, where the tables are (NumPy, or a device after ``to``)."""
        if isinstance(self.next, np.ndarray):
            return np.zeros(num_rows, dtype=np.int32)
        return self.next.new_zeros(num_rows)

    def step(
        self, state: Integer[Any, "B"], tokens: Integer[Any, "B"]
    ) -> tuple[Integer[Any, "B"], Integer[Any, "B"]]:
        """One token per row.

        state, hit = next[state, tokens], hit[state, tokens].

        Args:
            state: [B] as start or step gave it.
            tokens: [B] ids; any in range for rows that have stopped.
        Returns: (state [B], hit [B]): hit is -1, or how many bytes of this token are text up to and
            including the stop; which stop is ``table.which[state]``.
        Raises:
            InputError: a token id outside the vocabulary, a state outside the table (row and value are
                named). On a device nothing is checked, because that would make the host wait.
            ShapeError: state and tokens differ in shape.
        Oracle: StopMatcher, row by row.  Cost: one gather.
        """
        if not isinstance(self.next, np.ndarray):
            return self.next[state, tokens], self.hit[state, tokens]
        state, tokens = np.asarray(state), np.asarray(tokens)
        if state.shape != tokens.shape or state.ndim != 1:
            raise ShapeError(
                f"state {state.shape} and tokens {tokens.shape} must have one shape [B]."
            )
        out = np.empty((2, len(tokens)), dtype=np.int32)
        bad = step_batch(
            self.next, self.hit, self.which, _integers(state), _integers(tokens), out[0], out[1]
        )
        if bad >= 0:
            S, V = self.next.shape
            raise InputError(
                f"row {bad}: token id {tokens[bad]} with state {state[bad]}; ids must be in 0..{V - 1}, "
                f"states in 0..{S - 1}. Is the vocabulary the model's?"
            )
        return out[0], out[1]

    def stopped(self, state: Integer[Any, "B"]) -> Bool[Any, "B"]:
        """[B] rows that have met a stop."""
        return self.which[state] >= 0

    def to(self, device: Any) -> "TokenStopTable":
        """The same tables as torch tensors on a device: step then takes and gives tensors there."""
        import torch

        moved = object.__new__(TokenStopTable)
        moved._machine, moved._vocab = self._machine, self._vocab
        for name in ("next", "hit", "depth", "which"):
            table = torch.as_tensor(getattr(self, name), device=device)
            setattr(moved, name, table.to(torch.int32))
        return moved

    def text(
        self, tokens: Sequence[int] | Integer[np.ndarray, "T"], *, include_stop: bool = False
    ) -> StopEvent:
        """The bytes of one row, cut at its first stop as StopMatcher cuts.

        Args: tokens: [T] ids, from the beginning of the row; what follows the stop is ignored.
        Returns: the whole text, held-back bytes included, and where the stop stands in bytes.
        Raises: InputError: a token id outside the vocabulary.
        Oracle: StopMatcher.
        """
        tokens = np.asarray(tokens, dtype=np.int64)
        outside = np.flatnonzero((tokens < 0) | (tokens >= len(self._vocab)))
        if len(outside):
            raise InputError(
                f"token id {tokens[outside[0]]} at position {outside[0]} is outside the vocabulary; ids "
                f"must be in 0..{len(self._vocab) - 1}."
            )
        whole = b"".join(self._vocab[token] for token in tokens)
        machine = self._machine
        end, state = machine.first_hit(codes_of(whole))
        if end < 0:
            return StopEvent(whole)
        which = int(machine.which[state])
        start = end - int(machine.lengths[which])
        return StopEvent(whole[: end if include_stop else start], True, which, start, end)


def _first(before: Any, chunk: Any, count: int) -> Any:
    """The first ``count`` symbols of before + chunk, of the kind of before."""
    if count <= len(before):
        return before[:count]
    rest = chunk[: count - len(before)]
    return join((before, rest), "tokens") if isinstance(before, np.ndarray) else before + rest


def _integers(x: np.ndarray) -> np.ndarray:
    """int32 stays, other integers become int64: the kernel is compiled at most for these."""
    return x if x.dtype == np.int32 else x.astype(np.int64, casting="safe", copy=False)


def _checked_vocabulary(vocab_bytes: Sequence[Any]) -> list[bytes]:
    vocabulary = list(vocab_bytes)
    if not vocabulary:
        raise InputError("the vocabulary is empty; give the bytes of every token.")
    for i, token in enumerate(vocabulary):
        if not isinstance(token, bytes):
            raise TypeError(
                f"token {i} is {type(token).__name__}, expected bytes: a tokenizer's text form of a "
                "token is not what it prints. Give the bytes it decodes to."
            )
    return vocabulary
