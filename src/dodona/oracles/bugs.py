"""What a wrong planner converges to: the fixed point of each known bug.

Almost every bug replaces the Bellman operator by another one, so it has values of its own that can be
computed. They judge the checks (each must fail on them) and name the bug behind wrong values.

Source: the definitions in ``BUGS``; reports of each are collected in card oracle-kit-rl, sec. 5. Not
here: bugs of sampling and learning.
"""

import numpy as np

from dodona.oracles.arrays import ArrayLike, doors, shares

BUGS = {
    "transposed": "p(s'|s, a) read as p(s|s', a)",
    "layout": "P[a, s, s'] read as P[s, a, s']",
    "infeasible": "infeasible actions take part in the maximum, or in the mean of the actions",
    "terminal bootstrapped": "terminal states keep a stale value instead of 0",
    "gamma omitted": "the future is not discounted",
    "gamma squared": "the future is discounted twice",
    "gamma on reward": "the reward is discounted too",
    "reward of the next step": "r(s, a) replaced by the mean reward of the state that follows",
    "swapped": "expectation over actions instead of the maximum, or the maximum instead of the policy",
    "minimum": "the smallest action value instead of the largest",
    "clipped at zero": "negative values cut off",
    "likeliest successor": "the most probable successor instead of the expectation over all",
}
"""Name of each bug and what it does."""


def buggy_value(
    bug: str,
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    *,
    policy: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
    stale: float = 1.0,
    sweeps: int = 3000,
    tol: float = 1e-13,
) -> np.ndarray:
    """The values that value iteration, or the evaluation of a policy, reaches with one bug in it.

    Args:
        bug: a key of BUGS.
        P: [S, A, S].  R: [S, A].  gamma: in [0, 1].  policy: [S] or [S, A]; None: the optimum.
        terminal: [S] bool.  action_mask: [S, A] bool.
        stale: what "terminal bootstrapped" keeps in terminal states, reward units.
        sweeps: at most; a bug that no longer contracts ("gamma omitted", "transposed") is cut there.
        tol: relative change at which the sweeps end.
    Returns: [S]; terminal states 0. Infinite or NaN where the bug diverges.
    Raises: ValueError: an unknown bug, shapes.
    Independent of: the code it is the bug of: plain dense sweeps.
    Source: BUGS.  Cost: S^2 A per sweep.
    """
    if bug not in BUGS:
        raise ValueError(f"unknown bug '{bug}'. Known: {', '.join(BUGS)}.")
    P, R = np.array(P, dtype=float), np.array(R, dtype=float)
    S, A, _ = P.shape
    ends, mask = doors(S, A, terminal, action_mask)
    share = None if policy is None else shares(policy, mask)
    average = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1) if share is None else share
    if bug == "swapped":
        share = average if share is None else None
    elif bug == "transposed":
        P = np.where(mask[:, :, None], P, 0.0).transpose(2, 1, 0)
    elif bug == "layout":
        P = P.transpose(1, 0, 2).reshape(S, A, S)
    elif bug == "infeasible":
        mask = np.broadcast_to(~ends[:, None], mask.shape)
        share = None if share is None else (share + 1.0 / A) / 2
    elif bug == "gamma on reward":
        R = gamma * R
    elif bug == "reward of the next step":
        R = P @ (average * R).sum(axis=1)
    elif bug == "likeliest successor":
        P = np.eye(S)[P.argmax(axis=2)]
    discount = {"gamma omitted": 1.0, "gamma squared": gamma**2}.get(bug, gamma)
    kept = stale if bug == "terminal bootstrapped" else 0.0
    sign = -1.0 if bug == "minimum" else 1.0

    v = np.where(ends, kept, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(sweeps):
            q = R + discount * (P @ v)
            if share is None:
                new = sign * np.where(mask, sign * q, -np.inf).max(axis=1)
            else:
                new = (share * np.where(mask, q, 0.0)).sum(axis=1)
            if bug == "clipped at zero":
                new = np.maximum(new, 0.0)
            new[ends] = kept
            done = np.abs(new - v).max() <= tol * (1.0 + np.abs(new).max())
            v = new
            if done:
                break
    return np.where(ends, 0.0, v)
