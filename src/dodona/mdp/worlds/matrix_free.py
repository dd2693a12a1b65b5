"""Worlds without stored rows: the same models as in ``worlds``, with the same numbers, as functions.

    from dodona.mdp import shard, solve
    from dodona.mdp.worlds import matrix_free
    solve(matrix_free.inventory_perishable(3, 3))          # 161 051 states, no row is ever stored
    shard(matrix_free.chain(10**9), rank, 64)              # one process's rows, and no others

Where rows would take all memory, a world's transition costs a few additions instead. Each function
is written so that integers and arrays may go through it: compiled it serves one state, uncompiled
blocks of them. Arguments, states, actions and values are those of the stored world. A world's rows
are right by construction, so they are walked over only when a planner asks what they amount to.

Not here: models whose law is a table (Garnets).
Source of each: the world of that name.  Golden numbers: tests/mdp/test_matrix_free_worlds.py.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numba import njit

from dodona.mdp.matrix_free import MatrixFree
from dodona.mdp.worlds.epidemics import need_rates
from dodona.mdp.worlds.grids import maze_cells
from dodona.mdp.worlds.scalable import line_speeds, need_issue, need_points, order_law
from dodona.mdp.worlds.substitution import Shop, issue_law


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

    return _model(walk, [1.0 - slip, slip], num_states, 2, gamma=gamma, compiled=compiled)


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
    return _model(walk, chances, height * width, 5, gamma=gamma, compiled=compiled)


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

    return _model(day, share, base * orders, base, gamma=gamma, compiled=compiled)


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

    return _model(
        swing, share, num_angles * num_speeds, num_torques, gamma=gamma, num_events=4, compiled=compiled
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

    return _model(event, chances, S, K, gamma=gamma, compiled=compiled)


def inventory_substitution(
    useful_life: int = 2,
    *,
    max_orders: tuple[int, int] = (10, 10),
    demand_means: tuple[float, float] = (5.0, 5.0),
    substitution: float = 0.5,
    order_costs: tuple[float, float] = (0.5, 0.5),
    prices: tuple[float, float] = (1.0, 1.0),
    gamma: float = 0.99,
    compiled: bool = True,
) -> MatrixFree:
    """worlds.inventory_substitution: two products that spoil, one standing in for the other.

    The events are the pieces issued of both, as in the source.
    Args: compiled: as chain.
    Raises: InputError: as the stored world.
    Oracle: worlds.inventory_substitution.
    """
    shop = Shop(useful_life, *max_orders)
    share, m = issue_law(shop, demand_means, substitution), useful_life
    base_a, base_b = max_orders[0] + 1, max_orders[1] + 1
    size_b, kinds_b = base_b**m, share.shape[3]
    place_a, place_b = (int(place) for place in shop.places)
    cost_a, cost_b = order_costs
    price_a, price_b = prices

    def aged(stock, base, issued):
        # ages are figures, the last one the oldest: take from it first, then drop it
        rest, left, unit, place = stock, issued + 0 * stock, 1, 0 * stock
        for age in range(m):
            there = rest % base
            rest = rest // base
            if age:
                place = place + np.maximum(there - left, 0) * unit
                unit = unit * base
            left = np.maximum(left - there, 0)
        return place

    older = _form(aged, compiled)

    def day(s, a, e):
        i, j = e // kinds_b, e % kinds_b
        order_a, order_b = a // base_b, a % base_b
        a_left, b_left = older(s // size_b, base_a, i), older(s % size_b, base_b, j)
        to = order_a * place_a + a_left * size_b + order_b * place_b + b_left
        return to, price_a * i + price_b * j - cost_a * order_a - cost_b * order_b

    def chance(s, a, e):
        a_stock, b_stock, a_rest, b_rest = 0 * s, 0 * s, s // size_b, s % size_b
        for _ in range(m):
            a_stock, a_rest = a_stock + a_rest % base_a, a_rest // base_a
            b_stock, b_rest = b_stock + b_rest % base_b, b_rest // base_b
        return share[a_stock, b_stock, e // kinds_b, e % kinds_b]

    return _model(
        day, chance, shop.num_states, shop.num_actions, gamma=gamma,
        num_events=share.shape[2] * kinds_b, compiled=compiled,
    )  # fmt: skip


def maze(
    height: int,
    width: int,
    *,
    slip: float = 0.1,
    seed: int = 0,
    gamma: float = 0.999,
    walls: float = 0.2,
    compiled: bool = True,
) -> MatrixFree:
    """worlds.maze: a grid with random walls. The walls are kept, one byte per cell; nothing else is.

    Args: compiled: as chain.
    Raises: InputError: as the stored world.
    Oracle: worlds.maze.
    """
    free = maze_cells(height, width, slip=slip, seed=seed, walls=walls).ravel()
    is_open, cost = free.astype(np.int8), -1.0 / (height + width)
    blocked = ~free
    blocked[-1] = True

    def walk(s, a, e):
        way = (
            a + e + e // 2
        ) % 4  # up, right, down, left: the way meant, a turn right, a turn left
        row = s // width + 1 * (way == 2) - 1 * (way == 0)
        column = s % width + 1 * (way == 1) - 1 * (way == 3)
        row = np.minimum(np.maximum(row, 0), height - 1)
        column = np.minimum(np.maximum(column, 0), width - 1)
        to = row * width + column
        return s + (to - s) * is_open[to], cost

    chances = [1.0 - slip, slip / 2, slip / 2]
    return _model(
        walk, chances, height * width, 4, gamma=gamma, terminal=blocked, compiled=compiled
    )


def epidemic_sir(
    population: int = 50,
    *,
    contact: Sequence[float] = (2.0, 1.0, 0.5),
    measure_cost: Sequence[float] = (0.0, 0.02, 0.1),
    recovery: float = 1.0,
    infected_cost: float = 1.0,
    gamma: float = 0.99,
    compiled: bool = True,
) -> MatrixFree:
    """worlds.epidemic_sir: someone is infected, someone recovers, or the discount ends it all.

    The discount of the stored world differs by transition. Here it is an event, an exponential clock
    of rate -log gamma that stops the process, which gives the same values; the model's own gamma is 1.
    Args: compiled: as chain.
    Raises: InputError: as the stored world.
    Oracle: worlds.epidemic_sir.
    """
    N = population
    need_rates(N, contact, measure_cost, recovery, gamma)
    S, fading = (N + 1) * (N + 2) // 2, -math.log(gamma)
    spread = np.asarray(contact, dtype=float)
    price = N * np.asarray(measure_cost, dtype=float)
    s_all = np.arange(N + 1)

    def split(k):
        # state (s, i) has number s (2 N + 3 - s) / 2 + i; the root may be off by one
        s = np.int64((2 * N + 3 - np.sqrt((2.0 * N + 3) ** 2 - 8.0 * k)) / 2)
        s = s - 1 * (s * (2 * N + 3 - s) // 2 > k)
        s = s + 1 * ((s + 1) * (2 * N + 2 - s) // 2 <= k)
        return s, k - s * (2 * N + 3 - s) // 2

    parts = _form(split, compiled)

    def event(k, a, e):
        s, i = parts(k)
        rate = spread[a] * s * i / N + recovery * i + fading
        paid = (price[a] + infected_cost * i) / rate
        if e == 0:
            to = k - (N + 2 - s) + 1  # (s - 1, i + 1): row s - 1 has N + 2 - s states
        else:
            to = k - 1
        return np.maximum(to, 0), -paid, (e == 2) | (k < 0)

    def chance(k, a, e):
        s, i = parts(k)
        infection, healing = spread[a] * s * i / N, recovery * i
        rate = infection + healing + fading
        if e == 0:
            return infection / rate
        return healing / rate if e == 1 else fading / rate

    return _model(
        event, chance, S, len(spread), gamma=1.0, num_events=3 if gamma < 1 else 2,
        terminal=s_all * (2 * N + 3 - s_all) // 2, compiled=compiled,
    )  # fmt: skip


def _model(
    transition: Callable,
    events: Any,
    num_states: int,
    num_actions: int,
    *,
    compiled: bool,
    **fields: Any,
) -> MatrixFree:
    law = _form(events, compiled) if callable(events) else events
    settings = (_form(transition, compiled), law, num_states, num_actions)
    return MatrixFree(*settings, validate=False, **fields)


def _form(function: Callable, compiled: bool) -> Callable:
    # as with @njit: what is compiled must be a plain function, so tests leave this module unchecked
    return njit(function) if compiled else function
