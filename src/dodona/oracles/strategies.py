"""Hypothesis strategies of small MDPs, policies and features that seek out the extremes.

They shrink towards one state, one action, no reward, no discount. The one file here that needs
another package, so ``dodona.oracles`` never imports it.

Source: MacIver et al. 2019 (Hypothesis). Not here: random models by seed (instance.random_mdp).
"""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from dodona.oracles.instance import Fixture

GAMMAS = (0.0, 0.5, 0.9, 0.99, 0.999999)


@st.composite
def st_mdp(
    draw: Callable,
    *,
    max_states: int = 5,
    max_actions: int = 3,
    gammas: tuple = GAMMAS,  # of floats; an annotation of the items would be checked at random
    terminal: bool | None = None,
    masked: bool | None = None,
    largest_reward: float = 1e12,
) -> Fixture:
    """A small MDP, as arrays.

    Extremes on the way: zero and constant rewards, one action, absorbing states, duplicate actions
    (exact ties), near-ties of 1e-12, rewards from 1e-300 to ``largest_reward``, negative ones only,
    states that nothing leads to, rows that lose mass to a terminal state.

    Args:
        gammas: discounts to choose from, the simplest first.
        terminal, masked: True or False fixes whether states end and actions are infeasible.
    Returns: a strategy of Fixture; at least one state is live, every live state has an action.
    """
    S = draw(st.integers(1, max_states))
    A = draw(st.integers(1, max_actions))
    weights = draw(_rows(S * A, S))
    if S > 1 and draw(st.booleans()):  # nothing leads to the second state, but for a loop below
        weights[:, 1] = 0.0
        weights[weights.sum(axis=1) == 0, 0] = 1.0
    P = (weights / weights.sum(axis=1, keepdims=True)).reshape(S, A, S)
    R = draw(_rewards(S, A, largest_reward))
    for s in range(S) if draw(st.booleans()) else ():
        shape = draw(st.sampled_from(["free", "absorbing", "duplicate", "near tie"]))
        if shape == "absorbing":
            P[s] = np.eye(S)[s]
        elif shape in ("duplicate", "near tie"):
            P[s], R[s] = P[s, 0], R[s, 0]
            R[s, -1] += 1e-12 * (shape == "near tie") * (A > 1)
    ends = np.zeros(S, dtype=bool)
    if S > 1 and (draw(st.booleans()) if terminal is None else terminal):
        ends[-1] = True
        R[-1] = 0.0
    mask = None
    if A > 1 and (draw(st.booleans()) if masked is None else masked):
        mask = np.array(draw(st.lists(st.booleans(), min_size=S * A, max_size=S * A))).reshape(S, A)
        mask[:, 0] |= ~mask.any(axis=1)
    return Fixture(
        name="drawn", P=P, R=R, gamma=draw(st.sampled_from(gammas)), terminal=ends, action_mask=mask
    )


@st.composite
def st_policy(draw: Callable, fixture: Fixture, *, stochastic: bool | None = None) -> np.ndarray:
    """A policy of a fixture: [S] feasible actions (0 in terminal states), or [S, A] probabilities.

    Args: stochastic: True or False fixes the kind; None draws it.
    """
    mask = fixture.mask
    S, A = mask.shape
    if not (draw(st.booleans()) if stochastic is None else stochastic):
        options = [np.flatnonzero(mask[s]).tolist() or [0] for s in range(S)]
        return np.array([draw(st.sampled_from(o)) for o in options])
    weights = draw(_rows(S, A)) * mask
    lost = mask.any(axis=1) & (weights.sum(axis=1) == 0)  # all its weight lay on infeasible actions
    weights[lost] = mask[lost]
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1.0)


@st.composite
def st_features(draw: Callable, num_states: int, *, max_features: int = 4) -> np.ndarray:
    """Features [S, m] of small integers; also one-hot, constant, repeated columns (rank deficient), zero rows."""
    kind = draw(st.sampled_from(["constant", "one-hot", "free", "repeated"]))
    if kind == "constant":
        return np.ones((num_states, 1))
    if kind == "one-hot":
        return np.eye(num_states)
    m = draw(st.integers(1, max_features))
    size = num_states * m
    flat = draw(st.lists(st.integers(-2, 2), min_size=size, max_size=size))
    features = np.array(flat, dtype=float).reshape(num_states, m)
    return np.repeat(features, 2, axis=1) if kind == "repeated" else features


@st.composite
def _rows(draw: Callable, rows: int, columns: int) -> np.ndarray:
    """[rows, columns] weights 0..8, none of the rows all zero; shrinks to one successor each."""
    flat = draw(st.lists(st.integers(0, 8), min_size=rows * columns, max_size=rows * columns))
    weights = np.array(flat, dtype=float).reshape(rows, columns)
    weights[weights.sum(axis=1) == 0, 0] = 1.0
    return weights


@st.composite
def _rewards(draw: Callable, S: int, A: int, largest: float) -> np.ndarray:
    kind = draw(st.sampled_from(["zero", "constant", "small", "negative", "tiny", "huge", "wide"]))
    if kind == "zero":
        return np.zeros((S, A))
    if kind == "constant":
        return np.full((S, A), float(draw(st.integers(-3, 3))))
    one = st.integers(-4, 4).map(float)
    if kind == "negative":
        one = st.integers(-9, -1).map(float)
    elif kind == "wide":
        exponent = st.floats(-300.0, np.log10(largest))
        one = st.builds(lambda sign, e: sign * 10.0**e, st.sampled_from([1.0, -1.0]), exponent)
    rewards = np.array(draw(st.lists(one, min_size=S * A, max_size=S * A))).reshape(S, A)
    return rewards * {"tiny": 1e-300, "huge": largest / 4}.get(kind, 1.0)
