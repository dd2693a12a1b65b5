"""Exact learning curves: mean and second moment of tabular learners after every step, without a simulation.

For a fixed policy one update is w <- B w + c, with B and c that depend on the current transition only.
So E[w_t; x_t = x] and E[w_t w_t^T; x_t = x] obey linear recursions over the states x of the chain (for n
steps: of the last n transitions). Offline TD(lambda) and Monte Carlo are linear too, one episode at a
time. Not here: online traces (B holds the trace, which is random) and control (the maximum is not linear).

Source: Singh & Dayan 1998; Sutton 1988 (the walk). Fixed points and projections: projection.py.
"""

from collections import namedtuple

import numpy as np
from numpy.typing import ArrayLike

from dodona.oracles.arrays import doors, shares
from dodona.oracles.projection import (
    mean_dynamics,
    on_policy_shares,
    projection,
    stability,
    td_fixed_point,
    value_objectives,
)

__all__ = [
    "Moments", "episode_moments", "mean_dynamics", "on_policy_shares", "projection", "stability",
    "td_fixed_point", "td_moments", "value_objectives",
]  # fmt: skip
LIMIT = 10**6  # numbers in all second moments of one step
LEFT = 1e-15  # probability of episodes that are still going when their enumeration ends


class Moments(namedtuple("Moments", ("mean", "second", "entries"))):
    """mean [T+1, m] = E[w_t], second [T+1, m, m] = E[w_t w_t^T], entries [m]: states, or pairs s A + a."""

    def standard_error(self, num_runs: int) -> np.ndarray:
        """[T+1, m] exact standard deviation of the mean of w_t over so many runs."""
        square = np.einsum("tii->ti", self.second) - self.mean**2
        return np.sqrt(np.maximum(square, 0.0) / num_runs)

    def mean_square_error(self, truth: ArrayLike) -> np.ndarray:
        """[T+1] E |w_t - truth|^2 / m, unweighted over the entries."""
        truth = np.asarray(truth, dtype=float)
        square = np.einsum("tii->ti", self.second) - 2 * self.mean * truth + truth**2
        return square.mean(axis=1)


