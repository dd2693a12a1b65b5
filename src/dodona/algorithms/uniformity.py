"""Is it uniform? Two tests with a stated level and no table: one for numbers, one for points of a disc.

A sampler is checked by turning its points into numbers that must be uniform (F of the radius, the
angle in turns) or by counting them in cells of equal area. At level 1e-6 a correct sampler fails once
in a million seeds; a wrong one whose law is D away is rejected almost surely once n D^2 > 30.

Source: Dvoretzky, Kiefer & Wolfowitz 1956 with Massart's constant 1990 (KS); Pearson 1900 (cells).
Not here: independence of successive points, which is the generator's business.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import chdtrc, chdtri

from dodona.core.inputs import check_count, check_range
from dodona.core.shapes import FloatArray
from dodona.errors import InputError, ShapeError

LEVEL = 1e-6  # with some hundred tests in a suite, one false alarm in ten thousand suites
ADVICE = "1e-6 is the default."
FEWEST_PER_CELL = 5  # expected; below, chi-square is no longer the law of Pearson's sum


@dataclass(frozen=True, kw_only=True)
class UniformityTest:
    """statistic: what was measured.  threshold: rejected above it, at the level that was asked for.

    p_value: chance (for ks_uniform a bound of it) that a uniform law gives this statistic or more.
    """

    statistic: float
    threshold: float
    p_value: float

    @property
    def rejected(self) -> bool:
        return not self.statistic <= self.threshold


def ks_uniform(values: Float[np.ndarray, "n"], *, level: float = LEVEL) -> UniformityTest:
    """Distance of numbers from the uniform law on [0, 1], for every n and without an asymptotic table.

    D = sup_x |share of values <= x - x|, P(D > d) <= 2 exp(-2 n d^2), so the threshold at level a is
    sqrt(log(2 / a) / (2 n)) = 2.694 / sqrt(n) at a = 1e-6.

    Args:
        values: n >= 1 numbers; those outside [0, 1] count as mass beyond the ends.
        level: chance in (0, 1) to reject a uniform law, at most.
    Returns: D, its threshold, and the bound as p-value.
    Raises: InputError: no values, NaN (its position is named), level outside (0, 1).
    Source: Massart 1990, cor. 1.
    Oracle: scipy.stats.kstest (D); the exact law of D stays below the bound.
    Cost: O(n log n), one sort.
    """
    n = len(values)
    if n == 0:
        raise InputError("ks_uniform needs at least one value, got none.")
    check_range("(0, 1)", ADVICE, level=level)
    x = np.sort(np.clip(np.asarray(values, dtype=np.float64), 0.0, 1.0))
    if np.isnan(x[-1]):  # NaN sorts last
        raise InputError(f"value {int(np.isnan(values).argmax())} is NaN; the test needs numbers.")
    steps = np.arange(n + 1) / n
    distance = float(max((steps[1:] - x).max(), (x - steps[:-1]).max()))
    return UniformityTest(
        statistic=distance,
        threshold=math.sqrt(math.log(2 / level) / (2 * n)),
        p_value=min(1.0, 2 * math.exp(-2 * n * distance**2)),
    )


def chi2_cells(
    points: Float[Any, "n 2"], *, radius: float = 1.0, center: Sequence[float] | FloatArray = (0.0, 0.0),
    num_rings: int = 8, level: float = LEVEL,
) -> UniformityTest:  # fmt: skip
    """Pearson's test on K x K cells of equal area: K rings with radii R sqrt(i / K), K sectors.

    X = sum over cells (N - n / K^2)^2 / (n / K^2), chi-square with K^2 - 1 degrees of freedom. It sees
    what the marginals of radius and angle hide. A point outside the disc has no cell: X is infinite.

    Args:
        points: n points, at least 5 per cell on average.
        radius, center: of the disc.
        num_rings: K >= 2.
        level: chance in (0, 1) to reject a uniform law.
    Raises: InputError: too few points (the number needed is named), level outside (0, 1), K < 2,
        a point that is not finite, radius not in (0, inf).
    Source: Pearson 1900; the cells of Shirley & Chiu 1997.
    Oracle: scipy.stats.chisquare on cells counted one by one.
    Cost: O(n).
    """
    check_count(2, num_rings=num_rings)
    check_range("(0, 1)", ADVICE, level=level)
    check_range("(0, inf)", radius=radius)
    K = num_rings
    middle = np.asarray(center, dtype=np.float64)
    if middle.shape != (2,):
        raise ShapeError(f"center must be two numbers (x, y), got shape {middle.shape}.")
    points = np.asarray(points, dtype=np.float64)
    n = len(points)
    if n < FEWEST_PER_CELL * K * K:
        raise InputError(
            f"{K} x {K} cells need at least {FEWEST_PER_CELL * K * K} points, got {n}. Lower num_rings."
        )
    z = points - middle
    square = (z**2).sum(axis=1) / radius**2
    if not np.isfinite(square).all():
        i = int((~np.isfinite(square)).argmax())
        raise InputError(f"point {i} is not finite: {points[i].tolist()}.")
    # the centre's own rounding may lift a point of the rim over it
    slack = 8 * np.finfo(np.float64).eps * (1 + np.abs(middle).max() / radius)
    threshold = float(chdtri(K * K - 1, level))
    if square.max() > 1 + slack:
        return UniformityTest(statistic=math.inf, threshold=threshold, p_value=0.0)
    ring = np.minimum((K * square).astype(np.int64), K - 1)
    turns = np.arctan2(z[:, 1], z[:, 0]) / math.tau + 0.5
    sector = np.minimum((K * turns).astype(np.int64), K - 1)
    counts = np.bincount(K * ring + sector, minlength=K * K)
    statistic = float(((counts - n / K**2) ** 2).sum() / (n / K**2))
    return UniformityTest(
        statistic=statistic, threshold=threshold, p_value=float(chdtrc(K * K - 1, statistic))
    )
