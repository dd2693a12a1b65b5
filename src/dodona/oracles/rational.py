"""Exact values over fractions: no rounding, so nothing to tolerate. For eight states or so.

Floats are taken as the rational numbers they are; P, R and gamma may also hold Fractions.
Source: elimination; Howard 1960 for the optimum. Not here: anything that rounds.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from dodona.oracles.arrays import ArrayLike, doors

LIMIT = 8

Values = list[Fraction]


def policy_value_rational(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float | Fraction,
    policy: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
    limit: int = LIMIT,
) -> Values:
    """The value of a policy, exactly: v = (I - gamma P_pi)^{-1} r_pi by elimination over fractions.

    Args:
        P: [S, A, S].  R: [S, A].  gamma: in [0, 1]; 1 needs a policy that ends.
        policy: [S] actions, or [S, A] probabilities.  terminal: [S] bool, states of value 0.
        limit: refuse more states than this; fractions grow with every elimination.
    Returns: [S] Fractions, without error.
    Raises:
        ValueError: more states than ``limit``, or shapes.
        ZeroDivisionError: the system is singular (gamma 1 and an improper policy).
    Independent of: every solver, kernel and float.
    Source: Gauss-Jordan elimination.  Cost: O(S^3) operations on growing fractions.
    """
    P, R, ends, _ = _exact_model(P, R, terminal, None, limit)
    S, A = R.shape
    policy = np.asarray(policy)
    rows, right = [], []
    for s in range(S):
        row, reward = [Fraction(int(s == j)) for j in range(S)], Fraction(0)
        for a in range(A) if not ends[s] else ():
            share = Fraction(int(policy[s] == a)) if policy.ndim == 1 else _exact(policy[s, a])
            if share:
                reward += share * R[s, a]
                for j in np.flatnonzero(~ends & (P[s, a] != 0)).tolist():
                    row[j] -= _exact(gamma) * share * P[s, a, j]
        rows.append(row)
        right.append(reward)
    return solve_rational(rows, right)


def solve_rational(
    rows: Sequence[Sequence[Fraction | int]], right: Sequence[Fraction | int]
) -> Values:
    """The solution x of rows x = right, over fractions by Gauss-Jordan elimination.

    Raises: ZeroDivisionError: the system is singular.
    Independent of: every float.  Source: elimination.  Cost: O(n^3) operations.

    >>> solve_rational([[Fraction(2), Fraction(1)], [Fraction(0), Fraction(3)]], [1, 1])
    [Fraction(1, 3), Fraction(1, 3)]
    """
    n = len(rows)
    rows = [[*map(Fraction, row), Fraction(b)] for row, b in zip(rows, right, strict=True)]
    for i in range(n):
        pivot = next((k for k in range(i, n) if rows[k][i]), None)
        if pivot is None:
            raise ZeroDivisionError("the system is singular; of a policy: some state never ends")
        rows[i], rows[pivot] = rows[pivot], rows[i]
        lead = rows[i][i]
        rows[i] = [x / lead for x in rows[i]]
        for k in range(n):
            if k != i and rows[k][i]:
                factor = rows[k][i]
                rows[k] = [x - factor * y for x, y in zip(rows[k], rows[i], strict=True)]
    return [row[n] for row in rows]


def optimal_rational(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float | Fraction,
    *,
    terminal: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
    limit: int = LIMIT,
) -> tuple[Values, np.ndarray]:
    """The optimum, exactly: Howard's policy iteration over fractions.

    Without a discount it starts from a policy that ends and keeps one, which is right wherever no
    cycle pays.

    Args: as policy_value_rational.  action_mask: [S, A] bool, False where infeasible.
    Returns: (v* [S] Fractions, [S, A] bool: ALL optimal actions; none in terminal states).
    Raises:
        ValueError: as policy_value_rational; gamma 1 and a state that can not end.
        ZeroDivisionError: gamma 1 and a cycle that gains for ever.
    Independent of: every solver and float.
    Source: Howard 1960; Bertsekas & Tsitsiklis 1991 (gamma 1).  Cost: a handful of eliminations.
    """
    P, R, ends, mask = _exact_model(P, R, terminal, action_mask, limit)
    policy = mask.argmax(axis=1) if gamma < 1 else _policy_that_ends(P, ends, mask)
    while True:
        v = policy_value_rational(P, R, gamma, policy, terminal=ends, limit=limit)
        best, new = np.zeros(R.shape, dtype=bool), policy.copy()
        for s in np.flatnonzero(~ends).tolist():
            q = {a: _q(P, R, gamma, v, s, a) for a in np.flatnonzero(mask[s]).tolist()}
            top = max(q.values())
            best[s] = [a in q and q[a] == top for a in range(R.shape[1])]
            if q[int(policy[s])] < top:
                new[s] = next(a for a in q if q[a] == top)
        if np.array_equal(new, policy):
            return v, best
        policy = new


def _exact(x) -> Fraction:
    return x if isinstance(x, Fraction) else Fraction(float(x))


def _exact_model(P, R, terminal, action_mask, limit: int):
    """(P, R as arrays of Fractions, ends, mask)."""
    P, R = np.asarray(P, dtype=object), np.asarray(R, dtype=object)
    if P.ndim != 3 or P.shape[0] != P.shape[2] or R.shape != P.shape[:2]:
        raise ValueError(f"P {P.shape} and R {R.shape}: expected [S, A, S] and [S, A].")
    if len(P) > limit:
        raise ValueError(f"{len(P)} states are too many over fractions, limit is {limit}.")
    exact = np.frompyfunc(_exact, 1, 1)
    return exact(P), exact(R), *doors(*R.shape, terminal, action_mask)


def _q(P, R, gamma, v: Values, s: int, a: int) -> Fraction:
    return R[s, a] + _exact(gamma) * sum(
        (P[s, a, j] * v[j] for j in range(len(v)) if P[s, a, j]), Fraction(0)
    )


def _policy_that_ends(P, ends: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[S] actions that lead closer to the end with some probability; a row's missing mass ends too."""
    policy, reached = np.full(len(ends), -1), ends.copy()
    while True:
        leads = mask & ((P[:, :, reached] != 0).any(axis=2) | (P.sum(axis=2) < 1 - 1e-9))
        fresh = leads.any(axis=1) & ~reached
        if not fresh.any():
            break
        policy[fresh] = leads.argmax(axis=1)[fresh]
        reached |= fresh
    if not reached.all():
        raise ValueError(f"gamma is 1 and state {int(np.argmin(reached))} can not end.")
    return policy
