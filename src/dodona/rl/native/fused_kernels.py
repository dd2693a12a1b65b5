"""A rollout of a perceptron in a classic control task as one loop, compiled by Numba: no call per step.

The network is evaluated in single precision, and every row as if it were alone: its numbers do not depend on
the others, unless running statistics scale what all of them see. A draw takes one number (a category) or two (a Gaussian, Box & Muller) from the row's own word.

Not here: the tasks (classic_kernels.py), running statistics (scale_kernels.py), which policies fit and what
becomes of the buffers (fused_rollout.py).

Source: Box & Muller 1958.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from dodona.policies._tanh import tanh_of
from dodona.rl._td_updates import INLINE, uniform
from dodona.rl.native.classic_kernels import first_state, observe, put, transition
from dodona.rl.native.scale_kernels import learn, scaled

# a * b + c may be rounded once; no sum changes its order
FAST = {**INLINE, "fastmath": {"contract"}}
CALLED = {**FAST, "forceinline": False}  # compiled once for three places
LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)
TANH, RELU, ELU = range(3)
TILE = 4  # rows that go through a network together; four_rows has them written out
ZERO = np.float32(0.0)


class Net(NamedTuple):
    """A perceptron.

    activation: TANH, RELU or ELU, between its layers.
    sizes: [L+1] widths, inputs first. A single number: no network; of a policy, all actions alike, that
        many or, for 0, the whole box.
    weights: of each layer [inputs, outputs] by rows, of the last one [outputs, inputs], then its biases; float32.
    """

    activation: int
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
def layer(weights, at, num_in, num_out, x, y):
    """y = x W + b; the sum over inputs runs four at a time, which spares y the way to memory.

    Its terms are added one after the other, so that there is one way only to round them (four_rows).
    """
    bias = weights[at + num_in * num_out : at + (num_in + 1) * num_out]
    for j in range(num_out):
        y[j] = bias[j]
    whole = num_in - num_in % 4
    for i in range(0, whole, 4):
        # rows are cut out first: an index that might be negative would keep the loop from being vectorised
        w = weights[at + i * num_out : at + (i + 4) * num_out]
        w0, w1 = w[:num_out], w[num_out : 2 * num_out]
        w2, w3 = w[2 * num_out : 3 * num_out], w[3 * num_out :]
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(num_out):
            y[j] = (((y[j] + a * w0[j]) + b * w1[j]) + c * w2[j]) + d * w3[j]
    for i in range(whole, num_in):
        w, a = weights[at + i * num_out : at + (i + 1) * num_out], x[i]
        for j in range(num_out):
            y[j] += a * w[j]


@njit(**FAST)
def four_rows(weights, at, num_in, num_out, x, y):
    """layer for TILE rows, bit for bit: a weight that is loaded serves all of them."""
    y0, y1, y2, y3 = y[0][:num_out], y[1][:num_out], y[2][:num_out], y[3][:num_out]
    bias = weights[at + num_in * num_out : at + (num_in + 1) * num_out]
    for j in range(num_out):
        y0[j] = y1[j] = y2[j] = y3[j] = bias[j]
    whole = num_in - num_in % 4
    for i in range(0, whole, 4):
        w = weights[at + i * num_out : at + (i + 4) * num_out]
        w0, w1 = w[:num_out], w[num_out : 2 * num_out]
        w2, w3 = w[2 * num_out : 3 * num_out], w[3 * num_out :]
        a0, b0, c0, d0 = x[0, i], x[0, i + 1], x[0, i + 2], x[0, i + 3]
        a1, b1, c1, d1 = x[1, i], x[1, i + 1], x[1, i + 2], x[1, i + 3]
        a2, b2, c2, d2 = x[2, i], x[2, i + 1], x[2, i + 2], x[2, i + 3]
        a3, b3, c3, d3 = x[3, i], x[3, i + 1], x[3, i + 2], x[3, i + 3]
        for j in range(num_out):
            p, q, r, s = w0[j], w1[j], w2[j], w3[j]
            y0[j] = (((y0[j] + a0 * p) + b0 * q) + c0 * r) + d0 * s
            y1[j] = (((y1[j] + a1 * p) + b1 * q) + c1 * r) + d1 * s
            y2[j] = (((y2[j] + a2 * p) + b2 * q) + c2 * r) + d2 * s
            y3[j] = (((y3[j] + a3 * p) + b3 * q) + c3 * r) + d3 * s
    for i in range(whole, num_in):
        w = weights[at + i * num_out : at + (i + 1) * num_out]
        a0, a1, a2, a3 = x[0, i], x[1, i], x[2, i], x[3, i]
        for j in range(num_out):
            y0[j] += a0 * w[j]
            y1[j] += a1 * w[j]
            y2[j] += a2 * w[j]
            y3[j] += a3 * w[j]


@njit(**FAST)
def narrow_layer(weights, at, num_in, num_out, x, y):
    """y = W x + b for a few outputs: a sum over inputs is eight that run side by side."""
    whole = num_in - num_in % 8
    for j in range(num_out):
        w = weights[at + j * num_in : at + (j + 1) * num_in]
        a = b = c = d = e = f = g = h = ZERO
        for i in range(0, whole, 8):
            a += x[i] * w[i]
            b += x[i + 1] * w[i + 1]
            c += x[i + 2] * w[i + 2]
            d += x[i + 3] * w[i + 3]
            e += x[i + 4] * w[i + 4]
            f += x[i + 5] * w[i + 5]
            g += x[i + 6] * w[i + 6]
            h += x[i + 7] * w[i + 7]
        for i in range(whole, num_in):
            a += x[i] * w[i]
        y[j] = weights[at + num_in * num_out + j] + (((a + e) + (c + g)) + ((b + f) + (d + h)))


@njit(**CALLED)
def activate(kind, num, y, x):
    """x = f(y)."""
    if kind == TANH:
        for j in range(num):
            x[j] = tanh_of(y[j])
    elif kind == RELU:
        for j in range(num):
            x[j] = max(y[j], ZERO)
    else:
        for j in range(num):
            x[j] = y[j] if y[j] > ZERO else np.float32(math.expm1(y[j]))


@njit(**CALLED)
def evaluate(net, obs, first, num, x, y, heads):
    """The outputs for rows first .. first + num - 1, TILE at most, into heads; x and y are room for layers."""
    for r in range(num):
        for i in range(net.sizes[0]):
            x[r, i] = obs[first + r, i]
    at, last = 0, len(net.sizes) - 2
    for k in range(last):
        num_in, num_out = net.sizes[k], net.sizes[k + 1]
        if num == TILE:
            four_rows(net.weights, at, num_in, num_out, x, y)
        else:
            for r in range(num):
                layer(net.weights, at, num_in, num_out, x[r], y[r])
        for r in range(num):
            activate(net.activation, num_out, y[r], x[r])
        at += (num_in + 1) * num_out
    for r in range(num):
        narrow_layer(net.weights, at, net.sizes[last], net.sizes[last + 1], x[r], heads[r])


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
    first, last, num_steps, task, limit, bound, words, draws, state, steps, returns, policy, log_std, critic, scale,
    out,
):  # fmt: skip
    """num_steps steps of rows first .. last - 1, which with a scale must be all of them.

    bound: the environment gets actions clipped to +-bound; 0: they are numbers.  words, draws: of environment and policy.
    returns: of the running episodes.  log_std: [1] of a Gaussian, [0] for categories.
    scale: of a Normalizer; one that scales nothing for none.
    """
    B, judged, blind = len(steps), len(critic.sizes) > 1, len(policy.sizes) == 1
    even = -math.log(policy.sizes[0] if policy.sizes[0] else 2.0 * bound)
    width = max(policy.sizes.max(), critic.sizes.max())
    x, y = np.empty((TILE, width), dtype=np.float32), np.empty((TILE, width), dtype=np.float32)
    heads, values = np.empty((TILE, width), dtype=np.float32), np.empty((TILE, 1), dtype=np.float32)
    learns, chosen = scale.scales_obs or scale.scales_rewards, np.empty(B, dtype=np.bool_)
    for n in range(first, last):
        observe(task, state[0, n], state[1, n], state[2, n], state[3, n], out.obs, n)
    scaled(scale, out.obs, 0)
    for t in range(num_steps):
        for n in range(first, last):
            row, k = t * B + n, (n - first) % TILE
            if k == 0 and not blind:
                evaluate(policy, out.obs, row, min(TILE, last - n), x, y, heads)
            if k == 0 and judged:
                evaluate(critic, out.obs, row, min(TILE, last - n), x, y, values)
            if blind:
                action, logp = draw_evenly(policy.sizes[0], bound, draws, n), even
            elif len(log_std):
                action, logp = draw_normal(float(heads[k, 0]), log_std[0], draws, n)
            else:
                category, logp = draw_category(heads[k], policy.sizes[-1], draws, n)
                action = np.float32(category)
            push = float(action) if bound == 0.0 else min(max(float(action), -bound), bound)
            out.actions[row], out.logp[row] = action, logp
            if judged:
                out.values[row] = values[k, 0]
                if t and not (out.terminated[row - B] or out.truncated[row - B]):
                    out.next_values[row - B] = values[k, 0]
            a, b, c, d, reward, ended = transition(
                task, state[0, n], state[1, n], state[2, n], state[3, n], push
            )
            steps[n] += 1
            cut = steps[n] >= limit
            observe(task, a, b, c, d, out.next_obs, row)
            out.rewards[row], out.terminated[row], out.truncated[row] = reward, ended, cut
            returns[n] += out.rewards[row]
            if ended or cut:
                out.returns[row], out.lengths[row] = returns[n], steps[n]
                returns[n], steps[n] = 0.0, 0
                a, b, c, d = first_state(task, words, n)
                observe(task, a, b, c, d, out.obs, row + B)
            else:
                for i in range(out.obs.shape[1]):
                    out.obs[row + B, i] = out.next_obs[row, i]
            put(state, n, a, b, c, d)
        if learns:
            learn(scale, t * B, out, chosen)
        if judged:
            for row in range(t * B + first, t * B + last):
                if out.terminated[row]:
                    out.next_values[row] = 0.0
                elif out.truncated[row] or t == num_steps - 1:
                    evaluate(critic, out.next_obs, row, 1, x, y, values)
                    out.next_values[row] = values[0, 0]
