"""Learning about one policy from the actions of another, compiled by Numba: what each action counts.

An n-step target that meets a chosen action must say what that action is worth under the policy learnt about.
With pi and mu the probabilities of the action under the two, rho = pi / mu, V the mean of q(s, .) under
pi, and G the return that follows, an entry earlier sees

    PER_DECISION   rho G
    ORDINARY       G, and the whole difference counts rho      WEIGHTED   the same over the mean of such weights
    SIGMA          V + (sigma rho + (1 - sigma) pi) (G - q)    sigma 0: tree backup
    MIXED          sigma rho G + (1 - sigma) (V + pi (G - q))

With traces (the same by another path) the credit of everything earlier is multiplied by rho (IMPORTANCE), pi
(TREE) or min(1, rho) (RETRACE). mu is the probability at the time of choosing, pi that of now.

Not here: rules without ratios (_td_updates.py).
Source: Precup, Sutton & Singh 2000; De Asis et al., arXiv:1703.01327; Munos et al., arXiv:1606.02647;
Sutton & Barto 2018, sec. 7.3-7.6, 12.9.
"""

import numpy as np
from numba import njit

from dodona.rl._td_updates import (
    FILLED,
    HEAD,
    IMPORTANCE,
    INLINE,
    MEAN,
    MIXED,
    ORDINARY,
    PER_DECISION,
    RETRACE,
    SIGMA,
    SOFT,
    TOUCHED,
    WEIGHTED,
)


@njit(**INLINE)
def action_share(rule, indptr, actions, cumulative, table, s, a, epsilon):
    """mu(a|s): the probability with which ``choose`` takes a in s."""
    first, last = indptr[s], indptr[s + 1]
    best, ties, mine, chance = -np.inf, 0, 0.0, 1.0
    for pair in range(first, last):
        q = table[s * rule.num_actions + actions[pair]]
        if actions[pair] == a:
            mine = q
            if rule.fixed:
                chance = cumulative[pair] - (cumulative[pair - 1] if pair > first else 0.0)
        if q > best:
            best, ties = q, 1
        elif q == best:
            ties += 1
    if rule.fixed:
        return chance
    return epsilon / (last - first) + ((1.0 - epsilon) / ties if mine == best else 0.0)


@njit(**INLINE)
def evaluated(rule, indptr, actions, shares, table, s, a, epsilon):
    """(V, pi(a|s)) of the policy that is learnt about, by the table as it is now."""
    first, last = indptr[s], indptr[s + 1]
    best, ties, mine, chance, total = -np.inf, 0, 0.0, 0.0, 0.0
    for pair in range(first, last):
        q = table[s * rule.num_actions + actions[pair]]
        total += shares[pair] * q if rule.expectation == MEAN else q
        if actions[pair] == a:
            mine = q
            if rule.expectation == MEAN:
                chance = shares[pair]
        if q > best:
            best, ties = q, 1
        elif q == best:
            ties += 1
    if rule.expectation == MEAN:
        return total, chance
    if rule.expectation == SOFT:
        chance = epsilon / (last - first) + ((1.0 - epsilon) / ties if mine == best else 0.0)
        return (1.0 - epsilon) * best + epsilon * (total / (last - first)), chance
    return best, 1.0 / ties if mine == best else 0.0


@njit(**INLINE)
def fade_by_action(rule, indptr, actions, shares, table, memory, k, share, entry, epsilon):
    """Before a pair is added to the traces: its action decides how much credit the earlier ones keep."""
    trace, touched, count = memory.trace[k], memory.touched[k], memory.count[k]
    if count[TOUCHED] == 0:
        return
    s, a = entry // rule.num_actions, entry % rule.num_actions
    _, factor = evaluated(rule, indptr, actions, shares, table, s, a, epsilon)
    if rule.correction == IMPORTANCE or rule.correction == RETRACE:
        factor = 1.0 if rule.on_policy else factor / share
    if rule.correction == RETRACE:
        factor = min(1.0, factor)
    for i in range(count[TOUCHED]):
        trace[touched[i]] *= factor
    if factor == 0.0 and not rule.offline:
        for i in range(count[TOUCHED]):
            memory.seen[k, touched[i]] = 0
        count[TOUCHED] = 0


@njit(**INLINE)
def weighted_move(rule, table, visits, weights, entry, target, weight, alpha):
    """estimate += step (target - estimate), the step by the importance weight; returns target - estimate.

    WEIGHTED: the weights are averaged as the targets are, so the estimate is a ratio of two means with the
    same forgetting; with step 1 / N it is sum(weight target) / sum(weight).
    """
    delta = target - table[entry]
    visits[entry] += 1
    step = alpha if rule.omega == 0.0 else float(visits[entry]) ** -rule.omega
    if rule.correction == ORDINARY:
        step *= weight
    elif rule.correction == WEIGHTED:
        weights[entry] += step * (weight - weights[entry])
        step = step * weight / weights[entry] if weight > 0.0 else 0.0
    table[entry] += step * delta
    return delta


@njit(**INLINE)
def corrected(
    rule, indptr, actions, shares, table, visits, memory, k, share, entry, r, s2, a2, ended, cut, alpha,
    epsilon,
):  # fmt: skip
    """The window of n-step learning, its return corrected at every action; at a cut for all that are left.

    Targets of a flush are made by the table as it stands when the episode ends.
    Returns target - estimate of the oldest entry, 0 while it waits.
    """
    entries, rewards, chances = memory.window_entry[k], memory.window_reward[k], memory.window_share[k]  # fmt: skip
    count, weights, A = memory.count[k], memory.weight[k], rule.num_actions
    room = len(entries)
    head, filled = count[HEAD], count[FILLED] + 1
    place = head + filled - 1
    if place >= room:
        place -= room
    entries[place], rewards[place], chances[place] = entry, r, share
    count[FILLED] = filled
    if not cut and filled < rule.num_steps:
        return 0.0
    target, weight = 0.0, 1.0
    if not ended:
        target, chance = evaluated(rule, indptr, actions, shares, table, s2, a2, epsilon)
        if rule.correction == MIXED:
            ratio = 1.0 if rule.on_policy else chance / memory.share[k]
            target = (1.0 - rule.sigma) * target + rule.sigma * ratio * table[s2 * A + a2]
    for _ in range(filled):
        target = rewards[place] + rule.gamma * target
        chance = chances[place]
        if cut:
            rewards[place], chances[place] = target, weight  # of each, for the flush
        if place != head:
            pair = entries[place]
            q = table[pair]
            mean, pi = evaluated(rule, indptr, actions, shares, table, pair // A, pair % A, epsilon)
            ratio = 1.0 if rule.on_policy else pi / chance
            if rule.correction == SIGMA:
                share_of = rule.sigma * ratio + (1.0 - rule.sigma) * pi
                target = mean + share_of * (target - q)
            elif rule.correction == MIXED:
                tree = mean + pi * (target - q)
                target = rule.sigma * ratio * target + (1.0 - rule.sigma) * tree
            elif rule.correction == PER_DECISION:
                target *= ratio
            else:
                weight *= ratio
            place = place - 1 if place else room - 1
    first = weighted_move(rule, table, visits, weights, entries[head], target, weight, alpha)
    if not cut:
        count[HEAD] = head + 1 if head + 1 < room else 0
        count[FILLED] = filled - 1
        return first
    place = head
    for _ in range(filled - 1):
        place = place + 1 if place + 1 < room else 0
        weighted_move(rule, table, visits, weights, entries[place], rewards[place], chances[place], alpha)  # fmt: skip
    count[HEAD], count[FILLED] = 0, 0
    return first
