"""The recipe of PPO's details: judged by intervals where a source expects something, drawn at any time, resumed."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.recipes import ppo_ablate

TINY = ppo_ablate.Config(num_seeds=2, num_env_steps=2048)


def started(config) -> Event:
    return Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})


def study(levels, *, config=None, num_seeds=6):
    """Events of runs whose scores on CartPole lie around these levels, as given and without each detail."""
    config = replace(TINY, num_seeds=num_seeds, num_env_steps=10_000) if config is None else config
    events, rng = [started(config)], np.random.default_rng(0)
    for name, level in levels.items():
        for seed in range(num_seeds):
            score = level + 0.02 * rng.normal()
            data = {"arm": f"{name} / CartPole-v1", "seed": seed}
            events += [
                Event(kind="update", step=i, num_samples=n, metrics={"episode/return": 20 + 480 * score}, data=data)
                for i, n in enumerate((5_000, 9_728), start=1)
            ]  # fmt: skip
    return events


GOOD = {"as given": 0.6, "minibatches": 0.2, "clip_value": 0.7, "debug_variables": 0.6, "gae": 0.5}


def missed(events):
    return [row.name.split(":")[0] for row in ppo_ablate.judge(events) if row.verdict == "miss"]


def test_a_study_that_says_what_its_sources_say_passes():
    rows = ppo_ablate.judge(study(GOOD))
    assert [row.verdict for row in rows] == ["pass"] * 4
    assert rows[0].measured == pytest.approx(0.6, abs=0.03)
    assert (
        rows[1].measured == pytest.approx(0.4, abs=0.05) and "interval above 0" in rows[1].expected
    )


@pytest.mark.parametrize(
    "change, name",
    [
        ({name: 0.1 for name in GOOD} | {"minibatches": 0.0, "clip_value": 0.2}, "as given"),
        ({"minibatches": 0.6}, "minibatches"),
        ({"clip_value": 0.3}, "clip_value"),
        ({"debug_variables": 0.3}, "debug_variables"),
    ],
)
def test_what_comes_out_otherwise_is_a_miss(change, name):
    assert missed(study(GOOD | change)) == [name]


def test_details_are_drawn_from_the_most_helpful_to_the_least():
    figures = ppo_ablate.figures(study(GOOD))
    assert set(figures) == {"details", "scores"}
    order = list(figures["details"].layout.yaxis.categoryarray)[::-1]
    assert order[0] == "minibatches" and order[-1] == "clip_value"
    assert "3 of 4 details make a difference beyond chance" in figures["details"].layout.title.text
    points = figures["scores"].data[0]
    assert len(points.x) == 5 * 6 and set(points.y) == {"as given", *(f"no {n}" for n in GOOD if n != "as given")}  # fmt: skip


def test_a_variant_that_is_still_running_is_left_out():
    events = study({"as given": 0.6, "gae": 0.5})
    assert ppo_ablate.figures(events[:-1]) == {}  # gae's last seed
    assert len(ppo_ablate.judge(events[:-1])) == 1
    assert ppo_ablate.judge(events[:10]) == [] and ppo_ablate.judge([]) == []
    assert ppo_ablate.figures(events[:1]) == {}


def test_a_tiny_study_runs_in_step_and_is_resumed_from_the_middle():
    whole = [started(TINY), *ppo_ablate.build(TINY)]
    arms = list(dict.fromkeys(e.data["arm"] for e in whole[1:]))
    assert arms == [f"{name} / CartPole-v1" for name in ("as given", *ppo_ablate.SOME)]
    assert [e.data["seed"] for e in whole[1:5]] == [0, 1, 0, 1]
    assert len(ppo_ablate.judge(whole)) == 3 and set(ppo_ablate.figures(whole)) == {"details", "scores"}  # fmt: skip
    first = ppo_ablate.build(TINY)
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(11)]
    second = ppo_ablate.build(TINY)
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == [repr(e) for e in whole[1:]]


def test_all_details_of_both_tasks_are_one_study():
    arms = ppo_ablate.build(replace(TINY, env="both", details="all", seed=3))
    names = {name for name, _, _ in arms.turns}
    assert len(names) == 2 * 14 and "debug_variables / Acrobot-v1" in names
    alone = {name.split(" / ")[0] for name, seed, _ in arms.turns if seed == 4}
    assert alone == {"adam_eps", "debug_variables", "separate_networks"}  # these can not be stacked


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_seeds": 1}, "num_seeds must be at least 2, got 1"),
        ({"num_env_steps": 100}, "num_env_steps must be at least 2048, got 100"),
    ],
)
def test_wrong_configurations_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)
