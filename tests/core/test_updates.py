"""Steps against gradient descent by hand; micro-batches against one batch; what is refused and what is kept."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from two_processes import in_two_processes

from dodona.core.batch import Batch
from dodona.core.distributed import rank
from dodona.core.optimizers import (
    OPTIMIZERS,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    trained_parameters,
)
from dodona.core.reductions import masked_mean
from dodona.core.schedules import linear
from dodona.core.updates import GradientUpdate, guarded_step, look
from dodona.errors import CheckpointError, InputError
from dodona.policies import MLPCritic, MLPPolicy

SPLIT = GradientUpdate(optimizer="sgd", lr=0.1, epochs=2)


class Surrogate:
    """- mean A logp - entropy bonus + squared value error, each by masked_mean: all that denom must carry."""

    needs_critic = needs_entropy = True

    def __init__(self, reduction="token"):
        self.reduction = reduction

    def prepare(self, batch, *, moments=None):
        return batch

    def __call__(self, logp, batch, *, values=None, entropy=None, kl=None, denom=None):
        each = -batch.advantages * logp - 0.1 * entropy
        if values is not None:
            each = each + (values - batch.returns) ** 2
        loss = masked_mean(each, batch.mask, reduction=self.reduction, denom=denom)
        return loss, {
            "loss/policy": float(loss.detach()),
            "policy/logp": float(masked_mean(logp.detach(), batch.mask)),
        }


def batch(B=6, T=4, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return torch.tensor(rng.normal(size=shape), dtype=torch.float32)

    mask = torch.tensor(rng.random((B, T)) < 0.7)
    mask[0], mask[1] = True, False  # a row that counts fully, one that counts nothing
    return Batch(
        obs=normal(B, T, 3), actions=torch.tensor(rng.integers(2, size=(B, T))), mask=mask,
        advantages=normal(B, T), returns=normal(B, T), logp_old=torch.full((B, T), math.log(0.5)),
    )  # fmt: skip


def networks():
    return MLPPolicy(3, 2, hidden=(8,)), MLPCritic(3, hidden=(8,))


def run(update, data, objective=None, *, steps=1):
    policy, critic = networks()
    bound = update.bind(policy, critic)
    objective = objective or Surrogate()
    for step in range(steps):
        metrics = bound.run(data, objective, rng=np.random.default_rng(step), step=step)
    return [p.detach().clone() for p in trained_parameters(policy, critic)], metrics


def test_a_step_is_gradient_descent_by_hand():
    w = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.SGD([w], lr=0.1)
    w.grad = torch.full((2,), 99.0)  # of somebody else: dropped
    info = guarded_step(0.5 * (w * w).sum(), optimizer)
    assert (info.grad_norm, info.skipped) == (5.0, False)
    assert w.tolist() == pytest.approx([2.7, 3.6])
    info = guarded_step(0.5 * (w * w).sum(), optimizer, max_grad_norm=0.9)
    assert info.grad_norm == pytest.approx(4.5)
    assert w.tolist() == pytest.approx([2.7 - 0.1 * 0.54, 3.6 - 0.1 * 0.72])  # 0.9 (3, 4) / 5


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: (w * torch.nan).sum(),
        lambda w: (w.sum() - w.sum().detach()).sqrt(),  # finite value, infinite slope
        lambda w: w.sum() + torch.inf,  # infinite value, finite slope
    ],
    ids=["nan", "slope", "value"],
)
def test_what_is_not_finite_is_skipped_and_nothing_moves(loss):
    w = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = make_optimizer("adam", [w], 0.1)
    guarded_step((w * w).sum(), optimizer)
    before, moments = w.detach().clone(), optimizer_state(optimizer)
    info = guarded_step(loss(w), optimizer, max_grad_norm=1.0)
    assert info.skipped and not math.isfinite(info.grad_norm)
    assert torch.equal(w, before)
    assert repr(optimizer_state(optimizer)) == repr(moments)
    assert not guarded_step((w * w).sum(), optimizer).skipped


def test_a_loss_nobody_has_a_part_in_is_refused():
    w = nn.Parameter(torch.zeros(2))
    with pytest.raises(InputError, match="loss has no gradient.*Was it detached"):
        guarded_step(torch.tensor(1.0), torch.optim.SGD([w], lr=0.1))
    with pytest.raises(InputError, match=r"max_grad_norm must be in \(0, inf\), got 0.0"):
        guarded_step(w.sum(), torch.optim.SGD([w], lr=0.1), max_grad_norm=0.0)


@pytest.mark.parametrize("reduction", ["token", "sequence", "fixed"])
@pytest.mark.parametrize("micro_batch", [1, 4])
def test_micro_batches_equal_one_batch(reduction, micro_batch):
    data = batch()
    options = {"optimizer": "sgd", "lr": 0.1, "minibatches": 2}
    whole, said = run(GradientUpdate(**options), data, Surrogate(reduction))
    update = GradientUpdate(**options, micro_batch=micro_batch)
    parts, told = run(update, data, Surrogate(reduction))
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert told == pytest.approx(said, abs=1e-5)


def test_padding_and_order_do_not_matter():
    data = batch()
    update = GradientUpdate(optimizer="sgd", lr=0.1)
    expected, _ = run(update, data)
    for other in (data.pad_to(9), data.select([3, 1, 0, 5, 4, 2]), data.flatten()):
        for a, b in zip(expected, run(update, other)[0], strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_minibatches_of_steps_visit_every_counted_step_once():
    data, seen = batch(), []

    class Watching(Surrogate):
        def __call__(self, logp, part, **given):
            seen.append(part.advantages)
            return super().__call__(logp, part, **given)

    _, metrics = run(GradientUpdate(unit="steps", minibatches=3, epochs=2), data, Watching())
    assert metrics["update/steps"] == 6.0 and all(x.ndim == 1 for x in seen)
    counted = data.advantages[data.mask].sort().values
    assert torch.equal(torch.cat(seen[:3]).sort().values, counted)
    assert torch.equal(torch.cat(seen[3:]).sort().values, counted)
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:]))


def test_a_minibatch_in_which_nothing_counts_moves_nothing():
    data = batch()
    data = data.replace(mask=torch.zeros_like(data.mask))
    policy, critic = networks()
    bound = GradientUpdate().bind(policy, critic)
    bound.run(batch(), Surrogate(), rng=np.random.default_rng(0), step=0)  # Adam has momentum now
    before = [p.detach().clone() for p in policy.parameters()]
    metrics = bound.run(data, Surrogate(), rng=np.random.default_rng(0), step=1)
    assert metrics["update/steps"] == 0.0 and metrics["guard/skipped"] == 0.0
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_refused_steps_are_counted_and_the_numbers_are_those_of_the_others():
    data = batch()
    advantages = data.advantages.clone()
    advantages[0, 0] = torch.nan
    after, metrics = run(GradientUpdate(minibatches=3), data.replace(advantages=advantages))
    assert metrics["guard/skipped"] == 1.0 and metrics["update/steps"] == 2.0
    assert math.isfinite(metrics["loss/policy"]) and all(torch.isfinite(p).all() for p in after)


def test_the_update_ends_when_the_policy_has_moved_too_far():
    data = batch()
    free, _ = run(GradientUpdate(optimizer="sgd", lr=1.0, epochs=5), data)
    held, metrics = run(GradientUpdate(optimizer="sgd", lr=1.0, epochs=5, target_kl=0.01), data)
    assert 0.0 < metrics["update/steps"] < 5.0 and metrics["update/kl"] > 0.015
    steps = int(metrics["update/steps"])
    expected, _ = run(GradientUpdate(optimizer="sgd", lr=1.0, epochs=steps), data)
    assert all(torch.equal(a, b) for a, b in zip(held, expected, strict=True))
    assert not torch.equal(free[0], held[0])
    with pytest.raises(InputError, match="target_kl compares with logp_old"):
        run(GradientUpdate(target_kl=0.01), data.replace(logp_old=None))


def test_the_learning_rate_follows_its_schedule():
    update = GradientUpdate(optimizer="sgd", lr=linear(0.1, 0.0, 4))
    assert run(update, batch(), steps=3)[1]["update/lr"] == pytest.approx(0.05)


def test_only_what_the_objective_reads_is_computed():
    data, (policy, critic) = batch(), networks()

    class Plain(Surrogate):
        needs_critic = needs_entropy = False

    class Everything(Surrogate):
        needs_kl = True

    logp, given = look(data, Plain(), policy, critic, policy)
    assert given == {} and torch.equal(logp, policy.log_prob(data.obs, data.actions))
    logp, given = look(data, Everything(), policy, critic, policy)
    assert set(given) == {"entropy", "kl", "values"}
    assert torch.allclose(given["kl"], torch.zeros(6, 4), atol=1e-6) and given["kl"].requires_grad
    assert torch.equal(given["values"], critic(data.obs))
    assert set(look(data, Everything(), policy)[1]) == {"entropy"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_an_optimizer_goes_and_comes_back(name):
    def new():
        w = nn.Parameter(torch.tensor([1.0, 2.0]))
        return w, make_optimizer(name, [w], 0.1)

    (w, a), (v, b) = new(), new()
    for _ in range(3):
        guarded_step((w**4).sum(), a)
    v.data.copy_(w.data)
    load_optimizer_state(b, optimizer_state(a))
    for _ in range(3):
        guarded_step((w**4).sum(), a)
        guarded_step((v**4).sum(), b)
    assert torch.equal(w, v)


def test_parameters_that_two_networks_share_are_trained_once():
    policy, critic = networks()
    critic.net[0] = policy.net[0]
    assert len(trained_parameters(policy, critic, None, abs)) == 6
    policy.requires_grad_(False)
    with pytest.raises(InputError, match="there is nothing to train"):
        trained_parameters(policy)


def test_wrong_settings_and_states_are_answered():
    with pytest.raises(
        InputError, match="optimizer must be one of .*Did you mean 'adamw'|got 'adan'"
    ):
        GradientUpdate(optimizer="adan")
    for name, value in [("lr", 0.0), ("max_grad_norm", -1.0), ("target_kl", 0.0)]:
        with pytest.raises(InputError, match=f"{name} must be in"):
            GradientUpdate(**{name: value})
    for name in ("epochs", "minibatches", "micro_batch"):
        with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
            GradientUpdate(**{name: 0})
    policy, critic = networks()
    bound = GradientUpdate().bind(policy, critic)
    with pytest.raises(CheckpointError, match="holds the state of SGD, this run has Adam"):
        bound.load_state_dict({"optimizer": "SGD", "state": {}})
    bound.run(batch(), Surrogate(), rng=np.random.default_rng(0), step=0)
    other = GradientUpdate().bind(MLPPolicy(3, 2, hidden=(9,)), critic)
    with pytest.raises(CheckpointError, match=r"exp_avg of parameter 0 has shape \(8, 3\)"):
        other.load_state_dict(bound.state_dict())


class MeanOfPieces(Surrogate):
    def __call__(self, logp, part, *, denom=None, **given):
        return super().__call__(logp, part, **given)


def test_pieces_that_divide_by_their_own_count_are_told_apart():
    options = {"optimizer": "sgd", "lr": 0.1}
    whole, _ = run(GradientUpdate(**options), batch())
    wrong, _ = run(GradientUpdate(**options, micro_batch=2), batch(), MeanOfPieces())
    assert max((a - b).abs().max() for a, b in zip(whole, wrong, strict=True)) > 1e-3


def stepped_on_a_share():
    """All parameters after the steps on this process's share of the rows."""
    return run(SPLIT, batch().select([[0, 2, 4, 5], [1, 3]][rank()]))[0]


def test_two_processes_equal_one(tmp_path):
    shared = in_two_processes(stepped_on_a_share, tmp_path)
    for a, b in zip(shared, run(SPLIT, batch())[0], strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_rows_in_which_nothing_counts_change_nothing():
    whole = batch()
    empty = whole.select([0, 1]).replace(mask=torch.zeros_like(whole.mask[:2]))
    for a, b in zip(run(SPLIT, whole)[0], run(SPLIT, Batch.cat([whole, empty]))[0], strict=True):
        assert torch.equal(a, b)


def test_a_batch_in_which_nothing_counts_makes_no_step():
    whole = batch()
    _, numbers = run(SPLIT, whole.replace(mask=torch.zeros_like(whole.mask)))
    assert numbers["update/steps"] == 0.0
