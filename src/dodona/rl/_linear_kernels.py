"""The inner loops of linear learners, compiled by Numba: one step of every rule, walks through a model.

Rows phi(s) come as padded entries (index [S, n], value [S, n]). A step with one reads and writes n
weights, or m with a trace. Every run has a random word of its own (_td_updates.py), so that run k is
the same however many run beside it, and a walk cut into pieces is the same walk.

Not here: meaning and input checks (linear.py and its neighbours), tables of outcomes (outcomes.py).

Source: see linear_td.py, gradient_td.py, linear_control.py.
"""

import numpy as np
from numba import njit

from dodona.rl._td_updates import uniform

TD, TRUE_ONLINE, GTD2, TDC, RESIDUAL, EMPHATIC = range(6)
SARSA, EXPECTED_SARSA, Q_LEARNING = range(3)


@njit(inline="always")
def draw(table, row, u):
    """Entry of a row of outcomes: Walker's alias method on one uniform number."""
    first = table.indptr[row]
    x = u * (table.indptr[row + 1] - first)
    entry = first + int(x)
    return entry if x - int(x) < table.accept[entry] else table.alias[entry]


@njit(inline="always")
def dot(w, index, value, s):
    """w . phi of row s. Rows are passed by number: a view of one costs more than the sum."""
    total = 0.0
    for j in range(index.shape[1]):
        total += w[index[s, j]] * value[s, j]
    return total


@njit(inline="always")
def add(w, index, value, s, by, scale):
    """w += by * scale * phi of row s."""
    for j in range(index.shape[1]):
        k = index[s, j]
        w[k] += by * scale[k] * value[s, j]


@njit(cache=True, nogil=True)
def value_step(
    rule, index, value, s, index2, value2, s2, reward, discount, ends, ratio, alpha, beta, decay, scale, w, z, extra
):  # fmt: skip
    """One update of w [m] by one transition; z [m] is the trace, or the second weights of GTD2 and TDC.

    discount is 0 where the transition terminates; ends also where it is truncated, which cuts the
    trace but not the bootstrap. extra: the value before (true online), the follow-on trace (emphatic).
    Returns delta.
    """
    here, after = dot(w, index, value, s), dot(w, index2, value2, s2)
    delta = reward + discount * after - here
    if rule == TD:
        if decay == 0.0:
            add(w, index, value, s, alpha * ratio * delta, scale)
        else:
            add(z, index, value, s, 1.0, scale)
            for k in range(len(w)):
                z[k] *= ratio
                w[k] += alpha * delta * z[k]
                z[k] *= 0.0 if ends else discount * decay
    elif rule == TRUE_ONLINE:
        # z holds discount * decay * trace from the step before
        add(z, index, value, s, 1.0 - alpha * dot(z, index, value, s), scale)
        for k in range(len(w)):
            w[k] += alpha * (delta + here - extra[0]) * z[k]
            z[k] *= 0.0 if ends else discount * decay
        add(w, index, value, s, -alpha * (here - extra[0]), scale)
        extra[0] = 0.0 if ends else after
    elif rule == RESIDUAL:
        add(w, index, value, s, alpha * ratio * delta, scale)
        add(w, index2, value2, s2, -alpha * ratio * delta * discount, scale)
    elif rule == EMPHATIC:
        extra[0] += 1.0
        add(w, index, value, s, alpha * ratio * extra[0] * delta, scale)
        extra[0] *= 0.0 if ends else ratio * discount
    else:
        correction = dot(z, index, value, s)
        add(w, index, value, s, alpha * ratio * (correction if rule == GTD2 else delta), scale)
        add(w, index2, value2, s2, -alpha * ratio * discount * correction, scale)
        add(z, index, value, s, beta * (ratio * delta - correction), scale)
    return delta


