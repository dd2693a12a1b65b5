"""The exact laws that samplers must have, and the samplers written as loops over given uniforms.

Closed forms (radius, coordinate, moments, acceptance), enumeration (tilted and speculative laws), and
the definitions point by point with the standard library's functions; SciPy's exact tests.

Source: Devroye, Non-Uniform Random Variate Generation, 1986; Santalo 1976 (mean distance);
Leviathan et al., arXiv:2211.17192, app. A.1.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from scipy import stats
from scipy.integrate import quad
from scipy.special import betainc, ndtr

# uniforms that a point takes, by method
UNIFORMS = {"sqrt": 2, "max": 3, "triangle": 3, "concentric": 2, "naive": 2}


def disc_by_definition(method: str, uniforms: Sequence[float] | np.ndarray) -> np.ndarray:
    """[n, 2] points of the unit disc from a stream of uniforms, one after the other."""
    stream, points = list(uniforms), []
    if method == "rejection":
        for u, v in zip(stream[::2], stream[1::2], strict=True):
            if (2 * u - 1) ** 2 + (2 * v - 1) ** 2 <= 1:
                points.append((2 * u - 1, 2 * v - 1))
        return np.array(points)
    width = UNIFORMS[method]
    for i in range(0, len(stream), width):
        u = stream[i : i + width]
        if method == "concentric":
            a, b = 2 * u[0] - 1, 2 * u[1] - 1
            if abs(a) >= abs(b):
                r, angle = a, 0.0 if a == 0 else math.pi / 4 * b / a
            else:
                r, angle = b, math.pi / 2 - math.pi / 4 * a / b
        else:
            angle = 2 * math.pi * u[-1]
            total = u[0] + u[1]
            r = {
                "sqrt": math.sqrt(u[0]),
                "max": max(u[0], u[1]),
                "triangle": total if total <= 1 else 2 - total,
                "naive": u[0],
            }[method]
        points.append((r * math.cos(angle), r * math.sin(angle)))
    return np.array(points)


def ball_by_definition(num: int, dim: int, *, rng: np.random.Generator) -> np.ndarray:
    """[num, dim] points of the unit ball: dim normals, then the radius U^(1/dim), point by point."""
    points = np.empty((num, dim))
    for i in range(num):
        g = [rng.standard_normal() for _ in range(dim)]
        r = rng.random() ** (1 / dim)
        points[i] = [r * x / math.sqrt(math.fsum(y * y for y in g)) for x in g]
    return points


def naive_disc(num: int, *, rng: np.random.Generator) -> np.ndarray:
    """The wrong sampler r = U: its radius has cdf s instead of s^2, sup distance 1/4 at s = 1/2."""
    r, angle = rng.random(num), 2 * np.pi * rng.random(num)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)


def coordinate_cdf(x: np.ndarray, dim: int, *, surface: bool = False) -> np.ndarray:
    """P(x_1 <= x) for a uniform point of the unit ball (or sphere) of ``dim`` dimensions.

    x_1^2 has a beta law: (1/2, (dim + 1) / 2) in the ball, (1/2, (dim - 1) / 2) on the sphere.
    In the disc this is the semicircle law 1/2 + (x sqrt(1 - x^2) + asin x) / pi.
    """
    x = np.clip(np.asarray(x, float), -1, 1)
    return 0.5 + 0.5 * np.sign(x) * betainc(0.5, (dim - 1 if surface else dim + 1) / 2, x * x)


def semicircle_cdf(x: np.ndarray) -> np.ndarray:
    """P(x_1 <= x) in the unit disc."""
    x = np.clip(np.asarray(x, float), -1, 1)
    return 0.5 + (x * np.sqrt(1 - x * x) + np.arcsin(x)) / math.pi


def ball_moments(dim: int) -> dict[str, float]:
    """Unit ball: E r, Var r, E r^2 and the variance of one coordinate."""
    mean, square = dim / (dim + 1), dim / (dim + 2)
    return {"E r": mean, "Var r": square - mean**2, "E r^2": square, "Var x": 1 / (dim + 2)}


MEAN_ABS_X = 4 / (3 * math.pi)
"""E|x| in the unit disc."""
MEAN_DISTANCE = 128 / (45 * math.pi)
"""Mean distance of two points of the unit disc."""


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """P(X <= x) of the standard normal law."""
    return ndtr(x)


def cube_acceptance(dim: int) -> float:
    """Share of the cube [-1, 1]^dim that the unit ball fills."""
    return math.pi ** (dim / 2) / (math.gamma(dim / 2 + 1) * 2**dim)


def ks_distance(values: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    """sup |empirical cdf - cdf|, at the steps of the empirical one."""
    law = cdf(np.sort(values))
    steps = np.arange(len(law) + 1) / len(law)
    return float(max(np.max(steps[1:] - law), np.max(law - steps[:-1])))


def radius_cdf_by_quadrature(r: float, *, radius: float, r_in: float, dim: int) -> float:
    """Share of a shell's volume within r: shells of surface proportional to s^(dim - 1), added up."""

    def volume(upto: float) -> float:
        return quad(lambda s: s ** (dim - 1), r_in, upto, epsabs=0, epsrel=1e-12)[0]

    return volume(min(max(r, r_in), radius)) / volume(radius)


