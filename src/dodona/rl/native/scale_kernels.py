"""A Normalizer inside a compiled loop: it learns from every step of all rows, and scales what was written.

The order is that of normalizer.Normalizer: a step is taken in before its rewards and successors are scaled, and
the observation that is acted on next is scaled by what is known then. The arithmetic is its own too, moments in
double and scaled numbers in single precision.

Not here: what the statistics mean (normalizer.py), the loop (fused_kernels.py).

Source: Chan, Golub & LeVeque 1983 (merging moments).
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

EPS = 1e-8  # the Normalizer's
# divisions never ask for zero: every count is at least 1 where one divides
COMPILED = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


class Scale(NamedTuple):
    """The statistics as arrays, which the loop changes, and what is done with them.

    counts: [2] observations and reward sums so far.  mean, squares: [d] of observations, squares about the mean.
    earned: [2] mean and squares of reward sums.  sums: [B] the running ones.
    scales_obs, scales_rewards: which of the two.  obs_clip, reward_clip: bounds, infinite for none.
    """

    counts: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    earned: np.ndarray
    sums: np.ndarray
    scales_obs: bool
    scales_rewards: bool
    gamma: float
    obs_clip: float
    reward_clip: float


@njit(**COMPILED)
def learn(scale, at, out, chosen):
    """Take in the step that was written in rows at .. at + B - 1, then scale it; chosen [B] is room."""
    B = len(scale.sums)
    if scale.scales_obs:
        chosen[:] = True
        take_in(scale, out.next_obs, at, chosen)
        for n in range(B):
            # a new episode's first observation counts, unless it looks like the old one's last
            chosen[n] = False
            if out.terminated[at + n] or out.truncated[at + n]:
                for i in range(len(scale.mean)):
                    if out.obs[at + B + n, i] != out.next_obs[at + n, i]:
                        chosen[n] = True
        take_in(scale, out.obs, at + B, chosen)
        scaled(scale, out.next_obs, at)
        scaled(scale, out.obs, at + B)
    if scale.scales_rewards:
        earn(scale, at, out)


@njit(**COMPILED)
def take_in(scale, obs, at, chosen):
    """Merge the moments of the chosen rows."""
    num = 0
    for n in range(len(chosen)):
        num += chosen[n]
    if not num:
        return
    total = scale.counts[0] + num
    for i in range(len(scale.mean)):
        mean, squares = 0.0, 0.0
        for n in range(len(chosen)):
            if chosen[n]:
                mean += obs[at + n, i]
        mean /= num
        for n in range(len(chosen)):
            if chosen[n]:
                squares += (obs[at + n, i] - mean) ** 2
        gap = mean - scale.mean[i]
        scale.squares[i] += squares + gap * gap * (scale.counts[0] * num / total)
        scale.mean[i] += gap * (num / total)
    scale.counts[0] = total


@njit(**COMPILED)
def scaled(scale, obs, at):
    """Rows at .. at + B - 1 on the common scale, in place."""
    if not scale.scales_obs:
        return
    bound = np.float32(scale.obs_clip)
    for i in range(len(scale.mean)):
        variance = scale.squares[i] / (scale.counts[0] - 1.0) if scale.counts[0] > 1.0 else 1.0
        mean, std = np.float32(scale.mean[i]), np.float32(math.sqrt(variance + EPS))
        for row in range(at, at + len(scale.sums)):
            obs[row, i] = min(max((obs[row, i] - mean) / std, -bound), bound)


@njit(**COMPILED)
def earn(scale, at, out):
    """Take in the rewards of a step by the running sums they make, then scale them."""
    B = len(scale.sums)
    mean, squares = 0.0, 0.0
    for n in range(B):
        scale.sums[n] = scale.gamma * scale.sums[n] + out.rewards[at + n]
        mean += scale.sums[n]
    mean /= B
    for n in range(B):
        squares += (scale.sums[n] - mean) ** 2
    total, gap = scale.counts[1] + B, mean - scale.earned[0]
    scale.earned[1] += squares + gap * gap * (scale.counts[1] * B / total)
    scale.earned[0] += gap * (B / total)
    scale.counts[1] = total
    bound, std = np.float32(scale.reward_clip), np.float32(1.0)
    if total > 1.0:
        std = np.float32(math.sqrt(scale.earned[1] / (total - 1.0) + EPS))
    for n in range(B):
        out.rewards[at + n] = min(max(out.rewards[at + n] / std, -bound), bound)
        if out.terminated[at + n] or out.truncated[at + n]:
            scale.sums[n] = 0.0
