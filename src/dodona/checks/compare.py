"""Comparisons as Check records: numbers with a tolerance, brackets without one."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from dodona.core.protocols import Check
from dodona.mdp import MDP


def close(name: str, got: Any, expected: Any, *, tolerance: float, source: str) -> Check:
    """|got - expected| at most ``tolerance``, in the worst entry; shapes must agree."""
    a, b = np.asarray(got, dtype=float), np.asarray(expected, dtype=float)
    error = float(np.max(np.abs(a - b), initial=0.0)) if a.shape == b.shape else float("inf")
    return Check(
        name=name, got=got, expected=expected, error=error, tolerance=tolerance, source=source
    )


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


def as_mdp(instance: Any, *, gamma: float | None = None) -> MDP:
    """The MDP of an oracle's instance."""
    R = np.where(instance.terminal[:, None], 0.0, instance.R)
    return MDP.from_dense(
        instance.P, R, gamma=instance.gamma if gamma is None else gamma, layout="sas", terminal=instance.terminal
    )  # fmt: skip
