"""A data set of transitions as the model it defines: the exact truth of learning from that data alone.

Counts become frequencies, rewards their mean; what was never tried is infeasible. Whatever learns from
the data set for ever (offline Q-learning, fitted Q iteration, DQN on a fixed buffer) converges to this
model's optimum, or misses it by its own fault.

Source: the certainty-equivalent model, Kumar & Varaiya 1986; Sutton & Barto 2018, sec. 6.3. Not here:
solving it (any other oracle does).
"""

from dataclasses import dataclass

import numpy as np

from dodona.oracles.arrays import ArrayLike


@dataclass(frozen=True, kw_only=True)
class EmpiricalModel:
    """P [S+1, A, S+1], R [S+1, A], counts [S+1, A]; terminal [S+1] and action_mask [S+1, A] for the oracles.

    The last state is the end of episodes. States that were never acted in are terminal too: nothing
    is known of what follows them.
    """

    P: np.ndarray
    R: np.ndarray
    counts: np.ndarray
    terminal: np.ndarray
    action_mask: np.ndarray


def empirical_mdp(
    states: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    next_states: ArrayLike,
    terminated: ArrayLike | None = None,
    *,
    num_states: int,
    num_actions: int,
) -> EmpiricalModel:
    """The model of maximum likelihood of N transitions.

    p(s'|s, a) = count(s, a, s') / count(s, a), r(s, a) = mean reward of (s, a).

    Args:
        states, actions, rewards, next_states: [N]; order and repetition do not matter.
        terminated: [N] bool, nothing follows; a truncated transition is an ordinary one.
        num_states, num_actions: S and A.
    Returns: EmpiricalModel with one more state, the end; exact but for one division each.
    Raises: ValueError: lengths, a state or action out of range, a reward that is not finite.
    Independent of: every learner, and of the order of the data.
    Source: see the module.  Cost: O(N + S^2 A).

    >>> seen = empirical_mdp([0, 0], [1, 1], [0.0, 3.0], [0, 0], [False, True], num_states=1, num_actions=2)
    >>> seen.P[0, 1], seen.R[0, 1]
    (array([0.5, 0.5]), np.float64(1.5))
    """
    s, a, after = (np.asarray(x, dtype=int) for x in (states, actions, next_states))
    r = np.asarray(rewards, dtype=float)
    end = np.zeros(len(s), bool) if terminated is None else np.asarray(terminated, dtype=bool)
    S, A = num_states, num_actions
    if not len({len(x) for x in (s, a, r, after, end)}) == 1:
        raise ValueError(
            "states, actions, rewards, next_states and terminated must be equally long."
        )
    for name, x, largest in (("states", s, S), ("actions", a, A), ("next_states", after, S)):
        if np.any((x < 0) | (x >= largest)):
            raise ValueError(f"{name} must lie in 0..{largest - 1}, got {x.min()}..{x.max()}.")
    if not np.all(np.isfinite(r)):
        raise ValueError(f"rewards[{int(np.argmin(np.isfinite(r)))}] is not finite.")
    P, R = np.zeros((S + 1, A, S + 1)), np.zeros((S + 1, A))
    np.add.at(P, (s, a, np.where(end, S, after)), 1.0)
    np.add.at(R, (s, a), r)
    counts = P.sum(axis=2)
    seen = np.maximum(counts, 1.0)
    return EmpiricalModel(
        P=P / seen[:, :, None],
        R=R / seen,
        counts=counts.astype(int),
        terminal=~(counts > 0).any(axis=1),
        action_mask=counts > 0,
    )