def two_sample_p(first: np.ndarray, second: np.ndarray) -> float:
    """p-value that two samples have one law (Kolmogorov and Smirnov, asymptotic)."""
    return float(stats.ks_2samp(first, second, method="asymp").pvalue)


def binomial_p(accepted: int, trials: int, chance: float) -> float:
    """Exact two-sided p-value of a count of successes."""
    return float(stats.binomtest(accepted, trials, chance).pvalue)


def counts_p(counts: np.ndarray, law: Sequence[float] | np.ndarray) -> float:
    """p-value of counts against a discrete law (chi-square)."""
    law = np.asarray(law, float)
    return float(stats.chisquare(counts, law / law.sum() * np.sum(counts)).pvalue)


def cell_counts(points: np.ndarray, num_rings: int) -> np.ndarray:
    """[K, K] points of the unit disc in rings of equal area and sectors, counted one by one."""
    K = num_rings
    counts = np.zeros((K, K), dtype=int)
    for x, y in points:
        ring = sum(math.hypot(x, y) >= math.sqrt(i / K) for i in range(1, K))
        sector = sum(math.atan2(y, x) >= -math.pi + 2 * math.pi * i / K for i in range(1, K))
        counts[ring, sector] += 1
    return counts


def tilted_law(
    reference: Sequence[float] | np.ndarray, rewards: Sequence[float] | np.ndarray, tau: float
) -> tuple[np.ndarray, float]:
    """pi* = pi_ref exp(r / tau) / Z over enumerated answers, and E_ref exp((r - max r) / tau)."""
    weights = [
        p * math.exp((r - max(rewards)) / tau) for p, r in zip(reference, rewards, strict=True)
    ]
    return np.array(weights) / math.fsum(weights), math.fsum(weights)


def speculative_law(
    draft: Sequence[Fraction], target: Sequence[Fraction]
) -> tuple[list[Fraction], Fraction]:
    """Law of the token after draft, test and redraw, every path added up; and P(draft kept)."""
    residual = [max(p - q, Fraction(0)) for q, p in zip(draft, target, strict=True)]
    law, kept = [Fraction(0)] * len(draft), Fraction(0)
    for x, token in itertools.product(range(len(draft)), repeat=2):
        if draft[x] == 0:
            continue
        keep = min(Fraction(1), target[x] / draft[x])
        if x == token:
            law[token] += draft[x] * keep
            kept += draft[x] * keep
        if sum(residual):
            law[token] += draft[x] * (1 - keep) * residual[token] / sum(residual)
    return law, kept


def rejection_cost(m: float, target_mass: float, squeeze_mass: float = 0.0) -> tuple[float, float]:
    """Acceptance Z / M, and target evaluations per sample (M - int s) / Z."""
    return target_mass / m, (m - squeeze_mass) / target_mass


NORMAL_BY_LAPLACE = math.sqrt(2 * math.e / math.pi)
"""Smallest M with normal density <= M Laplace density; touched at |x| = 1."""
PARABOLA_MASS = 4 * math.sqrt(2) / 3 / math.sqrt(2 * math.pi)
"""int of max(0, 1 - x^2 / 2) / sqrt(2 pi), a squeeze below the normal density."""
