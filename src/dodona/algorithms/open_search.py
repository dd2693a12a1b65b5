"""Search without a known upper end: galloping, the largest feasible step, the largest batch that fits.

What these return was evaluated, and evaluated last: a caller whose predicate sets parameters or
allocates memory is left at the returned point, not at the last refused one.
Source: Bentley & Yao 1976, Inf. Process. Lett. 5 (unbounded search).
Not a trust-region step: the improvement test and the restoring of parameters belong to the caller.
"""

import math
import operator
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsIndex

from dodona.algorithms.float_search import last_true_float
from dodona.algorithms.interval_exclusion import last_true
from dodona.algorithms.search_record import Point, SearchResult, yes_or_no
from dodona.errors import InputError, NoSolutionError

SMALLEST_SHARE = 2.0**-40  # of x0: how far down a feasible step is looked for


def bracket(
    predicate: Callable[[Any], Any], x0: Point, *, factor: Point = 2, limit: Point
) -> tuple[Point, Point]:
    """Neighbours a < b of the sequence x0, x0 factor, x0 factor^2, ... between which the answer changes.

    >>> bracket(lambda i: i >= 1000, 1, limit=10**9)
    (512, 1024)

    Args:
        predicate: turns once, in either direction.
        x0: > 0; its answer is the one that must change.
        factor: > 1 to grow, in (0, 1) to shrink. Integers stay integers.
        limit: the last point that is asked, beyond x0 in the direction of the growth.
    Returns: (a, b), both asked, with different answers: the ends for first_true or last_true.
    Raises:
        InputError: x0 <= 0, factor <= 0 or 1, a limit on the wrong side.
        TypeError: a predicate that does not return a bool.
        NoSolutionError: the answer did not change up to the limit.
    Source: Bentley & Yao 1976.
    Oracle: oracles.search.first_true_by_scan.
    Cost: ceil(log_factor(answer / x0)) + 1 calls; a search between the two ends costs at most as much again.
    """
    if not (x0 > 0 and factor > 0 and factor != 1 and x0 * factor != x0):
        raise InputError(
            f"x0 must be > 0 and factor > 0 and not 1, got x0={x0!r} and factor={factor!r}. "
            "To shrink take a factor below 1, for instance 0.5."
        )
    if not (x0 <= limit if factor > 1 else 0 < limit <= x0):
        raise InputError(
            f"limit must be reached from x0={x0!r} by factors of {factor!r}, got limit={limit!r}."
        )
    first = yes_or_no(predicate, x0)
    last, turned = _turn(lambda x: yes_or_no(predicate, x), x0, first, factor, limit)
    if turned is None:
        raise NoSolutionError(
            f"the predicate is {first} from {x0!r} to the limit {last!r}, where it was asked last. "
            "Raise the limit, or check that it turns at all."
        )
    return min(last, turned), max(last, turned)


@dataclass(frozen=True, kw_only=True)
class FeasibleResult:
    """The largest feasible point.

    value: evaluated and feasible, by the last call.  evaluations: calls, all told.
    bracket: (value, nearest larger point known not to be feasible); (value, value) at the limit.
    witness: (a, b), a < b, where a probe a was refused though b was feasible; None = no probe was.
    """

    value: float
    evaluations: int
    bracket: tuple[float, float]
    witness: tuple[float, float] | None


def largest_feasible(
    feasible: Callable[[float], Any],
    x0: float,
    *,
    limit: float,
    factor: float = 2.0,
    rtol: float = 0.0,
    num_probes: int = 0,
    seed: int = 0,
) -> FeasibleResult:
    """The largest x <= limit that is feasible, where small x are and large ones are not.

    Gallops from x0 up or down to a change of the answer and bisects there. Where feasibility does not
    turn once (the KL of a network along a line), the result is still a feasible point whose
    right neighbour in the search is not; probes tell whether that happened.

    >>> largest_feasible(lambda x: x * x <= 2.0, 1.0, limit=100.0).value
    1.414213562373095

    Args:
        feasible: positive number -> bool.
        x0: first guess, > 0, the better the cheaper.
        limit: largest number that is asked.
        factor: > 1, of the galloping.
        rtol: stop when value is known to this share of itself; 0 = to the neighbouring double.
        num_probes: random points below the value that are asked too; a refused one is a witness.
        seed: of the probes.
    Returns: a FeasibleResult; the last call of ``feasible`` was at its value.
    Raises:
        InputError: x0, limit, factor or rtol out of range.
        TypeError: a predicate that does not return a bool.
        NoSolutionError: nothing feasible down to x0 / 2^40, or the last call took its answer back.
    Source: Bentley & Yao 1976; the last verified point: Schulman et al. 2015, arXiv:1502.05477, app. C.
    Oracle: oracles.search.last_true_by_scan on neighbouring doubles.
    Cost: 2 + |log2(value / x0)| calls to gallop, 52 to bisect (log2(1 / rtol) with rtol), probes, one more.
    """
    if not (factor > 1 and 0 <= rtol < 1):
        raise InputError(
            f"factor must be > 1 and rtol in [0, 1), got factor={factor} and rtol={rtol}. "
            "2 and 0 are usual."
        )
    ask = _Counted(feasible)
    x0, limit = float(x0), float(limit)
    if not 0 < x0 <= limit < math.inf:
        raise InputError(f"0 < x0 <= limit < inf is expected, got x0={x0} and limit={limit}.")
    refused: float | None
    if ask(x0):
        value, refused = _turn(ask, x0, True, factor, limit)
    else:
        refused, found_below = _turn(ask, x0, False, 1 / factor, x0 * SMALLEST_SHARE)
        if found_below is None:
            raise NoSolutionError(
                f"nothing is feasible from x0 = {x0!r} down to {refused!r}. Restore what the calls "
                "changed; if 0 is no solution either, the bound can not be kept."
            )
        value = found_below
    if refused is not None:
        found = last_true_float(
            ask, value, math.nextafter(refused, value), xtol=rtol * value or None, check="none",
            return_info=True,
        )  # fmt: skip
        # every answer above the value was no; the least of them is its neighbour in the search
        refused = min([s.mid for s in found.trace if not s.holds], default=refused)
        value = found.value
    rng = random.Random(seed)
    probes = [rng.uniform(0.0, value) for _ in range(num_probes)]
    no = [x for x in probes if 0 < x < value and not ask(x)]
    if not ask(value):
        raise NoSolutionError(
            f"feasible({value!r}) was True and is now False: the answers are not a function of the "
            "point. Fix the random numbers inside it, or restore its state before each call."
        )
    return FeasibleResult(
        value=value,
        evaluations=ask.calls,
        bracket=(value, value if refused is None else refused),
        witness=(min(no), value) if no else None,
    )