@njit(cache=True, nogil=True)
def value_updates(
    rule, index, value, index2, value2, rewards, discounts, ends, ratios, alphas, betas, decay, scale, w, z, extra
):  # fmt: skip
    """``value_step`` for every given transition, in order."""
    for t in range(len(rewards)):
        value_step(
            rule, index, value, t, index2, value2, t, rewards[t], discounts[t], ends[t], ratios[t],
            alphas[t], betas[t], decay, scale, w, z, extra,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def value_walk(
    rule, table, starts, index, value, alphas, betas, decay, scale, limit, words, at, age, w, z, extra
):  # fmt: skip
    """len(alphas) steps of every run through a model, learning at each.

    table: outcomes by state. starts: outcomes with one row, the first states. limit: steps after which an
    episode is cut. words, at, age [R] and w, z [R, m], extra [R, 1] are the state of the runs.
    """
    for run in range(len(at)):
        s, steps = at[run], age[run]
        w_run, z_run, extra_run = w[run], z[run], extra[run]
        for t in range(len(alphas)):
            if s < 0:
                s, steps = starts.next_state[draw(starts, 0, uniform(words, run))], 0
            e = draw(table, s, uniform(words, run))
            s2 = table.next_state[e]
            steps += 1
            ends = table.ends[e] or steps >= limit
            value_step(
                rule, index, value, s, index, value, s2, table.reward[e], table.discount[e], ends,
                table.ratio[e], alphas[t], betas[t], decay, scale, w_run, z_run, extra_run,
            )  # fmt: skip
            s = -1 if ends else s2
        at[run], age[run] = s, steps


@njit(cache=True, nogil=True)
def n_step_walk(
    n, table, starts, index, value, alphas, scale, limit, words, at, age, w, ring, rewards, discounts
):  # fmt: skip
    """``value_walk`` of n-step TD; ring [R, n], rewards, discounts [R, n] hold the steps not yet used.

    An episode's last n - 1 states are updated when it ends, with what there is.
    """
    for run in range(len(at)):
        s, steps = at[run], age[run]
        for t in range(len(alphas)):
            if s < 0:
                s, steps = starts.next_state[draw(starts, 0, uniform(words, run))], 0
            e = draw(table, s, uniform(words, run))
            s2, slot = table.next_state[e], steps % n
            ring[run, slot], rewards[run, slot], discounts[run, slot] = (
                s,
                table.reward[e],
                table.discount[e],
            )
            steps += 1
            ends = table.ends[e] or steps >= limit
            oldest = steps - n
            last = steps - 1 if ends else oldest
            for first in range(max(oldest, 0), last + 1):
                target = dot(w[run], index, value, s2)
                for k in range(steps - 1, first - 1, -1):
                    target = rewards[run, k % n] + discounts[run, k % n] * target
                x = ring[run, first % n]
                error = target - dot(w[run], index, value, x)
                add(w[run], index, value, x, alphas[t] * error, scale)
            s = -1 if ends else s2
        at[run], age[run] = s, steps


@njit(cache=True, nogil=True)
def monte_carlo_walk(table, starts, index, value, alphas, scale, longest, words, done, w):
    """Whole episodes of every run until it has done its steps; done [R] counts them, beyond the goal too.

    Returns the first run whose episode did not end within ``longest`` steps, or -1.
    """
    path, paid, kept = np.empty(longest, np.int64), np.empty(longest), np.empty(longest)
    goal = len(alphas)
    for run in range(len(w)):
        while done[run] < goal:
            s = starts.next_state[draw(starts, 0, uniform(words, run))]
            num = 0
            while True:
                if num == longest:
                    return run
                e = draw(table, s, uniform(words, run))
                path[num], paid[num], kept[num] = s, table.reward[e], table.discount[e]
                num += 1
                s = table.next_state[e]
                if table.ends[e]:
                    break
            returns_updates(
                path[:num], paid[:num], kept[:num], index, value, alphas[done[run]], scale, w[run]
            )
            done[run] += num
        done[run] -= goal
    return -1


@njit(cache=True, nogil=True)
def returns_updates(path, rewards, discounts, index, value, alpha, scale, w):
    """w += alpha (g - v) phi for every state of a finished episode, first to last."""
    num = len(path)
    returns = np.empty(num)
    g = 0.0
    for t in range(num - 1, -1, -1):
        g = rewards[t] + discounts[t] * g
        returns[t] = g
    for t in range(num):
        s = path[t]
        add(w, index, value, s, alpha * (returns[t] - dot(w, index, value, s)), scale)


@njit(inline="always")
def q_of(w, a, index, value, s):
    """phi(s) . w_a; w [A, m]."""
    total = 0.0
    for j in range(index.shape[1]):
        total += w[a, index[s, j]] * value[s, j]
    return total


@njit(cache=True, nogil=True)
def greedy(w, index, value, s, feasible, x):
    """First best feasible action in row s (feasible: row x) and its value."""
    best, top = -1, -np.inf
    for a in range(len(w)):
        if feasible[x, a]:
            q = q_of(w, a, index, value, s)
            if q > top or best < 0:
                best, top = a, q
    return best, top


@njit(cache=True, nogil=True)
def act(w, index, value, s, feasible, epsilon, words, run):
    """Epsilon-greedy action, one random number a call: its upper part explores."""
    u = uniform(words, run)
    if u >= epsilon:
        return greedy(w, index, value, s, feasible, s)[0]
    num = 0
    for a in range(len(w)):
        num += feasible[s, a]
    left = int(u / epsilon * num)
    for a in range(len(w)):
        if feasible[s, a]:
            if left == 0:
                return a
            left -= 1
    return -1


@njit(cache=True, nogil=True)
def choose(choices, w, index, value, s, feasible, epsilon, words, run):
    """An action of the fixed behaviour ``choices``, or epsilon-greedy where it has no rows."""
    if len(choices.indptr) > 1:
        return choices.next_state[draw(choices, s, uniform(words, run))]
    return act(w, index, value, s, feasible, epsilon, words, run)


@njit(cache=True, nogil=True)
def next_value(rule, w, index, value, s, feasible, x, action, epsilon):
    """q of what follows: the action taken, the epsilon-greedy mean, or the best."""
    if rule == SARSA:
        return q_of(w, action, index, value, s)
    _, top = greedy(w, index, value, s, feasible, x)
    if rule == Q_LEARNING or epsilon == 0.0:
        return top
    mean, num = 0.0, 0
    for a in range(len(w)):
        if feasible[x, a]:
            mean += q_of(w, a, index, value, s)
            num += 1
    return (1.0 - epsilon) * top + epsilon * mean / num


@njit(cache=True, nogil=True)
def action_step(index, value, s, action, target, alpha, decay, discount, ends, scale, w, z):
    """w [A, m] towards a target, with an accumulating trace z [A, m] where decay > 0."""
    delta = target - q_of(w, action, index, value, s)
    if decay == 0.0:
        for j in range(index.shape[1]):
            k = index[s, j]
            w[action, k] += alpha * delta * scale[k] * value[s, j]
        return
    for j in range(index.shape[1]):
        k = index[s, j]
        z[action, k] += scale[k] * value[s, j]
    keep = 0.0 if ends else discount * decay
    for a in range(len(w)):
        for k in range(w.shape[1]):
            w[a, k] += alpha * delta * z[a, k]
            z[a, k] *= keep


@njit(cache=True, nogil=True)
def action_updates(
    rule, index, value, actions, rewards, index2, value2, actions2, feasible2, discounts, ends, alphas, epsilon,
    decay, scale, w, z,
):  # fmt: skip
    """``action_step`` for every given transition, in order."""
    for t in range(len(rewards)):
        target = rewards[t]
        if discounts[t] != 0.0:
            target += discounts[t] * next_value(
                rule, w, index2, value2, t, feasible2, t, actions2[t], epsilon
            )
        action_step(
            index, value, t, actions[t], target, alphas[t], decay, discounts[t], ends[t], scale, w, z
        )  # fmt: skip


@njit(cache=True, nogil=True)
def action_walk(
    rule, table, starts, pair_of, feasible, choices, index, value, alphas, epsilons, decay, scale, limit,
    words, at, action, age, w, z,
):  # fmt: skip
    """len(alphas) steps of every run, learning q at each.

    table: outcomes by pair. pair_of [S, A]: row of each pair. choices: outcomes by state whose
    next_state is an action, a fixed behaviour; without rows the run acts epsilon-greedily.
    """
    for run in range(len(at)):
        s, a, steps = at[run], action[run], age[run]
        w_run, z_run = w[run], z[run]
        for t in range(len(alphas)):
            if s < 0:
                s, a, steps = starts.next_state[draw(starts, 0, uniform(words, run))], -1, 0
            if a < 0:
                a = choose(choices, w_run, index, value, s, feasible, epsilons[t], words, run)
            e = draw(table, pair_of[s, a], uniform(words, run))
            s2, discount = table.next_state[e], table.discount[e]
            steps += 1
            ends = table.ends[e] or steps >= limit
            target, a2 = table.reward[e], -1
            if discount != 0.0:
                if rule == SARSA:  # the action that is taken next is the one in the target
                    a2 = choose(choices, w_run, index, value, s2, feasible, epsilons[t], words, run)
                target += discount * next_value(
                    rule, w_run, index, value, s2, feasible, s2, a2, epsilons[t]
                )
            action_step(
                index, value, s, a, target, alphas[t], decay, discount, ends, scale, w_run, z_run
            )
            s, a = (-1, -1) if ends else (s2, a2)
        at[run], action[run], age[run] = s, a, steps


@njit(cache=True, nogil=True)
def n_step_action_walk(
    n, rule, table, starts, pair_of, feasible, choices, index, value, alphas, epsilons, scale, limit, words, at,
    action, age, w, ring, taken, rewards, discounts,
):  # fmt: skip
    """``action_walk`` of n-step Sarsa; ring, taken, rewards, discounts [R, n] hold the steps not yet used."""
    for run in range(len(at)):
        s, a, steps = at[run], action[run], age[run]
        w_run = w[run]
        for t in range(len(alphas)):
            if s < 0:
                s, a, steps = starts.next_state[draw(starts, 0, uniform(words, run))], -1, 0
            if a < 0:
                a = choose(choices, w_run, index, value, s, feasible, epsilons[t], words, run)
            e = draw(table, pair_of[s, a], uniform(words, run))
            s2, slot = table.next_state[e], steps % n
            ring[run, slot], taken[run, slot] = s, a
            rewards[run, slot], discounts[run, slot] = table.reward[e], table.discount[e]
            steps += 1
            ends = table.ends[e] or steps >= limit
            a2 = -1
            if not table.ends[e]:
                a2 = choose(choices, w_run, index, value, s2, feasible, epsilons[t], words, run)
            oldest = steps - n
            last = steps - 1 if ends else oldest
            for first in range(max(oldest, 0), last + 1):
                target = 0.0
                if a2 >= 0:
                    target = next_value(
                        rule, w_run, index, value, s2, feasible, s2, a2, epsilons[t]
                    )
                for k in range(steps - 1, first - 1, -1):
                    target = rewards[run, k % n] + discounts[run, k % n] * target
                x, b = ring[run, first % n], taken[run, first % n]
                add(
                    w_run[b],
                    index,
                    value,
                    x,
                    alphas[t] * (target - q_of(w_run, b, index, value, x)),
                    scale,
                )
            s, a = (-1, -1) if ends else (s2, a2)
        at[run], action[run], age[run] = s, a, steps


@njit(cache=True, nogil=True)
def record_walk(table, starts, choices, pair_of, limit, words, numbers, rewards, flags):
    """A walk written down: numbers [4, N] s, a, s', a'; flags [2, N] terminated, truncated.

    a' is -1 where nothing follows.
    """
    s, a, steps = -1, -1, 0
    for t in range(len(rewards)):
        if s < 0:
            s, steps = starts.next_state[draw(starts, 0, uniform(words, 0))], 0
            a = choices.next_state[draw(choices, s, uniform(words, 0))]
        e = draw(table, pair_of[s, a], uniform(words, 0))
        s2, a2 = table.next_state[e], -1
        steps += 1
        if not table.ends[e]:
            a2 = choices.next_state[draw(choices, s2, uniform(words, 0))]
        numbers[0, t], numbers[1, t], numbers[2, t], numbers[3, t] = s, a, s2, a2
        rewards[t] = table.reward[e]
        flags[0, t] = table.ends[e]
        flags[1, t] = steps >= limit and not table.ends[e]
        s, a = (-1, -1) if flags[0, t] or flags[1, t] else (s2, a2)


@njit(cache=True, nogil=True)
def sherman_morrison(inverse, phi, step, left, right):
    """inverse of (A + phi step^T) from the inverse of A, in place; left, right [m] are scratch.

    A^{-1} <- A^{-1} - (A^{-1} phi)(step^T A^{-1}) / (1 + step^T A^{-1} phi).
    Returns the denominator; at 0 the sum is singular and nothing is changed.
    """
    m = len(phi)
    left[:] = 0.0
    right[:] = 0.0
    for i in range(m):
        total = 0.0
        for j in range(m):
            total += inverse[i, j] * phi[j]
            right[j] += step[i] * inverse[i, j]
        left[i] = total
    scale = 1.0
    for i in range(m):
        scale += step[i] * left[i]
    if scale != 0.0:
        for i in range(m):
            factor = left[i] / scale
            for j in range(m):
                inverse[i, j] -= factor * right[j]
    return scale


@njit(cache=True, nogil=True)
def recursive_lstd(traces, steps, rewards, weights, inverse, b):
    """Rank-one updates of the inverse and b for every transition; False where one was singular."""
    m = len(b)
    left, right = np.empty(m), np.empty(m)
    for t in range(len(rewards)):
        if weights[t] == 0.0:
            continue
        if sherman_morrison(inverse, weights[t] * traces[t], steps[t], left, right) == 0.0:
            return False
        for k in range(m):
            b[k] += weights[t] * rewards[t] * traces[t, k]
    return True


@njit(cache=True, nogil=True)
def trace_rows(phi, discounts, ends, decay, z, out):
    """out[t] = z_t, z <- phi_t + (discount decay of the step before) z; z carries over to the next call."""
    for t in range(len(phi)):
        for k in range(phi.shape[1]):
            z[k] += phi[t, k]
            out[t, k] = z[k]
            z[k] *= 0.0 if ends[t] else discounts[t] * decay
