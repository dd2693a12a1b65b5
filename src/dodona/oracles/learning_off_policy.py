"""Off-policy targets of many steps as their definitions say: recursion over a list, sums over products of ratios.

Not here: rings, traces, tables that move while a target is made; learning.py has the rules without ratios.
Source: Sutton & Barto 2018, sec. 5.6-5.9 and 7.3-7.6; De Asis et al., arXiv:1703.01327; Munos et al., arXiv:1606.02647.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dodona.oracles.learning import Transition


def replay_off_policy(
    kind: str, transitions: Sequence[Transition], num_states: int, num_actions: int, *, gamma: float,
    alpha: float, num_steps: int, target: ArrayLike | None = None,
    behaviour: ArrayLike | None = None, sigma: float = 0.0, initial: float = 0.0,
) -> list[list[float]]:  # fmt: skip
    """The table [S][A] after all transitions, in their order.

    Args:
        kind: "per-decision", "ordinary", "weighted", "sigma" (control variates; sigma 0 is tree backup) or "mixed"
            (without them, and ending with a sampled action).
        num_steps: n.
        target: pi [S][A]; None: greedy in the table, even over the best.
        behaviour: mu [S][A]; None: pi acted, all ratios are 1.
    Returns: nested lists, up to the order of sums.
    Independent of: backward passes over a ring; here every target is a recursion from its own step.
    Source: eq. 7.11, 7.17 and sec. 5.6 of the book; De Asis et al., eq. 13.  Cost: O(N n^2 A).
    """
    given, mu = _rows(target), _rows(behaviour)
    q = [[float(initial)] * num_actions for _ in range(num_states)]
    mean_weight = [[0.0] * num_actions for _ in range(num_states)]
    episode: list[Transition] = []
    moved = 0

    def pi(s: int) -> list[float]:
        if given:
            return given[s]
        best = [x == max(q[s]) for x in q[s]]
        return [b / sum(best) for b in best]

    def value(s: int) -> float:
        return math.fsum(p * x for p, x in zip(pi(s), q[s], strict=True))

    def ratio(s: int, a: int) -> float:
        return pi(s)[a] / mu[s][a] if mu else 1.0

    def follows(i: int) -> float:
        """What step i - 1 sees of steps i, i + 1, ... of the episode so far."""
        _, _, _, s2, terminated, _, a2 = episode[i - 1]
        if i == len(episode):
            if terminated:
                return 0.0
            if kind == "mixed":
                return sigma * ratio(s2, a2) * q[s2][a2] + (1.0 - sigma) * value(s2)
            return value(s2)
        s, a, r = episode[i][:3]
        G = r + gamma * follows(i + 1)
        if kind == "per-decision":
            return ratio(s, a) * G
        if kind == "sigma":
            return value(s) + (sigma * ratio(s, a) + (1.0 - sigma) * pi(s)[a]) * (G - q[s][a])
        if kind == "mixed":
            others = math.fsum(
                p * x for b, (p, x) in enumerate(zip(pi(s), q[s], strict=True)) if b != a
            )
            return sigma * ratio(s, a) * G + (1.0 - sigma) * (others + pi(s)[a] * G)
        return G

    def weight(i: int) -> float:
        return math.prod(ratio(*x[:2]) for x in episode[i + 1 :])

    def update(i: int, G: float, W: float) -> None:
        s, a = episode[i][:2]
        size = alpha
        if kind == "ordinary":
            size = alpha * W
        if kind == "weighted":
            mean_weight[s][a] += alpha * (W - mean_weight[s][a])
            size = alpha * W / mean_weight[s][a] if W > 0 else 0.0
        q[s][a] += size * (G - q[s][a])

    for transition in transitions:
        episode.append(transition)
        cut, T = transition[4] or transition[5], len(episode)
        ready = range(moved, T) if cut else range(T - num_steps, T - num_steps + 1)
        plans = [(i, episode[i][2] + gamma * follows(i + 1), weight(i)) for i in ready if i >= 0]
        for i, G, W in plans:
            update(i, G, W)
            moved = i + 1
        if cut:
            episode, moved = [], 0
    return q


def corrected_episode(
    credit: str, transitions: Sequence[Transition], table: ArrayLike, *, gamma: float,
    gae_lambda: float, alpha: float, target: ArrayLike,
    behaviour: ArrayLike | None = None,
) -> list[list[float]]:  # fmt: skip
    """The table [S][A] after one episode, all moves at its end (forward view):

    q(s_t, a_t) += alpha sum_{j >= t} gamma^{j - t} (prod_{t < i <= j} c_i) delta_j.

    Args:
        credit: c is lambda times "retrace" min(1, rho), "importance" rho, "tree" pi, "lambda" 1.
        table: q before.  target: pi [S][A].  behaviour: mu [S][A]; None: pi.
    Independent of: traces.  Source: Munos et al., eq. 3.  Cost: O(T^2).
    """
    q, pi, mu = _rows(table), _rows(target), _rows(behaviour)
    out = [list(row) for row in q]

    def c(s: int, a: int) -> float:
        rho = pi[s][a] / mu[s][a] if mu else 1.0
        return gae_lambda * {"retrace": min(1.0, rho), "importance": rho, "tree": pi[s][a], "lambda": 1.0}[credit]  # fmt: skip

    def delta(x: Transition) -> float:
        s, a, r, s2, terminated = x[:5]
        mean = 0.0 if terminated else math.fsum(p * v for p, v in zip(pi[s2], q[s2], strict=True))  # fmt: skip
        return r + gamma * mean - q[s][a]

    for t, (s, a, *_) in enumerate(transitions):
        credits = 1.0
        for j in range(t, len(transitions)):
            if j > t:
                credits *= gamma * c(*transitions[j][:2])
            out[s][a] += alpha * credits * delta(transitions[j])
    return out


def _rows(table: ArrayLike | None) -> list[list[float]]:
    """Nested lists of a table; none of none."""
    return [] if table is None else np.asarray(table, dtype=float).tolist()
