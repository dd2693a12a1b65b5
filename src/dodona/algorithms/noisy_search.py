"""Binary search when every answer may be wrong: a posterior over the boundary, halved by its median.

Source: Horstein 1963; Waeber, Frazier & Henderson 2013, SIAM J. Control Optim. 51(3), Bisection
search with noisy responses.
Not for a predicate that is deterministically wrong somewhere: asking it again teaches nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np

from dodona.algorithms.interval_exclusion import integer_range
from dodona.algorithms.search_record import Step, yes_or_no
from dodona.core.shapes import FloatArray
from dodona.errors import InputError, NoSolutionError

LARGEST_RANGE = 2**20  # the posterior is a table with one entry per answer


@dataclass(frozen=True, kw_only=True)
class NoisyResult:
    """A boundary with the belief in it.

    value: the most probable answer.  probability: its posterior probability.
    posterior: [hi - lo + 1], of every answer from lo to hi.
    evaluations: calls.  trace: (left, mid, right, answer); left..right are the answers that hold all
    but alpha of the posterior, alpha / 2 on each side.
    """

    value: int
    probability: float
    posterior: FloatArray
    evaluations: int
    trace: tuple[Step, ...]


def noisy_search(
    predicate: Callable[[int], Any],
    lo: SupportsIndex,
    hi: SupportsIndex,
    *,
    accuracy: float,
    alpha: float = 0.05,
    prior: FloatArray | None = None,
    max_evaluations: int = 10_000,
) -> NoisyResult:
    """First True of a predicate of which every answer is right with probability ``accuracy``.

    The posterior of the answer starts at the prior. Each round asks at its median and multiplies the
    answers that agree by accuracy, those that do not by 1 - accuracy. It stops once one answer holds
    1 - alpha; if the prior is right, so is the value with at least that probability.

    Args:
        predicate: position -> bool, independent errors, asked again and again at the same points.
        lo, hi: as first_true; hi is the answer where no point holds. At most 2^20 points.
        accuracy: p in (1/2, 1], the same everywhere; a lower bound of it only costs rounds.
        alpha: in (0, 1), posterior probability that is left to other answers.
        prior: [hi - lo + 1] non-negative weights of lo..hi; None = even.
        max_evaluations: then the search gives up.
    Returns: a NoisyResult.
    Raises:
        InputError: accuracy, alpha or prior out of range, lo > hi, or a range that is too long.
        TypeError: a predicate that does not return a bool.
        NoSolutionError: max_evaluations were not enough; names the best answer so far.
    Source: Waeber, Frazier & Henderson 2013, sec. 2 (discrete form).
    Oracle: oracles.search.posterior_by_bayes; share of right answers over simulated searches.
    Cost: about log2(n + 1) / (1 + p log2 p + (1 - p) log2(1 - p)) calls, O(n) each beside the call.
    """
    lo, hi = integer_range(lo, hi, instead="first_true_float")
    if not 0.5 < accuracy <= 1:
        raise InputError(
            f"accuracy must be in (1/2, 1], got {accuracy}. An answer that is right half of the time "
            "says nothing; below one half, negate the predicate."
        )
    if not 0 < alpha < 1:
        raise InputError(f"alpha must be in (0, 1), got {alpha}. 0.05 is usual.")
    if hi - lo > LARGEST_RANGE:
        raise InputError(
            f"at most {LARGEST_RANGE} points, got {hi - lo}. Search a coarser grid first."
        )
    belief = _prior(prior, hi - lo + 1)
    trace: list[Step] = []
    while True:
        best = int(np.argmax(belief))
        if belief[best] >= 1 - alpha:
            return NoisyResult(
                value=lo + best,
                probability=float(belief[best]),
                posterior=belief,
                evaluations=len(trace),
                trace=tuple(trace),
            )
        if len(trace) >= max_evaluations:
            raise NoSolutionError(
                f"after {max_evaluations} calls the best answer {lo + best} has probability "
                f"{belief[best]:.3g}, expected >= {1 - alpha:g}. Raise max_evaluations or alpha; an "
                "accuracy that is claimed too high has the same effect."
            )
        mass = np.cumsum(belief)
        # the point at which the answers up to it hold closest to one half
        mid = int(np.argmin(np.abs(mass[:-1] - 0.5)))
        holds = yes_or_no(predicate, lo + mid)
        low, high = np.searchsorted(mass, [alpha / 2, 1 - alpha / 2])
        trace.append(Step(lo + int(low), lo + mid, lo + min(int(high), hi - lo), holds))
        agree = np.arange(len(belief)) <= mid
        belief = belief * np.where(agree == holds, accuracy, 1 - accuracy)
        belief /= belief.sum()


def _prior(prior: FloatArray | None, size: int) -> FloatArray:
    if prior is None:
        return np.full(size, 1.0 / size)
    prior = np.array(prior, dtype=np.float64)
    if prior.shape != (size,) or not np.all(prior >= 0) or not 0 < prior.sum() < np.inf:
        raise InputError(
            f"prior must hold one weight >= 0 for each of the {size} answers, not all 0; got shape "
            f"{prior.shape}."
        )
    return prior / prior.sum()
