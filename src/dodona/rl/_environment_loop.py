"""One-step learning in an environment, in plain Python over lists: a call of compiled code would cost more.

A step of a Gymnasium toy takes some microseconds; the compiled rule with its dozen arrays costs as much
only to be called, these lists a tenth. The rules are those of _td_updates.py, number for number.

Not here: rules that move more than one entry; they are compiled everywhere.
Source: Sutton & Barto 2018, ch. 6.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dodona.rl._td_updates import GREEDY, MEAN, OTHER, SAMPLE, SOFT, STATE, Rule


@dataclass(kw_only=True)
class Stand:
    """Where an environment stands: state -1 before an episode; what it earned since the last record."""

    state: int = -1
    action: int = -1
    length: int = 0
    total: float = 0.0
    episodes: int = 0
    rewards: float = 0.0
    ended: list[tuple[float, int]] = field(
        default_factory=list
    )  # return and length of each episode


def learn_in_environment(
    env: Any,
    stand: Stand,
    rule: Rule,
    tables: np.ndarray,
    visits: np.ndarray,
    *,
    policies: tuple[np.ndarray | None, np.ndarray | None],
    sizes: Sequence[float],
    explore: Sequence[float],
    num_steps: int,
    until_episodes: int,
    draw: Callable[[], float],
    seed: int | None,
) -> int:
    """Step ``env`` num_steps times, or (num_steps -1) until so many episodes; returns the steps taken.

    Args:
        env: a TabularEnv.  stand: continued, and left where it stops.
        tables, visits: [1 or 2, E], changed in place at the end.
        policies: cumulative probabilities [S, A] of a fixed policy that acts, and shares [S, A] of one that
            is evaluated; None: epsilon-greedy.
        draw: the next number in [0, 1).  seed: of the first reset.
    Oracle: _td_kernels.replay of the same transitions, to the last bit.
    """
    A = 1 if rule.of_states else rule.num_actions
    q, other = tables[0].reshape(-1, A).tolist(), tables[-1].reshape(-1, A).tolist()
    counts, other_counts = visits[0].reshape(-1, A).tolist(), visits[-1].reshape(-1, A).tolist()
    acting, evaluated = (None if x is None else x.tolist() for x in policies)
    rows, expectation, gamma, omega = rule.num_actions, rule.expectation, rule.gamma, rule.omega
    of_states, ahead, double = rule.of_states, rule.ahead, rule.expectation == OTHER
    # the first step is checked, the others need not be renumbered where the environment's numbers are ours
    step, plain = env.step, env.plain
    last_size, last_explore = len(sizes) - 1, len(explore) - 1
    size, epsilon = sizes[0], explore[0]

    def choose(s: int, epsilon: float) -> int:
        u = draw()
        if acting is not None:
            a, row = 0, acting[s]
            while a < rows - 1 and u >= row[a]:
                a += 1
            return a
        if u < epsilon:
            return min(int(u / epsilon * rows), rows - 1)
        row = [x + y for x, y in zip(q[s], other[s], strict=True)] if double else q[s]
        best = max(row)
        ties = row.count(best)
        if ties == 1:
            return row.index(best)
        wanted = min(int((u - epsilon) / (1.0 - epsilon) * ties), ties - 1)
        return [a for a, x in enumerate(row) if x == best][wanted]

    s, a, length, total, t, rewards = stand.state, stand.action, stand.length, stand.total, 0, 0.0
    while t < num_steps or (num_steps < 0 and stand.episodes < until_episodes):
        if last_size:
            size = sizes[min(t, last_size)]
        if last_explore:
            epsilon = explore[min(t, last_explore)]
        if s < 0:
            s, seed, length, total, a = env.reset(seed=seed), None, 0, 0.0, -1
        if a < 0:
            a = choose(s, epsilon)
        if plain and t:
            s2, r, terminated, truncated, _ = plain(a)
            r = float(r)  # numbers of NumPy would make every sum slow
        else:
            s2, r, terminated, truncated = step(a)
        a2 = choose(s2, epsilon) if ahead and not terminated else -1
        table, counted = q, counts
        judge = other
        if double and draw() < 0.5:
            table, counted, judge = other, other_counts, q
        target = r
        if not terminated:
            row = table[s2]
            if expectation == GREEDY:
                value = max(row)
            elif expectation == SAMPLE:
                value = row[a2]
            elif expectation == STATE:
                value = row[0]
            elif expectation == SOFT:
                value = (1.0 - epsilon) * max(row) + epsilon * (sum(row) / rows)
            elif expectation == MEAN:
                value = sum(p * x for p, x in zip(evaluated[s2], row, strict=True))  # type: ignore[index]
            else:
                value = judge[s2][row.index(max(row))]
            target = r + gamma * value
        place = 0 if of_states else a
        row, seen = table[s], counted[s]
        seen[place] += 1
        if omega:
            size = seen[place] ** -omega
        row[place] += size * (target - row[place])
        length += 1
        total += r
        rewards += r
        t += 1
        s, a = s2, a2
        if terminated or truncated:
            stand.ended.append((total, length))
            stand.episodes += 1
            s, a = -1, -1
    stand.state, stand.action, stand.length, stand.total = s, a, length, total
    stand.rewards += rewards
    for table, counted, i in ((q, counts, 0), (other, other_counts, -1))[: 1 + double]:
        tables[i], visits[i] = np.ravel(table), np.ravel(counted)
    return t
