"""The theorems of planning as numbers: each function returns the slack of one inequality.

A slack below zero by more than rounding refutes the theorem, or the operator it was measured with: every
function takes the operator f (or the planner), so that yours can be judged as well. None asserts anything.

Source: Zhao 2025, ch. 3 and 4; Puterman 1994, ch. 6. Not here: tolerances (checks/*.py choose them).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dodona import mdp as planning
from dodona.mdp import MDP

Values = Float[np.ndarray, "S"]
Operator = Callable[[MDP, Any], tuple[Any, Any]]  # (model, values) -> (values, policy)


def contraction(
    mdp: MDP, u: Values, w: Values, *, operator: Operator = planning.bellman_optimality
) -> float:
    """M |u - w| - |f(u) - f(w)| in the sup norm, M the largest discounted mass a pair keeps (gamma).

    Args: u, w: [S], any finite numbers; terminal states count as 0.
    Returns: the slack, reward units; >= 0 but for rounding.
    Source: Zhao 2025, th. 3.2; Shapley 1953.  Oracle: two backups.  Cost: two sweeps.
    """
    u, w = _live(mdp, u), _live(mdp, w)
    distance = float(np.abs(operator(mdp, u)[0] - operator(mdp, w)[0]).max())
    return mdp.mass[1] * float(np.abs(u - w).max()) - distance


def monotone(
    mdp: MDP, u: Values, w: Values, *, operator: Operator = planning.bellman_optimality
) -> float:
    """min over states of f(max(u, w)) - f(min(u, w)): more is never worth less.

    Args, Returns: as contraction.
    Source: Puterman 1994, sec. 6.2.  Oracle: two backups.  Cost: two sweeps.
    """
    above, below = operator(mdp, np.maximum(u, w))[0], operator(mdp, np.minimum(u, w))[0]
    return float((above - below).min())


def constant_shift(
    mdp: MDP, u: Values, c: float, *, operator: Operator = planning.bellman_optimality
) -> float:
    """-max |f(u + c) - f(u) - gamma c|: a constant passes through f as gamma times itself.

    An equality, so the slack is 0 but for rounding. Only where nothing ends: a row that loses mass
    passes on less.

    Args: as contraction.  c: any number, reward units.
    Returns: the slack, <= 0; far below 0 where episodes end.
    Source: Puterman 1994, sec. 6.2.  Oracle: two backups.  Cost: two sweeps.
    """
    moved = operator(mdp, np.asarray(u) + c)[0] - operator(mdp, u)[0]
    return -float(np.abs(moved - mdp.gamma * c)[~mdp.terminal].max())


def fixed_point_rate(
    mdp: MDP, u: Values, optimum: Values, *, num_sweeps: int, operator: Operator = planning.bellman_optimality
) -> float:  # fmt: skip
    """gamma^k / (1 - gamma) |f(u) - u| - |f^k(u) - v*|: how fast repetition converges from anywhere.

    Args: u: [S] start.  optimum: v* [S].  num_sweeps: k >= 1.
    Returns: the slack, reward units.
    Source: the contraction-mapping theorem, Zhao 2025, th. 3.1.  Oracle: k backups.  Cost: k sweeps.
    """
    x = _live(mdp, u)
    first = operator(mdp, x)[0]
    bound = mdp.gamma**num_sweeps / (1.0 - mdp.gamma) * float(np.abs(first - x).max())
    for _ in range(num_sweeps):
        x = operator(mdp, x)[0]
    return bound - float(np.abs(x - optimum).max())


def greedy_loss(
    mdp: MDP, u: Values, optimum: Values, *, operator: Operator = planning.bellman_optimality
) -> float:
    """gamma / (1 - gamma) (max e - min e) - max(v* - v_greedy), e = f(u) - u: what acting on u can cost.

    Where episodes end, 0 takes part in the maximum and the minimum.

    Args: as fixed_point_rate.
    Returns: the slack, reward units.
    Source: Puterman 1994, sec. 6.6.3.  Oracle: policy_value of the greedy policy.
    Cost: a sweep and a policy evaluation.
    """
    u = _live(mdp, u)
    out, policy = operator(mdp, u)
    change = (out - u)[~mdp.terminal]
    high, low = float(change.max()), float(change.min())
    if mdp.mass[0] < mdp.mass[1]:
        high, low = max(high, 0.0), min(low, 0.0)
    loss = float((optimum - planning.policy_value(mdp, policy).values).max())
    return mdp.gamma / (1.0 - mdp.gamma) * (high - low) - loss


def superiority(mdp: MDP, optimum: Values, policy: Any) -> float:
    """min over states of v* - v_pi: no policy beats the optimum anywhere.

    Args: optimum: v* [S].  policy: [S] or [S, A].
    Returns: the slack, reward units.
    Source: Zhao 2025, th. 3.4.  Oracle: oracles.enumeration.optimal_bruteforce.  Cost: a policy evaluation.
    """
    return float((optimum - planning.policy_value(mdp, policy).values).min())


def planner_order(
    mdp: MDP, policy: Int[np.ndarray, "S"], optimum: Values, *, num_sweeps: int = 5, iterations: int = 6,
    planner: Callable[..., planning.Planner] = planning.planner,
) -> Mapping[str, float]:  # fmt: skip
    """Value, truncated and policy iteration from one v_pi, compared after equally many improvements.

    "VI <= MPI", "VI <= PI", "MPI <= v*", "PI <= v*": the least slack over iterations and states.
    MPI <= PI is no theorem and is not here: it fails now and then.

    Args: policy: [S] the common start.  num_sweeps: of the truncated one.
    Returns: slack by name, reward units.
    Source: Puterman & Shin 1978, th. 1; Puterman 1994, th. 6.5.6.  Oracle: three planners side by side.
    Cost: ``iterations`` steps of each.
    """
    start = planning.policy_value(mdp, policy).values
    paths = {}
    for name, method, options in (
        ("VI", "value-iteration", {}),
        ("MPI", "truncated", {"num_sweeps": num_sweeps}),
        ("PI", "policy-iteration", {"evaluation": "lu"}),
    ):
        one = planner(mdp, method, tol=1e-300, start_values=start, **options)
        path = []
        for _ in range(iterations):
            one.advance()
            path.append(one.work.values.copy())
        paths[name] = np.stack(path)
    return {
        "VI <= MPI": float((paths["MPI"] - paths["VI"]).min()),
        "VI <= PI": float((paths["PI"] - paths["VI"]).min()),
        "MPI <= v*": float((optimum - paths["MPI"]).min()),
        "PI <= v*": float((optimum - paths["PI"]).min()),
    }


def _live(mdp: MDP, values: Any) -> Any:
    return np.where(mdp.terminal, 0.0, values)
