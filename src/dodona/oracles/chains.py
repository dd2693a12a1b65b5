"""The chain of a policy: long-run shares, moments of the return, chances to arrive, whether it ends.

Source: Grassmann, Taksar & Heyman 1985; Sobel 1982; Kemeny & Snell 1960. Not here: values (dense.py).
"""

from collections import namedtuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from dodona.oracles.arrays import UNIT, ArrayLike, chain, model, shares

LIMIT = 2000
SEARCH_LIMIT = 3000  # of graph searches, with at most one solve


def stationary(P: ArrayLike, policy: ArrayLike) -> np.ndarray:
    """Long-run shares d = d P_pi by GTH elimination, compared with the left null vector.

    Eliminating a state only adds, multiplies and divides positive numbers, so that even the smallest
    share keeps its digits. The comparison is asserted, within what the condition of the null-vector
    system allows.

    Args: P: [S, A, S], rows sum to one.  policy: [S] actions or [S, A] probabilities.
    Returns: [S], sums to one, 0 on transient states; relative error about S 1e-16 in every entry.
    Raises: ValueError: see arrays.model; more than 2000 states; two closed classes, one state of each named.
    Independent of: simulation, powers of P, and (by the comparison) its own elimination.
    Source: Grassmann, Taksar & Heyman 1985.  Cost: O(S^3).
    """
    P_pi = _matrix(P, policy, limit=LIMIT)
    members = _closed_class(P_pi)
    inner = P_pi[np.ix_(members, members)].copy()
    n = len(members)
    for k in range(n - 1, 0, -1):
        inner[:k, k] /= inner[k, :k].sum()
        inner[:k, :k] += np.outer(inner[:k, k], inner[k, :k])
    share = np.ones(n)
    for k in range(1, n):
        share[k] = share[:k] @ inner[:k, k]
    out = np.zeros(len(P_pi))
    out[members] = share / share.sum()
    null, condition = _null(P_pi[np.ix_(members, members)])
    assert np.abs(out[members] - null).max() <= 100 * n * UNIT * condition + 1e-14, (
        "GTH != null vector"
    )
    return out


def null_vector(P: ArrayLike, policy: ArrayLike) -> np.ndarray:
    """Long-run shares as the left null vector of P_pi - I, normalised: one linear solve.

    Args, Raises: as stationary.
    Returns: [S]; absolute error about 1e-16 times the condition number, so tiny shares lose digits.
    Independent of: elimination in the order of GTH.
    Source: definition.  Cost: O(S^3).
    """
    P_pi = _matrix(P, policy, limit=LIMIT)
    members = _closed_class(P_pi)
    out = np.zeros(len(P_pi))
    out[members], _ = _null(P_pi[np.ix_(members, members)])
    return out


class ReturnMoments(namedtuple("ReturnMoments", ("mean", "variance"))):
    """mean [S] and variance [S] of the return."""

    def standard_error(self, num_samples: int) -> np.ndarray:
        """[S] exact standard deviation of the mean of so many independent returns."""
        return np.sqrt(self.variance / num_samples)


def return_moments(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
    horizon: int | None = None,
) -> ReturnMoments:
    """Mean and variance of the return; so the exact standard error of a Monte Carlo estimate.

    m(s) = sum_{a,s'} pi p [ r^2 + 2 gamma r v(s') + gamma^2 m(s') ], Var = m - v^2.

    Args:
        P: [S, A, S].  R: [S, A], or [S, A, S] where the reward depends on s'.
        gamma: in [0, 1]; 1 needs a policy that ends, or a horizon.
        policy: [S] or [S, A].  terminal: [S] bool.
        horizon: moments of the first so many rewards, by recursion; None: of all, by two solves.
    Returns: ReturnMoments(mean, variance); the variance is off by about 1e-15 max m.
    Raises: ValueError: see arrays.model; more than 2000 states; gamma 1 and a state that never ends.
    Independent of: simulation, and of a variance centred at v.
    Source: Sobel 1982.  Cost: two dense solves, or horizon matrix-vector products.
    """
    m = model(P, R, gamma, terminal=terminal, limit=LIMIT)
    P = np.asarray(P, dtype=float) * m.mask[:, :, None]
    R3 = np.broadcast_to(np.asarray(R, dtype=float).reshape(*P.shape[:2], -1), P.shape)
    P_pi, r_pi = chain(m, policy)
    share, system = shares(policy, m.mask), np.eye(len(r_pi))

    def second(v: np.ndarray) -> np.ndarray:
        after = np.where(m.ends, 0.0, v)
        return np.einsum("sa,sat,sat->s", share, P, R3**2 + 2 * m.gamma * R3 * after)

    if horizon is not None:
        v, square = np.zeros_like(r_pi), np.zeros_like(r_pi)
        for _ in range(horizon):
            v, square = r_pi + m.gamma * P_pi @ v, second(v) + m.gamma**2 * P_pi @ square
        return ReturnMoments(v, np.maximum(square - v**2, 0.0))
    if m.gamma == 1.0 and not proper_policy(P, policy, terminal=terminal).all():
        raise ValueError("gamma is 1 and some state never ends: the return has no moments.")
    v = np.linalg.solve(system - m.gamma * P_pi, r_pi)
    square = np.linalg.solve(system - m.gamma**2 * P_pi, second(v))
    return ReturnMoments(v, np.maximum(square - v**2, 0.0))


