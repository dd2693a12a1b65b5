"""DPO: its loss by hand and by finite differences, its optimum on TM-40, its pairs and bad input."""

import math

import numpy as np
import pytest
import torch

from dodona.errors import InputError, ShapeError
from dodona.language import DPOConfig, dpo_trainer, forced, score_tokens
from dodona.language.dpo import PairBatches, preference_loss
from dodona.objectives.dpo import dpo_loss
from dodona.oracles import sequences as exact
from dodona.policies import TransformerPolicy


def policy(seed=0, dtype=torch.float64):
    found = TransformerPolicy(8, size=(12, 1, 2), context=16, seed=seed).to(dtype)
    with torch.no_grad():
        found.trunk.embedding.weight.mul_(20.0)
    return found


def pair(prompt, chosen, rejected, index=0):
    return forced(prompt, chosen, index), forced(prompt, rejected, index, 1)


PAIRS = [
    pair([1, 3], [4, 2], [4, 5, 4, 2]),
    pair([1, 5, 6], [7, 2], [3, 3, 3, 2], 1),
    pair([1, 4], [6, 5, 2], [2], 2),
]


# ---------------------------------------------------------------------- the loss
def four(seed, n=5):
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.normal(-4.0, 1.5, n)) for _ in range(4)]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_its_formula(smoothing):
    chosen, rejected, ref_chosen, ref_rejected = four(0)
    value = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.3, label_smoothing=smoothing)  # fmt: skip
    by_hand = 0.0
    for c, r, rc, rr in zip(*(x.tolist() for x in four(0)), strict=True):
        h = 0.3 * ((c - rc) - (r - rr))
        p = 1 / (1 + math.exp(-h))
        by_hand -= ((1 - smoothing) * math.log(p) + smoothing * math.log(1 - p)) / 5
    assert value.item() == pytest.approx(by_hand, rel=1e-12)


def test_at_the_reference_it_is_log_two_and_moves_the_pair_apart():
    chosen, rejected, *_ = (x.requires_grad_() for x in four(1))
    loss = dpo_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.5)
    assert loss.item() == pytest.approx(math.log(2.0), rel=1e-12)
    up, down = torch.autograd.grad(loss, (chosen, rejected))
    torch.testing.assert_close(up, torch.full((5,), -0.5 * 0.5 / 5, dtype=torch.float64))
    torch.testing.assert_close(down, -up)


def test_the_gradient_is_that_of_finite_differences():
    given = [x.requires_grad_(i < 2) for i, x in enumerate(four(2))]
    assert torch.autograd.gradcheck(
        lambda c, r: dpo_loss(c, r, *given[2:], beta=0.7, label_smoothing=0.1), given[:2]
    )


def test_parts_of_a_batch_add_up_to_it():
    given = four(3, 6)
    whole = dpo_loss(*given, beta=0.4)
    parts = [dpo_loss(*(x[rows] for x in given), beta=0.4, denom=6.0) for rows in (slice(0, 2), slice(2, 6))]  # fmt: skip
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-12)


def test_huge_margins_stay_finite():
    far = torch.tensor([-1e4], requires_grad=True)
    loss = dpo_loss(far, torch.zeros(1), torch.zeros(1), torch.zeros(1), beta=1.0)
    loss.backward()
    assert loss.item() == 1e4 and far.grad.item() == -1.0


