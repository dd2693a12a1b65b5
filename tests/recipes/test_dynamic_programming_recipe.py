"""The planning recipe meets its expectations, notices wrong numbers, and resumes where it stopped."""

import csv
import io
from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError, InputError
from dodona.mdp import solve, worlds
from dodona.recipes import dynamic_programming as recipe

SMALL = recipe.Config(
    mdp="maze", height=6, width=7, gamma=0.9, num_gammas=3,
    planners=("value iteration", "inexact PI", "auto"),
)  # fmt: skip


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
    assert len(recipe.judge(events)) == 3 + 3 + 2  # gaps, published values, the two of the shortcut


def test_the_default_needs_fewer_sweeps_in_a_maze_and_a_planner_that_does_not_is_a_miss():
    found = _events(replace(SMALL, height=20, width=20, gamma=0.999))
    assert _missed(found) == []
    slow = [
        replace(e, metrics={**e.metrics, "sweeps": 1e6}) if "auto" in e.data.get("arm", "") else e
        for e in found
    ]
    assert [name.partition(":")[0] for name in _missed(slow)] == ["maze"]


def test_a_wrong_value_is_a_miss(events):
    wrong = [
        replace(e, data={**e.data, "checked": e.data["checked"] + 1e-4})
        if "checked" in e.data
        else e
        for e in events
    ]
    assert len(_missed(wrong)) == 2  # the book prints its own to three digits only


def test_a_gap_that_is_not_proven_is_a_miss(events):
    last = max(i for i, e in enumerate(events) if e.data.get("arm") == "Taxi | auto")
    open_end = replace(events[last], data={**events[last].data, "converged": False})
    assert _missed([*events[:last], open_end, *events[last + 1 :]]) == [
        "Taxi: widest proven gap of 4 planners"
    ]


def test_the_answer_is_a_table_with_the_bracket_of_every_state():
    final = [e for e in _events(SMALL) if "artifacts" in e.data][-1]
    table = list(csv.DictReader(io.StringIO(final.data["artifacts"]["solution.csv"].decode())))
    known = solve(worlds.maze(6, 7, gamma=0.9), tol=1e-6)
    assert [int(row["state"]) for row in table] == list(range(42))
    lower, upper = (np.array([float(row[k]) for row in table]) for k in ("lower", "upper"))
    assert np.all(lower <= known.upper) and np.all(upper >= known.lower)
    assert np.max(upper - lower) <= 1e-6


@pytest.mark.parametrize("form", ["csv", "npz", "py"])
def test_a_model_of_one_s_own_is_a_file(tmp_path, form):
    path = tmp_path / f"mine.{form}"
    mine = worlds.mdptoolbox_small(gamma=0.9)
    if form == "csv":
        mine.to_table(path)
    elif form == "npz":
        P, R, gamma = mine.dense()
        np.savez(path, P=P, R=R, gamma=gamma, layout="sas")
    else:
        path.write_text(
            "from dodona.mdp import worlds\ndef mdp():\n    return worlds.mdptoolbox_small(gamma=0.9)\n"
        )
    config = recipe.Config(mdp=str(path), gamma=0.9, planners=("auto",), num_gammas=0)
    final = _events(config)[-1]
    assert final.data["converged"] and final.data["checked"] == pytest.approx(42.44186047, abs=1e-6)


def test_a_resumed_run_gives_the_same_events():
    def told(event):
        return repr(replace(event, seconds=None))

    whole = [told(e) for e in recipe.build(SMALL)]
    for stop in (1, 4, len(whole) - 2):
        first = recipe.build(SMALL)
        walk = iter(first)
        begun = [told(next(walk)) for _ in range(stop)]
        second = recipe.build(SMALL)
        second.load_state_dict(first.state_dict())
        assert begun + [told(e) for e in second] == whole


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"planners": ("value iteratoin",)}, "planners must be among .* got"),
        ({"planners": ()}, "planners must be among"),
        ({"num_gammas": -1}, "num_gammas must be >= 0, got -1"),
        ({"tol": 0.0}, "tol must be > 0 and finite, got 0.0"),
        ({"gamma": 1.0}, r"gamma must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_fields_are_named(field, message):
    with pytest.raises(ConfigError, match=message):
        recipe.Config(**field)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        recipe.build(recipe.Config(mdp=str(tmp_path / "nowhere.csv"), gamma=0.9))


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began(events):
    whole = recipe.figures(events)
    assert whole and set(recipe.figures(events[:3])) <= set(whole)
