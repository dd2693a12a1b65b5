"""Search on the answer: the least or largest number for which a plan works, where more can not hurt.

Each function names its predicate; that it turns once is the whole argument, and stands beside it.
Source: the exercises are LeetCode's, by number at each function; longest_increasing: Fredman 1975.
Not here: searches over floats with a bound to keep (open_search.py).
"""

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from dodona.algorithms.interval_exclusion import first_true, last_true
from dodona.algorithms.search_record import Elements
from dodona.core.shapes import IntArray
from dodona.errors import InputError, NoSolutionError


def integer_sqrt(n: SupportsIndex) -> int:
    """The largest i with i^2 <= n. Squares ascend.

    >>> integer_sqrt(8)
    2

    Raises: InputError: n < 0.
    Source: LeetCode 69.  Oracle: math.isqrt.  Cost: half as many squares as n has bits.
    """
    n = operator.index(n)
    if n < 0:
        raise InputError(f"n must be >= 0, got {n}. There is no real root.")
    high = 1 << (n.bit_length() + 1) // 2  # high^2 > n
    return last_true(lambda i: i * i <= n, 0, high + 1, check="none")


def minimal_speed(piles: Sequence[int] | IntArray, hours: SupportsIndex) -> int:
    """Least k with sum over piles of ceil(pile / k) <= hours: one pile an hour at most. Speed helps.

    >>> minimal_speed([3, 6, 7, 11], 8)
    4

    Args: piles: positive sizes.  hours: at least one per pile.
    Raises: InputError: a size that is not a positive integer.  NoSolutionError: fewer hours than piles.
    Source: LeetCode 875.  Oracle: oracles.search.least_by_scan.  Cost: O(n log(largest pile)).
    """
    piles, hours = _positive("piles", piles), operator.index(hours)
    if hours < len(piles):
        raise NoSolutionError(
            f"{len(piles)} piles need {len(piles)} hours at any speed, got {hours}."
        )
    return first_true(
        lambda k: sum(-(-p // k) for p in piles) <= hours, 1, max(piles), check="none"
    )


def minimal_capacity(weights: Sequence[int] | IntArray, days: SupportsIndex) -> int:
    """Least capacity that ships the weights, in their order, within so many days. Capacity helps.

    >>> minimal_capacity([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 5)
    15

    Args: weights: positive.  days: at least 1.
    Raises: InputError: a weight that is not a positive integer, or days < 1.
    Source: LeetCode 1011.  Oracle: oracles.search.split_by_enumeration.  Cost: O(n log(sum)).
    """
    weights = _positive("weights", weights)
    days = _at_least_one("days", days)
    return first_true(
        lambda c: _num_parts(weights, c) <= days, max(weights), sum(weights), check="none"
    )


def minimal_largest_sum(values: Sequence[int] | IntArray, parts: SupportsIndex) -> int:
    """Cut values into that many pieces, none empty, so that the largest sum of a piece is least.

    The same question as minimal_capacity, because a piece with more than one value can be cut
    further at no cost: "at most" and "exactly" that many pieces have one answer.

    >>> minimal_largest_sum([7, 2, 5, 10, 8], 2)
    18

    Args: values: >= 0, in order.  parts: in 1..len(values).
    Raises: InputError: a negative or non-integer value, parts < 1.  NoSolutionError: more parts than values.
    Source: LeetCode 410.  Oracle: oracles.search.split_by_enumeration.  Cost: O(n log(sum)).
    """
    values = _positive("values", values, least=0)
    parts = _at_least_one("parts", parts)
    if parts > len(values):
        raise NoSolutionError(
            f"{len(values)} values can not be cut into {parts} pieces that are not empty."
        )
    return first_true(
        lambda c: _num_parts(values, c) <= parts, max(values), sum(values), check="none"
    )


def smallest_divisor(values: Sequence[int] | IntArray, threshold: SupportsIndex) -> int:
    """Least d with sum of ceil(value / d) <= threshold. A larger divisor gives a smaller sum.

    >>> smallest_divisor([1, 2, 5, 9], 6)
    5

    Args: values: positive.  threshold: at least one per value.
    Raises: as minimal_speed, whose question it is under another name.
    Source: LeetCode 1283.  Oracle: oracles.search.least_by_scan.  Cost: O(n log(largest value)).
    """
    return minimal_speed(values, threshold)


def minimal_days(
    bloom: Sequence[int] | IntArray, bouquets: SupportsIndex, flowers: SupportsIndex
) -> int:
    """First day on which so many bouquets of so many adjacent open flowers can be cut. Waiting helps.

    >>> minimal_days([1, 10, 3, 10, 2], 3, 1)
    3

    Args: bloom: day on which each flower opens, positive.  bouquets, flowers: at least 1.
    Raises: InputError: a day that is not a positive integer, counts < 1.  NoSolutionError: too few flowers.
    Source: LeetCode 1482.  Oracle: oracles.search.least_by_scan.  Cost: O(n log n).
    """
    bloom = _positive("bloom", bloom)
    bouquets, flowers = _at_least_one("bouquets", bouquets), _at_least_one("flowers", flowers)
    if bouquets * flowers > len(bloom):
        raise NoSolutionError(
            f"{bouquets} bouquets of {flowers} need {bouquets * flowers} flowers, got {len(bloom)}."
        )
    # the answer is a day on which something opens; the whole row is long enough on the last of them
    days = sorted(set(bloom))
    return days[
        first_true(
            lambda i: _num_bouquets(bloom, days[i], flowers) >= bouquets,
            0,
            len(days) - 1,
            check="none",
        )
    ]


def duplicate_number(values: Sequence[int] | IntArray) -> int:
    """The number that is repeated among n + 1 numbers of 1..n, by counting those <= m.

    If every number up to m came at most once, at most m are <= m; from the repeated one on they are more.

    >>> duplicate_number([1, 3, 4, 2, 2])
    2

    Args: values: n + 1 integers in 1..n with one repeated number (as often as it likes).
    Raises: InputError: a value outside 1..n, or fewer than two values.
    Source: LeetCode 287.  Oracle: oracles.search.repeated.  Cost: O(n log n), values are not changed.
    """
    values = [operator.index(v) for v in values]
    n = len(values) - 1
    if n < 1:
        raise InputError(f"at least two values are needed, got {len(values)}.")
    for i, v in enumerate(values):
        if not 1 <= v <= n:
            raise InputError(
                f"values[{i}] = {v} is outside 1..{n}, one less than there are values."
            )
    return first_true(lambda m: sum(v <= m for v in values) > m, 1, n, check="none")


def kth_in_matrix(matrix: Sequence[Elements] | np.ndarray, k: SupportsIndex) -> Any:
    """The k-th smallest element of a matrix whose rows ascend, k counted from 1.

    The number of elements <= x grows with x; the answer is the least element of which k are <= it.
    Elements stand for themselves as candidates, one row after another, so any ordered type will do.

    >>> kth_in_matrix([[1, 5, 9], [10, 11, 13], [12, 13, 15]], 8)
    13

    Args: matrix: ascending rows; their lengths and columns do not matter.  k: in 1..number of elements.
    Raises: InputError: k out of range.
    Source: LeetCode 378.  Oracle: sorted.  Cost: O(rows^2 log^2 columns).
    """
    size = sum(len(row) for row in matrix)
    k = operator.index(k)
    if not 1 <= k <= size:
        raise InputError(f"k must be in 1..{size}, the number of elements, got {k}.")
    for row in matrix:
        i = first_true(
            lambda i, row=row: sum(bisect_right(r, row[i]) for r in matrix) >= k, 0, len(row), check="none"
        )  # fmt: skip
        # of which fewer than k are smaller: then it is the k-th itself
        if i < len(row) and sum(bisect_left(r, row[i]) for r in matrix) < k:
            return row[i]
    raise InputError("no element has rank k, so some row is not ascending. Sort the rows first.")


def median_of_two(a: Elements, b: Elements) -> float:
    """The median of two ascending sequences together, without merging them.

    Take i elements from the shorter one and the rest of the lower half from the other. Too few
    are taken while the next of a is smaller than the last taken of b, and that turns once.

    >>> median_of_two([1, 3], [2])
    2.0

    Args: a, b: ascending numbers, not both empty.
    Returns: the middle one, or the mean of the two in the middle, as a float.
    Raises: InputError: both are empty.
    Source: LeetCode 4.  Oracle: statistics.median of both.  Cost: O(log(shorter length)).
    """
    if len(a) > len(b):
        a, b = b, a
    size = len(a) + len(b)
    if not size:
        raise InputError("a median needs at least one number, got two empty sequences.")
    half = (size + 1) // 2
    i = first_true(lambda i: not a[i] < b[half - i - 1], 0, len(a), check="none")
    j = half - i
    low = max([*a[max(i - 1, 0) : i], *b[max(j - 1, 0) : j]])
    if size % 2:
        return float(low)
    high = min([*a[i : i + 1], *b[j : j + 1]])
    return (float(low) + float(high)) / 2


def longest_increasing(values: Elements, *, strict: bool = True) -> list[Any]:
    """A longest increasing subsequence.

    tails[m] is the least last element of an increasing subsequence of m + 1 elements; it ascends, so
    each element finds by lower_bound the one that it replaces.

    >>> longest_increasing([10, 9, 2, 5, 3, 7, 101, 18])
    [2, 3, 7, 18]

    Args: strict: strictly increasing; False allows equal neighbours (upper_bound instead).
    Returns: the subsequence; of several longest ones that with the least elements at its end.
    Source: LeetCode 300; Fredman 1975, Discrete Math. 11.
    Oracle: oracles.search.longest_by_enumeration.  Cost: O(n log n).
    """
    tails: list[Any] = []
    positions: list[int] = []  # of the tails
    before: list[int] = []  # position of the element that precedes each element in its subsequence
    place = bisect_left if strict else bisect_right
    for i, value in enumerate(values):
        m = place(tails, value)
        tails[m : m + 1], positions[m : m + 1] = [value], [i]
        before.append(positions[m - 1] if m else -1)
    chain, i = [], positions[-1] if positions else -1
    while i >= 0:
        chain.append(values[i])
        i = before[i]
    return chain[::-1]


# ---------------------------------------------------------------------- private
def _num_parts(values: Sequence[int] | IntArray, limit: int) -> int:
    """Pieces with sums <= limit, filled greedily; every value is <= limit."""
    parts, room = 1, limit
    for value in values:
        if value > room:
            parts, room = parts + 1, limit
        room -= value
    return parts


def _num_bouquets(bloom: Sequence[int], day: int, flowers: int) -> int:
    """Runs of so many neighbours that are open, taken greedily."""
    made = run = 0
    for opens in bloom:
        run = run + 1 if opens <= day else 0
        if run == flowers:
            made, run = made + 1, 0
    return made


def _positive(name: str, values: Sequence[int] | IntArray, *, least: int = 1) -> list[int]:
    values = [operator.index(v) for v in values]
    if not values:
        raise InputError(f"{name} must not be empty.")
    for i, v in enumerate(values):
        if v < least:
            raise InputError(f"{name}[{i}] must be >= {least}, got {v}.")
    return values


def _at_least_one(name: str, n: SupportsIndex) -> int:
    n = operator.index(n)
    if n < 1:
        raise InputError(f"{name} must be at least 1, got {n}.")
    return n
