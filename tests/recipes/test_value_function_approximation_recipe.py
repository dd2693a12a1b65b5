"""The recipe meets its expectations, notices wrong numbers, and resumes where it stopped."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.recipes import value_function_approximation as recipe

CONFIG = recipe.Config(
    num_runs=10, num_episodes=10, lstd_steps=10_000, walk_steps=5000, car_episodes=20, car_seeds=1
)


def _events(config: recipe.Config) -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return _events(CONFIG)


def missed(rows) -> list[str]:
    return [row.name for row in rows if row.verdict == "miss"]


def test_every_expectation_is_met_that_needs_no_long_run(events):
    rows = recipe.judge(events)
    assert len(rows) == 6 + 6 + 3 + 2 + 5 + 1
    assert [name for name in missed(rows) if not name.startswith("car")] == []


def test_a_wrong_level_is_a_miss(events):
    wrong = [
        replace(e, metrics={**e.metrics, "level/TD fixed point": 0.2238})
        if e.data.get("map") == "polynomial 1" else e
        for e in events
    ]  # fmt: skip
    assert missed(recipe.judge(wrong))[0].startswith("polynomial 1: RMSE")


def test_a_learner_off_its_path_is_a_miss(events):
    wrong = [
        replace(e, data={**e.data, "z": 5.0}) if "z" in e.data and e.data["arm"] == "grid | Fourier 2" else e
        for e in events
    ]  # fmt: skip
    assert any(name.startswith("Fourier 2: TD after") for name in missed(recipe.judge(wrong)))


@pytest.mark.parametrize(
    "metric", ["rate/measured", "pair/worst", "lstd/slope", "walk/z TD", "last/TDC"]
)
def test_a_wrong_measurement_is_a_miss(events, metric):
    wrong = [
        replace(e, metrics={**e.metrics, metric: 7.0}) if metric in e.metrics else e for e in events
    ]
    right = set(missed(recipe.judge(events)))
    assert len(set(missed(recipe.judge(wrong))) - right) == 1


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began(events):
    names = {"curves", "surfaces", "LSTD", "walk", "Baird", "pair", "car"}
    assert set(recipe.figures(events)) == names
    assert recipe.figures(events[:1]) == {} and recipe.judge(events[:1]) == []
    assert set(recipe.figures(events[:12])) == {"curves"}


def test_a_resumed_run_gives_the_same_events(events):
    whole = [repr(e) for e in events[1:]]
    for stop in (60, 253):  # amid the grid; behind LSTD
        first = recipe.build(CONFIG)
        walk = iter(first)
        begun = [repr(next(walk)) for _ in range(stop)]
        second = recipe.build(CONFIG)
        second.load_state_dict(first.state_dict())
        rest = iter(second)
        assert begun + [repr(next(rest)) for _ in range(3)] == whole[: stop + 3]


def test_sampled_arms_depend_on_the_seed(events):
    other = iter(recipe.build(replace(CONFIG, seed=1)))
    fresh = [repr(next(other)) for _ in range(8)]
    assert fresh[:6] == [repr(e).replace("'seed': 0", "'seed': 1") for e in events[1:7]]
    assert fresh[6] != repr(events[7]).replace("'seed': 0", "'seed': 1")


def test_the_star_has_one_direction_that_grows():
    plain, emphatic = recipe.divergence.baird()
    assert (np.linalg.eigvals(plain.A).real < -0.2).sum() == 1
    assert np.linalg.eigvals(emphatic.A).real.min() > -1e-9


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"num_runs": 1}, "num_runs must be at least 2, got 1"),
        ({"walk_steps": 10}, "walk_steps must be at least 1000, got 10"),
        ({"car_episodes": 5}, "car_episodes must be 0 or at least 20, got 5"),
        ({"alpha": 0.5}, r"alpha must be in \(0, 0.1\], got 0.5"),
    ],
)
def test_bad_fields_are_named(field, message):
    with pytest.raises(ConfigError, match=message):
        recipe.Config(**field)
