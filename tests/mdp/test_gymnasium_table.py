"""Tables of Gymnasium that are small, unusual or broken; the real ones: test_builders.py."""

import gymnasium
import numpy as np
import pytest

from dodona.errors import InputError, MDPError, ShapeError
from dodona.mdp import MDP, solve


class Small(gymnasium.Env):
    """Two states, one action; the table, the first states and nothing else, no spec above all."""

    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(1)

    def __init__(self, table, start=(1.0, 0.0)):
        self.P = table
        self.initial_state_distrib = start

    def reset(self, *, seed=None, options=None):
        return 1, {}


GOES = [(1.0, 1, 2.0, False)]
RETURNS = [(1.0, 0, 0.0, False)]


def test_a_table_is_read_without_a_spec_from_dictionaries_and_from_lists():
    for table in ({0: {0: GOES}, 1: {0: RETURNS}}, [[GOES], [RETURNS]]):
        mdp = MDP.from_gymnasium(Small(table), gamma=0.5)
        assert solve(mdp).values == pytest.approx([2 / 0.75, 1 / 0.75], abs=1e-8)
        assert mdp.start.tolist() == [1.0, 0.0]
    # no distribution of first states: the one of reset
    assert MDP.from_gymnasium(Small(table, None), gamma=0.5).start.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    "table, start, error, message",
    [
        ({0: {0: [(1.0, 7, 0.0, False)]}, 1: {0: RETURNS}}, (1, 0), MDPError, r"state 0, action 0: successor 7 is out of range, states are 0\.\.1"),
        ({0: {0: GOES}, 1: {0: [(1.0, -1, 0.0, False)]}}, (1, 0), MDPError, "state 1, action 0: successor -1 is out of range"),
        ({0: {0: [(1.0, 1, 0.0)]}, 1: {0: RETURNS}}, (1, 0), MDPError, r"state 0, action 0: P holds the outcome \(1.0, 1, 0.0\), expected \(probability, next state, reward, terminated\)"),
        ({0: {0: GOES}, 2: {0: RETURNS}}, (1, 0), MDPError, r"P has 2 states and no row of state 1; expected the rows of 0\.\.1"),
        ({}, (1, 0), InputError, "P is empty: it has no state"),
        ({0: {0: []}, 1: {}}, (1, 0), InputError, "P is empty: no state has an outcome"),
        ({0: {0: [(np.nan, 1, 0.0, False)]}, 1: {0: RETURNS}}, (1, 0), MDPError, "state 0, action 0: probability nan"),
        ({0: {0: [*GOES, (-0.5, 0, 0.0, False)]}, 1: {0: RETURNS}}, (1, 0), MDPError, "state 0, action 0: probability -0.5"),
        ({0: {0: GOES}, 1: {0: RETURNS}}, (1, 0, 0), ShapeError, r"initial_state_distrib has shape \(3,\), expected \[S\] = \(2,\)"),
        ({0: {0: RETURNS}}, None, MDPError, r"reset gave state 1, the states of P are 0\.\.0"),
    ],
)  # fmt: skip
def test_a_table_that_leads_nowhere_is_named(table, start, error, message):
    with pytest.raises(error, match=message):
        MDP.from_gymnasium(Small(table, start), gamma=0.9)
