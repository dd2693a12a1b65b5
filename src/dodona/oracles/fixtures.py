"""Golden instances by name: plain arrays, with the numbers that are known of them and where from.

    fixture("frozen lake 4x4").facts

Built from their definitions (book.py, classics.py), independently of dodona.mdp.worlds, so that each
judges the other. Two that are no tables of states have a function only: lqr2, a regulator, and tm40, a
token model. Source of each: its builder. Not here: the records (instance.py).
"""

from collections.abc import Callable

from dodona.oracles.book import book_grid, book_small, line_two
from dodona.oracles.classics import (
    access_control_queue,
    cliff,
    corners_grid,
    exit_loop,
    forest,
    frozen_lake,
    gambler,
    jumps_grid,
    mdptoolbox_small,
    puterman_two_state,
    random_walk,
    river_swim,
    token_tree,
    tri3,
    wait_or_leave,
)
from dodona.oracles.instance import Fact, Fixture, random_mdp, uniform
from dodona.oracles.lqr import lqr2
from dodona.oracles.sequences import tm40

__all__ = [
    "FIXTURES", "Fact", "Fixture", "access_control_queue", "book_grid", "book_small", "cliff",
    "corners_grid", "exit_loop", "fixture", "forest", "frozen_lake", "gambler", "jumps_grid", "line_two",
    "lqr2", "mdptoolbox_small", "puterman_two_state", "random_mdp", "random_walk", "river_swim", "tm40",
    "token_tree", "tri3", "uniform", "wait_or_leave",
]  # fmt: skip

FIXTURES: dict[str, Callable[[], Fixture]] = {
    "book 5x5": book_grid,
    "book 5x5, gamma .5": lambda: book_grid(gamma=0.5),
    "book 5x5, gamma 0": lambda: book_grid(gamma=0.0),
    "book 5x5, forbidden -10": lambda: book_grid(-10.0),
    "book 2x2": book_small,
    "line of two": line_two,
    "mdptoolbox small": mdptoolbox_small,
    "mdptoolbox small, gamma .99": lambda: mdptoolbox_small(0.99),
    "Puterman 3.1": puterman_two_state,
    "forest": forest,
    "forest, gamma .96": lambda: forest(0.96),
    "random walk 5": random_walk,
    "random walk 19": lambda: random_walk(19, -1.0),
    "jumps 5x5": jumps_grid,
    "corners 4x4": corners_grid,
    "cliff": cliff,
    "frozen lake 4x4": frozen_lake,
    "frozen lake 4x4, gamma .99": lambda: frozen_lake(4, 0.99),
    "frozen lake 8x8": lambda: frozen_lake(8),
    "frozen lake 8x8, gamma .99": lambda: frozen_lake(8, 0.99),
    "gambler": gambler,
    "gambler, fair": lambda: gambler(0.5),
    "river swim": river_swim,
    "access control": access_control_queue,
    "exit or loop": exit_loop,
    "exit or loop, bonus 1": lambda: exit_loop(1.0),
    "wait or leave": wait_or_leave,
    "token tree": token_tree,
    "tri3": tri3,
}
"""Every instance, made when it is asked for."""


def fixture(name: str) -> Fixture:
    """A golden instance.

    Args: name: a key of FIXTURES.
    Raises: ValueError: an unknown name; the known ones are listed.
    Independent of: dodona.mdp.worlds.
    Source: of each, its builder's docstring.
    """
    if name not in FIXTURES:
        raise ValueError(f"unknown fixture '{name}'. Known: {', '.join(FIXTURES)}.")
    return FIXTURES[name]()
