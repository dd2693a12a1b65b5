"""Stacked seeds are their single runs, to rounding: parameters, events, stops, skipped steps."""

from dataclasses import replace

import pytest
import torch

from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.stacked import StackedTrainer
from dodona.core.updates import GradientUpdate
from dodona.errors import CheckpointError, InputError
from dodona.objectives import ppo
from dodona.policies import MLPCritic, MLPPolicy
from dodona.rl import A2CConfig, PPOConfig, a2c_trainer, make_env, ppo_trainer
from dodona.rl.native.fused_rollout import FusedCollector

SEEDS = (0, 1, 5)
UPDATES = 20


def ppo_of(seed, env_id="CartPole-v1", **changes):
    settings = {
        "num_steps": 16,
        "epochs": 2,
        "minibatches": 2,
        "lr": 2.5e-4,
        "num_env_steps": 64 * UPDATES,
    } | changes
    return ppo_trainer(
        None, make_env(env_id, 4, seed=seed), config=PPOConfig(seed=seed, **settings)
    )


def a2c_of(seed, **changes):
    config = A2CConfig(num_env_steps=20 * UPDATES, seed=seed, **changes)
    return a2c_trainer(None, make_env("CartPole-v1", 4, seed=seed), config=config)


def assert_alike(stacked, singles):
    events = list(stacked)
    for seed, single in singles.items():
        expected = list(single)
        mine = [e for e in events if e.data["seed"] == seed]
        assert [e.kind for e in mine] == [e.kind for e in expected]
        assert [e.num_samples for e in mine] == [e.num_samples for e in expected]
        for one, other in zip(mine, expected, strict=True):
            assert one.metrics.keys() == other.metrics.keys()
            for name, x in one.metrics.items():
                assert x == pytest.approx(other.metrics[name], rel=1e-3, abs=1e-4), name
        for name in ("policy", "critic"):
            pairs = zip(
                getattr(stacked.trainers[seed], name).parameters(),
                getattr(single, name).parameters(),
                strict=True,
            )
            for p, q in pairs:
                torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(ppo_of, id="ppo"),
        pytest.param(lambda seed: ppo_of(seed, "Pendulum-v1", normalize_obs=True), id="gaussian"),
        pytest.param(lambda seed: ppo_of(seed, target_kl=1e-5), id="early stop"),
        pytest.param(lambda seed: ppo_of(seed, max_grad_norm=None, minibatches=1), id="unclipped"),
        pytest.param(a2c_of, id="a2c"),
    ],
)
def test_every_seed_is_its_single_run(make):
    assert_alike(StackedTrainer({s: make(s) for s in SEEDS}), {s: make(s) for s in SEEDS})


def test_early_stops_differ_between_seeds():
    stacked = StackedTrainer({s: ppo_of(s, target_kl=1e-5) for s in SEEDS})
    steps = {s: [] for s in SEEDS}
    for event in stacked:
        steps[event.data["seed"]].append(event.metrics["update/steps"])
    assert len({tuple(x) for x in steps.values()}) > 1
    assert min(min(x) for x in steps.values()) < 4


class SpoiltReward(FusedCollector):
    """A collector whose n-th batch has advantages that overflow the gradient."""

    def __init__(self, *args, when, **options):
        super().__init__(*args, **options)
        self.when, self.calls = when, 0

    def collect(self, policy):
        batch = super().collect(policy)
        self.calls += 1
        if self.calls == self.when:
            return batch.replace(rewards=batch.rewards * 1e20)
        return batch


def spoilt(seed, when):
    env = make_env("CartPole-v1", 4, seed=seed)
    policy, critic = (
        MLPPolicy.for_env(env, seed=2 * seed),
        MLPCritic.for_env(env, seed=2 * seed + 1),
    )
    return PolicyTrainer(
        policy,
        SpoiltReward(env, 8, critic=critic, seed=seed, when=when),
        ppo(scale="none"),
        update=GradientUpdate(lr=1e-3, epochs=2, minibatches=2, unit="steps"),
        critic=critic,
        num_updates=6,
        seed=seed,
    )


def test_a_skipped_step_of_one_seed_is_its_own():
    cases = {0: 3, 1: 100}
    stacked = StackedTrainer({s: spoilt(s, when) for s, when in cases.items()})
    singles = {s: spoilt(s, when) for s, when in cases.items()}
    events = list(stacked)
    skipped = {
        s: sum(e.metrics["guard/skipped"] for e in events if e.data["seed"] == s) for s in cases
    }
    assert skipped[0] > 0
    assert skipped[1] == 0
    for seed, single in singles.items():
        list(single)
        for p, q in zip(
            stacked.trainers[seed].policy.parameters(), single.policy.parameters(), strict=True
        ):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cut", [1, 7, 31])
def test_a_run_that_was_cut_goes_on_as_if_it_had_not(cut):
    whole = list(StackedTrainer({s: ppo_of(s) for s in SEEDS}))
    begun = StackedTrainer({s: ppo_of(s) for s in SEEDS})
    head = [event for _, event in zip(range(cut), begun, strict=False)]
    resumed = StackedTrainer({s: ppo_of(s) for s in SEEDS})
    resumed.load_state_dict(begun.state_dict())
    assert head + list(resumed) == whole


def test_what_can_not_be_stacked_is_said():
    with pytest.raises(InputError, match="no trainer"):
        StackedTrainer({})
    with pytest.raises(InputError, match="config differs"):
        StackedTrainer({0: ppo_of(0), 1: ppo_of(1, lr=1.0)})
    with pytest.raises(InputError, match="objective differs"):
        StackedTrainer({0: ppo_of(0), 1: ppo_of(1, objective=ppo(gamma=0.5))})
    with pytest.raises(InputError, match="shapes differs"):
        StackedTrainer({0: ppo_of(0), 1: ppo_of(1, env_id="Acrobot-v1")})
    with pytest.raises(InputError, match="updates that were made before"):
        begun = ppo_of(0)
        next(iter(begun))
        StackedTrainer({0: begun})
    frozen = ppo_of(0)
    frozen.critic.net[0].weight.requires_grad_(False)
    with pytest.raises(InputError, match="trained whole"):
        StackedTrainer({0: frozen})
    micro = spoilt(0, 100)
    micro.bound.config = replace(micro.bound.config, micro_batch=4)
    with pytest.raises(InputError, match="can not have micro_batch"):
        StackedTrainer({0: micro})


def test_a_checkpoint_of_other_seeds_is_refused():
    stacked = StackedTrainer({0: ppo_of(0), 1: ppo_of(1)})
    with pytest.raises(CheckpointError, match=r"seeds \['0', '1'\], this run has \['0', '2'\]"):
        StackedTrainer({0: ppo_of(0), 2: ppo_of(2)}).load_state_dict(stacked.state_dict())
