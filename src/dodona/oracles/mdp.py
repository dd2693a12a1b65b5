"""Every oracle of planning under one name: ``from dodona.oracles import mdp``.

Each lives in a file of its own idea, where its docstring says by what method it is computed, up to what
size, how exact it is, and of what it is independent.

Source: Puterman 1994. Not here: strategies (they need hypothesis), learners' oracles.
"""

from dodona.oracles.bugs import BUGS, buggy_value
from dodona.oracles.certificate import Certificate, certify
from dodona.oracles.chains import (
    ReturnMoments,
    hitting_probability,
    null_vector,
    proper_policy,
    return_moments,
    stationary,
)
from dodona.oracles.dense import average_reward, neumann, occupancy, policy_value
from dodona.oracles.empirical import EmpiricalModel, empirical_mdp
from dodona.oracles.enumeration import (
    finite_horizon,
    optimal_bruteforce,
    optimal_tree,
    trajectory_tree,
)
from dodona.oracles.linear_program import average_reward_lp, optimal_lp
from dodona.oracles.rational import optimal_rational, policy_value_rational, solve_rational
from dodona.oracles.soft import epsilon_soft_value, soft_value

__all__ = [
    "BUGS",
    "Certificate",
    "EmpiricalModel",
    "ReturnMoments",
    "average_reward",
    "average_reward_lp",
    "buggy_value",
    "certify",
    "empirical_mdp",
    "epsilon_soft_value",
    "finite_horizon",
    "hitting_probability",
    "neumann",
    "null_vector",
    "occupancy",
    "optimal_bruteforce",
    "optimal_lp",
    "optimal_rational",
    "optimal_tree",
    "policy_value",
    "policy_value_rational",
    "proper_policy",
    "return_moments",
    "soft_value",
    "solve_rational",
    "stationary",
    "trajectory_tree",
]
