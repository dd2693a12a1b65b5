"""Fractions, linear algebra, the linear programme and brute force: each judges the others."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from dodona.oracles import fixtures
from dodona.oracles import mdp as oracles
from dodona.oracles.strategies import st_mdp, st_policy

TAME = (0.0, 0.5, 0.9, 0.99)


def doors(case):
    return {"terminal": case.terminal, "action_mask": case.action_mask}


@given(st_mdp(gammas=TAME, largest_reward=1e3))
def test_fractions_brute_force_and_the_programme_find_one_optimum(case):
    exact, best = oracles.optimal_rational(case.P, case.R, case.gamma, **doors(case))
    truth = np.array([float(v) for v in exact])
    size = 1 + np.abs(truth).max()
    brute, policy = oracles.optimal_bruteforce(case.P, case.R, case.gamma, **doors(case))
    assert np.abs(brute - truth).max() <= 1e-12 * size / (1 - case.gamma)
    programme, rho = oracles.optimal_lp(case.P, case.R, case.gamma, **doors(case))
    assert np.abs(programme - truth).max() <= 1e-6 * size
    assert rho.sum() == pytest.approx(np.sum(rho.sum(axis=1)[~case.terminal]), abs=1e-12)
    live = ~case.terminal
    assert best[live].any(axis=1).all() and not (best & ~case.mask).any()
    chosen = np.maximum(policy, 0)
    own = oracles.policy_value_rational(case.P, case.R, case.gamma, chosen, terminal=case.terminal)
    assert max(abs(float(a - b)) for a, b in zip(own, exact, strict=True)) <= 1e-12 * size


@given(st_mdp().flatmap(lambda case: st_policy(case).map(lambda policy: (case, policy))))
def test_the_bound_of_the_dense_solve_holds_at_every_discount(drawn):
    case, policy = drawn
    exact = oracles.policy_value_rational(
        case.P, case.R, case.gamma, policy, terminal=case.terminal
    )
    v, bound = oracles.policy_value(case.P, case.R, case.gamma, policy, terminal=case.terminal)
    for got, truth in zip(v, exact, strict=True):
        assert abs(Fraction(float(got)) - truth) <= Fraction(bound)


@given(st_mdp(gammas=TAME).flatmap(lambda case: st_policy(case).map(lambda p: (case, p))))
def test_partial_sums_stay_within_the_tail(drawn):
    case, policy = drawn
    exact = oracles.policy_value_rational(
        case.P, case.R, case.gamma, policy, terminal=case.terminal
    )
    total, bound = oracles.neumann(
        case.P, case.R, case.gamma, policy, terms=7, terminal=case.terminal
    )
    size = max(abs(float(v)) for v in exact) + np.abs(case.R).max()
    for got, truth in zip(total, exact, strict=True):
        assert abs(float(got) - float(truth)) <= bound * (1 + 1e-9) + 1e-12 * size


@given(st_mdp(max_states=3, max_actions=2, largest_reward=1e3))
def test_the_recursion_over_time_is_the_whole_tree(case):
    v = oracles.finite_horizon(case.P, case.R, case.gamma, 3, **doors(case))
    for s in range(len(v[0])):
        tree = oracles.optimal_tree(case.P, case.R, case.gamma, 3, s, **doors(case))
        assert v[0, s] == pytest.approx(tree, rel=1e-12, abs=1e-12 * np.abs(case.R).max())


def test_thirds_are_exact_where_floats_are_not():
    lake = fixtures.frozen_lake()
    third = np.frompyfunc(lambda x: Fraction(round(3 * x), 3), 1, 1)
    exact, _ = oracles.optimal_rational(
        third(lake.P), third(lake.R), 1, terminal=lake.terminal, limit=16
    )
    assert exact[0] == Fraction(14, 17)


def test_all_optimal_actions_of_the_book_grid_are_found_exactly():
    grid = fixtures.book_grid()
    values, best = oracles.optimal_rational(grid.P, grid.R, Fraction(9, 10), limit=25)
    assert best.sum(axis=1).tolist() == grid.facts["ties"].value.tolist()
    assert values[0] == Fraction(5832, 1000)


def test_without_discount_a_cycle_that_pays_is_refused():
    P = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    ends = np.array([False, True])
    values, best = oracles.optimal_rational(P, np.array([[-1.0, 5], [0, 0]]), 1, terminal=ends)
    assert values == [5, 0] and best.tolist() == [[False, True], [False, False]]
    with pytest.raises(ZeroDivisionError, match="some state never ends"):
        oracles.optimal_rational(P, np.array([[1.0, 5], [0, 0]]), 1, terminal=ends)
    with pytest.raises(ValueError, match="gamma is 1 and state 0 can not end"):
        oracles.optimal_rational(
            P, np.zeros((2, 2)), 1, terminal=ends, action_mask=[[True, False]] * 2
        )


def test_undiscounted_values_have_a_bound_too():
    walk = fixtures.random_walk(19, -1.0)
    v, bound = oracles.policy_value(
        walk.P, walk.R, 1.0, np.zeros(21, dtype=int), terminal=walk.terminal
    )
    assert np.abs(v - walk.facts["v"].value).max() <= bound <= 1e-11
    with pytest.raises(ValueError, match="singular: gamma is 1"):
        oracles.policy_value(np.ones((1, 1, 1)), [[0.0]], 1.0, [0])


def test_too_much_is_refused_with_the_limit_named():
    P, R = np.ones((9, 1, 9)) / 9, np.zeros((9, 1))
    with pytest.raises(ValueError, match="9 states are too many over fractions, limit is 8"):
        oracles.policy_value_rational(P, R, 0.5, np.zeros(9, dtype=int))
    wide = np.ones((6, 12, 6)) / 6
    with pytest.raises(ValueError, match="2985984 policies are too many, at most 100000"):
        oracles.optimal_bruteforce(wide, np.zeros((6, 12)), 0.5)
    with pytest.raises(ValueError, match=r"a tree of \(12 x 6\)\^3 leaves is too large"):
        oracles.optimal_tree(wide, np.zeros((6, 12)), 0.5, 3, 0)
    share = np.full((6, 12), 1 / 12)
    with pytest.raises(ValueError, match="more than 100000 trajectories after 2 of 3 steps"):
        oracles.trajectory_tree(wide, np.zeros((6, 12)), 0.5, share, 3, 0)
    large = np.zeros((501, 1, 501))
    large[:, 0, 0] = 1.0
    for oracle in (oracles.optimal_lp, lambda P, R, g: oracles.average_reward_lp(P, R)):
        with pytest.raises(
            ValueError, match="501 states are too many for this oracle, it takes at most 500"
        ):
            oracle(large, np.zeros((501, 1)), 0.5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"P": np.ones((2, 2))}, r"P has shape \(2, 2\), expected \[S, A, S\]"),
        ({"R": np.zeros(3)}, r"R has shape \(3,\), expected \[S, A\] = \(2, 1\)"),
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"P": np.full((2, 1, 2), 0.6)}, "state 0, action 0: probabilities .* sum to at most 1"),
        ({"R": [[0.0], [np.inf]]}, "state 1, action 0: .* a finite reward"),
        ({"terminal": [0, 1]}, r"terminal is int64 \(2,\), expected is bool \(2,\)"),
        ({"policy": [0, 2]}, r"actions must be in 0..0, got \[0, 2\]"),
        ({"policy": [0.0, 0.0]}, r"policy is float64 \(2,\), expected integers"),
        ({"policy": [[0.5], [1.0]]}, "state 0: the policy is .* expected is a distribution"),
    ],
)
def test_bad_arrays_are_refused_with_what_was_got_and_expected(arguments, message):
    good = {"P": np.full((2, 1, 2), 0.5), "R": np.zeros((2, 1)), "gamma": 0.5, "policy": [0, 0]}
    with pytest.raises(ValueError, match=message):
        oracles.policy_value(**{**good, **arguments})


def test_a_state_without_action_is_named():
    with pytest.raises(ValueError, match="state 1 has no action and is not terminal"):
        oracles.optimal_lp(
            np.full((2, 1, 2), 0.5), np.zeros((2, 1)), 0.5, action_mask=[[True], [False]]
        )


def test_each_rule_about_gamma_is_told():
    P, R = np.ones((1, 1, 1)), np.zeros((1, 1))
    for oracle, message in (
        (oracles.optimal_lp, "needs gamma < 1, got 1"),
        (oracles.optimal_bruteforce, "gamma < 1 is needed, got 1"),
        (lambda P, R, g: oracles.neumann(P, R, g, [0], terms=3), "the series needs gamma < 1"),
        (
            lambda P, R, g: oracles.soft_value(P, R, g, 1.0, reference=[[0.5]]),
            "the model is no tree",
        ),
        (lambda P, R, g: oracles.occupancy(P, g, [0], [1.0]), "has 1.0e[+]00 of its weight after"),
    ):
        with pytest.raises(ValueError, match=message):
            oracle(P, R, 1)


def test_soft_arguments_are_checked():
    P, R = np.ones((1, 1, 1)), np.zeros((1, 1))
    with pytest.raises(ValueError, match="tau must be > 0, got 0"):
        oracles.soft_value(P, R, 0.5, 0)
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\], got 2"):
        oracles.epsilon_soft_value(P, R, 0.5, 2)


@given(st_mdp(max_states=3, gammas=(0.0, 0.5, 0.9), largest_reward=1e3))
def test_soft_and_exploring_optima_close_in_on_the_hard_one(case):
    exact, _ = oracles.optimal_rational(case.P, case.R, case.gamma, **doors(case))
    hard = np.array([float(v) for v in exact])
    size = 1e-9 * (1 + np.abs(hard).max())
    for tau in (1.0, 1e-2):
        soft, bound = oracles.soft_value(case.P, case.R, case.gamma, tau, **doors(case))
        width = tau * np.log(case.R.shape[1]) / (1 - case.gamma)
        assert np.all(soft - hard >= -bound - size)
        assert np.all(soft - hard <= width + bound + size)
    last = np.inf
    for epsilon in (1.0, 0.5, 1e-3, 0.0):
        soft, bound = oracles.epsilon_soft_value(case.P, case.R, case.gamma, epsilon, **doors(case))
        assert np.all(soft <= hard + bound + size)
        short = float((hard - soft).max())
        assert short <= last + bound + size
        last = short
    assert last <= bound + size


def test_a_tree_of_tokens_is_summed_by_its_soft_value():
    tree = fixtures.token_tree(3, 4, reward=lambda w: (w[0] - w[-1]) / 3, tau=0.3)
    v, bound = oracles.soft_value(
        tree.P, tree.R, 1.0, 0.3, reference=fixtures.uniform(tree), terminal=tree.terminal
    )
    assert abs(v[0] - tree.facts["soft"].value[0]) <= 1e-12 and bound <= 1e-11
