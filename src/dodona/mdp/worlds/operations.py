"""Models of operations research and gambling: forests, stakes, rivers, queues, stocks.

Source of each: its docstring.  Golden numbers: tests/mdp/test_worlds.py.
"""

from collections.abc import Sequence
from math import comb

import numpy as np

from dodona.errors import InputError
from dodona.mdp.model import MDP, Labels


def forest(
    num_states: int = 3, *, r1: float = 4.0, r2: float = 2.0, p: float = 0.1, gamma: float = 0.9
) -> MDP:
    """Wait for an old wood or cut it; fire comes with probability p.

    v*(.9) = (26.2440, 29.4840, 33.4840).  Source: mdptoolbox.example.forest; values re-derived.
    """
    S = num_states
    P, R = np.zeros((S, 2, S)), np.zeros((S, 2))
    P[:, 0, 0] = p
    P[np.arange(S), 0, np.minimum(np.arange(S) + 1, S - 1)] += 1 - p
    P[:, 1, 0] = 1.0
    R[S - 1, 0], R[1:, 1], R[S - 1, 1] = r1, 1.0, r2
    return MDP.from_dense(P, R, gamma=gamma, layout="sas", labels=Labels(actions=("wait", "cut")))


def gambler(p_heads: float = 0.4, *, goal: int = 100, gamma: float = 1.0) -> MDP:
    """Stake s of the capital on a coin until 0 or the goal; v* is the chance to reach the goal.

    p = .4: v(25) = .16, v(50) = .4, v(75) = .64.  Source: Sutton & Barto 2018, ex. 4.3.
    """
    state, action, indices, probs, rewards = [], [], [], [], []
    for s in range(1, goal):
        for stake in range(1, min(s, goal - s) + 1):
            state.append(s)
            action.append(stake - 1)
            indices += [s + stake, s - stake]
            probs += [p_heads, 1.0 - p_heads]
            rewards.append(p_heads if s + stake == goal else 0.0)
    return MDP.from_pairs(
        pair_state=np.array(state),
        pair_action=np.array(action),
        indptr=2 * np.arange(len(state) + 1),
        indices=np.array(indices),
        probs=np.array(probs),
        rewards=np.array(rewards),
        num_states=goal + 1,
        gamma=gamma,
        terminal=np.isin(np.arange(goal + 1), [0, goal]),
    )


def river_swim(num_states: int = 6, *, gamma: float = 1.0) -> MDP:
    """Swim right against the stream for 1, or drift left for .005; optimal gain .4286224338 (6).

    Source: Strehl & Littman 2008.
    """
    n = num_states
    P, R = np.zeros((n, 2, n)), np.zeros((n, 2))
    s = np.arange(n)
    P[s, 0, np.maximum(s - 1, 0)] = 1.0
    inner = s[1:-1]
    P[inner, 1, inner - 1], P[inner, 1, inner], P[inner, 1, inner + 1] = 0.05, 0.6, 0.35
    P[0, 1, 0], P[0, 1, 1] = 0.4, 0.6
    P[-1, 1, -1], P[-1, 1, -2] = 0.6, 0.4
    R[0, 0], R[-1, 1] = 0.005, 1.0
    return MDP.from_dense(P, R, gamma=gamma, layout="sas", labels=Labels(actions=("left", "right")))


def access_control_queue(
    num_servers: int = 10,
    *,
    free_probability: float = 0.06,
    payments: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
    gamma: float = 1.0,
) -> MDP:
    """Customers of random priority ask for one of a few servers: accept for their payment, or reject.

    State = free servers x payment of the customer at the head, customers equally likely. The
    accepted one takes a server, then every busy server falls free with ``free_probability``.
    With no server free the only action is to reject. Optimal gain 2.7476419506 per step.
    Source: Sutton & Barto 2018, ex. 10.2.
    """
    n, kinds = num_servers, len(payments)
    S = (n + 1) * kinds
    P, R = np.zeros((S, 2, S)), np.zeros((S, 2))
    for free in range(n + 1):
        for kind, payment in enumerate(payments):
            s = free * kinds + kind
            for action, left in ((0, free), (1, free - 1)):
                if left < 0:
                    continue
                busy = n - left
                for done in range(busy + 1):
                    p = (
                        comb(busy, done)
                        * free_probability**done
                        * (1 - free_probability) ** (busy - done)
                    )
                    P[s, action, (left + done) * kinds : (left + done + 1) * kinds] += p / kinds
                R[s, action] = payment if action else 0.0
    return MDP.from_dense(
        P,
        R,
        gamma=gamma,
        layout="sas",
        action_mask=P.sum(axis=2) > 0,
        labels=Labels(
            states=tuple(f"{free} free, pays {pay:g}" for free in range(n + 1) for pay in payments),
            actions=("reject", "accept"),
        ),
    )


