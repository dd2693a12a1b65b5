"""The recipe meets its expectations, notices wrong numbers, and resumes where it stopped."""

import functools
from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.recipes import bellman_optimality as recipe

SMALL = recipe.Config(num_gammas=40, num_starts=4, num_iterations=8)


def _events(config: recipe.Config) -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return _events(recipe.Config())


def _sweep_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep does not depend on the seed and takes seconds: made once, given out again."""
    sweep = functools.cache(recipe._sweep_events)
    monkeypatch.setattr(recipe, "_sweep_events", lambda config: sweep(replace(config, seed=0)))


def test_every_expectation_is_met(events):
    rows = recipe.judge(events)
    assert [row.name for row in rows if row.verdict == "miss"] == []
    assert len(rows) == 4 + 3 + 1


def test_a_detour_of_two_steps_loses_at_the_golden_ratio():
    assert recipe._root(recipe.BREAKS["2g - 1 = g^3"]) == pytest.approx((5**0.5 - 1) / 2, abs=1e-14)


def test_roots_of_breaks_solve_their_equations():
    *detours, last = (recipe._root(p) for p in recipe.BREAKS.values())
    for g, k in zip(detours, (13, 11, 9, 7, 5, 3), strict=True):
        assert 2 * g - 1 == pytest.approx(g**k, abs=1e-13)
    assert 2 * last**3 + last**2 == pytest.approx(last + 1, abs=1e-13)


@pytest.mark.parametrize("num_gammas", [3, 60, 100])
def test_every_break_point_is_found_however_coarse_the_sweep(num_gammas):
    rows = recipe.judge(_events(replace(SMALL, num_gammas=num_gammas)))
    assert [r.name for r in rows if r.verdict == "miss"] == []


def test_a_moved_break_point_is_a_miss(events):
    moved = [
        replace(e, data={**e.data, "breaks": [b + 1e-6 for b in e.data["breaks"]]})
        if "breaks" in e.data else e
        for e in events
    ]  # fmt: skip
    assert [r.name for r in recipe.judge(moved) if r.verdict == "miss"] == [
        "largest distance of a break point to its root"
    ]


def test_a_lost_break_point_is_a_miss(events):
    lost = [
        replace(e, data={**e.data, "breaks": e.data["breaks"][1:]}) if "breaks" in e.data else e
        for e in events
    ]
    assert sum(r.verdict == "miss" for r in recipe.judge(lost)) == 2


def test_a_ratio_above_gamma_is_a_miss(events):
    last = replace(events[-1], metrics={**events[-1].metrics, "contraction/ratio": 0.9001})
    missed = [r.name for r in recipe.judge([*events[:-1], last]) if r.verdict == "miss"]
    assert len(missed) == 1
    assert missed[0].startswith("worst contraction ratio")


def test_packed_ties_unpack_to_the_same_arrows():
    ties = np.random.default_rng(0).random((25, 5)) < 0.5
    bits = np.array(recipe._packed(ties))[:, None] >> np.arange(5) & 1
    np.testing.assert_array_equal(bits.astype(bool), ties)


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began(events):
    assert set(recipe.figures(events)) == {"panels", "discount", "slider", "contraction"}
    assert recipe.figures(events[:1]) == {}
    assert recipe.judge(events[:1]) == []


def test_a_resumed_run_gives_the_same_events(monkeypatch):
    whole = [repr(e) for e in recipe.build(SMALL)]
    _sweep_once(monkeypatch)
    for stop in (2, 5, 9):
        first = recipe.build(SMALL)
        walk = iter(first)
        begun = [repr(next(walk)) for _ in range(stop)]
        second = recipe.build(SMALL)
        second.load_state_dict(first.state_dict())
        assert begun + [repr(e) for e in second] == whole


def test_starts_depend_on_the_seed(monkeypatch):
    _sweep_once(monkeypatch)
    one, two = ([repr(e) for e in recipe.build(replace(SMALL, seed=s))] for s in (0, 1))
    assert one[-1] != two[-1]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"num_gammas": 2}, "num_gammas must be at least 3, got 2"),
        ({"largest_gamma": 1.0}, r"largest_gamma must be in \(0.9, 1\), got 1.0"),
        ({"gamma": 0.0}, r"gamma must be in \(0, 1\), got 0.0"),
    ],
)
def test_bad_fields_are_named(field, message):
    with pytest.raises(ConfigError, match=message):
        recipe.Config(**field)
