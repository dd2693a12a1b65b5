"""Small models on which learners are known to go wrong, or right: biased maxima, divergence, wind, arms.

Noise of a reward is part of the model here: a normal one becomes its Gauss-Hermite points, whose
moments are those of the normal up to the order 2 n - 1.

Source of each: its docstring.  Golden numbers: tests/mdp/test_textbook.py.
"""

from collections.abc import Sequence

import numpy as np

from dodona.errors import InputError
from dodona.mdp.model import MDP, Labels

MOVES = (
    (-1, 0),
    (0, 1),
    (1, 0),
    (0, -1),
    (-1, 1),
    (1, 1),
    (1, -1),
    (-1, -1),
)  # the last four: king's
WIND = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)  # rows upwards, by column


def bandit(
    means: Sequence[float], *, sigma: float = 0.0, gamma: float = 0.9, num_outcomes: int = 16
) -> MDP:
    """One state, an arm per action: arm a pays means[a] (+ normal noise of width sigma), for ever.

    v* = max(means) / (1 - gamma); the gain is max(means).

    Args: num_outcomes: points that stand for the noise.
    Source: Sutton & Barto 2018, ch. 2.
    """
    points, shares = _normal(sigma, num_outcomes)
    A, n = len(means), len(points)
    return MDP(
        sa_indptr=np.array([0, A]),
        actions=np.arange(A),
        indptr=np.arange(0, A * n + 1, n),
        indices=np.zeros(A * n, dtype=int),
        probs=np.tile(shares, A),
        rewards=np.asarray(means, dtype=float),
        transition_rewards=np.add.outer(means, points).ravel(),
        gamma=gamma,
        terminal=np.zeros(1, dtype=bool),
        start=np.ones(1),
    )


def maximisation_bias(
    num_actions: int = 10,
    *,
    mean: float = -0.1,
    sigma: float = 1.0,
    gamma: float = 1.0,
    num_outcomes: int = 16,
) -> MDP:
    """From A go right and end with 0, or left to B, where every action ends with a noisy loss on average.

    The largest of many noisy estimates in B looks like a gain, so Q-learning goes left too often.
    v*(A) = 0, v*(B) = q*(A, left) = mean (for mean < 0).  States A, B, end; actions left, right in A.

    Args: mean, sigma: of the reward in B.  num_outcomes: points that stand for it.
    Source: Sutton & Barto 2018, ex. 6.7.
    """
    if num_actions < 2:
        raise InputError(
            f"num_actions must be >= 2, got {num_actions}: A itself has left and right."
        )
    points, shares = _normal(sigma, num_outcomes)
    paid = [(p, 2, mean + x, True) for p, x in zip(shares, points, strict=True)]

    def step(s: int, a: int) -> list | None:
        if s == 0:
            return [[(1.0, 1, 0.0)], [(1.0, 2, 0.0, True)]][a] if a < 2 else None
        return paid

    labels = Labels(states=("A", "B", "end"))
    return MDP.from_function(
        step, 3, num_actions, gamma=gamma, terminal=[2], start=np.eye(3)[0], labels=labels
    )


def tsitsiklis_van_roy(*, epsilon: float = 0.0, gamma: float = 0.9) -> MDP:
    """The first state leads to the second; that one to itself, or to the end with probability epsilon.

    All rewards are 0. With the features 1 and 2 least-squares fitting of the one-step targets
    multiplies its weight by (6 - 4 epsilon) gamma / 5, and so diverges for gamma > 5 / (6 - 4 epsilon).
    Source: Tsitsiklis & Van Roy 1996; Sutton & Barto 2018, ex. 11.1.
    """
    if not 0 <= epsilon <= 1:
        raise InputError(f"epsilon is a probability in [0, 1], got {epsilon}.")
    second = [(1.0 - epsilon, 1, 0.0), (epsilon, 2, 0.0, True)]
    return MDP.from_function(
        lambda s, a: [(1.0, 1, 0.0)] if s == 0 else second, 3, 1, gamma=gamma, terminal=[2]
    )


def doubling_pair(*, gamma: float = 0.9) -> MDP:
    """Two states that lead to each other for nothing; their features are 1 and 2, w -> 2w.

    Semi-gradient TD that updates on the first step only multiplies its weight by
    1 + alpha (2 gamma - 1), and so diverges for gamma > 1/2; updates on both steps converge.
    Source: Sutton & Barto 2018, sec. 11.2.
    """
    P = np.array([[[0.0, 1.0]], [[1.0, 0.0]]])
    return MDP.from_dense(P, np.zeros((2, 1)), gamma=gamma)


def windy_grid(*, kings: bool = False, gamma: float = 1.0) -> MDP:
    """7x10 cells with a wind upwards in the middle: walk from (4, 1) to (4, 8), every step costs 1.

    The shortest way takes 15 steps, with a king's eight moves (``kings``) 7.
    Source: Sutton & Barto 2018, ex. 6.5 and exercise 6.9.
    """
    rows, columns, goal = 7, 10, 37

    def step(s: int, a: int) -> list:
        r, c = divmod(s, columns)
        dr, dc = MOVES[a]
        r = min(max(r + dr - WIND[c], 0), rows - 1)
        return [(1.0, r * columns + min(max(c + dc, 0), columns - 1), -1.0)]

    names = ("up", "right", "down", "left", "up right", "down right", "down left", "up left")
    num_actions = 8 if kings else 4
    return MDP.from_function(
        step, rows * columns, num_actions, gamma=gamma, terminal=[goal], start=np.eye(70)[30],
        labels=Labels(actions=names[:num_actions], grid=(rows, columns)),
    )  # fmt: skip


def jumping_walk(num_states: int = 1000, *, jump: int = 100, gamma: float = 1.0) -> MDP:
    """A walk that jumps 1..jump cells to either side, evenly; past the left end -1, past the right end 1.

    Inner states 1..n, ends 0 and n+1. Unlike random_walk, v is no straight line.
    Source: Sutton & Barto 2018, ex. 9.1.
    """
    n = num_states
    if not 1 <= jump <= n:
        raise InputError(f"jump must be in 1..{n}, got {jump}. The book's is 100 in 1000 states.")
    s = np.repeat(np.arange(1, n + 1), 2 * jump)
    by = np.tile(np.concatenate([np.arange(-jump, 0), np.arange(1, jump + 1)]), n)
    to = np.clip(s + by, 0, n + 1)
    P = np.zeros((n + 2, 1, n + 2))
    np.add.at(P, (s, 0, to), 0.5 / jump)
    paid = np.zeros(n + 2)
    paid[[0, -1]] = -1.0, 1.0  # for arriving at an end
    start = np.eye(n + 2)[(n + 1) // 2]
    return MDP.from_dense(P, paid, gamma=gamma, layout="sas", terminal=[0, n + 1], start=start)


def _normal(sigma: float, num_outcomes: int) -> tuple[np.ndarray, np.ndarray]:
    """(points, probabilities) of Gauss-Hermite for N(0, sigma^2); one point where sigma is 0."""
    if sigma < 0 or num_outcomes < 1:
        raise InputError(
            f"sigma must be >= 0 and num_outcomes >= 1, got {sigma} and {num_outcomes}."
        )
    points, weights = np.polynomial.hermite_e.hermegauss(num_outcomes if sigma else 1)
    return sigma * points, weights / weights.sum()
