"""The truth about linear values of a known model: identities, bounds, what is refused."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dodona.checks.compare import as_mdp
from dodona.errors import InputError, MDPError, NonFiniteError, NoSolutionError, ShapeError
from dodona.mdp import MDP, policy_value, worlds
from dodona.oracles import fixtures
from dodona.oracles import projection as exact
from dodona.oracles.strategies import st_features, st_mdp, st_policy
from dodona.rl.features import Fourier, OneHot, Polynomial
from dodona.rl.linear import (
    best_projection,
    linear_system,
    max_step_size,
    on_policy_distribution,
    td_fixed_point,
    value_objectives,
)

UNIFORM = np.full((25, 5), 0.2)


def test_one_hot_features_give_the_value_itself():
    grid = worlds.book_grid()
    w = td_fixed_point(grid, UNIFORM, OneHot(25))
    np.testing.assert_allclose(w, policy_value(grid, UNIFORM).values, atol=1e-10)


def test_the_share_of_time_of_the_exploring_policy_is_the_printed_one():
    # the 2x2 grid with an epsilon-greedy policy, epsilon .5: down, right, up, left, stay are 5 actions
    small = worlds.book_small()
    good = {0: "down", 1: "down", 2: "right", 3: "stay"}
    names = worlds.GRID_ACTIONS
    policy = np.full((4, 5), 0.1)
    for s, a in good.items():
        policy[s, names.index(a)] += 0.5
    share = on_policy_distribution(small, policy)
    np.testing.assert_allclose(share, [0.0345, 0.1084, 0.1330, 0.7241], atol=5e-5)
    P, _, _ = small.dense()
    eigenvalues = np.sort(np.linalg.eigvals(np.einsum("sa,sat->st", policy, P)).real)
    np.testing.assert_allclose(eigenvalues, [-0.0449, 0.3, 0.4449, 1.0], atol=5e-5)


def test_episodes_spend_their_time_where_visits_are():
    walk = worlds.random_walk(5)
    share = on_policy_distribution(walk, np.zeros(7, int))
    np.testing.assert_allclose(share, np.array([0, 1, 2, 3, 2, 1, 0]) / 9, atol=1e-14)


def test_a_discount_of_zero_ends_an_episode_as_a_terminal_state_does():
    rows = {"pair_state": np.array([0, 1]), "pair_action": np.array([0, 0])}
    mdp = MDP.from_pairs(
        **rows, indptr=np.array([0, 1, 2]), indices=np.array([1, 0]), probs=np.ones(2), rewards=np.ones(2),
        num_states=2, gamma=0.9, discounts=np.array([0.9, 0.0]), start=np.array([1.0, 0.0]),
    )  # fmt: skip
    np.testing.assert_allclose(on_policy_distribution(mdp, np.zeros(2, int)), [0.5, 0.5])


@given(st.data())
def test_projection_and_bounds_hold_on_every_model(data):
    case = data.draw(
        st_mdp(gammas=(0.0, 0.5, 0.9), terminal=False, masked=False, largest_reward=10.0)
    )
    policy = data.draw(st_policy(case, stochastic=True))
    phi = data.draw(st_features(len(case.P)))
    try:
        share = exact.on_policy_shares(case.P, policy)
    except ValueError:  # two closed classes
        assume(False)
    M = exact.projection(phi, share)
    np.testing.assert_allclose(M @ M, M, atol=1e-9)
    np.testing.assert_allclose(share[:, None] * M, (share[:, None] * M).T, atol=1e-9)
    P_pi = np.einsum("sa,sat->st", policy, case.P)
    x = np.arange(len(share)) - 1.0
    assert share @ (P_pi @ x) ** 2 <= share @ x**2 + 1e-9
    arrays = (case.P, case.R, case.gamma, policy, phi)
    fixed = exact.td_fixed_point(*arrays)
    found = exact.value_objectives(*arrays, fixed.w)
    size = 1.0 + float(np.abs(case.R).max()) ** 2
    assert found.J_PBE <= 1e-12 * size
    best = exact.value_objectives(*arrays, exact.minimisers(*arrays).value_error)
    assert found.J_E <= best.J_E / (1 - case.gamma**2) + 1e-9 * size
    system = linear_system(as_mdp(case), policy, phi)
    np.testing.assert_allclose(system.A, fixed.A, atol=1e-9)
    np.testing.assert_allclose(system.b, fixed.b, atol=1e-9 * size)
    lowest = np.linalg.eigvalsh(system.A + system.A.T).min() / 2
    assert lowest >= (1 - case.gamma) * np.linalg.eigvalsh(system.gram).min() - 1e-9


def test_the_expected_path_is_the_power_of_the_affine_step():
    grid = worlds.book_grid()
    system = linear_system(grid, UNIFORM, Polynomial(1))
    w = np.array([1.0, -2.0, 0.5])
    for _ in range(37):
        w = w + 0.3 * (system.b - system.A @ w)
    jump = exact.mean_dynamics(system.A, system.b, [1.0, -2.0, 0.5], alpha=0.3, num_steps=37)
    np.testing.assert_allclose(jump, w, atol=1e-12)


@pytest.mark.parametrize(("share", "radius"), [(0.99, 1.0), (1.01, np.inf)])
def test_the_step_limit_separates_convergence_from_divergence(share, radius):
    grid = worlds.book_grid()
    A = linear_system(grid, UNIFORM, Polynomial(2)).A
    limit = max_step_size(A)
    assert (exact.stability(A, share * limit).radius < 1.0) == (radius == 1.0)
    scale = np.linspace(0.5, 2.0, 6)
    scaled = max_step_size(A, step_scale=scale)
    assert exact.stability(scale[:, None] * A, share * scaled).radius < 1.0 or radius == np.inf


def test_too_many_fourier_features_are_named_with_their_rank_and_values_stay_exact():
    grid = worlds.book_grid()
    with pytest.warns(UserWarning, match="rank 25 and there are 36"):
        w = td_fixed_point(grid, UNIFORM, Fourier(5))
    truth = policy_value(grid, UNIFORM).values
    np.testing.assert_allclose(Fourier(5).matrix(grid) @ w, truth, atol=1e-8)


def test_the_projected_error_is_zero_at_the_fixed_point_and_nowhere_else():
    grid = worlds.book_grid()
    w = td_fixed_point(grid, UNIFORM, Polynomial(2))
    best = best_projection(grid, UNIFORM, Polynomial(2))
    assert value_objectives(grid, UNIFORM, Polynomial(2), w).projected_error < 1e-25
    assert value_objectives(grid, UNIFORM, Polynomial(2), best).projected_error > 1e-6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g: linear_system(g, UNIFORM, np.ones((24, 1))), ShapeError, r"\(24, 1\), expected \[S, m\] with S = 25"),
        (lambda g: linear_system(g, UNIFORM, np.ones((25, 0))), InputError, "no columns"),
        (lambda g: linear_system(g, UNIFORM, np.full((25, 1), np.nan)), NonFiniteError, "Phi must be finite"),
        (lambda g: linear_system(g, UNIFORM, Polynomial(1), d=np.ones(24)), ShapeError, r"d has shape \(24,\)"),
        (lambda g: linear_system(g, UNIFORM, Polynomial(1), d=-np.ones(25)), InputError, "d must be in"),
        (lambda g: value_objectives(g, UNIFORM, Polynomial(1), np.full(3, np.inf)), NonFiniteError, "w must be finite"),
        (lambda g: max_step_size(np.full((2, 2), np.nan)), NonFiniteError, "A must be finite"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(worlds.book_grid())


def test_episodes_without_a_start_have_no_share_of_time():
    with pytest.raises(MDPError, match="no start distribution"):
        on_policy_distribution(worlds.tsitsiklis_van_roy(epsilon=0.5), np.array([0, 0, -1]))


def test_weights_without_a_fixed_point_are_refused():
    # A = d (phi - gamma phi') phi = 1 (1 - .5 x 2) = 0 while the reward is not
    pair = worlds.doubling_pair(gamma=0.5).replace(rewards=np.ones(2))
    with (
        pytest.warns(UserWarning, match="rank 0"),
        pytest.raises(NoSolutionError, match="rank 0 of 1"),
    ):
        td_fixed_point(pair, np.zeros(2, int), np.array([[1.0], [2.0]]), d=np.array([1.0, 0.0]))


def test_the_oracle_knows_the_even_share_of_the_grid():
    case = fixtures.fixture("book 5x5")
    np.testing.assert_allclose(exact.on_policy_shares(case.P, UNIFORM), 0.04, atol=1e-14)
