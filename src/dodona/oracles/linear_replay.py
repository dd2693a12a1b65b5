"""Linear learners replayed in plain loops, by the definitions that the compiled ones are derived from.

Rows of features come as arrays; discounts are c = gamma (1 - terminated); ``ends`` says where an episode
ends, by termination or by a cut. Nothing here keeps a trace, an inverse or a running sum: returns are
built from their definition every time.

Source: Sutton & Barto 2018, ch. 9-12. Not here: expected updates (projection.py).
"""

from collections import namedtuple

import numpy as np
from numpy.typing import ArrayLike

Rows = namedtuple("Rows", ("phi", "phi2", "rewards", "discounts", "ends"))
"""phi, phi2 [N, m] of s and s'; rewards, discounts [N]; ends [N] bool. One transition after another."""


def td_lambda(
    rows: Rows, *, alpha: float, gae_lambda: float, scale: ArrayLike = 1.0, ratios: ArrayLike = 1.0
) -> np.ndarray:
    """Weights after TD(lambda) with accumulating traces, each trace summed up anew from its episode.

    Args: rows: in order.  alpha: step.  gae_lambda: lambda.  scale: [m] of each feature's step.
        ratios: [N] importance ratios.
    Returns: w [m], from 0.
    Independent of: recursions of the trace.  Source: Sutton 1988; Precup et al. 2000.  Cost: O(N^2 m).
    """
    num, m = rows.phi.shape
    ratios, w = np.broadcast_to(ratios, num), np.zeros(m)
    for t in range(num):
        trace, weight = np.zeros(m), ratios[t]
        for k in range(t, -1, -1):
            trace += weight * rows.phi[k]
            if k == 0 or rows.ends[k - 1]:
                break
            weight *= rows.discounts[k - 1] * gae_lambda * ratios[k - 1]
        delta = rows.rewards[t] + rows.discounts[t] * rows.phi2[t] @ w - rows.phi[t] @ w
        w = w + alpha * delta * np.asarray(scale) * trace
    return w


def online_lambda_return(
    rows: Rows, *, alpha: float, gae_lambda: float, scale: ArrayLike = 1.0
) -> np.ndarray:
    """Weights after one episode of the online lambda-return algorithm, all passes from the start done anew.

    With h steps seen, every state is updated in order towards its lambda-return cut at h; whose values are
    those of the weights that the pass before last, of length t, ended with.

    Args: rows: one episode.
    Returns: w [m], from 0.
    Independent of: traces.  Source: van Seijen et al. 2016, sec. 4.  Cost: O(N^3 m).
    """
    num, m = rows.phi.shape
    ended_with = [np.zeros(m)]  # after the pass with horizon 0, 1, ...
    for horizon in range(1, num + 1):
        w = np.zeros(m)
        for t in range(horizon):
            target, share = 0.0, 1.0
            paid, kept = 0.0, 1.0
            for k in range(t, horizon):
                paid += kept * rows.rewards[k]
                kept *= rows.discounts[k]
                n_step = paid + kept * rows.phi2[k] @ ended_with[k]
                last = k == horizon - 1
                target += share * (1.0 if last else 1.0 - gae_lambda) * n_step
                share *= gae_lambda
            w = w + alpha * (target - rows.phi[t] @ w) * np.asarray(scale) * rows.phi[t]
        ended_with.append(w)
    return ended_with[-1]


def gradient_td(
    rows: Rows, kind: str, *, alpha: float, beta: float, ratios: ArrayLike = 1.0
) -> np.ndarray:
    """Weights after GTD2, TDC, the residual gradient or emphatic TD, each as its paper writes it.

    Args: kind: "gtd2", "tdc", "residual" or "emphatic".  beta: step of the second weights.
    Returns: w [m], from 0.
    Independent of: the compiled step.  Source: Sutton et al. 2009, eq. 8-10.  Cost: O(N m).
    """
    num, m = rows.phi.shape
    ratios, w, h = np.broadcast_to(ratios, num), np.zeros(m), np.zeros(m)
    follow, before = 0.0, 0.0
    for t in range(num):
        x, c_x2, rho = rows.phi[t], rows.discounts[t] * rows.phi2[t], ratios[t]
        delta = rows.rewards[t] + c_x2 @ w - x @ w
        change = {
            "gtd2": rho * (x - c_x2) * (x @ h),
            "tdc": rho * (delta * x - c_x2 * (x @ h)),
            "residual": rho * delta * (x - c_x2),
        }
        follow = 1.0 + before * follow
        change["emphatic"] = follow * rho * delta * x
        w, h = w + alpha * change[kind], h + beta * (rho * delta - x @ h) * x
        before = 0.0 if rows.ends[t] else rho * rows.discounts[t]
    return w


