"""The loops of the linear-quadratic regulator as environments, compiled by Numba: first states and one step of every row.

Row n draws from a word of its own (_td_updates.py), two numbers per normal one, so that a row does not depend
on how many others there are.

Not here: input checks and tensors (lqr_env.py).

Source: Box & Muller 1958.
"""

import math

import numpy as np
from numba import njit

from dodona.rl._td_updates import INLINE, uniform


@njit(**INLINE)
def normal(words, n):
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(words, n)))
    return radius * math.cos(2 * math.pi * uniform(words, n))


@njit(**INLINE)
def scatter(factor, words, n, out):
    """out += factor e, e standard normal: one draw for each column."""
    for j in range(factor.shape[1]):
        e = normal(words, n)
        for i in range(len(out)):
            out[i] += factor[i, j] * e


@njit(**INLINE)
def form(M, x):
    """x^T M x."""
    total = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            total += x[i] * M[i, j] * x[j]
    return total


@njit(**INLINE)
def carry(A, B, x, u, out):
    """out = A x + B u."""
    for i in range(len(out)):
        total = 0.0
        for j in range(len(x)):
            total += A[i, j] * x[j]
        for j in range(len(u)):
            total += B[i, j] * u[j]
        out[i] = total


@njit(cache=True, nogil=True)
def begin(factor, words, states, steps, group_size):
    """First states of all rows; a group has that of its first row, and every row spends its numbers."""
    for n in range(len(steps)):
        states[n, :] = 0.0
        scatter(factor, words, n, states[n])
        states[n] = states[n - n % group_size]
        steps[n] = 0


@njit(cache=True, nogil=True)
def advance(
    A, B, Q, R, noise, first, limit, words, states, steps, actions, obs, next_obs, rewards, truncated
):  # fmt: skip
    """One step of every row; who is cut begins again at once."""
    x = np.empty(states.shape[1])
    for n in range(len(steps)):
        rewards[n] = -(form(Q, states[n]) + form(R, actions[n]))
        carry(A, B, states[n], actions[n], x)
        scatter(noise, words, n, x)
        states[n] = x
        next_obs[n] = x
        steps[n] += 1
        truncated[n] = steps[n] >= limit
        if truncated[n]:
            states[n, :] = 0.0
            scatter(first, words, n, states[n])
            steps[n] = 0
        obs[n] = states[n]
