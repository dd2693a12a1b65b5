"""Linear value functions when the model is known: fixed points, projections, objectives, stability.

Everything is computed from an orthonormal basis of the features in the norm of the weights, never
from normal equations, and A, b are added up transition by transition, as their definition says.

Source: Tsitsiklis & Van Roy 1997; Sutton & Barto 2018, ch. 11; Zhao 2025, sec. 8.2. Not here: learners,
their exact moments.
"""

from collections import namedtuple

import numpy as np
from numpy.typing import ArrayLike

from dodona.oracles.arrays import Model, chain, model, shares
from dodona.oracles.chains import stationary

LIMIT = 2000

Objectives = namedtuple("Objectives", ("J_E", "J_BE", "J_PBE"))
"""Weighted mean squares of v^ - v_pi, of v^ - T v^, and of v^ - M T v^."""
FixedPoint = namedtuple("FixedPoint", ("w", "A", "b"))
"""w [m] with A w = b; A [m, m] = E[phi (phi - gamma phi')^T], b [m] = E[r phi]."""
Minimisers = namedtuple("Minimisers", ("value_error", "bellman_error"))
"""w [m] that minimise J_E and J_BE; of least norm where several do."""
Stability = namedtuple("Stability", ("radius", "limit", "eigenvalues"))
"""Spectral radius of I - alpha A, the alpha below which it is < 1 (0: none), eigenvalues of A."""


def on_policy_shares(
    P: ArrayLike,
    policy: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
    start: ArrayLike | None = None,
) -> np.ndarray:
    """Long-run shares of live states, an ended episode beginning anew: stationary, of the chain with restarts.

    Args: P: [S, A, S].  policy: [S] or [S, A].  terminal: [S] bool.  start: [S], needed with terminal.
    Returns: [S], sums to one, 0 in terminal states.
    Raises: ValueError: see chains.stationary.
    Independent of: linear solves on visits (the chain is closed by hand and eliminated by GTH).
    Source: Sutton & Barto 2018, sec. 9.2.  Cost: O(S^3).
    """
    if terminal is None or not np.any(terminal):
        return stationary(P, policy)
    P, ends = np.array(P, dtype=float), np.asarray(terminal)
    keep = ~ends
    first = np.asarray(start, dtype=float)[keep]
    share = shares(policy, np.broadcast_to(keep[:, None], P.shape[:2]))
    steps = np.einsum("sa,sat->st", share, P)[keep]
    closed = steps[:, keep] + np.outer(1.0 - steps[:, keep].sum(axis=1), first)
    out = np.zeros(len(ends))
    out[keep] = stationary(closed[:, None, :], np.zeros(int(keep.sum()), dtype=int))
    return out


def td_fixed_point(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    Phi: ArrayLike,
    *,
    d: ArrayLike | str = "stationary",
    terminal: ArrayLike | None = None,
    start: ArrayLike | None = None,
) -> FixedPoint:
    """Where linear TD(0) and LSTD end: Phi w = M (r + gamma P_pi Phi w).

    With Q an orthonormal basis of the features in the norm of d and v = Q c, c = (I - Q^T D gamma P Q)^{-1}
    Q^T D r; w is the least-norm solution of Phi w = v.

    Args:
        P: [S, A, S].  R: [S, A] or [S, A, S].  gamma: in [0, 1].
        policy: [S] actions or [S, A] probabilities.
        Phi: [S, m] features.  Rows of terminal states are read as 0.
        d: [S] weights of states, or "stationary": the policy's own, with restarts from ``start``.
        terminal: [S] bool.  start: [S] distribution of the first state.
    Returns: FixedPoint(w, A, b); error about 1e-16 times the condition of the small system.
    Raises: ValueError: see arrays.model; more than 2000 states.
    Independent of: normal equations, sampling, Sherman-Morrison.
    Source: Tsitsiklis & Van Roy 1997, th. 1.  Cost: O(S^2 m).
    """
    m, phi, d = _doors(P, R, gamma, policy, Phi, d, terminal, start)
    P_pi, r_pi = chain(m, policy)
    basis = _basis(phi, d)
    small = np.eye(basis.shape[1]) - basis.T @ (d[:, None] * (m.gamma * P_pi @ basis))
    values = basis @ np.linalg.solve(small, basis.T @ (d * r_pi))
    A, b = np.zeros((phi.shape[1],) * 2), np.zeros(phi.shape[1])
    share = shares(policy, m.mask)
    for s, a in np.argwhere(share > 0):
        # mass that goes to terminal states has no future; what is left of each row has phi'
        weight = d[s] * share[s, a]
        A += weight * np.outer(phi[s], phi[s] - m.gamma * m.P[s, a] @ phi)
        b += weight * m.R[s, a] * phi[s]
    return FixedPoint(_weights(phi, values, d), A, b)


def projection(Phi: ArrayLike, d: ArrayLike) -> np.ndarray:
    """M [S, S], the projection on the span of the features that is orthogonal in the norm of d.

    Args: Phi: [S, m], of any rank.  d: [S] >= 0.
    Returns: M = Q Q^T D; M^2 = M and D M = M^T D up to 1e-15.
    Independent of: (Phi^T D Phi)^{-1}.
    Source: Zhao 2025, sec. 8.2.5.  Cost: O(S m^2 + S^2 m).
    """
    d = np.asarray(d, dtype=float)
    basis = _basis(np.asarray(Phi, dtype=float), d)
    return basis @ (basis.T * d)


