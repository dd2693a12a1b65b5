"""The mirror-descent surrogate against closed forms on TM-40."""

import numpy as np
import pytest
import torch

from dodona.errors import InputError, ShapeError
from dodona.objectives import kimi_loss, soft_optimum
from dodona.oracles import sequences as exact

PROBLEM = exact.tm40()
SEQUENCES = PROBLEM.sequences
LOGP_REF = torch.tensor(exact.token_logp(SEQUENCES, PROBLEM.reference))
MASK = torch.tensor(SEQUENCES.mask)
REWARDS = torch.tensor(PROBLEM.rewards)
ONE_GROUP = torch.zeros(40, dtype=torch.int64)


def small(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    logp_ref = rng.normal(-1, 0.3, (5, 3))
    return {
        "logp": torch.tensor(logp_ref + rng.normal(0, 0.2, (5, 3))), "logp_ref": torch.tensor(logp_ref),
        "rewards": torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5], dtype=torch.float64),
        "group": torch.tensor([7, 7, 7, 2, 2]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tau", "log_z", "reward", "kl"),
    [(0.1, 0.737272393503, 0.999417218678, 2.621448251744), (0.5, 0.189731771357, 0.365195461095, 0.350927379477),
     (2.0, 0.091588597818, 0.113761251122, 0.011086326652)],
)  # fmt: skip
def test_the_soft_optimum_has_the_numbers_of_the_card(tau, log_z, reward, kl):  # card kimi-k1.5, 4a
    ref = LOGP_REF.sum(1)
    logp, tau_log_z = soft_optimum(ref, REWARDS, tau=tau)
    p = logp.exp()
    assert tau_log_z.item() == pytest.approx(log_z, abs=1e-11)
    assert (p * REWARDS).sum().item() == pytest.approx(reward, abs=1e-11)
    assert (p * (logp - ref)).sum().item() == pytest.approx(kl, abs=1e-11)
    value = (p * REWARDS).sum() - tau * (p * (logp - ref)).sum()
    assert value.item() == pytest.approx(tau_log_z.item(), abs=1e-12)


def test_with_the_exact_log_z_the_squared_loss_is_zero_at_the_optimum():
    tau = 0.5
    ref = LOGP_REF.sum(1)
    best, tau_log_z = soft_optimum(ref, REWARDS, tau=tau)
    # any split of the sequence's log ratio over its tokens has the same loss
    logp = (LOGP_REF + ((best - ref) / MASK.sum(1))[:, None] * MASK).requires_grad_()
    loss = kimi_loss(
        logp, LOGP_REF, REWARDS, ONE_GROUP, MASK, tau=tau, log_z="exact", form="squared",
        tau_log_z=tau_log_z.expand(40).contiguous(),
    )  # fmt: skip
    assert loss.item() == pytest.approx(0.0, abs=1e-25)
    assert torch.autograd.grad(loss, logp)[0].abs().max().item() < 1e-12


@pytest.mark.parametrize(("tau", "rate"), [(0.5, 0.276628866551), (1.0, 0.166817281189)])
def test_descent_with_the_mean_reward_stops_short_of_the_optimum(tau, rate):  # card kimi-k1.5, 4c
    p = torch.tensor(exact.probabilities(SEQUENCES, PROBLEM.reference))
    theta = torch.tensor(PROBLEM.reference, requires_grad=True)
    history, tokens = (
        torch.tensor(np.maximum(x, 0)) for x in (SEQUENCES.history, SEQUENCES.tokens)
    )
    mean = (p * REWARDS).sum()
    optimizer = torch.optim.LBFGS([theta], max_iter=500, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimizer.zero_grad()
        logp = torch.log_softmax(theta, 1)[history, tokens]
        # one row at a time, weighted by the chance of its answer: the expectation itself
        rows = torch.func.vmap(
            lambda logp, ref, r, mask: kimi_loss(
                logp[None], ref[None], r[None], ONE_GROUP[:1], mask[None], tau=tau, log_z="exact", tau_log_z=mean[None]
            )
        )(logp, LOGP_REF, REWARDS, MASK)  # fmt: skip
        loss = (p * rows).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    got = exact.probabilities(SEQUENCES, theta.detach().numpy()) @ PROBLEM.rewards
    assert got == pytest.approx(rate, abs=1e-8)
    assert got == pytest.approx(exact.kimi_fixed_point(PROBLEM, tau), abs=1e-8)


@pytest.mark.parametrize("log_z", ["mean", "logmeanexp"])
@pytest.mark.parametrize("baseline", ["mean", "loo"])
def test_the_two_forms_differ_by_the_factor_two_tau(log_z, baseline):
    x, tau = small(), 0.7
    logp = x.pop("logp").requires_grad_()
    both = [
        torch.autograd.grad(kimi_loss(logp, **x, tau=tau, log_z=log_z, baseline=baseline, form=form), logp)[0]
        for form in ("eq3", "squared")
    ]  # fmt: skip
    assert both[1].numpy() == pytest.approx(2 * tau * both[0].numpy())


def test_the_estimates_of_log_z_are_those_of_their_definitions():
    x, tau = small(), 0.7
    zero = {**x, "logp": x["logp_ref"]}
    members = {0: [0, 1, 2], 1: [0, 1, 2], 2: [0, 1, 2], 3: [3, 4], 4: [3, 4]}
    r = x["rewards"].tolist()
    for baseline in ("mean", "loo"):
        for log_z in ("mean", "logmeanexp"):
            b = []
            for i in range(5):
                rest = [r[j] for j in members[i] if baseline == "mean" or j != i]
                soft = tau * np.log(np.mean(np.exp(np.array(rest) / tau)))
                b.append(np.mean(rest) if log_z == "mean" else soft)
            got = kimi_loss(**zero, tau=tau, log_z=log_z, baseline=baseline, form="squared")
            assert got.item() == pytest.approx(np.mean((np.array(r) - b) ** 2))


def test_order_padding_and_numbers_of_groups_do_not_matter():
    x = small()
    base = kimi_loss(**x, tau=0.5)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert kimi_loss(**{k: v[order] for k, v in x.items()}, tau=0.5).item() == pytest.approx(
        base.item()
    )
    pad = torch.full((5, 2), float("nan"), dtype=torch.float64)
    wide = {
        **x,
        "logp": torch.cat([x["logp"], pad], 1),
        "logp_ref": torch.cat([x["logp_ref"], pad], 1),
    }
    mask = torch.cat([torch.ones(5, 3, dtype=torch.bool), torch.zeros(5, 2, dtype=torch.bool)], 1)
    assert kimi_loss(**wide, mask=mask, tau=0.5).item() == pytest.approx(base.item())


def test_a_huge_reward_over_tau_does_not_overflow():
    x = small()
    got = kimi_loss(**{**x, "rewards": 1e4 * x["rewards"]}, tau=0.1, log_z="logmeanexp")
    assert got.isfinite()


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"tau": 0.0}, InputError, r"tau must be in \(0, inf\)"),
        ({}, {"tau": 1.0, "log_z": "exact"}, InputError, "log_z='exact' needs tau_log_z"),
        ({"group": torch.arange(5)}, {"tau": 1.0, "baseline": "loo"}, InputError, "group 0 has 1 row.*without the row itself"),
        ({"group": torch.zeros(4, dtype=torch.int64)}, {"tau": 1.0}, ShapeError, "group"),
        ({"rewards": torch.ones(5, dtype=torch.float64, requires_grad=True)}, {"tau": 1.0}, TypeError, "rewards requires grad"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(change, options, error, message):
    with pytest.raises(error, match=message):
        kimi_loss(**{**small(), **change}, **options)
