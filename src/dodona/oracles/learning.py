"""Learning rules as textbooks print them: plain loops over recorded transitions, lists and numbers.

Slow on purpose, and without a line in common with the compiled rules: here returns are sums from the
front, windows are slices of a list, lambda-returns are written out.

Source: Sutton & Barto 2018, boxes of ch. 5-7 and 12. Not here: how transitions come about.
"""

import math
from collections.abc import Sequence

Transition = tuple[int, int, float, int, bool, bool, int]
"""(s, a, r, s', terminated, truncated, a')."""


def targets_by_definition(
    kind: str, rewards, discounts, *, next_values=None, next_q=None, next_actions=None, next_probs=None,
    other=None, mask=None,
) -> list[float]:  # fmt: skip
    """[N] targets r + c E, one transition after another. kind: "td", "sarsa", "expected", "max", "double".

    mask: [N, A] feasible actions.  other: [N, A] the table that judges, for "double".
    Independent of: vectorised gathers.  Source: definitions.
    """
    out = []
    for i, (r, c) in enumerate(zip(rewards, discounts, strict=True)):
        if c == 0:
            out.append(float(r))
            continue
        if kind == "td":
            value = next_values[i]
        elif kind == "sarsa":
            value = next_q[i][next_actions[i]]
        elif kind == "expected":
            value = math.fsum(p * q for p, q in zip(next_probs[i], next_q[i], strict=True) if p > 0)
        else:
            allowed = [a for a in range(len(next_q[i])) if mask is None or mask[i][a]]
            best = max(allowed, key=lambda a: next_q[i][a])
            value = (next_q if kind == "max" else other)[i][best]
        out.append(float(r + c * value))
    return out


def replay(
    kind: str, transitions: Sequence[Transition], num_states: int, num_actions: int, *, gamma: float,
    alpha: float, num_steps: int = 1, epsilon: float = 0.1, omega: float = 0.0, initial: float = 0.0,
    first_visit: bool = False,
) -> list[list[float]]:  # fmt: skip
    """The table [S][A] (one column for values of states) after all transitions, in their order.

    Args:
        kind: "td", "sarsa", "expected" (epsilon-greedy in the table, ties split), "max", "monte carlo".
        num_steps: rewards of the target.  omega: step size 1 / visits^omega instead of alpha.
    Returns: nested lists of floats; one step: to the last bit; more: up to the order of sums.
    Independent of: rings, backward recursions.  Source: Sutton & Barto 2018, boxes of sec. 6.1-7.2.
    """
    width = 1 if kind == "td" else num_actions
    q = [[float(initial)] * width for _ in range(num_states)]
    visits = [[0] * width for _ in range(num_states)]
    episode: list[Transition] = []
    moved = 0

    def follow(s2: int, a2: int) -> float:
        if kind == "td":
            return q[s2][0]
        if kind == "sarsa":
            return q[s2][a2]
        if kind == "max":
            return max(q[s2])
        return (1.0 - epsilon) * max(q[s2]) + epsilon * (sum(q[s2]) / len(q[s2]))

    def update(step: int, target: float) -> None:
        s, a = episode[step][0], 0 if kind == "td" else episode[step][1]
        visits[s][a] += 1
        size = float(visits[s][a]) ** -omega if omega else alpha
        q[s][a] = q[s][a] + size * (target - q[s][a])

    for transition in transitions:
        episode.append(transition)
        _, _, r, s2, terminated, truncated, a2 = transition
        cut, T = terminated or truncated, len(episode)
        waits = kind == "monte carlo"
        ready = [T - num_steps] if not waits and T >= num_steps else []
        if cut:
            value = 0.0 if terminated else follow(s2, a2)
            steps = range(0 if waits else moved, T)
            targets = [_discounted([x[2] for x in episode[i:]], gamma, value) for i in steps]
            for i, target in zip(steps, targets, strict=True):
                seen = [(x[0], x[1]) for x in episode[:i]]
                if not (first_visit and (episode[i][0], episode[i][1]) in seen):
                    update(i, target)
            episode, moved = [], 0
            continue
        for i in ready:
            update(i, _discounted([x[2] for x in episode[i:]], gamma, follow(s2, a2)))
            moved = i + 1
    return q


def lambda_episode(
    states: Sequence[int], rewards: Sequence[float], values: Sequence[float], *, gamma: float,
    gae_lambda: float, alpha: float, last_value: float = 0.0,
) -> list[float]:  # fmt: skip
    """[S] values after one episode of the offline lambda-return algorithm (forward view).

    G_t = (1 - lambda) sum_n lambda^{n-1} G_t^{(n)} + lambda^{T-t-1} G_t^{(T-t)}; all moves at the end.

    Args: states: s_0..s_{T-1}.  rewards: r_1..r_T.  values: [S] before.  last_value: v(s_T), 0 where terminated.
    Independent of: traces.  Source: Sutton & Barto 2018, sec. 12.1.  Cost: O(T^3).
    """
    out = list(values)
    for t, s in enumerate(states):
        target = _lambda_return(states, rewards, values, t, len(states), gamma, gae_lambda, last_value)  # fmt: skip
        out[s] += alpha * (target - values[s])
    return out


def online_lambda_episode(
    states: Sequence[int], rewards: Sequence[float], values: Sequence[float], *, gamma: float,
    gae_lambda: float, alpha: float,
) -> list[float]:  # fmt: skip
    """[S] values after one terminated episode of the online lambda-return algorithm.

    At every step h the episode so far is learnt again from the start, with returns cut at h: what true
    online TD(lambda) computes in one pass.

    Args: as lambda_episode.
    Independent of: traces.  Source: van Seijen et al., arXiv:1512.04087, sec. 3.1.  Cost: O(T^4).
    """
    T, now = len(states), list(values)
    history = [list(values)]  # values after horizon h, which judge the state at h + 1
    for h in range(1, T + 1):
        w = list(values)
        for t in range(h):
            # the n-step return up to step i is judged by the values that stood when i was reached
            ahead = [history[i - 1][states[i]] if i < T else 0.0 for i in range(t + 1, h + 1)]
            sums = [_discounted(rewards[t:i], gamma, v) for i, v in zip(range(t + 1, h + 1), ahead, strict=True)]  # fmt: skip
            target = gae_lambda ** (h - t - 1) * sums[-1]
            target += (1 - gae_lambda) * math.fsum(gae_lambda**k * g for k, g in enumerate(sums[:-1]))  # fmt: skip
            w[states[t]] += alpha * (target - w[states[t]])
        history.append(w)
        now = w
    return now


def _lambda_return(states, rewards, values, t, T, gamma, gae_lambda, last_value) -> float:
    total = 0.0
    for i in range(t + 1, T + 1):
        value = last_value if i == T else values[states[i]]
        share = (
            gae_lambda ** (T - t - 1) if i == T else (1 - gae_lambda) * gae_lambda ** (i - t - 1)
        )
        total += share * _discounted(rewards[t:i], gamma, value)
    return total


def _discounted(rewards: Sequence[float], gamma: float, value: float) -> float:
    """r_1 + gamma r_2 + ... + gamma^n value; for one reward exactly r + gamma value."""
    total = 0.0
    for i, r in enumerate(rewards):
        total += gamma**i * r
    return total + gamma ** len(rewards) * value
