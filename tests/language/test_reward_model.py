"""A reward model reads the last token wherever pads stand, learns comparisons, and refuses what it can not read."""

import copy
import math

import numpy as np
import pytest
import torch
from two_processes import in_two_processes

from dodona.core.batch import Batch
from dodona.errors import InputError, ShapeError
from dodona.language import CharTokenizer, forced
from dodona.language import reward_model as room
from dodona.language.reward_model import (
    PairBatches,
    RewardModel,
    RewardModelConfig,
    pair_accuracy,
    reward_model_trainer,
    tokenized_pairs,
)
from dodona.objectives.preference import pairwise_reward_loss, reward_model_loss
from dodona.oracles.preference import bradley_terry, pairwise_loss, win_probabilities
from dodona.policies import TransformerPolicy

TOKENIZER = CharTokenizer("abc:")
PAIRS = [
    (f"{x}{y}:", x * n, y * m) for x in "abc" for y in "abc" for n, m in ((1, 2), (2, 1), (3, 3)) if x != y or n != m
]  # fmt: skip


def policy(seed=0, dtype=torch.float64):
    return TransformerPolicy(len(TOKENIZER), size=(16, 2, 2), context=16, seed=seed).to(dtype)


def trained_head(model, seed=0):
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(seed))
    torch.nn.init.constant_(model.head.bias, 0.3)
    return model


def answers(*texts):
    return [
        forced([1, *TOKENIZER.encode(p)], [*TOKENIZER.encode(y), 2], i)
        for i, (p, y) in enumerate(texts)
    ]


SOME = answers(("ab:", "a"), ("c:", "abca"), ("abc:", "cc"), ("b:", "bbb"))


# ---------------------------------------------------------------------- scores
def test_an_answer_alone_has_the_score_it_has_among_others():
    model = trained_head(RewardModel(policy()))
    together = model.score(SOME)
    alone = np.array([model.score([one])[0] for one in SOME])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.score(SOME, max_tokens=8), alone, rtol=0, atol=1e-12)
    assert len(set(together.round(6).tolist())) == 4


def test_the_score_is_the_head_on_the_state_behind_the_last_token():
    model = trained_head(RewardModel(policy()))
    for one in SOME:
        ids = torch.tensor(np.concatenate([one.prompt_ids, one.token_ids])).long()
        expected = model.head(model.trunk(ids[None])[0, -1])
        assert model.score([one])[0] == pytest.approx(expected.item(), abs=1e-12)


def test_pads_anywhere_in_prompts_and_behind_answers_change_nothing():
    model = trained_head(RewardModel(policy()))
    batch = room._rows(SOME)
    plain = model(batch.obs, batch.actions, batch.mask)
    left = {
        "prompt": torch.cat([torch.full((4, 2), 5), batch.obs["prompt"]], 1),
        "prompt_mask": torch.cat([torch.zeros(4, 2, dtype=torch.bool), batch.obs["prompt_mask"]], 1),
    }  # fmt: skip
    tokens = torch.where(batch.mask, batch.actions, 4)
    tokens = torch.cat([tokens, torch.full((4, 1), 2)], 1)
    mask = torch.cat([batch.mask, torch.zeros(4, 1, dtype=torch.bool)], 1)
    torch.testing.assert_close(model(left, tokens, mask), plain, rtol=0, atol=1e-12)
    order = torch.tensor([2, 0, 3, 1])
    moved = model({k: x[order] for k, x in batch.obs.items()}, batch.actions[order], batch.mask[order])  # fmt: skip
    torch.testing.assert_close(moved, plain[order], rtol=0, atol=1e-12)


def test_its_language_model_is_the_policy_it_was_built_on():
    first = policy()
    model = RewardModel(first)
    batch = room._rows(SOME)
    rewards, logp = model.with_logp(batch.obs, batch.actions, batch.mask)
    truth = first.log_prob(batch.obs, batch.actions).masked_fill(~batch.mask, 0.0)
    torch.testing.assert_close(logp, truth)
    assert rewards.abs().max() == 0  # before it has learned
    with torch.no_grad():
        model.trunk.embedding.weight.add_(1.0)
    assert not torch.equal(first.trunk.embedding.weight, model.trunk.embedding.weight)


