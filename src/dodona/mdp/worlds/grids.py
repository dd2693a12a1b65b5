"""Grid worlds: the book's, the textbooks', the cliff, mazes, a torus, the deep sea, a corridor.

Actions are up, right, down, left(, stay); states are numbered row by row from the top left.

Source of each: its docstring.  Golden numbers: tests/mdp/test_worlds.py.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from dodona.errors import InputError
from dodona.mdp.model import MDP, Labels

MOVES = np.array([[-1, 0], [0, 1], [1, 0], [0, -1], [0, 0]])
GRID_ACTIONS = ("up", "right", "down", "left", "stay")


def grid_world(
    rows: int,
    columns: int,
    *,
    forbidden: tuple[tuple[int, int], ...],
    target: tuple[int, int],
    r_boundary: float = -1.0,
    r_forbidden: float = -1.0,
    r_target: float = 1.0,
    gamma: float = 0.9,
    entry: Literal["enter", "bounce"] = "enter",
) -> MDP:
    """A deterministic grid: cells are (row, column) from 1, the target is not terminal.

    entry="enter" lets the agent walk onto forbidden cells (the book's tables), "bounce" sends it
    back (the book's public code, a different MDP).
    Source: Zhao 2025, sec. 1.2.
    """
    number, inside = _moves(rows, columns, 5)
    bad = np.zeros(rows * columns, dtype=bool)
    for r, c in forbidden:
        bad[(r - 1) * columns + c - 1] = True
    goal = (target[0] - 1) * columns + target[1] - 1
    reward = np.where(number == goal, r_target, 0.0)
    reward = np.where(bad[number], r_forbidden, reward)
    reward = np.where(inside, reward, r_boundary)
    if entry == "bounce":
        own = np.arange(rows * columns)[:, None]
        number = np.where(bad[number] & inside, own, number)
    return _deterministic(
        number, reward, gamma=gamma, labels=Labels(actions=GRID_ACTIONS, grid=(rows, columns))
    )


BOOK_FORBIDDEN = ((2, 2), (2, 3), (3, 3), (4, 2), (4, 4), (5, 2))


def book_grid(
    *, r_forbidden: float = -1.0, gamma: float = 0.9, entry: Literal["enter", "bounce"] = "enter"
) -> MDP:
    """The 5x5 grid of the book: target (4, 3), six forbidden cells.  Source: Zhao 2025, fig. 3.4."""
    return grid_world(
        5, 5, forbidden=BOOK_FORBIDDEN, target=(4, 3), r_forbidden=r_forbidden, gamma=gamma, entry=entry
    )  # fmt: skip


def book_small(*, gamma: float = 0.9) -> MDP:
    """The 2x2 grid of the book: s2 forbidden, s4 target; v* = (9, 10, 10, 10) at gamma .9.

    Source: Zhao 2025, fig. 2.4.
    """
    return grid_world(2, 2, forbidden=((1, 2),), target=(2, 2), gamma=gamma)


def line_two(*, gamma: float = 0.9) -> MDP:
    """Two states in a row, actions left, stay, right, s2 the target.  Source: Zhao 2025, fig. 4.3."""
    successor = np.array([[0, 0, 1], [0, 1, 1]])
    reward = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
    labels = Labels(actions=("left", "stay", "right"), grid=(1, 2))
    return _deterministic(successor, reward, gamma=gamma, labels=labels)


def cliff(*, gamma: float = 1.0) -> MDP:
    """Four rows of twelve: walk from the bottom left to the bottom right, below is the cliff.

    Every step costs 1; a step into the cliff costs 100 and leads back to the start. v*(start) = -13
    at gamma 1. Cells of the cliff keep their moves and are never entered.
    Source: Sutton & Barto 2018, ex. 6.6.
    """
    rows, columns, start, goal = 4, 12, 36, 47
    number, _ = _moves(rows, columns, 4)
    fallen = (number > start) & (number < goal)
    return _deterministic(
        np.where(fallen, start, number),
        np.where(fallen, -100.0, -1.0),
        gamma=gamma,
        terminal=np.arange(rows * columns) == goal,
        start=start,
        labels=Labels(actions=GRID_ACTIONS[:4], grid=(rows, columns)),
    )


def jumps_grid(*, gamma: float = 0.9) -> MDP:
    """5x5; every action in cell A jumps to A' for 10, in B to B' for 5; walls cost 1.

    Uniform policy, first row: 3.3 8.8 4.4 5.3 1.5; v*(A) = 10 / (1 - gamma^5).
    Source: Sutton & Barto 2018, ex. 3.5 and 3.8.
    """
    number, inside = _moves(5, 5, 4)
    reward = np.where(inside, 0.0, -1.0)
    number[1], reward[1] = 21, 10.0
    number[3], reward[3] = 13, 5.0
    labels = Labels(actions=GRID_ACTIONS[:4], grid=(5, 5))
    return _deterministic(number, reward, gamma=gamma, labels=labels)


def corners_grid(*, gamma: float = 1.0) -> MDP:
    """4x4, two terminal corners, every step costs 1; uniform policy: 0 -14 -20 -22 / ...

    Source: Sutton & Barto 2018, ex. 4.1.
    """
    number, _ = _moves(4, 4, 4)
    return _deterministic(
        number,
        np.full((16, 4), -1.0),
        gamma=gamma,
        terminal=np.isin(np.arange(16), [0, 15]),
        labels=Labels(actions=GRID_ACTIONS[:4], grid=(4, 4)),
    )


def torus(height: int, width: int, *, slip: float = 0.1, gamma: float = 0.99) -> MDP:
    """A grid without edges; every step that starts in the cell (0, 0) pays 1, staying is allowed.

    With probability ``slip`` the step goes one of the other ways, evenly. Continuing, never ends.
    Source: ours.
    """
    _need(0 <= slip < 1, f"slip must be in [0, 1), got {slip}. 0.1 is usual.")
    _need(height > 2 < width, f"a torus needs 3x3 cells or more, got {height}x{width}.")
    S = height * width
    row, column = np.divmod(np.arange(S), width)
    to = np.stack(
        [(row + dr) % height * width + (column + dc) % width for dr, dc in MOVES], axis=1
    )  # [S, 5]
    turns = (np.arange(5)[:, None] + np.arange(5)) % 5  # the wanted way first
    return MDP(
        sa_indptr=np.arange(0, 5 * S + 1, 5),
        actions=np.tile(np.arange(5), S),
        indptr=np.arange(0, 25 * S + 1, 5),
        indices=to[:, turns].ravel(),
        probs=np.tile([1.0 - slip, *[slip / 4] * 4], 5 * S),
        rewards=np.repeat((np.arange(S) == 0).astype(float), 5),
        gamma=gamma,
        terminal=np.zeros(S, dtype=bool),
        labels=Labels(actions=GRID_ACTIONS, grid=(height, width)),
    )


def deep_sea(size: int, *, gamma: float = 1.0) -> MDP:
    """A square to dive through: right costs .01 / size, and size rights in a row pay 1 at the end.

    Optimal return .99; a random policy finds the treasure with probability 2^-size.
    State (row, column), column <= row; the last state is the end.  Actions left, right.
    Source: Osband et al. 2019, arXiv:1908.03568 (bsuite), without its random action meanings.
    """
    _need(size >= 1, f"size must be >= 1, got {size}.")
    cells = [(r, c) for r in range(size) for c in range(r + 1)]
    number = {cell: k for k, cell in enumerate(cells)}
    end = len(cells)
    to = [
        [number.get((r + 1, c - 1 if c else 0), end), number.get((r + 1, c + 1), end)]
        for r, c in cells
    ]
    dive = -0.01 / size
    reward = [[0.0, dive + (1.0 if (r, c) == (size - 1, size - 1) else 0.0)] for r, c in cells]
    return _deterministic(
        np.array([*to, [end, end]]),
        np.array([*reward, [0.0, 0.0]]),
        gamma=gamma,
        terminal=np.arange(end + 1) == end,
        start=0,
        labels=Labels(actions=("left", "right")),
    )


def maze(
    height: int,
    width: int,
    *,
    slip: float = 0.1,
    seed: int = 0,
    gamma: float = 0.999,
    walls: float = 0.2,
) -> MDP:
    """A grid with random walls; each move slips sideways with probability ``slip``; the goal ends it.

    Every step costs 1 / (height + width); reaching the bottom right corner ends the episode. Walls,
    and free cells that walls cut off from the goal, keep their number as terminal states that
    nothing enters, so that the numbering is the grid's and every other cell can reach the goal.

    Args: walls: share of the cells that are walls; the top row and the right column stay free.
    Raises: InputError: slip outside [0, 1), walls outside [0, 1), less than two cells.
    Source: ours.  Cost: O(height width).
    """
    free = maze_cells(height, width, slip=slip, seed=seed, walls=walls)
    S, goal = height * width, height * width - 1
    cell = np.arange(S, dtype=np.int32).reshape(height, width)
    target = np.empty((4, S), dtype=np.int32)
    for a, (dr, dc) in enumerate(MOVES[:4]):
        r = np.clip(np.arange(height)[:, None] + dr, 0, height - 1)
        c = np.clip(np.arange(width)[None, :] + dc, 0, width - 1)
        target[a] = np.where(free[r, c], cell[r, c], cell).ravel()
    live = free.ravel() & (np.arange(S) != goal)
    ways = np.array([[a, (a + 1) % 4, (a + 3) % 4] for a in range(4)])
    L = 4 * int(live.sum())
    return MDP(
        sa_indptr=np.concatenate([[0], np.cumsum(4 * live)]),
        actions=np.tile(np.arange(4, dtype=np.int32), L // 4),
        indptr=np.arange(0, 3 * L + 1, 3),
        indices=target.T[live][:, ways].ravel(),
        probs=np.tile([1.0 - slip, slip / 2, slip / 2], L),
        rewards=np.full(L, -1.0 / (height + width)),
        gamma=gamma,
        terminal=~live,
        start=np.eye(1, S)[0],
        num_actions=4,
        labels=Labels(actions=GRID_ACTIONS[:4], grid=(height, width)),
    )


def maze_cells(
    height: int, width: int, *, slip: float, seed: int, walls: float
) -> Bool[np.ndarray, "H W"]:
    """Cells of a maze that can reach the goal; arguments and errors are those of maze."""
    _need(0 <= slip < 1, f"slip must be in [0, 1), got {slip}. 0.1 is usual.")
    _need(0 <= walls < 1, f"walls must be a share in [0, 1), got {walls}. 0.2 is usual.")
    _need(height >= 1 and width >= 1 and height * width > 1,
          f"a maze needs two cells or more, got {height}x{width}.")  # fmt: skip
    rng = np.random.default_rng(seed)
    free = rng.random((height, width)) >= walls
    free[0, :] = free[:, -1] = True  # the way from the first cell to the goal
    parts, _ = ndimage.label(free)
    return parts == parts[-1, -1]


def chain(num_states: int, *, slip: float = 0.1, gamma: float = 0.999) -> MDP:
    """A corridor with the only reward at its end: the worst case of sweeping in the wrong order.

    Actions left and right, each failing (staying) with probability slip; the last state pays 1 a step.
    Source: ours.
    """
    n = num_states
    s = np.arange(n, dtype=np.int32)
    to = np.stack([np.maximum(s - 1, 0), np.minimum(s + 1, n - 1)], axis=1)  # [S, 2]
    return MDP(
        sa_indptr=np.arange(0, 2 * n + 1, 2),
        actions=np.tile(np.arange(2, dtype=np.int32), n),
        indptr=np.arange(0, 4 * n + 1, 2),
        indices=np.stack([to, np.repeat(s[:, None], 2, axis=1)], axis=2).ravel(),
        probs=np.tile([1.0 - slip, slip], 2 * n),
        rewards=np.repeat((s == n - 1).astype(float), 2),
        gamma=gamma,
        terminal=np.zeros(n, dtype=bool),
        labels=Labels(actions=("left", "right")),
    )


def _moves(rows: int, columns: int, num_actions: int) -> tuple[np.ndarray, np.ndarray]:
    """([S, A] cell reached, staying at the edge; [S, A] whether the step stayed on the grid)."""
    cells = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    wanted = cells[:, None, :] + MOVES[:num_actions]
    inside = np.all((wanted >= 0) & (wanted < [rows, columns]), axis=2)
    landed = np.where(inside[..., None], wanted, cells[:, None, :])
    return landed[..., 0] * columns + landed[..., 1], inside


def _deterministic(
    successor: np.ndarray,
    reward: np.ndarray,
    *,
    gamma: float,
    labels: Labels,
    terminal: np.ndarray | None = None,
    start: int | None = None,
) -> MDP:
    S, A = successor.shape
    live = np.ones(S, dtype=bool) if terminal is None else ~terminal
    L = A * int(live.sum())
    return MDP(
        sa_indptr=np.concatenate([[0], np.cumsum(A * live)]),
        actions=np.tile(np.arange(A), L // A),
        indptr=np.arange(L + 1),
        indices=successor[live].ravel(),
        probs=np.ones(L),
        rewards=reward[live].ravel(),
        transition_rewards=reward[live].ravel(),
        gamma=gamma,
        terminal=~live,
        start=None if start is None else np.eye(S)[start],
        num_actions=A,
        labels=labels,
    )


def _need(good: bool, message: str) -> None:
    if not good:
        raise InputError(message)
