"""The recipe meets its expectations, notices wrong builders and counts, and resumes where it stopped."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.recipes import _tree_clock as clock
from dodona.recipes import tree_traversals as recipe

SMALL = recipe.Config(largest_class_size=5, largest_permuted=4, largest=20_000)


def _events(config: recipe.Config) -> list[Event]:
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *recipe.build(config)]


@pytest.fixture(scope="module", autouse=True)
def _short_recursion():
    """With checked annotations, the recursive builder takes a hundred times as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "RECURSIVE_LARGEST", 2047)
        yield


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return _events(SMALL)


def _missed(events: list[Event]) -> list[str]:
    # measured time depends on what else the machine does
    return [
        row.name
        for row in recipe.judge(events)
        if row.verdict == "miss" and "exponent of time" not in row.name
    ]


def _changed(events: list[Event], arm: str, metric: str, value: float) -> list[Event]:
    """The last event of an arm with another number."""
    last = max(i for i, e in enumerate(events) if e.data.get("arm") == arm)
    new = replace(events[last], metrics={**events[last].metrics, metric: value})
    return [*events[:last], new, *events[last + 1 :]]


def test_every_expectation_is_met(events):
    assert _missed(events) == []
    assert len(recipe.judge(events)) == 2 + 1 + 3 + 1 + 1 + 3 + 2


@pytest.mark.parametrize("seed", range(1, 4))
def test_expectations_hold_for_other_trees(seed):
    for k, n in ((1, 3), (2, 9), (3, 15), (4, 20)):
        config = replace(SMALL, seed=seed, num_only_children=k, num_nodes=n)
        one = [recipe._growth(config, seed), recipe._choices(config, seed)]
        events = [replace(e, data={**e.data, "arm": arm}) for e, arm in zip(one, ("growth", "choices"), strict=True)]  # fmt: skip
        assert _missed(events) == [] and len(recipe.judge(events)) == 3
    assert set(recipe.figures(events)) == {"traversals", "growth", "choices"}


@pytest.mark.parametrize(
    ("arm", "metric", "value", "name"),
    [
        ("growth", "links/different", 2.0, "links on which"),
        ("growth", "stack/pops", 12.0, "nodes that left the stack"),
        ("choices", "class/distinct", 7.0, "different trees"),
        ("choices", "class/kept", 7.0, "different trees"),
        ("classes", "counted/different", 1.0, "classes of up to"),
        ("classes", "classes", 10.0, "pairs of pre"),
        ("permutations", "consistent", 15.0, "of 24 orders"),
        ("recursion", "longest", 1000.0, "longest path"),
        ("cost", "bytes/peak", 1e9, ""),
    ],
)
def test_a_wrong_number_is_a_miss(events, arm, metric, value, name):
    if arm == "cost":  # the last one is the recursion, which nothing is expected of
        events = [e for e in events if e.data.get("shape") != clock.ALONE]
        name = "bytes a node"
    missed = _missed(_changed(events, arm, metric, value))
    assert len(missed) == 1 and missed[0].startswith(name)


def test_a_wrong_class_is_a_miss(events):
    last = max(i for i, e in enumerate(events) if e.data.get("arm") == "classes")
    wrong = replace(events[last], data={**events[last].data, "sizes": {"1": 3, "4": 5, "16": 1}})
    missed = _missed([*events[:last], wrong, *events[last + 1 :]])
    assert len(missed) == 1 and missed[0].startswith("trees in classes of size")


def test_quadratic_time_is_a_miss(events):
    slow = [
        replace(e, metrics={**e.metrics, "seconds/build": 1e-9 * e.num_samples**2})
        if "shape" in e.data
        else e
        for e in events
    ]
    verdicts = [r.verdict for r in recipe.judge(slow) if "exponent of time" in r.name]
    assert verdicts == ["miss"] * 3


def test_a_builder_that_mirrors_is_noticed(monkeypatch):
    right = recipe.trees.from_post_in
    monkeypatch.setattr(recipe.trees, "from_post_in", lambda post, ino: right(post, ino).mirror())
    event = recipe._growth(SMALL, 0)
    assert event.metrics["links/different"] > 0


def test_the_recursive_builder_builds_the_tree_and_ends_at_the_limit():
    tree = clock.build_recursively([3, 9, 20, 15, 7], [9, 3, 15, 20, 7])
    assert tree["right"]["left"] == {"label": 15, "left": None, "right": None}
    longest = clock.longest_recursive_path().metrics["longest"]
    # checked annotations put frames of their own between the calls
    assert 200 < longest < clock.LIMIT
    # whoever calls from deep inside gets the same answer
    assert _deep(50) == longest


def _deep(frames: int) -> float:
    return _deep(frames - 1) if frames else clock.longest_recursive_path().metrics["longest"]


def test_timed_trees_have_the_shape_they_are_named_after():
    rng = np.random.default_rng(0)
    pre, ino = clock._traversals("complete", 7, rng)
    assert pre.tolist() == [0, 1, 2, 3, 4, 5, 6] and ino.tolist() == [2, 1, 3, 0, 5, 4, 6]
    pre, ino = clock._traversals("path", 4, rng)
    assert ino.tolist() == pre[::-1].tolist()
    pre, ino = clock._traversals("random", 50, rng)
    assert sorted(pre.tolist()) == sorted(ino.tolist()) == list(range(50))


def test_figures_exist_for_a_whole_run_and_for_one_that_just_began(events):
    names = {"traversals", "growth", "choices", "classes", "time", "memory"}
    assert set(recipe.figures(events)) == names
    assert recipe.figures(events[:1]) == {} and recipe.judge(events[:1]) == []
    half = [e for e in events if e.data.get("shape") in (None, "random")]
    assert set(recipe.figures(half)) == names


def test_an_odd_number_of_nodes_has_trees_that_are_known_alone(events):
    title = recipe.figures(events)["classes"].layout.title.text
    assert title == "2 of 42 trees of 5 nodes are known from preorder and postorder alone"


def test_the_tree_grows_label_by_label(events):
    growth = recipe.figures(events)["growth"]
    assert len(growth.frames) == SMALL.num_nodes
    first = growth.frames[0].data[-1]
    assert sum(colour != "#ffffff" for colour in first.marker.color) == 1  # one on the stack


def _without_cost(event: Event) -> str:
    kept = {k: v for k, v in event.metrics.items() if not k.startswith(("seconds/", "bytes/"))}
    return repr(replace(event, metrics=kept))


def test_a_resumed_run_gives_the_same_events(events):
    whole = [_without_cost(e) for e in events[1:]]
    for stop in (6, len(whole) - 2):
        first = recipe.build(SMALL)
        walk = iter(first)
        begun = [_without_cost(next(walk)) for _ in range(stop)]
        second = recipe.build(SMALL)
        second.load_state_dict(first.state_dict())
        assert begun + [_without_cost(e) for e in second] == whole


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"num_nodes": 2}, r"num_nodes must be in \[3, 20\], got 2"),
        ({"num_only_children": 5}, r"num_only_children must be in \[1, 4\], got 5"),
        ({"largest_class_size": 12}, r"largest_class_size must be in \[3, 11\], got 12"),
        ({"largest_permuted": 9}, r"largest_permuted must be in \[3, 8\], got 9"),
        ({"largest": 999}, "largest must be at least 10000, got 999"),
    ],
)
def test_bad_fields_are_named(field, message):
    with pytest.raises(ConfigError, match=message):
        recipe.Config(**field)
