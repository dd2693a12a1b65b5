"""PPO on a reward model: the step by hand, the critic learned first, texts mixed in, what is watched, and resuming."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from two_processes import in_two_processes

from dodona.core.batch import Batch
from dodona.core.schedules import linear
from dodona.core.statistics import RunningMoments
from dodona.errors import InputError, NonFiniteError
from dodona.language import CharTokenizer, forced
from dodona.language._rlhf_objective import MixedTexts, RLHFObjective, ended, watched
from dodona.language.reward_model import RewardModel
from dodona.language.rlhf import (
    CriticUpdate,
    ModelReward,
    RLHFConfig,
    pretrain_critic,
    rlhf_trainer,
    two_rates,
)
from dodona.language.sft import SFTConfig, sft_trainer
from dodona.language.tasks.arithmetic import Reverse
from dodona.objectives import PolicyObjective, dapo, ppo_max, rloo, vanilla_ppo
from dodona.policies import TransformerPolicy

TASK = Reverse(2, letters="ab")
TOKENIZER = CharTokenizer(TASK.alphabet)
ITEMS = TASK.items()
TEXTS = [(item.prompt, y) for item in ITEMS for y in ("aa", "ab", "ba", "bb")]
TINY = RLHFConfig(num_updates=2, num_prompts=8, max_new_tokens=3, minibatches=2, lr=1e-2)


def policy(seed=0, dtype=torch.float64):
    return TransformerPolicy(len(TOKENIZER), size=(16, 2, 2), context=12, seed=seed).to(dtype)


def reward_model(first, seed=0):
    model = RewardModel(first)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(seed))
    return model


def build(objective=None, *, config=TINY, seed=0, dtype=torch.float64, **given):
    first = policy(dtype=dtype)
    model = given.pop("reward_model", reward_model(first))
    critic = given.pop("critic", first.with_value_head())
    return rlhf_trainer(
        first, critic, model, TASK, tokenizer=TOKENIZER, items=ITEMS, objective=objective, config=config,
        seed=seed, **given,
    )  # fmt: skip


class LikesA(RewardModel):
    """A reward model without weights that matter: 1 for every a."""

    def score(self, rollouts, **_):
        return np.array([r.text.count("a") for r in rollouts], dtype=float)


def collected(trainer) -> Batch:
    return trainer.collector.collect(trainer.policy)


# ---------------------------------------------------------------------- the loop
def test_a_policy_learns_what_the_reward_model_likes():
    first = policy(dtype=torch.float32)
    trainer = rlhf_trainer(
        first, first.with_value_head(), LikesA(first), TASK, tokenizer=TOKENIZER, items=ITEMS,
        objective=vanilla_ppo(), config=replace(TINY, num_updates=12, num_prompts=32),
    )  # fmt: skip
    events = list(trainer)
    assert events[-1].metrics["reward/mean"] > events[0].metrics["reward/mean"] + 0.7
    assert events[-1].metrics["kl/answer"] > 0.2 and abs(events[0].metrics["kl/answer"]) < 1e-5
    assert events[-1].metrics["perplexity/policy"] < events[-1].metrics["perplexity/reference"]
    assert 0 <= events[-1].metrics["reward/gold"] <= 1


def test_without_a_reward_model_the_verifier_pays():
    event = next(iter(build(vanilla_ppo(), reward_model=None)))
    assert event.metrics["reward/mean"] == event.metrics["reward/gold"]


def test_the_default_objective_is_ppo_max_and_has_every_monitor():
    event = next(iter(build(texts=TEXTS)))
    wanted = {
        "kl/answer", "kl/token", "perplexity/policy", "perplexity/reference", "answer/length", "answer/length_95",
        "answer/entropy", "reward/mean", "reward/std", "reward/low", "reward/high", "reward/gold",
        "value/explained", "value/clip_fraction", "policy/clip_fraction", "policy/ess", "policy/ratio_max",
        "policy/kl_old", "loss/policy", "loss/value", "loss/ptx", "update/grad_norm", "answer/cut",
    }  # fmt: skip
    assert wanted <= set(event.metrics)
    assert build().objective.objective.ptx_coef == 0.0  # no texts, no term


def test_the_first_step_is_that_of_the_objective_by_hand():
    config = replace(TINY, minibatches=1, optimizer="sgd", max_grad_norm=None, lr=0.1, critic_rate=3.0, num_updates=1)  # fmt: skip
    objective = ppo_max(ptx_coef=0.0)
    trainer = build(objective, config=config)
    batch = ended(collected(trainer))
    own, critic, reference = (copy.deepcopy(m) for m in (trainer.policy, trainer.critic, trainer.reference))  # fmt: skip
    with torch.no_grad():
        filled = batch.replace(
            values=critic(batch.obs), logp_ref=reference.log_prob(batch.obs, batch.actions)
        )
    prepared = objective.prepare(filled, moments=RunningMoments())
    loss, _ = objective(own.log_prob(batch.obs, batch.actions), prepared, values=critic(batch.obs))
    loss.backward()
    trainer.update(collected_again(trainer, batch))
    for p, q in zip(trainer.policy.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(p, q - 0.1 * q.grad, rtol=0, atol=1e-9)
    for p, q in zip(trainer.critic.parameters(), critic.parameters(), strict=True):
        torch.testing.assert_close(p, q - 0.3 * q.grad, rtol=0, atol=1e-9)


def collected_again(trainer, batch):
    """The batch as a user brings it: without what the trainer fills in."""
    return batch.replace(values=None, logp_ref=None)


@pytest.mark.parametrize("objective", [ppo_max(), ppo_max("released_en"), vanilla_ppo()])
def test_micro_batches_take_the_same_step(objective):
    texts = TEXTS if objective.ptx_coef else None
    whole = build(objective, texts=texts, config=TINY)
    pieces = build(objective, texts=texts, config=replace(TINY, micro_batch=1))
    one, other = (next(iter(t)).metrics for t in (whole, pieces))
    for name in ("loss/policy", "loss/value", "loss/ptx", "update/grad_norm"):
        assert one.get(name, 0.0) == pytest.approx(other.get(name, 0.0), abs=1e-9), name
    for p, q in zip(whole.policy.parameters(), pieces.policy.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-7)


def test_a_run_that_was_cut_equals_one_that_was_not():
    config = replace(TINY, num_updates=4)
    whole = [repr(e) for e in build(texts=TEXTS, config=config)]
    first = build(texts=TEXTS, config=config)
    begun = [repr(e) for _, e in zip(range(2), first, strict=False)]
    second = build(texts=TEXTS, config=config)
    second.load_state_dict(first.state_dict())
    assert begun + [repr(e) for e in second] == whole


SWITCHES = {
    "1 no KL": {"kl": "none", "kl_coef": 0.0},
    "2 ratio to the reference": {"ratio_to": "ref"},
    "3 entropy bonus": {"entropy_coef": 0.01, "entropy_target": 2.0},
    "4 scaling": {"reward_norm": "scale", "reward_clip": None},
    "5 no norm": {"reward_norm": "none", "reward_clip": None},
    "6 advantage norm and clip": {"scale": "whiten", "advantage_clip": 0.5},
    "7 no value clip": {"value_kind": "mse", "value_clip_eps": None},
    "10 lambda 1": {"gae_lambda": 1.0},
    "11 no clip": {"surrogate": "unclipped"},
}


@pytest.mark.parametrize("trick", SWITCHES)
def test_every_trick_is_a_switch_that_changes_the_step(trick):
    config = replace(TINY, num_updates=1, epochs=4, lr=2e-2, optimizer="adam")
    plain = build(ppo_max(ptx_coef=0.0), config=config)
    other = build(ppo_max(ptx_coef=0.0, **SWITCHES[trick]), config=config)
    before = [p.clone() for p in plain.policy.parameters()]
    for trainer in (plain, other):
        event = list(trainer)[-1]
        assert event.metrics["guard/skipped"] == 0
    moved = [
        torch.cat([(p - b).flatten() for p, b in zip((*t.policy.parameters(), *t.critic.parameters()), (*before, *before), strict=False)])
        for t in (plain, other)
    ]  # fmt: skip
    assert not torch.allclose(*moved, rtol=1e-6, atol=1e-12)


# ---------------------------------------------------------------------- the critic
def test_pretraining_moves_the_critic_alone_and_ends_when_it_explains_enough():
    first = policy(dtype=torch.float32)
    before = [p.clone() for p in first.parameters()]
    model, critic = reward_model(first), first.with_value_head()
    config = replace(TINY, num_updates=60, num_prompts=32, lr=3e-3, critic_rate=3.0)
    trainer = pretrain_critic(critic, first, model, TASK, tokenizer=TOKENIZER, items=ITEMS, config=config, explained=0.5)  # fmt: skip
    events = list(trainer)
    assert events[0].metrics["value/explained"] < 0.1 and events[-1].metrics["value/explained"] >= 0.5  # fmt: skip
    assert len(events) < 60 and all(e.metrics["value/explained"] < 0.5 for e in events[:-1])
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), before, strict=True))
    assert trainer.moments.count == 32 * len(events)
    again = rlhf_trainer(first, critic, model, TASK, tokenizer=TOKENIZER, items=ITEMS, config=TINY, moments=trainer.moments)  # fmt: skip
    assert again.moments.count == trainer.moments.count and again.moments is not trainer.moments
    resumed = pretrain_critic(critic, first, model, TASK, tokenizer=TOKENIZER, items=ITEMS, config=config, explained=0.5)  # fmt: skip
    resumed.load_state_dict(trainer.state_dict())
    assert list(resumed) == []  # it had ended


def test_the_values_of_a_critic_become_what_prefixes_earn():
    """Every a is paid 1: a prefix is worth those it has and the half of what is left to say."""
    first = policy(seed=2, dtype=torch.float32)
    list(sft_trainer(first, TEXTS, SFTConfig(num_updates=40, batch_size=16, lr=1e-2), tokenizer=TOKENIZER))  # fmt: skip
    critic = first.with_value_head()
    config = replace(TINY, num_updates=60, num_prompts=64, minibatches=1, lr=linear(1e-2, 1e-3, 60), critic_rate=1.0)  # fmt: skip
    list(pretrain_critic(critic, first, LikesA(first), TASK, tokenizer=TOKENIZER, items=ITEMS, objective=vanilla_ppo(), config=config, explained=None))  # fmt: skip
    off = []
    for prompt, answer in TEXTS:
        obs = {"prompt": torch.tensor([[1, *TOKENIZER.encode(prompt)]])}
        values = critic(obs, torch.tensor([[*TOKENIZER.encode(answer), 2]]))[0]
        off += [abs(values[t].item() - answer[:t].count("a") - (2 - t) / 2) for t in range(3)]
    assert np.mean(off) < 0.15


def test_a_critic_with_a_rate_of_its_own_takes_the_steps_of_two_optimizers():
    first = policy()
    critic, other, another = first.with_value_head(), copy.deepcopy(first), None
    another = copy.deepcopy(critic)
    made = two_rates("adamw", first, critic, 3.0)([*first.parameters(), *critic.parameters()], 0.1)
    apart = [torch.optim.AdamW(other.parameters(), 0.01), torch.optim.AdamW(another.parameters(), 0.03)]  # fmt: skip
    for _ in range(3):
        for group in made.param_groups:
            group["lr"] = 0.01
        for module in (first, critic, other, another):
            for p in module.parameters():
                p.grad = torch.sin(p.detach())
        for optimizer in (made, *apart):
            optimizer.step()
    assert {group["lr"] for group in made.param_groups} == {0.01}
    for a, b in ((first, other), (critic, another)):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


def test_a_trunk_that_is_shared_keeps_the_rate_of_the_policy():
    first = policy()
    shared = first.with_value_head(share=True)
    made = two_rates("sgd", first, shared, 2.0)([*first.parameters(), shared.value.weight], 0.1)
    assert [len(g["params"]) for g in made.param_groups] == [len(list(first.parameters())), 1]


def test_the_update_of_a_critic_never_asks_the_policy():
    class Refuses(torch.nn.Module):
        def log_prob(self, obs, actions):
            raise AssertionError("asked")

    first = policy()
    bound = CriticUpdate(TINY.update()).bind(Refuses(), first.with_value_head(), None)
    assert bound.policy.log_prob({}, torch.zeros(2, 3)).shape == (2, 3)


# ---------------------------------------------------------------------- texts
def test_texts_come_once_in_a_pass_and_their_loss_adds_up():
    mixed = MixedTexts(TEXTS, TOKENIZER, minibatches=2, seed=3)
    seen = []
    for _ in range(2):
        drawn = mixed.draw(8)
        seen += [TOKENIZER.decode(r[m].tolist()[1:]) + TOKENIZER.decode(t[k].tolist()[:-1]) for r, m, t, k in zip(*drawn.values(), strict=True)]  # fmt: skip
    assert sorted(seen) == sorted(p + y for p, y in TEXTS)
    speaker = policy()
    rows = Batch(obs=drawn, actions=torch.zeros(8, 1), mask=torch.ones(8, 1))
    whole = mixed.loss(speaker, rows)
    parts = mixed.loss(speaker, rows.select(slice(0, 3))) + mixed.loss(speaker, rows.select(slice(3, 8)))  # fmt: skip
    assert parts.item() == pytest.approx(whole.item(), abs=1e-12)
    # two minibatches: each is worth a mean over its own tokens, on average
    obs = {"prompt": drawn["prompt_ptx"], "prompt_mask": drawn["prompt_ptx_mask"]}
    logp = speaker.log_prob(obs, drawn["prompt_ptx_tokens"])
    assert whole.item() == pytest.approx(-2 * logp.mean().item(), abs=1e-12)  # all have 3 tokens


def test_texts_keep_the_policy_near_what_they_say():
    heavy, none = ppo_max(ptx_coef=5.0), ppo_max(ptx_coef=0.0)
    config = replace(TINY, num_updates=8)
    kept = list(build(heavy, texts=TEXTS, config=config, dtype=torch.float32))
    free = list(build(none, config=config, dtype=torch.float32))
    assert kept[-1].metrics["loss/ptx"] < 0.7 * kept[0].metrics["loss/ptx"]
    assert "loss/ptx" not in free[-1].metrics


# ---------------------------------------------------------------------- pieces
def row(tokens=3):
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool)
    last = torch.tensor([[0, 0, 1], [0, 1, 0]], dtype=torch.bool)
    return Batch(
        obs=torch.zeros(2, tokens), actions=torch.zeros(2, tokens), mask=mask,
        logp_old=torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, 99.0]]),
        logp_ref=torch.tensor([[-2.0, -2.0, -2.0], [-3.0, -1.5, -99.0]]),
        rewards=torch.tensor([[0.0, 0.0, 2.0], [0.0, 1.0, 0.0]]),
        terminated=last & torch.tensor([[False], [True]]), truncated=last & torch.tensor([[True], [False]]),
    )  # fmt: skip


def test_a_cut_answer_ends_in_its_last_token():
    batch = ended(row())
    assert batch.terminated.tolist() == [[False, False, True], [False, True, False]]
    assert not batch.truncated.any()


def test_what_is_watched_is_what_it_says():
    told = watched(row())
    assert told["kl/answer"] == pytest.approx((0.0 + 2.5) / 2)
    assert told["kl/token"] == pytest.approx(2.5 / 5)
    assert told["perplexity/policy"] == pytest.approx(math.exp(8 / 5))
    assert told["perplexity/reference"] == pytest.approx(math.exp(10.5 / 5))
    assert told["answer/length_95"] == pytest.approx(2.95)
    assert told["reward/std"] == pytest.approx(math.sqrt(0.5))
    assert (told["reward/low"], told["reward/high"]) == pytest.approx((1.05, 1.95))
    assert "reward/gold" not in told


def test_cut_answers_that_the_objective_masks_stay_cut():
    objective = PolicyObjective(name="masks", mask_truncated=True)
    batch = row().replace(values=torch.zeros(2, 3))
    masked = RLHFObjective(objective, policy=policy(), texts=None, watch_kl=False).prepare(batch)
    assert masked.mask.any(1).tolist() == [False, True]
    kept = RLHFObjective(replace(objective, mask_truncated=False), policy=policy(), texts=None, watch_kl=False).prepare(batch)  # fmt: skip
    assert kept.mask.any(1).tolist() == [True, True]


def test_cut_answers_pay_their_penalty():
    first = policy()
    model = reward_model(first)
    rollouts = [forced([1, 3], [3, 2]), replace(forced([1, 3], [3, 4]), finish="length")]
    plain = model.score(rollouts)
    paid = ModelReward(model, cut_penalty=2.0)(ITEMS[:2], rollouts, [])
    np.testing.assert_allclose(paid, plain - [0.0, 2.0])
    failed = replace(forced([1, 3], []), finish="error")
    paid = ModelReward(model)(ITEMS[:3], [rollouts[0], failed, rollouts[1]], [])
    np.testing.assert_allclose(paid, [plain[0], 0.0, plain[1]])


def test_the_papers_settings_are_one_call():
    config = RLHFConfig.paper(1000, num_prompts=64)
    assert config.lr(100) == pytest.approx(5e-7) and config.lr(0) == pytest.approx(5e-7 / 101)
    assert config.critic_rate * 5e-7 == pytest.approx(1.65e-6) and config.num_prompts == 64
    assert (config.minibatches, config.epochs, config.max_grad_norm) == (4, 1, 1.0)


# ---------------------------------------------------------------------- processes
def _stepped() -> list:
    """Weights after two steps of PPO-max with texts, and the history of scores."""
    config = replace(TINY, minibatches=1, optimizer="sgd", lr=0.1, group_size=3)
    trainer = build(ppo_max(), texts=TEXTS, config=config)
    list(trainer)
    parameters = [*trainer.policy.parameters(), *trainer.critic.parameters()]
    return [*(p.detach().numpy() for p in parameters), np.array([trainer.moments.count, trainer.moments.mean, trainer.moments.std])]  # fmt: skip


def test_two_processes_take_the_steps_of_one(tmp_path):
    for one, both in zip(_stepped(), in_two_processes(_stepped, tmp_path), strict=True):
        np.testing.assert_allclose(both, one, rtol=0, atol=1e-7)


# ---------------------------------------------------------------------- bad input
def _broken():
    first = policy()
    model = reward_model(first)
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    next(iter(build(reward_model=model)))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: build(vanilla_ppo(), critic=None), InputError, "'vanilla_ppo' needs a critic and got None"),
        (lambda: build(ppo_max()), InputError, "'ppo_max' has ptx_coef = 0.1 and got no texts"),
        (lambda: build(vanilla_ppo(), texts=TEXTS), InputError, "ptx_coef = 0.0 and got texts that it would ignore"),
        (lambda: RLHFConfig(critic_rate=0.0), InputError, r"critic_rate must be in \(0, inf\), got 0.0"),
        (lambda: RLHFConfig(cut_penalty=-1.0), InputError, r"cut_penalty must be in \[0, inf\), got -1.0"),
        (lambda: RLHFConfig(num_prompts=0), InputError, "num_prompts must be at least 1, got 0"),
        (lambda: RLHFConfig(lr=0.0), InputError, r"lr must be in \(0, inf\), got 0.0"),
        (lambda: pretrain_critic(policy().with_value_head(), policy(), None, TASK, tokenizer=TOKENIZER, explained=1.5), InputError, r"explained must be in \(-inf, 1\], got 1.5"),
        (_broken, NonFiniteError, "the reward model gives nan to an answer to prompt 0"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_objective_without_a_critic_needs_none():
    config = replace(TINY, num_prompts=4, group_size=2, minibatches=1)
    for objective in (rloo(), dapo()):
        event = next(iter(build(objective, critic=None, config=config)))
        assert "value/explained" not in event.metrics and math.isfinite(
            event.metrics["loss/policy"]
        )
