"""Numbers that change with a count: step sizes, exploration rates, coefficients.

A schedule is called with a count and answers with a number, or with an array for an array of
counts. Its name and parameters stay readable, so that a report prints it and a compiled learner can
rebuild it; two schedules are equal when these are.
Schedules of time count finished updates, 0 at the first; ``inverse_visits`` counts visits, 1 at the
first.

Source: Robbins & Monro 1951; Loshchilov & Hutter 2017, arXiv:1608.03983 (cosine); Even-Dar & Mansour
2003 (visits).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dodona.core.inputs import check_count, check_finite, check_range, is_tensor, namespace


@dataclass(frozen=True)
class Schedule:
    """A function of a count, with the name and the parameters it was made from."""

    name: str
    parameters: tuple[float, ...]
    rule: Callable[[Any], Any] = field(repr=False, compare=False)

    def __call__(self, count: Any) -> Any:
        """The value at a count, or at each of an array of counts.

        Raises: InputError: a count below the first.
        """
        count = count if is_tensor(count) else np.asarray(count)
        value = self.rule(count)
        return value if count.ndim else float(value)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{p:g}' for p in self.parameters)})"


def constant(value: float) -> Schedule:
    """The same number at every count.

    Raises: NonFiniteError: value.
    Source: ours.  Oracle: its value at any count (tests).

    >>> constant(0.1)(1000)
    0.1
    """
    check_finite(value=value)
    return Schedule("constant", (value,), lambda count: 0.0 * _from(0, count) + value)


def linear(start: float, end: float, num_steps: int, *, num_warmup: int = 0) -> Schedule:
    """A straight line from start at count 0 to end at num_steps, and end from then on.

    (1 - x) start + x end,  x = min(count / num_steps, 1).

    Args:
        start, end: first and last value.
        num_steps: counts from the first value to the last, warm-up included.
        num_warmup: the first counts climb instead: start (count + 1) / (num_warmup + 1). The line
            begins at count num_warmup. linear(a, a, ...) is a constant with warm-up.
    Raises: InputError: num_steps < 1, num_warmup outside [0, num_steps).  NonFiniteError: start, end.
    Source: Mnih et al. 2015 (exploration).  Oracle: the formula, count by count (tests).

    >>> epsilon = linear(1.0, 0.1, 9)
    >>> [round(epsilon(n), 3) for n in (0, 1, 9, 50)]
    [1.0, 0.9, 0.1, 0.1]
    """
    return _ramp("linear", start, end, num_steps, num_warmup, lambda share, xp: share)


def cosine(start: float, end: float, num_steps: int, *, num_warmup: int = 0) -> Schedule:
    """Half a cosine from start at count 0 to end at num_steps, flat at both ends, and end from then on.

    As linear, with (1 - cos(pi x)) / 2 in the place of x.

    Args, Raises: as linear.
    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.
    Oracle: the formula, count by count (tests).
    """
    return _ramp(
        "cosine", start, end, num_steps, num_warmup,
        lambda share, xp: 0.5 - 0.5 * xp.cos(math.pi * share),
    )  # fmt: skip


def inverse_visits(omega: float = 0.8) -> Schedule:
    """1 / N^omega at the N-th visit: the step size with which tabular learning converges.

    Args:
        omega: in (1/2, 1], so that the sum diverges and the sum of squares does not. At 1 the estimate
            is the plain mean, and Q-learning needs time exponential in 1 / (1 - gamma); below 1,
            polynomial.
    Raises: InputError: omega outside (1/2, 1].
    Source: Robbins & Monro 1951; Even-Dar & Mansour 2003.
    Oracle: at omega 1 the running mean (tests).

    >>> inverse_visits(1.0)(4)
    0.25
    """
    check_range("(0.5, 1]", "Robbins and Monro's conditions hold only there.", omega=omega)
    return Schedule("inverse_visits", (omega,), lambda count: 1.0 / _from(1, count) ** omega)


def _ramp(
    name: str, start: float, end: float, num_steps: int, num_warmup: int,
    shape: Callable[[Any, Any], Any],
) -> Schedule:  # fmt: skip
    check_finite(start=start, end=end)
    check_count(num_steps=num_steps)
    check_count(0, num_warmup=num_warmup)
    check_range(f"[0, {num_steps})", "It is part of num_steps.", num_warmup=num_warmup)

    def rule(count: Any) -> Any:
        xp, count = namespace(count), _from(0, count)
        share = ((count - num_warmup) / (num_steps - num_warmup)).clip(0.0, 1.0)
        climb = ((count + 1.0) / (num_warmup + 1.0)).clip(0.0, 1.0)
        share = shape(share, xp)
        return climb * ((1.0 - share) * start + share * end)

    return Schedule(name, (start, end, num_steps, num_warmup), rule)


def _from(first: int, count: Any) -> Any:
    """The counts as float64, none below the first."""
    check_range(f"[{first}, inf)", f"The first count is {first}.", count=count)
    return count.double() if is_tensor(count) else count.astype(np.float64)
