"""The recipe meets its expectations, notices wrong numbers, and resumes where it stopped."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.mdp import policy_value, worlds
from dodona.recipes import bellman_equation as recipe


def _events(config: recipe.Config) -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return _events(recipe.Config())


def test_every_expectation_is_met(events):
    rows = recipe.judge(events)
    assert [row.name for row in rows if row.verdict == "miss"] == []
    assert len(rows) == 6 + 3 + 3 + 2


def test_a_wrong_table_is_a_miss(events):
    wrong = [
        replace(e, metrics={**e.metrics, "table/error": 0.06}) if "table/error" in e.metrics else e
        for e in events
    ]
    missed = [row.name for row in recipe.judge(wrong) if row.verdict == "miss"]
    assert len(missed) == 9


def test_a_slope_that_is_not_log_gamma_is_a_miss(events):
    start = replace(events[0], data={"config": {**events[0].data["config"], "gamma": 0.93}})
    rows = recipe.judge([start, *events[1:]])
    assert all(row.verdict == "miss" for row in rows if "slope" in row.name)


def test_a_value_outside_its_bracket_is_a_miss(events):
    last = replace(events[-1], metrics={**events[-1].metrics, "bracket/violations": 1.0})
    rows = recipe.judge([*events[:-1], last])
    assert [row.name for row in rows if row.verdict == "miss"] == [
        next(r.name for r in rows if "outside their bracket" in r.name)
    ]


def test_the_chain_of_a_policy_has_the_policy_s_values():
    mdp, policy = worlds.book_grid(), np.random.default_rng(0).dirichlet(np.ones(5), 25)
    chain = recipe.one_policy(mdp, policy)
    whole = policy_value(mdp, policy).values
    np.testing.assert_allclose(
        policy_value(chain, np.zeros(25, dtype=int)).values, whole, atol=1e-12
    )


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began(events):
    assert set(recipe.figures(events)) == {"values", "sparsity", "slope", "solvers"}
    assert recipe.figures(events[:1]) == {}
    assert recipe.judge(events[:1]) == []


def test_a_resumed_run_gives_the_same_events():
    config = recipe.Config(policies=("uniform",))
    whole = [repr(e) for e in recipe.build(config)]
    for stop in (3, 8, 12):
        first = recipe.build(config)
        walk = iter(first)
        begun = [repr(next(walk)) for _ in range(stop)]
        second = recipe.build(config)
        second.load_state_dict(first.state_dict())
        assert begun + [repr(e) for e in second] == whole


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"gamma": 1.0}, r"gamma must be in \(0, 1\), got 1.0"),
        ({"tol": 0.0}, "tol must be > 0, got 0.0"),
        ({"policies": ("godo",)}, r"policies must be among good, .* got \['godo'\]"),
        ({"solvers": ()}, "solvers must be among iteration, .* got none"),
    ],
)
def test_bad_fields_are_named(field, message):
    with pytest.raises(ConfigError, match=message):
        recipe.Config(**field)
