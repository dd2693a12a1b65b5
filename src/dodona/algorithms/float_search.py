"""Search over floating-point numbers by bit pattern: the exact neighbouring double, no tolerance.

Doubles in order are integers in order: i = bits where the sign bit is clear, else -(bits without
sign). The integer templates then end at two neighbouring doubles, after at most 64 rounds over the
whole line; the midpoint of two values can stall at them, and needs a tolerance to end at all.
Source: IEEE 754-2019, sec. 3.4 (the order of the encodings).
Not a root finder: only yes and no are asked. Where values are cheap to turn into a guess, use
batch_search.first_true_batch(guess=...).
"""

import functools
import math
import random
import struct
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from dodona.algorithms.interval_exclusion import NUM_PROBES, Level, locate
from dodona.algorithms.search_record import Questions, SearchResult, Step
from dodona.errors import InputError

Width = Literal["float64", "float32"]
_CODES = {"float64": ("<d", "<q", 63), "float32": ("<f", "<i", 31)}


def first_true_float(
    predicate: Callable[[float], Any],
    lo: float,
    hi: float,
    *,
    xtol: float | None = None,
    dtype: Width = "float64",
    check: Level = "ends",
    strict: bool = False,
    return_info: bool = False,
    num_probes: int = NUM_PROBES,
    seed: int = 0,
) -> float | SearchResult:
    """Least double x in lo <= x < hi with predicate(x), or hi where there is none.

    The predicate is False..False True..True; predicate(hi) is never asked. Exact: the double before
    the answer does not hold.

    >>> first_true_float(lambda x: x * x >= 2.0, 0.0, 2.0)
    1.4142135623730951

    Args:
        lo, hi: may be infinite. lo = -0.0 is 0.0.
        xtol: stop as soon as the boundary lies between points closer than this; None = neighbours.
        dtype: "float32" searches single precision, at most 32 rounds, and asks with np.float32.
        check, strict, return_info, num_probes, seed: as in first_true. Half of the probes are
            drawn evenly by value, half by bit pattern, where half of [0, 1] lies below 1e-154.
    Returns: the number, or a SearchResult whose value it is; with xtol, a point that holds.
    Raises: as first_true; InputError also for NaN, and for xtol that is not positive.
    Source: IEEE 754-2019, sec. 3.4.
    Oracle: oracles.search.first_true_by_scan over neighbouring doubles.
    Cost: at most 64 calls on any range, and two for "ends".
    """
    return _float_search(
        predicate, lo, hi, falling=False, xtol=xtol, dtype=dtype, check=check, strict=strict,
        return_info=return_info, num_probes=num_probes, seed=seed,
    )  # fmt: skip


def last_true_float(
    predicate: Callable[[float], Any],
    lo: float,
    hi: float,
    *,
    xtol: float | None = None,
    dtype: Width = "float64",
    check: Level = "ends",
    strict: bool = False,
    return_info: bool = False,
    num_probes: int = NUM_PROBES,
    seed: int = 0,
) -> float | SearchResult:
    """Greatest double x in lo < x <= hi with predicate(x), or lo where there is none.

    The mirror of first_true_float: True..True False..False, and predicate(lo) is never asked. So the
    answer lies in [lo, hi] also where nothing above lo holds, as the step 0 that is always allowed.

    >>> last_true_float(lambda x: x * x <= 2.0, 0.0, 2.0)
    1.414213562373095

    Args, Raises, Source, Cost: as first_true_float.
    Returns: the number, or a SearchResult whose value it is; with xtol, a point that holds.
    Oracle: oracles.search.last_true_by_scan over neighbouring doubles.
    """
    return _float_search(
        predicate, lo, hi, falling=True, xtol=xtol, dtype=dtype, check=check, strict=strict,
        return_info=return_info, num_probes=num_probes, seed=seed,
    )  # fmt: skip


def ordered_bits(x: float, dtype: Width = "float64") -> int:
    """The place of a number among all numbers of its type: 0 for 0.0 and -0.0, one more for the next.

    >>> ordered_bits(5e-324), ordered_bits(-0.0), ordered_bits(-5e-324)
    (1, 0, -1)

    Source: IEEE 754-2019, sec. 3.4.  Oracle: oracles.search.neighbours, one nextafter at a time.
    """
    number, integer, sign_bit = _CODES[dtype]
    bits = struct.unpack(integer, struct.pack(number, x))[0]
    return bits if bits >= 0 else -(bits & ((1 << sign_bit) - 1))


