"""The recipe meets its expectations, notices wrong numbers, and resumes where it stopped."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.recipes import binary_search as recipe

SMALL = recipe.Config(num_updates=4, num_targets=3, num_tokens=16, size=9)


def _events(config: recipe.Config) -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return _events(recipe.Config())


def _missed(events) -> list[str]:
    return [row.name for row in recipe.judge(events) if row.verdict == "miss"]


def _changed(events, arm, **metrics):
    return [
        replace(e, metrics={**e.metrics, **metrics}) if e.data.get("arm") == arm else e for e in events
    ]  # fmt: skip


def test_every_expectation_is_met(events):
    assert _missed(events) == []
    assert len(recipe.judge(events)) == 12


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [2, 7, 16, 40])
def test_every_size_and_seed_meets_them_too(size, seed):
    config = replace(SMALL, size=size, seed=seed)
    made = recipe._template_events(config, seed)
    assert [r.name for e in made for r in recipe._template_rows(e) if r.verdict == "miss"] == []


@pytest.mark.parametrize("preset", ["quick", "laptop"])
def test_presets_are_met(preset):
    assert _missed(_events(recipe.PRESETS[preset])) == []


@pytest.mark.parametrize(
    ("arm", "metric", "value", "row"),
    [
        ("templates", "questions/lower", 6.0, "template L"),
        ("templates", "answer/gap", 0.0, "first element"),
        ("templates", "questions/stuck", 1.0, "lower mid with left = mid"),
        ("exact", "kl/share", 1.0 - 1e-8, "exact step"),
        ("exact", "kl/share", 1.0 + 1e-15, "exact step"),
        ("backtracking", "kl/share", 1.1, "backtracking: largest"),
        ("backtracking", "kl/share", 0.5, "backtracking: mean"),
        ("coefficient", "kl/error", 1e-11, "KL coefficient"),
        ("coefficient", "slope/error", 1e-5, "d KL"),
        ("coefficient", "limit/refused", 0.0, "a target beyond"),
    ],
)
def test_a_wrong_number_is_a_miss(events, arm, metric, value, row):
    missed = _missed(_changed(events, arm, **{metric: value}))
    assert any(name.startswith(row) for name in missed)


def test_the_mixed_pairing_stops_only_by_its_counter():
    steps = recipe.endless_pairing(lambda i: i < 3, 0, 8, patience=50)
    assert len(steps) == 50 and steps[-1] == steps[-2]
    assert len(recipe.endless_pairing(lambda i: False, 0, 1, patience=50)) == 50


def test_backtracking_gives_up_after_its_tries():
    assert recipe._backtracked_step(lambda a: math.inf, 1.0, 0.01) == (0.0, recipe.TRIES)
    assert recipe._backtracked_step(lambda a: 0.02 * a, 1.0, 0.01) == (pytest.approx(0.8**4), 5)


def test_kl_along_a_direction_is_that_of_the_two_policies():
    rng = np.random.default_rng(0)
    logits, direction = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    pi, after = recipe._softmax(logits), recipe._softmax(logits + 0.7 * direction)
    expected = np.array([0.2, 0.3, 0.5]) @ (pi * np.log(pi / after)).sum(axis=1)
    got = recipe._kl_along(pi, direction, np.array([0.2, 0.3, 0.5]), 0.7)
    assert got == pytest.approx(expected, rel=1e-12)


def test_a_step_that_would_not_improve_leaves_the_policy():
    steps = recipe._Steps(SMALL, lambda kl, guess, delta: (-1e-3, 1), 0)
    before = steps.logits.copy()
    next(iter(steps))
    np.testing.assert_array_equal(steps.logits, before)


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began(events):
    made = recipe.figures(events)
    assert set(made) == {"templates", "rounds", "radius", "value", "coefficient", "reward"}
    assert len(made["rounds"].frames) == 6
    assert recipe.figures(events[:1]) == {} and recipe.judge(events[:1]) == []
    begun = [e for e in events if e.data.get("arm") != "backtracking"]
    assert "radius" not in recipe.figures(begun)


def test_a_resumed_run_gives_the_same_events():
    whole = [repr(e) for e in recipe.build(SMALL)]
    for stop in (1, 3, 6, 9):
        first = recipe.build(SMALL)
        walk = iter(first)
        begun = [repr(next(walk)) for _ in range(stop)]
        second = recipe.build(SMALL)
        second.load_state_dict(first.state_dict())
        assert begun + [repr(e) for e in second] == whole


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"size": 1}, r"size must be in 2\.\.40, got 1"),
        ({"delta": 0.0}, "delta must be > 0, got 0.0"),
        ({"gamma": 1.0}, r"gamma must be in \(0, 1\), got 1.0"),
        ({"confidence": math.nan}, r"confidence must be in \[-20, 20\], got nan"),
        ({"num_updates": 0}, "num_updates must be at least 1, got 0"),
        ({"num_tokens": 3}, "num_tokens must be at least 16, got 3"),
    ],
)
def test_bad_fields_are_named(field, message):
    with pytest.raises(ConfigError, match=message):
        recipe.Config(**field)
