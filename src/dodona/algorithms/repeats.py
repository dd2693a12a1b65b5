"""Rows that repeat themselves, noticed while they are generated.

A tail that has period p is a tail where every token equals the one p before. Counting those equalities
for each p at once costs a comparison per period and token, and needs no text again.

Source: ours, for the "repeat" exit of Kimi Team 2025, arXiv:2501.12599, sec. 2.6.2. The same tails by
the prefix function of the reversed row: oracles.strings.
Not here: repetition penalties, which change rewards and not the flow of text.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Integer

from dodona.algorithms._stop_kernels import step_repeats
from dodona.errors import InputError, ShapeError


class RepeatDetector:
    """Flags rows whose tail is one block of tokens again and again.

    With c_p = number of tokens in a row, up to the last, that equal the token p before: a row repeats
    while c_p >= max((min_repeats - 1) p, min_tokens) for some p <= max_period.

    >>> detector = RepeatDetector(min_repeats=3, min_tokens=1)
    >>> [bool(detector.step(np.array([token]))[0]) for token in (7, 1, 2, 1, 2, 1, 2)]
    [False, False, False, False, False, False, True]

    Args:
        min_repeats: how often the block stands there, at least 2.
        min_tokens: tokens that repeat others, at least 1: "ha ha ha ha" is speech, 32 tokens of it
            are not.
        max_period: longest block in tokens, at least 1.
    Raises: InputError: a number below its least.
    Source: ours.  Oracle: oracles.strings.repeats, and the prefix function of the reversed tail.
    Cost: O(B max_period) a step; 20 B max_period bytes.
    """

    def __init__(self, *, min_repeats: int = 4, min_tokens: int = 32, max_period: int = 64):
        for name, value, least in (
            ("min_repeats", min_repeats, 2),
            ("min_tokens", min_tokens, 1),
            ("max_period", max_period, 1),
        ):
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}.")
        self.min_repeats, self.min_tokens, self.max_period = min_repeats, min_tokens, max_period
        lags = np.arange(max_period, 0, -1)
        self._needed = np.maximum((min_repeats - 1) * lags, min_tokens).astype(np.int32)
        self._recent: np.ndarray | None = None

    def step(self, tokens: Integer[np.ndarray, "B"]) -> Bool[np.ndarray, "B"]:
        """One token per row.

        Args: tokens: [B] ids; the first call fixes B.
        Returns: [B] rows that repeat themselves now.
        Raises: ShapeError: another number of rows.  TypeError: not integers.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise TypeError(
                f"tokens must be a 1-D array of integers, got shape {tokens.shape}, dtype {tokens.dtype}."
            )
        if self._recent is None:
            self._recent = np.zeros((len(tokens), 2 * self.max_period), dtype=np.int64)
            self._runs = np.zeros((len(tokens), self.max_period), dtype=np.int32)
            self._age = np.zeros(len(tokens), dtype=np.int64)
        if len(tokens) != len(self._age):
            raise ShapeError(
                f"tokens has {len(tokens)} rows, the detector follows {len(self._age)}. Use select for "
                "rows that ended, or a new detector."
            )
        out = np.empty(len(tokens), dtype=np.bool_)
        step_repeats(
            tokens.astype(np.int64), self._recent, self._runs, self._age, self._needed, out
        )
        return out

    def select(self, rows: Integer[np.ndarray, "K"] | Bool[np.ndarray, "B"]) -> None:
        """Keep these rows, in this order: after finished ones were removed, or one was copied."""
        if self._recent is not None:
            self.restore({name: array[rows] for name, array in self.state().items()})

    def state(self) -> dict[str, Any]:
        """Arrays with a row per row: all that a continuation needs. Empty before the first step."""
        if self._recent is None:
            return {}
        return {
            "recent": self._recent.copy(),
            "runs": self._runs.copy(),
            "age": self._age.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state.  Raises: ShapeError: of a detector with another max_period."""
        if not state:
            self._recent = None
            return
        period = np.shape(state["runs"])[1]
        if period != self.max_period:
            raise ShapeError(
                f"the state has blocks up to {period} tokens, this detector has max_period "
                f"{self.max_period}. Make the detector as it was."
            )
        self._recent, self._runs, self._age = (
            np.array(state[k]) for k in ("recent", "runs", "age")
        )