def hitting_probability(
    P: ArrayLike, policy: ArrayLike, targets: ArrayLike, *, terminal: ArrayLike | None = None
) -> np.ndarray:
    """The chance to visit a target state at all: the least h with h = 1 on targets, h = P_pi h elsewhere.

    States from which no path leads to a target get an exact 0, which also makes the system regular.

    Args:
        P: [S, A, S].  policy: [S] or [S, A].  targets: [S] bool, terminal states may be among them.
        terminal: [S] bool, where the walk stops.
    Returns: [S] in [0, 1], 1 on targets; error about 1e-16 times the condition.
    Raises: ValueError: see arrays.model; more than 3000 states.
    Independent of: iteration from below, simulation.
    Source: Kemeny & Snell 1960, sec. 3.3.  Cost: a graph search and one dense solve.
    """
    targets = np.asarray(targets, dtype=bool)
    P_pi = _matrix(P, policy, terminal, limit=SEARCH_LIMIT)
    P_pi[targets] = 0.0
    able = _reach(P_pi > 0, targets)
    inner = able & ~targets
    out = targets.astype(float)
    if inner.any():
        system = np.eye(int(inner.sum())) - P_pi[np.ix_(inner, inner)]
        out[inner] = np.linalg.solve(system, P_pi[inner][:, targets].sum(axis=1))
    return out


def proper_policy(
    P: ArrayLike, policy: ArrayLike, *, terminal: ArrayLike | None = None
) -> np.ndarray:
    """Does the policy end? [S] bool, True where it does with probability one.

    By reachability alone: it does from s unless a path from s leads to a state with no path to the end.
    Mass that a row is short of one has ended too.

    Args: as hitting_probability.
    Returns: [S] bool, exact. Proper means all True.
    Raises: ValueError: see arrays.model; more than 3000 states.
    Independent of: every linear system.
    Source: Bertsekas & Tsitsiklis 1991, sec. 2.  Cost: two graph searches.
    """
    P = np.asarray(P, dtype=float)
    P_pi = _matrix(P, policy, terminal, limit=SEARCH_LIMIT)
    ends = np.zeros(len(P), bool) if terminal is None else np.asarray(terminal)
    steps = P_pi > 0
    stuck = ~_reach(steps, ends | (P_pi.sum(axis=1) < 1.0 - 1e-9))
    return ~_reach(steps, stuck)


def _matrix(
    P: ArrayLike, policy: ArrayLike, terminal: ArrayLike | None = None, *, limit: int
) -> np.ndarray:
    """P_pi with the columns of terminal states kept; their rows are zero."""
    P = np.asarray(P, dtype=float)
    m = model(P, np.zeros(P.shape[:2]), terminal=terminal, limit=limit)
    return np.einsum("sa,sat->st", shares(policy, m.mask), P)


def _reach(steps: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """[S] bool, states with a path (of length 0 or more) into ``goals``."""
    reached = goals.copy()
    while True:
        more = reached | steps[:, reached].any(axis=1)
        if np.array_equal(more, reached):
            return reached
        reached = more


def _closed_class(P_pi: np.ndarray) -> np.ndarray:
    """The members of the only closed class."""
    if np.any(P_pi.sum(axis=1) < 1.0 - 1e-9):
        raise ValueError(f"state {int(P_pi.sum(axis=1).argmin())} ends: there is no long run.")
    count, label = connected_components(csr_array(P_pi > 0), connection="strong")
    closed = [c for c in range(count) if not (P_pi[label == c][:, label != c] > 0).any()]
    if len(closed) > 1:
        one, other = (int(np.argmax(label == c)) for c in closed[:2])
        raise ValueError(
            f"states {one} and {other} lie in different closed classes, so the long run depends on "
            "the start."
        )
    return np.flatnonzero(label == closed[0])


def _null(P_pi: np.ndarray) -> tuple[np.ndarray, float]:
    """(the left null vector of P_pi - I that sums to one, condition number of its system)."""
    n = len(P_pi)
    system = P_pi.T - np.eye(n)
    system[-1] = 1.0
    return np.linalg.solve(system, np.eye(n)[-1]), float(np.linalg.cond(system, 1))
