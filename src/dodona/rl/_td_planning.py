"""Learning from what is remembered, compiled by Numba: replayed transitions, models of counts, priorities.

``replayed`` keeps the last N transitions in a ring and learns again from some of them. ``dyna`` and
``prioritized`` keep a model: every distinct outcome (pair, successor, ended) once, with its count and the sum
of its rewards, in two linked lists: the outcomes of a pair, and the outcomes that lead into a state.
``record`` only keeps what came. Row 0 of the model stands for "none". Nobody asks for a next action here; a
number stands in its place, and no literal, for which Numba would compile everything once more.

Not here: what one update does (_td_updates.py), batch solutions (batch_td.py).
Source: Lin 1992 (replay); Sutton 1990 (Dyna); Moore & Atkeson 1993, Peng & Williams 1993 (priorities);
Sutton & Barto 2018, ch. 8.
"""

import numpy as np
from numba import njit

from dodona.rl._td_updates import (
    FILLED,
    HEAD,
    INLINE,
    KNOWN,
    LOST,
    QUEUED,
    move,
    one_step,
    uniform,
)

PAIR, STATE, ENDED, COUNT, LINK, BACK = range(6)
COLUMNS = 6
CALL = {"cache": True, "error_model": "numpy", "_nrt": False}


@njit(**INLINE)
def record(memory, k, entry, r, s2, ended, cut):
    """Keep a transition and whether the episode was cut behind it; raises LOST where there is no room."""
    past, count = memory.past[k], memory.count[k]
    i = count[FILLED]
    if i == len(past):
        count[LOST] = 1
        return
    past[i, PAIR], past[i, STATE], past[i, ENDED], past[i, COUNT] = entry, s2, ended, cut
    memory.past_reward[k, i] = r
    count[FILLED] = i + 1


@njit(**CALL)
def replayed(
    rule, indptr, actions, shares, table, visits, memory, k, entry, r, s2, ended, alpha, epsilon
):  # fmt: skip
    """Learn from a transition, keep it, and learn again from num_plans of those kept, drawn evenly."""
    past, rewards, count = memory.past[k], memory.past_reward[k], memory.count[k]
    delta = one_step(
        rule, indptr, actions, shares, table, table, visits, entry, r, s2, s2, ended, alpha, epsilon
    )
    i = count[HEAD]
    past[i, PAIR], past[i, STATE], past[i, ENDED], rewards[i] = entry, s2, ended, r
    count[HEAD] = i + 1 if i + 1 < len(past) else 0
    count[FILLED] = min(count[FILLED] + 1, len(past))
    for _ in range(rule.num_plans):
        i = int(uniform(memory.words, k) * count[FILLED])
        one_step(
            rule, indptr, actions, shares, table, table, visits, past[i, PAIR], rewards[i], past[i, STATE],
            past[i, STATE], past[i, ENDED] != 0, alpha, epsilon,
        )  # fmt: skip
    return delta


@njit(**CALL)
def dyna(
    rule, indptr, actions, shares, table, visits, memory, k, entry, r, s2, ended, alpha, epsilon
):  # fmt: skip
    """Learn from a transition, add it to the model, and learn from num_plans transitions of the model.

    A pair is drawn evenly among those tried, its outcome by the counts; the reward is that outcome's mean.
    """
    delta = one_step(
        rule, indptr, actions, shares, table, table, visits, entry, r, s2, s2, ended, alpha, epsilon
    )
    past, rewards, heads, known = memory.past[k], memory.past_reward[k], memory.heads[k], memory.known[k]  # fmt: skip
    _count(past, rewards, heads, memory.backs[k], known, memory.count[k], entry, r, s2, ended)
    for _ in range(rule.num_plans):
        pair = known[int(uniform(memory.words, k) * memory.count[k, KNOWN])]
        i = _outcome(past, heads[pair], uniform(memory.words, k))
        one_step(
            rule, indptr, actions, shares, table, table, visits, pair, rewards[i] / past[i, COUNT],
            past[i, STATE], past[i, STATE], past[i, ENDED] != 0, alpha, epsilon,
        )  # fmt: skip
    return delta


