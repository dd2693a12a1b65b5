"""A rollout of a perceptron in a classic control task as one loop, compiled by Numba: no call per step.

The network is evaluated in single precision, one row at a time, so that a row's numbers do not depend on
the others. A draw takes one number (a category) or two (a Gaussian, Box & Muller) from the row's own word.

Not here: the tasks (classic_kernels.py), which policies fit and what becomes of the buffers (fused_rollout.py).

Source: tanh by Lambert's continued fraction, 1761; Box & Muller 1958.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from dodona.rl._td_updates import INLINE, uniform
from dodona.rl.native.classic_kernels import first_state, observe, put, transition

# a * b + c may be rounded once; no sum changes its order
FAST = {**INLINE, "fastmath": {"contract"}}
CALLED = {**FAST, "forceinline": False}  # compiled once for three places
LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)
CLIP, TWO, HALF = np.float32(9.0), np.float32(2.0), np.float32(0.5)
# the seventh convergent of tanh: y P(y^2) / Q(y^2)
P0, P1, P2, P3 = (np.float32(x) for x in (135135, 17325, 378, 1))
Q1, Q2, Q3 = (np.float32(x) for x in (62370, 3150, 28))


class Net(NamedTuple):
    """A perceptron with tanh between its layers.

    sizes: [L+1] widths, inputs first. A single number: no network; of a policy, all actions alike, that
        many or, for 0, the whole box.
    weights: of each layer [inputs, outputs] by rows, then its biases; float32.
    """

    sizes: np.ndarray
    weights: np.ndarray


class Columns(NamedTuple):
    """What is written; row t * B + n is step t of row n, and obs has B rows more.

    returns, lengths: of the episode that ended there, unwritten elsewhere.
    """

    obs: np.ndarray
    next_obs: np.ndarray
    actions: np.ndarray
    logp: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    values: np.ndarray
    next_values: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray


@njit(**FAST)
def squash(x):
    """tanh to 3e-8: with y = x / 2 and t = y P / Q, tanh x = 2 t / (1 + t^2), in one division."""
    y = min(max(x, -CLIP), CLIP) * HALF
    z = y * y
    p, q = y * (P0 + z * (P1 + z * (P2 + z * P3))), P0 + z * (Q1 + z * (Q2 + z * Q3))
    return TWO * p * q / (q * q + p * p)


@njit(**FAST)
def layer(weights, at, num_in, num_out, x, y):
    """y = x W + b; the sum over inputs runs four at a time, which spares y the way to memory.

    Rows are cut out first: an index that might be negative would keep the loop from being vectorised.
    """
    bias = weights[at + num_in * num_out : at + (num_in + 1) * num_out]
    for j in range(num_out):
        y[j] = bias[j]
    whole = num_in - num_in % 4
    for i in range(0, whole, 4):
        w = weights[at + i * num_out : at + (i + 4) * num_out]
        w0, w1 = w[:num_out], w[num_out : 2 * num_out]
        w2, w3 = w[2 * num_out : 3 * num_out], w[3 * num_out :]
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(num_out):
            y[j] += (a * w0[j] + b * w1[j]) + (c * w2[j] + d * w3[j])
    for i in range(whole, num_in):
        w, a = weights[at + i * num_out : at + (i + 1) * num_out], x[i]
        for j in range(num_out):
            y[j] += a * w[j]


@njit(**CALLED)
def evaluate(net, obs, row, x, y, head):
    """The outputs of a network into head; x and y are room for its layers."""
    for i in range(net.sizes[0]):
        x[i] = obs[row, i]
    at, last = 0, len(net.sizes) - 2
    for k in range(last):
        num_in, num_out = net.sizes[k], net.sizes[k + 1]
        layer(net.weights, at, num_in, num_out, x, y)
        for j in range(num_out):
            x[j] = squash(y[j])
        at += (num_in + 1) * num_out
    layer(net.weights, at, net.sizes[last], net.sizes[last + 1], x, head)


@njit(**INLINE)
def draw_category(logits, num, words, n):
    """(category, its log p) for one number of row n; logits become their exponentials."""
    peak = logits[0]
    for j in range(1, num):
        peak = max(peak, logits[j])
    total = 0.0
    for j in range(num):
        logits[j] = math.exp(logits[j] - peak)
        total += logits[j]
    left, chosen = uniform(words, n) * total, num - 1
    for j in range(num - 1):
        left -= logits[j]
        if left < 0.0:
            chosen = j
            break
    return chosen, math.log(logits[chosen] / total)


@njit(**INLINE)
def draw_normal(mean, log_std, words, n):
    """(number in single precision, its log density) for two numbers of row n."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(words, n)))
    std = math.exp(log_std)
    action = np.float32(mean + std * radius * math.cos(2 * math.pi * uniform(words, n)))
    z = (action - mean) / std
    return action, -0.5 * z * z - log_std - LOG_ROOT_TWO_PI