def td_moments(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    *,
    alpha: float,
    num_steps: int,
    kind: str = "td0",
    n: int = 1,
    start: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
    initial: float = 0.0,
    sampling: str = "markov",
) -> Moments:
    """Exact E[w_t] and E[w_t w_t^T] of TD(0), n-step TD, Sarsa or Expected Sarsa, t = 0..num_steps.

    An ended episode begins anew from ``start`` in the same step, as simulators do.

    Args:
        P: [S, A, S].  R: [S, A] or [S, A, S].  gamma: in [0, 1].
        policy: [S] actions or [S, A] probabilities; it acts and is evaluated.
        alpha: constant step size.
        kind: "td0" (entries are live states), "sarsa" or "expected sarsa" (their feasible pairs with mass).
        n: rewards of the target, for "td0" only.
        start: [S] first states; None: evenly over live states.  terminal: [S] bool.
        initial: of every entry.
        sampling: "markov" follows the chain; "iid" draws every state anew from ``start``.
    Returns: Moments; error about num_steps 1e-16.
    Raises: ValueError: see arrays; more than 10^6 numbers in the second moments.
    Independent of: simulation.
    Source: Singh & Dayan 1998, applied to single steps.  Cost: transitions of the augmented chain m^3 per step.
    """
    if sampling == "iid" and (kind, n) != ("td0", 1):
        raise ValueError(
            f"states drawn anew have no next action and no window, got {kind}, n = {n}."
        )
    P, R = np.asarray(P, dtype=float), np.asarray(R, dtype=float)
    S, A, _ = P.shape
    ends, mask = doors(S, A, terminal, None)
    share = shares(policy, mask)
    R = np.broadcast_to(R.reshape(S, A, -1), P.shape)
    live = np.flatnonzero(~ends)
    first = (
        (~ends).astype(float) if start is None else np.where(ends, 0.0, np.asarray(start, float))
    )
    first = first / first.sum()
    if kind == "td0":
        pairs = [(s, None) for s in live]
    else:
        pairs = [(s, a) for s in live for a in range(A) if share[s, a] > 0]
    place = {pair: i for i, pair in enumerate(pairs)}
    m, unit = len(pairs), np.eye(len(pairs))

    def outcomes(s: int, a: int | None):
        """(probability, next state or None, reward) of what follows an entry."""
        for action in range(A) if a is None else (a,):
            weight = share[s, action] if a is None else 1.0
            for t in np.flatnonzero(weight * P[s, action]):
                yield weight * P[s, action, t], None if ends[t] else int(t), R[s, action, t]

    def follow(t: int):
        """(probability, entry) of the entry that the chain visits in state t."""
        if kind == "td0":
            return [(1.0, (t, None))]
        return [(share[t, a], (t, a)) for a in range(A) if share[t, a] > 0]

    def restart():
        return [(p * w, e) for t, p in enumerate(first) if p > 0 for w, e in follow(t)]

    def update(entry, rewards, after):
        """(B, c) of one entry that moves by its rewards and then by the value vector ``after``."""
        e = unit[place[entry]]
        total = sum(gamma**i * r for i, r in enumerate(rewards))
        return np.eye(m) - alpha * np.outer(e, e - gamma ** len(rewards) * after), alpha * total * e

    # augmented states: (the entries and rewards that wait, the entry that is visited now)
    begin = [((), e) for _, e in restart()]
    number = {x: i for i, x in enumerate(dict.fromkeys(begin))}
    queue, moves = list(number), []
    for x in queue:
        waiting, entry = x
        for p, t, r in outcomes(*entry):
            window = (*waiting, (entry, r))
            branches = restart() if t is None or sampling == "iid" else follow(t)
            for w, nxt in branches:
                B, c, left = np.eye(m), np.zeros(m), window
                if t is None:
                    for i in range(len(window)):
                        Bi, ci = update(window[i][0], [r for _, r in window[i:]], np.zeros(m))
                        B, c = Bi @ B, Bi @ c + ci
                    left = ()
                elif len(window) == n:
                    if kind == "sarsa":
                        after = unit[place[nxt]]
                    else:
                        after = sum(q * unit[place[e]] for q, e in follow(t))
                    B, c = update(window[0][0], [r for _, r in window], after)
                    left = window[1:]
                y = (left, nxt)
                if y not in number:
                    number[y] = len(number)
                    queue.append(y)
                moves.append((number[x], number[y], p * w, B, c))
    if len(number) * m**2 > LIMIT:
        raise ValueError(f"{len(number)} augmented states with {m} entries are too many.")
    p0 = np.zeros(len(number))
    for w, e in restart():
        p0[number[(), e]] += w
    entries = np.array([s if a is None else s * A + a for s, a in pairs])
    return Moments(*_run(moves, p0, np.full(m, float(initial)), num_steps), entries)


