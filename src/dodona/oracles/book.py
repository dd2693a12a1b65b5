"""The grids of the book this part follows, built from their definition, with the values it prints.

Source: Zhao, Mathematical Foundations of Reinforcement Learning, 2025. Not here: other textbooks
(classics.py).
"""

import numpy as np

from dodona.oracles.instance import Fact, Fixture

UP, RIGHT, DOWN, LEFT, STAY = range(5)
STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1), (0, 0))


def book_grid(r_forbidden: float = -1.0, gamma: float = 0.9) -> Fixture:
    """5x5 grid, actions up, right, down, left, stay; forbidden cells may be entered, nothing ends.

    Facts: v* in the four printed settings; with the first also v of the uniform and the always-right
    policy and the number of optimal actions per cell.
    Source: Zhao 2025, figs. 2.7, 3.4, 8.6.
    """
    facts = {}
    if (r_forbidden, gamma) in OPTIMA:
        values, error = OPTIMA[r_forbidden, gamma]
        facts["v*"] = Fact(
            of="v*", value=np.array(values), error=error, source="Zhao 2025, fig. 3.4"
        )
    if (r_forbidden, gamma) == (-1.0, 0.9):
        facts["ties"] = Fact(
            of="ties",
            value=np.array([1, 1, 1, 1, 2, 1, 1, 1, 1, 2, 2, 2, 1, 2, 2] + [1] * 10),
            error=0.0,
            source="Zhao 2025, fig. 3.4a, exact re-derivation",
        )
        facts["v uniform"] = Fact(
            of="v", value=np.array(UNIFORM), error=5.1e-5, source="Zhao 2025, fig. 8.6b",
            policy=np.full((25, 5), 0.2),
        )  # fmt: skip
        facts["v right"] = Fact(
            of="v", value=np.array(ALWAYS_RIGHT), error=0.0501, source="Zhao 2025, fig. 2.7b",
            policy=np.full(25, RIGHT),
        )  # fmt: skip
    bad = {(1, 1), (1, 2), (2, 2), (3, 1), (3, 3), (4, 1)}
    P, R = _grid(5, 5, bad, (3, 2), r_forbidden)
    return Fixture(
        name=f"book 5x5 ({r_forbidden:g}, {gamma:g})", P=P, R=R, gamma=gamma, terminal=np.zeros(25, bool),
        facts=facts,
    )  # fmt: skip


def book_small() -> Fixture:
    """2x2 grid, top right forbidden, bottom right the target, gamma .9.

    Facts: v*; v of two policies that differ in the first cell.
    Source: Zhao 2025, figs. 2.4-2.6.
    """
    P, R = _grid(2, 2, {(0, 1)}, (1, 1), -1.0)
    half = np.zeros((4, 5))
    half[0, [RIGHT, DOWN]] = 0.5
    half[[1, 2, 3], [DOWN, RIGHT, STAY]] = 1.0
    right = np.array([RIGHT, DOWN, RIGHT, STAY])
    return Fixture(
        name="book 2x2", P=P, R=R, gamma=0.9, terminal=np.zeros(4, bool),
        facts={
            "v*": Fact(of="v*", value=np.array([9.0, 10, 10, 10]), error=1e-12, source="Zhao 2025, fig. 3.5"),
            "v half": Fact(of="v", value=np.array([8.5, 10, 10, 10]), error=1e-12, policy=half, source="Zhao 2025, fig. 2.5"),
            "v right": Fact(of="v", value=np.array([8.0, 10, 10, 10]), error=1e-12, policy=right, source="Zhao 2025, fig. 2.6"),
        },
    )  # fmt: skip


def line_two() -> Fixture:
    """Two cells in a row, actions left, stay, right; the second is the target, gamma .9.

    Facts: v*; v of always left.  Source: Zhao 2025, fig. 4.3.
    """
    to = [[0, 0, 1], [0, 1, 1]]
    P = np.eye(2)[to]
    R = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
    return Fixture(
        name="line of two", P=P, R=R, gamma=0.9, terminal=np.zeros(2, bool),
        facts={
            "v*": Fact(of="v*", value=np.array([10.0, 10.0]), error=1e-12, source="by hand: 1 / (1 - gamma)"),
            "v left": Fact(of="v", value=np.array([-10.0, -9.0]), error=1e-12, policy=np.zeros(2, int), source="Zhao 2025, sec. 4.2"),
        },
    )  # fmt: skip


OPTIMA = {
    (-1.0, 0.9): ([5.832, 5.58, 6.2, 6.48, 5.832, 6.48, 7.2, 8, 7.2, 6.48, 7.2, 8, 10, 8, 7.2,
                   8, 10, 10, 10, 8, 7.2, 9, 10, 9, 8.1], 5e-4),
    (-1.0, 0.5): ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0.1, 0, 0, 2, 0.1, 0.1, 0, 2, 2, 2, 0.2, 0, 1, 2, 1, 0.5], 0.0501),
    (-1.0, 0.0): ([0] * 12 + [1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0], 1e-12),
    (-10.0, 0.9): ([3.4868, 3.8742, 4.3047, 4.7830, 5.3144, 3.1381, 3.4868, 4.7830, 5.3144, 5.9049,
                    2.8243, 2.5419, 10, 5.9049, 6.5610, 2.5419, 10, 10, 10, 7.2900, 2.2877, 9, 10, 9, 8.1], 5.1e-5),
}  # fmt: skip
"""(r_forbidden, gamma): values row by row, how far the printed digits may be off."""
UNIFORM = [
    -3.8463, -3.8138, -3.6442, -3.1209, -3.2350, -3.7936, -3.8473, -3.8004, -3.1063, -2.9241,
    -3.5724, -3.8965, -3.3817, -3.1944, -2.9444, -3.9008, -3.6159, -3.4031, -2.8976, -3.2393,
    -4.4589, -4.1608, -3.3858, -3.3634, -3.4532,
]  # fmt: skip
ALWAYS_RIGHT = [
    -6.6, -7.3, -8.1, -9.0, -10, -8.5, -8.3, -8.1, -9, -10, -7.5, -8.3, -8.1, -9, -10,
    -7.5, -7.2, -9.1, -9, -10, -7.6, -7.3, -8.1, -9, -10,
]  # fmt: skip


def _grid(
    rows: int, columns: int, bad: set, goal: tuple, r_forbidden: float
) -> tuple[np.ndarray, np.ndarray]:
    """(P, R): walls cost 1 and stop, the goal pays 1 on every arrival, forbidden cells their reward."""
    S = rows * columns
    P, R = np.zeros((S, 5, S)), np.zeros((S, 5))
    for r in range(rows):
        for c in range(columns):
            for a, (dr, dc) in enumerate(STEPS):
                cell, hit = (r + dr, c + dc), False
                if not (0 <= cell[0] < rows and 0 <= cell[1] < columns):
                    cell, hit = (r, c), True
                P[columns * r + c, a, columns * cell[0] + cell[1]] = 1.0
                if hit:
                    R[columns * r + c, a] = -1.0
                elif cell == goal:
                    R[columns * r + c, a] = 1.0
                elif cell in bad:
                    R[columns * r + c, a] = r_forbidden
    return P, R
