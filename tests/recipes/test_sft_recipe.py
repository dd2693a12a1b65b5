"""The recipe of fine-tuning: perplexity beside counts and beside the least possible, on a text of yours or of ours."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError, DataError
from dodona.recipes import sft as recipe

TINY = recipe.Config(num_updates=4, batch_size=4, window=22, width=12, num_layers=1, num_eval=20, num_evaluations=2)  # fmt: skip


def run(config) -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


@pytest.fixture(scope="module")
def events():
    return run(TINY)


def test_a_run_is_judged_drawn_and_resumed(events):
    assert len(recipe.judge(events)) == 3 and recipe.judge(events[:2]) == []
    assert set(recipe.figures(events)) == {"perplexity", "sample"} and recipe.figures(events[:2]) == {}  # fmt: skip
    first = recipe.build(TINY)
    begun = [repr(e) for _, e in zip(range(3), first, strict=False)]
    second = recipe.build(TINY)
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == [repr(e) for e in events[1:]]


def test_rows_miss_on_the_wrong_side(events):
    def verdicts(got):
        last = events[-1]
        return [row.verdict for row in recipe.judge([replace(last, metrics={**last.metrics, "perplexity/model": got})])]  # fmt: skip

    least = events[-1].metrics["perplexity/least possible"]
    assert verdicts(1.02 * least) == ["pass"] * 3
    assert verdicts(1.1 * least) == ["miss", "pass", "pass"]
    assert verdicts(0.9 * least) == ["pass", "miss", "pass"]
    assert verdicts(10.9) == ["miss", "pass", "miss"]


def test_the_least_possible_is_the_entropy_of_shuffled_digits(events):
    text = recipe._text(TINY)
    assert all(sorted(w) == list(recipe.DIGITS) for piece in text.held_out for w in piece.split(".")[:-1])  # fmt: skip
    assert text.floor == pytest.approx(math.log(math.factorial(10)) / 11)
    assert len(text.held_out[0]) % 11 == 0
    # counts can not beat it, and long ones come nearer
    nats = [text.counted[f"{n}-gram counts"] for n in recipe.ORDERS]
    assert min(nats) > text.floor and nats[0] > nats[1] > nats[2]


def test_counts_are_those_of_the_formula():
    text, held = "abaab", ["ab", "ba"]
    one = {c: (k + 2 / 2) / 7 for c, k in {"a": 3, "b": 2}.items()}  # mixed with 1 / symbols
    two = {
        "ab": (2 + 2 * one["b"]) / (3 + 2), "ba": (1 + 1 * one["a"]) / (1 + 1),
    }  # fmt: skip
    expected = -np.mean([math.log(x) for x in (one["a"], two["ab"], one["b"], two["ba"])])
    assert recipe._counted_nats(text, held, 2, 2) == pytest.approx(expected)
    assert recipe._counted_nats(text, ["c"], 1, 4) == pytest.approx(-math.log(2 * 0.25 / 7))


def test_a_text_of_yours_is_learned(tmp_path):
    (tmp_path / "input.txt").write_text("to be or not to be, that is the question. " * 40)
    for data in (tmp_path, tmp_path / "input.txt"):
        config = replace(TINY, data=str(data), num_updates=40, lr=1e-2, num_evaluations=1)
        events = run(config)
        assert "perplexity/least possible" not in events[-1].metrics
        assert events[-1].metrics["perplexity/model"] < events[-1].metrics["perplexity/1-gram counts"]  # fmt: skip
        assert len(recipe.judge(events)) == 1


def test_texts_that_can_not_be_read_are_named(tmp_path):
    short, bad = tmp_path / "short.txt", tmp_path / "bad.txt"
    short.write_text("too short")
    bad.write_bytes(b"\xff\xfe\x00" * 200)
    for data, message in (
        (tmp_path / "no", "there is no file .*no. Give --data FILE"),
        (short, "the text has 9 symbols, 0 pieces of 22 to learn from and 0 held out"),
        (bad, "bad.txt is no text in UTF-8"),
    ):
        with pytest.raises(DataError, match=message):
            recipe.build(replace(TINY, data=str(data)))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_updates": 0}, "num_updates must be at least 1, got 0"),
        ({"window": 5}, "window must be at least 20, got 5"),
        ({"width": 8}, "width must be a multiple of 6, got 8"),
    ],
)
def test_settings_that_can_not_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changes)
