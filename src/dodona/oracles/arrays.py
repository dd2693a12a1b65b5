"""What every oracle takes, checked once at its door: P [S, A, S], R, gamma, terminal [S], action_mask [S, A].

Infeasible actions and terminal states lose their rows, terminal states their columns too (their value
is 0), so that a row may sum to less than one; nothing behind the door meets a mask again.

Source: Puterman 1994, ch. 2. Not here: any answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ArrayLike = np.ndarray | Sequence  # arrays, and nested lists of numbers
UNIT = 2.0**-53  # unit roundoff of float64


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checked model: P [S, A, S] and R [S, A] with dropped rows and columns zero, ends [S], mask [S, A]."""

    P: np.ndarray
    R: np.ndarray
    gamma: float
    ends: np.ndarray
    mask: np.ndarray

    def q(self, v: np.ndarray) -> np.ndarray:
        """[S, A] action values r + gamma P v, -inf on dropped rows."""
        return np.where(self.mask, self.R + self.gamma * (self.P @ v), -np.inf)


def model(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float = 0.0,
    *,
    terminal: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
    limit: int,
) -> Model:
    """The arrays of an oracle, or a ValueError that names the first offence.

    Args:
        P: p(s'|s, a) [S, A, S]; rows sum to one, or to less where mass has left the model.
        R: r(s, a) [S, A], or r(s, a, s') [S, A, S], which is averaged over s'.
        gamma: discount in [0, 1].
        terminal: [S] bool, states of value 0.  action_mask: [S, A] bool, False where infeasible.
        limit: the largest number of states the caller takes.
    Raises: ValueError: shapes, size, range, rows, a live state without an action.
    """
    P, R = np.array(P, dtype=float), np.asarray(R, dtype=float)
    if P.ndim != 3 or P.shape[0] != P.shape[2]:
        raise ValueError(
            f"P has shape {P.shape}, expected [S, A, S] with P[s, a, s'] = p(s'|s, a)."
        )
    S, A, _ = P.shape
    if S > limit:
        raise ValueError(f"{S} states are too many for this oracle, it takes at most {limit}.")
    if R.shape == P.shape:
        R = (P * R).sum(axis=2)
    if R.shape != (S, A):
        raise ValueError(f"R has shape {R.shape}, expected [S, A] = {(S, A)} or [S, A, S].")
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}.")
    ends, mask = doors(S, A, terminal, action_mask)
    sums = P.sum(axis=2)
    wrong = mask & ~((P >= 0).all(axis=2) & (sums <= 1 + 1e-9 * S**0.5) & np.isfinite(R))
    if wrong.any():
        s, a = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"state {s}, action {a}: probabilities {P[s, a].tolist()} and reward {R[s, a]!r}; expected "
            "are numbers >= 0 that sum to at most 1, and a finite reward."
        )
    P[~mask] = 0.0
    P[:, :, ends] = 0.0
    return Model(P=P, R=np.where(mask, R, 0.0), gamma=float(gamma), ends=ends, mask=mask)


def doors(
    S: int, A: int, terminal: ArrayLike | None, action_mask: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """(ends [S], mask [S, A] without the rows of ends); every live state keeps an action.

    Raises: ValueError: shapes, or a live state without an action.
    """
    ends = np.zeros(S, dtype=bool) if terminal is None else np.asarray(terminal)
    mask = np.ones((S, A), dtype=bool) if action_mask is None else np.asarray(action_mask)
    for name, array, shape in (("terminal", ends, (S,)), ("action_mask", mask, (S, A))):
        if array.shape != shape or array.dtype != bool:
            raise ValueError(
                f"{name} is {array.dtype} {array.shape}, expected is bool {shape}, True or False each."
            )
    mask = mask & ~ends[:, None]
    idle = ~mask.any(axis=1) & ~ends
    if idle.any():
        raise ValueError(f"state {int(np.argmax(idle))} has no action and is not terminal.")
    return ends, mask


def shares(policy: ArrayLike, mask: np.ndarray) -> np.ndarray:
    """[S, A] probabilities of a policy given as [S] actions or [S, A] probabilities; 0 on dropped rows.

    Raises: ValueError: another shape, a row that is no distribution, mass on an infeasible action.
    """
    policy, (S, A) = np.asarray(policy), mask.shape
    live = mask.any(axis=1)
    if policy.shape == (S,) and policy.dtype.kind in "iu":
        if np.any(((policy < 0) | (policy >= A))[live]):
            raise ValueError(f"actions must be in 0..{A - 1}, got {policy[live].tolist()}.")
        share = np.eye(A)[np.where(live, policy, 0)]
    elif policy.shape == (S, A):
        share = policy.astype(float)
    else:
        raise ValueError(
            f"policy is {policy.dtype} {policy.shape}, expected integers [S] = ({S},) or "
            f"probabilities [S, A] = {(S, A)}."
        )
    share = np.where(live[:, None], share, 0.0)
    wrong = live & (
        ~(np.abs(share.sum(axis=1) - 1.0) <= 1e-9 * A**0.5)
        | (share < 0).any(axis=1)
        | ((share > 0) & ~mask).any(axis=1)
    )
    if wrong.any():
        s = int(np.argmax(wrong))
        raise ValueError(
            f"state {s}: the policy is {share[s].tolist()}, expected is a distribution over its "
            f"feasible actions {np.flatnonzero(mask[s]).tolist()}."
        )
    return share


def start_law(start: ArrayLike | None, ends: np.ndarray) -> np.ndarray:
    """[S] the law of the first state; None: every live state alike. What starts in the end is over: 0 there.

    Raises: ValueError: another shape, or no distribution.
    """
    if start is None:
        return ~ends / (~ends).sum()
    law = np.asarray(start, dtype=float)
    if law.shape != ends.shape or not ((law >= 0).all() and abs(law.sum() - 1.0) <= 1e-9):
        raise ValueError(f"start is {law.tolist()}, expected is a distribution over {len(ends)} states.")  # fmt: skip
    return np.where(ends, 0.0, law)


def softmax(logits: ArrayLike) -> np.ndarray:
    """[S, A] probabilities of a table of logits; -inf is an action that is never taken.

    Raises: ValueError: another shape, NaN or +inf, a row of -inf.
    """
    logits = np.asarray(logits, dtype=float)
    if logits.ndim != 2 or not (np.isfinite(logits) | (logits == -np.inf)).all():
        raise ValueError(f"logits are {logits.tolist()}, expected are numbers or -inf, [S, A].")
    idle = ~np.isfinite(logits).any(axis=1)
    if idle.any():
        raise ValueError(f"state {int(np.argmax(idle))} has no action: all its logits are -inf.")
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def chain(m: Model, policy: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(P_pi [S, S], r_pi [S]) of a policy; rows and columns of terminal states are zero."""
    share = shares(policy, m.mask)
    return np.einsum("sa,sat->st", share, m.P), np.einsum("sa,sa->s", share, m.R)
