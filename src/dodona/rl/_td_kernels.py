"""The loops of tabular learning, compiled by Numba: through a model, over records, one step, one row of many.

``walk`` plays runs begin..end of a model, each on its own from its own random word, so that threads may
share the runs and a run does not depend on its neighbours. Successors are drawn by alias tables.

Not here: what is learnt from a transition (_td_updates.py), input checks (td.py).
Source: Walker 1977, Vose 1991 (alias tables).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from dodona.rl._td_corrections import action_share, corrected, fade_by_action
from dodona.rl._td_planning import dyna, prioritized, record, replayed
from dodona.rl._td_updates import (
    AVERAGE,
    CORRECTED,
    DYNA,
    FILLED,
    INLINE,
    ONE_STEP,
    OTHER,
    PLAIN,
    PRIORITIZED,
    RECORD,
    REPLAY,
    SPEEDY,
    TRACES,
    WINDOW,
    choose,
    one_step,
    traces,
    uniform,
    window,
)
from dodona.rl._td_variants import average, speedy


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


@njit(**INLINE)
def _draw(begin, end, threshold, alias, words, k):
    if end - begin == 1:
        return begin
    u = uniform(words, k) * (end - begin)
    j = begin + int(u)
    return j if u - int(u) < threshold[j] else alias[j]


@njit(**INLINE)
def _learn(
    rule, indptr, actions, shares, table, other, visits, other_visits, memory, k, share, entry, r, s2, a2,
    ended, cut, alpha, epsilon,
):  # fmt: skip
    """One transition of run k into its table, by the rule's method; share: with which the action was chosen."""
    if rule.method == ONE_STEP:
        if rule.expectation == OTHER and uniform(memory.words, k) < 0.5:
            return one_step(
                rule, indptr, actions, shares, other, table, other_visits, entry, r, s2, a2, ended, alpha,
                epsilon,
            )  # fmt: skip
        return one_step(
            rule,
            indptr,
            actions,
            shares,
            table,
            other,
            visits,
            entry,
            r,
            s2,
            a2,
            ended,
            alpha,
            epsilon,
        )
    if rule.method == WINDOW:
        return window(
            rule, indptr, actions, shares, table, visits, memory, k, entry, r, s2, a2, ended, cut, alpha,
            epsilon,
        )  # fmt: skip
    if rule.method == TRACES:
        if rule.correction != PLAIN:
            fade_by_action(rule, indptr, actions, shares, table, memory, k, share, entry, epsilon)
        return traces(
            rule, indptr, actions, shares, table, visits, memory, k, entry, r, s2, a2, ended, cut, alpha,
            epsilon,
        )  # fmt: skip
    if rule.method == CORRECTED:
        return corrected(
            rule, indptr, actions, shares, table, visits, memory, k, share, entry, r, s2, a2, ended, cut,
            alpha, epsilon,
        )  # fmt: skip
    if rule.method == AVERAGE:
        return average(
            rule,
            indptr,
            actions,
            shares,
            table,
            visits,
            memory,
            k,
            entry,
            r,
            s2,
            a2,
            alpha,
            epsilon,
        )
    if rule.method == SPEEDY:
        return speedy(rule, indptr, actions, memory, k, entry, r, s2, ended)
    if rule.method == REPLAY:
        return replayed(
            rule,
            indptr,
            actions,
            shares,
            table,
            visits,
            memory,
            k,
            entry,
            r,
            s2,
            ended,
            alpha,
            epsilon,
        )
    if rule.method == DYNA:
        return dyna(
            rule,
            indptr,
            actions,
            shares,
            table,
            visits,
            memory,
            k,
            entry,
            r,
            s2,
            ended,
            alpha,
            epsilon,
        )
    if rule.method == PRIORITIZED:
        return prioritized(
            rule, indptr, actions, table, visits, memory, k, entry, r, s2, ended, alpha
        )
    if rule.method == RECORD:
        record(memory, k, entry, r, s2, ended, cut)
    return 0.0


