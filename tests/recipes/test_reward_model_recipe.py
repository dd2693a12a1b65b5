"""The recipe of real comparisons: whole questions are held out, judges that read nothing, clear words without data."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError, DataError
from dodona.language import CharTokenizer
from dodona.recipes import reward_model as recipe

TINY = recipe.Config(num_updates=4, batch_size=4, width=8, num_layers=1, num_evaluations=2, max_tokens=40)  # fmt: skip


def rows(num=20):
    """Model "a" is right more often than "b"; a right solution is the shorter one."""
    rng = np.random.default_rng(0)
    for i in range(num):
        right = (True, False) if rng.random() < 0.8 else (False, True)
        yield {
            "question": f"How many are {i} and 1?", "ground_truth": f"A: {i + 1}",
            **{name: {"solution": f"A: {i + 1}" if ok else f"well, A: {i}0", "is_correct": ok} for name, ok in zip("ab", right, strict=True)},
        }  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gsm8k")
    (folder / recipe.FILE).write_text("\n".join(map(json.dumps, rows())) + "\n")
    return str(folder)


@pytest.fixture(scope="module")
def events(data):
    config = replace(TINY, data=data)
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


def test_a_run_is_judged_and_drawn(events):
    assert [row.verdict for row in recipe.judge(events)][2] == "pass"
    assert len(recipe.judge(events)) == 3 and recipe.judge(events[:2]) == []
    assert set(recipe.figures(events)) == {"accuracy", "judges"} and recipe.figures(events[:2]) == {}  # fmt: skip
    last = events[-1].metrics
    assert last["accuracy/the shorter one"] == 1.0
    assert last["accuracy/reward model/low"] <= last["accuracy/reward model"] <= last["accuracy/reward model/high"]  # fmt: skip


def test_whole_questions_are_held_out(data):
    config = replace(TINY, data=data)
    train, held = recipe._split(recipe._read(config), config)
    assert {p.question for p in train}.isdisjoint(p.question for p in held)
    assert len({p.question for p in held}) == 5 and len(train) + len(held) == 20


def test_who_knows_the_author_is_right_as_often_as_that_author(data):
    config = replace(TINY, data=data)
    train, held = recipe._split(recipe._read(config), config)
    skill = recipe._skill(train)
    assert skill["a"] == pytest.approx(np.mean([p.authors[0] == "a" for p in train]))
    seen = recipe._Accuracies(train, held, CharTokenizer("".join(sorted({c for p in (*train, *held) for t in p[:3] for c in t}))), True)  # fmt: skip
    expected = [p.authors[0] == "a" for p in held]
    np.testing.assert_array_equal(seen.easy["which model wrote it"], expected)


def test_chance_is_said_and_worse_than_chance_is_a_miss(events):
    def judged(got, low, high):
        name = "accuracy/reward model"
        new = {name: got, f"{name}/low": low, f"{name}/high": high, "accuracy/known": 0.9}
        return recipe.judge([replace(events[-1], metrics={**events[-1].metrics, **new})])[1]

    assert judged(0.52, 0.45, 0.58).name.endswith("chance") and judged(0.52, 0.45, 0.58).verdict == "pass"  # fmt: skip
    assert judged(0.6, 0.55, 0.65).name.endswith("better than chance")
    assert judged(0.4, 0.35, 0.45).verdict == "miss"


def test_a_resumed_run_gives_the_same_events(data, events):
    config = replace(TINY, data=data)
    first = recipe.build(config)
    begun = [repr(e) for _, e in zip(range(3), first, strict=False)]
    second = recipe.build(config)
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == [repr(e) for e in events[1:]]


def written(tmp_path, text):
    (tmp_path / recipe.FILE).write_text(text)
    return str(tmp_path)


def test_data_that_are_not_there_or_not_so_are_named(tmp_path, data):
    for config, message in (
        (TINY, "give --data DIR, a folder with model_solutions.jsonl of GSM8K"),
        (replace(TINY, data=str(tmp_path / "no")), "there is no file .*no. Expected model_solutions.jsonl"),
        (replace(TINY, data=written(tmp_path, "{")), "line 1 of .* is no row of model solutions"),
        (replace(TINY, data=written(tmp_path, '{"a": {"solution": "x"}}')), "line 1 of .*KeyError"),
        (replace(TINY, data=data, max_tokens=5), "has 20 pairs of a right and a wrong solution, 0 of at most 5"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            recipe.build(config)
    with pytest.raises(ConfigError, match="batch_size must be at most 15"):
        recipe.build(replace(TINY, data=data, batch_size=99))


def test_the_published_solutions_are_read(shared):
    config = replace(TINY, data=str(shared / "data" / "gsm8k"), max_tokens=2000)
    pairs = recipe._read(config)
    assert len(pairs) == 1172 and len({p.question for p in pairs}) == 353


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_updates": 0}, "num_updates must be at least 1, got 0"),
        ({"unseen": 1.0}, r"unseen must be in \(0, 1\), got 1.0"),
        ({"width": 6}, "width must be a multiple of 4, got 6"),
    ],
)
def test_settings_that_can_not_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changes)
