"""The golden instances and the library's worlds are built twice from one definition: they must agree."""

import numpy as np
import pytest

from dodona import mdp as planning
from dodona.checks.compare import as_mdp
from dodona.mdp import MDP, worlds
from dodona.oracles import fixtures
from dodona.oracles.fixtures import (
    access_control_queue,
    book_grid,
    book_small,
    cliff,
    corners_grid,
    exit_loop,
    forest,
    frozen_lake,
    gambler,
    jumps_grid,
    line_two,
    mdptoolbox_small,
    puterman_two_state,
    random_walk,
    river_swim,
    token_tree,
)

TWINS = [
    (book_grid(), worlds.book_grid()),
    (book_grid(-10.0, 0.5), worlds.book_grid(r_forbidden=-10.0, gamma=0.5)),
    (book_small(), worlds.book_small()),
    (line_two(), worlds.line_two()),
    (mdptoolbox_small(), worlds.mdptoolbox_small()),
    (puterman_two_state(), worlds.puterman_two_state()),
    (forest(), worlds.forest()),
    (random_walk(), worlds.random_walk()),
    (random_walk(19, -1.0), worlds.random_walk(19, left_reward=-1.0)),
    (jumps_grid(), worlds.jumps_grid()),
    (corners_grid(), worlds.corners_grid()),
    (cliff(), worlds.cliff()),
    (gambler(), worlds.gambler()),
    (river_swim(), worlds.river_swim()),
    (access_control_queue(), worlds.access_control_queue()),
    (exit_loop(), worlds.exit_loop()),
    (token_tree(2, 3, reward=sum), worlds.token_mdp(2, 3, reward=sum)),
]


@pytest.mark.parametrize("fixture, world", TWINS, ids=lambda x: getattr(x, "name", ""))
def test_an_instance_and_its_world_are_the_same_model(fixture, world):
    P, R, gamma = world.dense()
    assert gamma == fixture.gamma
    assert np.array_equal(world.terminal, fixture.terminal)
    assert np.array_equal(world.action_mask, fixture.mask)
    assert np.allclose(P, np.where(fixture.mask[:, :, None], fixture.P, 0.0), atol=1e-15)
    assert np.allclose(R, np.where(fixture.mask, fixture.R, 0.0), atol=1e-14)
    if fixture.start is not None:
        assert np.array_equal(world.start, fixture.start)


@pytest.mark.parametrize("size, env_id", [(4, "FrozenLake-v1"), (8, "FrozenLake8x8-v1")])
def test_the_lake_is_gymnasiums(size, env_id):
    P, R, _ = MDP.from_gymnasium(env_id, gamma=1.0).dense()
    lake = frozen_lake(size)
    # Gymnasium's holes are dead ends that it leaves out of ``terminal`` only if nothing enters them
    assert np.allclose(P[~lake.terminal], lake.P[~lake.terminal], atol=1e-15)
    assert np.allclose(R[~lake.terminal], lake.R[~lake.terminal], atol=1e-15)


@pytest.mark.parametrize("name", [n for n in fixtures.FIXTURES if "gambler" not in n])
def test_every_fact_of_an_instance_is_confirmed_by_the_library(name):
    case = fixtures.fixture(name)
    model = as_mdp(case)
    for fact in case.facts.values():
        where = slice(None) if fact.states is None else list(fact.states)
        if fact.of == "v*":
            solver = planning.solve if case.gamma < 1 else planning.shortest_path_value_iteration
            got = solver(model).values[where]
        elif fact.of == "v":
            got = planning.policy_value(model, fact.policy).values[where]
        elif fact.of == "gain":
            got = planning.relative_value_iteration(model).gain
        elif fact.of == "v_H":
            got = planning.backward_induction(model, fact.horizon).values[0][where]
        elif fact.of == "ties":
            got = planning.solve(model).optimal_actions.sum(axis=1)
        else:  # "soft" needs gamma below 1 here; a tree loses almost nothing by it
            almost = model.replace(gamma=1 - 1e-10)
            got = planning.soft_optimality(almost, tau=fact.tau, reference=fixtures.uniform(case))
            got = got.values[where]
        assert np.abs(got - fact.value).max() <= fact.error + 2e-8, fact


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown fixture 'lake'. Known: book 5x5, .*frozen lake 4x4"
    ):
        fixtures.fixture("lake")
