"""Plan a way through a grid: the task whose right answers differ in length.

Source: breadth-first search, Moore 1959; as a task: ours.
Not here: grids as decision processes (mdp/worlds).
"""

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dodona.core.inputs import check_count, check_range
from dodona.language.tasks.base import (
    RIGHT,
    DrawnTask,
    Item,
    Score,
    refuse_listing,
    undecided,
    wrong,
)

MOVES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}


class GridworldPlan(DrawnTask):
    """Moves U D L R from S to G around the walls #.

    Prompt "S.#/..#/#.G:" (rows, from the top), answer "DRDR". A plan is right when it stands on G after its
    last move; a move into a wall or out of the grid makes it wrong, and so does more than max_moves of them.
    Plans may be longer than needed: ``meta["shortest"]`` is the length that breadth-first search finds.
    Levels are sides of the square.

    Args: level: the side, 2..6.  wall_rate: share of walls, in [0, 0.6].  max_moves: None = twice the side
        squared, longer than any shortest plan.
    Raises: InputError: level; wall_rate; max_moves < 1.
    Source: ours.  Oracle: oracles.tasks.shortest_plan (relaxed distances), oracles.tasks.grid_plans.
    Cost: O(cells) for an item, O(moves) for a verdict, O(cells max_moves) for num_answers.
    """

    name = "gridworld_plan"
    alphabet = "SG.#/:UDLR"
    levels = (2, 3, 4, 5, 6)

    def __init__(self, level: int = 4, *, wall_rate: float = 0.25, max_moves: int | None = None):
        check_range("[0, 0.6]", "More walls leave hardly a way.", wall_rate=wall_rate)
        check_count(max_moves=max_moves)
        self.level, self.wall_rate, self.max_moves = level, wall_rate, max_moves
        self.checked_level(level)

    def draw(self, level: int, *, rng: np.random.Generator) -> Item:
        while True:
            walls = rng.random((level, level)) < self.wall_rate
            start, goal = (tuple(divmod(int(c), level)) for c in rng.choice(level * level, 2, replace=False))  # fmt: skip
            rows = [["#" if wall else "." for wall in row] for row in walls.tolist()]
            rows[start[0]][start[1]], rows[goal[0]][goal[1]] = "S", "G"
            prompt = "/".join(map("".join, rows)) + ":"
            plan = _shortest(prompt)
            if plan is not None and len(plan) <= self._limit(level):
                return Item(prompt, plan, {"level": level, "shortest": len(plan)})

    def solve(self, item: Item) -> str:
        plan = _shortest(item.prompt)
        assert plan is not None, "an item is drawn until its goal is reached"
        return plan

    def verify(self, item: Item, completion: str) -> Score:
        text = completion.strip()
        if not text or not set(text) <= set(MOVES):
            return undecided("not a row of the moves U D L R")
        grid = _grid(item.prompt)
        limit = self._limit(len(grid.rows))
        if len(text) > limit:
            return wrong(f"{len(text)} moves, at most {limit} are allowed")
        place = grid.start
        for number, move in enumerate(text, start=1):
            place = grid.after(place, move)
            if place is None:
                return wrong(f"move {number} runs into a wall")
        return RIGHT if place == grid.goal else wrong("ends beside the goal")

    def answers(self, item: Item) -> list[str]:
        """Every right plan of at most max_moves, the shortest first, then in the order of U D L R."""
        refuse_listing(self.num_answers(item), "this grid has", "plans", "num_answers")
        grid, limit = _grid(item.prompt), self._limit_of(item)
        within = _distances(grid)
        found, plans = [], [("", grid.start)]
        for moves in range(1, limit + 1):
            longer = ((p + m, grid.after(c, m)) for p, c in plans for m in MOVES)
            plans = [(p, c) for p, c in longer if c is not None and within.get(c, limit) <= limit - moves]  # fmt: skip
            found += [p for p, c in plans if c == grid.goal]
        return found

    def num_answers(self, item: Item) -> int:
        grid = _grid(item.prompt)
        ways, right = {grid.start: 1}, 0
        for _ in range(self._limit_of(item)):
            after: dict[Cell, int] = {}
            for cell, count in ways.items():
                for move in MOVES:
                    reached = grid.after(cell, move)
                    if reached is not None:
                        after[reached] = after.get(reached, 0) + count
            ways = after
            right += ways.get(grid.goal, 0)
        return right

    def num_candidates(self, item: Item) -> int:
        """Rows of 1..max_moves moves."""
        return sum(len(MOVES) ** n for n in range(1, self._limit_of(item) + 1))

    def _limit_of(self, item: Item) -> int:
        return self._limit(len(item.prompt.partition("/")[0]))

    def _limit(self, side: int) -> int:
        return 2 * side * side if self.max_moves is None else self.max_moves


Cell = tuple[int, int]


class _Grid(NamedTuple):
    rows: Sequence[str]
    start: Cell
    goal: Cell

    def after(self, cell: Cell, move: str) -> Cell | None:
        """The cell after a move, None where it runs into something."""
        row, column = cell[0] + MOVES[move][0], cell[1] + MOVES[move][1]
        inside = 0 <= row < len(self.rows) and 0 <= column < len(self.rows)
        return (row, column) if inside and self.rows[row][column] != "#" else None


@lru_cache(maxsize=4096)
def _grid(prompt: str) -> _Grid:
    rows = prompt.rstrip(":").split("/")
    place = {c: (i, row.index(c)) for i, row in enumerate(rows) for c in "SG" if c in row}
    return _Grid(rows, place["S"], place["G"])


def _shortest(prompt: str) -> str | None:
    """A shortest plan, the first in the order of U D L R; None where there is none."""
    grid = _grid(prompt)
    reached = {grid.start: ""}
    waiting = deque(reached)
    while waiting:
        cell = waiting.popleft()
        if cell == grid.goal:
            return reached[cell]
        for move in MOVES:
            after = grid.after(cell, move)
            if after is not None and after not in reached:
                reached[after] = reached[cell] + move
                waiting.append(after)
    return None


def _distances(grid: _Grid) -> dict[Cell, int]:
    """Moves from every cell to the goal; moves go both ways, so the search begins at the goal."""
    distance = {grid.goal: 0}
    waiting = deque(distance)
    while waiting:
        cell = waiting.popleft()
        for move in MOVES:
            after = grid.after(cell, move)
            if after is not None and after not in distance:
                distance[after] = distance[cell] + 1
                waiting.append(after)
    return distance
