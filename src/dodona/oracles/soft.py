"""Soft and epsilon-soft optima by their contraction, to 1e-14 and with a bracket, in plain dense arrays.

Source: Geist, Scherrer, Pietquin 2019, arXiv:1901.11275; Sutton & Barto 2018, sec. 5.4. Not here:
learning rules that converge to them.
"""

from collections.abc import Callable

import numpy as np

from dodona.oracles.arrays import UNIT, ArrayLike, Model, model

LIMIT = 3000


def soft_value(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    tau: float,
    *,
    reference: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
) -> tuple[np.ndarray, float]:
    """v = tau log sum_a ref(a|s) exp(q(s, a) / tau), the entropy- or KL-regularised optimum.

    Args:
        P [S, A, S], R [S, A] or [S, A, S]; terminal [S], action_mask [S, A] bool.
        gamma: below 1, or 1 where every path ends within S steps (a tree of tokens).
        tau: temperature > 0, reward units.
        reference: [S, A] policy; None counts every feasible action as 1 (entropy).
    Returns: (v [S], bound): |v - v_soft| <= bound, from the last step of the contraction.
    Raises: ValueError: see arrays.model; more than 3000 states; gamma 1 without a tree; tau <= 0.
    Independent of: sums of exponentials with a subtracted maximum (NumPy's logaddexp is used), learners.
    Source: arXiv:1901.11275, sec. 2.  Cost: S^2 A per step, log(1e14) / (1 - gamma) steps.
    """
    if not tau > 0:
        raise ValueError(f"tau must be > 0, got {tau}.")
    m = model(P, R, gamma, terminal=terminal, action_mask=action_mask, limit=LIMIT)
    weight = m.mask * (1.0 if reference is None else np.asarray(reference, dtype=float))
    weight[m.ends] = 1.0  # any: their value is set to 0
    with np.errstate(divide="ignore"):
        prior = np.log(weight)
    # log and exp of numbers up to |q| / tau each err by some units, which tau carries back
    extra = 16 * UNIT * (tau * (1.0 + np.log(m.mask.shape[1])) + np.abs(m.R).max(initial=0.0))

    def backup(v: np.ndarray) -> np.ndarray:
        return tau * np.logaddexp.reduce(np.where(m.mask, m.q(v), 0.0) / tau + prior, axis=1)

    return _fixed(m, backup, extra)


def epsilon_soft_value(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    epsilon: float,
    *,
    terminal: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
) -> tuple[np.ndarray, float]:
    """v = (1 - eps) max_a q + eps mean_a q, the best value among policies that explore.

    Args: as soft_value.  epsilon: in [0, 1], spread evenly over the feasible actions.
    Returns: (v [S], bound): |v - v_eps| <= bound.
    Raises: ValueError: see arrays.model; more than 3000 states; gamma 1 without a tree; epsilon outside [0, 1].
    Independent of: learners (Sarsa and Expected Sarsa with this epsilon converge to it).
    Source: Sutton & Barto 2018, sec. 5.4.  Cost: as soft_value.
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon must be in [0, 1], got {epsilon}.")
    m = model(P, R, gamma, terminal=terminal, action_mask=action_mask, limit=LIMIT)
    count = np.maximum(m.mask.sum(axis=1), 1)

    def backup(v: np.ndarray) -> np.ndarray:
        q = m.q(v)
        mean = np.where(m.mask, q, 0.0).sum(axis=1) / count
        return (1 - epsilon) * np.where(m.ends, 0.0, q.max(axis=1)) + epsilon * mean

    return _fixed(m, backup, 0.0)


def _fixed(m: Model, backup: Callable, extra: float) -> tuple[np.ndarray, float]:
    """(fixed point, bound): |v - truth| <= (gamma change + rounding of one step) / (1 - gamma)."""
    S, A = m.mask.shape
    v, last, steps = np.zeros(S), np.inf, 0
    while True:
        new = np.where(m.ends, 0.0, backup(v))
        change, size = float(np.abs(new - v).max()), float(np.abs(new).max())
        v, steps = new, steps + 1
        if m.gamma == 1.0 and change and steps > S:
            raise ValueError(
                "gamma is 1 and the model is no tree: some path takes more than S steps."
            )
        # close enough, or at the floor of float64, where steps no longer shrink
        floor = change >= last and change <= 1e-9 * (1.0 + size)
        if change <= 1e-14 * (1.0 + size) * (1.0 - m.gamma) or floor or not np.isfinite(change):
            break
        last = change
    rounding = (S + A + 8) * UNIT * (np.abs(m.R).max(initial=0.0) + 2 * size) + extra
    if m.gamma == 1.0:
        return v, float(S * rounding)
    return v, float((m.gamma * change + rounding) / (1.0 - m.gamma))
