"""Learning the reward per step as textbooks print it: one loop over transitions, a table and a number.

Not here: gains of models (dense.average_reward, linear_program.average_reward_lp).
Source: Schwartz 1993; Mahadevan 1996; Sutton & Barto 2018, sec. 10.3; Wan, Naik & Sutton, arXiv:2006.16318.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dodona.oracles.arrays import doors
from dodona.oracles.learning import Transition


def differential(
    kind: str, transitions: Sequence[Transition], num_states: int, num_actions: int, *, alpha: float, eta: float,
    initial_gain: float = 0.0,
) -> tuple[list[list[float]], float]:  # fmt: skip
    """(table [S][A], gain) after all transitions; kind: "sarsa", "q", or "r" (the gain moves after greedy actions).

    Independent of: the compiled rule.  Source: the module's.
    """
    q, g = [[0.0] * num_actions for _ in range(num_states)], initial_gain
    for s, a, r, s2, _, _, a2 in transitions:
        delta = r - g + (q[s2][a2] if kind == "sarsa" else max(q[s2])) - q[s][a]
        q[s][a] = q[s][a] + alpha * delta
        if kind != "r":
            g = g + eta * alpha * delta
        elif q[s][a] == max(q[s]):
            g = g + eta * alpha * (r - g + max(q[s2]) - max(q[s]))
    return q, g


def exploring(
    P: ArrayLike, R: ArrayLike, epsilon: float, *, action_mask: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(P, R) of the model in which an action is what was chosen with 1 - epsilon, else uniform: epsilon inside.

    The optimal gain of this model is the best gain of all epsilon-greedy policies.

    Args: P: [S, A, S].  R: [S, A].  epsilon: in [0, 1].  action_mask: [S, A]; infeasible rows stay 0.
    Returns: arrays of the same shape.
    Independent of: learners.  Source: Zhao 2025, sec. 5.5 (epsilon-soft).
    """
    P, R = np.asarray(P, dtype=float), np.asarray(R, dtype=float)
    _, mask = doors(P.shape[0], P.shape[1], None, action_mask)
    share = mask / mask.sum(axis=1, keepdims=True)
    mixed = np.einsum("sa,sat->st", share, P)[:, None, :]
    earned = (share * np.where(mask, R, 0.0)).sum(axis=1)[:, None]
    P, R = (1 - epsilon) * P + epsilon * mixed, (1 - epsilon) * R + epsilon * earned
    return np.where(mask[:, :, None], P, 0.0), np.where(mask, R, 0.0)
