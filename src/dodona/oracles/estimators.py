"""Gradient estimators as sums over every trajectory: exact means, exact trace variances, no sample.

An estimator is sum_t w_t grad ln pi(a_t|s_t) with weights made of the trajectory's rewards:

    total                G_0                          unbiased, noisiest
    reward_to_go         gamma^t (G_t - b(s_t))       unbiased
    undiscounted_states  G_t - b(s_t)                 what nearly every library ships: the gradient of nothing

G_t = sum_{k >= t} gamma^(k - t) r_{k+1}, to the end of the trajectory.
Source: Williams 1992; Greensmith, Bartlett & Baxter 2004; Nota & Thomas 2019, arXiv:1906.07073.
Not here: the gradients that they estimate (gradients.py).
"""

from collections import namedtuple

import numpy as np

from dodona.oracles.arrays import ArrayLike, model, softmax, start_law

LIMIT = 10_000_000  # trajectories
BLOCK = 1 << 16  # of them at once
KINDS = ("total", "reward_to_go", "undiscounted_states")


class Trajectories(namedtuple("Trajectories", ("states", "actions", "rewards", "mask", "chance"))):
    """All N trajectories of at most T steps: [N, T] each, -1 (rewards 0) after the end; chance [N] sums to one."""

    def returns(self, gamma: float) -> np.ndarray:
        """[N, T] G_t, each by its own sum."""
        T = self.rewards.shape[1]
        return np.stack([self.rewards[:, t:] @ gamma ** np.arange(T - t) for t in range(T)], axis=1)


class Moments(namedtuple("Moments", ("mean", "trace_variance"))):
    """mean [S A] of an estimator, and the trace of its covariance: E |g - mean|^2."""


def enumerate_trajectories(
    P: ArrayLike, R: ArrayLike, gamma: float, logits: ArrayLike, *, horizon: int,
    start: ArrayLike | None = None, terminal: ArrayLike | None = None, limit: int = LIMIT,
) -> Trajectories:  # fmt: skip
    """Every trajectory of ``horizon`` steps that a softmax table can take, with its chance.

    Args:
        P: [S, A, S]; where a row sums to less than one, the rest is the end of the episode.
        R: [S, A], or [S, A, S], which is averaged.  gamma: checked, for G_t see ``returns``.
        logits: [S, A], -inf where never.  horizon: T >= 1 decisions.
        start: [S] law of the first state; None: every live state alike.
        terminal: [S] bool, where trajectories stop.
        limit: refuse more trajectories than this.
    Returns: Trajectories. The state after the last decision is left out: nothing is earned there.
    Raises: ValueError: see arrays.model; more than ``limit`` trajectories (counted before they are made).
    Independent of: every recursion of values.  Source: definition.  Cost: O(N T).
    """
    m = model(P, R, gamma, terminal=terminal, limit=LIMIT)
    S, A = m.R.shape
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}.")
    # the end is one state more, which goes on for nothing
    left = 1.0 - m.P.sum(axis=2)
    moves, policy = np.zeros((S + 1, A, S + 1)), np.zeros((S + 1, A))
    moves[:S, :, :S], moves[:S, :, S] = m.P, np.where(left > 1e-9, left, 0.0)
    moves[S, 0, S] = policy[S, 0] = 1.0
    policy[:S] = softmax(logits)
    law = start_law(start, m.ends)
    _count(moves, policy, law, horizon, limit)
    state = np.flatnonzero(law)
    chance = law[state]
    columns: list[tuple[np.ndarray, np.ndarray]] = []
    for t in range(horizon):
        row, action = np.nonzero(policy[state])
        chance, columns = chance[row] * policy[state[row], action], _rows(columns, row)
        columns.append((state[row], action))
        if t < horizon - 1:
            row, state = np.nonzero(moves[columns[-1]])
            chance = chance[row] * moves[columns[-1]][row, state]
            columns = _rows(columns, row)
    states, actions = (np.stack(x, axis=1) for x in zip(*columns, strict=True))
    mask = states < S
    rewards = np.where(mask, m.R[np.minimum(states, S - 1), actions], 0.0)
    return Trajectories(np.where(mask, states, -1), np.where(mask, actions, -1), rewards, mask, chance)  # fmt: skip


def estimator_moments(
    trajectories: Trajectories, logits: ArrayLike, gamma: float, *, kind: str = "reward_to_go",
    baseline: ArrayLike | None = None,
) -> Moments:  # fmt: skip
    """Mean and trace variance of one trajectory's estimate.

    Args:
        kind: see the module.
        baseline: b [S], or [T, S] where it depends on the step; not with "total".
    Raises: ValueError: an unknown kind, a baseline that would be ignored.
    Independent of: sampling, autograd.  Source: see the module.  Cost: O(N T A).
    """
    if kind not in KINDS or (kind == "total" and baseline is not None):
        raise ValueError(f"kind {kind!r}: expected one of {KINDS}, and no baseline with 'total'.")
    G = trajectories.returns(gamma)
    N, T = G.shape
    if kind == "total":
        weights = np.repeat(G[:, :1], T, axis=1)
    else:
        b = np.zeros(1 + trajectories.states.max()) if baseline is None else np.asarray(baseline)
        b = np.broadcast_to(b, (T, b.shape[-1]))
        weights = G - b[np.arange(T)[None, :], trajectories.states]
        if kind == "reward_to_go":
            weights = weights * gamma ** np.arange(T)
    return score_moments(trajectories, logits, weights)


