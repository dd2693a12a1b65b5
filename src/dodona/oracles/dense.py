"""A given policy by dense linear algebra: values with a bound, partial sums, occupancy, gain and bias.

Source: Puterman 1994, ch. 6 and 8. Not here: the chain's own structure (chains.py).
"""

import numpy as np
from scipy.linalg import lu_factor, lu_solve

from dodona.oracles.arrays import UNIT, ArrayLike, chain, doors, model, shares
from dodona.oracles.chains import proper_policy, stationary

LIMIT = 3000
AVERAGE_LIMIT = 500


def policy_value(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
) -> tuple[np.ndarray, float]:
    """The value of a policy, v = (I - gamma P_pi)^{-1} r_pi, by LU and one step of refinement.

    |v - v_pi| <= bound = max |r - (I - gamma P) v| max (I - gamma P)^{-1} 1, the residual widened by
    its rounding; the second factor is at most 1 / (1 - gamma), and is what counts at gamma 1.

    Args:
        P: [S, A, S].  R: [S, A] or [S, A, S].  gamma: in [0, 1]; 1 needs a policy that ends.
        policy: [S] actions or [S, A] probabilities.  terminal: [S] bool, states of value 0.
    Returns: (v [S], bound).
    Raises: ValueError: see arrays.model; more than 3000 states; a singular system.
    Independent of: iteration, sparse storage, the bracket of a sweep.
    Source: Zhao 2025, sec. 2.7; Higham 2002, sec. 12.1 (refinement).  Cost: 2 S^3 / 3.
    """
    m = model(P, R, gamma, terminal=terminal, limit=LIMIT)
    P_pi, r_pi = chain(m, policy)
    S, A = m.mask.shape
    system = np.eye(S) - m.gamma * P_pi
    if m.gamma == 1.0 and not proper_policy(P, policy, terminal=terminal).all():
        raise ValueError("I - gamma P_pi is singular: gamma is 1 and some state never ends.")
    factors = lu_factor(system)
    v = lu_solve(factors, r_pi)
    v = v + lu_solve(factors, r_pi - system @ v)
    # roundings: A averaging, one discount, one difference, S products and sums
    size = np.abs(shares(policy, m.mask) * m.R).sum(axis=1) + np.abs(v) + m.gamma * P_pi @ np.abs(v)
    residual = np.abs(r_pi - system @ v) + (S + A + 6) * UNIT * size
    mass = m.gamma * float(P_pi.sum(axis=1).max()) * (1.0 + (S + A) * UNIT)
    longest = float(lu_solve(factors, np.ones(S)).max()) * (1.0 + 1e-6)
    if mass < 1.0:
        longest = min(longest, 1.0 / (1.0 - mass)) if longest > 0 else 1.0 / (1.0 - mass)
    return v, float(residual.max() * longest * (1.0 + 1e-9))


def neumann(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    *,
    terms: int,
    terminal: ArrayLike | None = None,
) -> tuple[np.ndarray, float]:
    """The first terms of v = sum_k (gamma P_pi)^k r_pi, and the closed bound on the rest.

    |v - sum| <= gamma^terms max|r| / (1 - gamma).

    Args: as policy_value, gamma < 1.  terms: how many are summed.
    Returns: (sum [S], bound), rounding left out.
    Raises: ValueError: as policy_value, gamma 1.
    Independent of: every linear solve.  Source: the geometric series.  Cost: terms S^2.
    """
    if not gamma < 1:
        raise ValueError(f"the series needs gamma < 1 for its bound, got {gamma}.")
    m = model(P, R, gamma, terminal=terminal, limit=LIMIT)
    P_pi, r_pi = chain(m, policy)
    total, power = np.zeros_like(r_pi), r_pi.copy()
    for _ in range(terms):
        total += power
        power = m.gamma * P_pi @ power
    return total, float(m.gamma**terms * np.abs(r_pi).max() / (1 - m.gamma))


def occupancy(
    P: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    start: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
    horizon: int = 20_000,
) -> np.ndarray:
    """(1 - gamma) sum_t gamma^t Pr(s_t = s), summed step by step; a terminal state keeps its time.

    Args: as policy_value.  start: [S] distribution of the first state.  horizon: steps at most.
    Returns: [S], sums to one; off by at most gamma^horizon, and by rounding.
    Raises: ValueError: as policy_value; ``horizon`` steps leave more than 1e-12 out.
    Independent of: the transposed solve.  Source: definition.  Cost: S^2 per step.
    """
    if gamma**horizon > 1e-12:
        raise ValueError(
            f"gamma {gamma} has {gamma**horizon:.1e} of its weight after {horizon} steps. Allow more."
        )
    P = np.asarray(P, dtype=float)
    ends, mask = doors(*P.shape[:2], terminal, None)
    P_pi = np.einsum("sa,sat->st", shares(policy, mask), P)
    P_pi[ends, ends] = 1.0
    total, now = np.zeros(len(P)), np.asarray(start, dtype=float)
    weight = 1.0 - gamma
    for _ in range(horizon):
        total += weight * now
        now, weight = now @ P_pi, weight * gamma
        if weight < 1e-18 * (1.0 - gamma):
            break
    return total


def average_reward(P: ArrayLike, R: ArrayLike, policy: ArrayLike) -> tuple[float, np.ndarray]:
    """Gain and bias of a policy with one closed class, from one bordered linear system.

    g + h = r_pi + P_pi h and d . h = 0, d the stationary shares.

    Args: as policy_value; nothing ends.
    Returns: (gain, bias [S]); error about 1e-16 times the condition of the system.
    Raises: ValueError: as policy_value; more than 500 states; two closed classes.
    Independent of: relative value iteration, pinned states.
    Source: Puterman 1994, sec. 8.2.  Cost: one dense solve.
    """
    m = model(P, R, limit=AVERAGE_LIMIT)
    P_pi, r_pi = chain(m, policy)
    n = len(r_pi)
    d = stationary(P, policy)
    system = np.block([[np.eye(n) - P_pi, np.ones((n, 1))], [d[None, :], np.zeros((1, 1))]])
    right = np.append(r_pi, 0.0)
    answer = np.linalg.solve(system, right)
    answer = answer + np.linalg.solve(system, right - system @ answer)
    return float(answer[-1]), answer[:-1]
