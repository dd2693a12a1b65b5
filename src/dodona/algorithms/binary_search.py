"""Binary search by excluding intervals: find where a yes turns into a no, with the fewest questions.

Source: Knuth, TAOCP vol. 3, 6.2.1 (1973); Bloch 2006, "Nearly all binary searches and mergesorts are
broken" (overflow). Not a root finder and not an index structure.

The template
------------
State: integers left <= right. Invariant: *the answer lies in the closed interval [left, right]*.
While left < right, ask once at mid which part can NOT hold the answer, and cut exactly that part.
At the end left == right is the answer: one exit, and no cases after it. ::

    template L, lower mid                      template U, upper mid
    mid = left + (right - left) // 2           mid = left + (right - left + 1) // 2
    the answer is right of mid: left = mid + 1 the answer is left of mid: right = mid - 1
    else:                       right = mid    else:                      left = mid

Termination. For left < right the lower mid satisfies left <= mid < right, so ``right = mid`` and
``left = mid + 1`` both shrink the interval; the upper mid satisfies left < mid <= right, so
``left = mid`` and ``right = mid - 1`` both do. The one wrong pairing is the lower mid with
``left = mid``: at right = left + 1 it gives mid = left, nothing shrinks, and the loop never ends.
The rule: *the branch that keeps mid decides the mid: kept on the right side (right = mid) takes the
lower one, kept on the left side (left = mid) the upper one.*

Questions. k possible answers need at most ceil(log2 k), since each question leaves at most
ceil(k / 2): a range of n positions has k = n + 1, "none" being one of them.

Overflow. ``left + (right - left) // 2`` and never ``(left + right) // 2`` where integers have a fixed
width; for ends of opposite sign right - left may overflow too, and many searches in one call use
``(left & right) + ((left ^ right) >> 1)``, the floor of the mean for any two integers.

Everything public of the method can be imported from here; each idea has a file of its own.
"""

from dodona.algorithms.batch_search import first_true_batch
from dodona.algorithms.float_search import (
    first_true_float,
    from_ordered_bits,
    last_true_float,
    ordered_bits,
)
from dodona.algorithms.interval_exclusion import first_true, last_true
from dodona.algorithms.kl_coefficient import KLCoefficient, kl_coefficient, tilted_kl
from dodona.algorithms.monotone_audit import Audit, audit_monotone
from dodona.algorithms.noisy_search import NoisyResult, noisy_search
from dodona.algorithms.open_search import (
    FeasibleResult,
    bracket,
    largest_batch,
    largest_feasible,
)
from dodona.algorithms.search_answers import (
    duplicate_number,
    integer_sqrt,
    kth_in_matrix,
    longest_increasing,
    median_of_two,
    minimal_capacity,
    minimal_days,
    minimal_largest_sum,
    minimal_speed,
    smallest_divisor,
)
from dodona.algorithms.search_record import SearchResult, Step
from dodona.algorithms.shaped_search import (
    find_peak,
    matrix_find,
    mountain_find,
    rotated_find,
    rotated_min,
    rotation,
)
from dodona.algorithms.sorted_search import count, equal_range, find, lower_bound, upper_bound
from dodona.errors import NonMonotoneError, NoSolutionError

__all__ = [
    "Audit", "FeasibleResult", "KLCoefficient", "NoSolutionError", "NoisyResult", "NonMonotoneError",
    "SearchResult", "Step", "audit_monotone", "bracket", "count", "duplicate_number", "equal_range",
    "find", "find_peak", "first_true", "first_true_batch", "first_true_float", "from_ordered_bits",
    "integer_sqrt", "kl_coefficient", "kth_in_matrix", "largest_batch", "largest_feasible",
    "last_true", "last_true_float", "longest_increasing", "lower_bound", "matrix_find",
    "median_of_two", "minimal_capacity", "minimal_days", "minimal_largest_sum", "minimal_speed",
    "mountain_find", "noisy_search", "ordered_bits", "rotated_find", "rotated_min", "rotation",
    "smallest_divisor", "tilted_kl", "upper_bound",
]  # fmt: skip
