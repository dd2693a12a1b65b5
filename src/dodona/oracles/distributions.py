"""Laws of actions by enumeration and quadrature: sums over all outcomes, integrals of the density.

A discrete law is a dictionary outcome -> probability. A continuous one is a density of one coordinate
and a way along it; laws on a box are walked by the logit t of the place, so that both ends are reached.
Entropy, divergence and Fisher matrix are then the same three expectations for every law: nothing here
knows a closed form.

Source: Cover & Thomas 2006, ch. 2 and 8; scipy.stats (densities); Amari 1998 (Fisher).
Independent of: dodona.policies, torch.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from scipy.special import expit

STEP = 1e-5  # of central differences
MAX_STEP = 0.1  # of a grid: exp(-2 pi (pi / 2) / 0.1) is nothing


def categorical_law(logits: Iterable[float]) -> dict[int, float]:
    """Outcome -> probability; -inf has none."""
    logits = [float(x) for x in logits]
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    return {a: w / math.fsum(weights) for a, w in enumerate(weights) if w > 0}


def product_law(factors: Sequence[dict[int, float]]) -> dict[tuple[int, ...], float]:
    """Every combination of independent outcomes; a bit with logit x is the law of logits (0, x)."""
    found = {}
    for combination in itertools.product(*(law.items() for law in factors)):
        found[tuple(a for a, _ in combination)] = math.prod(p for _, p in combination)
    return found


class Density(NamedTuple):
    """log_density of points; at(t) -> (points, d action / dt); t runs over ``grid``, evenly spaced.

    The point of a law on a box is the pair (x, 1 - x), its shares of the box, both to full precision.
    """

    log_density: Callable[[Any], Any]
    at: Callable[[np.ndarray], tuple[Any, np.ndarray]]
    grid: np.ndarray


def gaussian_law(mean: float, std: float) -> Density:
    grid = _grid(mean - 12 * std, mean + 12 * std, std / 10)
    return Density(lambda a: stats.norm.logpdf(a, mean, std), lambda t: (t, np.ones_like(t)), grid)


def squashed_gaussian_law(
    mean: float, std: float, *, low: float = -1.0, high: float = 1.0
) -> Density:
    """The change of variables from u = atanh(2 x - 1): du / da = 1 / (2 width x (1 - x))."""

    def log_density(point):
        x, y = point
        u = 0.5 * (np.log(x) - np.log(y))
        return stats.norm.logpdf(u, mean, std) - np.log(2 * (high - low) * x * y)

    grid = _grid(2 * mean - 24 * std, 2 * mean + 24 * std, std / 5)
    return Density(log_density, _box(high - low), grid)


def beta_law(alpha: float, beta: float, *, low: float = 0.0, high: float = 1.0) -> Density:
    normaliser = float(stats.beta(alpha, beta).logpdf(0.5)) + (alpha + beta - 2) * math.log(2)

    def log_density(point):
        x, y = point
        powers = (alpha - 1) * np.log(x) + (beta - 1) * np.log(y)
        return normaliser + powers - math.log(high - low)

    middle = math.log(alpha / beta)
    reach = 40 / min(alpha, beta) + 40
    return Density(log_density, _box(high - low), _grid(middle - reach, middle + reach, 0.3))


def total(law: dict | Density) -> float:
    """1 for a law."""
    return _expectation(law, lambda point: 1.0)


def entropy(law: dict | Density) -> float:
    """- E log p, nats."""
    return -_expectation(law, lambda point: _log(law, point))


def kl(p: dict | Density, q: dict | Density) -> float:
    """E_p log p / q, nats; both laws on the same points."""
    return _expectation(p, lambda point: _log(p, point) - _log(q, point))


def fisher(family: Callable[..., Any], params: Iterable[float]) -> np.ndarray:
    """E [score score^T] of a family of laws, scores by central differences of the log-probability."""
    params = np.array([*params], dtype=float)
    law = family(*params)
    shifted = [
        (family(*(params + STEP * e)), family(*(params - STEP * e))) for e in np.eye(len(params))
    ]

    def score(i: int, point: Any) -> Any:
        above, below = shifted[i]
        return (_log(above, point) - _log(below, point)) / (2 * STEP)

    size = range(len(params))
    return np.array(
        [
            [_expectation(law, lambda p, i=i, j=j: score(i, p) * score(j, p)) for j in size]
            for i in size
        ]
    )


def expected_log_cosh(mean: float, std: float) -> float:
    """E log cosh of a normal variable."""
    return _expectation(gaussian_law(mean, std), lambda u: np.logaddexp(u, -u) - math.log(2))


def _log(law: dict | Density, point: Any) -> Any:
    if isinstance(law, dict):
        return math.log(law[point]) if law.get(point, 0.0) > 0 else -math.inf
    return law.log_density(point)


def _expectation(law: dict | Density, f: Callable[[Any], Any]) -> float:
    """A sum over outcomes; of a density by the trapezoid rule, which converges exponentially for analytic
    integrands that vanish at both ends (Trefethen & Weideman 2014)."""
    if isinstance(law, dict):
        return math.fsum(p * f(point) for point, p in law.items())
    points, stretch = law.at(law.grid)
    weights = np.exp(law.log_density(points)) * stretch * (law.grid[1] - law.grid[0])
    return math.fsum(weights * f(points))


def _grid(low: float, high: float, step: float) -> np.ndarray:
    """Even steps, small against the distance pi of the poles of 1 / (1 + exp(-t)) from the real line."""
    return np.linspace(low, high, 1 + math.ceil((high - low) / min(step, MAX_STEP)))


def _box(width: float) -> Callable[[np.ndarray], tuple[Any, np.ndarray]]:
    """t -> the shares (x, 1 - x) of the box, and da / dt."""

    def at(t: np.ndarray) -> tuple[Any, np.ndarray]:
        x, y = expit(t), expit(-t)
        return (x, y), width * x * y

    return at
