"""Ready-made models whose answers are known: the grids of the book, textbook examples, random ones.

Grid actions are up, right, down, left, stay; states are numbered row by row from the top left.

Source of each: its docstring.  Golden numbers: tests/mdp/test_worlds.py.
"""

from typing import Literal

import numpy as np

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
    cells = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    wanted = cells[:, None, :] + MOVES  # [S, 5, 2]
    inside = np.all((wanted >= 0) & (wanted < [rows, columns]), axis=2)
    landed = np.where(inside[..., None], wanted, cells[:, None, :])
    number = landed[..., 0] * columns + landed[..., 1]
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


def mdptoolbox_small(*, gamma: float = 0.9) -> MDP:
    """Two states, two actions; v*(.9) = (42.44186047, 36.04651163).

    Source: mdptoolbox.example.small; values re-derived.
    """
    P = [[[0.5, 0.5], [0.8, 0.2]], [[0.0, 1.0], [0.1, 0.9]]]
    return MDP.from_dense(P, [[5.0, 10.0], [-1.0, 2.0]], gamma=gamma, layout="ass")


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


def exit_loop(*, gamma: float = 0.9) -> MDP:
    """One live state: exit pays 1 and ends, loop pays 0. Adding 1 to every reward turns the optimum.

    The counter-example to affine invariance with termination (loop 10 > exit 2).  Source: ours.
    """
    P = [[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]
    labels = Labels(actions=("exit", "loop"))
    return MDP.from_dense(
        P, [[1.0, 0.0], [0, 0]], gamma=gamma, layout="sas", terminal=[1], labels=labels
    )


def random_walk(num_states: int = 5, *, gamma: float = 1.0, left_reward: float = 0.0) -> MDP:
    """Inner states 1..n with one action that steps left or right evenly; ends 0 and n+1.

    Reaching n+1 pays 1, reaching 0 pays left_reward; v(i) = i / (n+1) with 0, (2i - n - 1)/(n+1)
    with -1.  Source: Sutton & Barto 2018, ex. 6.2 (5 states) and sec. 7.1 (19 states, -1).
    """
    n = num_states
    P, R = np.zeros((n + 2, 1, n + 2)), np.zeros((n + 2, 1, n + 2))
    inner = np.arange(1, n + 1)
    P[inner, 0, inner - 1] = P[inner, 0, inner + 1] = 0.5
    R[1, 0, 0], R[n, 0, n + 1] = left_reward, 1.0
    start = np.eye(n + 2)[(n + 1) // 2]
    return MDP.from_dense(P, R, gamma=gamma, layout="sas", terminal=[0, n + 1], start=start)


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


def garnet(
    num_states: int,
    num_actions: int,
    branching: int,
    *,
    seed: int,
    sigma_r: float = 1.0,
    gamma: float = 0.95,
    dtype: type = np.float64,
) -> MDP:
    """A random MDP: ``branching`` distinct successors per pair, probabilities the gaps of sorted uniforms.

    Args:
        sigma_r: rewards are N(0, sigma_r^2) per pair.  dtype: of the probabilities.
    Raises: InputError: branching outside 1..num_states.
    Source: Archibald, McKinnon, Thomas 1995; Bhatnagar et al. 2009.  Cost: O(L branching).
    """
    if not 1 <= branching <= num_states:
        raise InputError(f"branching must be in 1..{num_states} (num_states), got {branching}.")
    rng = np.random.default_rng(seed)
    L = num_states * num_actions
    indices = _distinct(rng, L, branching, num_states)
    cuts = np.sort(rng.random((L, branching - 1)), axis=1)
    edges = np.concatenate([np.zeros((L, 1)), cuts, np.ones((L, 1))], axis=1)
    return MDP(
        sa_indptr=np.arange(0, L + 1, num_actions),
        actions=np.tile(np.arange(num_actions, dtype=np.int32), num_states),
        indptr=np.arange(0, L * branching + 1, branching),
        indices=indices.ravel(),
        probs=np.diff(edges, axis=1).ravel().astype(dtype),
        rewards=sigma_r * rng.standard_normal(L),
        gamma=gamma,
        terminal=np.zeros(num_states, dtype=bool),
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

    Every free step costs 1 / (height + width); reaching the bottom right corner ends the episode.
    Walls keep their cells as states that stay where they are, so that the numbering is the grid's.
    Source: ours, after the mazes of Hartmanns & Kaminski 2020.  Cost: O(height width).
    """
    if not 0 <= slip < 1:
        raise InputError(f"slip must be in [0, 1), got {slip}. 0.1 is usual.")
    rng = np.random.default_rng(seed)
    S = height * width
    free = rng.random((height, width)) >= walls
    # two corridors keep the corners connected whatever the walls are
    free[0, :] = free[:, -1] = True
    cell = np.arange(S).reshape(height, width)
    target = np.empty((4, S), dtype=np.int32)
    for a, (dr, dc) in enumerate(MOVES[:4]):
        r = np.clip(np.arange(height)[:, None] + dr, 0, height - 1)
        c = np.clip(np.arange(width)[None, :] + dc, 0, width - 1)
        target[a] = np.where(free[r, c] & free, cell[r, c], cell).ravel()
    goal = S - 1
    indices = np.empty((S, 4, 3), dtype=np.int32)
    for a in range(4):
        for k, turn in enumerate((0, 1, 3)):
            indices[:, a, k] = target[(a + turn) % 4]
    live = np.arange(S) != goal
    L = 4 * (S - 1)
    return MDP(
        sa_indptr=np.concatenate([np.arange(0, L + 1, 4), [L]]),
        actions=np.tile(np.arange(4, dtype=np.int32), S - 1),
        indptr=np.arange(0, 3 * L + 1, 3),
        indices=indices[live].ravel(),
        probs=np.tile([1.0 - slip, slip / 2, slip / 2], L),
        rewards=np.full(L, -1.0 / (height + width)),
        gamma=gamma,
        terminal=~live,
        start=np.eye(1, S)[0],
        labels=Labels(actions=GRID_ACTIONS[:4], grid=(height, width)),
    )


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


def _deterministic(
    successor: np.ndarray, reward: np.ndarray, *, gamma: float, labels: Labels
) -> MDP:
    S, A = successor.shape
    return MDP(
        sa_indptr=np.arange(0, S * A + 1, A),
        actions=np.tile(np.arange(A), S),
        indptr=np.arange(S * A + 1),
        indices=successor.ravel(),
        probs=np.ones(S * A),
        rewards=reward.ravel(),
        transition_rewards=reward.ravel(),
        gamma=gamma,
        terminal=np.zeros(S, dtype=bool),
        labels=labels,
    )


def _distinct(rng: np.random.Generator, L: int, b: int, n: int) -> np.ndarray:
    """[L, b] distinct numbers below n per row: redraw the rows that have a repetition."""
    if b > n // 2 or b > 32:
        return np.stack([rng.choice(n, b, replace=False) for _ in range(L)]).astype(np.int32)
    out = rng.integers(0, n, (L, b), dtype=np.int32)
    todo = np.arange(L)
    while len(todo):
        ordered = np.sort(out[todo], axis=1)
        todo = todo[np.any(ordered[:, 1:] == ordered[:, :-1], axis=1)]
        out[todo] = rng.integers(0, n, (len(todo), b), dtype=np.int32)
    return out
