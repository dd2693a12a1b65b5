"""The recipe meets its expectations, notices wrong numbers, and resumes where it stopped."""

from dataclasses import asdict, replace

import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.recipes import dqn as recipe

CONFIG = recipe.Config(num_seeds=1, num_env_steps=2000, bar=20.0, num_confirm=10, num_updates=120)


def _events(config: recipe.Config) -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return _events(CONFIG)


def verdicts(events) -> dict[str, str]:
    return {row.name: row.verdict for row in recipe.judge(events)}


def changed(events, arm, **metrics):
    names = {name.replace("__", "/"): x for name, x in metrics.items()}
    return [
        replace(e, metrics={**e.metrics, **names}) if e.data.get("arm") == arm else e
        for e in events
    ]


def test_every_arm_is_judged(events):
    rows = recipe.judge(events)
    assert len(rows) == 1 + 1 + 1 + 2 + 1
    assert rows[0].name.startswith("CartPole-v1, run 1")


@pytest.mark.parametrize(
    "arm, good, bad",
    [
        ("pole | 0", {"eval__confirmed": 20.0}, {"eval__confirmed": 19.9}),
        ("grid | acting", {"error__q": 0.09}, {"error__q": 0.11}),
        ("grid | long", {"error__q": 0.09}, {"error__q": 0.11}),
        ("grid | short", {"error__q": 1.1, "loss__td": 0.01}, {"error__q": 0.9, "loss__td": 0.01}),
        ("grid | short", {"error__q": 1.1, "loss__td": 0.01}, {"error__q": 1.1, "loss__td": 0.2}),
        ("grid | tried", {"error__data": 0.09}, {"error__data": 0.11}),
    ],
)
def test_a_number_on_the_wrong_side_is_a_miss(events, arm, good, bad):
    right, wrong = (verdicts(changed(events, arm, **m)) for m in (good, bad))
    assert sum(a != b for a, b in zip(right.values(), wrong.values(), strict=True)) == 1


def test_a_pole_that_never_arrived_shows_its_best_episodes(events):
    poor = [
        replace(e, metrics={k: v for k, v in e.metrics.items() if k != "eval/confirmed"})
        for e in events
    ]
    row = recipe.judge(poor)[0]
    assert row.verdict == "miss" and row.name.endswith("never confirmed")


def test_what_is_recorded_sees_what_it_must():
    grid = recipe.worlds.book_grid(r_forbidden=-10.0)
    for seed in range(3):
        rows = recipe._recorded(grid, recipe.LONG, seed)
        assert len(set(zip(rows.states.tolist(), rows.actions.tolist(), strict=True))) == 125
    short = recipe._recorded(grid, recipe.SHORT, 0)
    assert len(set(zip(short.states.tolist(), short.actions.tolist(), strict=True))) < 100


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began(events):
    assert set(recipe.figures(events)) == {"pole", "grid", "pairs"}
    assert recipe.figures(events[:1]) == {} and recipe.judge(events[:1]) == []
    assert set(recipe.figures(events[:3])) <= {"pole"}


def test_a_resumed_run_gives_the_same_events(events):
    whole = [repr(e) for e in events[1:]]
    for stop in (2, len(whole) - 30):
        first = recipe.build(CONFIG)
        walk = iter(first)
        begun = [repr(next(walk)) for _ in range(stop)]
        second = recipe.build(CONFIG)
        second.load_state_dict(first.state_dict())
        assert begun + [repr(e) for e in second] == whole


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_seeds": -1}, "num_seeds must be at least 0, got -1"),
        ({"num_updates": 99}, "num_updates must be at least 100, got 99"),
        ({"bar": 501.0}, r"bar must be in \(0, 500\], got 501.0. CartPole-v1 counts as solved at 475"),
    ],
)  # fmt: skip
def test_settings_that_can_not_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **changes)


def test_switches_reach_the_trainer():
    config = replace(CONFIG, double=True, dueling=True, prioritized=True, num_steps=3)
    arms = dict((name, build) for name, _, build in recipe.build(config).turns)
    pole, grid = arms["pole | 0"](0).trainer, arms["grid | long"](0).trainer
    for trainer in (pole, grid):
        assert trainer.config.double and trainer.config.prioritized and trainer.q_net.dueling
    assert pole.config.num_steps == 3
    assert grid.config.num_steps == 1  # recorded by another policy: longer sums would be biased
