"""Comparisons of items, exactly: the Bradley-Terry scores that explain them best, and the loss by loops.

Source: Bradley & Terry 1952; card rlhf-ppo-max, sec. 4e.  Not here: a reward model.
"""

import math

import numpy as np
from scipy.optimize import minimize


def win_probabilities(scores) -> np.ndarray:
    """[N, N] P(i beats j) = 1 / (1 + exp(s_j - s_i)); 1/2 on the diagonal."""
    scores = np.asarray(scores, dtype=float)
    return 1.0 / (1.0 + np.exp(scores[None, :] - scores[:, None]))


def bradley_terry(wins) -> np.ndarray:
    """[N] scores of mean 0 that minimise - sum_ij wins_ij log P(i beats j); wins may be fractions.

    A convex problem, solved by a trust region with the exact second derivative.
    """
    wins = np.asarray(wins, dtype=float)
    n = len(wins)
    games = wins + wins.T

    def loss(s):
        gap = s[:, None] - s[None, :]
        return float((wins * np.logaddexp(0.0, -gap)).sum()) + 0.5 * s.mean() ** 2

    def slope(s):
        return (games * win_probabilities(s)).sum(axis=1) - wins.sum(axis=1) + s.mean() / n

    def bend(s):
        p = win_probabilities(s)
        w = games * p * p.T
        np.fill_diagonal(w, 0.0)
        return np.diag(w.sum(axis=1)) - w + 1.0 / n**2

    found = minimize(
        loss, np.zeros(n), jac=slope, hess=bend, method="trust-exact", options={"gtol": 1e-12}
    )
    return found.x - found.x.mean()


def pairwise_loss(
    chosen, rejected, *, weights=None, margin=0.0, center_coef=0.0
) -> tuple[float, list[float], list[float]]:
    """(loss, slopes in chosen, slopes in rejected), pair by pair; margin may be one number for each."""
    n = len(chosen)
    weights = [1.0] * n if weights is None else list(weights)
    margins = [margin] * n if np.ndim(margin) == 0 else list(margin)
    total, value, ups, downs = sum(weights), 0.0, [], []
    for a, b, w, m in zip(chosen, rejected, weights, margins, strict=True):
        lost = 1.0 / (1.0 + math.exp(a - b - m))  # the chance that the chosen one loses
        value += w * (-math.log1p(-lost) + center_coef * (a + b) ** 2) / total
        pull = 2.0 * center_coef * (a + b)
        ups.append(w * (pull - lost) / total)
        downs.append(w * (pull + lost) / total)
    return value, ups, downs
