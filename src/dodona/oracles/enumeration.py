"""Brute force: every deterministic policy, every trajectory. Slow, and with nothing to get wrong.

Source: definitions.
"""

import itertools

import numpy as np

from dodona.oracles.dense import policy_value

LIMIT = 100_000


def optimal_bruteforce(
    P, R, gamma, *, terminal=None, action_mask=None
) -> tuple[np.ndarray, np.ndarray]:
    """(elementwise max over all deterministic policies, one policy that attains it everywhere).

    That one policy does is the theorem, and it is asserted.
    Raises: ValueError: more than 100 000 policies.
    """
    S, A, _ = np.shape(P)
    ends = np.zeros(S, dtype=bool) if terminal is None else np.asarray(terminal)
    options = [
        [0] if ends[s] else [a for a in range(A) if action_mask is None or action_mask[s][a]]
        for s in range(S)
    ]
    count = np.prod([float(len(o)) for o in options])
    if count > LIMIT:
        raise ValueError(f"{count:.0f} policies are too many, at most {LIMIT} are enumerated")
    policies = np.array(list(itertools.product(*options)))
    values = np.stack([policy_value(P, R, gamma, p, terminal=ends)[0] for p in policies])
    best = values.max(axis=0)
    short = (best - values).max(axis=1)
    winner = int(short.argmin())
    assert short[winner] <= 1e-9 * (1 + np.abs(best).max()), "no policy is best everywhere"
    return best, policies[winner]


def finite_horizon(P, R, gamma, horizon: int, *, terminal=None, terminal_values=None) -> np.ndarray:
    """[H+1, S] optimal values with t steps to go in row H - t, by plain loops."""
    S, A, _ = np.shape(P)
    ends = np.zeros(S, dtype=bool) if terminal is None else np.asarray(terminal)
    v = np.zeros((horizon + 1, S))
    if terminal_values is not None:
        v[horizon] = np.where(ends, 0.0, terminal_values)
    for t in range(horizon - 1, -1, -1):
        for s in range(S):
            if not ends[s]:
                v[t, s] = max(
                    R[s][a] + gamma * sum(P[s][a][j] * v[t + 1, j] for j in range(S))
                    for a in range(A)
                )
    return v


def trajectory_tree(P, R, gamma, policy, horizon: int, state: int) -> float:
    """Expected return of ``horizon`` steps from a state: the sum over every trajectory. [S, A] policy."""
    if horizon == 0:
        return 0.0
    total = 0.0
    for a, share in enumerate(policy[state]):
        if share:
            future = sum(
                p * trajectory_tree(P, R, gamma, policy, horizon - 1, j)
                for j, p in enumerate(P[state][a])
                if p
            )
            total += share * (R[state][a] + gamma * future)
    return total
