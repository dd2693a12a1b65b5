"""Gauss-Seidel in backward order: states are swept from where the reward is towards where it is missed.

A value travels one transition a sweep when all states change at once; swept outwards from the ends
it travels the whole way in one. Two things make the order work. The start is a proven lower bound:
from above, a state far away looks better than it is, and its neighbours run to it. And a state
that may stay where it is solves for its own value, v = (r + W' v) / (1 - w_own), so that a loop
costs one update and not a geometric series.

Source: Bertsekas & Tsitsiklis 1996, sec. 2.2 (Gauss-Seidel, order); Dijkstra 1959 and Dial 1969
(the order without chance); Kushner & Kleinman 1971 (elimination of self-transitions).
Not here: when it pays (proposals.adaptive); what it proves (certificate.py).
"""

import numpy as np
from jaxtyping import Int
from numba import njit

from dodona.core.shapes import IntArray
from dodona.mdp.model import MDP


def backward_orders(mdp: MDP) -> list[Int[np.ndarray, "live"]]:
    """Live states by the fewest transitions to a source of value, nearest first; unconnected ones last.

    Sources are the ends (a transition into a terminal state, or one without continuation) and the
    rows with the largest reward, if it is positive or nothing ends: one order for each kind that
    the model has, one only where both are the same states.

    Source: see the module.  Oracle: breadth-first search in plain Python (tests).
    Cost: O(nnz) time, 4 bytes per transition.
    """
    ends, best = _sources(
        mdp.sa_indptr, mdp.indptr, mdp.indices, mdp.probs, mdp.weights, mdp.rewards, mdp.terminal
    )
    roots = [ends] if len(ends) else []
    if not roots or (mdp.rewards.max(initial=0.0) > 0.0 and not np.isin(best, ends).all()):
        roots.append(best)
    first, sources = _incoming(mdp.sa_indptr, mdp.indptr, mdp.indices, mdp.weights, mdp.terminal)
    return [_breadth_first(r, first, sources, mdp.terminal) for r in roots]


@njit(cache=True)
def improving_sweep(
    order, sa_indptr, indptr, indices, weights, rewards, scale, values, choice
):  # fmt: skip
    """In place along ``order``: values become the best over a state's rows, choice that row."""
    for s in order:
        first, last = sa_indptr[s], sa_indptr[s + 1]
        best, arg = -np.inf, first
        for pair in range(first, last):
            q = _without_loop(pair, s, indptr, indices, weights, rewards, scale, values)
            if q > best:
                best, arg = q, pair
        values[s] = best
        choice[s] = arg


@njit(cache=True)
def evaluating_sweep(order, choice, indptr, indices, weights, rewards, scale, values):
    """In place along ``order``: values of the chosen rows."""
    for s in order:
        values[s] = _without_loop(choice[s], s, indptr, indices, weights, rewards, scale, values)


@njit(cache=True, inline="always")
def _without_loop(pair, s, indptr, indices, weights, rewards, scale, values):
    """Value of a row whose own state is solved for."""
    total, own = 0.0, 0.0
    for k in range(np.uint64(indptr[pair]), np.uint64(indptr[pair + 1])):
        j = np.uint32(indices[k])
        if j == s:
            own += weights[k]
        else:
            total += weights[k] * values[j]
    return (rewards[pair] + scale * total) / (1.0 - scale * own)


@njit(cache=True)
def _sources(sa_indptr, indptr, indices, probs, weights, rewards, terminal):
    """(states that may end at once, states that own the largest reward)."""
    S = len(terminal)
    ends = np.zeros(S, dtype=np.bool_)
    best = np.zeros(S, dtype=np.bool_)
    most = rewards.max() if len(rewards) else 0.0
    for s in range(S):
        for pair in range(sa_indptr[s], sa_indptr[s + 1]):
            if rewards[pair] == most:
                best[s] = True
            for k in range(indptr[pair], indptr[pair + 1]):
                if probs[k] > 0.0 and (terminal[indices[k]] or weights[k] == 0.0):
                    ends[s] = True
    return np.flatnonzero(ends), np.flatnonzero(best)


@njit(cache=True)
def _incoming(sa_indptr, indptr, indices, weights, terminal):
    """(first [S+1], sources): the live states with a transition into s, repetitions included."""
    S = len(terminal)
    first = np.zeros(S + 1, dtype=np.int64)
    for k in range(len(indices)):
        if weights[k] > 0.0:
            first[indices[k] + 1] += 1
    for s in range(S):
        first[s + 1] += first[s]
    free = first[:-1].copy()
    sources = np.empty(first[S], dtype=np.int32)
    for s in range(S):
        for k in range(indptr[sa_indptr[s]], indptr[sa_indptr[s + 1]]):
            if weights[k] > 0.0:
                j = indices[k]
                sources[free[j]] = s
                free[j] += 1
    return first, sources


@njit(cache=True)
def _breadth_first(roots, first, sources, terminal):
    S = len(terminal)
    order = np.empty(S, dtype=np.int64)
    seen = terminal.copy()
    count = 0
    for s in roots:
        seen[s] = True
        order[count] = s
        count += 1
    done = 0
    while done < count:
        s = order[done]
        done += 1
        for k in range(first[s], first[s + 1]):
            p = sources[k]
            if not seen[p]:
                seen[p] = True
                order[count] = p
                count += 1
    for s in range(S):
        if not seen[s]:
            order[count] = s
            count += 1
    return order[:count]


def backward_sweeps(
    mdp: MDP, order: IntArray, values: np.ndarray, choice: np.ndarray, *, evaluations: int
) -> float:
    """One improving sweep and ``evaluations`` of its policy, in place; returns the work in full sweeps."""
    improving_sweep(
        order, mdp.sa_indptr, mdp.indptr, mdp.indices, mdp.weights, mdp.rewards, mdp.scale,
        values, choice,
    )  # fmt: skip
    for _ in range(evaluations):
        evaluating_sweep(
            order, choice, mdp.indptr, mdp.indices, mdp.weights, mdp.rewards, mdp.scale, values
        )
    return 1.0 + evaluations * mdp.policy_share