def score_moments(trajectories: Trajectories, logits: ArrayLike, weights: np.ndarray) -> Moments:
    """Moments of sum_t w_t grad ln pi(a_t|s_t) for any weights [N, T]; what is past the end has none.

    Independent of: sampling, autograd.  Source: definition.  Cost: O(N T A).
    """
    policy = softmax(logits)
    S, A = policy.shape
    mean, square = np.zeros(S * A), 0.0
    for at in range(0, len(weights), BLOCK):
        part = slice(at, at + BLOCK)
        found = np.zeros((len(weights[part]), S, A))
        row = np.arange(len(found))
        for t in range(weights.shape[1]):
            s, a = trajectories.states[part, t], trajectories.actions[part, t]
            w = np.where(trajectories.mask[part, t], weights[part, t], 0.0)
            found[row, s] -= w[:, None] * policy[s]
            found[row, s, a] += w
        found = found.reshape(len(found), -1)
        mean += trajectories.chance[part] @ found
        square += trajectories.chance[part] @ (found**2).sum(axis=1)
    return Moments(mean, float(square - mean @ mean))


def one_sample_moments(
    logits: ArrayLike, weights: ArrayLike, q: ArrayLike, *, baseline: ArrayLike | None = None
) -> Moments:
    """Moments of Z grad ln pi(a|s) (q(s, a) - b(s)), (s, a) drawn from weights / Z times pi, Z = sum weights.

    Args: logits [S, A]; weights [S], the visits of states; q [S, A]; baseline [S], None: 0.
    Independent of: sampling.  Source: Greensmith et al. 2004.  Cost: O(S A^2).
    """
    policy, weights, q = softmax(logits), np.asarray(weights), np.asarray(q)
    S, A = policy.shape
    b = np.zeros(S) if baseline is None else np.asarray(baseline)
    mean, square, total = np.zeros((S, A)), 0.0, weights.sum()
    for s in range(S):
        for a in range(A):
            one = total * (np.eye(A)[a] - policy[s]) * (q[s, a] - b[s])
            chance = weights[s] / total * policy[s, a]
            mean[s] += chance * one
            square += chance * one @ one
    return Moments(mean.reshape(-1), float(square - (mean**2).sum()))


def horizon_gradient(
    P: ArrayLike, R: ArrayLike, gamma: float, logits: ArrayLike, *, horizon: int,
    start: ArrayLike | None = None, terminal: ArrayLike | None = None, discount_states: bool = True,
) -> np.ndarray:  # fmt: skip
    """[S A] sum_{t < T} gamma^t sum_s Pr(s_t = s) sum_a grad pi(a|s) q_t(s, a): of the return of T steps.

    Args: as enumerate_trajectories.  discount_states: False leaves gamma^t out, and it is no gradient any more.
    Independent of: enumeration.  Source: Sutton et al. 1999.  Cost: T S^2 A.
    """
    m, policy = model(P, R, gamma, terminal=terminal, limit=LIMIT), softmax(logits)
    law, out = start_law(start, m.ends), np.zeros_like(policy)
    to_go = values_to_go(P, R, gamma, logits, horizon=horizon, terminal=terminal)
    ahead = np.vstack([to_go[1:], np.zeros(len(policy))])
    for t in range(horizon):
        q = m.R + m.gamma * m.P @ ahead[t]
        centred = policy * (q - (policy * q).sum(axis=1, keepdims=True))
        out += (gamma**t if discount_states else 1.0) * law[:, None] * centred
        law = np.einsum("s,sa,sat->t", law, policy, m.P)
    return out.reshape(-1)


def optimal_baseline(logits: ArrayLike, q: ArrayLike) -> np.ndarray:
    """[S] b*(s) = E[|grad ln pi|^2 q] / E[|grad ln pi|^2]: the least trace variance of any b(s).

    Source: Greensmith et al. 2004; Weaver & Tao 2001.  Cost: O(S A^2).
    """
    policy = softmax(logits)
    A = policy.shape[1]
    length = ((np.eye(A)[None] - policy[:, None, :]) ** 2).sum(axis=2)
    return (policy * length * q).sum(axis=1) / (policy * length).sum(axis=1)


def values_to_go(
    P: ArrayLike, R: ArrayLike, gamma: float, logits: ArrayLike, *, horizon: int,
    terminal: ArrayLike | None = None,
) -> np.ndarray:  # fmt: skip
    """[T, S] expected return of the decisions that are left, row t before decision t: a baseline for finite T.

    Source: Bellman 1957.  Cost: T S^2 A.
    """
    m, policy = model(P, R, gamma, terminal=terminal, limit=LIMIT), softmax(logits)
    rows = [np.zeros(len(policy))]
    for _ in range(horizon):
        rows.append((policy * (m.R + m.gamma * m.P @ rows[-1])).sum(axis=1))
    return np.array(rows[:0:-1])


# ---------------------------------------------------------------------- private
def _rows(columns: list, row: np.ndarray) -> list:
    return [(states[row], actions[row]) for states, actions in columns]


def _count(
    moves: np.ndarray, policy: np.ndarray, law: np.ndarray, horizon: int, limit: int
) -> None:
    branches = (policy > 0).astype(float)
    ways = branches.sum(axis=1)
    for _ in range(horizon - 1):
        ways = np.einsum("sa,sat,t->s", branches, (moves > 0).astype(float), ways)
    total = float(ways[:-1] @ (law > 0))
    if total > limit:
        raise ValueError(
            f"{total:.3g} trajectories of {horizon} steps are too many, at most {limit:.0e} are enumerated. "
            "Shorten the horizon."
        )
