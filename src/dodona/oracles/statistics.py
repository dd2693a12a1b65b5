"""Means, moments, divergences and random numbers by their definitions: loops, fractions, quadrature.

Source: definitions. Slow on purpose; nothing here shares a formula with the fast code.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
from scipy.integrate import quad

WORD = 2**64


def masked_mean(x, mask=None, *, reduction="token", length=1.0, denom=None) -> float:
    """[B, T] or [B]: list what counts, row by row, and average the lists. Masks are 0 or 1, or weigh."""
    rows = _rows(x, mask)
    counted = [row for row in rows if row]
    if reduction == "token":
        parts, divisor = (
            [w * v for row in rows for v, w in row],
            sum(w for row in rows for _, w in row),
        )
    elif reduction == "sequence":
        parts = [sum(w * v for v, w in row) / sum(w for _, w in row) for row in counted]
        divisor = len(counted)
    else:
        parts, divisor = [sum(w * v for v, w in row) / length for row in counted], len(counted)
    divisor = divisor if denom is None else denom
    return math.fsum(parts) / divisor if parts else 0.0


def masked_sum(x, mask=None) -> list[float]:
    """[B] the sum of what counts in each row."""
    return [math.fsum(w * v for v, w in row) for row in _rows(x, mask)]


def masked_std(x, mask=None, *, ddof=1) -> float:
    return moments([pair for row in _rows(x, mask) for pair in row], ddof=ddof)[1]


def whiten(x, mask=None, *, ddof=1, eps=1e-8) -> np.ndarray:
    """(x - mean) / (std + eps) entry by entry, 0 where masked."""
    mean, std = moments([pair for row in _rows(x, mask) for pair in row], ddof=ddof)
    mask = np.ones(np.shape(x)) if mask is None else np.asarray(mask)
    flat = [
        (float(v) - mean) / (std + eps) if m else 0.0
        for v, m in zip(np.ravel(x), np.ravel(mask), strict=True)
    ]
    return np.array(flat).reshape(np.shape(x))


def moments(pairs, *, ddof=1) -> tuple[float, float]:
    """(mean, standard deviation) of (value, weight) pairs, exact up to the final root."""
    pairs = [(Fraction(float(v)), Fraction(float(w))) for v, w in pairs]
    count = sum(w for _, w in pairs)
    mean = sum(w * v for v, w in pairs) / count
    squares = sum(w * (v - mean) ** 2 for v, w in pairs)
    return float(mean), math.sqrt(squares / (count - ddof))


def kl_categorical(p, q) -> float:
    """sum p log(p / q) over outcomes, of probabilities; 0 log 0 = 0."""
    total = 0.0
    for a, b in zip(p, q, strict=True):
        if a > 0:
            total += a * (math.log(a) - math.log(b)) if b > 0 else math.inf
    return total


def kl_gaussian(mean_p, std_p, mean_q, std_q) -> float:
    """Sum over axes of the integral of p log(p / q), by quadrature over 12 standard deviations."""
    total = 0.0
    for a, s, b, t in zip(mean_p, std_p, mean_q, std_q, strict=True):

        def integrand(x, a=a, s=s, b=b, t=t):
            log_p = -0.5 * ((x - a) / s) ** 2 - math.log(s)
            log_q = -0.5 * ((x - b) / t) ** 2 - math.log(t)
            return math.exp(log_p) / math.sqrt(2 * math.pi) * (log_p - log_q)

        total += quad(integrand, a - 12 * s, a + 12 * s, epsabs=1e-13, epsrel=1e-13, limit=200)[0]
    return total


def kl_estimate_moments(p, q) -> dict[str, tuple[float, float]]:
    """kind -> (mean, variance) of one sample of each estimator, outcomes drawn from p."""
    ratios = [(a, b / a) for a, b in zip(p, q, strict=True) if a > 0]
    estimators = {
        "k1": lambda u: -math.log(u),
        "k2": lambda u: math.log(u) ** 2 / 2,
        "k3": lambda u: u - 1 - math.log(u),
    }
    found = {}
    for kind, k in estimators.items():
        mean = math.fsum(a * k(u) for a, u in ratios)
        found[kind] = mean, math.fsum(a * (k(u) - mean) ** 2 for a, u in ratios)
    return found


def iqm(scores) -> float:
    """Strike out the lowest and the highest score floor(n / 4) times, and average the rest."""
    pooled = [float(s) for row in scores for s in row]
    for _ in range(len(pooled) // 4):
        pooled.remove(min(pooled))
        pooled.remove(max(pooled))
    return math.fsum(pooled) / len(pooled)


def optimality_gap(scores, *, target=1.0) -> float:
    gaps = [target - s if s < target else 0.0 for row in scores for s in row]
    return math.fsum(gaps) / len(gaps)


def performance_profile(scores, thresholds) -> list[float]:
    pooled = [s for row in scores for s in row]
    return [sum(1 for s in pooled if s > t) / len(pooled) for t in thresholds]


def probability_of_improvement(x, y) -> float:
    """Every pair of runs on every task plays once; a tie is half a win."""
    shares = []
    for task in range(len(x[0])):
        wins = [
            1.0 if a[task] > b[task] else 0.5 if a[task] == b[task] else 0.0
            for a, b in itertools.product(x, y)
        ]
        shares.append(sum(wins) / len(wins))
    return sum(shares) / len(shares)


def bootstrap_interval(tables, statistic, indices, *, confidence=0.95) -> tuple[float, float]:
    """Percentiles over resamples given by their indices, one [samples, runs, tasks] array per table."""
    values = []
    for sample in range(len(indices[0])):
        resampled = [
            [
                [table[rows[sample][i][j]][j] for j in range(len(table[0]))]
                for i in range(len(table))
            ]
            for table, rows in zip(tables, indices, strict=True)
        ]
        values.append(statistic(*resampled))
    values.sort()
    return tuple(_percentile(values, (1 + side * confidence) / 2) for side in (-1, 1))


def counter_uniform(seed: int, *keys: int) -> float:
    """The documented hash in Python integers; output k of SplitMix64 seeded with 0 whitens key k."""
    h = 0
    for key in (seed, *keys):
        h = splitmix64(h ^ splitmix64((key + 1) * 0x9E3779B97F4A7C15 % WORD))
    return (h >> 11) / 2**53


def splitmix64(z: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014; Stafford's mix 13)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def _rows(x, mask) -> list[list[tuple[float, float]]]:
    """(value, weight) pairs that count, row by row; [B] is [B, 1]."""
    x = np.asarray(x)
    mask = np.ones(x.shape) if mask is None else np.asarray(mask)
    x, mask = x.reshape(len(x), -1), mask.reshape(len(x), -1)
    return [
        [(float(v), float(m)) for v, m in zip(values, weights, strict=True) if m]
        for values, weights in zip(x, mask, strict=True)
    ]


def _percentile(ordered: list[float], share: float) -> float:
    """Linear between order statistics, numbered from 0 to n - 1."""
    place = share * (len(ordered) - 1)
    low = min(int(place), len(ordered) - 2)
    return ordered[low] + (place - low) * (ordered[low + 1] - ordered[low])
