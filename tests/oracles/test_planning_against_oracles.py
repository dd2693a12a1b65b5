"""The library's planning against the oracles on drawn models: brackets, symmetries, theorems, limits."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dodona import mdp as planning
from dodona.checks import theorems
from dodona.checks.compare import as_mdp
from dodona.mdp import MDP, Planner
from dodona.mdp.proposals import PROPOSALS
from dodona.oracles import fixtures
from dodona.oracles import mdp as oracles
from dodona.oracles.strategies import st_mdp, st_policy

TAME = (0.0, 0.5, 0.9, 0.99)
small = st_mdp(gammas=TAME, largest_reward=1e3)


def with_policy(cases, **options):
    return cases.flatmap(lambda case: st_policy(case, **options).map(lambda p: (case, p)))


def optimum(case):
    values, _ = oracles.optimal_rational(
        case.P, case.R, case.gamma, terminal=case.terminal, action_mask=case.action_mask
    )
    return values


def floats(values):
    return np.array([float(v) for v in values])


def holds(solution, truth) -> bool:
    return all(
        Fraction(float(a)) <= v <= Fraction(float(b))
        for a, v, b in zip(solution.lower, truth, solution.upper, strict=True)
    )


@given(st_mdp(), st.sampled_from(sorted(set(PROPOSALS) - {"linear-program"})))
def test_every_planner_holds_the_truth_from_its_first_sweep_to_its_last(case, method):
    truth = optimum(case)
    planner = Planner(as_mdp(case), method, tol=1e-10 * (1 + np.abs(case.R).max()), max_iter=25)
    while planner.advance():
        assert holds(planner.solution(), truth)


@given(st_mdp(gammas=TAME, largest_reward=1e6))
def test_the_linear_programme_holds_the_truth(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a gap above 1e-6 at rewards of 1e6
        assert holds(planning.linear_program(as_mdp(case)), optimum(case))


@given(with_policy(st_mdp()), st.sampled_from(["auto", "lu", "bicgstab", "gmres"]))
def test_the_value_of_every_policy_lies_in_its_bracket(drawn, method):
    case, policy = drawn
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # the bracket, not its width, is judged here
        solution = planning.policy_value(as_mdp(case), policy, method=method)
    truth = oracles.policy_value_rational(
        case.P, case.R, case.gamma, policy, terminal=case.terminal
    )
    assert holds(solution, truth)


@given(with_policy(small), st.randoms(use_true_random=False))
def test_renumbering_the_states_renumbers_the_values(drawn, random):
    case, policy = drawn
    order = np.arange(len(case.P))
    random.shuffle(order)
    moved = fixtures.Fixture(
        name="moved", P=case.P[order][:, :, order], R=case.R[order], gamma=case.gamma,
        terminal=case.terminal[order],
        action_mask=None if case.action_mask is None else case.action_mask[order],
    )  # fmt: skip
    size = 1e-7 * (1 + np.abs(case.R).max())
    one, other = planning.solve(as_mdp(case), tol=size), planning.solve(as_mdp(moved), tol=size)
    assert np.allclose(one.values[order], other.values, atol=2 * size)
    v, w = (
        planning.policy_value(as_mdp(case), policy),
        planning.policy_value(as_mdp(moved), policy[order]),
    )
    assert np.allclose(v.values[order], w.values, atol=size)


@given(with_policy(small), st.floats(-3, 3), st.data())
def test_the_value_of_a_policy_is_linear_and_monotone_in_its_rewards(drawn, factor, data):
    case, policy = drawn
    model = as_mdp(case)
    L = model.num_pairs
    more = np.array(data.draw(st.lists(st.integers(0, 5), min_size=L, max_size=L)), dtype=float)

    def value(rewards):
        return planning.policy_value(
            model.replace(rewards=rewards, transition_rewards=None), policy
        ).values

    v, w = value(model.rewards), value(more)
    size = 1e-8 * (1 + np.abs(v).max() + np.abs(w).max())
    assert np.allclose(value(factor * model.rewards + more), factor * v + w, atol=10 * size)
    assert np.all(w >= -size)
    if not case.terminal.any():
        assert np.allclose(value(np.ones(L)), 1 / (1 - case.gamma), atol=1e-8 / (1 - case.gamma))


@given(with_policy(small, stochastic=True))
def test_three_ways_to_give_a_reward_are_one_model(drawn):
    """r(s, a) averaged, r(s, a, s') on transitions, r(s') on arrival: the forms of card bellman-equation."""
    case, policy = drawn
    arrival = np.arange(len(case.P)) - 1.0
    doors = {
        "gamma": case.gamma,
        "layout": "sas",
        "terminal": case.terminal,
        "action_mask": case.action_mask,
    }
    averaged = np.where(case.terminal[:, None], 0.0, case.P @ arrival)
    values = [
        planning.policy_value(MDP.from_dense(case.P, R, **doors), policy).values
        for R in (averaged, np.broadcast_to(arrival, case.P.shape), arrival)
    ]
    # the joint form p(s', r | s, a): both rewards of a step as successors of their own
    joint = [
        sum(
            float(policy[s, a])
            * float(p)
            * (arrival[j] + case.gamma * values[0][j] * (not case.terminal[j]))
            for a in range(case.R.shape[1])
            for j, p in enumerate(case.P[s, a])
        )
        for s in range(len(case.P))
    ]
    size = 1e-9 * (1 + np.abs(values[0]).max())
    assert np.allclose(values[1], values[0], atol=size)
    assert np.allclose(values[2], values[0], atol=size)
    assert np.allclose(np.where(case.terminal, 0.0, joint), values[0], atol=10 * size)


@given(small, st.data())
def test_no_theorem_of_the_optimality_operator_is_refuted(case, data):
    model = as_mdp(case)
    one = st.floats(-1e3, 1e3, allow_subnormal=False)
    u, w = (
        np.array(data.draw(st.lists(one, min_size=len(case.P), max_size=len(case.P))))
        for _ in range(2)
    )
    best = floats(optimum(case))
    size = 1e-10 * (1 + np.abs(u).max() + np.abs(w).max() + np.abs(best).max())
    assert theorems.contraction(model, u, w) >= -size
    assert theorems.monotone(model, u, w) >= -size
    assert theorems.fixed_point_rate(model, u, best, num_sweeps=3) >= -size
    assert theorems.greedy_loss(model, u, best) >= -10 * size
    assert theorems.superiority(model, best, case.mask.argmax(axis=1)) >= -10 * size
    if not case.terminal.any():
        assert theorems.constant_shift(model, u, 5.0) >= -size


@given(with_policy(small, stochastic=False), st.sampled_from([2, 5, 20]))
def test_value_iteration_never_leads_truncated_or_full_policy_iteration(drawn, num_sweeps):
    case, policy = drawn
    slack = theorems.planner_order(
        as_mdp(case), policy, floats(optimum(case)), num_sweeps=num_sweeps
    )
    size = 1e-9 * (1 + np.abs(case.R).max()) / (1 - case.gamma)
    assert set(slack) == {"VI <= MPI", "VI <= PI", "MPI <= v*", "PI <= v*"}
    assert min(slack.values()) >= -size, slack


@given(small)
def test_values_of_policy_iteration_never_fall(case):
    planner = Planner(as_mdp(case), "policy-iteration", tol=1e-300, max_iter=10)
    size = 1e-9 * (1 + np.abs(case.R).max()) / (1 - case.gamma)
    last = None
    while planner.advance():
        now = planner.work.values.copy()
        if planner.work.iteration > 2:  # the first values are no policy's
            assert np.all(now >= last - size)
        last = now


@given(
    st_mdp(gammas=TAME, largest_reward=1e3, terminal=False), st.floats(0.1, 10), st.floats(-5, 5)
)
def test_affine_rewards_move_values_and_keep_the_optimal_actions(case, a, b):
    model = as_mdp(case)
    exact, best = oracles.optimal_rational(case.P, case.R, case.gamma, action_mask=case.action_mask)
    moved = planning.affine_rewards(model, a, b)
    expected = a * floats(exact) + b / (1 - case.gamma)
    size = 1e-8 * (1 + np.abs(expected).max())
    assert np.allclose(planning.solve(moved, tol=size).values, expected, atol=2 * size)
    assert np.all(planning.optimal_actions(moved, expected, tol=10 * size)[best])


def test_affine_rewards_of_a_model_that_ends_warn_and_turn_the_optimum():
    model = as_mdp(fixtures.exit_loop())
    assert planning.solve(model).policy[0] == 0
    with pytest.warns(RuntimeWarning, match="adding b=1.0 to every reward of a model that can end"):
        moved = planning.affine_rewards(model, 1.0, 1.0)
    solution = planning.solve(moved)
    assert solution.policy[0] == 1 and solution.values[0] == pytest.approx(10.0)
    assert solution.values[0] == pytest.approx(fixtures.exit_loop(1.0).facts["v*"].value[0])


@given(small, st.data())
def test_shaping_subtracts_the_potential_and_keeps_the_optimal_actions(case, data):
    n = len(case.P)
    potential = np.array(
        data.draw(st.lists(st.integers(-9, 9), min_size=n, max_size=n)), dtype=float
    )
    exact, best = oracles.optimal_rational(
        case.P, case.R, case.gamma, terminal=case.terminal, action_mask=case.action_mask
    )
    shaped = planning.shape_rewards(as_mdp(case), potential)
    expected = floats(exact) - np.where(case.terminal, 0.0, potential)
    size = 1e-8 * (1 + np.abs(floats(exact)).max())
    assert np.allclose(planning.solve(shaped, tol=size).values, expected, atol=2 * size)
    assert np.all(planning.optimal_actions(shaped, expected, tol=10 * size)[best])


@given(st_mdp(max_states=3, gammas=(0.0, 0.5, 0.8), largest_reward=1.0), st.sampled_from(
    ["cold", "warm", "greedy", "even"]
))  # fmt: skip
def test_soft_and_exploring_optima_have_the_right_limits(case, limit):
    model, hard = as_mdp(case), floats(optimum(case))
    if limit in ("cold", "warm"):
        tau = {"cold": 1e-3, "warm": 1.0}[limit]
        soft = planning.soft_optimality(model, tau=tau, tol=1e-7).values
        assert np.all(soft >= hard - 1e-6)
        assert np.all(soft <= hard + tau * np.log(case.R.shape[1]) / (1 - case.gamma) + 1e-6)
        return
    even = planning.policy_value(model, fixtures.uniform(case)).values
    epsilon, expected = {"greedy": (0.0, hard), "even": (1.0, even)}[limit]
    got = planning.epsilon_soft_optimality(model, epsilon=epsilon, tol=1e-7).values
    assert np.allclose(got, expected, atol=1e-6)


@given(st_mdp(max_states=3, terminal=True, largest_reward=1e3))
def test_without_discount_losses_lead_to_the_exact_optimum(case):
    """Rewards below 0, so that never ending is never best."""
    R = np.where(case.mask, -1.0 - np.abs(case.R), 0.0)
    lossy = fixtures.Fixture(
        name="lossy", P=case.P, R=R, gamma=1.0, terminal=case.terminal, action_mask=case.action_mask
    )
    try:
        exact, _ = oracles.optimal_rational(
            lossy.P, lossy.R, 1, terminal=lossy.terminal, action_mask=lossy.action_mask
        )
    except ValueError:  # some state can not end at all
        assume(False)
    solution = planning.shortest_path_value_iteration(
        as_mdp(lossy), tol=float(1e-7 * (1 + np.abs(R).max()))
    )
    size = 1e-7 * (1 + np.abs(floats(exact)).max())
    assert np.allclose(solution.values, floats(exact), atol=size)
    chosen = np.maximum(solution.policy, 0)
    assert oracles.proper_policy(lossy.P, chosen, terminal=lossy.terminal).all()
