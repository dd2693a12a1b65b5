"""Does a predicate turn once? An audit within a budget of calls, which reports and never raises.

One bisection finds where the predicate seems to turn; every further question is a random point whose
answer the boundary foretells. So each of them is a test by itself, and what q of them miss has a
known chance: (1 - eps)^q where a share eps of the points answers wrongly.
Not a proof, unless the budget covers every point.
Source: ours; the chance is that of q independent draws.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dodona.algorithms.float_search import Line, float_keys
from dodona.algorithms.interval_exclusion import integer_range, locate
from dodona.algorithms.search_record import Point, Questions
from dodona.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    witness: (a, b), a < b, two points whose answers stand in the wrong order; None = none was found.
    boundary: where the predicate turns: the first True, or the last True of a falling one.
    evaluations: calls.  num_probes: those at random points, each a test by itself.
    complete: every point of the range was asked, so that no witness means monotone.
    Shares of points are meant as the probes are drawn: evenly over integers; over doubles one half
    evenly by value and one half by bit pattern.
    """

    witness: tuple[Point, Point] | None
    boundary: Point
    evaluations: int
    num_probes: int
    complete: bool

    def excluded_share(self, confidence: float = 0.95) -> float:
        """Least share of wrong answers that the probes would have noticed with this confidence.

        1 - (1 - confidence)^(1 / num_probes); 0 where every point was asked, 1 without probes.
        Raises: InputError: confidence outside (0, 1).
        """
        if not 0 < confidence < 1:
            raise InputError(f"confidence must be in (0, 1), got {confidence}. 0.95 is usual.")
        if self.complete:
            return 0.0
        if not self.num_probes:
            return 1.0
        return -math.expm1(math.log1p(-confidence) / self.num_probes)


def audit_monotone(
    predicate: Callable[[Any], Any],
    lo: Point,
    hi: Point,
    *,
    budget: int = 96,
    falling: bool = False,
    seed: int = 0,
) -> Audit:
    """Ask at most ``budget`` points whether the predicate turns once on lo <= x < hi.

    >>> audit_monotone(lambda i: i % 2 == 0, 0, 100).witness
    (0, 99)

    Args:
        lo, hi: integers, or floats, which are searched by bit pattern.
        budget: largest number of calls. At least the ends and one bisection; 96 leave 30 probes on
            the whole line of doubles.
        falling: True..True False..False is expected instead of False..False True..True.
        seed: of the probes.
    Returns: an Audit.
    Raises:
        InputError: lo >= hi, NaN, or a budget that does not cover the bisection.
        TypeError: a predicate that does not return a bool.
    Source: module docstring.
    Oracle: oracles.search.turns_once on every predicate of small ranges.
    Cost: at most ``budget`` calls.
    """
    floats = isinstance(lo, (float, np.floating)) or isinstance(hi, (float, np.floating))
    line = None
    if floats:
        lo, hi = float_keys(lo, hi, "float64")
        line = Line(lo, hi)
    else:
        lo, hi = integer_range(lo, hi, instead="float bounds")
    if lo >= hi:
        raise InputError("an audit needs at least one point, got an empty range (lo == hi).")
    least = min(hi - lo, 2 + (hi - lo).bit_length())
    if budget < least:
        raise InputError(
            f"budget must be at least {least} for a range of {hi - lo} points (both ends and one "
            f"bisection), got {budget}."
        )
    questions = Questions(predicate, point=line and line.point, falling=falling)
    complete = hi - lo <= budget
    for key in range(lo, hi) if complete else (lo, hi - 1):
        questions.ask(key)
    found = locate(questions, lo, hi, check="none")
    num_probes = 0 if complete else budget - len(questions.answers)
    rng = random.Random(seed)
    for _ in range(num_probes):
        questions.ask(rng.randrange(lo, hi) if line is None else line.draw(lo, hi, rng))
    witness = questions.contradiction()
    name = int if line is None else line.point
    return Audit(
        witness=None if witness is None else (name(witness[0]), name(witness[1])),
        boundary=name(found.value),
        evaluations=len(questions.answers),
        num_probes=num_probes,
        complete=complete,
    )
