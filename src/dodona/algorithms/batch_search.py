"""Many searches in one call: a predicate over arrays, one call per round, all lanes together.

NumPy arrays in, NumPy arrays out; torch tensors in, tensors out on the same device, without a
host synchronisation inside the loop. torch is not imported here: a tensor brings it along.
Source: the template of interval_exclusion.py, lane by lane; the midpoint without overflow is
H. S. Warren, Hacker's Delight, sec. 2-5.
Not for searches in one sorted array: sorted_search.lower_bound takes arrays of queries.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from dodona.errors import InputError, NonMonotoneError, ShapeError

JUMP_BITS = 3  # each jump away from a guess is eight times the one before; the first is one place


def first_true_batch(
    predicate: Callable[[Any], Any], lo: Any, hi: Any, *, guess: Any = None, check: str = "ends"
) -> Any:
    """For each lane b the least x in lo[b] <= x < hi[b] that holds, or hi[b] where there is none.

    Integer lanes are positions; floating lanes are searched by bit pattern to the neighbouring
    number, as in first_true_float. The number of rounds is that of the widest lane,
    ceil(log2(range + 1)); lanes that are done keep asking a point they asked before, and their
    answers are ignored. A lane whose range is empty is asked at lo.

    >>> import numpy as np
    >>> first_true_batch(lambda x: x * x >= np.array([2, 50]), np.array([0, 0]), np.array([9, 9]))
    array([2, 8])

    Args:
        predicate: [B] points -> [B] bool, False..False True..True in every lane.
        lo, hi: [B], NumPy arrays or tensors of one integer or floating type. Floats may be infinite.
        guess: [B] near the answers, from anywhere (an approximation, Newton's method, the last
            solution); then every lane jumps 1, 8, 64, ... away from it until the answer changes, and
            the rounds grow with the distance of the worst guess instead of the range. A bad guess
            costs rounds, never correctness.
        check: "ends" asks both ends of every lane too (two calls); "none" does not.
    Returns: [B], of the kind and type of lo.
    Raises:
        ShapeError: lo, hi, guess or the predicate's answers do not have one shape [B].
        TypeError: types that differ, or answers that are not bool.
        InputError: lo > hi or NaN in some lane, or an unknown check.
        NonMonotoneError: the ends of a lane contradict its answer; ``lane`` says which.
    Source: module docstring.
    Oracle: oracles.search.first_true_by_scan, lane by lane.
    Cost: one call of the predicate per round. Tensors are synchronised before the first and after
        the last round only; with a guess, once per round, since the worst lane ends the search.
    """
    if check not in ("none", "ends"):
        raise InputError(f"check must be 'none' or 'ends' for many searches, got {check!r}.")
    lanes = _Lanes(predicate, lo, hi, guess)
    xp, left, right, asked = lanes.xp, lanes.lo, lanes.hi, lanes.lo
    if guess is None:
        for _ in range(lanes.rounds()):
            active = left < right
            asked = xp.where(active, _middle(left, right), asked)
            holds = lanes.ask(asked)
            left, right = _exclude(xp, active, holds, asked, left, right)
    elif lanes.lo.shape[0]:
        right = _from_guess(lanes)
    if check == "ends":
        _require_ends(lanes, right)
    return lanes.points(right)


# ---------------------------------------------------------------------- private
class _Lanes:
    """Ends and guesses of all lanes as integer keys, and the predicate asked at such keys."""

    def __init__(self, predicate: Callable[[Any], Any], lo: Any, hi: Any, guess: Any):
        self.predicate = predicate
        tensors = type(lo).__module__.partition(".")[0] == "torch"
        self.xp = sys.modules["torch"] if tensors else np
        given = {"lo": lo, "hi": hi} | ({} if guess is None else {"guess": guess})
        if not tensors:
            given = {name: np.asarray(value) for name, value in given.items()}
        lo = given["lo"]
        for name, value in given.items():
            if value.ndim != 1 or value.shape != lo.shape:
                raise ShapeError(
                    f"{name} must be one number per lane, shape [B] as lo; got {tuple(value.shape)} "
                    f"and lo {tuple(lo.shape)}."
                )
            if value.dtype != lo.dtype:
                raise TypeError(
                    f"{name} has type {value.dtype} and lo {lo.dtype}; one is expected."
                )
        self.bits = 8 * lo.dtype.itemsize
        self.dtype = lo.dtype
        self.floating = bool(lo.dtype.is_floating_point if tensors else lo.dtype.kind == "f")
        integers = str(lo.dtype).removeprefix("torch.").lstrip("u").startswith("int")
        if not (integers or self.floating) or self.bits > 64:
            raise TypeError(f"lo must hold integers or floats of at most 64 bits, got {lo.dtype}.")
        self.integer = getattr(self.xp, f"int{self.bits}")
        bad = ~(given["lo"] <= given["hi"])  # True for NaN as well
        if bool(bad.any()):
            b = int(self.xp.nonzero(bad)[0][0])
            raise InputError(
                f"lane {b} has lo={given['lo'][b].item()!r} and hi={given['hi'][b].item()!r}; numbers "
                "with lo <= hi are expected (equal for an empty range)."
            )
        self.lo, self.hi = self.keys(given["lo"]), self.keys(given["hi"])
        self.guess = None if guess is None else self.keys(given["guess"])

    def keys(self, points: Any) -> Any:
        """Places of numbers in the order of their type."""
        if not self.floating:
            return points
        bits = points.view(self.integer)
        return self.xp.where(bits < 0, -(bits & ((1 << self.bits - 1) - 1)), bits)

    def points(self, keys: Any) -> Any:
        if not self.floating:
            return keys
        bits = self.xp.where(keys < 0, -keys | -(1 << self.bits - 1), keys)
        return bits.view(self.dtype)

    def ask(self, keys: Any) -> Any:
        """[B] bool, the predicate at these keys.  Raises: ShapeError, TypeError: other answers."""
        answers = self.predicate(self.points(keys))
        if getattr(answers, "shape", None) != keys.shape:
            got = tuple(answers.shape) if hasattr(answers, "shape") else type(answers).__name__
            raise ShapeError(
                f"the predicate must return one answer per lane, shape {tuple(keys.shape)}, got {got}."
            )
        if answers.dtype != (np.bool_ if self.xp is np else self.xp.bool):
            raise TypeError(f"the predicate must return bool answers, got {answers.dtype}.")
        return answers

    def rounds(self) -> int:
        """ceil(log2(widest range + 1)); a width beyond the integers has wrapped below zero."""
        if not self.lo.shape[0]:
            return 0
        width = self.hi - self.lo
        return self.bits if bool((width < 0).any()) else int(width.max()).bit_length()


def _middle(left: Any, right: Any) -> Any:
    """Floor of the mean without the sum, which overflows for large ends of one sign."""
    return (left & right) + ((left ^ right) >> 1)


def _exclude(
    xp: Any, active: Any, holds: Any, asked: Any, left: Any, right: Any
) -> tuple[Any, Any]:
    """Template L in every active lane."""
    return xp.where(active & ~holds, asked + 1, left), xp.where(active & holds, asked, right)


def _from_guess(lanes: _Lanes) -> Any:
    """Jump away from the guess until the answer changes, then halve; a jump never passes the middle."""
    xp, lo, hi = lanes.xp, lanes.lo, lanes.hi
    live = lo < hi
    last = xp.where(live, hi - 1, lo)
    asked = xp.where(lanes.guess < lo, lo, xp.where(lanes.guess > last, last, lanes.guess))
    first = lanes.ask(asked)
    left, right = _exclude(xp, live, first, asked, lo, hi)
    jumping, jump = live, 1
    active = left < right
    while bool(active.any()):
        middle = _middle(left, right)
        down, up = right - jump, left + (jump - 1)
        # beyond the integers a jump wraps around to the far side
        down = xp.where((down > right) | (down < middle), middle, down)
        up = xp.where((up < left) | (up > middle), middle, up)
        place = xp.where(jumping, xp.where(first, down, up), middle)
        asked = xp.where(active, place, asked)
        holds = lanes.ask(asked)
        left, right = _exclude(xp, active, holds, asked, left, right)
        jumping = jumping & (holds == first)
        jump = min(jump << JUMP_BITS, 1 << lanes.bits - 2)
        active = left < right
    return right


def _require_ends(lanes: _Lanes, answer: Any) -> None:
    """Raises: NonMonotoneError: an end of a lane contradicts the answer found there."""
    xp, lo, hi = lanes.xp, lanes.lo, lanes.hi
    if not lo.shape[0]:
        return
    live = lo < hi
    begin, end = lanes.ask(lo), lanes.ask(xp.where(live, hi - 1, lo))
    early, late = live & begin & (answer > lo), live & ~end & (answer < hi)
    bad = early | late
    if not bool(bad.any()):
        return
    b = int(xp.nonzero(bad)[0][0])
    # what stands left of an answer was asked and did not hold; the answer itself was asked and did
    a, z = (lo, answer - 1) if bool(early[b]) else (answer, hi - 1)
    witness = lanes.points(a)[b].item(), lanes.points(z)[b].item()
    raise NonMonotoneError(
        f"in lane {b} the predicate is True at {witness[0]!r} and False at {witness[1]!r}; "
        "False..False True..True is expected in every lane. Negate it, or narrow that range.",
        witness=witness,
        lane=b,
    )
