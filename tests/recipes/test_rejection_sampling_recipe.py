"""Policies by rejection: predicted acceptances, exact laws, wrong ones noticed."""

from dataclasses import asdict, replace

import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.recipes import rejection_sampling as recipe

SMALL = recipe.PRESETS["quick"]


def _events(config: recipe.Config) -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


def _missed(events: list[Event]) -> list[str]:
    return [row.name for row in recipe.judge(events) if row.verdict == "miss"]


@pytest.mark.parametrize("seed", range(5))
def test_every_expectation_is_met_whatever_the_seed(seed):
    events = _events(replace(SMALL, seed=seed))
    assert _missed(events) == []
    assert len(recipe.judge(events)) == 4


def test_the_whole_axis_of_the_default_is_met():
    assert _missed(_events(recipe.Config())) == []


def test_another_temperature_is_a_miss(monkeypatch):
    right = recipe.tilted_sample
    monkeypatch.setattr(recipe, "tilted_sample", lambda *a, tau, **o: right(*a, tau=1.2 * tau, **o))
    missed = _missed(_events(SMALL))
    assert len(missed) == 2 and all("tilted" in name for name in missed)


def test_drafts_taken_for_the_target_are_a_miss(monkeypatch):
    right = recipe.speculative_sample

    def lazy(draft, target, tokens, *, rng):
        return tokens, right(draft, target, tokens, rng=rng)[1]

    monkeypatch.setattr(recipe, "speculative_sample", lazy)
    (missed,) = _missed(_events(SMALL))
    assert "law" in missed


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began():
    events = _events(SMALL)
    assert set(recipe.figures(events)) == {"tilted", "speculative"}
    assert recipe.figures(events[:1]) == {} and recipe.judge(events[:1]) == []


def test_a_resumed_run_gives_the_same_events():
    whole = [repr(e) for e in recipe.build(SMALL)]
    first = recipe.build(SMALL)
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(4)]
    second = recipe.build(SMALL)
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == whole


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"num_samples": 10}, "num_samples must be at least 1000, got 10"),
        ({"taus": (0.0,)}, r"taus must be finite numbers > 0, at least one, got \(0.0,\)"),
        ({"temperatures": ()}, r"temperatures must be finite numbers > 0, at least one, got \(\)"),
    ],
)
def test_bad_fields_are_named(field, message):
    with pytest.raises(ConfigError, match=message):
        recipe.Config(**field)
