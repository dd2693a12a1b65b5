"""Worlds as functions against the same worlds as rows."""

import inspect

import numpy as np
import pytest
from scipy import sparse

from dodona.errors import InputError, MDPError
from dodona.mdp import MatrixFree, certify, shard, solve, solve_sharded, worlds
from dodona.mdp.worlds import matrix_free as free_worlds

CASES = {
    "chain": ((7,), {"slip": 0.2}),
    "torus": ((4, 5), {"slip": 0.3}),
    "inventory_perishable": ((3, 1), {"max_order": 3, "demand_mean": 2.0, "issue": "fifo"}),
    "pendulum_grid": ((9, 8, 5), {}),
    "queue_network": ((3, 2), {"service": (1.0, 2.0, 1.0), "load": 1.1}),
    "inventory_substitution": ((2,), {"max_orders": (2, 1), "demand_means": (1.5, 0.7)}),
    "maze": ((5, 6), {"slip": 0.2, "seed": 3}),
    "epidemic_sir": ((7,), {}),
}
TIGHT = 1e-11  # of the values, on which answers to 1e-12 then agree: the middle of the bracket is better


@pytest.mark.parametrize("name", CASES)
def test_a_world_as_a_function_is_the_world_as_rows(name):
    args, options = CASES[name]
    stored = getattr(worlds, name)(*args, **options)
    free = getattr(free_worlds, name)(*args, **options, compiled=False)
    made = free.to_mdp()
    assert np.array_equal(made.action_mask, stored.action_mask)
    assert np.array_equal(made.terminal, stored.terminal)
    assert weights(made) == pytest.approx(weights(stored), abs=1e-14)
    assert made.rewards == pytest.approx(stored.rewards, abs=1e-13)
    assert free.mass == pytest.approx(stored.mass, abs=1e-14)


def weights(mdp):
    """[L, S] discounted probabilities, whichever way the model states its discount."""
    rows = (mdp.scale * mdp.weights, mdp.indices, mdp.indptr)
    return sparse.csr_array(rows, shape=(mdp.num_pairs, mdp.num_states)).toarray()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("num_ranks", [1, 2, 5])
def test_the_shards_of_a_world_are_its_rows_in_turn(name, num_ranks):
    args, options = CASES[name]
    stored = getattr(worlds, name)(*args, **options)
    free = getattr(free_worlds, name)(*args, **options, compiled=False)
    parts = [shard(free, rank, num_ranks) for rank in range(num_ranks)]
    assert [p.first for p in parts] == [
        r * stored.num_states // num_ranks for r in range(num_ranks)
    ]
    rows = []
    for part in parts:
        numbers = np.concatenate([part.first + np.arange(part.num_own), part.halo])
        whole = np.zeros((part.rows.num_pairs, stored.num_states))
        whole[:, numbers] = weights(part.rows)
        rows.append(whole)
    assert np.concatenate(rows) == pytest.approx(weights(stored), abs=1e-14)
    for field in ("rewards", "actions"):
        joined = np.concatenate([getattr(p.rows, field) for p in parts])
        assert joined == pytest.approx(getattr(stored, field), abs=1e-13)
    ends = np.concatenate([p.rows.terminal[: p.num_own] for p in parts])
    assert np.array_equal(ends, stored.terminal)


@pytest.mark.parametrize("name", CASES)
def test_a_world_and_its_only_shard_have_one_answer(name):
    args, options = CASES[name]
    stored = getattr(worlds, name)(*args, **options, gamma=0.4)
    free = getattr(free_worlds, name)(*args, **options, gamma=0.4, compiled=False)
    known = solve(stored, tol=TIGHT)
    for solution in (solve(free, tol=TIGHT), solve_sharded(shard(free, 0, 1), tol=TIGHT)):
        assert solution.converged
        assert np.abs(solution.values - known.values).max() <= 1e-12 * (
            1 + np.abs(known.values).max()
        )


def test_a_shard_asks_for_the_rows_of_its_own_states_only():
    asked = []

    def walk(s, a, e):
        asked.append((s.min(), s.max()))
        return np.minimum(s + 1, 10**9 - 1), 0.0 * s

    model = MatrixFree(walk, [1.0], 10**9, 1, gamma=0.9, validate=False)
    part = shard(model, 7, 10**6)
    assert (part.first, part.num_own, part.halo.tolist()) == (7000, 1000, [8000])
    assert min(low for low, _ in asked) == 7000 and max(high for _, high in asked) == 7999


def test_a_world_of_a_billion_states_gives_the_shard_of_a_small_one():
    first = shard(free_worlds.chain(10**9, compiled=False), 0, 10**7)
    small = shard(free_worlds.chain(200, compiled=False), 0, 2)
    assert first.rows.num_pairs == small.rows.num_pairs == 200
    for field in ("indptr", "indices", "probs", "rewards", "actions"):
        assert np.array_equal(getattr(first.rows, field), getattr(small.rows, field))


def test_a_wrong_row_is_found_by_the_rank_that_owns_it():
    def walk(s, a, e):
        return np.where(s == 7, -1, s), 0.0 * s

    model = MatrixFree(walk, [1.0], 10, 1, gamma=0.9, validate=False)
    assert shard(model, 0, 2).num_own == 5
    with pytest.raises(
        MDPError, match="state 7, action 0, event 0: the next state is out of range"
    ):
        shard(model, 1, 2)
    with pytest.raises(MDPError, match="state 7, action 0"):
        solve(model)


@pytest.mark.parametrize("name", CASES)
def test_both_take_the_same_arguments_with_the_same_defaults(name):
    stored = dict(inspect.signature(getattr(worlds, name)).parameters)
    free = dict(inspect.signature(getattr(free_worlds, name)).parameters)
    assert free.pop("compiled").default is True
    assert free == stored


def test_longer_lead_times_and_newest_first_are_the_same_too():
    options = {"max_order": 2, "demand_mean": 1.5, "max_demand": 3}
    stored = worlds.inventory_perishable(2, 3, **options)
    free = free_worlds.inventory_perishable(2, 3, **options, compiled=False)
    assert free.to_mdp().dense()[0] == pytest.approx(stored.dense()[0], abs=1e-14)
    assert free.to_mdp().dense()[1] == pytest.approx(stored.dense()[1], abs=1e-13)


def test_a_compiled_world_orders_as_de_moor_prints():
    # the optimum of the stored rows, which reproduces fig. 3 (tests/mdp/test_scalable.py)
    stored, free = worlds.inventory_perishable(), free_worlds.inventory_perishable()
    solution = solve(free, tol=1e-6)
    assert np.array_equal(solution.policy, solve(stored).policy)
    assert certify(stored, solution.values).gap < 1e-5


def test_a_shop_too_large_to_store_still_says_what_is_wrong_with_its_numbers():
    with pytest.raises(InputError, match="must be >= 1, .* got 0, 1, 10"):
        free_worlds.inventory_perishable(0)
    with pytest.raises(InputError, match="'lifo' or 'fifo', got 'random'"):
        free_worlds.inventory_perishable(issue="random")
    with pytest.raises(InputError, match="2 torques or more, got 9, 9, 1"):
        free_worlds.pendulum_grid(9, 9, 1)
    with pytest.raises(InputError, match="a positive speed per line, got 2, 10, 0.8, -1.0"):
        free_worlds.queue_network(service=-1.0)
