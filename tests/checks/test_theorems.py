"""The slack of each theorem is not negative for the library's operator, and is for a wrong one."""

import numpy as np
import pytest

from dodona import mdp as planning
from dodona.checks import theorems
from dodona.checks.compare import as_mdp
from dodona.oracles import fixtures
from dodona.oracles import mdp as oracles

CASE = fixtures.random_mdp(np.random.default_rng(0), 5, 3)
MODEL = as_mdp(CASE)
OPTIMUM = oracles.optimal_bruteforce(CASE.P, CASE.R, CASE.gamma)[0]
U, W = np.random.default_rng(1).normal(size=(2, 5))


def undiscounted(mdp, values):
    return planning.bellman_optimality(mdp.replace(gamma=1.0), values)


def negated(mdp, values):
    return planning.bellman_optimality(mdp, -np.asarray(values))


def clipped(mdp, values):
    out, policy = planning.bellman_optimality(mdp, values)
    return np.maximum(out, 0.0), policy


def worst(mdp, values):
    """The right backup with the policy that minimises."""
    out, _ = planning.bellman_optimality(mdp, values)
    return out, planning.action_values(mdp, values).argmin(axis=1)


@pytest.mark.parametrize(
    "theorem, wrong",
    [
        (lambda f: theorems.contraction(MODEL, U, U + 1.0, operator=f), undiscounted),
        (lambda f: theorems.monotone(MODEL, U, W, operator=f), negated),
        (lambda f: theorems.constant_shift(MODEL, U, -50.0, operator=f), clipped),
        (lambda f: theorems.fixed_point_rate(MODEL, U, OPTIMUM, num_sweeps=50, operator=f), undiscounted),
        (lambda f: theorems.greedy_loss(MODEL, OPTIMUM, OPTIMUM, operator=f), worst),
    ],
    ids=["contraction", "monotone", "constant", "rate", "greedy loss"],
)  # fmt: skip
def test_a_theorem_holds_and_refutes_a_wrong_operator(theorem, wrong):
    assert theorem(planning.bellman_optimality) >= -1e-12
    assert theorem(wrong) < -1e-3


def test_a_constant_does_not_pass_unchanged_where_episodes_end():
    case = fixtures.random_mdp(np.random.default_rng(0), 5, 3, terminal=1)
    assert theorems.constant_shift(as_mdp(case), np.zeros(5), 1.0) < -1e-3


def test_no_policy_beats_the_optimum_and_a_wrong_optimum_is_beaten():
    assert theorems.superiority(MODEL, OPTIMUM, np.zeros(5, dtype=int)) >= -1e-12
    best = planning.solve(MODEL).policy
    assert theorems.superiority(MODEL, OPTIMUM - 1.0, best) < -0.9


def test_value_iteration_never_leads_and_gauss_seidel_would():
    first = np.zeros(5, dtype=int)
    slack = theorems.planner_order(MODEL, first, OPTIMUM)
    assert min(slack.values()) >= -1e-12

    def gauss_seidel(mdp, method, **options):
        other = {"value-iteration": "gauss-seidel"}.get(method, method)
        return planning.planner(mdp, other, **options)

    slack = theorems.planner_order(MODEL, first, OPTIMUM, num_sweeps=2, planner=gauss_seidel)
    assert slack["VI <= MPI"] < -1e-3
