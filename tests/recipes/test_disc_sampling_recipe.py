"""The recipe meets its expectations, notices wrong samplers, and resumes where it stopped."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.recipes import disc_sampling as recipe

SMALL = recipe.Config(
    num_points=5000, num_shown=500, num_trials=20_000, num_samples=1000, largest_dim=5
)


def _events(config: recipe.Config) -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return _events(recipe.PRESETS["quick"])


def _missed(events: list[Event]) -> list[str]:
    return [row.name for row in recipe.judge(events) if row.verdict == "miss"]


def test_every_expectation_is_met(events):
    assert _missed(events) == []
    assert len(recipe.judge(events)) == 3 * 2 + 2 + 1 + 4 + 1


@pytest.mark.parametrize("seed", range(5))
def test_expectations_hold_for_other_seeds(seed):
    assert _missed(_events(replace(SMALL, seed=seed, methods=(*recipe.DISC_METHODS, "naive")))) == []  # fmt: skip


def test_a_wrong_sampler_under_an_exact_name_is_a_miss(monkeypatch):
    right = recipe.sample_disc
    monkeypatch.setattr(recipe, "sample_disc", lambda n, *, method, rng: right(n, method="naive", rng=rng))  # fmt: skip
    missed = _missed(_events(replace(SMALL, methods=("max",))))
    assert [name.split(":")[0] for name in missed] == ["max", "max"]


def test_a_naive_sampler_that_passes_is_a_miss(monkeypatch):
    right = recipe.sample_disc
    monkeypatch.setattr(recipe, "sample_disc", lambda n, *, method, rng: right(n, method="sqrt", rng=rng))  # fmt: skip
    missed = _missed(_events(replace(SMALL, methods=("naive",))))
    assert [name.split(":")[0] for name in missed] == ["naive", "naive"]


@pytest.mark.parametrize(
    ("arm", "metric", "factor", "misses"),
    [
        ("acceptance", "pi/estimate", 1.02, 1),
        ("dimensions", "accepted", 0.8, 1),
        ("squeeze", "evaluations", 0.8, 2),
        ("squeeze", "accepted", 0.8, 2),
    ],
)
def test_wrong_counts_are_misses(events, arm, metric, factor, misses):
    changed = [
        replace(e, metrics={**e.metrics, metric: factor * e.metrics[metric]}) if e.data.get("arm") == arm else e
        for e in events
    ]  # fmt: skip
    assert len(_missed(changed)) == misses


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began(events):
    assert set(recipe.figures(events)) == {"clouds", "p-values", "acceptance", "dimensions", "squeeze"}  # fmt: skip
    assert recipe.figures(events[:1]) == {}
    assert recipe.judge(events[:1]) == []
    # a method that is still drawing has no cloud yet
    assert recipe.figures(events[:3]) == {}


def test_seven_methods_make_two_rows_of_clouds():
    config = replace(SMALL, methods=(*recipe.DISC_METHODS, "naive"))
    found = recipe.figures(_events(config))
    assert {"clouds", "clouds-2"} <= set(found)
    assert len(found["clouds"].data) == 4 * 3 and len(found["clouds-2"].data) == 3 * 3


def test_the_title_of_the_p_values_tells_what_was_found(events):
    naive = [e for e in events if e.data.get("arm") == "disc | naive"]
    found = recipe._rejected_from(naive)
    title = recipe.figures(events)["p-values"].layout.title.text
    assert title == f"No exact way is ever rejected, r = R U is from {found:.0f} points on"
    assert np.isinf(recipe._rejected_from(naive[:2]))


def test_a_resumed_run_gives_the_same_events():
    whole = [repr(e) for e in recipe.build(SMALL)]
    for stop in (3, 20, len(whole) - 1):
        first = recipe.build(SMALL)
        walk = iter(first)
        begun = [repr(next(walk)) for _ in range(stop)]
        second = recipe.build(SMALL)
        second.load_state_dict(first.state_dict())
        assert begun + [repr(e) for e in second] == whole


def test_streams_depend_on_the_seed_and_not_on_the_other_methods():
    one, two = ([repr(e) for e in recipe.build(replace(SMALL, seed=s))] for s in (0, 1))
    assert one[10] != two[10]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"num_points": 10}, "num_points must be at least 1000, got 10"),
        ({"num_shown": 5000}, r"num_shown must be in \[100, 4000\] .* got 5000"),
        ({"largest_dim": 13}, r"largest_dim must be in \[3, 12\], got 13"),
        ({"methods": ("sqr",)}, r"methods must be among sqrt, .* got \['sqr'\]"),
        ({"methods": ()}, "methods must be among .* got none"),
    ],
)
def test_bad_fields_are_named(field, message):
    with pytest.raises(ConfigError, match=message):
        recipe.Config(**field)
