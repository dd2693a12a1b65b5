"""The recipe of Kimi k1.5: judged by its last evaluations, drawn at any time, resumed in the middle of a leg."""

from dataclasses import replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import CheckpointError, ConfigError
from dodona.objectives import diff
from dodona.recipes import kimi_k1_5 as recipe
from dodona.recipes._kimi_course import Grids

TINY = replace(
    recipe.PRESETS["quick"], num_sft=10, num_updates=2, num_prompts=4, group_size=2, num_short=1, num_samples=2,
    num_unseen=6, num_grids=200,
)  # fmt: skip


def event(leg, step, tokens, *, kind="evaluation", seed=0, **metrics) -> Event:
    named = {name.replace("__", "/"): x for name, x in metrics.items()}
    return Event(kind=kind, step=step, num_samples=tokens, metrics=named, data={"leg": leg, "seed": seed})  # fmt: skip


def evaluation(leg, rate, tokens, *, spent=(1000, 2000, 3000), seed=0) -> list[Event]:
    """Three evaluations, the last at this rate and length."""
    return [
        event(
            leg, i, n, seed=seed, unseen__pass=rate, unseen__tokens=tokens, unseen__pass_se=0.01,
            unseen__tokens_right=tokens - 0.2,
        )
        for i, n in enumerate(spent, start=1)
    ]  # fmt: skip


def good(seed=0) -> list[Event]:
    legs = {
        "SFT": (0.68, 7.0), "GRPO": (0.85, 5.0), "Kimi": (0.86, 6.0), recipe.KEPT: (0.88, 5.5), "Kimi, length": (0.85, 3.2),
        "short SFT": (0.7, 3.0), "merging": (0.8, 4.0), "shortest rejection": (0.82, 4.2), "DPO": (0.8, 4.5),
        "length RL": (0.86, 3.1),
    }  # fmt: skip
    return [e for leg, (rate, n) in legs.items() for e in evaluation(leg, rate, n, seed=seed)]


def changed(leg, rate=None, tokens=None) -> list[Event]:
    more = {} if rate is None else {"unseen/pass": rate}
    more |= {} if tokens is None else {"unseen/tokens": tokens, "unseen/tokens_right": tokens}
    return [
        replace(e, metrics={**e.metrics, **more}) if e.data["leg"] == leg else e for e in good()
    ]


def missed(events) -> list[str]:
    return [row.name.split(" (")[0] for row in recipe.judge(events) if row.verdict == "miss"]


# ---------------------------------------------------------------------- judging
def test_good_numbers_pass():
    assert missed(good()) == [] and len(recipe.judge(good())) == 11
    assert missed(good() + good(seed=1)) == []


@pytest.mark.parametrize(
    "leg, rate, tokens, row",
    [
        ("Kimi", 0.79, None, "pass rate of Kimi at equal tokens"),
        ("SFT", 0.84, None, "pass rate of Kimi"),
        (recipe.KEPT, 0.85, None, "pass rate where the optimizer is not reset at every iteration"),
        ("Kimi, length", None, 5.5, "tokens of a right answer with the length reward"),
        ("Kimi, length", 0.7, None, "pass rate with the length reward"),
        ("length RL", None, 4.1, "length RL: tokens of an answer against the long model's"),
        ("length RL", 0.83, None, "length RL: pass rate"),
        ("merging", 0.8, 6.5, "merging: tokens of an answer against the long model's, pass rate 0.800"),
        ("DPO", 0.95, 3.1, "pass rate per token of length RL"),
    ],
)  # fmt: skip
def test_each_expectation_can_be_missed(leg, rate, tokens, row):
    assert row in missed(changed(leg, rate, tokens))


def test_rates_are_compared_where_the_thriftier_leg_ended():
    events = evaluation("SFT", 0.5, 7.0) + evaluation("GRPO", 0.7, 5.0, spent=(500, 1000, 1500))
    late = evaluation("Kimi", 0.6, 6.0) + evaluation("Kimi", 0.95, 6.0, spent=(4000, 5000, 6000))
    (row, _) = recipe.judge(events + late)
    assert row.measured == 0.6 and "GRPO: 0.700" in row.name and row.verdict == "miss"


def test_rest_is_judged_where_it_ran():
    rows = recipe.judge(good() + evaluation("ReST", 0.9, 6.0))
    assert len(rows) == 12
    assert [r.verdict for r in rows if "ReST" in r.name] == ["miss"]


