"""The recipe meets its expectations, notices wrong numbers, and resumes where it stopped."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.algorithms import kmp
from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.recipes import kmp as recipe

SMALL = recipe.Config(
    longest_text=100, pattern_length=8, num_characters=3000, num_sequences=64, num_steps=60, vocab_size=400
)  # fmt: skip


def _events(config: recipe.Config) -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


@pytest.fixture(scope="module", autouse=True)
def _short_timing():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "TIMED", 0.0)
        yield


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return _events(SMALL)


def _missed(events: list[Event]) -> list[str]:
    # the measured speed depends on what else the machine does, and on the checked annotations of tests
    return [
        row.name
        for row in recipe.judge(events)
        if row.verdict == "miss" and "tokens per second" not in row.name
    ]


def _changed(events: list[Event], arm: str, **metrics: float) -> list[Event]:
    """The last event of an arm with other numbers."""
    last = max(i for i, e in enumerate(events) if e.data.get("arm") == arm)
    names = {name.replace("_", "/", 1): value for name, value in metrics.items()}
    new = replace(events[last], metrics={**events[last].metrics, **names})
    return [*events[:last], new, *events[last + 1 :]]


def test_every_expectation_is_met(events):
    assert _missed(events) == []
    assert len(recipe.judge(events)) == 9


@pytest.mark.parametrize(
    ("arm", "metrics", "name"),
    [
        ("walk", {"comparisons_kmp": 200.0}, "comparisons of KMP"),
        ("walk", {"comparisons_naive": 745.0}, "comparisons of the naive search"),
        ("stream", {"errors_steps": 1.0}, "steps of"),
        ("stream", {"held_exact": 1e4}, "characters that wait"),
        ("stream", {"held_free": -1e4}, "characters behind which"),
        ("batch", {"batch_differences": 1.0}, "rows of"),
        ("batch", {"seconds_build": 3.0}, "seconds to build"),
    ],
)
def test_a_wrong_number_is_a_miss(events, arm, metrics, name):
    missed = _missed(_changed(events, arm, **metrics))
    assert len(missed) == 1
    assert missed[0].startswith(name)


def test_a_slow_table_is_a_miss(events):
    slow = _changed(events, "batch", speed_table=19.0, speed_find=1.0)
    rows = {row.name: row.verdict for row in recipe.judge(slow)}
    assert rows["tokens per second of the table over decode-and-find"] == "miss"


def test_a_matcher_with_a_fixed_buffer_is_noticed(monkeypatch):
    class Fixed(kmp.StopMatcher):
        """Shows a character only when three more have come."""

        text = ""

        def feed(self, chunk):
            shown = self.text[:-3]
            self.text += chunk
            event = super().feed(chunk)
            return event if event.stopped else event._replace(text=self.text[:-3][len(shown) :])

    monkeypatch.setattr(recipe.kmp, "StopMatcher", Fixed)
    wrong = [e.metrics["errors/steps"] for e in recipe._Stream(SMALL, 0)]
    assert sum(wrong) > 1000


def test_the_source_has_the_frequencies_of_its_sample():
    source = recipe.Source(0)
    text = "".join(source.draw() for _ in range(20_000))
    for piece in ("</s>", "<b>", "\n\nQ:", "border"):
        expected = recipe.SAMPLE.count(piece) / len(recipe.SAMPLE)
        assert abs(text.count(piece) / len(text) / expected - 1) < 0.35, piece


def test_every_token_row_spells_one_stop():
    vocabulary, tokens_BT = recipe._token_rows(SMALL, 3)
    assert tokens_BT.shape == (64, 60) and len(vocabulary) == SMALL.vocab_size
    for row in tokens_BT:
        text = b"".join(vocabulary[token] for token in row)
        assert sum(text.count(stop.encode()) for stop in recipe.STOPS) == 1


def test_table_and_search_find_the_same_places_one_by_one():
    vocabulary = [b"x", b"</s>", b"<", b"/s>", b"\n\nQ:y"]
    columns = np.array([[0, 2, 0, 4], [1, 3, 0, 0], [0, 0, 0, 1]])
    step, inside = recipe._stop_by_table(kmp.TokenStopTable(recipe.STOPS, vocabulary), columns)
    assert step.tolist() == [1, 1, -1, 0]
    assert inside.tolist() == [4, 3, 0, 4]
    stops = [s.encode() for s in recipe.STOPS]
    assert recipe._stop_by_find(stops, vocabulary, columns).tolist() == [5, 4, -1, 4]


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began(events):
    assert set(recipe.figures(events)) == {"walk", "sliding", "comparisons", "stream", "batch"}
    assert recipe.figures(events[:1]) == {}
    assert recipe.judge(events[:1]) == []


def _without_times(event: Event) -> str:
    kept = {k: v for k, v in event.metrics.items() if not k.startswith(("speed/", "seconds/"))}
    return repr(replace(event, metrics=kept))


def test_a_resumed_run_gives_the_same_events():
    whole = [_without_times(e) for e in recipe.build(SMALL)]
    for stop in (3, 12, len(whole) - 1):
        first = recipe.build(SMALL)
        walk = iter(first)
        begun = [_without_times(next(walk)) for _ in range(stop)]
        second = recipe.build(SMALL)
        second.load_state_dict(first.state_dict())
        assert begun + [_without_times(e) for e in second] == whole


def test_answers_depend_on_the_seed():
    one, two = (repr(list(recipe._Stream(SMALL, seed))) for seed in (0, 1))
    assert one != two


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"vocab_size": 100}, "vocab_size must be at least 300, got 100"),
        ({"longest_text": 100, "pattern_length": 101}, "pattern_length 101 is above longest_text 100"),
        ({"pattern": ""}, "pattern must be a word over a, b, c, d, got ''"),
        ({"text": "abe"}, "text must be a word over a, b, c, d, got 'abe'"),
    ],
)  # fmt: skip
def test_bad_fields_are_named(field, message):
    with pytest.raises(ConfigError, match=message):
        recipe.Config(**field)