@njit(**INLINE)
def _choose(rule, indptr, actions, cumulative, table, other, memory, k, s, epsilon):
    """An action in s; its probability is kept where ratios will ask for it."""
    a = choose(rule, indptr, actions, cumulative, table, other, memory.words, k, s, epsilon)
    if rule.weighs:
        memory.share[k] = action_share(rule, indptr, actions, cumulative, table, s, a, epsilon)
    return a


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
    words, count, room = memory.words, memory.count, memory.window_entry.shape[1]
    for k in range(begin, end):
        mine, other = memory.tables[k, 0], memory.tables[k, -1]
        counts, other_counts = memory.visits[k, 0], memory.visits[k, -1]
        s, a = runs.state[k], runs.action[k]
        length, total = runs.length[k], runs.total[k]
        earned, steps, episodes = 0.0, 0, runs.episodes[k]
        ended_episodes, returns, lengths = 0, 0.0, 0
        for t in range(num_steps):
            if num_episodes >= 0 and episodes >= num_episodes:
                break
            if rule.whole and count[k, FILLED] == room:
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
                a = _choose(rule, indptr, actions, cumulative, mine, other, memory, k, s, explore)
            share = memory.share[k]
            pair = pairs[s, a]
            j = _draw(rows[pair], rows[pair + 1], threshold, alias, words, k)
            s2, r, ended = indices[j], model_rewards[j], ends[j]
            length += 1
            cut = ended or length == limit
            a2 = -1
            if rule.ahead and not ended:
                a2 = _choose(rule, indptr, actions, cumulative, mine, other, memory, k, s2, explore)
            entry = s if rule.of_states else s * rule.num_actions + a
            _learn(
                rule, indptr, actions, shares, mine, other, counts, other_counts, memory, k, share, entry, r,
                s2, a2, ended, cut, size, explore,
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
def replay(rule, feasible, memory, k, s, a, r, s2, a2, ended, cut, share, alpha, epsilon, delta):
    """Recorded transitions, one after another, into run k; delta [N] becomes target - estimate.

    share: [N, 2] probabilities with which a and a2 were chosen, or [1, 2] where nobody asks.
    """
    indptr, actions, cumulative, shares = feasible
    mine, other = memory.tables[k, 0], memory.tables[k, -1]
    counts, other_counts = memory.visits[k, 0], memory.visits[k, -1]
    for t in range(len(s)):
        size, explore = alpha[min(t, len(alpha) - 1)], epsilon[min(t, len(epsilon) - 1)]
        entry = s[t] if rule.of_states else s[t] * rule.num_actions + a[t]
        chance = share[min(t, len(share) - 1)]
        memory.share[k] = chance[1]
        delta[t] = _learn(
            rule, indptr, actions, shares, mine, other, counts, other_counts, memory, k, chance[0], entry,
            r[t], s2[t], a2[t], ended[t], cut[t], size, explore,
        )  # fmt: skip


@njit(cache=True, error_model="numpy")
def pick(rule, feasible, memory, k, s, epsilon):
    """An action of run k in s."""
    indptr, actions, cumulative, shares = feasible
    return _choose(
        rule, indptr, actions, cumulative, memory.tables[k, 0], memory.tables[k, -1], memory, k, s, epsilon
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def observe(rule, feasible, memory, k, s, a, r, s2, ended, cut, alpha, epsilon):
    """One transition of an environment into run k; returns the action to take in s2, -1 at a cut."""
    indptr, actions, cumulative, shares = feasible
    mine, other = memory.tables[k, 0], memory.tables[k, -1]
    counts, other_counts = memory.visits[k, 0], memory.visits[k, -1]
    share, a2 = memory.share[k], -1
    if rule.ahead and not ended:
        a2 = _choose(rule, indptr, actions, cumulative, mine, other, memory, k, s2, epsilon)
    entry = s if rule.of_states else s * rule.num_actions + a
    _learn(
        rule, indptr, actions, shares, mine, other, counts, other_counts, memory, k, share, entry, r, s2, a2,
        ended, cut, alpha, epsilon,
    )  # fmt: skip
    if cut:
        return -1
    if not rule.ahead:
        a2 = _choose(rule, indptr, actions, cumulative, mine, other, memory, k, s2, epsilon)
    return a2


@njit(cache=True, error_model="numpy", _nrt=False)
def pick_rows(rule, feasible, memory, states, actions, epsilon):
    """An action for every run that has none (-1) in its state; run k is row k of a vector environment."""
    indptr, possible, cumulative, shares = feasible
    for k in range(len(states)):
        if actions[k] < 0:
            mine, other = memory.tables[k, 0], memory.tables[k, -1]
            actions[k] = _choose(
                rule, indptr, possible, cumulative, mine, other, memory, k, states[k], epsilon
            )


@njit(cache=True, error_model="numpy", _nrt=False)
def observe_rows(
    rule, feasible, memory, runs, s2, obs, r, ended, truncated, mask, num_episodes, alpha, epsilon
):  # fmt: skip
    """One step of a vector environment: row k into run k, unless it only reset or its run is over.

    s2: the true successors; obs: what to act on next. num_episodes: a run is over after so many, -1: never.
    """
    indptr, possible, cumulative, shares = feasible
    for k in range(len(s2)):
        s, a = runs.state[k], runs.action[k]
        runs.state[k], runs.action[k] = obs[k], -1
        if not mask[k] or (num_episodes >= 0 and runs.episodes[k] >= num_episodes):
            runs.length[k], runs.total[k] = 0, 0.0
            continue
        mine, other = memory.tables[k, 0], memory.tables[k, -1]
        counts, other_counts = memory.visits[k, 0], memory.visits[k, -1]
        cut, share, a2 = ended[k] or truncated[k], memory.share[k], -1
        if rule.ahead and not ended[k]:
            a2 = _choose(rule, indptr, possible, cumulative, mine, other, memory, k, s2[k], epsilon)
        entry = s if rule.of_states else s * rule.num_actions + a
        _learn(
            rule, indptr, possible, shares, mine, other, counts, other_counts, memory, k, share, entry, r[k],
            s2[k], a2, ended[k], cut, alpha, epsilon,
        )  # fmt: skip
        runs.length[k] += 1
        runs.total[k] += r[k]
        runs.rewards[k] += r[k]
        runs.steps[k] += 1
        if cut:
            runs.ended[k] += 1
            runs.episodes[k] += 1
            runs.returns[k] += runs.total[k]
            runs.lengths[k] += runs.length[k]
            runs.length[k], runs.total[k] = 0, 0.0
        else:
            runs.action[k] = a2
