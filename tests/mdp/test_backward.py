"""Backward order against a plain search; the default planner where order, mixing and direction matter."""

from collections import deque
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sparse

from dodona.mdp import MDP, Planner, average_policy_iteration, certify, policy_value, solve, worlds
from dodona.mdp.backward import backward_orders


def distances(mdp: MDP, roots: set[int]) -> dict[int, int]:
    """Fewest transitions to a root, by breadth-first search over plain dictionaries."""
    into: dict[int, set[int]] = {}
    for pair in range(mdp.num_pairs):
        for k in range(mdp.indptr[pair], mdp.indptr[pair + 1]):
            if mdp.weights[k] > 0:
                into.setdefault(int(mdp.indices[k]), set()).add(int(mdp.pair_state[pair]))
    found, queue = dict.fromkeys(roots, 0), deque(sorted(roots))
    while queue:
        s = queue.popleft()
        for p in into.get(s, ()):
            if p not in found:
                found[p] = found[s] + 1
                queue.append(p)
    return found


def roots(mdp: MDP) -> set[int]:
    return {
        int(mdp.pair_state[pair])
        for pair in range(mdp.num_pairs)
        for k in range(mdp.indptr[pair], mdp.indptr[pair + 1])
        if mdp.terminal[mdp.indices[k]]
    }


def trap(n: int) -> MDP:
    """A corridor that ends worthless at 0 and pays at its other side."""
    rows = []
    for s in range(1, n):
        pay = float(s == n - 1)
        rows += [(s, 0, s - 1, 0.9, 0.0), (s, 0, s, 0.1, 0.0)]
        rows += [(s, 1, min(s + 1, n - 1), 0.9, pay), (s, 1, s, 0.1, pay)]
    return MDP.from_table(rows, gamma=0.999)


def ring(n: int, gamma: float) -> MDP:
    """Two ways round a circle, no chance: every policy's eigenvalues lie on a circle, too."""
    s = np.arange(n)
    ways = [sparse.csr_matrix((np.ones(n), (s, (s + d) % n)), shape=(n, n)) for d in (1, 7)]
    return MDP.from_scipy(ways, np.random.default_rng(0).normal(size=(n, 2)), gamma=gamma)


def test_states_are_swept_from_the_ends_outwards():
    mdp = worlds.maze(12, 15, seed=3)
    (order,) = backward_orders(mdp)
    assert sorted(order) == np.flatnonzero(~mdp.terminal).tolist()
    steps = distances(mdp, roots(mdp))
    assert [steps[s] for s in order] == sorted(steps[s] for s in order)


def test_where_rewards_lie_elsewhere_than_the_ends_both_give_an_order():
    mdp = trap(9)
    from_end, from_reward = backward_orders(mdp)
    assert from_end.tolist() == list(range(1, 9)) and from_reward.tolist() == list(range(8, 0, -1))


@pytest.mark.parametrize("mdp", [trap(3000), worlds.chain(3000), ring(600, 0.9999)])
def test_the_default_needs_few_iterations_where_values_travel_far(mdp):
    solution = solve(mdp, tol=1e-4)
    assert solution.converged and solution.iterations <= 60
    value = solve(mdp, method="policy-iteration", evaluation="lu", tol=1e-4)
    assert np.all(value.lower <= solution.upper) and np.all(solution.lower <= value.upper)


def test_a_bracket_that_was_proven_is_not_lost_on_the_way():
    planner = Planner(worlds.maze(30, 30), tol=1e-9)
    planner.advance()
    first = planner.solution().gap
    while planner.advance():
        assert planner.solution().gap <= first * (1 + 1e-12)


def test_a_saved_state_does_not_change_when_the_planner_goes_on():
    planner = Planner(worlds.garnet(40, 3, 4, seed=0), "anderson", tol=1e-10)
    for _ in range(4):
        planner.advance()
    state = planner.state_dict()
    before = [[v.copy() for v in pair] for pair in state["memory"]["pairs"]]
    planner.advance()
    assert all(
        np.array_equal(a, b)
        for x, y in zip(before, state["memory"]["pairs"], strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("reward", [5e-324, 1e-320, 1e-310, 1e-300])
def test_brackets_hold_where_numbers_are_denormal(reward):
    mdp = MDP.from_dense([[[1.0]]], [[reward]], gamma=0.3, layout="sas")
    truth = Fraction(reward) / (1 - Fraction(0.3))
    for proof in (solve(mdp), certify(mdp, np.zeros(1))):
        assert Fraction(float(proof.lower[0])) <= truth <= Fraction(float(proof.upper[0]))


def test_values_near_the_largest_number_do_not_overflow_in_the_middle():
    mdp = MDP.from_dense([[[1.0]]], [[1.6e307]], gamma=0.9, layout="sas")
    solution = policy_value(mdp, [0], tol=1e300)
    assert np.isfinite(solution.values).all() and solution.converged


def test_average_reward_of_float32_rows_is_that_of_rows_that_sum_to_one():
    stored = worlds.garnet(30, 3, 5, seed=1, dtype=np.float32)
    sums = np.add.reduceat(stored.probs.astype(float), stored.indptr[:-1])
    exact = stored.replace(probs=stored.probs.astype(float) / np.repeat(sums, 5))
    rough, fine = average_policy_iteration(stored), average_policy_iteration(exact)
    assert rough.lower <= fine.upper and fine.lower <= rough.upper
