"""The loops of tabular learning, compiled by Numba: walking through a model, recorded transitions, one step.

``walk`` plays runs begin..end of a model, each on its own from its own random word, so that threads may
share the runs and a run does not depend on its neighbours. Successors are drawn by alias tables.

Not here: what is learnt from a transition (_td_updates.py), input checks (td.py).
Source: Walker 1977, Vose 1991 (alias tables).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from dodona.rl._td_updates import (
    FILLED,
    ONE_STEP,
    OTHER,
    WINDOW,
    choose,
    one_step,
    traces,
    uniform,
    window,
)


class Table(NamedTuple):
    """A model to draw from: pairs [S, A] (-1 infeasible), indptr [L+1]; per successor the rest [nnz].

    Alias tables: slot j of a pair gives itself with probability threshold[j], else alias[j].
    first, first_threshold, first_alias: the same of the start distribution; pair_state [L] for exploring starts.
    """

    pairs: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray
    threshold: np.ndarray
    alias: np.ndarray
    pair_state: np.ndarray
    first: np.ndarray
    first_threshold: np.ndarray
    first_alias: np.ndarray


class Walk(NamedTuple):
    """Where K runs stand [K] (state -1: an episode begins), and what they did since the last record.

    ended: episodes; returns, lengths: their sums; rewards: of all steps; steps, episodes: since the beginning.
    """

    state: np.ndarray
    action: np.ndarray
    length: np.ndarray
    total: np.ndarray
    ended: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    rewards: np.ndarray
    steps: np.ndarray
    episodes: np.ndarray


@njit(cache=True)
def alias_table(indptr, probs, threshold, alias):
    """Vose's two stacks, for every row of ``indptr``; rows need not be scaled."""
    longest = 0
    for row in range(len(indptr) - 1):
        longest = max(longest, indptr[row + 1] - indptr[row])
    small, large = np.empty(longest, np.int64), np.empty(longest, np.int64)
    for row in range(len(indptr) - 1):
        begin, end = indptr[row], indptr[row + 1]
        total, few, many = 0.0, 0, 0
        for j in range(begin, end):
            total += probs[j]
        for j in range(begin, end):
            threshold[j], alias[j] = probs[j] / total * (end - begin), j
            if threshold[j] < 1.0:
                small[few] = j
                few += 1
            else:
                large[many] = j
                many += 1
        while few and many:
            few -= 1
            j, i = small[few], large[many - 1]
            alias[j] = i
            threshold[i] -= 1.0 - threshold[j]
            if threshold[i] < 1.0:
                many -= 1
                small[few] = i
                few += 1
        for j in small[:few]:
            threshold[j] = 1.0  # rounding left them: they are full
        for j in large[:many]:
            threshold[j] = 1.0


@njit(inline="always", _nrt=False)
def _draw(begin, end, threshold, alias, words, k):
    if end - begin == 1:
        return begin
    u = uniform(words, k) * (end - begin)
    j = begin + int(u)
    return j if u - int(u) < threshold[j] else alias[j]


