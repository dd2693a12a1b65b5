"""What a wrong learner converges to: the action values that solve its own, wrong, equation.

A bug of a target or of the experience replaces r + gamma P E[q] by another operator; its fixed point is
computed here by sweeps over dense arrays. Learned values that lie there name their bug.

Source: the definitions in ``LEARNING_BUGS``; Pardo et al., arXiv:1712.00378 (time limits). Not here: bugs
of planners (bugs.py), bugs that change only the way to the same values (n off by one, a lost tail).
"""

import numpy as np
from numpy.typing import ArrayLike

from dodona.oracles.arrays import doors, shares

LEARNING_BUGS = {
    "truncation as termination": "a time limit is taken for an end: done = terminated or truncated",
    "reset leak": "after a time limit the next state is the first of the next episode",
    "ends forgotten": "no flag is kept: episodes run on into the next one",
    "terminal bootstrapped": "the value of a terminal state is used, and it stays as it began",
    "gamma omitted": "the future is not discounted",
    "gamma squared": "the future is discounted twice",
    "gamma on reward": "the reward is discounted too",
    "reward of the next step": "each transition gets the reward of the one after it",
    "reward of the step before": "each transition gets the reward of the one before it",
    "mean for maximum": "the mean over the behaviour's actions instead of the best action",
    "maximum for mean": "the best action instead of the mean over the policy's actions",
    "minimum for maximum": "the worst action instead of the best",
    "infeasible actions": "actions that are not allowed take part, with the value they began with",
    "transposed": "p(s'|s, a) read as p(s|s', a)",
    "layout": "P[a, s, s'] read as P[s, a, s']",
    "future ignored": "no bootstrapping at all: the mean reward of one step",
    "rewards clipped": "rewards clipped to -1..1 before learning",
}
"""Name of each bug and what it does."""


