"""The KL penalty: one step by hand, exact divergences, a coefficient that follows them, resumption, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dodona.core.batch import Batch
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.updates import GradientUpdate
from dodona.errors import InputError
from dodona.objectives import ppo
from dodona.policies import MLPPolicy, TablePolicy
from dodona.rl import EnvCollector, KLPenalty, PenalizedUpdate, make_env

PLAIN = ppo(surrogate="unclipped", scale="none", advantage="given", value_coef=0.0)
INNER = GradientUpdate(optimizer="sgd", lr=0.5, max_grad_norm=None, unit="steps")


def table(logits=((0.2, -0.1, 0.4), (1.0, 0.0, -0.5))):
    policy = TablePolicy(2, 3).double()
    policy.logits.data = torch.tensor(logits, dtype=torch.float64)
    return policy


def batch(policy, old=None):
    """Every pair of a state and an action once, weighed by its chance under the old policy."""
    states, actions = (torch.from_numpy(x) for x in np.divmod(np.arange(6), 3))
    logp_old = (policy if old is None else old).log_prob(states, actions).detach()
    A = torch.tensor([1.0, -0.5, 0.3, -1.0, 2.0, 0.1], dtype=torch.float64)
    return Batch(obs=states, actions=actions, mask=logp_old.exp(), logp_old=logp_old, advantages=A)


def run(update, policy, sample, objective=PLAIN, **options):
    return update.bind(policy, **options).run(
        sample, objective, rng=np.random.default_rng(0), step=0
    )


def test_a_step_is_down_the_gradient_of_the_surrogate_and_the_exact_divergence():
    """Weighed by the old policy's chances, the mean of k3 is KL(old || new) and so is its gradient."""
    old, policy = table(), table(((0.0, 0.3, 0.1), (0.5, 0.2, -0.1)))
    sample = batch(policy, old)
    x = policy.logits.detach().clone().requires_grad_()
    logp, before = torch.log_softmax(x, 1).reshape(-1), sample.logp_old
    p = before.exp() / 2  # two states
    kl = (p * (before - logp)).sum()
    loss = -(p * (logp - before).exp() * sample.advantages).sum() + 0.7 * kl
    (slope,) = torch.autograd.grad(loss, x)
    numbers = run(PenalizedUpdate(INNER, KLPenalty(kl_coef=0.7, target=None)), policy, sample)
    assert torch.allclose(policy.logits, x - 0.5 * slope, atol=1e-12)
    assert numbers["loss/kl_old"] == pytest.approx(0.7 * kl.item(), abs=1e-12)


def test_what_is_measured_is_the_divergence_of_the_laws_before_and_after():
    policy = table()
    before = torch.log_softmax(policy.logits.detach(), 1)
    numbers = run(PenalizedUpdate(INNER), policy, batch(policy))
    after = torch.log_softmax(policy.logits.detach(), 1)
    exact = (before.exp() * (before - after)).sum(1).mean()
    assert numbers["update/kl_exact"] == pytest.approx(exact.item(), abs=1e-12)
    assert numbers["update/kl_coef"] == 1.0


def test_the_coefficient_halves_and_doubles_as_the_divergence_asks():
    policy, coefs = table(), []
    bound = PenalizedUpdate(INNER, KLPenalty(target=0.01)).bind(policy)
    for kl in (0.0, 0.005, 0.008, 0.014, 0.016, 1.0):  # scripted
        bound._laws = lambda batch, kl=kl: _Law(kl)
        numbers = bound.run(batch(policy), PLAIN, rng=np.random.default_rng(0), step=0)
        coefs.append(numbers["update/kl_coef"])
    assert coefs == [1.0, 0.5, 0.25, 0.25, 0.25, 0.5]
    assert bound.rule.kl_coef == 1.0


class _Law:
    def __init__(self, kl):
        self.value = kl

    def kl(self, other):
        return torch.full((6,), self.value, dtype=torch.float64)


def test_without_a_target_the_coefficient_stays():
    policy = table()
    bound = PenalizedUpdate(INNER, KLPenalty(kl_coef=3.0, target=None)).bind(policy)
    for _ in range(3):
        numbers = bound.run(batch(policy), PLAIN, rng=np.random.default_rng(0), step=0)
        assert numbers["update/kl_coef"] == 3.0


def test_a_large_coefficient_holds_the_policy():
    moved = []
    for coef in (1e-6, 3.0):
        policy = table()
        update = PenalizedUpdate(
            replace(INNER, lr=0.1, epochs=200), KLPenalty(kl_coef=coef, target=None)
        )
        moved.append(run(update, policy, batch(policy))["update/kl_exact"])
    assert moved[1] < 0.1 * moved[0]


def test_masked_steps_count_nowhere():
    policy, other = table(), table()
    sample = batch(policy)
    mask = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    wild = sample.replace(mask=mask, logp_old=torch.where(mask > 0, sample.logp_old, -1e6))
    kept = sample.replace(mask=mask).select([0, 1, 2])
    for p, b in ((policy, wild), (other, kept)):
        run(PenalizedUpdate(INNER), p, b)
    assert torch.allclose(policy.logits, other.logits, atol=1e-12)


def test_micro_batches_add_up_to_the_same_step():
    whole, pieces = table(), table()
    run(PenalizedUpdate(INNER), whole, batch(whole, table(((0.0,) * 3, (0.0,) * 3))))
    run(
        PenalizedUpdate(replace(INNER, micro_batch=4)), pieces,
        batch(pieces, table(((0.0,) * 3, (0.0,) * 3))),
    )  # fmt: skip
    assert torch.allclose(whole.logits, pieces.logits, atol=1e-12)


def trainer(num_updates=4):
    env = make_env("CartPole-v1", 4, seed=0)
    return PolicyTrainer(
        MLPPolicy.for_env(env), EnvCollector(env, 16), num_updates=num_updates, seed=0,
        objective=ppo(surrogate="unclipped", advantage="returns", value_coef=0.0),
        update=PenalizedUpdate(GradientUpdate(lr=3e-3, epochs=3, minibatches=2, unit="steps"), KLPenalty(target=1e-4)),
    )  # fmt: skip


def test_a_run_that_was_cut_goes_on_with_its_coefficient():
    whole = [e.metrics for e in trainer()]
    assert whole[0]["update/kl_coef"] != whole[-1]["update/kl_coef"]
    one, other = trainer(), trainer()
    walk = iter(one)
    next(walk), next(walk)
    other.load_state_dict(one.state_dict())
    assert [e.metrics for e in other] == whole[2:]


def test_objectives_that_clip_are_refused_also_behind_a_wrapper():
    policy = table()
    with pytest.raises(InputError, match="in place of the clip, and this objective clips as well"):
        run(PenalizedUpdate(INNER), policy, batch(policy), replace(PLAIN, surrogate="clip"))
    with pytest.raises(InputError, match="compares with logp_old, and the batch has none"):
        run(PenalizedUpdate(INNER), policy, batch(policy).replace(logp_old=None))
    with pytest.raises(InputError, match="kl_coef must be in"):
        KLPenalty(kl_coef=0.0)
    with pytest.raises(InputError, match="target must be in"):
        KLPenalty(target=-1.0)
