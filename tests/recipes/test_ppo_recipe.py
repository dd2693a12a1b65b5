"""Recipes of control: judged by the last evaluations of all seeds, drawn at any time, resumed where they stopped."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError, InputError
from dodona.recipes import _control as control
from dodona.recipes import _grpo_control, grpo, policy_gradient, ppo

TINY = ppo.Config(
    env="CartPole-v1", num_seeds=2, num_env_steps=512, num_envs=4, num_steps=32, minibatches=2, epochs=2,
    num_eval_episodes=4,
)  # fmt: skip


def started(config) -> Event:
    return Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})


def evaluations(arm: str, returns, *, steps=(10_000, 20_000, 30_000), first=20.0) -> list[Event]:
    """Of every seed one update and then the evaluations; returns [seeds, n]."""
    events = []
    for seed, run in enumerate(returns):
        data = {"arm": arm, "seed": seed}
        update = {"episode/return": first, "policy/kl_old": 0.01, "update/grad_norm": 1.0}
        events.append(Event(kind="update", step=1, num_samples=64, metrics=update, data=data))
        events += [
            Event(kind="evaluation", step=i, num_samples=n, metrics={"eval/return": x}, data=data)
            for i, (n, x) in enumerate(zip(steps, run, strict=False), start=1)
        ]
    return events


def missed(rows) -> list[str]:
    return [row.name for row in rows if row.verdict == "miss"]


# ---------------------------------------------------------------------- judging
GOOD = [[100.0, 480.0, 500.0]] * 4 + [[20.0, 30.0, 40.0]]


def test_four_of_five_seeds_and_the_middle_of_all_decide():
    rows = control.judge_arm(evaluations("a", GOOD), "a", 475.0, by=30_000)
    assert missed(rows) == []
    assert [row.measured for row in rows] == ["4 of 5", 500.0, 20_000.0]
    three = control.judge_arm(evaluations("a", GOOD[:3] + GOOD[4:] * 2), "a", 475.0, by=30_000)
    assert len(missed(three)) == 2  # the IQM drops with them, the median seed was in time
    late = control.judge_arm(evaluations("a", GOOD), "a", 475.0, by=15_000)
    assert missed(late) == ["a: steps until an evaluation first reaches 475, median of seeds"]
    never = control.judge_arm(evaluations("a", [[1.0, 2.0, 3.0]] * 2), "a", 475.0, by=15_000)
    assert never[-1].measured == "never" and len(missed(never)) == 3


def test_a_return_that_was_reached_and_lost_is_a_miss():
    lost = [[500.0, 500.0, 100.0]] * 5
    assert len(missed(control.judge_arm(evaluations("a", lost), "a", 475.0))) == 2


def test_a_seed_that_is_still_running_is_left_out():
    running = evaluations("a", [*GOOD[:4], [100.0]])
    steps, returns = control.table(running, "a")
    assert returns.shape == (4, 3) and steps.tolist() == [10_000, 20_000, 30_000]


def test_without_a_threshold_progress_is_judged():
    rows = control.judge_progress(evaluations("a", GOOD, first=50.0), "a")
    assert [row.measured for row in rows] == ["4 of 5"] and missed(rows) == []
    assert len(missed(control.judge_progress(evaluations("a", GOOD, first=600.0), "a"))) == 1


def test_thresholds_are_the_houses_then_gymnasiums():
    assert control.threshold("Pendulum-v1") == -200.0
    assert control.threshold("FrozenLake-v1") == 0.7
    assert control.threshold("somewhere:Else-v0") is None


def test_intervals_hold_the_iqm_and_need_two_seeds():
    values = np.random.default_rng(0).normal(size=(8, 3))
    low, high = control.interval(values)
    middle = np.sort(values, axis=0)[2:6].mean(axis=0)
    assert ((low <= middle) & (middle <= high)).all()
    assert control.interval(values[:1]) is None


# ---------------------------------------------------------------------- ppo
def test_a_tiny_run_is_judged_drawn_and_resumed_from_the_middle():
    whole = [started(TINY), *ppo.build(TINY)]
    assert {e.data["seed"] for e in whole[1:]} == {0, 1}
    rows = ppo.judge(whole)
    assert len(rows) == 3 and len(missed(rows)) == 3  # 512 steps teach nothing
    assert set(ppo.figures(whole)) == {"returns CartPole-v1", "clipped", "divergence", "critic"}
    assert ppo.figures(whole[:1]) == {} and ppo.judge(whole[:1]) == []
    first = ppo.build(TINY)
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(3)]
    second = ppo.build(TINY)
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == [repr(e) for e in whole[1:]]


def test_any_environment_runs_numbered_states_included():
    config = replace(TINY, env="FrozenLake-v1", num_seeds=1, num_env_steps=256)
    trainer = ppo.build(config)
    assert [e.kind for e in trainer].count("evaluation") >= 1
    assert ppo.NUMBERED.config.normalize_obs is False


def test_given_settings_reach_the_trainer():
    config = replace(TINY, gamma=0.5, gae_lambda=0.6, clip_eps=0.3, entropy_coef=0.2, lr=0.125, normalize=True)  # fmt: skip
    trainer = ppo._run(config, "CartPole-v1", 3)
    objective = trainer.objective.objective
    assert (objective.gamma, objective.gae_lambda, objective.clip_eps) == (0.5, 0.6, 0.3)
    assert objective.entropy_coef == 0.2 and trainer.collector.normalizer.gamma == 0.5
    assert trainer.bound.config.lr(0) == 0.125 and trainer.collector.num_steps == 32


def test_wrong_ids_are_said_before_anything_runs():
    with pytest.raises(InputError, match="CartPole"):
        ppo.build(replace(TINY, env="CartPol-v1"))


# ---------------------------------------------------------------------- grpo, policy gradients
@pytest.mark.parametrize("objective", list(_grpo_control.OBJECTIVES))
def test_every_objective_of_groups_trains_a_perceptron(objective):
    config = grpo.Config(
        policy="mlp", objective=objective, num_seeds=1, num_updates=2, num_groups=2, group_size=3, num_eval_episodes=4
    )  # fmt: skip
    whole = [started(config), *grpo.build(config)]
    kinds = [e.kind for e in whole]
    assert kinds.count("update") == 2 and kinds.count("evaluation") == 2
    assert len(grpo.judge(whole)) == 2 and set(grpo.figures(whole)) == {"returns", "divergence"}
    assert all(e.metrics["guard/skipped"] == 0 for e in whole if e.kind == "update")


def test_the_rows_of_grpo_miss_when_it_does_not_learn():
    config = started(grpo.Config(policy="mlp"))
    good = [config, *evaluations("grpo", GOOD), *evaluations("kimi", GOOD)]
    assert missed(grpo.judge(good)) == []
    bad = [config, *evaluations("grpo", GOOD), *evaluations("kimi", [[9.0, 9.0, 9.0]] * 5)]
    assert all(name.startswith("kimi") for name in missed(grpo.judge(bad))) and missed(
        grpo.judge(bad)
    )


def test_the_five_learners_run_and_are_compared():
    config = policy_gradient.Config(
        num_seeds=1, num_updates=2, num_env_steps=512, num_eval_episodes=4
    )
    whole = [started(config), *policy_gradient.build(config)]
    assert {e.data["arm"] for e in whole[1:]} == {*policy_gradient.BASELINES, "QAC", "A2C"}
    assert set(policy_gradient.figures(whole)) == {"returns"}
    assert policy_gradient.figures(whole[:1]) == {} and policy_gradient.judge(whole[:1]) == []


def test_a_baseline_that_does_not_help_is_a_miss():
    start = started(policy_gradient.Config())

    def events(none, value):
        return [
            start, *evaluations("REINFORCE, no baseline", none), *evaluations("REINFORCE, value", value),
            *evaluations("A2C", GOOD), *evaluations("QAC", GOOD),
        ]  # fmt: skip

    slow = [[20.0, 30.0, 480.0]] * 5
    assert missed(policy_gradient.judge(events(slow, GOOD))) == []
    assert any("less none" in m for m in missed(policy_gradient.judge(events(GOOD, slow))))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ppo.Config(num_seeds=0), "num_seeds must be at least 1, got 0"),
        (lambda: ppo.Config(seed=-1), "seed must be at least 0, got -1"),
        (lambda: grpo.Config(group_size=1), "group_size must be at least 2, got 1"),
        (lambda: grpo.Config(lr=0.0), "lr must be above 0, got 0.0"),
        (lambda: policy_gradient.Config(num_updates=0), "num_updates must be at least 1, got 0"),
        (lambda: policy_gradient.Config(num_episodes=20), "num_episodes must be a multiple of 16"),
    ],
)
def test_wrong_configurations_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
