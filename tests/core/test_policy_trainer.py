"""The loop against itself written out, resumed runs against runs that were not cut, on a two-armed toy."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from dodona.core.batch import Batch
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.protocols import Trainer
from dodona.core.reductions import masked_mean
from dodona.core.updates import GradientUpdate
from dodona.errors import CheckpointError, InputError, ShapeError
from dodona.policies import MLPCritic, MLPPolicy, TablePolicy
from dodona.runs import RunFolder, load_checkpoint, save_checkpoint

PAYS = torch.tensor([[1.0, 0.0], [0.2, 0.9]])  # expected reward of each arm in each of two states


class Bandit:
    """Two states, two arms; counted columns vary, so that a mask must be respected."""

    def __init__(self, seed=0, B=16, T=3):
        self.rng, self.shape = np.random.default_rng(seed), (B, T)

    def collect(self, policy):
        obs = torch.tensor(self.rng.integers(2, size=self.shape))
        actions, logp = policy.sample(obs, rng=self.rng)
        mask = torch.arange(self.shape[1]) < torch.tensor(
            self.rng.integers(1, 4, size=(self.shape[0], 1))
        )
        return Batch(
            obs=obs, actions=actions, mask=mask, logp_old=logp, rewards=PAYS[obs, actions] * mask,
            info={"metrics": {"episode/return": 7.0}},
        )  # fmt: skip

    def state_dict(self):
        return {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state):
        self.rng.bit_generator.state = state["rng"]


class Reinforce:
    """- mean (r - running mean) logp, with moments, critic and reference where asked for."""

    def __init__(self, needs_critic=False, needs_reference=False):
        self.needs_critic, self.needs_reference = needs_critic, needs_reference

    def prepare(self, batch, *, moments=None):
        moments.update(batch.rewards, batch.mask)
        advantages = batch.rewards - moments.mean
        if self.needs_reference:
            advantages = advantages - 0.1 * (batch.logp_old - batch.logp_ref)
        return batch.replace(advantages=advantages, returns=batch.rewards)

    def __call__(self, logp, batch, *, values=None, denom=None):
        each = -batch.advantages * logp
        if values is not None:
            each = each + 0.5 * (values - batch.returns) ** 2
        loss = masked_mean(each, batch.mask, denom=denom)
        return loss, {"loss/policy": float(loss.detach())}


class OneHotNet(torch.nn.Module):
    """A critic of two states."""

    def __init__(self):
        super().__init__()
        self.values = torch.nn.Parameter(torch.zeros(2))

    def forward(self, obs):
        return self.values[obs]


def trainer(num_updates=6, **options):
    update = GradientUpdate(lr=0.1, minibatches=2)
    options = {"update": update, "num_updates": num_updates, "seed": 3} | options
    return PolicyTrainer(
        TablePolicy(2, 2), Bandit(), Reinforce(**options.pop("reads", {})), **options
    )


def everything(num_updates=6):
    policy = TablePolicy(2, 2)
    return trainer(
        num_updates, critic=OneHotNet(), reference=policy,
        reads={"needs_critic": True, "needs_reference": True},
        evaluate=lambda p: {"value/arm": float(p.distribution(torch.arange(2)).probs[0, 0])}, evaluate_every=2,
    )  # fmt: skip


def test_it_learns_the_better_arm():
    learner = trainer(40)
    events = list(learner)
    p = learner.policy.distribution(torch.arange(2)).probs.detach()
    assert p[0, 0] > 0.9 and p[1, 1] > 0.9
    assert [e.step for e in events] == list(range(1, 41)) and all(
        e.kind == "update" for e in events
    )
    assert (
        isinstance(learner, Trainer) and list(learner) == []
    )  # it ends by itself, and stays ended


def test_the_loop_is_collect_prepare_and_gradient_steps():
    learner = trainer(2, update=GradientUpdate(optimizer="sgd", lr=0.5, max_grad_norm=None))
    policy, bandit, moments = TablePolicy(2, 2), Bandit(), []
    events = list(learner)
    counted = 0
    for event in events:
        batch = bandit.collect(policy)
        moments.append(batch.rewards[batch.mask])
        seen = torch.cat(moments)
        advantages = batch.rewards - seen.mean()
        logp = policy.log_prob(batch.obs, batch.actions)
        loss = -(advantages * logp)[batch.mask].mean()
        (gradient,) = torch.autograd.grad(loss, policy.logits)
        policy.logits.data -= 0.5 * gradient
        counted += int(batch.mask.sum())
        assert event.num_samples == counted
        assert event.metrics["loss/policy"] == pytest.approx(loss.item(), abs=1e-6)
        assert event.metrics["update/grad_norm"] == pytest.approx(gradient.norm().item(), rel=1e-5)
        assert event.metrics["reward/mean"] == pytest.approx(batch.total_rewards().mean().item())
        assert event.metrics["episode/return"] == 7.0 and event.metrics["guard/skipped"] == 0.0
    assert torch.allclose(learner.policy.logits, policy.logits, atol=1e-6)


def lines(events):
    return [(e.kind, e.step, e.num_samples, dict(e.metrics)) for e in events]


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_run_that_was_cut_goes_on_bit_for_bit(cut):
    whole = everything()
    expected = lines(whole)
    first, events = everything(), []
    for event in first:
        events.append(event)
        if len(events) == cut:
            state = first.state_dict()
            break
    list(first)  # what follows does not change a state that was taken
    second = everything()
    second.load_state_dict(state)
    assert lines(events + list(second)) == expected
    for mine, theirs in ((second.policy, whole.policy), (second.critic, whole.critic)):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    """seed"""


def test_a_state_survives_the_disk(tmp_path):
    whole = everything()
    expected = lines(whole)
    run = RunFolder.create("toy", Config(), out=tmp_path, command="dodona run toy")
    first, events = everything(), []
    for event in first:
        events.append(event)
        if event.step == 3:
            break
    save_checkpoint(run, first.state_dict(), step=3)
    second = everything()
    second.load_state_dict(load_checkpoint(run))
    assert lines(events + list(second)) == expected


def test_evaluations_come_every_so_often_and_at_the_end():
    learner = trainer(
        5, evaluate=lambda policy: {"x/y": float(torch.is_grad_enabled())}, evaluate_every=2
    )
    events = list(learner)
    assert [(e.kind[0], e.step) for e in events] == [
        ("u", 1), ("u", 2), ("e", 2), ("u", 3), ("u", 4), ("e", 4), ("u", 5), ("e", 5),
    ]  # fmt: skip
    assert events[2].metrics == {"x/y": 0.0}


def test_critic_and_reference_fill_what_a_batch_comes_without():
    seen = []

    class Watching(Reinforce):
        def prepare(self, batch, *, moments=None):
            seen.append(batch)
            return super().prepare(batch, moments=moments)

    reference, critic = TablePolicy(2, 2), OneHotNet()
    reference.logits.data[0, 1] = 1.0
    for reads in (True, False):
        objective = Watching(needs_critic=reads, needs_reference=reads)
        learner = PolicyTrainer(
            TablePolicy(2, 2),
            Bandit(),
            objective,
            critic=critic,
            reference=reference,
            num_updates=1,
            seed=0,
        )
        list(learner)
    with_both, without = seen
    expected = reference.log_prob(with_both.obs, with_both.actions).detach()
    assert torch.equal(with_both.logp_ref, expected) and not with_both.logp_ref.requires_grad
    assert (with_both.values == 0).all() and with_both.next_values is None
    assert without.logp_ref is None and without.values is None


def test_a_batch_that_you_bring_is_one_update():
    learner = trainer(9)
    batch = Bandit(seed=5).collect(learner.policy)
    before = learner.policy.logits.detach().clone()
    metrics = learner.update(batch)
    assert metrics["update/steps"] == 2.0 and learner.step == 1
    assert not torch.equal(before, learner.policy.logits)
    with pytest.raises(ShapeError, match="rewards has shape"):
        trainer().update(batch.replace(rewards=torch.zeros(2)))


def test_a_perceptron_is_trained_by_the_same_loop():
    rng = np.random.default_rng(0)
    policy = MLPPolicy(2, 1, hidden=(8,), family="gaussian")
    critic = MLPCritic(2, hidden=(8,))
    objective = Reinforce(needs_critic=True)
    learner = PolicyTrainer(policy, None, objective, critic=critic, num_updates=30, seed=0, update=GradientUpdate(lr=0.01))  # fmt: skip
    for _ in range(30):
        obs = torch.tensor(rng.normal(size=(32, 2)), dtype=torch.float32)
        actions, logp = policy.sample(obs, rng=rng)
        rewards = -((actions[:, 0] - 1.0) ** 2)
        metrics = learner.update(
            Batch(
                obs=obs,
                actions=actions,
                mask=torch.ones(32, dtype=torch.bool),
                logp_old=logp,
                rewards=rewards,
            )
        )
    assert math.isfinite(metrics["loss/policy"])
    assert policy.distribution(obs).mode().mean() > 0.1  # towards 1


def test_what_an_objective_sets_aside_was_still_collected():
    class Strict(Reinforce):
        def prepare(self, batch, *, moments=None):
            batch = super().prepare(batch, moments=moments)
            return batch.replace(mask=batch.mask & (torch.arange(len(batch)) < 4)[:, None])

    learner = PolicyTrainer(TablePolicy(2, 2), Bandit(), Strict(), num_updates=1, seed=0)
    event, batch = next(iter(learner)), Bandit().collect(TablePolicy(2, 2))
    assert event.num_samples == int(batch.mask.sum())
    assert event.metrics["reward/mean"] == pytest.approx(batch.total_rewards().mean().item())


class OtherUpdate:
    """A trust region stands where gradient steps do."""

    def bind(self, policy, critic=None, reference=None):
        return self

    def run(self, batch, objective, *, rng, step):
        return {"step/accepted": 1.0, "guard/skipped": 0.0}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_another_update_takes_the_place_of_gradient_steps():
    learner = trainer(2, update=OtherUpdate())
    assert [e.metrics["step/accepted"] for e in learner] == [1.0, 1.0]
    assert (learner.policy.logits == 0).all()


def test_wrong_settings_and_states_are_answered():
    with pytest.raises(InputError, match="num_updates must be at least 1"):
        trainer(0)
    with pytest.raises(InputError, match="give both, or neither"):
        trainer(evaluate_every=3)
    with pytest.raises(InputError, match="no collector. Give it one, or call update"):
        list(PolicyTrainer(TablePolicy(2, 2), None, Reinforce(), num_updates=1, seed=0))
    state = trainer().state_dict()
    with pytest.raises(
        CheckpointError,
        match=r"holds \['collector', 'policy'\], this run has \['collector', 'critic'",
    ):
        trainer(critic=OneHotNet()).load_state_dict(state)
    other = PolicyTrainer(TablePolicy(3, 2), Bandit(), Reinforce(), num_updates=1, seed=0)
    with pytest.raises(
        CheckpointError, match="policy is another network: .*size mismatch for logits"
    ):
        other.load_state_dict(state)
