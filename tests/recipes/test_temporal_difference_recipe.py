"""The recipe meets its expectations, notices wrong numbers, and resumes where it stopped."""

from dataclasses import asdict, replace

import pytest

from dodona.core.protocols import Event
from dodona.core.trainer import Arms
from dodona.errors import ConfigError
from dodona.recipes import temporal_difference as recipe

SMALL = recipe.Config(
    walk_runs=500, cliff_runs=20, cliff_steps=60_000, length_runs=40, grid_runs=10
)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(SMALL)})
    return [start, *recipe.build(SMALL)]


def test_every_expectation_is_met(events):
    rows = recipe.judge(events)
    assert [row.name for row in rows if row.verdict == "miss"] == []
    assert len(rows) == 3 + 6 + 2 + 3


def changed(events, arm: str, metrics=None, data=None):
    return [
        replace(e, metrics={**e.metrics, **(metrics or {})}, data={**e.data, **(data or {})})
        if e.data.get("arm") == arm
        else e
        for e in events
    ]


def missed(events) -> list[str]:
    return [row.name for row in recipe.judge(events) if row.verdict == "miss"]


def test_a_learner_off_its_exact_curve_is_a_miss(events):
    assert len(missed(changed(events, "walk", {"z/largest": 6.0}))) == 1
    assert len(missed(changed(events, "walk", {"square/mean": 0.03}))) == 1
    assert len(missed(changed(events, "walk", {"square/exact": 0.0156833}))) >= 1


def test_wrong_levels_at_the_cliff_are_a_miss(events):
    # a learner that never falls, one that beats what is possible, one on the edge
    assert any("Q-learning earns" in m for m in missed(changed(events, "cliff | Q-learning", data={"tail": [-15.0, 0.1]})))  # fmt: skip
    assert any("standard errors above" in m for m in missed(changed(events, "cliff | Sarsa", data={"tail": [-15.0, 0.1]})))  # fmt: skip
    assert any("keeps away" in m for m in missed(changed(events, "cliff | Sarsa", data={"paths": [[13, 2]] * 20})))  # fmt: skip
    assert any("the edge, 13" in m for m in missed(changed(events, "cliff | Q-learning", data={"paths": [[0, 2]] * 20})))  # fmt: skip


def test_a_wrong_best_n_and_wrong_errors_are_a_miss(events):
    assert len(missed(changed(events, "n | 32", {"error/best": 0.1}))) == 1
    assert len(missed(changed(events, "n | 4", {"error/best": 0.45}))) == 1
    assert len(missed(changed(events, "first | 10", {"error/rmse": 1.0}))) == 1


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began(events):
    assert set(recipe.figures(events)) == {"walk", "cliff", "lengths", "first", "explore", "grid"}
    assert recipe.figures(events[:1]) == {} and recipe.judge(events[:1]) == []
    half = events[:90]
    assert "walk" in recipe.figures(half) and len(recipe.judge(half)) == 3


def test_levels_at_another_exploration_are_solved_anew():
    levels = recipe.cliff_levels(0.02)
    assert levels["optimum"] == pytest.approx(-13.0)
    assert levels["down"] < levels["split"] < levels["right"] < levels["best"] < -13.0


def test_a_resumed_run_gives_the_same_events():
    def build():
        whole = recipe.build(replace(SMALL, walk_runs=100))
        whole.turns = [t for t in whole.turns if t[0] in ("walk", "n | 1")]
        assert isinstance(whole, Arms)
        return whole

    events = [repr(e) for e in build()]
    for stop in (30, 60):
        first = build()
        walk = iter(first)
        begun = [repr(next(walk)) for _ in range(stop)]
        second = build()
        second.load_state_dict(first.state_dict())
        assert begun + [repr(e) for e in second] == events


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("walk_runs", 1, "walk_runs must be at least 100, got 1"),
        ("alpha", 0.0, r"alpha must be in \(0, 1\], got 0.0"),
        ("epsilon", 1.0, r"epsilon must be in \(0, 1\), got 1.0"),
    ],
)
def test_wrong_configurations_are_named(field, value, message):
    with pytest.raises(ConfigError, match=message):
        recipe.Config(**{field: value})
