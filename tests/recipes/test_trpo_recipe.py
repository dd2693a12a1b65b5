"""The recipe of trust regions: the map, arms that are judged by what their steps report, resumed from the middle."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.errors import ConfigError, InputError
from dodona.oracles import gradients as exact
from dodona.recipes import _trpo_map as drawn
from dodona.recipes import trpo

TINY = trpo.Config(
    env="CartPole-v1",
    num_seeds=1,
    num_env_steps=512,
    num_envs=4,
    num_steps=64,
    num_eval_episodes=2,
    critic_iters=1,
)


def started(config) -> Event:
    return Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})


def run(arm, returns, *, shares, accepted=1.0):
    """Of every seed its updates, one per share, and its evaluations; returns [seeds, n]."""
    events = []
    for seed, row in enumerate(returns):
        data = {"arm": arm, "seed": seed}
        for i, share in enumerate(shares):
            told = {
                "trust/kl_share": share, "trust/accepted": accepted, "trust/improvement": 0.02,
                "trust/predicted": 0.03, "trust/angle_to_gradient": 80.0,
            }  # fmt: skip
            events.append(Event(kind="update", step=i, num_samples=64 * i, metrics=told, data=data))
        events += [
            Event(kind="evaluation", step=i, num_samples=10_000 * i, metrics={"eval/return": x}, data=data)
            for i, x in enumerate(row, start=1)
        ]  # fmt: skip
    return events


def missed(rows) -> list[str]:
    return [row.name for row in rows if row.verdict == "miss"]


GOOD = [[100.0, 480.0, 500.0]] * 5
ARM, EXACT = "CartPole-v1, TRPO", "CartPole-v1, TRPO, exact radius"


# ---------------------------------------------------------------------- the map
def test_the_map_shows_the_exact_radius_spent_and_the_usual_one_wasted():
    events = drawn.events()
    assert missed(drawn.judge(events)) == [] and len(drawn.judge(events)) == 5
    told = events[0].data["map"]
    assert np.diag(told["fisher"]) == pytest.approx(np.array(told["fisher"]).sum(axis=0))
    pi = exact.softmax(np.stack([np.zeros(2), drawn.THETA], axis=1))
    q = exact.action_values(drawn.P, drawn.R, drawn.GAMMA, pi)
    assert told["J"] == pytest.approx(float(drawn.START @ (pi * q).sum(axis=1)))
    figure = drawn.figure(events)
    assert len(figure.data) == 4 + len(told["ends"])
    assert drawn.figure([]) is None and drawn.judge([]) == []


def test_a_map_whose_steps_leave_the_radius_is_a_miss():
    (event,) = drawn.events()
    told = dict(event.data["map"])
    told["kl"] = dict.fromkeys(told["kl"], 1.2 * drawn.MAX_KL)
    rows = drawn.judge([replace(event, data={"map": told})])
    assert len(missed(rows)) == 3


# ---------------------------------------------------------------------- judging
def test_steps_inside_and_taken_pass_and_others_are_named():
    good = run(ARM, GOOD, shares=[0.7, 0.9]) + run(EXACT, GOOD, shares=[0.993, 0.999])
    assert missed(trpo.judge(good)) == [] and len(trpo.judge(good)) == 5 + 6
    outside = run(ARM, GOOD, shares=[0.7, 1.01])
    assert missed(trpo.judge(outside)) == [f"{ARM}: largest KL of a step over max_kl"]
    refused = run(ARM, GOOD, shares=[0.0, 0.0], accepted=0.0)
    assert missed(trpo.judge(refused)) == [f"{ARM}: share of steps taken"]
    short = run(EXACT, GOOD, shares=[0.6, 0.62])
    assert missed(trpo.judge(short)) == [f"{EXACT}: share of the radius a step spends, median"]
    slow = run(ARM, [[10.0, 20.0, 30.0]] * 5, shares=[0.7])
    assert len(missed(trpo.judge(slow))) == 3


def test_what_is_run_for_comparison_is_drawn_and_not_judged():
    events = run("CartPole-v1, NPG", GOOD, shares=[0.9, 1.4])
    assert trpo.judge(events) == []
    assert set(trpo.figures(events)) == {"returns CartPole-v1", "radius", "gains", "angle"}


# ---------------------------------------------------------------------- running
def test_a_tiny_run_is_judged_drawn_and_resumed_from_the_middle():
    whole = [started(TINY), *trpo.build(TINY)]
    arms = [f"CartPole-v1, {name}" for name in trpo.TASKS["CartPole-v1"].methods]
    assert list(dict.fromkeys(e.data["arm"] for e in whole if "arm" in e.data)) == arms
    assert all(
        e.metrics["trust/accepted"] in (0, 1) for e in whole if "trust/accepted" in e.metrics
    )
    rows = trpo.judge(whole)
    assert len(rows) == 5 + 5 + 6 and not missed(rows[:5])
    assert set(trpo.figures(whole)) == {"map", "returns CartPole-v1", "radius", "gains", "angle"}
    assert trpo.figures(whole[:1]) == {} and trpo.judge(whole[:1]) == []
    first = trpo.build(TINY)
    walk = iter(first)
    begun = [repr(next(walk)) for _ in range(4)]
    second = trpo.build(TINY)
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == [repr(e) for e in whole[1:]]


def test_any_environment_runs_numbered_states_included():
    config = replace(TINY, env="FrozenLake-v1", num_env_steps=256)
    arms = {e.data["arm"] for e in trpo.build(config) if "arm" in e.data}
    assert arms == {f"FrozenLake-v1, {name}" for name in trpo.REGIONS}


def test_given_settings_reach_the_trainer():
    config = replace(TINY, max_kl=0.05, num_cg_iters=3, damping=0.2, gamma=0.5, gae_lambda=0.6, critic_iters=4)  # fmt: skip
    update = trpo._run(config, "CartPole-v1", trpo.EXACT, 3).bound.config
    assert (update.max_kl, update.num_cg_iters, update.damping) == (0.05, 3, 0.2)
    assert (update.radius, update.critic_iters) == ("exact", 4)
    trainer = trpo._run(config, "CartPole-v1", trpo.NPG, 3)
    assert trainer.bound.config.radius == "quadratic"
    assert (trainer.objective.gamma, trainer.objective.gae_lambda) == (0.5, 0.6)
    alone = trpo.build(replace(TINY, compare=False))
    assert {e.data["arm"] for e in alone if "arm" in e.data} == {ARM, EXACT}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_seeds": 0}, "num_seeds must be at least 1, got 0"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"max_kl": 0.0}, "max_kl must be above 0, got 0.0. The TRPO paper uses 0.01"),
    ],
)
def test_wrong_configurations_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        trpo.Config(**change)


def test_wrong_ids_are_said_before_anything_runs():
    with pytest.raises(InputError, match="CartPole"):
        trpo.build(replace(TINY, env="CartPol-v1"))
