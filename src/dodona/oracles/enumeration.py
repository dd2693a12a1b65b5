"""Brute force: every deterministic policy, every trajectory. Slow, and with nothing to get wrong.

Source: definitions. Not here: anything clever.
"""

import itertools

import numpy as np

from dodona.oracles.arrays import ArrayLike, model

LIMIT = 100_000  # policies, or trajectories
BATCH = 4096  # policies solved at once


def optimal_bruteforce(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    *,
    terminal: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The elementwise maximum over all deterministic policies, and one policy that attains it everywhere.

    That one policy does is the theorem, and it is asserted.

    Args: P [S, A, S], R [S, A] or [S, A, S], gamma < 1; terminal [S], action_mask [S, A] bool.
    Returns: (v* [S], policy [S], -1 in terminal states); error about 1e-15 (1 + max |v|) / (1 - gamma).
    Raises: ValueError: see arrays.model; more than 100 000 policies; gamma 1.
    Independent of: every maximum inside an equation.
    Source: Zhao 2025, th. 3.4.  Cost: one dense solve per policy.
    """
    if not gamma < 1:
        raise ValueError(
            f"policies that never end have no value: gamma < 1 is needed, got {gamma}."
        )
    m = model(P, R, gamma, terminal=terminal, action_mask=action_mask, limit=LIMIT)
    S = len(m.ends)
    options = [[0] if m.ends[s] else np.flatnonzero(m.mask[s]).tolist() for s in range(S)]
    count = float(np.prod([float(len(o)) for o in options]))
    if count > LIMIT:
        raise ValueError(f"{count:.0f} policies are too many, at most {LIMIT} are enumerated.")
    policies = np.array(list(itertools.product(*options)))
    values, state = np.empty(policies.shape), np.arange(S)
    for at in range(0, len(policies), BATCH):
        chosen = policies[at : at + BATCH]
        system = np.eye(S) - m.gamma * m.P[state, chosen]
        right = m.R[state, chosen]
        v = np.linalg.solve(system, right[..., None])
        v = v + np.linalg.solve(system, right[..., None] - system @ v)
        values[at : at + BATCH] = v[..., 0]
    best = values.max(axis=0)
    short = (best - values).max(axis=1)
    winner = int(short.argmin())
    assert short[winner] <= 1e-9 * (1 + np.abs(best).max()), "no policy is best everywhere"
    return best, np.where(m.ends, -1, policies[winner])


def finite_horizon(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    horizon: int,
    *,
    terminal: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
    terminal_values: ArrayLike | None = None,
) -> np.ndarray:
    """Optimal values of the last ``horizon`` decisions, by backward recursion in plain arrays.

    v_H given, v_t(s) = max_a [ r(s, a) + gamma sum_s' p(s'|s, a) v_{t+1}(s') ].

    Args:
        P [S, A, S], R [S, A] or [S, A, S], gamma in [0, 1]; terminal [S], action_mask [S, A] bool.
        terminal_values: [S] worth of being there when time is up, default 0; terminal states keep 0.
    Returns: [H+1, S], row t before decision t; error about 1e-16 horizon max |v|.
    Raises: ValueError: see arrays.model; more than 100 000 states.
    Independent of: compiled sweeps; optimal_tree judges it where trees are small.
    Source: Bellman 1957.  Cost: horizon S^2 A.
    """
    m = model(P, R, gamma, terminal=terminal, action_mask=action_mask, limit=LIMIT)
    v = np.zeros((horizon + 1, len(m.ends)))
    if terminal_values is not None:
        v[horizon] = np.where(m.ends, 0.0, terminal_values)
    for t in range(horizon - 1, -1, -1):
        v[t] = np.where(m.ends, 0.0, m.q(v[t + 1]).max(axis=1))
    return v


def optimal_tree(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    horizon: int,
    state: int,
    *,
    terminal: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
) -> float:
    """The best expected return of ``horizon`` decisions from a state: the whole tree of choice and chance.

    Args: as finite_horizon.
    Returns: a number; error about 1e-16 horizon max |v|.
    Raises: ValueError: a tree of more than 100 000 leaves.
    Independent of: every array operation, every recursion over time.
    Source: definition.  Cost: (A S)^horizon.
    """
    S, A, _ = np.shape(P)
    if float(A * S) ** horizon > LIMIT:
        raise ValueError(
            f"a tree of ({A} x {S})^{horizon} leaves is too large, {LIMIT} is the limit."
        )

    def best(steps: int, s: int) -> float:
        if steps == 0 or (terminal is not None and terminal[s]):
            return 0.0
        options = []
        for a in range(A):
            if action_mask is None or action_mask[s][a]:
                total = R[s][a]
                for j in range(S):
                    if P[s][a][j]:
                        total += gamma * P[s][a][j] * best(steps - 1, j)
                options.append(total)
        return float(max(options))

    return best(horizon, state)


def trajectory_tree(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    policy: ArrayLike,
    horizon: int,
    state: int,
    *,
    terminal: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Every trajectory of ``horizon`` steps from a state: its probability and its return.

    Args:
        P [S, A, S]; R [S, A], or [S, A, S] where the reward depends on s'; policy [S, A].
        terminal: [S] bool, where a trajectory stops early.
    Returns: (probabilities [N], returns [N]): their sums of products are the moments of the return.
    Raises: ValueError: more than 100 000 trajectories.
    Independent of: every recursion, expectation and linear system.
    Source: definition.  Cost: (A S)^horizon.
    """
    reward = np.broadcast_to(np.reshape(R, (*np.shape(P)[:2], -1)), np.shape(P))
    alive, done = [(1.0, 0.0, state)], []
    for t in range(horizon):
        if len(alive) * reward.shape[1] * reward.shape[2] > LIMIT:
            raise ValueError(f"more than {LIMIT} trajectories after {t} of {horizon} steps.")
        longer = []
        for chance, total, s in alive:
            if terminal is not None and terminal[s]:
                done.append((chance, total, s))
                continue
            for a, share in enumerate(policy[s]):
                for j, p in enumerate(P[s][a]):
                    if share * p:
                        r = float(reward[s, a, j])
                        longer.append((chance * share * p, total + gamma**t * r, j))
        alive = longer
    chances, totals, _ = zip(*done, *alive, strict=True)
    return np.array(chances), np.array(totals)