def value_objectives(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    Phi: ArrayLike,
    w: ArrayLike,
    *,
    d: ArrayLike | str = "stationary",
    terminal: ArrayLike | None = None,
    start: ArrayLike | None = None,
) -> Objectives:
    """J_E, J_BE and J_PBE of a weight vector, each by its definition.

    Args: as td_fixed_point.  w: [m].
    Returns: Objectives(J_E, J_BE, J_PBE), squared reward units.
    Raises: ValueError: as td_fixed_point.
    Independent of: quadratic forms in A, b.
    Source: Sutton & Barto 2018, sec. 11.4.  Cost: one dense solve.
    """
    m, phi, d = _doors(P, R, gamma, policy, Phi, d, terminal, start)
    P_pi, r_pi = chain(m, policy)
    truth = np.linalg.solve(np.eye(len(d)) - m.gamma * P_pi, r_pi)
    values = phi @ np.asarray(w, dtype=float)
    target = r_pi + m.gamma * P_pi @ values
    errors = (values - truth, values - target, values - projection(phi, d) @ target)
    return Objectives(*(float(d @ e**2) for e in errors))


def minimisers(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    Phi: ArrayLike,
    *,
    d: ArrayLike | str = "stationary",
    terminal: ArrayLike | None = None,
    start: ArrayLike | None = None,
) -> Minimisers:
    """The weights with the least value error and the least Bellman error: two weighted least squares.

    Args, Raises: as td_fixed_point.
    Returns: Minimisers(value_error [m], bellman_error [m]).
    Independent of: normal equations.
    Source: Sutton & Barto 2018, sec. 11.4.  Cost: O(S^3 + S m^2).
    """
    m, phi, d = _doors(P, R, gamma, policy, Phi, d, terminal, start)
    P_pi, r_pi = chain(m, policy)
    truth = np.linalg.solve(np.eye(len(d)) - m.gamma * P_pi, r_pi)
    return Minimisers(_weights(phi, truth, d), _weights(phi - m.gamma * P_pi @ phi, r_pi, d))


def mean_dynamics(
    A: ArrayLike, b: ArrayLike, w: ArrayLike, *, alpha: float, num_steps: int
) -> np.ndarray:
    """w after so many expected updates w <- w + alpha (b - A w), by squaring the affine map.

    Args: A: [m, m].  b, w: [m].  alpha: step size.  num_steps: at least 0.
    Returns: [m].
    Independent of: stepping.
    Source: Sutton & Barto 2018, sec. 9.4.  Cost: O(m^3 log num_steps).
    """
    n = len(np.asarray(b))
    step = np.eye(n + 1)
    step[:n, :n] -= alpha * np.asarray(A, dtype=float)
    step[:n, n] = alpha * np.asarray(b, dtype=float)
    return (np.linalg.matrix_power(step, num_steps) @ np.append(w, 1.0))[:n]


def stability(A: ArrayLike, alpha: float) -> Stability:
    """Does w <- w + alpha (b - A w) converge, and for which alpha?

    |1 - alpha lambda| < 1 for every eigenvalue: alpha < 2 Re(lambda) / |lambda|^2. Eigenvalues that are
    zero to rounding move nothing and are left out of the limit.

    Args: A: [m, m].  alpha: step size.
    Returns: Stability(radius, limit, eigenvalues [m], the smallest real part first).
    Independent of: stepping.
    Source: Sutton & Barto 2018, sec. 9.4 and 11.2.  Cost: O(m^3).
    """
    values = np.linalg.eigvals(np.asarray(A, dtype=float))
    values = values[np.argsort(values.real)]
    moving = values[np.abs(values) > 1e-12 * max(np.abs(values).max(initial=0.0), 1e-300)]
    limit = min((2 * z.real / abs(z) ** 2 for z in moving), default=np.inf)
    return Stability(float(np.abs(1 - alpha * values).max()), max(float(limit), 0.0), values)


# ---------------------------------------------------------------------- private
def _doors(P, R, gamma, policy, Phi, d, terminal, start) -> tuple[Model, np.ndarray, np.ndarray]:
    m = model(P, R, gamma, terminal=terminal, limit=LIMIT)
    phi = np.where(m.ends[:, None], 0.0, np.asarray(Phi, dtype=float))
    if isinstance(d, str):
        d = on_policy_shares(P, policy, terminal=terminal, start=start)
    return m, phi, np.where(m.ends, 0.0, np.asarray(d, dtype=float))


def _basis(phi: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Q [S, rank] with Q^T D Q = I, spanning the features on the states that count."""
    root = np.sqrt(d)
    left, size, right = np.linalg.svd(root[:, None] * phi, full_matrices=False)
    keep = size > size.max(initial=0.0) * max(phi.shape) * 2.0**-52
    # through the features and not through root, so that states without weight get their values too
    return phi @ (right[keep].T / size[keep])


def _weights(phi: np.ndarray, values: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Least-norm w with the least sum of d (phi w - values)^2."""
    root = np.sqrt(d)
    return np.linalg.lstsq(root[:, None] * phi, root * values, rcond=None)[0]