@njit(_nrt=False)
def _spread(
    rule, indptr, actions, shares, table, visits, trace, change, touched, seen, entries, rewards, count,
    before, k, entry, r, s2, a2, ended, cut, alpha, epsilon,
):  # fmt: skip
    """One transition of run k for the rules that move more than the entry just left."""
    if rule.method == WINDOW:
        return window(
            rule, indptr, actions, shares, table, table, visits, seen[k], entries[k], rewards[k], count[k],
            entry, r, s2, a2, ended, cut, alpha, epsilon,
        )  # fmt: skip
    return traces(
        rule, indptr, actions, shares, table, table, visits, trace[k], change[k], touched[k], seen[k],
        count[k], before, k, entry, r, s2, a2, ended, cut, alpha, epsilon,
    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def walk(
    begin, end, rule, feasible, table, memory, runs, num_steps, num_episodes, limit, exploring_starts,
    alpha, epsilon,
):  # fmt: skip
    """Runs begin..end: at most num_steps steps, or until num_episodes have ended in all (-1: no such bound).

    limit: steps after which an episode is truncated, 0 = never. alpha, epsilon: one number per step; the
    last one holds on.
    """
    indptr, actions, cumulative, shares = feasible
    pairs, rows, indices, model_rewards, ends, threshold, alias = table[:7]
    pair_state, first, first_threshold, first_alias = table[7:]
    tables, visits, words, trace, change, touched, seen, entries, rewards, count, before = memory
    for k in range(begin, end):
        mine, other, counts, other_counts = tables[k, 0], tables[k, -1], visits[k, 0], visits[k, -1]
        s, a = runs.state[k], runs.action[k]
        length, total = runs.length[k], runs.total[k]
        earned, steps, episodes = 0.0, 0, runs.episodes[k]
        ended_episodes, returns, lengths = 0, 0.0, 0
        for t in range(num_steps):
            if num_episodes >= 0 and episodes >= num_episodes:
                break
            if rule.whole and count[k, FILLED] == entries.shape[1]:
                break  # no room for this episode; the caller sees it
            size, explore = alpha[min(t, len(alpha) - 1)], epsilon[min(t, len(epsilon) - 1)]
            if s < 0:
                length, total, a = 0, 0.0, -1
                if exploring_starts:
                    pair = int(uniform(words, k) * len(pair_state))
                    s, a = pair_state[pair], actions[pair]
                else:
                    s = first[_draw(0, len(first), first_threshold, first_alias, words, k)]
            if a < 0:
                a = choose(rule, indptr, actions, cumulative, mine, other, words, k, s, explore)
            pair = pairs[s, a]
            j = _draw(rows[pair], rows[pair + 1], threshold, alias, words, k)
            s2, r, ended = indices[j], model_rewards[j], ends[j]
            length += 1
            cut = ended or length == limit
            a2 = -1
            if rule.ahead and not ended:
                a2 = choose(rule, indptr, actions, cumulative, mine, other, words, k, s2, explore)
            entry = s if rule.of_states else s * rule.num_actions + a
            if rule.method != ONE_STEP:
                _spread(
                    rule, indptr, actions, shares, mine, counts, trace, change, touched, seen, entries, rewards,
                    count, before, k, entry, r, s2, a2, ended, cut, size, explore,
                )  # fmt: skip
            elif rule.expectation == OTHER and uniform(words, k) < 0.5:
                one_step(
                    rule, indptr, actions, shares, other, mine, other_counts, entry,
                    r, s2, a2, ended, size, explore,
                )  # fmt: skip
            else:
                one_step(
                    rule, indptr, actions, shares, mine, other, counts, entry,
                    r, s2, a2, ended, size, explore,
                )  # fmt: skip
            total += r
            earned += r
            steps += 1
            s, a = s2, a2
            if cut:
                ended_episodes += 1
                episodes += 1
                returns += total
                lengths += length
                s, a = -1, -1
        runs.state[k], runs.action[k] = s, a
        runs.length[k], runs.total[k] = length, total
        runs.ended[k] += ended_episodes
        runs.returns[k] += returns
        runs.lengths[k] += lengths
        runs.rewards[k] += earned
        runs.steps[k] += steps
        runs.episodes[k] = episodes


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def replay(rule, feasible, memory, s, a, r, s2, a2, ended, cut, alpha, epsilon, delta):
    """Recorded transitions, one after another, into run 0; delta [N] becomes target - estimate."""
    indptr, actions, cumulative, shares = feasible
    tables, visits, words, trace, change, touched, seen, entries, rewards, count, before = memory
    mine, other, counts, other_counts = tables[0, 0], tables[0, -1], visits[0, 0], visits[0, -1]
    for t in range(len(s)):
        size, explore = alpha[min(t, len(alpha) - 1)], epsilon[min(t, len(epsilon) - 1)]
        entry = s[t] if rule.of_states else s[t] * rule.num_actions + a[t]
        if rule.method != ONE_STEP:
            delta[t] = _spread(
                rule, indptr, actions, shares, mine, counts, trace, change, touched, seen, entries, rewards,
                count, before, 0, entry, r[t], s2[t], a2[t], ended[t], cut[t], size, explore,
            )  # fmt: skip
        elif rule.expectation == OTHER and uniform(words, 0) < 0.5:
            delta[t] = one_step(
                rule, indptr, actions, shares, other, mine, other_counts, entry,
                r[t], s2[t], a2[t], ended[t], size, explore,
            )  # fmt: skip
        else:
            delta[t] = one_step(
                rule, indptr, actions, shares, mine, other, counts, entry,
                r[t], s2[t], a2[t], ended[t], size, explore,
            )  # fmt: skip


@njit(cache=True, error_model="numpy")
def pick(rule, feasible, tables, words, s, epsilon):
    """An action of run 0 in s."""
    indptr, actions, cumulative, shares = feasible
    return choose(
        rule, indptr, actions, cumulative, tables[0, 0], tables[0, -1], words, 0, s, epsilon
    )


@njit(cache=True, error_model="numpy")
def observe(rule, feasible, memory, s, a, r, s2, ended, cut, alpha, epsilon):
    """One transition of an environment into run 0; returns the action to take in s2, -1 at a cut."""
    indptr, actions, cumulative, shares = feasible
    tables, visits, words, trace, change, touched, seen, entries, rewards, count, before = memory
    mine, other, counts, other_counts = tables[0, 0], tables[0, -1], visits[0, 0], visits[0, -1]
    a2 = -1
    if rule.ahead and not ended:
        a2 = choose(rule, indptr, actions, cumulative, mine, other, words, 0, s2, epsilon)
    entry = s if rule.of_states else s * rule.num_actions + a
    if rule.method != ONE_STEP:
        _spread(
            rule, indptr, actions, shares, mine, counts, trace, change, touched, seen, entries, rewards,
            count, before, 0, entry, r, s2, a2, ended, cut, alpha, epsilon,
        )  # fmt: skip
    elif rule.expectation == OTHER and uniform(words, 0) < 0.5:
        one_step(
            rule, indptr, actions, shares, other, mine, other_counts, entry,
            r, s2, a2, ended, alpha, epsilon,
        )  # fmt: skip
    else:
        one_step(
            rule, indptr, actions, shares, mine, other, counts, entry,
            r, s2, a2, ended, alpha, epsilon,
        )  # fmt: skip
    if cut:
        return -1
    if not rule.ahead:
        a2 = choose(rule, indptr, actions, cumulative, mine, other, words, 0, s2, epsilon)
    return a2
