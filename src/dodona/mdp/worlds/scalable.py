"""Models that grow to any size by a number: perishable stock, a pendulum, a network of queues.

From dozens of states to as many as memory holds; every one is built by whole arrays, not by loops
over states. Without stored rows they grow further: matrix_free.py. Epidemics are in epidemics.py,
mazes, tori and corridors in grids.py.

Source of each: its docstring.  Golden numbers: tests/mdp/test_scalable.py.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import gammainc

from dodona.errors import InputError
from dodona.mdp.model import MDP, Labels

LIMIT = 1 << 31  # transitions stored at most: 24 GiB of probabilities and successors


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
) -> MDP:
    """One product that spoils: order every day, sell what is there, throw away what is too old.

    A day: order; meet the demand from the newest stock ("lifo") or the oldest ("fifo"), what is
    short is lost; the oldest that is left is waste; the rest ages a day; the order of
    ``lead_time - 1`` days ago arrives. State: orders on their way, newest first, then stock by age,
    freshest first, each 0..max_order, the first figure counting most. The defaults are experiments
    1 (lifo) and 2 (fifo) of the source, whose printed optimal policies they reproduce.

    Args:
        useful_life, lead_time: days, >= 1; (max_order + 1)^(useful_life + lead_time - 1) states.
        demand_mean, demand_cov: a gamma law with this mean and coefficient of variation, rounded to
            whole pieces; what lies above max_demand counts as max_demand.
        order_cost, shortage_cost, waste_cost, holding_cost: per piece; held is what ages.
    Raises: InputError: numbers below 1, an unknown issue, too many transitions to store.
    Source: De Moor, Gijsbrechts, Boute 2022, doi:10.1016/j.ejor.2021.10.045, fig. 3; Farrington et al. 2023,
        arXiv:2303.10672, scenario A.
    Oracle: the printed policies; a plain loop over demands.  Cost: O(S A useful_life max_order).
    """
    m, base = useful_life, max_order + 1
    need_issue(issue)
    share, excess = order_law(m, lead_time, max_order, demand_mean, demand_cov, max_demand)
    S, most = base ** (m + lead_time - 1), len(share) - 1
    need_room(S * base * (most + 1), S)
    digits = np.arange(S)[:, None] // base ** np.arange(m + lead_time - 2, -1, -1) % base
    transit, stock = digits[:, : lead_time - 1], digits[:, lead_time - 1 :]
    total = stock.sum(axis=1)
    younger = np.cumsum(stock, axis=1) - stock
    before = younger if issue == "lifo" else total[:, None] - younger - stock  # issued earlier
    asked = np.arange(most + 1)
    left = np.maximum(
        stock[:, None, :] - np.maximum(asked[None, :, None] - before[:, None, :], 0), 0
    )  # [S, demand, age]
    waste, held = left[..., -1] @ share, left[..., :-1].sum(axis=2) @ share
    lost = np.maximum(asked - total[:, None], 0) @ share + share[-1] * excess
    cost = shortage_cost * lost + waste_cost * waste + holding_cost * held
    # the state shifts by one place: the order enters in front, the oldest falls out at the end
    aged = np.concatenate(
        [np.repeat(transit[:, None, :], most + 1, axis=1), left[..., :-1]], axis=2
    )
    tail = aged @ base ** np.arange(aged.shape[2] - 1, -1, -1)  # [S, demand]
    key = np.arange(S)[:, None] * (S // base) + tail
    key, which = np.unique(key, return_inverse=True)
    probs = np.bincount(which.ravel(), weights=np.tile(share, S))
    key, probs = key[probs > 0], probs[probs > 0]
    counts = np.bincount(key // (S // base), minlength=S)
    return repeat_by_action(
        counts,
        key % (S // base),
        probs,
        shift=S // base * np.arange(base),
        rewards=-cost[:, None] - order_cost * np.arange(base),
        gamma=gamma,
        labels=Labels(actions=tuple(f"order {k}" for k in range(base))),
    )


def pendulum_grid(
    num_angles: int = 51,
    num_speeds: int = 51,
    num_torques: int = 9,
    *,
    gamma: float = 0.99,
    dt: float = 0.05,
    max_speed: float = 8.0,
    max_torque: float = 2.0,
) -> MDP:
    """The pendulum of Gymnasium on a grid: swing it up and keep it there.

    One step of the dynamics lands between four grid points, whose bilinear weights become
    probabilities, so that the mean successor is the true one. Reward
    -(angle^2 + .1 speed^2 + .001 torque^2). State = angle (-pi upwards, 0 is upright) * num_speeds +
    speed (-max_speed upwards); action = torque, -max_torque upwards.

    Args: num_angles, num_speeds: >= 3; num_torques: >= 2.  dt: s, max_speed: rad/s, max_torque: N m.
    Raises: InputError: fewer points, or too many transitions to store.
    Source: Gymnasium Pendulum-v1 (g 10, m 1, l 1); Davies 1997, NIPS 9 (interpolated value iteration).
    Oracle: gymnasium's own step.  Cost: O(4 S A).
    """
    need_points(num_angles, num_speeds, num_torques)
    S, A = num_angles * num_speeds, num_torques
    need_room(4 * S * A, S)
    angles = -np.pi + 2 * np.pi / num_angles * np.arange(num_angles)
    speeds = np.linspace(-max_speed, max_speed, num_speeds)
    torques = np.linspace(-max_torque, max_torque, A)
    angle, speed = np.repeat(angles, num_speeds)[:, None], np.tile(speeds, num_angles)[:, None]
    faster = np.clip(speed + (15.0 * np.sin(angle) + 3.0 * torques) * dt, -max_speed, max_speed)
    column, right = _cell((angle + faster * dt + np.pi) * num_angles / (2 * np.pi), None)
    row, up = _cell((faster + max_speed) * (num_speeds - 1) / (2 * max_speed), num_speeds)
    corners = [
        ((column + i) % num_angles * num_speeds + row + j, (right if i else 1 - right) * (up if j else 1 - up))
        for i in (0, 1) for j in (0, 1)
    ]  # fmt: skip
    successor = np.stack([to for to, _ in corners], axis=2).reshape(S * A, 4)
    weight = np.stack([w for _, w in corners], axis=2).reshape(S * A, 4)
    kept = weight > 0
    return MDP(
        sa_indptr=np.arange(0, S * A + 1, A),
        actions=np.tile(np.arange(A), S),
        indptr=np.concatenate([[0], np.cumsum(kept.sum(axis=1))]),
        indices=successor[kept],
        probs=weight[kept],
        rewards=-(angle**2 + 0.1 * speed**2 + 0.001 * torques**2).ravel(),
        gamma=gamma,
        terminal=np.zeros(S, dtype=bool),
        labels=Labels(actions=tuple(f"{u:g} N m" for u in torques)),
    )


def queue_network(
    num_queues: int = 2,
    capacity: int = 10,
    *,
    load: float = 0.8,
    service: float | Sequence[float] = 1.0,
    holding_cost: float = 1.0,
    loss_cost: float = 100.0,
    gamma: float = 0.99,
) -> MDP:
    """Parallel waiting lines with one entrance: which one shall the next customer join?

    One event per step: an arrival, or the end of a service in one of the lines, which changes
    nothing where that line is empty. A full line can not be joined; with all of them full the
    customer is lost. Cost per step: holding_cost per customer present, loss_cost per customer lost.
    Among equal servers the shortest line is always best.
    State: lengths, the first line counting most; (capacity + 1)^num_queues states.

    Args:
        load: arrivals per service that all servers together can give; 1 and more fill the lines.
        service: relative speed of each server.
    Raises: InputError: numbers below 1, negative load, speeds that are not positive, or too many
        transitions to store.
    Source: Winston 1977 (the shortest line is best); Hordijk & Koole 1990 (finite lines), uniformised.
    Oracle: that theorem; exchange of the lines.  Cost: O(S A num_queues).
    """
    K, base = num_queues, capacity + 1
    speed = line_speeds(K, capacity, load, service)
    S = base**K
    need_room((K + 1) * S * K, S)
    chance = np.array([load * speed.sum(), *speed]) / ((1.0 + load) * speed.sum())
    place = base ** np.arange(K - 1, -1, -1)
    length = np.arange(S)[:, None] // place % base  # [S, K]
    open_lines = length < capacity
    full = ~open_lines.any(axis=1)
    open_lines[full, 0] = True  # nothing to choose: one action, and it loses the customer
    state, action = np.nonzero(open_lines)
    joined = np.where(full[state], state, state + place[action])
    served = state[:, None] - np.where(length[state] > 0, place, 0)
    to = np.concatenate([joined[:, None], served], axis=1)
    kept = np.broadcast_to(chance > 0, to.shape)
    return MDP(
        sa_indptr=np.concatenate([[0], np.cumsum(open_lines.sum(axis=1))]),
        actions=action,
        indptr=np.concatenate([[0], np.cumsum(kept.sum(axis=1))]),
        indices=to[kept],
        probs=np.broadcast_to(chance, to.shape)[kept],
        rewards=-(holding_cost * length.sum(axis=1) + loss_cost * chance[0] * full)[state],
        gamma=gamma,
        terminal=np.zeros(S, dtype=bool),
        start=np.eye(1, S)[0],
        num_actions=K,
        labels=Labels(actions=tuple(f"line {k}" for k in range(K))),
    )


def need(good: bool, message: str) -> None:
    """InputError with this message, unless ``good``."""
    if not good:
        raise InputError(message)


def need_issue(issue: str) -> None:
    """InputError unless stock leaves newest or oldest first."""
    need(issue in ("lifo", "fifo"), f"issue must be 'lifo' or 'fifo', got {issue!r}.")


def need_points(num_angles: int, num_speeds: int, num_torques: int) -> None:
    """InputError where a grid of the pendulum has too few points to interpolate between."""
    need(
        min(num_angles, num_speeds) >= 3 and num_torques >= 2,
        f"need 3 angles, 3 speeds and 2 torques or more, got {num_angles}, {num_speeds}, {num_torques}.",
    )


def need_room(transitions: int, num_states: int) -> None:
    """InputError where so many transitions are too many to be stored."""
    need(
        transitions < LIMIT,
        f"{num_states} states with {transitions} transitions need {12 * transitions / 2**30:.0f} GiB as stored "
        "rows. Choose smaller numbers, or a MatrixFree model (worlds.matrix_free), which makes rows on the fly.",
    )


def order_law(
    useful_life: int,
    lead_time: int,
    max_order: int,
    demand_mean: float,
    demand_cov: float,
    max_demand: int,
) -> tuple[Float[np.ndarray, "E"], float]:
    """(probabilities of a demand of 0, 1, ... pieces, mean of what exceeds the last of them).

    The last demand is all that the shelf can hold: more can not be met, so it counts as that, and
    its excess as shortage.
    """
    need(
        min(useful_life, lead_time, max_order, max_demand) >= 1
        and min(demand_mean, demand_cov) > 0,
        "useful_life, lead_time, max_order and max_demand must be >= 1, demand_mean and demand_cov > 0, "
        f"got {useful_life}, {lead_time}, {max_order}, {max_demand}, {demand_mean}, {demand_cov}.",
    )
    edges = np.append(np.arange(max_demand) + 0.5, np.inf)
    below = gammainc(1.0 / demand_cov**2, edges / (demand_mean * demand_cov**2))
    most = useful_life * max_order
    share = np.zeros(max(most, max_demand) + 1)
    share[: max_demand + 1] = np.diff(below, prepend=0.0)
    tail = share[most:]
    excess = float(np.arange(len(tail)) @ tail / tail.sum()) if tail.sum() > 0 else 0.0
    return np.append(share[:most], tail.sum()), excess


def line_speeds(
    num_queues: int, capacity: int, load: float, service: float | Sequence[float]
) -> Float[np.ndarray, "K"]:
    """Speed of each server, or an InputError."""
    speed = np.asarray(service, dtype=float)
    speed = np.full(num_queues, speed) if speed.ndim == 0 else speed
    need(
        min(num_queues, capacity) >= 1 and load >= 0 and speed.shape == (num_queues,)
        and bool(np.all(speed > 0)),
        "need num_queues >= 1, capacity >= 1, load >= 0 and a positive speed per line, got "
        f"{num_queues}, {capacity}, {load}, {service}.",
    )  # fmt: skip
    return speed


def repeat_by_action(
    counts: np.ndarray,
    indices: np.ndarray,
    probs: np.ndarray,
    *,
    shift: np.ndarray,
    rewards: np.ndarray,
    gamma: float,
    labels: Labels,
) -> MDP:
    """One row per state, repeated for every action with its successors shifted by shift[a]."""
    S, A = rewards.shape
    first = np.cumsum(counts) - counts
    pair = np.arange(S * A)
    size = counts[pair // A]
    indptr = np.concatenate([[0], np.cumsum(size)])
    take = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - first[pair // A], size)
    return MDP(
        sa_indptr=np.arange(0, S * A + 1, A),
        actions=pair % A,
        indptr=indptr,
        indices=indices[take] + np.repeat(shift[pair % A], size),
        probs=probs[take],
        rewards=rewards.ravel(),
        gamma=gamma,
        terminal=np.zeros(S, dtype=bool),
        labels=labels,
    )


# ---------------------------------------------------------------------- private
def _cell(position: np.ndarray, num_points: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(grid point below, share of the point above); None = the grid is a circle."""
    below = np.floor(position).astype(int)
    if num_points is not None:
        below = np.clip(below, 0, num_points - 2)
    return below, np.clip(position - below, 0.0, 1.0)
