"""The update rules of tabular learning, compiled by Numba: which expectation the target takes, and what moves.

Every rule is  estimate += step (target - estimate),  target = r + gamma E,  and E is an expectation of
what follows: ``expectation`` lists them all. Three ways to spread one error: to the entry just left
(``one_step``), to entries whose following rewards have been seen (``window``: n-step and Monte Carlo), to
all entries by their traces (``traces``).

An *entry* is a state s, or a pair s * A + a; the rules do not care which. A *lane* is the memory of one
run. Random numbers come from SplitMix64, one word of state per run, so that a run does not depend on how
many others there are.

How they are compiled (``INLINE``) matters more than what they do: a call would pass every array of the memory
word by word, which costs five times the update; nothing allocates, so references need not be counted; no
division asks whether it is by zero.

Not here: walking through a model (_td_kernels.py), importance ratios (_td_corrections.py), learning from
what is remembered (_td_planning.py), input checks (learner.py).
Source: Sutton & Barto 2018, ch. 5-7, 12; van Hasselt 2010; van Seijen et al., arXiv:1512.04087;
Steele, Lea & Flood 2014 (SplitMix64).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

# E, the expectation of what follows
STATE, SAMPLE, MEAN, SOFT, GREEDY, OTHER = range(6)
# how an error spreads, and what else a step does
ONE_STEP, WINDOW, TRACES, CORRECTED, AVERAGE, SPEEDY, REPLAY, DYNA, PRIORITIZED, RECORD = range(10)
ACCUMULATING, REPLACING, DUTCH = range(3)
# what an action of another policy counts (_td_corrections.py)
PLAIN, PER_DECISION, ORDINARY, WEIGHTED, SIGMA, MIXED, IMPORTANCE, TREE, RETRACE = range(9)
INLINE = {"cache": True, "forceinline": True, "error_model": "numpy", "_nrt": False}

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S30, S27, S31, S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


class Rule(NamedTuple):
    """A learning rule as numbers.

    num_actions: A.  fixed: a given policy acts, else epsilon-greedy.
    of_states: entries are states.  ahead: the next action is part of the target, so it is chosen first.
    num_steps: rewards of a window; the window's room for Monte Carlo, which waits for the end.
    whole: Monte Carlo.  first_visit: only the first visit of an entry in an episode counts.
    offline: traces change the table at the end of an episode.  cuts: exploring cuts the traces.
    omega: 0 = the step size is given; else 1 / visits^omega.
    correction: what the actions between count.  on_policy: all ratios are 1.  weighs: ratios are asked for, so
    the probability of each action is kept when it is chosen.  sigma: share of sampling.
    num_plans: updates from memory per step.  least: error below which none is queued.
    eta: step of the gain over the step of the table.
    """

    num_actions: int
    fixed: bool
    method: int
    expectation: int
    of_states: bool
    ahead: bool
    num_steps: int
    whole: bool
    first_visit: bool
    gae_lambda: float
    trace: int
    offline: bool
    cuts: bool
    omega: float
    gamma: float
    correction: int
    on_policy: bool
    weighs: bool
    sigma: float
    num_plans: int
    least: float
    eta: float


class Feasible(NamedTuple):
    """Actions of each state, indptr [S+1] and actions [L], and the policies, where they are fixed.

    cumulative [L]: of the policy that acts, summed up within a state.  shares [L]: of the evaluated one.
    """

    indptr: np.ndarray
    actions: np.ndarray
    cumulative: np.ndarray
    shares: np.ndarray


class Memory(NamedTuple):
    """What K runs remember; arrays that a rule does not need have one entry.

    tables, visits [K, 1 to 3, E], words [K] of the random numbers; trace, change [K, E], touched [K, E]
    (entries with a trace), seen [K, E] (episode of the last visit), window_entry, window_reward,
    window_share [K, W]; weight [K, E]: mean importance weight; share [K]: probability with which the next action
    was chosen; before [K]: value of the state just entered, one update ago; gain [K]: reward per step.
    past [K, N, columns], past_reward [K, N]: transitions (_td_planning.py); heads [K, E], backs [K, S]: the
    first of a pair, and into a state; known [K, E]: pairs seen; queue, where [K, E], key [K, E]: a heap.
    count [K, COUNTS]: FILLED, HEAD, TOUCHED, EPISODE, KNOWN, QUEUED, LOST (there was no room).
    """

    tables: np.ndarray
    visits: np.ndarray
    words: np.ndarray
    trace: np.ndarray
    change: np.ndarray
    touched: np.ndarray
    seen: np.ndarray
    window_entry: np.ndarray
    window_reward: np.ndarray
    window_share: np.ndarray
    weight: np.ndarray
    share: np.ndarray
    before: np.ndarray
    gain: np.ndarray
    past: np.ndarray
    past_reward: np.ndarray
    heads: np.ndarray
    backs: np.ndarray
    known: np.ndarray
    queue: np.ndarray
    where: np.ndarray
    key: np.ndarray
    count: np.ndarray


FILLED, HEAD, TOUCHED, EPISODE, KNOWN, QUEUED, LOST = range(7)
COUNTS = 7


@njit(**INLINE)
def uniform(words, k):
    """The next number in [0, 1) of run k."""
    z = words[k] + GOLDEN
    words[k] = z
    z = (z ^ (z >> S30)) * FIRST
    z = (z ^ (z >> S27)) * SECOND
    return ((z ^ (z >> S31)) >> S11) * 2.0**-53


@njit(**INLINE)
def choose(rule, indptr, actions, cumulative, table, other, words, k, s, epsilon):
    """An action in s: of the fixed policy, or epsilon-greedy with ties broken evenly.

    A number is drawn only where there is a choice, and one is enough: below epsilon it explores, and its
    place within either part picks the action.
    """
    first, last = indptr[s], indptr[s + 1]
    count = last - first
    if count <= 1:
        return actions[first] if count else 0
    u = uniform(words, k)
    if rule.fixed:
        pair = first
        while pair < last - 1 and u >= cumulative[pair]:
            pair += 1
        return actions[pair]
    if u < epsilon:
        return actions[first + min(int(u / epsilon * count), count - 1)]
    row = s * rule.num_actions
    best, ties, chosen = -np.inf, 0, first
    for pair in range(first, last):
        q = table[row + actions[pair]]
        if rule.expectation == OTHER:
            q += other[row + actions[pair]]
        if q > best:
            best, ties, chosen = q, 1, pair
        elif q == best:
            ties += 1
    if ties > 1:
        wanted = min(int((u - epsilon) / (1.0 - epsilon) * ties), ties - 1)
        for pair in range(chosen + 1, last):
            if wanted == 0:
                break
            q = table[row + actions[pair]]
            if rule.expectation == OTHER:
                q += other[row + actions[pair]]
            if q == best:
                wanted -= 1
                chosen = pair
    return actions[chosen]


@njit(**INLINE)
def expectation(rule, indptr, actions, shares, table, other, s2, a2, epsilon):
    """E, the value of what follows: the one line in which the learners differ."""
    if rule.expectation == STATE:
        return table[s2]
    row = s2 * rule.num_actions
    if rule.expectation == SAMPLE:
        return table[row + a2]
    first, last = indptr[s2], indptr[s2 + 1]
    best, total, chosen = -np.inf, 0.0, 0
    for pair in range(first, last):
        a = actions[pair]
        q = table[row + a]
        total += shares[pair] * q if rule.expectation == MEAN else q
        if q > best:
            best, chosen = q, a
    if rule.expectation == MEAN:
        return total
    if rule.expectation == SOFT:
        return (1.0 - epsilon) * best + epsilon * (total / (last - first))
    if rule.expectation == OTHER:
        return other[row + chosen]
    return best


@njit(**INLINE)
def move(rule, table, visits, entry, target, alpha):
    """estimate += step (target - estimate); returns target - estimate."""
    delta = target - table[entry]
    visits[entry] += 1
    step = alpha if rule.omega == 0.0 else float(visits[entry]) ** -rule.omega
    table[entry] += step * delta
    return delta


@njit(**INLINE)
def one_step(
    rule, indptr, actions, shares, table, other, visits, entry, r, s2, a2, ended, alpha, epsilon
):  # fmt: skip
    """The entry just left moves towards r + gamma E."""
    target = r
    if not ended:
        target += rule.gamma * expectation(
            rule, indptr, actions, shares, table, other, s2, a2, epsilon
        )
    return move(rule, table, visits, entry, target, alpha)


@njit(**INLINE)
def window(
    rule, indptr, actions, shares, table, visits, memory, k, entry, r, s2, a2, ended, cut, alpha, epsilon
):  # fmt: skip
    """G = r_1 + gamma r_2 + ... + gamma^n E for the oldest entry; at a cut for all that are left.

    Returns target - estimate of the oldest entry, 0 while it waits.
    """
    entries, rewards, count = memory.window_entry[k], memory.window_reward[k], memory.count[k]
    room = len(entries)
    if rule.first_visit:
        seen = memory.seen[k]
        again = seen[entry] == count[EPISODE] + 1
        seen[entry] = count[EPISODE] + 1
        entry = -1 if again else entry  # it keeps its reward and moves nothing
    head, filled = count[HEAD], count[FILLED] + 1
    place = head + filled - 1  # a ring; comparing is cheaper than dividing
    if place >= room:
        place -= room
    entries[place], rewards[place] = entry, r
    count[FILLED] = filled
    if not cut and (rule.whole or filled < rule.num_steps):
        return 0.0
    value = 0.0
    if not ended:
        value = expectation(rule, indptr, actions, shares, table, table, s2, a2, epsilon)
    for _ in range(filled):
        value = rewards[place] + rule.gamma * value
        if cut:
            rewards[place] = value  # the return of each, for the flush
        place = place - 1 if place else room - 1
    first = 0.0
    if entries[head] >= 0:
        first = move(rule, table, visits, entries[head], value, alpha)
    if not cut:
        count[HEAD] = head + 1 if head + 1 < room else 0
        count[FILLED] = filled - 1
        return first
    place = head
    for _ in range(filled - 1):
        place = place + 1 if place + 1 < room else 0
        if entries[place] >= 0:
            move(rule, table, visits, entries[place], rewards[place], alpha)
    count[HEAD], count[FILLED] = 0, 0
    count[EPISODE] += 1
    return first


@njit(**INLINE)
def traces(
    rule, indptr, actions, shares, table, visits, memory, k, entry, r, s2, a2, ended, cut, alpha, epsilon
):  # fmt: skip
    """Every entry moves by step delta times its trace, which fades by gamma lambda a step.

    Dutch traces with their correction are true online TD(lambda): after each step the table is the one
    that the online lambda-return would have made.  Returns delta.
    """
    trace, change, touched = memory.trace[k], memory.change[k], memory.touched[k]
    seen, count = memory.seen[k], memory.count[k]
    value = 0.0
    if not ended:
        value = expectation(rule, indptr, actions, shares, table, table, s2, a2, epsilon)
    delta = r + rule.gamma * value - table[entry]
    visits[entry] += 1
    step = alpha if rule.omega == 0.0 else float(visits[entry]) ** -rule.omega
    if seen[entry] != count[EPISODE] + 1:
        seen[entry] = count[EPISODE] + 1
        touched[count[TOUCHED]] = entry
        count[TOUCHED] += 1
    if rule.trace == ACCUMULATING:
        trace[entry] += 1.0
    elif rule.trace == REPLACING:
        trace[entry] = 1.0
    else:
        trace[entry] += 1.0 - step * trace[entry]
    drift = table[entry] - memory.before[k] if rule.trace == DUTCH else 0.0
    keep = rule.gamma * rule.gae_lambda
    # a2 explores: what follows it says nothing of the greedy policy
    if rule.cuts and not ended and table[s2 * rule.num_actions + a2] < value:
        keep = 0.0
    for i in range(count[TOUCHED]):
        j = touched[i]
        if rule.offline:
            change[j] += step * delta * trace[j]
        else:
            table[j] += step * (delta + drift) * trace[j]
        trace[j] *= keep
    if rule.trace == DUTCH:
        table[entry] -= step * drift
        memory.before[k] = 0.0 if cut else value
    if rule.offline and cut:
        for i in range(count[TOUCHED]):
            j = touched[i]
            table[j] += change[j]
            change[j] = 0.0
    if cut or (keep == 0.0 and not rule.offline):
        for i in range(count[TOUCHED]):
            trace[touched[i]] = 0.0
            seen[touched[i]] = 0
        count[TOUCHED] = 0
    if cut:
        count[EPISODE] += 1
    return delta
