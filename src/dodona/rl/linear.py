"""Every linear learner under one name: ``from dodona.rl.linear import TDLinear, LSTD``.

    learner = TDLinear(Polynomial(2), gamma=0.9, alpha=0.01)
    history = learner.learn(worlds.book_grid(), num_steps=100_000, num_runs=20, seed=0)

Each lives in a file of its own idea: prediction by steps (linear_td.py), off-policy (gradient_td.py),
control (linear_control.py), least squares (lstd.py), fitted Q (fitted_q.py); the truth of a known
model is in value_objectives.py. No file here waits for torch.

Source: Zhao 2025, ch. 8. Not here: features (features.py), networks (dqn.py).
"""

from dodona.rl.fitted_q import FittedQ, FittedQReport, LeastSquares
from dodona.rl.gradient_td import GradientTD, emphatic_weights, gradient_td_system
from dodona.rl.linear_base import WeightHistory
from dodona.rl.linear_control import QLearningLinear, SarsaLinear, greedy_policy
from dodona.rl.linear_td import GradientMC, TDLinear
from dodona.rl.lstd import LSPI, LSTD, LSTDQ, LSPIReport
from dodona.rl.transitions import Transitions, sample_transitions, transitions
from dodona.rl.value_objectives import (
    LinearSystem,
    ValueObjectives,
    bellman_error_minimiser,
    best_projection,
    linear_system,
    max_step_size,
    on_policy_distribution,
    td_fixed_point,
    value_objectives,
)

__all__ = [
    "LSPI", "LSTD", "LSTDQ", "FittedQ", "FittedQReport", "GradientMC", "GradientTD", "LSPIReport",
    "LeastSquares", "LinearSystem", "QLearningLinear", "SarsaLinear", "TDLinear", "Transitions",
    "ValueObjectives", "WeightHistory", "bellman_error_minimiser", "best_projection", "emphatic_weights",
    "gradient_td_system", "greedy_policy", "linear_system", "max_step_size", "on_policy_distribution",
    "sample_transitions", "td_fixed_point", "transitions", "value_objectives",
]  # fmt: skip
