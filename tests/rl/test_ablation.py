"""Ablations: which switches are flipped, scores and differences of known events, one small study, resumption."""

from dataclasses import replace

import numpy as np
import pytest

from dodona.core.protocols import Event
from dodona.core.statistics import iqm
from dodona.errors import ConfigError, InputError
from dodona.rl import (
    AblationTask,
    PPOConfig,
    PPODetails,
    ablate,
    ablation_arms,
    ablation_effects,
    detailed_trainer,
    make_env,
)

SMALL = PPOConfig.cleanrl(num_env_steps=256, num_steps=16, epochs=1, minibatches=2)
CARTPOLE = AblationTask(
    make=lambda seed: make_env("CartPole-v1", 4, seed=seed), low=10.0, high=110.0
)
TASKS = {"CartPole": CARTPOLE}


def names(arms):
    return list(dict.fromkeys(name for name, _, _ in arms.turns))


def told(arm, seed, returns, num_env_steps=1000):
    """Events of one run whose episodes end at even distances."""
    return [
        Event(
            kind="update", step=i + 1, num_samples=num_env_steps * (i + 1) // len(returns),
            metrics={} if r is None else {"episode/return": r}, data={"arm": arm, "seed": seed},
        )
        for i, r in enumerate(returns)
    ]  # fmt: skip


def test_every_switch_of_the_core_is_flipped_alone():
    arms = ablation_arms(SMALL, PPODetails(), TASKS, seeds=(0, 1), stack=False)
    flipped = [name.split(" / ")[0] for name in names(arms)]
    assert flipped[0] == "as given" and len(flipped) == 14
    assert [seed for _, seed, _ in arms.turns[:4]] == [0, 1, 0, 1]


def test_what_changes_nothing_or_can_not_be_flipped_alone_is_left_out_unless_it_was_asked_for():
    one = replace(SMALL, minibatches=1)
    assert "minibatches / CartPole" not in names(ablation_arms(one, PPODetails(), TASKS))
    with pytest.raises(ConfigError, match="the switch minibatches changes nothing here"):
        ablation_arms(one, PPODetails(), TASKS, switches=["minibatches"])
    lstm = names(ablation_arms(SMALL, PPODetails.lstm(), TASKS))
    assert "separate_networks / CartPole" not in lstm and "gae / CartPole" in lstm
    with pytest.raises(ConfigError, match="an LSTM is shared"):
        ablation_arms(SMALL, PPODetails.lstm(), TASKS, switches=["separate_networks"])


def test_differences_are_those_of_the_late_episodes_scaled_by_task_and_always_on_minus_off():
    config, details = replace(SMALL, num_env_steps=1000), PPODetails(gae=False)
    tasks = {
        "a": replace(CARTPOLE, low=0.0, high=1.0),
        "b": replace(CARTPOLE, low=-100.0, high=0.0),
    }
    rng = np.random.default_rng(0)
    levels = {"as given": 0.5, "clip": 0.2, "gae": 0.9}
    truth, events = {}, []
    for name, level in levels.items():
        truth[name] = level + 0.05 * rng.normal(size=(6, 2))
        for seed in range(6):
            a, b = truth[name][seed]
            events += told(f"{name} / a", seed, [99.0] * 6 + [a - 0.1, a + 0.1])
            events += told(f"{name} / b", seed, [99.0, None, 99.0, 100 * b - 100])
    found = ablation_effects(events, config, details, tasks, num_samples=2000)
    assert found.tasks == ("a", "b") and np.allclose(found.base, truth["as given"])
    clip, gae = found.effects
    assert (clip.switch, gae.switch) == ("clip", "gae")
    assert np.allclose(clip.on, truth["as given"]) and np.allclose(clip.off, truth["clip"])
    assert np.allclose(gae.on, truth["gae"]) and np.allclose(gae.off, truth["as given"])
    for effect in found.effects:
        assert effect.difference == pytest.approx(iqm(effect.on) - iqm(effect.off))
        assert 0 < effect.low < effect.difference < effect.high
    again = ablation_effects(events, config, details, tasks, num_samples=2000)
    assert [(e.low, e.high) for e in again.effects] == [(e.low, e.high) for e in found.effects]


def test_a_study_is_its_runs_one_by_one():
    found = ablate(
        SMALL, PPODetails(), TASKS, switches=["clip_grad_norm"], num_seeds=2, stack=False
    )
    (effect,) = found.effects
    for scores, details in (
        (effect.on, PPODetails()),
        (effect.off, PPODetails(clip_grad_norm=False)),
    ):
        for seed in range(2):
            run = detailed_trainer(
                None, CARTPOLE.make(seed), details=details, config=replace(SMALL, seed=seed)
            )
            late = [e.metrics["episode/return"] for e in run
                    if e.num_samples > 192 and "episode/return" in e.metrics]  # fmt: skip
            assert scores[seed, 0] == pytest.approx((np.mean(late) - 10.0) / 100.0)
    assert found.base is effect.on


def test_seeds_in_step_give_the_events_of_single_runs():
    switches = ["clip", "separate_networks"]

    def events(stack):
        arms = ablation_arms(
            SMALL, PPODetails(), TASKS, switches=switches, seeds=(3, 5), stack=stack
        )
        found = {}
        for e in arms:
            found.setdefault((e.data["arm"], e.data["seed"]), []).append(e)
        return arms, found

    (arms, together), (_, alone) = events(True), events(False)
    # a shared trunk can not be stacked
    assert [seed for _, seed, _ in arms.turns] == [3, 3, 3, 5]
    assert set(together) == set(alone) and len(alone) == 6
    for key, run in alone.items():
        assert [e.num_samples for e in run] == [e.num_samples for e in together[key]]
        for a, b in zip(run, together[key], strict=True):
            assert a.metrics == pytest.approx(b.metrics, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("stack", [False, True])
def test_a_study_that_was_cut_goes_on_where_it_was(stack):
    def arms():
        return ablation_arms(SMALL, PPODetails(), TASKS, switches=["clip"], seeds=(0, 1), stack=stack)  # fmt: skip

    whole = [(e.data, e.metrics) for e in arms()]
    one, other = arms(), arms()
    walk = iter(one)
    for _ in range(6):
        next(walk)
    other.load_state_dict(one.state_dict())
    assert [(e.data, e.metrics) for e in other] == whole[6:]


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: ablate(SMALL, PPODetails(), {}), "tasks is empty"),
        (lambda: ablate(SMALL, PPODetails(), TASKS, num_seeds=1), "num_seeds must be at least 2"),
        (lambda: ablate(SMALL, PPODetails(), TASKS, switches=["glip"]), "switch must be one of .* Did you mean 'clip'"),
        (lambda: AblationTask(make=CARTPOLE.make, low=1.0, high=1.0), "a task needs low < high, got 1.0 and 1.0"),
        (lambda: ablation_effects(told("as given / CartPole", 0, [1.0, None]), replace(SMALL, num_env_steps=1000),
                                  PPODetails(), TASKS), "no episode of 'as given' on CartPole, seed 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