@njit(**CALL)
def prioritized(rule, indptr, actions, table, visits, memory, k, entry, r, s2, ended, alpha):
    """Add a transition to the model, then num_plans times: the pair of largest error, towards its expectation.

    Errors are those of the model, |sum_s' p (r + gamma max q(s')) - q|; after a pair has moved, those of
    the pairs that lead into its state are computed again.  Returns the error of the pair just left.
    """
    past, rewards, heads, backs = memory.past[k], memory.past_reward[k], memory.heads[k], memory.backs[k]  # fmt: skip
    queue, where, key, count = memory.queue[k], memory.where[k], memory.key[k], memory.count[k]
    _count(past, rewards, heads, backs, memory.known[k], count, entry, r, s2, ended)
    delta = _expected(rule, indptr, actions, table, past, rewards, heads[entry]) - table[entry]
    _queue(queue, where, key, count, entry, abs(delta), rule.least)
    for _ in range(rule.num_plans):
        if count[QUEUED] == 0:
            break
        pair = _largest(queue, where, key, count)
        target = _expected(rule, indptr, actions, table, past, rewards, heads[pair])
        move(rule, table, visits, pair, target, alpha)
        i = backs[pair // rule.num_actions]
        while i:
            before = past[i, PAIR]
            target = _expected(rule, indptr, actions, table, past, rewards, heads[before])
            _queue(queue, where, key, count, before, abs(target - table[before]), rule.least)
            i = past[i, BACK]
    return delta


# ---------------------------------------------------------------------- the model
@njit(**CALL)
def _count(past, rewards, heads, backs, known, count, entry, r, s2, ended):
    """One more of this outcome; a new one is linked into both lists."""
    i = heads[entry]
    while i and (past[i, STATE] != s2 or (past[i, ENDED] != 0) != ended):
        i = past[i, LINK]
    if i == 0:
        i = count[FILLED] + 1
        if i == len(past):
            count[LOST] = 1
            return
        count[FILLED] = i
        if heads[entry] == 0:
            known[count[KNOWN]] = entry
            count[KNOWN] += 1
        past[i, PAIR], past[i, STATE], past[i, ENDED], past[i, LINK] = entry, s2, ended, heads[entry]  # fmt: skip
        heads[entry] = i
        if not ended:
            past[i, BACK] = backs[s2]
            backs[s2] = i
    past[i, COUNT] += 1
    rewards[i] += r


@njit(**INLINE)
def _outcome(past, first, u):
    """The outcome at u in [0, 1) of a pair whose list begins at first, by the counts."""
    total, i = 0, first
    while i:
        total += past[i, COUNT]
        i = past[i, LINK]
    left, i = int(u * total), first
    while left >= past[i, COUNT]:
        left -= past[i, COUNT]
        i = past[i, LINK]
    return i


@njit(**CALL)
def _expected(rule, indptr, actions, table, past, rewards, first):
    """sum_s' p (r + gamma max q(s')) over the outcomes of a list, by the counts."""
    total, value, i = 0, 0.0, first
    while i:
        value += rewards[i]
        if not past[i, ENDED]:
            s, best = past[i, STATE], -np.inf
            for j in range(indptr[s], indptr[s + 1]):
                best = max(best, table[s * rule.num_actions + actions[j]])
            value += rule.gamma * past[i, COUNT] * best
        total += past[i, COUNT]
        i = past[i, LINK]
    return value / max(total, 1)


# ---------------------------------------------------------------------- the heap of errors
@njit(**CALL)
def _queue(queue, where, key, count, pair, error, least):
    """Queue a pair by its error, or move it to where its new error belongs; small errors do not enter."""
    place = where[pair] - 1
    if place < 0:
        if not error > least:
            return
        place = count[QUEUED]
        count[QUEUED] += 1
    key[pair] = error
    _sift(queue, where, key, count[QUEUED], place, pair)


@njit(**CALL)
def _largest(queue, where, key, count):
    """Take the first pair out of the queue; the last one takes its place and sinks."""
    pair, place = queue[0], 0
    where[pair] = 0
    count[QUEUED] -= 1
    if count[QUEUED]:
        _sift(queue, where, key, count[QUEUED], place, queue[count[QUEUED]])
    return pair


@njit(**CALL)
def _sift(queue, where, key, size, place, pair):
    """Put a pair at a place of the heap and let it rise or sink."""
    while place and key[queue[(place - 1) // 2]] < key[pair]:
        above = (place - 1) // 2
        queue[place] = queue[above]
        where[queue[place]] = place + 1
        place = above
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and key[queue[below + 1]] > key[queue[below]]:
            below += 1
        if key[queue[below]] <= key[pair]:
            break
        queue[place] = queue[below]
        where[queue[place]] = place + 1
        place = below
    queue[place] = pair
    where[pair] = place + 1
