"""The two templates on integers: first_true and last_true, and the levels of monotonicity check.

Source: Knuth, TAOCP vol. 3, 6.2.1 (1973). Proof and rule are told in binary_search.py.
Not a search in an array (sorted_search.py) and not one over floats (float_search.py).
"""

import operator
import random
from collections.abc import Callable
from typing import Any, Literal, SupportsIndex

from dodona.algorithms.search_record import Questions, SearchResult, Step
from dodona.errors import InputError, NoSolutionError

Level = Literal["none", "ends", "probes", "full"]
LEVELS = ("none", "ends", "probes", "full")
LARGEST_FULL = 2**16  # points that check="full" and an exhaustive audit ask at most
NUM_PROBES = 32  # an eighth of the points in the wrong order is caught with 98.6 %


def first_true(
    predicate: Callable[[int], Any],
    lo: SupportsIndex,
    hi: SupportsIndex,
    *,
    check: Level = "ends",
    strict: bool = False,
    return_info: bool = False,
    num_probes: int = NUM_PROBES,
    seed: int = 0,
) -> int | SearchResult:
    """Least i in lo <= i < hi with predicate(i), or hi where there is none.

    The predicate is False..False True..True on the range. Template L on [lo, hi]; predicate(hi) is
    never asked. Integers of any size.

    >>> first_true(lambda i: i * i >= 10, 0, 10)
    4

    Args:
        lo, hi: ends of the range, lo included, hi not.
        check: what is asked beyond the rounds of the template. The questions of one search can not
            contradict each other, since every False lies left of every True by construction, so
            without more of them nothing is ever detected.
            "none": nothing. "ends": both ends. "probes": ends and ``num_probes`` random points; if a
            share eps of the points has the wrong answer, it is noticed with probability
            1 - (1 - eps)^num_probes. "full": every point, ranges up to 2^16.
        strict: raise where no point holds, instead of returning hi.
        return_info: return a SearchResult, with the trace.
        seed: of the probes.
    Returns: the position, or a SearchResult whose value it is.
    Raises:
        InputError: lo > hi, an unknown check, or a range too long for "full".
        TypeError: ends that are not integers, or a predicate that does not return a bool.
        NonMonotoneError: two answers in the wrong order; ``witness`` holds the points.
        NoSolutionError: strict, and no point holds.
    Source: Knuth, TAOCP vol. 3, 6.2.1.
    Oracle: oracles.search.first_true_by_scan.
    Cost: at most ceil(log2(hi - lo + 1)) calls, and two for "ends".
    """
    lo, hi = integer_range(lo, hi, instead="first_true_float")
    questions = Questions(predicate)
    result = locate(
        questions, lo, hi, check=check, strict=strict, num_probes=num_probes, seed=seed
    )  # fmt: skip
    return result if return_info else result.value


def last_true(
    predicate: Callable[[int], Any],
    lo: SupportsIndex,
    hi: SupportsIndex,
    *,
    check: Level = "ends",
    strict: bool = False,
    return_info: bool = False,
    num_probes: int = NUM_PROBES,
    seed: int = 0,
) -> int | SearchResult:
    """Greatest i in lo <= i < hi with predicate(i), or lo - 1 where there is none.

    The predicate is True..True False..False on the range. Template U on [lo - 1, hi - 1];
    predicate(lo - 1) is never asked.

    >>> last_true(lambda i: i * i <= 10, 0, 10)
    3

    Args, Raises, Cost: as first_true.
    Returns: the position, or a SearchResult whose value it is.
    Source: Knuth, TAOCP vol. 3, 6.2.1.
    Oracle: oracles.search.last_true_by_scan.
    """
    lo, hi = integer_range(lo, hi, instead="last_true_float")
    questions = Questions(predicate, falling=True)
    result = locate(
        questions, lo, hi, check=check, strict=strict, num_probes=num_probes, seed=seed
    )  # fmt: skip
    return result if return_info else result.value