def buggy_action_values(
    bug: str | None, P: ArrayLike, R: ArrayLike, gamma: float, *, behaviour: ArrayLike,
    target: str = "optimal", terminal: ArrayLike | None = None, action_mask: ArrayLike | None = None,
    start: ArrayLike | None = None, limit: int | None = None, stale: float = 0.0, sweeps: int = 4000,
    tol: float = 1e-12,
) -> np.ndarray | None:  # fmt: skip
    """[S, A] values that a learner with one bug reaches; None: the bug does nothing to this target.

    Args:
        bug: a key of LEARNING_BUGS; None: no bug, the right values.
        P: [S, A, S].  R: [S, A] or [S, A, S].  gamma: in [0, 1].
        behaviour: [S] or [S, A], the policy that acts; target "policy" evaluates it.
        target: "optimal" (Q-learning) or "policy" (Sarsa and kin with a fixed policy).
        terminal: [S] bool.  action_mask: [S, A] bool.
        start: [S] first states; None: evenly over live states.
        limit: steps of an episode, None = no limit.
        stale: first value of every entry, which terminal states and infeasible actions keep.
        sweeps, tol: at most so many, and the relative change at which they end.
    Returns: rows of terminal states 0, infeasible entries NaN; infinite where the bug diverges.
    Raises: ValueError: an unknown bug or target, shapes.
    Independent of: learners; plain dense sweeps.
    Source: LEARNING_BUGS.  Cost: S^2 A per sweep.
    """
    if bug is not None and bug not in LEARNING_BUGS:
        raise ValueError(f"unknown bug '{bug}'. Known: {', '.join(LEARNING_BUGS)}.")
    if target not in ("optimal", "policy"):
        raise ValueError(f"target must be 'optimal' or 'policy', got {target!r}.")
    P = np.array(P, dtype=float)
    S, A, _ = P.shape
    ends, mask = doors(S, A, terminal, action_mask)
    share = shares(behaviour, mask)
    R3 = np.broadcast_to(np.asarray(R, dtype=float).reshape(S, A, -1), P.shape)
    if bug == "rewards clipped":
        R3 = np.clip(R3, -1.0, 1.0)
    P[~mask] = 0.0
    r = (P * R3).sum(axis=2)
    first = (
        (~ends).astype(float) if start is None else np.where(ends, 0.0, np.asarray(start, float))
    )
    first = first / first.sum()
    reduce = "max" if target == "optimal" else "mean"
    other = {"mean for maximum": ("optimal", "mean"), "minimum for maximum": ("optimal", "min"),
             "maximum for mean": ("policy", "max")}  # fmt: skip
    if bug in other:
        needed, reduce = other[bug]
        if target != needed:
            return None
    # after [S, A, S] weighs live successors, extra [S, A] is a constant that is added
    after, extra = np.where(ends, 0.0, P), np.zeros((S, A))
    into_end = P[:, :, ends].sum(axis=2)
    cut = _cut_shares(P, share, first, ends, limit)[:, None, None]
    if bug == "terminal bootstrapped":
        extra = into_end * stale
    elif bug == "truncation as termination":
        after = (1.0 - cut) * after
    elif bug == "reset leak":
        # a step that ends by itself has no successor, whether the limit falls on it or not
        after = (1.0 - cut) * after + cut * (1.0 - into_end)[:, :, None] * first
    elif bug == "ends forgotten":
        after = (1.0 - cut) * (after + into_end[:, :, None] * first) + cut * first
    elif bug == "gamma on reward":
        r = gamma * r
    elif bug == "reward of the next step":
        mean = (share * r).sum(axis=1)
        left = cut[:, :, 0]
        r = (1.0 - left) * (P @ mean + into_end * (first @ mean)) + left * (first @ mean)
    elif bug == "reward of the step before":
        r = np.repeat(
            _rewards_before(P, R3, share, first, ends, limit or sweeps)[:, None], A, axis=1
        )
    elif bug == "transposed":
        after = P.transpose(2, 1, 0) * ~ends
    elif bug == "layout":
        after = P.transpose(1, 0, 2).reshape(S, A, S) * ~ends
    discount = {"gamma omitted": 1.0, "gamma squared": gamma**2, "future ignored": 0.0}.get(
        bug, gamma
    )
    allowed = mask
    if bug == "infeasible actions":
        if mask[~ends].all():
            return None
        allowed = np.broadcast_to(~ends[:, None], mask.shape)

    q = np.full((S, A), float(stale) if bug == "infeasible actions" else 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(sweeps):
            if reduce == "max":
                v = np.where(allowed, q, -np.inf).max(axis=1)
            elif reduce == "min":
                v = np.where(allowed, q, np.inf).min(axis=1)
            else:
                v = (share * q).sum(axis=1)
            new = r + discount * (after @ np.where(ends, 0.0, v) + extra)
            new = np.where(mask, new, q)
            change, q = np.abs(new - q).max(), new
            if change <= tol * (1.0 + np.abs(q).max()) or not np.isfinite(change):
                break
    q = np.where(mask | ends[:, None], q, np.nan)
    q[ends] = 0.0
    return q


def _cut_shares(P, share, first, ends, limit: int | None) -> np.ndarray:
    """[S] how many of a state's visits are the last that the time limit allows."""
    if limit is None:
        return np.zeros(len(first))
    steps = np.where(ends, 0.0, np.einsum("sa,sat->st", share, P))
    visits, now = np.zeros(len(first)), first.copy()
    for _ in range(limit - 1):
        visits += now
        now = now @ steps
    visits += now
    return np.where(visits > 0, now / np.maximum(visits, 1e-300), 0.0)


def _rewards_before(P, R3, share, first, ends, steps: int) -> np.ndarray:
    """[S] mean reward of the step that led to a state; to a first state, the last of the episode before."""
    paid = np.einsum("sa,sat->st", share, P * R3)
    moves = np.where(ends, 0.0, np.einsum("sa,sat->st", share, P))
    visits, brought, now = first.copy(), np.zeros(len(first)), first
    last = 0.0
    for step in range(steps):
        rewards = now @ paid
        over = ends if step < steps - 1 else np.ones(len(first), dtype=bool)
        last += rewards[over].sum()
        now = np.where(over, 0.0, now @ moves)
        visits, brought = visits + now, brought + np.where(over, 0.0, rewards)
        if now.sum() <= 1e-15:
            break
    return np.where(visits > 0, (brought + last * first) / np.maximum(visits, 1e-300), 0.0)
