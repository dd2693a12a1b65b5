"""Replay, Dyna, priorities, speedy Q-learning and batch updates as plain loops over lists and dictionaries.

Random draws are those of SplitMix64 from word 0, so that a learner that was just made draws the same.

Not here: rings, linked lists, heaps, linear systems; learning.py has the rules without memory.
Source: Sutton & Barto 2018, boxes of sec. 6.3, 8.2, 8.4; Lin 1992; Azar et al. 2011; Steele, Lea & Flood 2014.
"""

from collections.abc import Callable, Sequence

from dodona.oracles.learning import Transition

MASK = (1 << 64) - 1


def draws(word: int = 0) -> Callable[[], float]:
    """A function that gives the next number in [0, 1) of SplitMix64.

    Independent of: 64-bit arithmetic that wraps; here whole numbers are cut.  Source: Steele, Lea & Flood 2014.

    >>> next_number = draws()
    >>> round(next_number(), 6)
    0.883311
    """

    def number() -> float:
        nonlocal word
        word = (word + 0x9E3779B97F4A7C15) & MASK
        z = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 11) / 2**53

    return number


def remembering(
    kind: str, transitions: Sequence[Transition], num_states: int, num_actions: int, *, gamma: float,
    alpha: float, num_plans: int, capacity: int = 10**9, least: float = 0.0,
) -> list[list[float]]:  # fmt: skip
    """The table [S][A] of Q-learning with a memory, after all transitions.

    Args:
        kind: "replay" (of the last ``capacity`` transitions), "dyna", or "prioritized".
        num_plans: updates from memory per step.  least: errors up to here are not queued.
    Returns: nested lists; replay and dyna to the last bit where sums have one order.
    Independent of: rings, linked lists, heaps.  Source: boxes of sec. 8.2 and 8.4 of the book; Lin 1992.
    """
    q = [[0.0] * num_actions for _ in range(num_states)]
    number = draws()
    kept: list[tuple[int, int, float, int, bool]] = []
    outcomes: dict[tuple[int, int], dict[tuple[int, bool], list[float]]] = {}
    errors: dict[tuple[int, int], float] = {}

    def move(s: int, a: int, target: float) -> None:
        q[s][a] = q[s][a] + alpha * (target - q[s][a])

    def sampled(r: float, s2: int, ended: bool) -> float:
        return r if ended else r + gamma * max(q[s2])

    def expected(pair: tuple[int, int]) -> float:
        total = sum(n for n, _ in outcomes[pair].values())
        value = sum(R + (0.0 if ended else gamma * n * max(q[s2])) for (s2, ended), (n, R) in outcomes[pair].items())  # fmt: skip
        return value / total

    def queue(pair: tuple[int, int]) -> None:
        error = abs(expected(pair) - q[pair[0]][pair[1]])
        if error > least or pair in errors:
            errors[pair] = error

    for t, (s, a, r, s2, ended, _, _) in enumerate(transitions):
        if kind != "prioritized":
            move(s, a, sampled(r, s2, ended))
        if kind == "replay":
            # the oldest is overwritten, so that places keep their numbers
            kept[t % capacity : t % capacity + 1] = [(s, a, r, s2, ended)]
            for _ in range(num_plans):
                s_, a_, r_, s2_, ended_ = kept[int(number() * len(kept))]
                move(s_, a_, sampled(r_, s2_, ended_))
            continue
        count = outcomes.setdefault((s, a), {}).setdefault((s2, ended), [0, 0.0])
        count[0] += 1
        count[1] += r
        if kind == "prioritized":
            queue((s, a))
        for _ in range(num_plans):
            if kind == "dyna":
                pair = list(outcomes)[int(number() * len(outcomes))]
                # the newest outcome first
                line = [(x, n, R) for x, (n, R) in reversed(outcomes[pair].items()) for _ in range(int(n))]  # fmt: skip
                (s2_, ended_), n, R = line[int(number() * len(line))]
                move(*pair, sampled(R / n, s2_, ended_))
                continue
            if not errors:
                break
            pair = max(errors, key=lambda x: errors[x])
            del errors[pair]
            move(*pair, expected(pair))
            for before, seen in outcomes.items():
                if (pair[0], False) in seen:
                    queue(before)
    return q


def speedy(
    transitions: Sequence[Transition], num_states: int, num_actions: int, *, gamma: float
) -> list[list[float]]:
    """q_n [S][A] of speedy Q-learning after all transitions; a round lasts until every pair met was met again.

    Independent of: running means; a round's samples are kept in lists.  Source: Azar et al. 2011, alg. 2.
    """
    before = [[0.0] * num_actions for _ in range(num_states)]
    now = [[0.0] * num_actions for _ in range(num_states)]
    met: set[tuple[int, int]] = set()
    samples: dict[tuple[int, int], list[float]] = {}
    n = 0
    for s, a, r, s2, ended, _, _ in transitions:
        met.add((s, a))
        here, there = (r if ended else r + gamma * max(q[s2]) for q in (now, before))
        samples.setdefault((s, a), []).append(n * here - (n - 1) * there)
        if set(samples) == met:
            coming = [list(row) for row in now]
            for (i, j), found in samples.items():
                coming[i][j] = now[i][j] + (sum(found) / len(found) - now[i][j]) / (n + 1)
            before, now, samples, n = now, coming, {}, n + 1
    return now


def at_rest(
    kind: str, transitions: Sequence[Transition], num_states: int, *, gamma: float, num_steps: int = 1,
    alpha: float = 0.5, sweeps: int = 3000, initial: float = 0.0,
) -> list[float]:  # fmt: skip
    """[S] values after so many sweeps over the record, each moving every state by alpha of its mean error.

    Args: kind: "td" (num_steps rewards), "monte carlo" (finished episodes), "first visits".
    Returns: error alpha-dependent, (1 - alpha (1 - gamma))^sweeps; exact where episodes are short.
    Independent of: linear systems.  Source: Sutton & Barto 2018, sec. 6.3 (batch updating).  Cost: sweeps N n.
    """
    v = [float(initial)] * num_states
    episodes, now = [], []
    for transition in transitions:
        now.append(transition)
        if transition[4] or transition[5]:
            episodes.append(now)
            now = []
    if now and kind == "td":
        episodes.append(now)
    for _ in range(sweeps):
        errors: list[list[float]] = [[] for _ in range(num_states)]
        for episode in episodes:
            for i, x in enumerate(episode):
                if kind == "first visits" and x[0] in [y[0] for y in episode[:i]]:
                    continue
                seen = episode[i : i + num_steps] if kind == "td" else episode[i:]
                G = sum(gamma**k * y[2] for k, y in enumerate(seen))
                if not seen[-1][4]:
                    G += gamma ** len(seen) * v[seen[-1][3]]
                errors[x[0]].append(G - v[x[0]])
        for s, found in enumerate(errors):
            if found:
                v[s] += alpha * sum(found) / len(found)
    return v
