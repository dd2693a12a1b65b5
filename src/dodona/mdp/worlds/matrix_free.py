"""Worlds without stored rows: the same models as in ``worlds``, with the same numbers, as functions.

    from dodona.mdp import solve
    from dodona.mdp.worlds import matrix_free
    solve(matrix_free.inventory_perishable(3, 3))          # 161 051 states, no row is ever stored

Where rows would take all memory, a world's transition costs a few additions instead. Each function
is written so that integers and arrays may go through it: compiled it serves one state, uncompiled
blocks of them. Arguments, states, actions and values are those of the stored world.

Not here: models whose law is a table (mazes, Garnets) or whose discount differs by transition.
Source of each: the world of that name.  Golden numbers: tests/mdp/test_matrix_free_worlds.py.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numba import njit

from dodona.mdp.matrix_free import MatrixFree
from dodona.mdp.worlds.scalable import line_speeds, need_issue, need_points, order_law


def chain(
    num_states: int, *, slip: float = 0.1, gamma: float = 0.999, compiled: bool = True
) -> MatrixFree:
    """worlds.chain: a corridor with the only reward at its end.

    Args: compiled: fuse the transition into the sweeps (a few seconds once); else NumPy in blocks.
    Oracle: worlds.chain.
    """
    last = num_states - 1

    def walk(s, a, e):
        to = np.minimum(np.maximum(s + 2 * a - 1, 0), last)
        return to + (s - to) * e, 1.0 * (s == last)

    return MatrixFree(_form(walk, compiled), [1.0 - slip, slip], num_states, 2, gamma=gamma)


def torus(
    height: int, width: int, *, slip: float = 0.1, gamma: float = 0.99, compiled: bool = True
) -> MatrixFree:
    """worlds.torus: a grid without edges; a step from the cell (0, 0) pays 1.

    Args: compiled: as chain.
    Oracle: worlds.torus.
    """

    def walk(s, a, e):
        way = (a + e) % 5  # up, right, down, left, stay
        row = (s // width + 1 * (way == 2) - 1 * (way == 0)) % height
        column = (s % width + 1 * (way == 1) - 1 * (way == 3)) % width
        return row * width + column, 1.0 * (s == 0)

    chances = [1.0 - slip, *[slip / 4] * 4]
    return MatrixFree(_form(walk, compiled), chances, height * width, 5, gamma=gamma)


def inventory_perishable(
    useful_life: int = 2,
    lead_time: int = 1,
    *,
    max_order: int = 10,
    demand_mean: float = 4.0,
    demand_cov: float = 0.5,
    max_demand: int = 100,
    order_cost: float = 3.0,
    shortage_cost: float = 5.0,
    waste_cost: float = 7.0,
    holding_cost: float = 1.0,
    issue: Literal["lifo", "fifo"] = "lifo",
    gamma: float = 0.99,
    compiled: bool = True,
) -> MatrixFree:
    """worlds.inventory_perishable: one product that spoils.

    The events are demands; all that no stock could meet are one, with their mean shortage.
    Args: compiled: as chain.
    Raises: InputError: as the stored world.
    Oracle: worlds.inventory_perishable.
    """
    m, base = useful_life, max_order + 1
    need_issue(issue)
    share, excess = order_law(m, lead_time, max_order, demand_mean, demand_cov, max_demand)
    most, places = len(share) - 1, tuple(base**k for k in range(m - 1, -1, -1))
    shelf, orders = base**m, base ** (m + lead_time - 2)
    step, first = (1, 0) if issue == "lifo" else (-1, m - 1)

    def day(s, a, e):
        transit, stock = s // shelf, s % shelf
        none = 0 * s  # a zero of the shape of s
        short, aged, held, waste = e + none, none, none, none
        for k in range(m):
            age = first + step * k
            there = stock // places[age] % base
            left = np.maximum(there - short, 0)
            short = np.maximum(short - there, 0)
            if age == m - 1:
                waste = left
            else:
                held = held + left
                aged = aged + left * places[age + 1]
        short = short + (excess if e == most else 0.0)
        cost = order_cost * a + shortage_cost * short + waste_cost * waste + holding_cost * held
        return a * orders + transit * places[0] + aged, -cost

    return MatrixFree(_form(day, compiled), share, base * orders, base, gamma=gamma)


def pendulum_grid(
    num_angles: int = 51,
    num_speeds: int = 51,
    num_torques: int = 9,
    *,
    gamma: float = 0.99,
    dt: float = 0.05,
    max_speed: float = 8.0,
    max_torque: float = 2.0,
    compiled: bool = True,
) -> MatrixFree:
    """worlds.pendulum_grid: swing it up and keep it there; the events are the four grid points around.

    Args: compiled: as chain.
    Raises: InputError: as the stored world.
    Oracle: worlds.pendulum_grid.
    """
    need_points(num_angles, num_speeds, num_torques)
    turn, fine = 2 * np.pi / num_angles, 2 * max_speed / (num_speeds - 1)
    force = 2 * max_torque / (num_torques - 1)

    def landing(s, a):
        angle, speed = s // num_speeds * turn - np.pi, s % num_speeds * fine - max_speed
        torque = a * force - max_torque
        faster = speed + (15.0 * np.sin(angle) + 3.0 * torque) * dt
        faster = np.minimum(np.maximum(faster, -max_speed), max_speed)
        cost = angle**2 + 0.1 * speed**2 + 0.001 * torque**2
        return (angle + faster * dt + np.pi) / turn, (faster + max_speed) / fine, cost

    land = _form(landing, compiled)

    def swing(s, a, e):
        x, y, cost = land(s, a)
        column, row = np.int64(np.floor(x)), np.int64(np.floor(y))
        row = np.minimum(np.maximum(row, 0), num_speeds - 2)
        return (column + e // 2) % num_angles * num_speeds + row + e % 2, -cost

    def share(s, a, e):
        x, y, _ = land(s, a)
        right = x - np.floor(x)
        up = y - np.minimum(np.maximum(np.floor(y), 0), num_speeds - 2)
        up = np.minimum(np.maximum(up, 0.0), 1.0)
        return (right if e // 2 else 1.0 - right) * (up if e % 2 else 1.0 - up)

    return MatrixFree(
        _form(swing, compiled), _form(share, compiled), num_angles * num_speeds, num_torques,
        gamma=gamma, num_events=4,
    )  # fmt: skip


def queue_network(
    num_queues: int = 2,
    capacity: int = 10,
    *,
    load: float = 0.8,
    service: float | Sequence[float] = 1.0,
    holding_cost: float = 1.0,
    loss_cost: float = 100.0,
    gamma: float = 0.99,
    compiled: bool = True,
) -> MatrixFree:
    """worlds.queue_network: parallel waiting lines with one entrance.

    Args: compiled: as chain.
    Raises: InputError: as the stored world.
    Oracle: worlds.queue_network.
    """
    K, base = num_queues, capacity + 1
    speed = line_speeds(K, capacity, load, service)
    chances = np.array([load * speed.sum(), *speed]) / ((1.0 + load) * speed.sum())
    S, lost = base**K, loss_cost * chances[0]
    places = np.array([base**k for k in range(K - 1, -1, -1)])

    def event(s, a, e):
        present, rest = 0 * s, s + 0
        for _ in range(K):
            present, rest = present + rest % base, rest // base
        full = s == S - 1
        is_open = s // places[a] % base < capacity
        if e == 0:
            to = s + places[a] * is_open
        else:
            to = s - places[e - 1] * (s // places[e - 1] % base > 0)
        ended = s < 0
        return to, -(holding_cost * present + lost * full), ended, is_open | (full & (a == 0))

    return MatrixFree(_form(event, compiled), chances, S, K, gamma=gamma)


def _form(function: Callable, compiled: bool) -> Callable:
    # as with @njit: what is compiled must be a plain function, so tests leave this module unchecked
    return njit(function) if compiled else function
