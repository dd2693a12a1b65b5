"""Planning when the model is known: finite MDPs, Bellman operators, planners, proofs.

    from dodona.mdp import MDP, solve
    solution = solve(MDP.from_table("transitions.csv", gamma=0.95), tol=1e-6)
    print(solution.gap, solution.policy)

Ready-made models are in ``dodona.mdp.worlds``, without stored rows in ``dodona.mdp.worlds.matrix_free``,
the audit of Gymnasium tables in ``dodona.mdp.audit``.
"""

from dodona.mdp.average import (
    AverageSolution,
    average_policy_iteration,
    relative_value_iteration,
)
from dodona.mdp.bellman import (
    AverageReward,
    action_values,
    average_reward,
    bellman_operator,
    occupancy,
    policy_action_values,
    policy_advantages,
    policy_value,
    return_variance,
    stationary_distribution,
)
from dodona.mdp.certificate import Certificate
from dodona.mdp.finite_horizon import backward_induction
from dodona.mdp.matrix_free import MatrixFree
from dodona.mdp.model import MDP, Labels
from dodona.mdp.optimality import (
    affine_rewards,
    bellman_optimality,
    certify,
    fixed_point,
    greedy,
    optimal_actions,
    shape_rewards,
)
from dodona.mdp.planning import (
    Planner,
    inexact_policy_iteration,
    linear_program,
    planner,
    policy_iteration,
    prioritized_sweeping,
    solve,
    truncated_policy_iteration,
    value_iteration,
)
from dodona.mdp.sharded import Shard, shard, solve_sharded
from dodona.mdp.shortest_path import shortest_path_value_iteration, soonest_ending
from dodona.mdp.solution import Progress, Solution
from dodona.mdp.variants import (
    blackwell_gamma,
    epsilon_soft_optimality,
    soft_optimality,
    sweep_gamma,
    sweep_reward,
)

__all__ = [
    "MDP",
    "AverageReward",
    "AverageSolution",
    "Certificate",
    "Labels",
    "MatrixFree",
    "Planner",
    "Progress",
    "Shard",
    "Solution",
    "action_values",
    "affine_rewards",
    "average_policy_iteration",
    "average_reward",
    "backward_induction",
    "bellman_operator",
    "bellman_optimality",
    "blackwell_gamma",
    "certify",
    "epsilon_soft_optimality",
    "fixed_point",
    "greedy",
    "inexact_policy_iteration",
    "linear_program",
    "occupancy",
    "optimal_actions",
    "planner",
    "policy_action_values",
    "policy_advantages",
    "policy_iteration",
    "policy_value",
    "prioritized_sweeping",
    "relative_value_iteration",
    "return_variance",
    "shape_rewards",
    "shard",
    "shortest_path_value_iteration",
    "soft_optimality",
    "solve",
    "solve_sharded",
    "soonest_ending",
    "stationary_distribution",
    "sweep_gamma",
    "sweep_reward",
    "truncated_policy_iteration",
    "value_iteration",
]
