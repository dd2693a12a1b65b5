"""A given policy by dense linear algebra: values, moments of the return, occupancy, long-run shares.

Source: Puterman 1994; Sobel 1982 (second moment); Grassmann, Taksar, Heyman 1985 (GTH).
"""

import numpy as np


def chain(P, R, policy, *, terminal=None) -> tuple[np.ndarray, np.ndarray]:
    """(P_pi [S, S], r_pi [S]); rows of terminal states are zero, columns too."""
    P, R, policy = np.asarray(P, float), np.asarray(R, float), np.asarray(policy)
    S, A, _ = P.shape
    share = np.eye(A)[np.maximum(policy, 0)] if policy.ndim == 1 else policy.astype(float)
    P_pi, r_pi = np.einsum("sa,sat->st", share, P), np.einsum("sa,sa->s", share, R)
    if terminal is not None:
        P_pi[terminal], r_pi[terminal] = 0.0, 0.0
        P_pi[:, terminal] = 0.0
    return P_pi, r_pi


def policy_value(P, R, gamma, policy, *, terminal=None) -> tuple[np.ndarray, float]:
    """(v, bound): LU with one step of refinement; |v - v_pi| <= bound = max |r - (I - gP)v| / (1 - g)."""
    P_pi, r_pi = chain(P, R, policy, terminal=terminal)
    system = np.eye(len(r_pi)) - gamma * P_pi
    v = np.linalg.solve(system, r_pi)
    v = v + np.linalg.solve(system, r_pi - system @ v)
    residual = np.abs(r_pi - system @ v).max()
    return v, float(residual / (1 - gamma)) if gamma < 1 else float("nan")


def neumann(P, R, gamma, policy, *, terms: int, terminal=None) -> tuple[np.ndarray, float]:
    """(sum of the first terms of sum_k (gamma P_pi)^k r_pi, the closed tail bound)."""
    P_pi, r_pi = chain(P, R, policy, terminal=terminal)
    total, power = np.zeros_like(r_pi), r_pi.copy()
    for _ in range(terms):
        total += power
        power = gamma * P_pi @ power
    return total, float(gamma**terms * np.abs(r_pi).max() / (1 - gamma))


def return_moments(P, R3, gamma, policy, *, terminal=None) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) of the return, rewards R3 [S, A, S] per transition."""
    P, R3 = np.asarray(P, float), np.asarray(R3, float)
    v, _ = policy_value(P, (P * R3).sum(axis=2), gamma, policy, terminal=terminal)
    second = (P * (R3**2 + 2 * gamma * R3 * v)).sum(axis=2)
    P_pi, r_pi = chain(P, second, policy, terminal=terminal)
    m = np.linalg.solve(np.eye(len(v)) - gamma**2 * P_pi, r_pi)
    return v, m - v**2


def occupancy(P, gamma, policy, start, *, horizon: int = 20_000) -> np.ndarray:
    """(1 - gamma) sum_t gamma^t Pr(s_t = s), summed step by step; for models without an end."""
    P_pi, _ = chain(P, np.zeros(np.shape(P)[:2]), policy)
    total, now = np.zeros(len(start)), np.asarray(start, float)
    for t in range(horizon):
        total += (1 - gamma) * gamma**t * now
        now = now @ P_pi
        if gamma**t < 1e-18:
            break
    return total


def stationary(P, policy) -> np.ndarray:
    """Left null vector of P_pi - I, normalised; one recurrent class is assumed."""
    P_pi, _ = chain(P, np.zeros(np.shape(P)[:2]), policy)
    n = len(P_pi)
    system = np.vstack([P_pi.T - np.eye(n), np.ones(n)])
    return np.linalg.lstsq(system, np.eye(n + 1)[n], rcond=None)[0]


def average_reward(P, R, policy) -> tuple[float, np.ndarray]:
    """(gain, bias with d . bias = 0) from one bordered linear system."""
    P_pi, r_pi = chain(P, R, policy)
    n = len(r_pi)
    d = stationary(P, policy)
    system = np.block([[np.eye(n) - P_pi, np.ones((n, 1))], [d[None, :], np.zeros((1, 1))]])
    answer = np.linalg.solve(system, np.append(r_pi, 0.0))
    return float(answer[-1]), answer[:-1]
