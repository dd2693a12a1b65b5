"""Exact values over fractions: no rounding, so nothing to tolerate. For S up to about 8.

Floats are taken as the rational numbers they are. Source: elimination; Howard 1960 for the optimum.
Independent of every solver, kernel and float of the library.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

Values = list[Fraction]


def policy_value_rational(
    P: np.ndarray,
    R: np.ndarray,
    gamma: float | Fraction,
    policy: np.ndarray | Sequence,
    *,
    terminal: np.ndarray | None = None,
) -> Values:
    """v = (I - gamma P_pi)^{-1} r_pi by Gauss-Jordan elimination over fractions.

    Args:
        policy: [S] actions, or [S, A] probabilities.  terminal: [S] states of value 0.
    Raises: ZeroDivisionError: the system is singular (gamma 1 and an improper policy).
    """
    S, A, _ = np.shape(P)
    policy = np.asarray(policy)
    ends = np.zeros(S, dtype=bool) if terminal is None else np.asarray(terminal)
    discount = Fraction(gamma)
    rows = []
    for s in range(S):
        row = [Fraction(int(s == j)) for j in range(S)] + [Fraction(0)]
        for a in range(A) if not ends[s] else ():
            share = (
                Fraction(int(policy[s] == a)) if policy.ndim == 1 else Fraction(float(policy[s, a]))
            )
            if not share:
                continue
            row[S] += share * Fraction(float(R[s][a]))
            for j in range(S):
                if P[s][a][j] and not ends[j]:
                    row[j] -= discount * share * Fraction(float(P[s][a][j]))
        rows.append(row)
    for i in range(S):
        pivot = next((k for k in range(i, S) if rows[k][i]), None)
        if pivot is None:
            raise ZeroDivisionError("I - gamma P_pi is singular: some state never ends")
        rows[i], rows[pivot] = rows[pivot], rows[i]
        lead = rows[i][i]
        rows[i] = [x / lead for x in rows[i]]
        for k in range(S):
            if k != i and rows[k][i]:
                factor = rows[k][i]
                rows[k] = [x - factor * y for x, y in zip(rows[k], rows[i], strict=True)]
    return [row[S] for row in rows]


def optimal_rational(
    P: np.ndarray,
    R: np.ndarray,
    gamma: float | Fraction,
    *,
    terminal: np.ndarray | None = None,
    action_mask: np.ndarray | None = None,
) -> tuple[Values, np.ndarray]:
    """Policy iteration over fractions: (exact v*, [S, A] bool of ALL optimal actions)."""
    S, A, _ = np.shape(P)
    ends = np.zeros(S, dtype=bool) if terminal is None else np.asarray(terminal)
    mask = np.ones((S, A), dtype=bool) if action_mask is None else np.asarray(action_mask)
    policy = mask.argmax(axis=1)
    while True:
        v = policy_value_rational(P, R, gamma, policy, terminal=ends)
        best = np.zeros((S, A), dtype=bool)
        new = policy.copy()
        for s in np.flatnonzero(~ends).tolist():
            q = {a: _q(P, R, gamma, v, s, a) for a in np.flatnonzero(mask[s]).tolist()}
            top = max(q.values())
            best[s] = [a in q and q[a] == top for a in range(A)]
            if q[policy[s]] < top:
                new[s] = next(a for a in q if q[a] == top)
        if np.array_equal(new, policy):
            return v, best
        policy = new


def _q(P, R, gamma, v: Values, s: int, a: int) -> Fraction:
    future = sum(
        (Fraction(float(P[s][a][j])) * v[j] for j in range(len(v)) if P[s][a][j]), Fraction(0)
    )
    return Fraction(float(R[s][a])) + Fraction(gamma) * future
