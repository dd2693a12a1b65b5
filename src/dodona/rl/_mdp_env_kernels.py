"""The loops of a finite MDP as environments, compiled by Numba: first states and one step of every row.

Row n draws from a word of its own (_td_updates.py): one number for a successor, one for a first state,
whatever the other rows do.

Not here: input checks and tensors (_mdp_env.py), tables of outcomes (outcomes.py).

Source: Walker 1977 (alias tables); Steele, Lea, Flood 2014 (SplitMix64).
"""

import numpy as np
from numba import njit

from dodona.rl._linear_kernels import draw
from dodona.rl._td_updates import uniform


@njit(cache=True, nogil=True)
def begin(starts, words, states, steps, group_size):
    """First states of all rows; the first row of a group draws for the group, every row spends a number."""
    for n in range(len(states)):
        u = uniform(words, n)
        leader = n - n % group_size
        if n == leader:
            states[n] = starts.next_state[draw(starts, 0, u)]
        else:
            states[n] = states[leader]
        steps[n] = 0


@njit(cache=True, nogil=True)
def advance(
    table, starts, pair_of, limit, words, states, steps, actions, obs, next_obs, rewards, flags
):
    """One step of every row; flags [2, B] terminated, truncated. Rows that end begin again at once.

    Returns the first row whose action is infeasible, -1 without one; then nothing has changed.
    """
    for n in range(len(states)):
        if pair_of[states[n], actions[n]] < 0:
            return n
    for n in range(len(states)):
        e = draw(table, pair_of[states[n], actions[n]], uniform(words, n))
        s = table.next_state[e]
        steps[n] += 1
        next_obs[n], rewards[n] = s, np.float32(table.reward[e])
        flags[0, n], flags[1, n] = table.ends[e], steps[n] >= limit
        if flags[0, n] or flags[1, n]:
            s = starts.next_state[draw(starts, 0, uniform(words, n))]
            steps[n] = 0
        states[n] = obs[n] = s
    return -1