def from_ordered_bits(key: int, dtype: Width = "float64") -> float:
    """The number at a place: the inverse of ordered_bits.

    Source: IEEE 754-2019, sec. 3.4.  Oracle: oracles.search.neighbours, one nextafter at a time.
    """
    number, integer, sign_bit = _CODES[dtype]
    bits = key if key >= 0 else -key - (1 << sign_bit)
    return struct.unpack(number, struct.pack(integer, bits))[0]


def float_keys(lo: float, hi: float, dtype: Width) -> tuple[int, int]:
    """Both ends as places.  Raises: TypeError: no numbers.  InputError: NaN, or lo > hi."""
    lo, hi = float(lo), float(hi)
    for name, end in (("lo", lo), ("hi", hi)):
        if math.isnan(end):
            raise InputError(
                f"{name} is NaN, expected a number or an infinity. NaN has no place in the order."
            )
    if lo > hi:
        raise InputError(
            f"lo must be at most hi, got lo={lo!r} and hi={hi!r}. An empty range has lo == hi."
        )
    if dtype not in _CODES:
        raise InputError(f"dtype must be 'float64' or 'float32', got {dtype!r}.")
    if dtype == "float32":
        for name, end in (("lo", lo), ("hi", hi)):
            if not math.isinf(end) and float(np.float64(end).astype(np.float32)) != end:
                raise InputError(
                    f"{name} = {end!r} is not a float32 number. Round it first: float(np.float32({end!r}))."
                )
    return ordered_bits(lo, dtype), ordered_bits(hi, dtype)


class Line:
    """The numbers between two places: what the integer search asks about them.

    Args: first, last: places of the ends; keys beyond them stand for the ends themselves.
    """

    def __init__(self, first: int, last: int, *, dtype: Width = "float64", xtol: float = 0.0):
        self.first, self.last, self.dtype, self.xtol = first, last, dtype, xtol
        self.kind = np.float32 if dtype == "float32" else float

    def point(self, key: int) -> Any:
        """The number at a place, of the type that the predicate is asked with."""
        return self.kind(from_ordered_bits(min(max(key, self.first), self.last), self.dtype))

    def near(self, a: int, b: int) -> bool:
        """Are the numbers at two places within xtol?"""
        return float(self.point(b)) - float(self.point(a)) <= self.xtol

    def draw(self, lo: int, hi: int, rng: random.Random) -> int:
        """A key among lo <= key < hi, by value and by bit pattern with equal chance."""
        a, b = float(self.point(lo)), float(self.point(hi - 1))
        if rng.random() < 0.5 or not math.isfinite(b - a):
            return rng.randrange(lo, hi)
        return min(max(ordered_bits(rng.uniform(a, b), self.dtype), lo), hi - 1)


def _float_search(
    predicate: Callable[[float], Any], lo: float, hi: float, *, falling: bool, xtol: float | None,
    dtype: Width, check: Level, strict: bool, return_info: bool, num_probes: int, seed: int,
) -> float | SearchResult:  # fmt: skip
    first, last = float_keys(lo, hi, dtype)
    if xtol is not None and not xtol > 0:
        raise InputError(
            f"xtol must be > 0, got {xtol!r}. For the exact neighbouring double leave it out."
        )
    line = Line(first, last, dtype=dtype, xtol=xtol or 0.0)
    start, stop = (first + 1, last + 1) if falling else (first, last)
    found = locate(
        Questions(predicate, point=line.point, falling=falling), start, max(start, stop),
        check=check, strict=strict, num_probes=num_probes, seed=seed,
        draw=functools.partial(line.draw, start, stop), near=None if xtol is None else line.near,
    )  # fmt: skip
    if not return_info:
        return float(line.point(found.value))
    a, b = found.bracket
    return SearchResult(
        value=float(line.point(found.value)),
        evaluations=found.evaluations,
        bracket=(float(line.point(a)), float(line.point(b))),
        trace=tuple(
            Step(float(line.point(s.left)), float(line.point(s.mid)), float(line.point(s.right)), s.holds)
            for s in found.trace
        ),
    )  # fmt: skip
