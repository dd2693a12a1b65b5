"""Two more ways to move one entry, compiled by Numba: reward per step as the yardstick, and speedy Q-learning.

Not here: the other rules (_td_updates.py); what they solve (differential.py, td.py).
Source: Schwartz 1993; Sutton & Barto 2018, sec. 10.3; Wan, Naik & Sutton, arXiv:2006.16318 (gain by all
errors); Azar, Munos, Ghavamzadeh & Kappen 2011 (speedy).
"""

import numpy as np
from numba import njit

from dodona.rl._td_updates import (
    EPISODE,
    FILLED,
    INLINE,
    KNOWN,
    expectation,
)


@njit(**INLINE)
def average(
    rule, indptr, actions, shares, table, visits, memory, k, entry, r, s2, a2, alpha, epsilon
):  # fmt: skip
    """delta = r - gain + E - q(s, a) moves the entry; eta times it the gain. Returns delta.

    ``cuts`` (R-learning): the gain moves after greedy actions only, by the difference of the state values.
    """
    gain = memory.gain[k]
    value = expectation(rule, indptr, actions, shares, table, table, s2, a2, epsilon)
    delta = r - gain + value - table[entry]
    visits[entry] += 1
    step = alpha if rule.omega == 0.0 else float(visits[entry]) ** -rule.omega
    table[entry] += step * delta
    if not rule.cuts:
        memory.gain[k] = gain + rule.eta * step * delta
        return delta
    best = _best(rule, indptr, actions, table, entry // rule.num_actions)
    if table[entry] == best:
        value = _best(rule, indptr, actions, table, s2)
        memory.gain[k] = gain + rule.eta * step * (r - gain + value - best)
    return delta


@njit(**INLINE)
def speedy(rule, indptr, actions, memory, k, entry, r, s2, ended):
    """One sample of round n: D = n T q_n - (n - 1) T q_{n-1} is averaged, and q_{n+1} = q_n + (D - q_n) / (n + 1).

    The tables are q_n, q_{n-1} and q_{n+1}. The round ends when every pair met so far was met in it.
    Returns D - q_n.
    """
    now, was, coming = memory.tables[k, 0], memory.tables[k, 1], memory.tables[k, 2]
    visits, seen, mean, count = memory.visits[k, 0], memory.seen[k], memory.change[k], memory.count[k]  # fmt: skip
    n = count[EPISODE]
    if visits[entry] == 0:
        count[KNOWN] += 1
    visits[entry] += 1
    if seen[entry] == 0:
        count[FILLED] += 1
        mean[entry] = 0.0
    seen[entry] += 1
    here, before = r, r
    if not ended:
        here += rule.gamma * _best(rule, indptr, actions, now, s2)
        before += rule.gamma * _best(rule, indptr, actions, was, s2)
    mean[entry] += (n * here - (n - 1) * before - mean[entry]) / seen[entry]
    delta = mean[entry] - now[entry]
    coming[entry] = now[entry] + delta / (n + 1)
    if count[FILLED] == count[KNOWN]:
        for e in range(len(now)):
            was[e] = now[e]
            if seen[e]:
                now[e] = coming[e]
                seen[e] = 0
        count[FILLED] = 0
        count[EPISODE] = n + 1
    return delta


@njit(**INLINE)
def _best(rule, indptr, actions, table, s):
    best = -np.inf
    for pair in range(indptr[s], indptr[s + 1]):
        best = max(best, table[s * rule.num_actions + actions[pair]])
    return best
