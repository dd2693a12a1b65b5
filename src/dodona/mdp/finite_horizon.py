"""Backward induction: the exact optimum of a fixed number of steps, a policy for each of them.

v_H given, v_t = max_a [ r + gamma P v_{t+1} ]. gamma 1 is allowed; the policy depends on the time
left, which is why a time limit changes what is optimal.

Source: Bellman 1957; Puterman 1994, sec. 4.5.
"""

import time

import numpy as np
from jaxtyping import Float

from dodona.errors import InputError
from dodona.mdp.bellman import state_values
from dodona.mdp.certificate import contraction
from dodona.mdp.optimality import pair_actions, sweep
from dodona.mdp.rows import Model
from dodona.mdp.solution import Solution


def backward_induction(
    mdp: Model, horizon: int, *, terminal_values: Float[np.ndarray, "S"] | None = None
) -> Solution:
    """Optimal values and policies of the last ``horizon`` steps.

    v_t = max_a [ r + gamma P v_{t+1} ], t = horizon - 1 .. 0.

    Args:
        horizon: number of decisions, >= 0.
        terminal_values: [S] value when the time is up, default 0. Terminal states keep 0.
    Returns:
        Solution with values, lower, upper [H+1, S] (row t: before decision t) and policy [H, S];
        the bracket holds the rounding of every step.
    Raises:
        InputError: horizon < 0.  ShapeError: terminal_values.
    Source: Puterman 1994, sec. 4.5.
    Oracle: oracles.enumeration.finite_horizon, oracles.enumeration.optimal_tree.
    Cost: H sweeps; O(H S) memory.
    """
    if horizon < 0:
        raise InputError(f"horizon must be >= 0, got {horizon}.")
    begun = time.perf_counter()
    S = mdp.num_states
    values = np.zeros((horizon + 1, S))
    policy = np.zeros((horizon, S), dtype=np.int64)
    error = np.zeros(horizon + 1)
    if terminal_values is not None:
        values[-1] = state_values(mdp, terminal_values)
    residual = 0.0
    for t in reversed(range(horizon)):
        choice, (low, high, _) = sweep(mdp, values[t + 1], values[t])
        policy[t] = pair_actions(mdp, choice)
        residual = max(abs(low), abs(high)) if np.isfinite(low) else 0.0
        size = float(np.abs(values[t + 1]).max(initial=0.0))
        _, rate, rounding = contraction(mdp, size)
        error[t] = rate * error[t + 1] * (1 + 1e-12) + rounding
    margin = error[:, None] * ~mdp.terminal
    return Solution(
        mdp=mdp,
        values=values,
        lower=values - margin,
        upper=values + margin,
        policy=policy,
        residual=residual,
        iterations=horizon,
        sweeps=float(horizon),
        seconds=time.perf_counter() - begun,
        converged=True,
    )