def test_calibrated_scores_have_mean_0_and_deviation_1_and_the_scale_is_saved():
    model = trained_head(RewardModel(policy()))
    raw = model.score(SOME)
    model.calibrate(SOME)
    scores = model.score(SOME)
    assert scores.mean() == pytest.approx(0, abs=1e-12)
    assert scores.std(ddof=1) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(scores, (raw - raw.mean()) / raw.std(ddof=1), atol=1e-12)
    again = RewardModel(policy(seed=3))
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(again.score(SOME), scores)
    model.calibrate(SOME)  # not of what is calibrated already
    np.testing.assert_allclose(model.score(SOME), scores, atol=1e-12)


def test_a_critic_of_the_model_has_its_trunk_and_head():
    model = trained_head(RewardModel(policy()))
    model.calibrate(SOME)
    critic = model.critic()
    batch = room._rows(SOME)
    longer = torch.cat([batch.actions, batch.actions[:, :1]], 1)
    values = critic(batch.obs, longer)
    last = values.gather(1, batch.mask.sum(1)[:, None])[:, 0]
    shift = (model.head.bias - model.mean) / model.std
    torch.testing.assert_close(last + shift, model(batch.obs, batch.actions, batch.mask))
    assert critic.trunk is not model.trunk


# ---------------------------------------------------------------------- losses
def test_the_loss_of_pairs_is_that_of_a_loop_and_its_slopes_too():
    rng = np.random.default_rng(0)
    a, b, w, m = rng.normal(size=(4, 6)) * 3
    w = np.abs(w)
    for margin in (0.0, 0.7, m):
        up, down = (torch.tensor(x, requires_grad=True) for x in (a, b))
        loss = pairwise_reward_loss(
            up, down, torch.tensor(w), margin=torch.tensor(margin) if np.ndim(margin) else margin, center_coef=0.1
        )  # fmt: skip
        loss.backward()
        value, ups, downs = pairwise_loss(a, b, weights=w, margin=margin, center_coef=0.1)
        assert loss.item() == pytest.approx(value, abs=1e-12)
        np.testing.assert_allclose(up.grad, ups, atol=1e-12)
        np.testing.assert_allclose(down.grad, downs, atol=1e-12)


def test_a_pair_that_is_ranked_very_wrongly_keeps_its_gradient():
    up = torch.tensor([-200.0], requires_grad=True)
    loss = pairwise_reward_loss(up, torch.tensor([200.0]))
    loss.backward()
    assert loss.item() == 400.0 and up.grad.item() == -1.0


def test_pieces_with_the_steps_count_add_up_and_the_constant_is_free():
    a, b = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = pairwise_reward_loss(a, b)
    parts = sum(pairwise_reward_loss(a[i : i + 3], b[i : i + 3], denom=8) for i in (0, 3, 6))
    assert parts.item() == pytest.approx(whole.item(), abs=1e-12)
    assert pairwise_reward_loss(a + 5, b + 5).item() == pytest.approx(whole.item(), abs=1e-12)
    assert pairwise_reward_loss(a + 5, b + 5, center_coef=0.1) > pairwise_reward_loss(a, b, center_coef=0.1)  # fmt: skip


