"""The answer of every evaluator and planner: values, their proven bracket, the policy, how it went.

lower <= truth <= upper holds state by state whichever solver produced the values, because the
bracket comes from one sweep of the operator (certificate.py), not from the solver's stopping rule.
"""

import os
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError
from dodona.mdp.model import MDP
from dodona.mdp.rows import Model


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One outer iteration of a solver: sweeps so far (in full sweeps), seconds, proven gap, max |f(v) - v|."""

    iteration: int
    sweeps: float
    seconds: float
    gap: float
    residual: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Values with a proof.

    values: [S] ([H+1, S] for a finite horizon), the middle of the bracket unless stated.
    lower, upper: same shape; the true values of the stored model lie between them.
    policy: [S] action, -1 in terminal states; [S, A] for a given stochastic policy; [H, S].
    residual: max |f(v) - v| at the last sweep. iterations: outer iterations.
    sweeps: work in full sweeps over the model. seconds: wall clock.
    converged: the gap is at most the tolerance that was asked for. history: one Progress a step.
    note: why not, when ``converged`` is False.
    """

    mdp: Model = field(repr=False)
    values: FloatArray
    lower: FloatArray
    upper: FloatArray
    policy: IntArray | FloatArray
    residual: float
    iterations: int
    sweeps: float
    seconds: float
    converged: bool
    history: tuple[Progress, ...] = field(default=(), repr=False)
    note: str = ""

    @property
    def gap(self) -> float:
        """max(upper - lower): every value is known at least this well."""
        return float(np.max(self.upper - self.lower, initial=0.0))

    @cached_property
    def q(self) -> Float[np.ndarray, "S A"]:
        """[S, A] action values r + gamma P v of ``values``; -inf where infeasible. O(S A) memory."""
        if self.values.ndim != 1:
            raise InputError(
                "q of a finite horizon depends on the time: use action_values per row."
            )
        return self.mdp.q_table(self.values)

    @cached_property
    def optimal_actions(self) -> Bool[np.ndarray, "S A"]:
        """[S, A] True for every action whose value ties with the best within 1e-9 (1 + max |q|)."""
        from dodona.mdp.optimality import optimal_actions

        return optimal_actions(self.mdp, self.values, tol=None)

    def write(self, path: str | os.PathLike) -> None:
        """Write state, value, lower, upper, action as .csv or .parquet, by the path's suffix."""
        from dodona.mdp.formats.tables import write_solution

        write_solution(self, self.mdp, path)


def all_pair_values(mdp: MDP, values: Float[np.ndarray, "S"]) -> Float[np.ndarray, "L"]:
    """q of every feasible pair, [L]."""
    return mdp.pair_values(values)
