"""Soft and epsilon-soft optima by their contraction, to 1e-14, in plain dense arrays.

Source: Geist, Scherrer, Pietquin 2019, arXiv:1901.11275; Sutton & Barto 2018, sec. 5.4.
"""

import numpy as np
from scipy.special import logsumexp


def soft_value(P, R, gamma, tau, *, reference=None) -> np.ndarray:
    """v = tau log sum_a ref(a|s) exp(q(s,a) / tau); reference None counts every action as 1."""
    P, R = np.asarray(P, float), np.asarray(R, float)
    weight = np.ones_like(R) if reference is None else np.asarray(reference, float)
    return _fixed(lambda v: tau * logsumexp((R + gamma * P @ v) / tau, b=weight, axis=1), len(R))


def epsilon_soft_value(P, R, gamma, epsilon) -> np.ndarray:
    """v = (1 - eps) max_a q + eps mean_a q."""
    P, R = np.asarray(P, float), np.asarray(R, float)

    def backup(v):
        q = R + gamma * P @ v
        return (1 - epsilon) * q.max(axis=1) + epsilon * q.mean(axis=1)

    return _fixed(backup, len(R))


def _fixed(backup, S: int) -> np.ndarray:
    v = np.zeros(S)
    for _ in range(1_000_000):
        new = backup(v)
        if np.abs(new - v).max() <= 1e-15 * (1 + np.abs(new).max()):
            return new
        v = new
    raise AssertionError("no convergence")