def test_the_whole_loss_is_the_sum_of_its_parts():
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 3, generator=g)
    logp = -torch.rand(3, 4, generator=g)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
    loss = reward_model_loss(a, b, logp, mask, lm_coef=0.5, margin=0.2)
    expected = pairwise_reward_loss(a, b, margin=0.2) - 0.5 * logp[mask].mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    halves = sum(
        reward_model_loss(a[i], b[i], logp[i], mask[i], lm_coef=0.5, margin=0.2, denom=3, denom_tokens=7)
        for i in (slice(0, 1), slice(1, 3))
    )  # fmt: skip
    assert halves.item() == pytest.approx(loss.item(), abs=1e-6)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: pairwise_reward_loss(torch.zeros(2), torch.zeros(2), center_coef=-1.0), InputError, r"center_coef must be in \[0, inf\), got -1.0"),
        (lambda: reward_model_loss(torch.zeros(2), torch.zeros(2), torch.zeros(2, 1), torch.ones(2, 1), lm_coef=-1.0), InputError, r"lm_coef must be in \[0, inf\), got -1.0"),
        (lambda: pairwise_reward_loss(torch.zeros(2), torch.zeros(2), margin=torch.zeros(2, requires_grad=True)), TypeError, "margin requires grad"),
    ],
)  # fmt: skip
def test_losses_that_can_not_be_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_bradley_terry_finds_the_scores_that_made_the_probabilities():
    scores = np.array([0.3, -1.2, 2.0, 0.0, 0.9])
    found = bradley_terry(win_probabilities(scores) - 0.5 * np.eye(5))
    np.testing.assert_allclose(found, scores - scores.mean(), atol=1e-8)


# ---------------------------------------------------------------------- trainer
def test_a_model_learns_what_was_preferred():
    model = RewardModel(policy(dtype=torch.float32))
    pairs = [
        (p, *sorted((a, b), key=lambda y: y.count("a") - y.count("b"))[::-1]) for p, a, b in PAIRS
    ]
    pairs = [x for x in pairs if x[1].count("a") - x[1].count("b") != x[2].count("a") - x[2].count("b")]  # fmt: skip
    config = RewardModelConfig(num_updates=60, batch_size=8, lr=5e-3)
    events = list(reward_model_trainer(model, pairs, config, tokenizer=TOKENIZER))
    assert events[-1].metrics["loss/pairs"] < 0.5 * events[0].metrics["loss/pairs"]
    assert events[0].metrics["loss/pairs"] == pytest.approx(math.log(2), abs=1e-6)
    assert events[0].metrics["pairs/accuracy"] == 0.5
    assert pair_accuracy(model, pairs, tokenizer=TOKENIZER) > 0.95
    assert pair_accuracy(RewardModel(policy()), pairs, tokenizer=TOKENIZER) == 0.5  # ties


def test_the_first_step_is_that_of_the_loss_by_hand():
    config = RewardModelConfig(num_updates=1, batch_size=5, lr=0.1, optimizer="sgd", max_grad_norm=None, margin=0.3, center_coef=0.2, lm_coef=0.7)  # fmt: skip
    model = trained_head(RewardModel(policy()))
    other = copy.deepcopy(model)
    chosen, rejected = tokenized_pairs(PAIRS, TOKENIZER)
    rows = np.random.default_rng((0, 0)).permutation(len(PAIRS))[:5]
    total, logp, tokens = torch.zeros((), dtype=torch.float64), 0.0, 0
    for i in rows:
        r = []
        for one in (chosen[i], rejected[i]):
            ids = torch.tensor(np.concatenate([one.prompt_ids, one.token_ids])).long()
            r.append(other.head(other.trunk(ids[None])[0, -1])[0])
        total = total - torch.log(torch.sigmoid(r[0] - r[1] - 0.3)) / 5 + 0.2 * (r[0] + r[1]) ** 2 / 5  # fmt: skip
        batch = room._rows([chosen[i]])
        logp = logp + TransformerPolicy.log_prob(_Speaker(other.trunk), batch.obs, batch.actions).sum()  # fmt: skip
        tokens += batch.actions.numel()
    (total - 0.7 * logp / tokens).backward()
    event = next(iter(reward_model_trainer(model, PAIRS, config, tokenizer=TOKENIZER)))
    assert event.metrics["loss/total"] == pytest.approx((total - 0.7 * logp / tokens).item(), abs=1e-10)  # fmt: skip
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q - 0.1 * q.grad, rtol=0, atol=1e-10)


class _Speaker:
    """A trunk as the policy it would be."""

    def __init__(self, trunk):
        self.trunk, self._weight = trunk, trunk.embedding.weight


