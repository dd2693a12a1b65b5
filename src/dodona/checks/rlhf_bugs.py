"""Wrong RLHF: rewards on the wrong token, histories of the wrong scores, comparisons upside down; all to be caught.

Source: card rlhf-ppo-max, sec. 9 (reports in public code).  Not here: mistakes of the clipped loss itself (ppo_bugs.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from dodona import objectives
from dodona.core.protocols import Mutant
from dodona.core.reductions import masked_mean
from dodona.core.statistics import RunningMoments
from dodona.language import reward_model as rm
from dodona.language import rlhf
from dodona.objectives import preference


# ---------------------------------------------------------------------- rewards
def _paid_behind_the_end(scores, logp_old, logp_ref, mask, *, kl_coef):
    """On the first pad, as a library did; without one on the last token."""
    right = objectives.kl_penalized_rewards(torch.zeros_like(scores), logp_old, logp_ref, mask, kl_coef=kl_coef)  # fmt: skip
    place = mask.sum(1).clamp(max=mask.shape[1] - 1)
    return right.scatter_add(1, place[:, None], scores[:, None].to(right))


def _paid_everywhere(scores, logp_old, logp_ref, mask, *, kl_coef):
    penalty = kl_coef * torch.where(mask, logp_old - logp_ref, 0.0)
    return torch.where(mask, scores[:, None].to(penalty), 0.0) - penalty


def _pads_too(scores, logp_old, logp_ref, mask, *, kl_coef):
    return objectives.pay_at_the_end(scores, mask) - kl_coef * (logp_old - logp_ref)


def _other_estimate(scores, logp_old, logp_ref, mask, *, kl_coef):
    """k3: never negative, and its gradient is another one's."""
    x = torch.where(mask, logp_old - logp_ref, 0.0)
    return objectives.pay_at_the_end(scores, mask) - kl_coef * (torch.expm1(-x) + x)


