"""Arrays that are sorted in pieces: rotated, with a peak, a mountain, or in rows and columns.

Each keeps the template: one question per round says which part can not hold the answer.
Source: the exercises LeetCode 33, 81, 153, 154, 162, 240, 1095 name them; the exclusion arguments
stand at each function.
Not for sorted arrays (sorted_search.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dodona.algorithms.interval_exclusion import first_true
from dodona.algorithms.search_record import Elements
from dodona.errors import InputError


def rotation(a: Elements) -> int:
    """Where a rotated ascending sequence begins: the least i with a[i:] + a[:i] ascending.

    Compare a[mid] with a[right]: greater, and the start lies right of mid; smaller, and it does not
    lie right of mid. a[left] would not tell: it may exceed a[mid] or not in an unrotated piece.
    Equal to a[right], nothing left of mid is excluded, and only right itself may go (when the piece
    is not known to begin there); so duplicates cost O(n) in the worst case, unavoidably.

    Args: a: an ascending sequence, cut once and swapped; duplicates allowed, not empty.
    Returns: the position of its smallest element, the first one in ascending order.
    Raises: InputError: an empty sequence.
    Source: LeetCode 153, 154.
    Oracle: oracles.search.rotation_by_trial.
    Cost: ceil(log2 n) comparisons without duplicates.
    """
    if not len(a):
        raise InputError("a rotated sequence needs at least one element, got none.")
    left, right = 0, len(a) - 1
    while left < right:
        mid = left + (right - left) // 2
        if a[right] < a[mid]:
            left = mid + 1
        elif a[mid] < a[right]:
            right = mid
        elif a[right] < a[right - 1]:
            return right  # the one descent of the sequence
        else:
            right -= 1
    return left


def rotated_min(a: Elements) -> Any:
    """The smallest element of a rotated ascending sequence.

    >>> rotated_min([3, 4, 5, 1, 2])
    1

    Args, Raises, Source, Cost: as rotation.  Oracle: min.
    """
    return a[rotation(a)]


def rotated_find(a: Elements, x: Any) -> int:
    """A position of x in a rotated ascending sequence, -1 where it is not there.

    Both pieces are ascending, and the last element tells which of them can hold x.

    >>> rotated_find([4, 5, 6, 7, 0, 1, 2], 0)
    4

    Args: a: as rotation, but may be empty.
    Returns: the position; the first one of its piece where x is repeated.
    Source: LeetCode 33, 81.  Oracle: oracles.search.first_index.  Cost: 2 ceil(log2 n) comparisons.
    """
    n = len(a)
    if not n:
        return -1
    start = rotation(a)
    lo, hi = (0, start) if a[n - 1] < x else (start, n)
    i = first_true(lambda i: not a[i] < x, lo, hi, check="none")
    return i if i < hi and a[i] == x else -1


def find_peak(a: Elements) -> int:
    """A local maximum: i with a[i] not below its neighbours (what lies beyond the ends is lower).

    Where a[mid] < a[mid + 1], some peak lies right of mid, since the ascent must end; else some peak
    lies at mid or left of it. No order of the whole is needed.

    >>> find_peak([1, 2, 1, 3, 5, 6, 4])
    5

    Args: a: any sequence, not empty.
    Returns: the position of a peak; which of several is not promised.
    Raises: InputError: an empty sequence.
    Source: LeetCode 162.  Oracle: oracles.search.is_peak.  Cost: ceil(log2 n) comparisons.
    """
    if not len(a):
        raise InputError("a peak needs at least one element, got none.")
    return first_true(lambda i: not a[i] < a[i + 1], 0, len(a) - 1, check="none")


def mountain_find(a: Elements, x: Any) -> int:
    """The first position of x in a strictly rising, then strictly falling sequence, or -1.

    >>> mountain_find([1, 2, 4, 5, 3, 1], 3)
    4

    Args: a: may also only rise or only fall, or be empty.
    Source: LeetCode 1095.  Oracle: oracles.search.first_index.  Cost: 3 ceil(log2 n) comparisons.
    """
    if not len(a):
        return -1
    top = find_peak(a)
    i = first_true(lambda i: not a[i] < x, 0, top + 1, check="none")
    if i <= top and a[i] == x:
        return i
    i = first_true(lambda i: not x < a[i], top + 1, len(a), check="none")
    return i if i < len(a) and a[i] == x else -1


def matrix_find(matrix: Sequence[Elements] | np.ndarray, x: Any) -> tuple[int, int]:
    """(row, column) of x in a matrix whose rows and columns ascend, or (-1, -1).

    Row after row one search finds where x would stand; below, it can only stand further left.

    Args: matrix: rows of one length; rows and columns ascending, equal elements allowed.
    Returns: the first row that holds x, and its first column there.
    Raises: InputError: rows of different lengths.
    Source: LeetCode 74 and 240.  Oracle: oracles.search.first_cell.
    Cost: O(rows log columns).
    """
    width = len(matrix[0]) if len(matrix) else 0
    for r, row in enumerate(matrix):
        if len(row) != width:
            raise InputError(
                f"row {r} has {len(row)} elements, row 0 has {width}; one length is needed."
            )
    hi = width
    for r, row in enumerate(matrix):
        i = first_true(lambda i, row=row: not row[i] < x, 0, hi, check="none")
        if i < width and row[i] == x:
            return r, i
        hi = i
    return -1, -1