def test_nothing_is_judged_or_drawn_too_early():
    assert recipe.judge([]) == [] and recipe.figures([]) == {}
    begun = evaluation("SFT", 0.5, 7.0)
    assert recipe.judge(begun) == [] and recipe.figures(begun) == {}
    raced = [e for e in good() if e.data["leg"] in ("SFT", "GRPO")]
    assert recipe.judge(raced) == [] and set(recipe.figures(raced)) == {"race"}


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="group_size must be at least 2, got 1"):
        recipe.Config(group_size=1)
    with pytest.raises(ConfigError, match="tau must be above 0, got 0"):
        recipe.Config(tau=0.0)


# ---------------------------------------------------------------------- the course
@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(recipe.build(TINY))


def test_every_leg_is_evaluated(events):
    legs = ["SFT", "GRPO", "Kimi", recipe.KEPT, "Kimi, length", "short SFT", *recipe.SHORT]
    assert list(dict.fromkeys(e.data["leg"] for e in events)) == legs
    for leg in legs:
        last = [e for e in events if e.data["leg"] == leg][-1]
        assert last.kind == "evaluation" and 0.0 <= last.metrics["unseen/pass"] <= 1.0
    assert len(recipe.judge(events)) >= 5
    assert set(recipe.figures(events)) >= {"race", "distance", "long2short"}


def test_the_length_reward_begins_after_the_warm_up(events):
    """Until then both legs are the same run."""
    runs = [
        [e.metrics for e in events if e.data["leg"] == leg and e.kind == "update"]
        for leg in ("Kimi", "Kimi, length")
    ]
    assert runs[0][0] == runs[1][0] and runs[0][1] != runs[1][1]


def test_each_variant_differs_in_its_own_thing():
    grids = Grids(3, 16, num_grids=200, num_unseen=6, seed=0)
    legs = recipe._Legs(TINY, grids, 0)
    policies = {"SFT": legs.blank()}
    rest, mean, rates, levels, partial = (legs.variant(name, policies) for name in recipe.MORE)
    kimi = legs.kimi({}, policies)
    assert diff(kimi.objective, mean.objective) == {"log_z": ("mean", "logmeanexp")}
    assert (rest.objective.surrogate, rest.objective.baseline) == ("unclipped", "none")
    assert type(rates.collector.sampler).__name__ == "PrioritizedSampler"
    assert type(levels.collector.sampler).__name__ == "CurriculumSampler"
    assert 0 < len(levels.collector.items) <= len(grids.train)
    assert partial.collector.buffer.budget == 4
    kept = legs.kimi({"reset": False}, policies)
    assert (kimi.bound.config.reset_optimizer, kept.bound.config.reset_optimizer) == (True, False)


def test_a_run_goes_on_where_it_was_cut(events):
    cut = next(i for i, e in enumerate(events) if e.data["leg"] == "Kimi" and e.kind == "update")
    trainer = recipe.build(TINY)
    for _, _ in zip(range(cut + 1), trainer, strict=False):
        pass
    other = recipe.build(TINY)
    other.load_state_dict(trainer.state_dict())
    rest = list(other)
    assert [e.data["leg"] for e in rest] == [e.data["leg"] for e in events[cut + 1 :]]
    for a, b in zip(rest, events[cut + 1 :], strict=True):
        assert a.metrics == b.metrics and a.step == b.step


def test_another_course_is_not_resumed():
    trainer = recipe.build(TINY)
    next(iter(trainer))
    state = trainer.state_dict()
    with pytest.raises(CheckpointError, match="Resume with the run's own config"):
        recipe.build(replace(TINY, legs="all")).load_state_dict(state)


# ---------------------------------------------------------------------- the grids
def test_demonstrations_are_right_and_full_of_detours():
    grids = Grids(3, 16, num_grids=1000, num_unseen=50, seed=0)
    shown = grids.detours(1, 3, seed=0)
    items = {item.prompt: item for item in grids.train}
    assert all(grids.task.verify(items[p], plan).verdict == "right" for p, plan in shown)
    extra = np.array([len(plan) - len(items[p].answer) for p, plan in shown])
    assert set(extra.tolist()) == {2, 4, 6}
    lengths = np.array([len(plan) for _, plan in shown])
    assert lengths.mean() > 2 * np.mean([len(i.answer) for i in grids.train])
    assert not {i.prompt for i in grids.unseen} & set(items)
    assert grids.shortest == 1 + np.mean([len(i.answer) for i in grids.unseen])
