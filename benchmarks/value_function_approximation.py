"""Linear learning: tiles against a Python script, TD updates, LSTD against the matrix product that bounds it.

The script is what people write: a loop over tilings and dimensions that floors, and a dictionary that
numbers the tiles it meets. One thread, float64, except where BLAS takes more.
"""

import math
from typing import Any

import numpy as np
from _timing import absolute_row, in_turn, once, ratio_row

from dodona.mdp import worlds
from dodona.rl.features import OneHot, Polynomial, Table, TileCoding
from dodona.rl.linear import LSTD, QLearningLinear, TDLinear

BOX = [(-1.2, 0.6), (-0.07, 0.07)]
NUM_POINTS, SCRIPT_POINTS = 1_000_000, 20_000
TILES, TILINGS = 8, 8
STEPS = 2_000_000


def run() -> list[dict[str, Any]]:
    """Rows of points, updates and transitions a second; seconds for LSTD."""
    return [*_tiles(), *_updates(), *_least_squares(), *_recursive()]


def _tiles() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    low, high = np.transpose(BOX)
    x = low + (high - low) * rng.random((NUM_POINTS, 2))
    few, features = x[:SCRIPT_POINTS].tolist(), TileCoding(TILES, TILINGS, BOX)
    taken = in_turn(
        {"ours": lambda: features.sparse(x), "theirs": lambda: [_script({}, p) for p in few]},
        rounds=3,
    )
    ours, theirs = NUM_POINTS / taken["ours"], SCRIPT_POINTS / taken["theirs"]
    return [
        ratio_row(
            f"tiles of 1M points, {TILINGS} tilings", peer="Python loop over tilings with a dictionary", ours=ours,
            theirs=theirs, target=50.0, unit="points/s",
        )
    ]  # fmt: skip


def _script(numbers: dict[tuple, int], point: list[float]) -> list[int]:
    """Numbers of the tiles that hold one point; new ones are appended."""
    scaled = [(c - low) / (high - low) * TILES for c, (low, high) in zip(point, BOX, strict=True)]
    found = []
    for t in range(TILINGS):
        place = [t]
        for d, c in enumerate(scaled):
            place.append(math.floor(c + t * (2 * d + 1) % TILINGS / TILINGS))
        found.append(numbers.setdefault(tuple(place), len(numbers)))
    return found


def _updates() -> list[dict[str, Any]]:
    grid = worlds.book_grid()
    td = TDLinear(Polynomial(3), gamma=0.9, alpha=1e-3).walk(grid)
    traces = TDLinear(Polynomial(3), gamma=0.9, alpha=1e-3, gae_lambda=0.8).walk(grid)
    q = QLearningLinear(Polynomial(3), 5, gamma=0.9, alpha=1e-3).walk(grid)
    table = TDLinear(OneHot(25), gamma=0.9, alpha=1e-3).walk(grid)
    taken = in_turn(
        {name: lambda walk=walk: walk.advance(STEPS // 4)
         for name, walk in (("td", td), ("traces", traces), ("q", q), ("table", table), )},
        rounds=3,
    )  # fmt: skip
    weights, phi = np.zeros(10), Polynomial(3).matrix(grid)
    loop = once(lambda: _numpy_td(phi, weights, 20_000))[0] / 20_000
    rate = {name: STEPS / 4 / seconds for name, seconds in taken.items()}
    return [
        absolute_row("TD in a model, 10 features", ours=rate["td"], unit="updates/s", target=1e7, larger_is_better=True),
        ratio_row("TD in a model, 10 features", peer="NumPy-indexed loop", ours=rate["td"], theirs=1 / loop, target=30.0, unit="updates/s"),
        absolute_row("TD(0.8) in a model, 10 features", ours=rate["traces"], unit="updates/s"),
        absolute_row("TD in a model, one-hot 25", ours=rate["table"], unit="updates/s"),
        absolute_row("Q-learning in a model, 5 x 10 weights", ours=rate["q"], unit="updates/s"),
    ]  # fmt: skip


def _numpy_td(phi: np.ndarray, w: np.ndarray, num: int) -> None:
    """Semi-gradient TD as it is usually written, on successors drawn beforehand."""
    rng = np.random.default_rng(0)
    path = rng.integers(0, 25, num + 1)
    for t in range(num):
        s, s2 = path[t], path[t + 1]
        w += 1e-3 * (-1.0 + 0.9 * phi[s2] @ w - phi[s] @ w) * phi[s]


def _least_squares() -> list[dict[str, Any]]:
    num, m = 20_000, 1000
    rng = np.random.default_rng(0)
    table = Table(rng.standard_normal((2000, m)))
    s, s2 = rng.integers(0, 2000, num), rng.integers(0, 2000, num)
    r, no = rng.standard_normal(num), np.zeros(num, bool)
    phi = table.table[s]

    def ours() -> None:
        lstd = LSTD(table, gamma=0.9, recursive=False)
        lstd.update(s, None, r, s2, no, no)

    def theirs() -> None:
        phi.T @ phi

    taken = in_turn({"ours": ours, "theirs": theirs}, rounds=3)
    return [
        ratio_row(
            "LSTD, A of 20000 transitions, m = 1000", peer="NumPy matmul of that size alone", ours=taken["ours"],
            theirs=taken["theirs"], target=0.5, limit=min(1.0, taken["theirs"] / taken["ours"]),
        )
    ]  # fmt: skip


def _recursive() -> list[dict[str, Any]]:
    num, m = 2000, 100
    rng = np.random.default_rng(0)
    table = Table(rng.standard_normal((500, m)) / math.sqrt(m))
    s, s2 = rng.integers(0, 500, num), rng.integers(0, 500, num)
    r, no = rng.standard_normal(num), np.zeros(num, bool)
    lstd = LSTD(table, gamma=0.9, ridge=1.0)
    phi, step = table.table[s], table.table[s] - 0.9 * table.table[s2]

    def theirs() -> None:
        inverse = np.eye(m)
        for t in range(num):
            left = inverse @ phi[t]
            inverse -= np.outer(left, step[t] @ inverse) / (1 + step[t] @ left)

    taken = in_turn(
        {"ours": lambda: lstd.update(s, None, r, s2, no, no), "theirs": theirs}, rounds=3
    )
    return [
        ratio_row(
            "recursive LSTD, m = 100", peer="NumPy Sherman-Morrison", ours=num / taken["ours"],
            theirs=num / taken["theirs"], target=2.0, unit="transitions/s",
        )
    ]  # fmt: skip
