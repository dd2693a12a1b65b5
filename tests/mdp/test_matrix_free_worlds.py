"""Worlds as functions against the same worlds as rows."""

import inspect

import numpy as np
import pytest

from dodona.errors import InputError
from dodona.mdp import certify, solve, worlds
from dodona.mdp.worlds import matrix_free as free_worlds

CASES = {
    "chain": ((7,), {"slip": 0.2}),
    "torus": ((4, 5), {"slip": 0.3}),
    "inventory_perishable": ((3, 1), {"max_order": 3, "demand_mean": 2.0, "issue": "fifo"}),
    "pendulum_grid": ((9, 8, 5), {}),
    "queue_network": ((3, 2), {"service": (1.0, 2.0, 1.0), "load": 1.1}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_world_as_a_function_is_the_world_as_rows(name):
    args, options = CASES[name]
    stored = getattr(worlds, name)(*args, **options)
    free = getattr(free_worlds, name)(*args, **options, compiled=False)
    P, R, gamma = free.to_mdp().dense()
    assert np.array_equal(free.to_mdp().action_mask, stored.action_mask)
    assert P == pytest.approx(stored.dense()[0], abs=1e-14)
    assert R == pytest.approx(stored.dense()[1], abs=1e-13)
    assert gamma == stored.gamma


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
