"""What every search shares: the steps it took, its result, and questions that are asked only once.

Not a search itself: the two templates are in interval_exclusion.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dodona.errors import NonMonotoneError

Point = int | float
Elements = Sequence[Any] | np.ndarray  # sorted values: a list, tuple, string or [n] array


class Step(NamedTuple):
    """One round of a search: the closed interval that holds the answer, the question, its answer."""

    left: Point
    mid: Point
    right: Point
    holds: bool


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A boundary and how it was found.

    value: the answer.
    evaluations: calls of the predicate, those of ``check`` included.
    bracket: (a, b), neighbours between which the answer changes; closer than xtol where one was
        given. An end that was never asked stands for itself.
    trace: one Step per round of the template; questions of ``check`` are not rounds.
    """

    value: Point
    evaluations: int
    bracket: tuple[Point, Point]
    trace: tuple[Step, ...]


class Questions:
    """Asks a predicate at integer keys: each key once, answers counted, remembered and typed.

    Args:
        predicate: point -> bool.
        point: key -> point that the predicate understands; None = the key itself.
        falling: True for True..True False..False, False for the opposite order.
    """

    def __init__(
        self,
        predicate: Callable[[Any], Any],
        *,
        point: Callable[[int], Any] | None = None,
        falling: bool = False,
    ):
        self.predicate, self.point, self.falling = predicate, point, falling
        self.answers: dict[int, bool] = {}

    def ask(self, key: int) -> bool:
        """The predicate at a key.  Raises: TypeError: the answer is not a bool."""
        known = self.answers.get(key)
        if known is None:
            known = yes_or_no(self.predicate, key if self.point is None else self.point(key))
            self.answers[key] = known
        return known

    def contradiction(self) -> tuple[int, int] | None:
        """Keys a < b whose answers stand in the wrong order, None where all agree.

        They are the outermost pair: a the least key with the later answer, b the greatest with the
        earlier one.
        """
        early = [k for k, holds in self.answers.items() if holds == self.falling]
        late = [k for k, holds in self.answers.items() if holds != self.falling]
        if early and late and min(late) < max(early):
            return min(late), max(early)
        return None

    def require_monotone(self) -> None:
        """Raises: NonMonotoneError: two answers contradict each other."""
        found = self.contradiction()
        if found is None:
            return
        a, b = found if self.point is None else (self.point(found[0]), self.point(found[1]))
        order = "True..True False..False" if self.falling else "False..False True..True"
        raise NonMonotoneError(
            f"the predicate is {not self.falling} at {a!r} and {self.falling} at {b!r}; {order} is "
            "expected. No boundary exists; negate the predicate, or narrow the range to where it "
            "turns once.",
            witness=(a, b),
        )


def yes_or_no(predicate: Callable[[Any], Any], point: Any) -> bool:
    """The predicate's answer.  Raises: TypeError: anything but a bool, say an array or None."""
    answer = predicate(point)
    if answer is True or answer is False:
        return answer
    if isinstance(answer, np.bool_):
        return bool(answer)
    raise TypeError(
        f"the predicate must return a bool, got {type(answer).__name__} at {point!r}. Wrap a "
        "one-element array or tensor in bool(...); for many searches in one call use first_true_batch."
    )