def _normalized(change: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(scores, moments, *, mode="whiten", clip=None):
        return change(scores, moments, mode, clip)

    return wrong


def _batch_only(scores, moments, mode, clip):
    return objectives.normalize_rewards(scores, RunningMoments(), mode=mode, clip=clip)


def _before_the_batch(scores, moments, mode, clip):
    """The history without the batch at hand."""
    old = RunningMoments()
    old.merge(moments)
    moments.update(scores)
    if old.count < 2:
        return objectives.normalize_rewards(scores, old, mode=mode, clip=clip)
    out = (scores - (old.mean if mode == "whiten" else 0.0)) / old.std
    return out if clip is None else out.clamp(-clip, clip)


def _clipped_first(scores, moments, mode, clip):
    scores = scores if clip is None else scores.clamp(-clip, clip)
    return objectives.normalize_rewards(scores, moments, mode=mode)


def _deviation_of_n(scores, moments, mode, clip):
    out = objectives.normalize_rewards(scores, moments, mode=mode)
    out = out * np.sqrt(moments.count / (moments.count - 1))
    return out if clip is None else out.clamp(-clip, clip)


def _other_mode(scores, moments, mode, clip):
    mode = "scale" if mode == "whiten" else "whiten"
    return objectives.normalize_rewards(scores, moments, mode=mode, clip=clip)


def _from_the_next(rewards, values, terminated, truncated, **options):
    """The sum over l begins at 1, as the paper prints it: the first error is missing."""
    right = objectives.gae(rewards, values, terminated, truncated, **options)
    dim, gamma = options.get("time_dim", 0), options["gamma"]
    T = rewards.shape[dim]
    here, there = values.narrow(dim, 0, T), values.narrow(dim, 1, T)
    return right - (rewards + gamma * torch.where(terminated, 0.0, there) - here)


def _through_the_end(rewards, values, terminated, truncated, **options):
    return objectives.gae(rewards, values, torch.zeros_like(terminated), truncated, **options)


# ---------------------------------------------------------------------- comparisons
def _pairs(each: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Another loss per pair: each(chosen, rejected, margin)."""

    def wrong(chosen, rejected, mask=None, *, margin=0.0, center_coef=0.0, denom=None):
        out = each(chosen, rejected, margin) + center_coef * (chosen + rejected) ** 2
        return masked_mean(out, mask, denom=denom)

    return wrong


def _fed(change: Callable[..., dict[str, Any]]) -> Callable[..., torch.Tensor]:
    def wrong(chosen, rejected, mask=None, *, margin=0.0, center_coef=0.0, denom=None):
        given = {"mask": mask, "margin": margin, "center_coef": center_coef, "denom": denom}
        return preference.pairwise_reward_loss(chosen, rejected, **(given | change(given)))

    return wrong


def _centred_difference(chosen, rejected, mask=None, *, margin=0.0, center_coef=0.0, denom=None):
    """The difference is drawn to 0 where the sum should be."""
    plain = preference.pairwise_reward_loss(chosen, rejected, mask, margin=margin, denom=denom)
    return plain + center_coef * masked_mean((chosen - rejected) ** 2, mask, denom=denom)


def _model_loss(**changes: Any) -> Callable[..., torch.Tensor]:
    def wrong(chosen, rejected, logp, mask, **options):
        options = {**options, **{k: f(options.get(k)) for k, f in changes.items() if k != "mask"}}
        mask = changes["mask"](mask) if "mask" in changes else mask
        return preference.reward_model_loss(chosen, rejected, logp, mask, **options)

    return wrong


# ---------------------------------------------------------------------- models and trainers
class _FirstState(rm.RewardModel):
    """The state before the last token, which has not seen it."""

    def _rewards(self, states, ends):
        return super()._rewards(states, ends - 1)


class _LastColumn(rm.RewardModel):
    """The last column, pad or not."""

    def _rewards(self, states, ends):
        return super()._rewards(states, torch.full_like(ends, states.shape[1]))


class _MeanState(rm.RewardModel):
    def _rewards(self, states, ends):
        return (self.head(states.mean(1))[:, 0] - self.mean) / self.std


class _Unscaled(rm.RewardModel):
    """Calibration takes the mean and forgets the deviation."""

    def calibrate(self, rollouts):
        super().calibrate(rollouts)
        self.std.fill_(1.0)


def _swapped_pairs(model, pairs, config, **options):
    return rm.reward_model_trainer(model, [(p, b, a) for p, a, b in pairs], config, **options)


def _language_only(model, pairs, config, **options):
    """The head never moves."""
    trainer = rm.reward_model_trainer(model, pairs, config, **options)
    model.head.requires_grad_(False)
    return trainer


class _Fined:
    """Whole answers pay the penalty, cut ones do not."""

    def __init__(self, model, *, cut_penalty=0.0):
        self.own, self.fine = rlhf.ModelReward(model, cut_penalty=cut_penalty), cut_penalty

    def __call__(self, items, rollouts, scores):
        cut = np.array([r.finish in rlhf.CUT for r in rollouts])
        return self.own(items, rollouts, scores) + self.fine * (2 * cut - 1.0)


def _unfined(model, *, cut_penalty=0.0):
    return rlhf.ModelReward(model)


def _negative(model, *, cut_penalty=0.0):
    own = rlhf.ModelReward(model, cut_penalty=cut_penalty)
    return lambda *given: -own(*given)


def _trained(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Any]:
    """rlhf_trainer of changed arguments."""

    def wrong(policy, critic, reward_model, task, **options):
        given = {"policy": policy, "critic": critic, "reward_model": reward_model, "task": task, **options}  # fmt: skip
        return rlhf.rlhf_trainer(**(given | change(given)))

    return wrong


def _after(change: Callable[[Any], None], function: Callable[..., Any] = rlhf.rlhf_trainer) -> Callable[..., Any]:  # fmt: skip
    """The trainer, then changed."""

    def wrong(*given, **options):
        trainer = function(*given, **options)
        change(trainer)
        return trainer

    return wrong


def _foreign_history(trainer):
    trainer.moments.update(np.array([-50.0, 50.0]))


def _texts_forgotten(trainer):
    trainer.objective.texts = None


def _texts_summed(trainer):
    if trainer.objective.texts is not None:
        trainer.objective.texts.minibatches *= 2


def _pretrained(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Any]:
    def wrong(critic, policy, reward_model, task, **options):
        given = {"critic": critic, "policy": policy, "reward_model": reward_model, "task": task, **options}  # fmt: skip
        return rlhf.pretrain_critic(**(given | change(given)))

    return wrong


def _moves_the_policy(critic, policy, reward_model, task, **options):
    """The whole objective in the place of the critic's part of it."""
    options.pop("explained", None)
    return rlhf.rlhf_trainer(policy, critic, reward_model, task, **options)


def _never_ends(trainer):
    trainer.explained = None


def _bootstraps(trainer):
    trainer.objective.objective = replace(trainer.objective.objective, gae_lambda=0.5)


def _preset(function: Callable[..., Any], **wrong: Any) -> Callable[..., Any]:
    """A preset with other switches, where none of them was asked for."""
    return lambda *source, **asked: function(*source, **(wrong | asked))


def _mutant(name: str, replaces: str, function: Callable[..., Any], bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


MUTANTS = (
    _mutant("behind the end", "kl_penalized_rewards", _paid_behind_the_end, "the score on the first pad"),
    _mutant("everywhere", "kl_penalized_rewards", _paid_everywhere, "every token is paid the score"),
    _mutant("pads too", "kl_penalized_rewards", _pads_too, "KL leaks through pads"),
    _mutant("k3", "kl_penalized_rewards", _other_estimate, "another estimate than k1"),
    _mutant("sign", "kl_penalized_rewards", lambda s, a, b, m, *, kl_coef: objectives.kl_penalized_rewards(s, b, a, m, kl_coef=kl_coef), "distance is paid for"),
    _mutant("batch only", "normalize_rewards", _normalized(_batch_only), "no history"),
    _mutant("before the batch", "normalize_rewards", _normalized(_before_the_batch), "statistics one batch late"),
    _mutant("clipped first", "normalize_rewards", _normalized(_clipped_first), "raw scores are clipped"),
    _mutant("n for n - 1", "normalize_rewards", _normalized(_deviation_of_n), "biased deviation"),
    _mutant("other mode", "normalize_rewards", _normalized(_other_mode), "scaling for whitening"),
    _mutant("from the next", "gae", _from_the_next, "l starts at 1"),
    _mutant("through the end", "gae", _through_the_end, "what stands behind an answer is worth something"),
    _mutant("guarded log", "pairwise_reward_loss", _pairs(lambda a, b, m: -torch.log(torch.sigmoid(a - b - m) + 1e-5)), "no gradient where a pair is very wrong"),
    _mutant("upside down", "pairwise_reward_loss", _pairs(lambda a, b, m: -F.logsigmoid(b - a - m)), "the rejected one wins"),
    _mutant("hinge", "pairwise_reward_loss", _pairs(lambda a, b, m: (m + 1 - a + b).clamp(min=0.0)), "another model of comparisons"),
    _mutant("chance", "pairwise_reward_loss", _pairs(lambda a, b, m: torch.sigmoid(b - a + m)), "the chance for its logarithm"),
    _mutant("margin ignored", "pairwise_reward_loss", _fed(lambda g: {"margin": 0.0}), "a switch without effect"),
    _mutant("margin added", "pairwise_reward_loss", _fed(lambda g: {"margin": -g["margin"]}), "wins by less"),
    _mutant("centring ignored", "pairwise_reward_loss", _fed(lambda g: {"center_coef": 0.0}), "a switch without effect"),
    _mutant("centred difference", "pairwise_reward_loss", _centred_difference, "pulls the two together"),
    _mutant("weights ignored", "pairwise_reward_loss", _fed(lambda g: {"mask": None}), "every pair once"),
    _mutant("local divisor", "pairwise_reward_loss", _fed(lambda g: {"denom": None}), "pieces do not add up"),
    _mutant("as printed", "reward_model_loss", lambda a, b, x, m, **o: preference.reward_model_loss(a, b, -x, m, **o), "the paper's plus: fluency is unlearned"),
    _mutant("pads too", "reward_model_loss", _model_loss(mask=torch.ones_like), "pads are learned"),
    _mutant("coefficient ignored", "reward_model_loss", _model_loss(lm_coef=lambda x: 1.0), "beta is always 1"),
    _mutant("state before", "RewardModel", _FirstState, "has not seen the last token"),
    _mutant("last column", "RewardModel", _LastColumn, "reads a pad"),
    _mutant("mean state", "RewardModel", _MeanState, "averages over pads"),
    _mutant("unscaled", "RewardModel", _Unscaled, "half a calibration"),
    _mutant("swapped", "reward_model_trainer", _swapped_pairs, "chosen and rejected"),
    _mutant("head held", "reward_model_trainer", _language_only, "learns to speak, not to judge"),
    _mutant("fines the whole", "ModelReward", _Fined, "ending is punished"),
    _mutant("unfined", "ModelReward", _unfined, "a switch without effect"),
    _mutant("negative", "ModelReward", _negative, "rewards for costs"),
    _mutant("no KL", "ppo_max", _preset(objectives.ppo_max, kl="none", kl_coef=0.0), "trick 1 is missing"),
    _mutant("no clip of rewards", "ppo_max", _preset(objectives.ppo_max, reward_clip=None), "trick 5 is half there"),
    _mutant("not normalised", "ppo_max", _preset(objectives.ppo_max, reward_norm="none", reward_clip=None), "trick 5 is missing"),
    _mutant("critic not clipped", "ppo_max", _preset(objectives.ppo_max, value_kind="mse", value_clip_eps=None), "trick 7 is missing"),
    _mutant("critic alone clipped", "ppo_max", _preset(objectives.ppo_max, value_kind="clipped_no_max"), "no maximum"),
    _mutant("advantages whitened", "ppo_max", _preset(objectives.ppo_max, scale="whiten"), "trick 6, which is not part of it"),
    _mutant("lambda", "ppo_max", _preset(objectives.ppo_max, gae_lambda=0.99), "another trace"),
    _mutant("clip", "ppo_max", _preset(objectives.ppo_max, clip_eps=0.1), "another range"),
    _mutant("no texts", "ppo_max", _preset(objectives.ppo_max, ptx_coef=0.0), "sec. 5.4's mix is missing"),
    _mutant("answers alike", "ppo_max", _preset(objectives.ppo_max, reduction="sequence"), "short answers count more"),
    _mutant("discounted", "vanilla_ppo", _preset(objectives.vanilla_ppo, gamma=0.99), "gamma is 1 for language"),
    _mutant("a KL", "vanilla_ppo", _preset(objectives.vanilla_ppo, kl="loss", kl_kind="k3", kl_coef=0.05), "is not vanilla"),
    _mutant("whitened", "vanilla_ppo", _preset(objectives.vanilla_ppo, scale="whiten"), "is not vanilla"),
    _mutant("verifier pays", "rlhf_trainer", _trained(lambda g: {"reward_model": None}), "the model is not asked"),
    _mutant("one rate", "rlhf_trainer", _trained(lambda g: {"config": replace(g["config"], critic_rate=1.0)}), "the critic's rate is ignored"),
    _mutant("other objective", "rlhf_trainer", _trained(lambda g: {"objective": replace(g["objective"], gae_lambda=0.5)}), "another trace than asked for"),
    _mutant("foreign history", "rlhf_trainer", _after(_foreign_history), "scores of another run in the units of this one"),
    _mutant("texts forgotten", "rlhf_trainer", _after(_texts_forgotten), "ptx_coef without effect"),
    _mutant("texts at half", "rlhf_trainer", _after(_texts_summed), "another divisor"),
    _mutant("moves the policy", "pretrain_critic", _moves_the_policy, "the policy is not frozen"),
    _mutant("never ends", "pretrain_critic", _after(_never_ends, rlhf.pretrain_critic), "what it explains is not looked at"),
    _mutant("bootstraps", "pretrain_critic", _after(_bootstraps, rlhf.pretrain_critic), "targets lean on what is not known yet"),
    _mutant("verifier pays", "pretrain_critic", _pretrained(lambda g: {"reward_model": None}), "learns the values of another reward"),
)  # fmt: skip
"""Each replaces one subject of checks.rlhf_ppo_max."""
