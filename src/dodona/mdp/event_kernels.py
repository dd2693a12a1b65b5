"""Sweeps over rows that a compiled function makes on the fly, fused with it by Numba.

``outcome(s, a, e) -> (next state, reward, ended, feasible)`` and ``law(s, a, e, probs) ->
probability`` are compiled functions; Numba makes one copy of a kernel for each pair of them, so
nothing is cached on disk, and one wants them to compile fast: they are serial over a range of states,
release the lock, and run in threads (events.py), for a third of the time that prange would take to
compile. Sums run over the events in order, so results depend neither on the threads nor on who
makes the rows.

Not here: rows made by NumPy functions (events.py), meaning (certificate.py).
"""

from collections.abc import Callable

import numpy as np
from numba import njit


def full_outcome(transition: Callable, length: int) -> Callable:
    """``transition`` with the two answers that it may leave out: not ended, feasible."""
    if length == 2:

        @njit(nogil=True)
        def outcome(s, a, e):
            successor, reward = transition(s, a, e)
            return successor, reward, False, True

    elif length == 3:

        @njit(nogil=True)
        def outcome(s, a, e):
            successor, reward, ended = transition(s, a, e)
            return successor, reward, ended, True

    else:

        @njit(nogil=True)
        def outcome(s, a, e):
            return transition(s, a, e)

    return outcome


@njit(nogil=True)
def listed(s, a, e, probs):
    """The law of events that do not depend on state and action."""
    return probs[e]


def free_law(probability: Callable) -> Callable:
    """The law of events that do: ``probability(s, a, e)`` in the form of ``listed``."""

    @njit(nogil=True)
    def law(s, a, e, probs):
        return probability(s, a, e)

    return law


@njit(inline="always")
def _row(outcome, law, probs, s, a, gamma, pay, values):
    """(feasible, pay E[reward] + gamma E[v of the successor]); ``pay`` 0 leaves the linear part."""
    reward, total = 0.0, 0.0
    for e in range(len(probs)):
        successor, r, ended, feasible = outcome(s, a, e)
        if not feasible:
            return False, 0.0
        p = law(s, a, e, probs)
        reward += p * r
        if not ended:
            total += p * values[np.uint64(successor)]  # unsigned: see kernels.py
    return True, pay * reward + gamma * total


@njit(nogil=True)
def optimality_sweep(
    outcome, law, probs, num_actions, gamma, terminal, values, out, choice, keep, first, last
):
    """As kernels.optimality_sweep on states first..last-1; pair s A + a is action a in state s."""
    least, most, largest = np.inf, -np.inf, 0.0
    for s in range(first, last):
        if terminal[s]:
            out[s] = 0.0
            choice[s] = -1
            continue
        best, arg, kept = -np.inf, -1, -np.inf
        for a in range(num_actions):
            feasible, q = _row(outcome, law, probs, s, a, gamma, 1.0, values)
            if not feasible:
                continue
            pair = s * num_actions + a
            if q > best:
                best, arg = q, pair
            if pair == choice[s]:
                kept = q
        if kept < best - keep or keep < 0.0:
            choice[s] = arg
        out[s] = best
        change = best - values[s]
        least = min(least, change)
        most = max(most, change)
        largest = max(largest, abs(best))
    return least, most, largest


@njit(nogil=True)
def policy_sweep(outcome, law, probs, num_actions, gamma, pay, choice, values, out, first, last):
    """As kernels.policy_sweep on states first..last-1, with the rewards times ``pay``."""
    least, most, largest = np.inf, -np.inf, 0.0
    for s in range(first, last):
        if choice[s] < 0:
            out[s] = 0.0
            continue
        a = choice[s] - s * num_actions
        _, q = _row(outcome, law, probs, s, a, gamma, pay, values)
        out[s] = q
        change = q - values[s]
        least = min(least, change)
        most = max(most, change)
        largest = max(largest, abs(q))
    return least, most, largest


@njit(nogil=True)
def outcomes(outcome, law, probs, states, actions, e, successors, rewards, ended, feasible, p):
    """The last five arrays [B] <- what happens to each (state, action) under one event."""
    for i in range(len(states)):
        s, a = states[i], actions[i]
        successors[i], rewards[i], ended[i], feasible[i] = outcome(s, a, e)
        p[i] = law(s, a, e, probs)