# ---------------------------------------------------------------------- shared with the other searches
def locate(
    questions: Questions,
    lo: int,
    hi: int,
    *,
    check: str,
    strict: bool = False,
    num_probes: int = NUM_PROBES,
    seed: int = 0,
    draw: Callable[[random.Random], int] | None = None,
    near: Callable[[int, int], bool] | None = None,
) -> SearchResult:
    """The boundary of ``questions`` among the keys lo <= k < hi: the first True, or the last one.

    Args:
        draw: rng -> key, for the probes; None = every key alike.
        near: (a, b) -> True where the neighbours a, b of the boundary are close enough to stop.
    Returns: a SearchResult in keys.
    Raises: as first_true.
    """
    if check not in LEVELS:
        raise InputError(f"check must be one of {', '.join(LEVELS)}, got {check!r}.")
    if check == "full" and hi - lo > LARGEST_FULL:
        raise InputError(
            f"check='full' asks every point, at most {LARGEST_FULL}; the range has {hi - lo}. "
            "Use check='probes'."
        )
    last = questions.falling
    left, right = (lo - 1, hi - 1) if last else (lo, hi)
    if check != "none" and lo < hi:
        # the answers at the ends exclude too: all but one point, or none
        begin, end = questions.ask(lo), questions.ask(hi - 1)
        if begin != last:
            left = right = lo - last
        elif end == last:
            left = right = hi - last
        else:
            left, right = left + 1, right - 1
    trace: list[Step] = []
    rounds = (right - left).bit_length()
    template = exclude_upper if last else exclude_lower
    left, right = template(questions.ask, left, right, trace, near)
    assert len(trace) <= rounds, "a template must not take more than ceil(log2 k) rounds"
    if check == "probes" and lo < hi:
        rng = random.Random(seed)
        for _ in range(num_probes):
            questions.ask(rng.randrange(lo, hi) if draw is None else draw(rng))
    elif check == "full":
        for key in range(lo, hi):
            questions.ask(key)
    if check != "none":
        questions.require_monotone()
    value = left if last else right
    if strict and value == (lo - 1 if last else hi):
        point = questions.point or (lambda key: key)
        raise NoSolutionError(
            f"the predicate is False from {point(lo)!r} to {point(max(lo, hi - 1))!r} "
            f"({hi - lo} points). Widen the range, or drop strict=True to get {point(value)!r}."
        )
    return SearchResult(
        value=value,
        evaluations=len(questions.answers),
        bracket=(left, right + 1) if last else (left - 1, right),
        trace=tuple(trace),
    )


def exclude_lower(
    ask: Callable[[int], bool],
    left: int,
    right: int,
    trace: list[Step],
    near: Callable[[int, int], bool] | None = None,
) -> tuple[int, int]:
    """Template L: lower mid; mid stays on the right side. Returns left == right, the first True."""
    while left < right:
        if near is not None and near(left - 1, right):
            break
        mid = left + (right - left) // 2
        holds = ask(mid)
        trace.append(Step(left, mid, right, holds))
        if holds:
            right = mid  # what lies right of mid can not be the first
        else:
            left = mid + 1  # neither mid nor what lies left of it can
    return left, right


def exclude_upper(
    ask: Callable[[int], bool],
    left: int,
    right: int,
    trace: list[Step],
    near: Callable[[int, int], bool] | None = None,
) -> tuple[int, int]:
    """Template U: upper mid; mid stays on the left side. Returns left == right, the last True."""
    while left < right:
        if near is not None and near(left, right + 1):
            break
        mid = left + (right - left + 1) // 2
        holds = ask(mid)
        trace.append(Step(left, mid, right, holds))
        if holds:
            left = mid  # what lies left of mid can not be the last
        else:
            right = mid - 1  # neither mid nor what lies right of it can
    return left, right


def integer_range(lo: Any, hi: Any, *, instead: str) -> tuple[int, int]:
    """Both ends as Python integers.  Raises: TypeError: a float.  InputError: lo > hi."""
    try:
        lo, hi = operator.index(lo), operator.index(hi)
    except TypeError:
        raise TypeError(
            f"lo and hi must be integers, got {lo!r} and {hi!r}. For floats use {instead}."
        ) from None
    if lo > hi:
        raise InputError(
            f"lo must be at most hi, got lo={lo} and hi={hi}. An empty range has lo == hi."
        )
    return lo, hi