def test_the_optimum_of_bradley_terry_preferences_is_the_tilted_reference():
    """All pairs of TM-40 by their chance: the gradient is 0 at ref exp(r / beta) / Z, and not at the reference."""
    problem = exact.tm40()
    ref = torch.tensor(np.log(exact.probabilities(problem.sequences, problem.reference)))
    rewards, beta, N = torch.tensor(problem.rewards), 0.5, len(problem.rewards)
    best = torch.tensor(np.log(exact.soft_optimum(problem, beta)[0]))
    i, j = (x.ravel() for x in torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij"))
    chance = torch.sigmoid(rewards[i] - rewards[j])
    sizes = []
    for start in (best, ref):
        logits = start.clone().requires_grad_()
        logp = logits.log_softmax(0)
        slope = torch.zeros(N, dtype=torch.float64)
        for weight, a, b in ((chance, i, j), (1 - chance, j, i)):
            each = torch.stack([
                w * dpo_loss(logp[x : x + 1], logp[y : y + 1], ref[x : x + 1], ref[y : y + 1], beta=beta)
                for w, x, y in zip(weight[::7], a[::7].tolist(), b[::7].tolist(), strict=True)
            ])  # fmt: skip
            slope += torch.autograd.grad(each.sum() / N**2, logits, retain_graph=True)[0]
        sizes.append(slope.abs().max().item())
    assert sizes[0] < 1e-15 < 1e-6 < sizes[1]


def test_wrong_arguments_are_named():
    given = four(0)
    with pytest.raises(InputError, match=r"beta must be in \(0, inf\), got 0.0"):
        dpo_loss(*given, beta=0.0)
    with pytest.raises(InputError, match=r"label_smoothing must be in \[0, 0.5\), got 0.5"):
        dpo_loss(*given, beta=0.1, label_smoothing=0.5)
    with pytest.raises(ShapeError, match=r"ref_rejected has shape \(2,\)"):
        dpo_loss.__wrapped__(*given[:3], given[3][:2], beta=0.1)
    with pytest.raises(TypeError, match="ref_chosen requires grad"):
        dpo_loss(given[0], given[1], given[2].requires_grad_(), given[3], beta=0.1)


# ---------------------------------------------------------------------- the trainer
def test_a_step_is_the_loss_of_whole_answers_against_the_policy_as_it_was():
    model = policy()
    reference = policy()
    trainer = dpo_trainer(model, PAIRS, DPOConfig(num_updates=2, batch_size=3, beta=0.4, lr=0.01))
    events = list(trainer)
    assert events[0].metrics["loss/total"] == pytest.approx(math.log(2.0), abs=1e-6)
    assert events[0].metrics["dpo/margin"] == pytest.approx(0.0, abs=1e-6)
    twin = policy()
    one = dpo_trainer(twin, PAIRS, DPOConfig(num_updates=1, batch_size=3, beta=0.4, lr=0.01))
    list(one)
    sides = [[p[k] for p in PAIRS] for k in (0, 1)]
    now, then = ([score_tokens(m, side).sum(1) for side in sides] for m in (twin, reference))
    h = 0.4 * ((now[0] - then[0]) - (now[1] - then[1]))
    by_hand = -torch.nn.functional.logsigmoid(h.double()).mean().item()
    assert events[1].metrics["loss/total"] == pytest.approx(by_hand, rel=1e-5)
    assert events[1].metrics["dpo/margin"] == pytest.approx(h.mean().item(), rel=1e-4)
    assert events[1].metrics["dpo/accuracy"] == (h > 0).double().mean().item()
    assert events[1].num_samples == 12, "answers, two to a pair"


def test_what_is_chosen_becomes_likelier_than_what_is_rejected():
    model = policy(dtype=torch.float32)
    trainer = dpo_trainer(model, PAIRS, DPOConfig(num_updates=40, batch_size=3, beta=0.5, lr=5e-3))
    last = list(trainer)[-1].metrics
    assert last["dpo/accuracy"] == 1.0 and last["dpo/margin"] > 1.0
    assert last["loss/total"] < 0.3


def test_a_pass_visits_every_pair_once_with_its_partner():
    batches = PairBatches(PAIRS, policy(), 1, seed=0)
    seen = []
    for _ in range(6):
        batch = next(batches)
        assert len(batch) == 2
        chosen = batch.actions[0][batch.mask[0]].tolist()
        seen.append(next(i for i, (c, _) in enumerate(PAIRS) if c.token_ids.tolist() == chosen))
        assert batch.actions[1][batch.mask[1]].tolist() == PAIRS[seen[-1]][1].token_ids.tolist()
        torch.testing.assert_close(
            batch.logp_ref, policy().log_prob(batch.obs, batch.actions).detach() * batch.mask
        )
    assert sorted(seen[:3]) == sorted(seen[3:]) == [0, 1, 2]


def test_another_reference_is_used_where_one_is_given():
    trainer = dpo_trainer(
        policy(), PAIRS, DPOConfig(num_updates=1, batch_size=3), reference=policy(1)
    )
    (event,) = trainer
    assert abs(event.metrics["dpo/margin"]) > 1e-3


def test_a_resumed_run_is_the_run():
    config = DPOConfig(num_updates=6, batch_size=2, lr=1e-2)
    whole = [e.metrics for e in dpo_trainer(policy(), PAIRS, config, seed=1)]
    model = policy()
    first = dpo_trainer(model, PAIRS, config, seed=1)
    head = [e.metrics for _, e in zip(range(3), first, strict=False)]
    second = dpo_trainer(policy(), PAIRS, config, seed=1)
    second.load_state_dict(first.state_dict())
    assert head + [e.metrics for e in second] == whole


def test_a_batch_in_two_parts_has_the_same_gradient():
    model, batches = policy(), PairBatches(PAIRS[:2], policy(1), 2, seed=0)
    batch = next(batches)
    loss, _ = preference_loss(model, batch, beta=0.3)
    whole = torch.autograd.grad(loss, list(model.parameters()))
    parts = [batch.select([i, i + 2]) for i in (0, 1)]
    each = [torch.autograd.grad(preference_loss(model, p, beta=0.3)[0], list(model.parameters())) for p in parts]  # fmt: skip
    for x, a, b in zip(whole, *each, strict=True):
        torch.testing.assert_close(x, (a + b) / 2, rtol=1e-8, atol=1e-12)


def test_bad_pairs_are_refused_with_their_place():
    model = policy()
    with pytest.raises(InputError, match="there is no pair to learn from"):
        dpo_trainer(model, [])
    with pytest.raises(InputError, match="pair 1 has answers to two different prompts"):
        dpo_trainer(model, [PAIRS[0], (PAIRS[1][0], PAIRS[2][1])])
    with pytest.raises(InputError, match="pair 0 prefers an answer to itself"):
        dpo_trainer(model, [(PAIRS[0][0], PAIRS[0][0])])
    with pytest.raises(InputError, match="batch_size=64 is more than the 3 pairs"):
        dpo_trainer(model, PAIRS)
    with pytest.raises(InputError, match="beta must be in"):
        DPOConfig(beta=-1.0)
