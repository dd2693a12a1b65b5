"""Every planner against published optima, exact fractions and linear solves."""

from fractions import Fraction

import numpy as np
import pytest

from dodona.errors import InputError, MDPError, NonFiniteError
from dodona.mdp import (
    MDP,
    Planner,
    policy_iteration,
    policy_value,
    solve,
    value_iteration,
    worlds,
)
from dodona.mdp.proposals import PROPOSALS

# mdptoolbox.example.small; optimal values as printed by independent solves to 1e-8
SMALL_P = np.array([[[0.5, 0.5], [0.8, 0.2]], [[0.0, 1.0], [0.1, 0.9]]])
SMALL_R = np.array([[5.0, 10.0], [-1.0, 2.0]])


def small(gamma: float) -> MDP:
    return MDP.from_dense(SMALL_P, SMALL_R, gamma=gamma, layout="ass")


def random_model(seed: int, *, terminal: bool, gamma: float = 0.95) -> MDP:
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.ones(7), size=(7, 3))
    R = rng.normal(size=(7, 3))
    ends = [6] if terminal else None
    if terminal:
        R[6] = 0.0
    return MDP.from_dense(P, R, gamma=gamma, terminal=ends)


def exact_policy_value(mdp: MDP, policy: np.ndarray) -> list[Fraction]:
    """Gauss-Jordan over fractions on the stored floats."""
    n = mdp.num_states
    rows = []
    for s in range(n):
        row = [Fraction(int(s == j)) for j in range(n)] + [Fraction(0)]
        if not mdp.terminal[s]:
            pair = int(mdp.pairs_of(np.array([s]), np.array([policy[s]]))[0])
            for k in range(mdp.indptr[pair], mdp.indptr[pair + 1]):
                if not mdp.terminal[mdp.indices[k]]:
                    row[mdp.indices[k]] -= Fraction(mdp.gamma) * Fraction(float(mdp.probs[k]))
            row[n] = Fraction(float(mdp.rewards[pair]))
        rows.append(row)
    for i in range(n):
        pivot = rows[i][i]
        rows[i] = [x / pivot for x in rows[i]]
        for j in range(n):
            if j != i and rows[j][i]:
                factor = rows[j][i]
                rows[j] = [x - factor * y for x, y in zip(rows[j], rows[i], strict=True)]
    return [row[n] for row in rows]


def exact_optimum(mdp: MDP) -> list[Fraction]:
    """Policy iteration over fractions."""
    policy = np.array(
        [mdp.feasible(s)[0] if mdp.feasible(s) else -1 for s in range(mdp.num_states)]
    )
    while True:
        v = exact_policy_value(mdp, policy)
        new = policy.copy()
        for s in range(mdp.num_states):
            best = v[s]
            for pair in range(mdp.sa_indptr[s], mdp.sa_indptr[s + 1]):
                q = Fraction(float(mdp.rewards[pair]))
                for k in range(mdp.indptr[pair], mdp.indptr[pair + 1]):
                    q += Fraction(mdp.gamma) * Fraction(float(mdp.probs[k])) * v[mdp.indices[k]]
                if q > best:
                    best, new[s] = q, mdp.actions[pair]
        if np.array_equal(new, policy):
            return v
        policy = new


@pytest.mark.parametrize("method", PROPOSALS)
def test_every_method_finds_the_published_optimum(method):
    solution = solve(small(0.9), method=method, tol=1e-8)
    assert np.allclose(solution.values, [42.44186047, 36.04651163], atol=1e-8)
    solution = solve(small(0.99), method=method, tol=1e-7)
    assert np.allclose(solution.values, [392.29910714, 386.16071429], atol=1e-7)
    assert solution.policy.tolist() == [1, 0]
    assert solution.converged and solution.gap <= 1e-7


