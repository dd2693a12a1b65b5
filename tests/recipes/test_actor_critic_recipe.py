"""The recipe of actor-critics: gaps of the regulator, judging, pictures, resuming."""

from dataclasses import asdict

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError, InputError
from dodona.oracles.lqr import lqr2
from dodona.recipes import _lqr, actor_critic
from dodona.recipes import _off_policy_lab as lab
from dodona.rl import TD3Config

TINY = actor_critic.Config(
    num_seeds=1, num_lqr_seeds=2, num_lqr_updates=30, num_updates=120, num_env_steps=1000, num_td3_steps=5000,
    num_eval_episodes=2,
)  # fmt: skip


def played(task, **changes) -> list[Event]:
    config = actor_critic.Config(**{**asdict(TINY), "task": task, **changes})
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    return [start, *actor_critic.build(config)]


@pytest.mark.parametrize("arm", _lqr.ARMS)
def test_every_critic_of_the_regulator_comes_down_the_valley(arm):
    events = list(_lqr.Lab(arm, num_seeds=2, num_updates=40, seed=1))
    first, last = events[0], events[-1]
    assert first.metrics["gap/worst"] == pytest.approx(52.78338473 / 35.51543895 - 1, rel=1e-8)
    assert last.metrics["gap/worst"] < 0.5 * first.metrics["gap/worst"]
    assert last.metrics["guard/refused"] == 0
    assert len(events) == 41 and last.num_samples == 40 * 1024


def test_the_quadratic_critic_of_enough_steps_is_the_exact_one():
    run = _lqr.Lab(_lqr.LSTD, num_seeds=1, num_updates=1, seed=0)
    seen = _lqr._joined([run._act() for _ in range(400)])
    H = _lqr._lstd_q(seen, run.K, 0.99)[0]
    truth = lqr2().q(run.K[0]).H
    assert np.abs(H - truth).max() < 0.15 * np.abs(truth).max()
    assert np.allclose(H, H.T)


@pytest.mark.parametrize("arm", [_lqr.LSTD, _lqr.MLP])
def test_a_resumed_regulator_gives_the_same_events(arm):
    def build():
        return _lqr.Lab(arm, num_seeds=2, num_updates=23, seed=0)

    whole = [repr(e) for e in build()]
    first = build()
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(21)]
    second = build()
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == whole


def test_off_policy_places_know_their_best():
    grid = lab.Known("grid", "semi", num_updates=40, seed=0)
    few = lab.Known("three states", "exact", num_updates=40, seed=0)
    assert few.best == pytest.approx(24.338, abs=1e-3) and 7.0 < grid.best < 8.1
    events = list(few)
    assert [e.step for e in events] == [1, 20, 40]
    assert events[-1].metrics["known/value"] > events[0].metrics["known/value"]


def of_form(form, values, best=10.0):
    return [
        Event(kind="update", step=i + 1, num_samples=i, metrics={"known/value": v, "known/best": best}, data={"seed": 0})
        for i, v in enumerate(values)
    ]  # fmt: skip


def test_a_correction_that_fails_and_an_uncorrected_one_that_succeeds_are_misses():
    good = {"semi": of_form("semi", [1, 9.9]), "none": of_form("none", [1, 3.0])}
    assert [row.verdict for row in lab.judge({"grid": good}, 1)] == ["pass", "pass"]
    bad = {"semi": of_form("semi", [1, 3.0]), "none": of_form("none", [1, 9.9])}
    assert [row.verdict for row in lab.judge({"grid": bad}, 1)] == ["miss", "miss"]
    gains = {"exact": of_form("exact", [1, 9]), "semi": of_form("semi", [1, 1.8]), "emphatic": of_form("emphatic", [1, 9])}  # fmt: skip
    assert [row.verdict for row in lab.judge({"three states": gains}, 1)] == ["pass", "pass"]
    gains["semi"] = of_form("semi", [1, 9])
    assert lab.judge({"three states": gains}, 1)[0].verdict == "miss"


def promises(arm, biases, returns=(-900.0, -150.0, -150.0, -150.0)):
    return [
        Event(kind="evaluation", step=i, num_samples=i, metrics={"eval/return": r, "eval/bias": b}, data={"arm": arm, "seed": 0})
        for i, (b, r) in enumerate(zip(biases, returns, strict=True))
    ]  # fmt: skip