@njit(**INLINE)
def draw_evenly(num, bound, words, n):
    """One of num actions, or for num 0 a number in the box, from one number of row n."""
    u = uniform(words, n)
    return np.float32(math.floor(u * num)) if num else np.float32(bound * (2.0 * u - 1.0))


@njit(cache=True, nogil=True, error_model="numpy")
def play(
    first, last, num_steps, task, limit, bound, words, draws, state, steps, returns, policy, log_std, critic, out
):  # fmt: skip
    """num_steps steps of rows first .. last - 1.

    bound: the environment gets actions clipped to +-bound; 0: they are numbers.  words, draws: of environment and policy.
    returns: of the running episodes.  log_std: [1] of a Gaussian, [0] for categories.
    """
    B, judged, blind = len(steps), len(critic.sizes) > 1, len(policy.sizes) == 1
    even = -math.log(policy.sizes[0] if policy.sizes[0] else 2.0 * bound)
    width = max(policy.sizes.max(), critic.sizes.max())
    x, y = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.float32)
    head = np.empty(width, dtype=np.float32)
    for n in range(first, last):
        observe(task, state[0, n], state[1, n], state[2, n], state[3, n], out.obs, n)
    for t in range(num_steps):
        for n in range(first, last):
            row = t * B + n
            if blind:
                action, logp = draw_evenly(policy.sizes[0], bound, draws, n), even
            elif len(log_std):
                evaluate(policy, out.obs, row, x, y, head)
                action, logp = draw_normal(float(head[0]), log_std[0], draws, n)
            else:
                evaluate(policy, out.obs, row, x, y, head)
                category, logp = draw_category(head, policy.sizes[-1], draws, n)
                action = np.float32(category)
            push = float(action) if bound == 0.0 else min(max(float(action), -bound), bound)
            out.actions[row], out.logp[row] = action, logp
            if judged:
                evaluate(critic, out.obs, row, x, y, head)
                out.values[row] = head[0]
                if t and not (out.terminated[row - B] or out.truncated[row - B]):
                    out.next_values[row - B] = out.values[row]
            a, b, c, d, reward, ended = transition(
                task, state[0, n], state[1, n], state[2, n], state[3, n], push
            )
            steps[n] += 1
            cut = steps[n] >= limit
            observe(task, a, b, c, d, out.next_obs, row)
            out.rewards[row], out.terminated[row], out.truncated[row] = reward, ended, cut
            returns[n] += out.rewards[row]
            if judged and (cut or t == num_steps - 1) and not ended:
                evaluate(critic, out.next_obs, row, x, y, head)
                out.next_values[row] = head[0]
            elif judged and ended:
                out.next_values[row] = 0.0
            if ended or cut:
                out.returns[row], out.lengths[row] = returns[n], steps[n]
                returns[n], steps[n] = 0.0, 0
                a, b, c, d = first_state(task, words, n)
                observe(task, a, b, c, d, out.obs, row + B)
            else:
                for i in range(out.obs.shape[1]):
                    out.obs[row + B, i] = out.next_obs[row, i]
            put(state, n, a, b, c, d)
