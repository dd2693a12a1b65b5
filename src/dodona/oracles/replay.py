"""Replay and DQN as lists and loops: windows from their definition, weights, networks, whole runs on a table.

Slow on purpose, and without a line in common with the ring, the tensors or autograd: windows are slices
of an environment's list, sums go from the front, gradients are written out.

Source: Mnih et al. 2015; Schaul et al., arXiv:1511.05952; Wang et al., arXiv:1511.06581; Zhao 2025, sec. 8.4.
Not here: truths of models (empirical.py), targets of a single row (learning.py).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dodona.oracles.arrays import ArrayLike

Recorded = tuple[Any, Any, float, Any, bool, bool, bool]
"""(obs, action, reward, next_obs, terminated, truncated, mask) of one environment at one time."""
Row = tuple[Any, Any, float, Any, float, bool, bool]
"""(obs, action, sum of rewards, obs k steps later, discount, terminated, truncated)."""


def n_step_rows(times: Sequence[Sequence[Recorded]], *, num_steps: int, gamma: float) -> list[Row]:
    """Rows in the order in which they become final, environment by environment at each time.

    Row of step i: R = sum_{j<k} gamma^j r_{i+j}, k = num_steps or what its episode still had; the
    discount is gamma^k, 0 after a termination. A step whose window is still open has no row.

    Args: times: [T][B].
    Independent of: incremental sums, rings.  Source: Sutton 1988.  Cost: O(T B num_steps).

    >>> n_step_rows([[(0, 0, 1.0, 1, False, False, True)], [(1, 0, 1.0, 2, True, False, True)]],
    ...             num_steps=2, gamma=0.5)
    [(0, 0, 1.5, 2, 0.0, True, False), (1, 0, 1.0, 2, 0.0, True, False)]
    """
    rows: list[Row] = []
    episodes: list[list[Recorded]] = [[] for _ in times[0]]
    for time in times:
        for env, step in enumerate(time):
            if not step[6]:
                continue
            episode = episodes[env]
            episode.append(step)
            ended = step[4] or step[5]
            T = len(episode)
            first = max(0, T - num_steps)
            ready = range(first, T) if ended else range(first, T - num_steps + 1)
            for i in ready:
                window = episode[i:]
                total = math.fsum(gamma**j * s[2] for j, s in enumerate(window))
                discount = 0.0 if step[4] else gamma ** len(window)
                rows.append((window[0][0], window[0][1], total, step[3], discount, step[4], step[5]))  # fmt: skip
            if ended:
                episodes[env] = []
    return rows


def importance_weights(shares: ArrayLike, indices: Sequence[int], beta: float) -> list[float]:
    """(N P(i))^-beta / max over the drawn rows.

    Args: shares: [N] unnormalised probabilities.
    Independent of: sum trees.  Source: arXiv:1511.05952, algorithm 1, line 10.
    """
    total = math.fsum(shares)
    raw = [(len(shares) * float(shares[i]) / total) ** -beta for i in indices]
    return [w / max(raw) for w in raw]


def q_network(
    layers: Sequence[tuple[ArrayLike, ArrayLike]], x: ArrayLike, *, dueling: bool = False,
    feasible: ArrayLike | None = None,
) -> list[float]:  # fmt: skip
    """[A] values of one observation: W x + b, a rectifier between layers, and the dueling head.

    Args: layers: (weight [out, in], bias [out]) of each.  feasible: [A]; infeasible actions get -inf and
        do not count in the mean of advantages.
    Independent of: matrix products.  Source: arXiv:1511.06581, eq. 9.
    """
    now = [float(v) for v in x]
    for depth, (weight, bias) in enumerate(layers):
        now = [
            math.fsum(float(w) * v for w, v in zip(row, now, strict=True)) + float(b)
            for row, b in zip(weight, bias, strict=True)
        ]
        if depth + 1 < len(layers):
            now = [max(0.0, v) for v in now]
    if dueling:
        value, advantages = now[0], now[1:]
        counted = [a for i, a in enumerate(advantages) if feasible is None or feasible[i]]
        now = [value + a - math.fsum(counted) / len(counted) for a in advantages]
    return [q if feasible is None or feasible[i] else -math.inf for i, q in enumerate(now)]


def dqn_on_table(
    rows: Sequence[Row], minibatches: Sequence[tuple[Sequence[int], Sequence[float]]], table: ArrayLike,
    *, lr: float, loss: str = "mse", double: bool = False, target_every: int = 1, tau: float = 1.0,
    max_grad_norm: float | None = None,
) -> tuple[np.ndarray, list[list[float]]]:  # fmt: skip
    """([S, A] table, errors q - y of every minibatch) after plain gradient steps on these minibatches of state-number rows.

    loss = (1/B) sum w l(y - q(s, a)), l = x^2 or Huber's (x^2 / 2, beyond 1: |x| - 1/2);
    y = R + c max q_T, or q_T at the best action of q when double; -inf entries are infeasible.

    Args:
        minibatches: (rows, weights) of every update.  table: [S, A] where it starts.
        target_every, tau: the target moves a share tau towards q after every so many updates.
    Independent of: autograd, optimizers, batching.  Source: Mnih et al. 2015, algorithm 1.
    """
    q = [[float(v) for v in row] for row in np.asarray(table)]
    target = [row[:] for row in q]
    errors: list[list[float]] = []
    for update, (chosen, weights) in enumerate(minibatches, start=1):
        gradient = [[0.0] * len(row) for row in q]
        errors.append([])
        for i, w in zip(chosen, weights, strict=True):
            s, a, r, s2, discount, *_ = rows[i]
            y = r
            if discount:
                judge = q if double else target
                best = max(range(len(q[s2])), key=lambda b: judge[s2][b])  # noqa: B023
                y = r + discount * target[s2][best]
            error = q[s][a] - y
            errors[-1].append(error)
            if loss == "mse":
                pull = 2.0 * error
            else:
                pull = error if abs(error) <= 1.0 else math.copysign(1.0, error)
            gradient[s][a] += w * pull / len(chosen)
        length = math.sqrt(math.fsum(g * g for row in gradient for g in row))
        shrink = 1.0 if max_grad_norm is None else min(1.0, max_grad_norm / (length + 1e-6))
        for s, row in enumerate(gradient):
            for a, g in enumerate(row):
                q[s][a] -= lr * shrink * g
        if update % target_every == 0:
            for s, row in enumerate(q):
                for a, v in enumerate(row):
                    # a sum with -inf in both would be NaN
                    target[s][a] = v if tau == 1.0 or math.isinf(v) else target[s][a] + tau * (v - target[s][a])  # fmt: skip
    return np.array(q), errors
