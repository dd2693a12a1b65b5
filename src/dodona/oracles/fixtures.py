"""Golden instances as plain arrays, with the numbers that are known of them and where from.

Built here from their definitions, independently of dodona.mdp.worlds, so that each judges the other.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A known number: value, how far the printed digits may be off, where it is from."""

    value: object
    error: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An MDP as arrays P [S, A, S], R [S, A], gamma, terminal [S], with its facts."""

    name: str
    P: np.ndarray
    R: np.ndarray
    gamma: float
    terminal: np.ndarray
    facts: dict[str, Fact] = field(default_factory=dict)


def book_grid(r_forbidden: float = -1.0, gamma: float = 0.9) -> Instance:
    """5x5 grid, actions up, right, down, left, stay. Facts: v* where the setting is printed."""
    bad = {(1, 1), (1, 2), (2, 2), (3, 1), (3, 3), (4, 1)}
    P, R = np.zeros((25, 5, 25)), np.zeros((25, 5))
    for r in range(5):
        for c in range(5):
            for a, (dr, dc) in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1), (0, 0)]):
                x, y = r + dr, c + dc
                hit = not (0 <= x < 5 and 0 <= y < 5)
                if hit:
                    x, y = r, c
                P[5 * r + c, a, 5 * x + y] = 1.0
                R[5 * r + c, a] = (
                    -1.0
                    if hit
                    else 1.0
                    if (x, y) == (3, 2)
                    else r_forbidden
                    if (x, y) in bad
                    else 0.0
                )
    facts = {}
    if (r_forbidden, gamma) in BOOK_OPTIMA:
        values, error = BOOK_OPTIMA[r_forbidden, gamma]
        facts["v*"] = Fact(value=np.array(values), error=error, source="Zhao 2025, fig. 3.4")
    if (r_forbidden, gamma) == (-1.0, 0.9):
        facts["ties"] = Fact(
            value=np.array([1, 1, 1, 1, 2, 1, 1, 1, 1, 2, 2, 2, 1, 2, 2] + [1] * 10),
            error=0.0,
            source="Zhao 2025, fig. 3.4a, exact re-derivation",
        )
        facts["v uniform"] = Fact(
            value=np.array(BOOK_UNIFORM), error=5.1e-5, source="Zhao 2025, fig. 8.6b"
        )
        facts["v right"] = Fact(
            value=np.array(BOOK_RIGHT), error=0.0501, source="Zhao 2025, fig. 2.7b"
        )
    return Instance(
        name=f"book 5x5 ({r_forbidden:g}, {gamma:g})",
        P=P,
        R=R,
        gamma=gamma,
        terminal=np.zeros(25, bool),
        facts=facts,
    )


BOOK_OPTIMA = {
    (-1.0, 0.9): ([5.832, 5.58, 6.2, 6.48, 5.832, 6.48, 7.2, 8, 7.2, 6.48, 7.2, 8, 10, 8, 7.2,
                   8, 10, 10, 10, 8, 7.2, 9, 10, 9, 8.1], 5e-4),
    (-1.0, 0.5): ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0.1, 0, 0, 2, 0.1, 0.1, 0, 2, 2, 2, 0.2, 0, 1, 2, 1, 0.5], 0.0501),
    (-1.0, 0.0): ([0] * 12 + [1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0], 1e-12),
    (-10.0, 0.9): ([3.4868, 3.8742, 4.3047, 4.7830, 5.3144, 3.1381, 3.4868, 4.7830, 5.3144, 5.9049,
                    2.8243, 2.5419, 10, 5.9049, 6.5610, 2.5419, 10, 10, 10, 7.2900, 2.2877, 9, 10, 9, 8.1], 5.1e-5),
}  # fmt: skip
BOOK_UNIFORM = [
    -3.8463, -3.8138, -3.6442, -3.1209, -3.2350, -3.7936, -3.8473, -3.8004, -3.1063, -2.9241,
    -3.5724, -3.8965, -3.3817, -3.1944, -2.9444, -3.9008, -3.6159, -3.4031, -2.8976, -3.2393,
    -4.4589, -4.1608, -3.3858, -3.3634, -3.4532,
]  # fmt: skip
BOOK_RIGHT = [
    -6.6, -7.3, -8.1, -9.0, -10, -8.5, -8.3, -8.1, -9, -10, -7.5, -8.3, -8.1, -9, -10,
    -7.5, -7.2, -9.1, -9, -10, -7.6, -7.3, -8.1, -9, -10,
]  # fmt: skip


def mdptoolbox_small(gamma: float = 0.9) -> Instance:
    """Two states. Facts: v*(.9), v*(.99), gain 35/9, policy (1, 0)."""
    P = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.8, 0.2], [0.1, 0.9]]])
    known = {0.9: [42.44186047, 36.04651163], 0.99: [392.29910714, 386.16071429]}
    facts = {"gain": Fact(value=35 / 9, error=1e-12, source="exact; card dynamic-programming")}
    if gamma in known:
        facts["v*"] = Fact(value=np.array(known[gamma]), error=5.1e-9, source="exact re-derivation")
    return Instance(
        name=f"mdptoolbox small ({gamma:g})", P=P, R=np.array([[5.0, 10.0], [-1.0, 2.0]]), gamma=gamma,
        terminal=np.zeros(2, bool), facts=facts,
    )  # fmt: skip


def puterman_two_state(beta: float = 0.95) -> Instance:
    """Puterman sec. 3.1: v* = ((5 - 5.5 b) / ((1 - .5 b)(1 - b)), -1 / (1 - b)) for b > 10/11."""
    P = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    value = np.array([(5 - 5.5 * beta) / ((1 - 0.5 * beta) * (1 - beta)), -1 / (1 - beta)])
    return Instance(
        name=f"Puterman 3.1 ({beta:g})", P=P, R=np.array([[5.0, 10.0], [-1.0, -1.0]]), gamma=beta,
        terminal=np.zeros(2, bool), facts={"v*": Fact(value=value, error=1e-10, source="Puterman 1994, sec. 3.1")},
    )  # fmt: skip


def forest(gamma: float = 0.9) -> Instance:
    """Three ages of a wood, wait or cut. Facts: v*(.9), v*(.96), gain 3.24."""
    P = np.zeros((3, 2, 3))
    P[:, 0, 0] = 0.1
    P[0, 0, 1] = P[1, 0, 2] = P[2, 0, 2] = 0.9
    P[:, 1, 0] = 1.0
    known = {0.9: [26.2440, 29.4840, 33.4840], 0.96: [74.6496, 78.1056, 82.1056]}
    facts = {"gain": Fact(value=3.24, error=1e-10, source="card dynamic-programming")}
    if gamma in known:
        facts["v*"] = Fact(value=np.array(known[gamma]), error=5.1e-5, source="exact re-derivation")
    return Instance(
        name=f"forest ({gamma:g})", P=P, R=np.array([[0.0, 0.0], [0.0, 1.0], [4.0, 2.0]]), gamma=gamma,
        terminal=np.zeros(3, bool), facts=facts,
    )  # fmt: skip


def random_mdp(
    rng: np.random.Generator,
    S: int,
    A: int,
    *,
    branching: int = 3,
    terminal: int = 0,
    gamma: float = 0.9,
) -> Instance:
    """A random model in plain loops; ``terminal`` last states end."""
    P, R = np.zeros((S, A, S)), rng.standard_normal((S, A))
    for s in range(S):
        for a in range(A):
            successors = rng.choice(S, min(branching, S), replace=False)
            P[s, a, successors] = rng.dirichlet(np.ones(len(successors)))
    ends = np.arange(S) >= S - terminal
    R[ends] = 0.0
    return Instance(name="random", P=P, R=R, gamma=gamma, terminal=ends)