def largest_batch(
    fits: Callable[[int], Any],
    *,
    limit: SupportsIndex,
    start: SupportsIndex = 1,
    margin: float = 0.05,
    reset: Callable[[], Any] | None = None,
    return_info: bool = False,
) -> int | SearchResult:
    """The largest batch size that fits with room to spare.

    The largest size n that fits is found by doubling and bisection; floor(n (1 - margin)) is asked
    once more, last, and returned. Sizes up to limit / (1 - margin) are tried, so that the margin
    holds at the limit too.

    Args:
        fits: size -> bool: does one whole step (forward, backward, optimizer) of that size fit?
            Memory that only the optimizer's first step takes must have been taken.
        limit: largest size that is wanted.  start: first size tried.
        margin: share of the size given back, in [0, 1): fragmentation, longer rows. 5 % is usual.
        reset: called before each question, to empty caches.
        return_info: return a SearchResult: ``bracket`` is the largest size that fitted and the least
            that did not (itself again where all did).
    Returns: the size, at most limit.
    Raises:
        InputError: limit or start < 1, start > limit, margin out of range.
        TypeError: a predicate that does not return a bool.
        NoSolutionError: a batch of one does not fit.
    Source: ours.  Oracle: oracles.search.last_true_by_scan.
    Cost: about 2 log2(n / start) + 2 steps.
    """
    limit, start = operator.index(limit), operator.index(start)
    if not 1 <= start <= limit:
        raise InputError(f"1 <= start <= limit is expected, got start={start} and limit={limit}.")
    if not 0 <= margin < 1:
        raise InputError(f"margin must be in [0, 1), got {margin}. 0.05 is usual.")
    ask = _Counted(fits, reset)
    good, bad = 0, start
    if ask(start):
        good, bad = _turn(ask, start, True, 2, math.ceil(limit / (1 - margin)))
    if bad is not None:
        found = last_true(ask, good + 1, bad, check="none", return_info=True)
        good, bad = found.bracket
    # what fitted once may not fit again (fragmentation); then one more margin is given back
    size = min(limit, _less(good, margin))
    while size >= 1 and not ask(size):
        size = min(size - 1, _less(size, margin))
    if size < 1:
        raise NoSolutionError(
            f"not even one example fits (asked at {start} and down to 1). Make the model, the rows "
            "or the precision smaller."
        )
    if not return_info:
        return size
    return SearchResult(
        value=size, evaluations=ask.calls, bracket=(good, good if bad is None else bad), trace=()
    )


# ---------------------------------------------------------------------- private
class _Counted:
    """A predicate that counts its calls and demands a bool; ``reset`` comes before each of them."""

    def __init__(self, predicate: Callable[[Any], Any], reset: Callable[[], Any] | None = None):
        self.predicate, self.reset, self.calls = predicate, reset, 0

    def __call__(self, x: Any) -> bool:
        self.calls += 1
        if self.reset is not None:
            self.reset()
        return yes_or_no(self.predicate, x)


def _turn(
    ask: Callable[[Any], bool], x0: Point, first: bool, factor: Point, limit: Point
) -> tuple[Point, Point | None]:
    """Along x0, x0 factor, ... up to limit: the last point with the answer ``first``, and the next one.

    The next is None where all answers up to the limit are alike.
    """
    x = x0
    while x != limit:
        before, x = x, min(x * factor, limit) if factor > 1 else max(x * factor, limit)
        if ask(x) != first:
            return before, x
    return x, None


def _less(size: int, margin: float) -> int:
    """floor(size (1 - margin)), but a size of at least one stays one."""
    return max(math.floor(size * (1 - margin)), min(size, 1))