def test_td3_must_promise_less_once_both_have_learnt():
    events = promises("DDPG", [10.0, 9.0, 8.0, 8.0]) + promises("TD3", [300.0, 20.0, -1.0, -2.0])
    rows = actor_critic.judge(events)
    assert [row.verdict for row in rows] == ["pass"] * 5 and rows[-1].measured == 9.5
    events = promises("DDPG", [0.0] * 4) + promises("TD3", [0.0, 0.0, 1.0, 2.0])
    assert actor_critic.judge(events)[-1].verdict == "miss"
    assert "overestimation" in actor_critic.figures(events)


def test_longer_advantages_must_be_surer_on_the_pole():
    def run(arm, returns):
        return [
            Event(kind="evaluation", step=i, num_samples=i, metrics={"eval/return": r}, data={"arm": f"A2C, {arm}", "seed": 0})
            for i, r in enumerate(returns)
        ]  # fmt: skip

    rows = actor_critic.judge(run("TD error", [9.0, 9.0]) + run("GAE", [400.0, 500.0]))
    assert [row.verdict for row in rows] == ["pass"] * 3 and "0 of 1 seeds" in rows[-1].name
    rows = actor_critic.judge(run("TD error", [500.0, 500.0]) + run("GAE", [9.0, 500.0]))
    assert rows[-1].verdict == "miss"


def test_gaps_that_are_too_wide_are_misses():
    def end(arm, gap):
        data = {"arm": f"lqr | {arm}", "seed": 0, "gaps": [0.0, gap], "gain": [1.0, 1.0]}
        return Event(kind="update", step=1, num_samples=1, metrics={}, data=data)

    rows = actor_critic.judge([end(_lqr.LSTD, 0.009), end(_lqr.MLP, 0.06)])
    assert [row.verdict for row in rows] == ["pass", "miss"]


def test_every_task_runs_is_judged_and_drawn(monkeypatch):
    monkeypatch.setattr(lab, "FORMS", ("semi", "none"))
    drawn = {
        "lqr": {"regulator, gap", "regulator, path"},
        "offpac": {"off policy, grid", "off policy, three states", "off policy, ways"},
        "a2c": {"returns, CartPole-v1"},
    }  # fmt: skip
    for task, names in drawn.items():
        events = played(task)
        assert actor_critic.judge(events), task
        assert names <= set(actor_critic.figures(events)), task
        assert actor_critic.figures(events[:1]) == {}


def test_the_regulator_has_one_turn_and_the_others_one_per_seed():
    arms = actor_critic.build(actor_critic.Config(num_seeds=3))
    names = [name for name, _, _ in arms.turns]
    assert names.count("lqr | DPG, LSTD critic") == 1 and names.count("TD3") == 3
    assert names.count("offpac | grid | semi") == 3 and names.count("QAC") == 3


def test_another_task_is_for_ddpg_and_td3_alone():
    config = actor_critic.Config(env="MountainCarContinuous-v0")
    arms = actor_critic.build(config)
    assert {name for name, _, _ in arms.turns} == {"DDPG", "TD3"}
    name, seed, made = arms.turns[-1]
    trainer = made(seed).trainer
    assert trainer.config == TD3Config.mountain_car(evaluate_every=2500, seed=2)
    start = Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})
    good = [start, *reached("DDPG", [0.0, 93.0]), *reached("TD3", [0.0, 91.0])]
    assert [row.verdict for row in actor_critic.judge(good)] == ["pass"] * 4
    figure = actor_critic.figures(good)["returns, MountainCarContinuous-v0"]
    assert "solved by 1 of 1 seeds of DDPG and 1 of 1 seeds of TD3" in figure.layout.title.text
    bad = [start, *reached("DDPG", [93.0, 0.0])]
    assert [row.verdict for row in actor_critic.judge(bad)] == ["miss"] * 2


def reached(arm, returns):
    return [
        Event(kind="evaluation", step=i, num_samples=i, metrics={"eval/return": r}, data={"arm": arm, "seed": 0})
        for i, r in enumerate(returns)
    ]  # fmt: skip


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match="env X is for DDPG and TD3, and task is lqr"):
        actor_critic.Config(task="lqr", env="X")
    with pytest.raises(InputError, match="CartPole-v1 has 2 numbered actions"):
        actor_critic.build(actor_critic.Config(env="CartPole-v1"))
    with pytest.raises(ConfigError, match="num_lqr_updates must be at least 30, got 5"):
        actor_critic.Config(num_lqr_updates=5)
