"""A known model as plain arrays, and what is known of it: the records behind fixtures and strategies.

Source: of each fact, its own field. Not here: the instances (book.py, classics.py).
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A known number.

    of: what it is: "v*" optimal values, "v" values of ``policy``, "gain" optimal reward per step,
    "ties" number of optimal actions, "v_H" optimal values with ``horizon`` decisions to go,
    "soft" optimal values with temperature ``tau``.
    value, error: the number, or one per state, and how far the printed digits may be off.
    source: where it is from.
    states: [K] the states it is about; None: all.
    policy: [S] actions or [S, A] probabilities, for "v".
    """

    of: str
    value: np.ndarray | float
    error: float
    source: str
    states: tuple[int, ...] | None = None
    policy: np.ndarray | None = None
    horizon: int | None = None
    tau: float | None = None


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """An MDP as arrays: P [S, A, S], R [S, A], gamma, terminal [S], action_mask [S, A], start [S]; its facts.

    logits [S, A]: the softmax table that facts about policy gradients are of.
    """

    name: str
    P: np.ndarray
    R: np.ndarray
    gamma: float
    terminal: np.ndarray
    action_mask: np.ndarray | None = None
    start: np.ndarray | None = None
    logits: np.ndarray | None = None
    facts: dict[str, Fact] = field(default_factory=dict)

    @property
    def mask(self) -> np.ndarray:
        """[S, A] feasible actions of live states."""
        every = np.ones(self.R.shape, dtype=bool) if self.action_mask is None else self.action_mask
        return every & ~self.terminal[:, None]


def uniform(fixture: Fixture) -> np.ndarray:
    """[S, A] the policy that takes every feasible action equally often; zero rows in terminal states."""
    return fixture.mask / np.maximum(fixture.mask.sum(axis=1, keepdims=True), 1)


def random_mdp(
    rng: np.random.Generator,
    S: int,
    A: int,
    *,
    branching: int = 3,
    terminal: int = 0,
    masked: bool = False,
    gamma: float = 0.9,
) -> Fixture:
    """A random model in plain loops; the last ``terminal`` states end, ``masked`` takes actions away.

    Rewards are N(0, 1), probabilities Dirichlet(1) over ``branching`` successors.
    Source: Archibald, McKinnon & Thomas 1995, with other probabilities.
    """
    P, R = np.zeros((S, A, S)), rng.standard_normal((S, A))
    for s in range(S):
        for a in range(A):
            successors = rng.choice(S, min(branching, S), replace=False)
            P[s, a, successors] = rng.dirichlet(np.ones(len(successors)))
    ends = np.arange(S) >= S - terminal
    R[ends] = 0.0
    mask = None
    if masked:
        mask = rng.random((S, A)) < 0.6
        mask[np.arange(S), rng.integers(0, A, S)] = True
    return Fixture(name="random", P=P, R=R, gamma=gamma, terminal=ends, action_mask=mask)