def episode_moments(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    *,
    alpha: float,
    num_episodes: int,
    gae_lambda: float,
    start: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
    initial: float = 0.0,
) -> Moments:
    """As td_moments for offline TD(lambda), one episode at a time; lambda 1 is every-visit Monte Carlo.

    w' = w + sum_t alpha delta_t e_t = (I + X) w + y; (X, y, e) is linear along the chain, so that the
    moments of (X, y) follow from one recursion over a single episode.

    Args: as td_moments.  gae_lambda: in [0, 1].
    Returns: Moments, one row per episode; the tail of probability 1e-15 is left out.
    Raises: ValueError: see arrays; an episode that may not end.
    Independent of: simulation, forward views.
    Source: Singh & Dayan 1998, sec. 3.  Cost: length of an episode times transitions times (m^2 + 2 m)^2.
    """
    P, R = np.asarray(P, dtype=float), np.asarray(R, dtype=float)
    S, A, _ = P.shape
    ends, mask = doors(S, A, terminal, None)
    share = shares(policy, mask)
    R = np.broadcast_to(R.reshape(S, A, -1), P.shape)
    live = np.flatnonzero(~ends)
    m, place = len(live), {s: i for i, s in enumerate(live)}
    if m**2 * (m + 2) ** 2 * m > LIMIT:
        raise ValueError(f"{m} live states are too many for the moments of an episode.")
    first = (
        (~ends).astype(float) if start is None else np.where(ends, 0.0, np.asarray(start, float))
    )
    size = m * m + 2 * m  # X row by row, y, e
    moves = []
    for s in live:
        e = np.eye(m)[place[s]]
        for a in range(A):
            for t in np.flatnonzero(share[s, a] * P[s, a]):
                psi = np.zeros(m) if ends[t] else np.eye(m)[place[t]]
                row = gamma * psi - e  # delta = r + row . w
                B, c = np.eye(size), np.zeros(size)
                fade = slice(m * m + m, size)
                B[fade, fade] = gamma * gae_lambda * np.eye(m)
                c[fade] = e
                # X += alpha e_t row^T and y += alpha r e_t, with the e_t just made
                for i in range(m):
                    to = slice(i * m, (i + 1) * m)
                    B[to, m * m + m + i] = alpha * row * gamma * gae_lambda
                    c[to] = alpha * row * e[i]
                    B[m * m + i, m * m + m + i] = alpha * R[s, a, t] * gamma * gae_lambda
                    c[m * m + i] = alpha * R[s, a, t] * e[i]
                moves.append((place[s], m if ends[t] else place[t], share[s, a] * P[s, a, t], B, c))
    p = np.append(first[live] / first[live].sum(), 0.0)
    mean, second = np.zeros((m + 1, size)), np.zeros((m + 1, size, size))
    steps = 0
    while p[:m].sum() > LEFT:
        done = p[m], mean[m].copy(), second[m].copy()
        p, mean, second = _advance(moves, p, mean, second)
        p[m], mean[m], second[m] = p[m] + done[0], mean[m] + done[1], second[m] + done[2]
        steps += 1
        if steps > 10**5:
            raise ValueError("an episode may not end: its moments are not finite.")
    EX, Ey = mean[m][: m * m].reshape(m, m), mean[m][m * m : m * m + m]
    XX = second[m][: m * m, : m * m].reshape(m, m, m, m)
    Xy = second[m][: m * m, m * m : m * m + m].reshape(m, m, m)
    yy = second[m][m * m : m * m + m, m * m : m * m + m]
    w, W = np.full(m, float(initial)), np.full((m, m), float(initial) ** 2)
    means, seconds = [w], [W]
    for _ in range(num_episodes):
        XW = EX @ W + np.outer(Ey, w)
        cross = np.einsum("ijk,j->ik", Xy, w)
        W = W + XW + XW.T + np.einsum("ijkl,jl->ik", XX, W) + cross + cross.T + yy
        w = w + EX @ w + Ey
        means.append(w)
        seconds.append(W)
    return Moments(np.array(means), np.array(seconds), live)


def _run(moves, p, w0, num_steps) -> tuple[np.ndarray, np.ndarray]:
    """E[w_t] and E[w_t w_t^T], t = 0..num_steps, of w <- B w + c along a chain."""
    mean, second = p[:, None] * w0, p[:, None, None] * np.outer(w0, w0)
    means, seconds = [mean.sum(axis=0)], [second.sum(axis=0)]
    stacked = _stacked(moves)
    for _ in range(num_steps):
        p, mean, second = _advance(stacked, p, mean, second)
        means.append(mean.sum(axis=0))
        seconds.append(second.sum(axis=0))
    return np.array(means), np.array(seconds)


def _stacked(moves) -> tuple[np.ndarray, ...]:
    return tuple(np.array([move[i] for move in moves]) for i in range(5))


def _advance(moves, p, mean, second) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step: what arrives in y is what left x, moved by B and c."""
    x, y, weight, B, c = moves if isinstance(moves, tuple) else _stacked(moves)
    Bm = np.einsum("kij,kj->ki", B, mean[x])
    BM = B @ second[x] @ B.transpose(0, 2, 1)
    cross = Bm[:, :, None] * c[:, None, :]
    cc = c[:, :, None] * c[:, None, :] * p[x][:, None, None]
    new = np.zeros_like(p), np.zeros_like(mean), np.zeros_like(second)
    np.add.at(new[0], y, weight * p[x])
    np.add.at(new[1], y, weight[:, None] * (Bm + c * p[x][:, None]))
    np.add.at(new[2], y, weight[:, None, None] * (BM + cross + cross.transpose(0, 2, 1) + cc))
    return new