def queue(
    capacity: int = 50,
    *,
    arrival: float = 0.4,
    service: Sequence[float] = (0.3, 0.6),
    service_cost: Sequence[float] = (0.0, 2.0),
    holding_cost: float = 0.1,
    gamma: float = 0.99,
) -> MDP:
    """A waiting line whose server may work slowly for nothing or fast for a price.

    One event per step: an arrival with probability ``arrival`` (lost when full), a departure with
    the chosen ``service`` probability, else nothing. Cost per step: holding_cost per customer and
    the price of the speed. The best speed never falls with the length
    of the line, except near its end: a full line turns customers away for nothing.
    Source: Puterman 1994, sec. 4.8.2 (control of a service rate), uniformised.
    """
    if arrival + max(service) > 1:
        raise InputError(
            f"arrival + service must be at most 1, got {arrival} + {max(service)}: one event per step."
        )
    S, A = capacity + 1, len(service)
    s = np.arange(S)
    P, R = np.zeros((S, A, S)), np.zeros((S, A))
    for a, (rate, price) in enumerate(zip(service, service_cost, strict=True)):
        np.add.at(P, (s, a, np.minimum(s + 1, capacity)), arrival)
        np.add.at(P, (s, a, np.maximum(s - 1, 0)), rate)
        P[s, a, s] += 1.0 - arrival - rate
        R[:, a] = -holding_cost * s - price
    labels = Labels(actions=tuple(f"rate {rate:g}" for rate in service))
    return MDP.from_dense(P, R, gamma=gamma, layout="sas", labels=labels)


def inventory(
    capacity: int = 3,
    *,
    demand: Sequence[float] = (0.25, 0.5, 0.25),
    price: float = 8.0,
    order_cost: float = 4.0,
    unit_cost: float = 2.0,
    holding_cost: float = 1.0,
    gamma: float = 0.9,
) -> MDP:
    """Order up to ``capacity`` pieces, then meet a random demand; what is not in stock is not sold.

    State = pieces in stock, action = pieces ordered (those that fit), reward = expected sales minus
    order_cost (if any is ordered), unit_cost and holding_cost per piece in the store.
    With the defaults r(0, .) = 0 -1 -2 -5, r(1, .) = 5 0 -3, r(2, .) = 6 -1, r(3, 0) = 5.

    Args: demand: probability of a demand of 0, 1, 2, ... pieces.
    Source: Puterman 1994, sec. 3.2.2 and table 3.2.1.
    """
    demand = np.asarray(demand, dtype=float)
    state, action, indptr, indices, probs, rewards = [], [], [0], [], [], []
    for s in range(capacity + 1):
        for order in range(capacity - s + 1):
            stock = s + order
            sold = np.minimum(np.arange(len(demand)), stock)
            left = np.bincount(stock - sold, weights=demand, minlength=stock + 1)
            kept = np.flatnonzero(left)
            state.append(s)
            action.append(order)
            indices += kept.tolist()
            probs += left[kept].tolist()
            indptr.append(len(indices))
            paid = (order_cost if order else 0.0) + unit_cost * order + holding_cost * stock
            rewards.append(price * float(demand @ sold) - paid)
    return MDP.from_pairs(
        pair_state=np.array(state),
        pair_action=np.array(action),
        indptr=np.array(indptr),
        indices=np.array(indices),
        probs=np.array(probs),
        rewards=np.array(rewards),
        num_states=capacity + 1,
        gamma=gamma,
        labels=Labels(actions=tuple(f"order {k}" for k in range(capacity + 1))),
    )
