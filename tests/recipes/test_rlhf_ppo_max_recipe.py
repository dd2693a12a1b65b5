"""RLHF's recipe runs all stages, is judged both ways, resumes in the middle, and its world is what it says."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.language import CharTokenizer, generate
from dodona.language.reward_model import RewardModel
from dodona.policies import TransformerPolicy
from dodona.recipes import rlhf_ppo_max as recipe
from dodona.recipes._rlhf_task import Comparisons, Exact, in_order

TINY = recipe.Config(
    num_updates=2, num_prompts=8, num_pairs=800, rm_updates=2, sft_updates=2, width=16, num_eval=3, level=3,
    evaluate_every=1, arms=(recipe.MAX, recipe.VANILLA, "8 critic untrained"),
)  # fmt: skip


def started(config) -> Event:
    return Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})


@pytest.fixture(scope="module")
def events(request):
    patch = pytest.MonkeyPatch()
    patch.setattr(recipe, "CRITIC_UPDATES", 2)
    request.addfinalizer(patch.undo)
    return [started(TINY), *recipe.build(TINY)]


def missed(rows) -> list[str]:
    return [row.name for row in rows if row.verdict == "miss"]


def test_every_stage_of_every_arm_is_there_judged_and_drawn(events):
    stages = list(dict.fromkeys(e.data["stage"] for e in events[1:]))
    assert stages == [
        "form", "reward model", "critic of PPO-max", "PPO-max", "critic of vanilla PPO", "vanilla PPO", "8 critic untrained",
    ]  # fmt: skip
    assert len(recipe.judge(events)) == 5
    assert set(recipe.figures(events)) == {"hacking", "signs", "arms", "answers"}
    for n in (1, 4, len(events) // 2):
        recipe.judge(events[:n]), recipe.figures(events[:n])
    shown = [e for e in events if "answers" in e.data][-1].data["answers"]
    assert len(shown) == 3 and all(len(row) == 4 for row in shown)
    assert all(e.metrics["guard/skipped"] == 0 for e in events if "guard/skipped" in e.metrics)


def test_a_run_resumes_in_any_stage(events):
    whole = [repr(e) for e in events[1:]]
    stops = [i for i, e in enumerate(events[1:], 1) if e.kind == "update"]
    for stop in (stops[3], stops[-2]):
        first = recipe.build(TINY)
        begun = [repr(e) for _, e in zip(range(stop), first, strict=False)]
        second = recipe.build(TINY)
        second.load_state_dict(first.state_dict())
        assert begun + [repr(e) for e in second] == whole


def changed(events, stage, **metrics):
    names = {name.replace("__", "/", 1): x for name, x in metrics.items()}
    return [
        replace(e, metrics={**e.metrics, **names}) if e.data.get("stage") == stage and e.kind == "evaluation" else e
        for e in events
    ]  # fmt: skip


def test_rows_miss_on_the_wrong_side(events):
    good = changed(events, "reward model", pairs__held_out=0.84, pairs__bayes=0.85, eval__gold=0.2)
    good = changed(good, recipe.MAX, eval__gold=0.5, eval__kl_token=0.2, eval__model=1.0)
    good = changed(good, recipe.VANILLA, eval__gold=0.0, eval__model=2.0)
    assert missed(recipe.judge(good)) == []
    for stage, metrics in (
        ("reward model", {"pairs__held_out": 0.82}), (recipe.MAX, {"eval__gold": 0.3}),
        (recipe.MAX, {"eval__kl_token": 0.6}), (recipe.VANILLA, {"eval__gold": 0.2}),
        (recipe.VANILLA, {"eval__model": 0.5}),
    ):  # fmt: skip
        assert len(missed(recipe.judge(changed(good, stage, **metrics)))) == 1, (stage, metrics)


@pytest.mark.parametrize("name", recipe.ARMS)
def test_every_arm_is_one_switch_of_ppo_max(name):
    data = Comparisons(level=2, num_pairs=20, share=0.5, certainty=1.0, num_eval=1, seed=0)
    lab = recipe._Lab(TINY, data, CharTokenizer(data.task.alphabet), 0)
    ours, other = lab._objective(recipe.MAX), lab._objective(name)
    if name not in (recipe.VANILLA, recipe.MAX):
        differs = ours != other or lab._rlhf(name) != lab._rlhf(recipe.MAX)
        assert differs or recipe.ARMS[name].fresh_critic or recipe.ARMS[name].fresh_policy


# ---------------------------------------------------------------------- the world
def test_comparisons_follow_their_law_and_share_no_prompt():
    data = Comparisons(level=3, num_pairs=4000, share=0.5, certainty=3.0, num_eval=5, seed=0)
    prompts = [{p for p, _, _ in pairs} for pairs in (data.pairs, data.held_out)]
    assert not prompts[0] & prompts[1] and not prompts[0] & {i.prompt for i in data.unseen}
    gaps = np.array([in_order(a) - in_order(b) for _, a, b in data.pairs])
    # whoever is as far ahead wins with the odds of that gap; 5 standard errors
    for gap in (1 / 3, 2 / 3, 1.0):
        wins, losses = (np.isclose(gaps, g).sum() for g in (gap, -gap))
        p = 1 / (1 + np.exp(-3.0 * gap))
        n = wins + losses
        assert abs(wins / n - p) < 5 * np.sqrt(p * (1 - p) / n)
    best = np.mean([max(p, 1 - p) for g in gaps for p in [1 / (1 + np.exp(-3.0 * g))]])
    assert data.bayes == pytest.approx(best, abs=0.03)
    right = np.mean([in_order(y) == 1.0 for _, y in data.texts])
    assert 0.5 < right < 0.75  # half of them, and some of the shuffled ones


def test_what_is_called_exact_agrees_with_samples():
    data = Comparisons(level=2, num_pairs=700, share=0.5, certainty=3.0, num_eval=2, seed=0)
    tokenizer = CharTokenizer(data.task.alphabet)
    policy = TransformerPolicy(len(tokenizer), size=(8, 1, 1), context=8)
    exact = Exact(data.task, data.unseen, tokenizer, reference=policy, model=RewardModel(policy), max_new_tokens=3)  # fmt: skip
    found = exact(policy)
    assert found["eval/kl"] == 0 and found["eval/model"] == 0
    drawn = generate(policy, exact.prompts, num_samples=20_000, max_new_tokens=3, seed=5, tokenizer=tokenizer)  # fmt: skip
    scores = [data.task.verify(data.unseen[r.prompt_index], r.text) for r in drawn if r.finish == "eos"]  # fmt: skip
    right = sum(s.verdict == "right" for s in scores) / len(drawn)
    formed = sum(s.verdict != "undecided" for s in scores) / len(drawn)
    for share, sampled in ((found["eval/gold"], right), (found["eval/form"], formed)):
        assert abs(share - sampled) < 5 * np.sqrt(share / len(drawn))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_pairs": 10}, "num_pairs must be at least 640, got 10"),
        ({"level": 7}, r"level must be in 2..6, got 7"),
        ({"share": 1.5}, r"share must be in \[0, 1\], got 1.5"),
        ({"arms": ("PPO",)}, "arms must be some of PPO-max, vanilla PPO"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_settings_that_can_not_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changes)