@pytest.mark.parametrize("method", PROPOSALS)
@pytest.mark.parametrize("terminal", [False, True])
def test_the_exact_optimum_lies_inside_every_bracket(method, terminal):
    for seed in range(3):
        mdp = random_model(seed, terminal=terminal)
        truth = exact_optimum(mdp)
        planning = Planner(mdp, method, tol=1e-10)
        while planning.advance():
            solution = planning.solution()
            for s, v in enumerate(truth):
                assert Fraction(float(solution.lower[s])) <= v <= Fraction(float(solution.upper[s]))
        assert planning.solution().converged


def test_the_floor_is_named_when_float64_can_not_reach_the_tolerance():
    with pytest.warns(RuntimeWarning, match="float64 can prove no gap below"):
        solution = solve(small(0.99), tol=1e-15)
    assert not solution.converged
    truth = exact_optimum(small(0.99))
    for s, v in enumerate(truth):
        assert Fraction(float(solution.lower[s])) <= v <= Fraction(float(solution.upper[s]))


def test_one_truncated_sweep_is_value_iteration_bit_for_bit():
    mdp = random_model(5, terminal=False)
    a = Planner(mdp, "truncated", num_sweeps=1, tol=1e-9)
    b = Planner(mdp, "value-iteration", tol=1e-9)
    while a.advance() | b.advance():
        assert np.array_equal(a.work.swept, b.work.swept)


def test_a_span_stopped_value_would_be_wrong_by_241_and_the_middle_is_not():
    # card dynamic-programming: small at gamma .99, span rule with eps .01, 47 iterations
    planning = Planner(small(0.99), "value-iteration", tol=1e-12)
    while True:
        planning.advance()
        change = planning.work.swept - planning.work.values
        if np.ptp(change) < 0.01 * (1 - 0.99) / 0.99:
            break
    truth = np.array([float(v) for v in exact_optimum(small(0.99))])
    assert planning.work.iteration == 47
    assert np.abs(planning.work.swept - truth).max() == pytest.approx(241.43, abs=0.01)
    assert np.abs(planning.solution().values - truth).max() == pytest.approx(5.3e-4, rel=0.05)


@pytest.mark.parametrize("method", PROPOSALS)
def test_a_planner_continues_from_its_state_bit_for_bit(method):
    mdp = random_model(1, terminal=False)
    whole, first = Planner(mdp, method, tol=1e-9), Planner(mdp, method, tol=1e-9)
    for _ in whole:
        pass
    for _ in range(2):
        first.advance()
    second = Planner(mdp, method, tol=1e-9)
    second.load_state_dict(first.state_dict())
    for _ in second:
        pass
    assert np.array_equal(whole.solution().values, second.solution().values)
    assert whole.work.iteration == second.work.iteration


def test_policy_value_brackets_the_exact_value():
    for seed in range(5):
        mdp = random_model(seed, terminal=seed % 2 == 1)
        policy = np.where(mdp.terminal, -1, 1)
        for method in ("lu", "bicgstab", "gmres", "iterate"):
            solution = policy_value(mdp, policy, method=method)
            for s, v in enumerate(exact_policy_value(mdp, policy)):
                assert Fraction(float(solution.lower[s])) <= v <= Fraction(float(solution.upper[s]))


def test_bad_arguments_say_what_is_expected():
    mdp = small(0.9)
    with pytest.raises(InputError, match="Did you mean 'inexact'"):
        solve(mdp, method="inexakt")
    with pytest.raises(InputError, match="tol must be a finite number > 0, got 0"):
        solve(mdp, tol=0)
    with pytest.raises(InputError, match="num_sweeps must be at least 1, got 0"):
        solve(mdp, method="truncated", num_sweeps=0)
    with pytest.raises(InputError, match="unknown order 'jakobi'. Did you mean 'jacobi'"):
        value_iteration(mdp, order="jakobi")
    with pytest.raises(MDPError, match="shortest_path_value_iteration.*relative_value_iteration"):
        solve(mdp.replace(gamma=1.0))


