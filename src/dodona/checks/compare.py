"""Comparisons as Check records: numbers with a tolerance, brackets without one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from dodona.core.protocols import Check
from dodona.mdp import MDP
from dodona.oracles.instance import Fixture


def close(name: str, got: Any, expected: Any, *, tolerance: float, source: str) -> Check:
    """|got - expected| at most ``tolerance``, in the worst entry; shapes must agree."""
    a, b = np.asarray(got, dtype=float), np.asarray(expected, dtype=float)
    error = float(np.max(np.abs(a - b), initial=0.0)) if a.shape == b.shape else float("inf")
    return Check(
        name=name, got=got, expected=expected, error=error, tolerance=tolerance, source=source
    )


def each(case: str, found: Iterable[Check | tuple[str, Any, Any, float, str]]) -> Iterator[Check]:
    """Checks, and (name, got, expected, tolerance, source) as ``close``; the case is added to every name."""
    for item in found:
        if isinstance(item, Check):
            yield replace(item, name=f"{item.name}, {case}")
        else:
            name, got, expected, tolerance, source = item
            yield close(f"{name}, {case}", got, expected, tolerance=tolerance, source=source)


def inside(
    name: str, lower: Any, upper: Any, truth: Sequence[Fraction | float], *, source: str
) -> Check:
    """Every truth lies in its bracket, compared as exact fractions: tolerance 0."""
    worst = Fraction(0)
    for low, high, v in zip(np.ravel(lower), np.ravel(upper), truth, strict=True):
        v = Fraction(v)
        worst = max(worst, Fraction(float(low)) - v, v - Fraction(float(high)))
    return Check(
        name=name, got="bracket", expected="holds the truth", error=float(worst), tolerance=0.0, source=source
    )  # fmt: skip


def holds(name: str, slack: float, *, tolerance: float, source: str) -> Check:
    """An inequality: its slack (right side minus left side) is at least -tolerance; NaN fails."""
    error = max(0.0, -slack) if slack == slack else float("inf")
    return Check(
        name=name, got=slack, expected="slack >= 0", error=error, tolerance=tolerance, source=source
    )  # fmt: skip


def as_mdp(fixture: Fixture, *, gamma: float | None = None) -> MDP:
    """The MDP of an oracle's fixture."""
    return MDP.from_dense(
        fixture.P, fixture.R, gamma=fixture.gamma if gamma is None else gamma, layout="sas",
        terminal=fixture.terminal, action_mask=fixture.action_mask, start=fixture.start,
    )  # fmt: skip
