"""Searches without a search: scans, counts, trials and enumerations. Slow, with nothing to get wrong.

Source: definitions.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import numpy as np

LIMIT = 100_000


def first_true_by_scan(answers: Iterable[bool]) -> int:
    """Position of the first True; the number of answers where there is none."""
    answers = list(answers)
    return next((i for i, holds in enumerate(answers) if holds), len(answers))


def last_true_by_scan(answers: Sequence[bool]) -> int:
    """Position of the last True; -1 where there is none."""
    return max((i for i, holds in enumerate(answers) if holds), default=-1)


def turns_once(answers: Sequence[bool], *, falling: bool = False) -> bool:
    """Are the answers False..False True..True (True..True False..False if falling)?"""
    return list(answers) == sorted(answers, reverse=falling)


def neighbours(x: float, num: int) -> list[float]:
    """The double x, ``num`` doubles below it and ``num`` above it, ascending, one nextafter at a time."""
    below, above = [], []
    low = high = x
    for _ in range(num):
        low, high = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
        below.append(low)
        above.append(high)
    return [*reversed(below), x, *above]


def bounds_by_counting(a: Sequence, x, *, reverse: bool = False) -> tuple[int, int]:
    """(elements before x, elements before and equal to x): lower and upper bound of sorted elements."""
    before = sum(1 for e in a if (e > x if reverse else e < x))
    return before, before + sum(1 for e in a if e == x)


def first_index(a: Sequence, x) -> int:
    """The first position of x, -1 where it is not there."""
    return next((i for i, e in enumerate(a) if e == x), -1)


def first_cell(matrix: Sequence[Sequence], x) -> tuple[int, int]:
    """(row, column) of x in reading order, (-1, -1) where it is not there."""
    return next(
        ((r, c) for r, row in enumerate(matrix) for c, e in enumerate(row) if e == x), (-1, -1)
    )


def rotation_by_trial(a: Sequence) -> int:
    """Least i for which a[i:] + a[:i] ascends."""
    a = list(a)
    return next(i for i in range(len(a)) if a[i:] + a[:i] == sorted(a))


def is_peak(a: Sequence, i: int) -> bool:
    """No neighbour of position i is larger."""
    return all(not a[j] > a[i] for j in (i - 1, i + 1) if 0 <= j < len(a))


def least_by_scan(works: Callable[[int], bool], candidates: Iterable[int]) -> int | None:
    """The first candidate that works, None where none does."""
    return next((c for c in candidates if works(c)), None)


def split_by_enumeration(values: Sequence[int], parts: int, *, exactly: bool = True) -> int:
    """Least largest sum over all ways to cut values into that many pieces (or at most that many).

    Raises: ValueError: more than 100 000 ways.
    """
    n = len(values)
    best = None
    for pieces in [parts] if exactly else range(1, min(parts, n) + 1):
        if math.comb(n - 1, pieces - 1) > LIMIT:
            raise ValueError(f"{math.comb(n - 1, pieces - 1)} ways are too many, at most {LIMIT}")
        for cuts in itertools.combinations(range(1, n), pieces - 1):
            edges = [0, *cuts, n]
            largest = max(sum(values[i:j]) for i, j in itertools.pairwise(edges))
            best = largest if best is None else min(best, largest)
    return best


def repeated(values: Sequence[int]) -> int:
    """The value that comes more than once."""
    return next(v for v in values if list(values).count(v) > 1)


def longest_by_enumeration(values: Sequence, *, strict: bool = True) -> int:
    """Length of a longest increasing subsequence, by all 2^n subsequences; n <= 16."""
    n = len(values)
    if n > 16:
        raise ValueError(f"2^{n} subsequences are too many")
    for length in range(n, 0, -1):
        for chosen in itertools.combinations(values, length):
            if all(a < b or (a == b and not strict) for a, b in itertools.pairwise(chosen)):
                return length
    return 0


def tilted_kl_by_definition(logp_ref, rewards, b: float) -> float:
    """KL(pi_b || pi_ref) = sum of pi_b log(pi_b / pi_ref), pi_b proportional to pi_ref exp(b r)."""
    logits = np.asarray(logp_ref, dtype=float) + b * np.asarray(rewards, dtype=float)
    top = logits.max()
    log_pi = logits - (top + math.log(np.exp(logits - top).sum()))
    return math.fsum(
        math.exp(lp) * (lp - q) for lp, q in zip(log_pi, logp_ref, strict=True) if lp > -700.0
    )


def posterior_by_bayes(
    num_answers: int, replies: Iterable[tuple[int, bool]], accuracy: Fraction
) -> list[Fraction]:
    """Posterior of the first True after noisy replies (point, answer), from an even prior, exactly.

    Points are 0..num_answers - 2; the last answer means that none holds.
    """
    weights = []
    replies = list(replies)
    for answer in range(num_answers):
        weight = Fraction(1)
        for point, holds in replies:
            weight *= accuracy if holds == (point >= answer) else 1 - accuracy
        weights.append(weight)
    total = sum(weights)
    return [w / total for w in weights]