@pytest.mark.parametrize("gamma", [0.99, 0.9999, 0.999999])
def test_the_vertex_of_the_linear_programme_needs_no_polishing_near_gamma_one(gamma):
    mdp = worlds.garnet(60, 3, 4, seed=0, gamma=gamma)
    planner = Planner(mdp, "linear-program", tol=1e-8 / (1 - gamma))
    while planner.advance():
        pass
    assert planner.status == "converged" and planner.work.iteration <= 4
    known = solve(mdp, tol=1e-8 / (1 - gamma))
    assert np.all(planner.solution().lower <= known.upper)
    assert np.all(planner.solution().upper >= known.lower)


def test_simplex_switching_is_not_cut_short():
    # 1100 states that never meet: one switch each, more than any fixed limit that one would think of
    n = 1100
    mdp = MDP(
        sa_indptr=np.arange(0, 2 * n + 1, 2), actions=np.tile([0, 1], n), indptr=np.arange(2 * n + 1),
        indices=np.repeat(np.arange(n), 2), probs=np.ones(2 * n), rewards=np.tile([0.0, 1.0], n),
        gamma=0.5, terminal=np.zeros(n, dtype=bool),
    )  # fmt: skip
    solution = policy_iteration(
        mdp, switch="simplex", start_policy=np.zeros(n, dtype=int), evaluation="bicgstab"
    )
    assert solution.converged and solution.values == pytest.approx(np.full(n, 2.0))


def test_one_state_switches_at_a_time():
    planner = Planner(worlds.garnet(12, 3, 4, seed=1), "policy-iteration", switch="simplex")
    switched, before = [], None
    while planner.advance():
        if before is not None and planner.work.iteration > 2:
            switched.append(np.count_nonzero(before != evaluated(planner)))
        before = evaluated(planner)
    assert planner.status == "converged" and max(switched) == 1


def evaluated(planner):
    """The policy that the last proposal evaluated: what the next sweep started from."""
    return planner.work.last_choice.copy()


def test_over_relaxation_that_runs_away_is_told_from_rewards_that_overflow():
    mdp = worlds.garnet(30, 2, 1, seed=1, gamma=0.99)
    with pytest.raises(
        NonFiniteError,
        match=r"With omega=1.9 .* sure below 2 / \(1 \+ gamma\) = 1.005. Choose omega",
    ):
        value_iteration(mdp, order="gauss-seidel", omega=1.9)
    assert value_iteration(mdp, order="gauss-seidel", omega=1.005).converged
    huge = mdp.replace(rewards=1e306 * mdp.rewards)
    with pytest.raises(NonFiniteError, match="Scale the rewards down"):
        value_iteration(huge, order="gauss-seidel", omega=1.0)


def test_a_policy_of_a_hundred_thousand_states_is_proven_close_to_gamma_one():
    mdp = worlds.garnet(100_000, 2, 5, seed=0, gamma=0.9999)
    solution = policy_value(mdp, np.zeros(mdp.num_states, dtype=int), tol=1e-6)
    assert solution.converged and solution.gap <= 1e-6


def test_single_precision_rows_are_solved_as_exactly_as_their_numbers():
    single = worlds.garnet(60, 3, 4, seed=5, gamma=0.95, dtype=np.float32)
    P, R, gamma = single.dense()
    known = np.zeros(60)  # of the stored numbers, whose rows miss one by 1e-8
    for _ in range(800):
        known = (R + gamma * P.astype(np.float64) @ known).max(axis=1)
    mine = solve(single, tol=1e-9)
    assert mine.converged and mine.values.dtype == np.float64
    assert np.all(mine.lower <= known + 1e-12) and np.all(known <= mine.upper + 1e-12)
    full = solve(worlds.garnet(60, 3, 4, seed=5, gamma=0.95), tol=1e-9)
    assert 1e-9 < np.abs(mine.values - full.values).max() < 1e-4