def lstd(
    rows: Rows, *, ridge: float = 0.0, gae_lambda: float = 0.0, weights: ArrayLike = 1.0
) -> np.ndarray:
    """Solution of sum z (phi - c phi')^T w + ridge w = sum r z, traces summed up anew, one dense solve.

    Args: ridge: >= 0.  gae_lambda: lambda.  weights: [N] how much each row counts.
    Returns: w [m].
    Independent of: Sherman-Morrison, recursions.  Source: Bradtke & Barto 1996.  Cost: O(N^2 m + m^3).
    """
    num, m = rows.phi.shape
    weights = np.broadcast_to(weights, num)
    A, b = ridge * np.eye(m), np.zeros(m)
    for t in range(num):
        trace, share = np.zeros(m), 1.0
        for k in range(t, -1, -1):
            trace += share * rows.phi[k]
            if k == 0 or rows.ends[k - 1] or gae_lambda == 0:
                break
            share *= rows.discounts[k - 1] * gae_lambda
        A += weights[t] * np.outer(trace, rows.phi[t] - rows.discounts[t] * rows.phi2[t])
        b += weights[t] * rows.rewards[t] * trace
    return np.linalg.solve(A, b)


def monte_carlo(rows: Rows, *, alpha: float) -> np.ndarray:
    """Weights after gradient Monte Carlo on whole episodes, every return a sum from its own step on.

    Returns: w [m], from 0.
    Independent of: backward recursion of returns.  Source: Sutton & Barto 2018, sec. 9.3.  Cost: O(N^2).
    """
    w = np.zeros(rows.phi.shape[1])
    for t in range(len(rows.phi)):
        g, kept = 0.0, 1.0
        for k in range(t, len(rows.phi)):
            g += kept * rows.rewards[k]
            kept *= rows.discounts[k]
            if rows.ends[k]:
                break
        w = w + alpha * (g - rows.phi[t] @ w) * rows.phi[t]
    return w


def control(
    rows: Rows,
    actions: ArrayLike,
    next_actions: ArrayLike,
    *,
    num_actions: int,
    rule: str,
    alpha: float,
    epsilon: float = 0.0,
    scale: ArrayLike = 1.0,
) -> np.ndarray:
    """Weights [A, m] after one-step Sarsa, Expected Sarsa or Q-learning.

    Args: actions, next_actions: [N].  rule: "sarsa", "expected" or "q".  epsilon: of the mean.
    Returns: [A, m], from 0.
    Independent of: the compiled step.  Source: Zhao 2025, alg. 8.2-8.3.  Cost: O(N A m).
    """
    w = np.zeros((num_actions, rows.phi.shape[1]))
    for t in range(len(rows.phi)):
        q = w @ rows.phi2[t]
        follow = {
            "sarsa": q[next_actions[t]],
            "expected": (1 - epsilon) * q.max() + epsilon * q.mean(),
            "q": q.max(),
        }[rule]
        a = actions[t]
        delta = rows.rewards[t] + rows.discounts[t] * follow - w[a] @ rows.phi[t]
        w[a] += alpha * delta * np.asarray(scale) * rows.phi[t]
    return w


def tiles(x: ArrayLike, num_tiles: int, tilings: int, bounds: ArrayLike) -> list[set]:
    """Of every point, the set of (tiling, cell along every axis) that hold it.

    Args: x: [B, k].  num_tiles: along every axis.  bounds: [k, 2].
    Independent of: index tables.  Source: Sutton & Barto 2018, sec. 9.5.4 (displacement 1, 3, 5, ...).
    Cost: O(B T k).
    """
    found = []
    for point in np.asarray(x, dtype=float):
        cells = set()
        for t in range(tilings):
            place = []
            for d, (low, high) in enumerate(bounds):
                shift = t * (2 * d + 1) % tilings / tilings
                place.append(int(np.floor((point[d] - low) / (high - low) * num_tiles + shift)))
            cells.add((t, *place))
        found.append(cells)
    return found
