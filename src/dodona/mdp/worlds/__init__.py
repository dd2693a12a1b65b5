"""Ready-made models whose answers are known: everything in one place, whatever file it is built in.

>>> from dodona.mdp import worlds
>>> worlds.book_grid().num_states
25

Those that can do without stored rows are in matrix_free.py too.
Source of each: its docstring.  Golden numbers: tests/mdp/test_worlds.py.
"""

from dodona.mdp.worlds.classics import (
    baird_star,
    exit_loop,
    mdptoolbox_small,
    puterman_two_state,
    random_walk,
    token_mdp,
)
from dodona.mdp.worlds.epidemics import epidemic_sir, epidemic_sis
from dodona.mdp.worlds.garnets import garnet
from dodona.mdp.worlds.grids import (
    BOOK_FORBIDDEN,
    GRID_ACTIONS,
    book_grid,
    book_small,
    chain,
    cliff,
    corners_grid,
    deep_sea,
    grid_world,
    jumps_grid,
    line_two,
    maze,
    torus,
)
from dodona.mdp.worlds.operations import (
    access_control_queue,
    forest,
    gambler,
    inventory,
    queue,
    river_swim,
)
from dodona.mdp.worlds.scalable import inventory_perishable, pendulum_grid, queue_network
from dodona.mdp.worlds.substitution import inventory_substitution
from dodona.mdp.worlds.textbook import (
    bandit,
    doubling_pair,
    jumping_walk,
    maximisation_bias,
    tsitsiklis_van_roy,
    windy_grid,
)

__all__ = [
    "BOOK_FORBIDDEN", "GRID_ACTIONS", "access_control_queue", "baird_star", "bandit", "book_grid",
    "book_small", "chain", "cliff", "corners_grid", "deep_sea", "doubling_pair", "epidemic_sir",
    "epidemic_sis", "exit_loop", "forest", "gambler", "garnet", "grid_world", "inventory",
    "inventory_perishable", "inventory_substitution", "jumping_walk", "jumps_grid", "line_two", "maximisation_bias", "maze",
    "mdptoolbox_small", "pendulum_grid", "puterman_two_state", "queue", "queue_network",
    "random_walk", "river_swim", "token_mdp", "torus", "tsitsiklis_van_roy", "windy_grid",
]  # fmt: skip