def test_a_resumed_run_gives_the_same_events():
    config = RewardModelConfig(num_updates=6, batch_size=10)

    def build():
        return reward_model_trainer(RewardModel(policy()), PAIRS, config, tokenizer=TOKENIZER, seed=1)  # fmt: skip

    whole = [repr(e) for e in build()]
    first = build()
    begun = [repr(e) for _, e in zip(range(3), first, strict=False)]
    second = build()
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == whole


def test_every_pair_comes_once_in_a_pass_the_chosen_ones_first():
    batches = PairBatches(PAIRS, len(PAIRS), tokenizer=TOKENIZER, seed=0)
    batch = next(batches)
    assert isinstance(batch, Batch) and len(batch) == 2 * len(PAIRS)
    spoken = [TOKENIZER.decode(row[keep][:-1].tolist()) for row, keep in zip(batch.actions, batch.mask, strict=True)]  # fmt: skip
    n = len(PAIRS)
    assert sorted(zip(spoken[:n], spoken[n:], strict=True)) == sorted((a, b) for _, a, b in PAIRS)


def _updated() -> list:
    model = trained_head(RewardModel(policy()))
    config = RewardModelConfig(num_updates=2, batch_size=7, lr=0.1, optimizer="sgd")
    for _ in reward_model_trainer(model, PAIRS, config, tokenizer=TOKENIZER):
        pass
    return [p.detach().numpy() for p in model.parameters()]


def test_two_processes_take_the_steps_of_one(tmp_path):
    for one, both in zip(_updated(), in_two_processes(_updated, tmp_path), strict=True):
        np.testing.assert_allclose(both, one, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- bad input
def _call(**changes):
    batch = room._rows(SOME)
    given = {"obs": batch.obs, "actions": batch.actions, "mask": batch.mask} | changes
    return RewardModel(policy())(**given)


def test_a_long_prompt_and_a_long_answer_of_two_rows_need_no_longer_context():
    model = trained_head(RewardModel(policy()))
    rows = answers(("abcabcabcab:", "a"), ("a:", "abcabcabcab"))  # 15 tokens each, 24 side by side
    alone = [model.score([one])[0] for one in rows]
    np.testing.assert_allclose(model.score(rows), alone, atol=1e-12)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: RewardModel(torch.nn.Linear(2, 2)), InputError, "TransformerPolicy's trunk, got Linear"),
        (lambda: _call(obs={"prompt": room._rows(SOME).obs["prompt"]}), InputError, "no 'prompt_mask': without it pads"),
        (lambda: _call(mask=torch.zeros(4, 5, dtype=torch.bool)), InputError, "answer 0 has no token to score"),
        (lambda: _call(mask=torch.tensor([[0, 1, 1, 0, 0]] * 4).bool()), InputError, "answer 0 does not begin in column 0"),
        (lambda: RewardModel(policy()).score([]), InputError, "score got no rollout"),
        (lambda: RewardModel(policy()).calibrate(SOME), InputError, "4 answers with scores of no spread"),
        (lambda: tokenized_pairs([], TOKENIZER), InputError, "at least one, got"),
        (lambda: tokenized_pairs([("a:", "b", "c"), ("a:", "b", "b")], TOKENIZER), InputError, "pair 1 has one answer twice, 'b'"),
        (lambda: tokenized_pairs([("a:", "b", "")], TOKENIZER), InputError, "text 0 is empty"),
        (lambda: tokenized_pairs([("a:", "b", "cccc")], TOKENIZER, max_tokens=5), InputError, "text 0 has 8 tokens, max_tokens is 5"),
        (lambda: PairBatches(PAIRS, 500, tokenizer=TOKENIZER, seed=0), InputError, "batch_size=500 is more than"),
        (lambda: RewardModelConfig(lm_coef=-1.0), InputError, r"lm_coef must be in \[0, inf\), got -1.0"),
        (lambda: RewardModelConfig(batch_size=0), InputError, "batch_size must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_mask_of_another_kind_is_a_shape_error():
    with pytest.raises((ShapeError, Exception), match=r"shape|hint"):
        _call(mask=torch.ones(4, dtype=torch.bool))
