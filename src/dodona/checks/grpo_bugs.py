"""Wrong group advantages, losses and settings: what public code of GRPO and its successors had, to be caught.

A wrong setting is a preset with one switch turned; a wrong function has one line changed. All of them train.

Source: card grpo, sec. 9 (reports in public code). Not here: PPO's own bugs (ppo checks).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dodona import objectives
from dodona.core.kl import kl_estimate
from dodona.core.protocols import Mutant
from dodona.core.reductions import masked_mean
from dodona.objectives import PolicyObjective


# ---------------------------------------------------------------------- advantages
def _with_epsilon(rewards, group, *, scale="group", **options):
    """TRL's epsilon in the divisor."""
    centred = objectives.group_advantages(rewards, group, scale="none", **options)
    right = objectives.group_advantages(rewards, group, scale=scale, **options)
    deviation = torch.where(right != 0, centred / torch.where(right != 0, right, 1.0), 1.0)
    return centred / (deviation + 1e-4) if scale == "group" else right


def _by_position(rewards, group, **options):
    """reshape(-1, G): rows of one prompt are taken to stand together."""
    return objectives.group_advantages(rewards, group.sort().values, **options)


def _own_mean_called_loo(rewards, group, *, baseline="mean", **options):
    return objectives.group_advantages(
        rewards, group, baseline="mean" if baseline == "loo" else baseline, **options
    )


def _batch_deviation(rewards, group, *, scale="group", **options):
    scale = "batch" if scale == "group" else scale
    return objectives.group_advantages(rewards, group, scale=scale, **options)


def _whole_batch_mean(rewards, group, **options):
    return objectives.group_advantages(rewards, torch.zeros_like(group), **options)


def _population(rewards, group, *, ddof=1, **options):
    return objectives.group_advantages(rewards, group, ddof=0, **options)


def _exact_zero(rewards, group, *, tol=0.0, **options):
    return objectives.group_advantages(rewards, group, **options)


def _lonely_unscaled(rewards, group, **options):
    """A group of one: mean 0 and deviation 1, without a word."""
    alone = group.unique(return_inverse=True, return_counts=True)
    lonely = alone[2][alone[1]] == 1
    out = rewards.clone()
    out[~lonely] = objectives.group_advantages(rewards[~lonely], group[~lonely], **options)
    return out


def _process(change: Callable[..., Any]) -> Callable[..., Tensor]:
    def wrong(rewards, reward_mask, group, *, ddof=1):
        return change(rewards, reward_mask, group, ddof)

    return wrong


def _answer_by_answer(rewards, reward_mask, group, ddof):
    out = torch.zeros_like(rewards)
    for i in range(len(rewards)):
        x = rewards[i][reward_mask[i]]
        deviation = x.std(correction=min(ddof, len(x) - 1))
        out[i][reward_mask[i]] = (x - x.mean()) / torch.where(deviation > 0, deviation, 1.0)
    return out.flip(1).cumsum(1).flip(1)


def _single_steps(rewards, reward_mask, group, ddof):
    to_go = objectives.process_advantages(rewards, reward_mask, group, ddof=ddof)
    return to_go - torch.cat([to_go[:, 1:], torch.zeros_like(to_go[:, :1])], dim=1)


def _from_the_start(rewards, reward_mask, group, ddof):
    return _single_steps(rewards, reward_mask, group, ddof).cumsum(1)


def _padding_counts(rewards, reward_mask, group, ddof):
    kept = torch.where(reward_mask, rewards, 0.0)
    return objectives.process_advantages(kept, torch.ones_like(reward_mask), group, ddof=ddof)


def _any_deviation(rewards, group, *, tol=0.0):
    return objectives.informative_groups(rewards, group)


def _any_right(rewards, group, *, tol=0.0):
    """Groups that are all wrong are dropped, those that are all right are kept."""
    live = objectives.informative_groups(rewards, group, tol=tol)
    return live | torch.stack([(rewards[group == g] > 0).all() for g in group])


def _from_zero(lengths, *, max_length, cache):
    return (-lengths / max_length).clamp(-1.0, 0.0)


def _without_cache(lengths, *, max_length, cache):
    return torch.where(lengths > max_length, -1.0, 0.0)


# ---------------------------------------------------------------------- losses
def _loss(**changes: Any) -> Callable[..., Tensor]:
    """policy_loss with other switches; a function gets those that were asked for."""

    def wrong(logp, logp_old, advantages, mask=None, **options):
        turned = {k: f(options) if callable(f) else f for k, f in changes.items()}
        given = {k: x for k, x in (options | turned).items() if x is not None or k == "clip_eps"}
        return objectives.policy_loss(logp, logp_old, advantages, mask, **given)

    return wrong


def _old_is_new(logp, logp_old, advantages, mask=None, **options):
    """logp_old = logp.detach(): the ratio is always one, nothing is ever clipped."""
    return objectives.policy_loss(logp, logp.detach(), advantages, mask, **options)


def _larger(logp, logp_old, advantages, mask=None, *, surrogate="clip", **options):
    """max for min: the clip stops the samples that should be corrected."""
    if surrogate != "clip" or len(options) != 1 or "clip_eps_high" not in options:
        return objectives.policy_loss(
            logp, logp_old, advantages, mask, surrogate=surrogate, **options
        )
    r = torch.where(mask, logp - logp_old, 0.0).exp()
    held = r.clamp(0.8, 1.0 + options["clip_eps_high"])
    return masked_mean(-torch.maximum(r * advantages, held * advantages), mask)


def _mean_of_ratios(logp, logp_old, advantages, mask=None, *, ratio="token", **options):
    """The mean of the exponentials where the exponential of the mean belongs."""
    if ratio != "sequence":
        return objectives.policy_loss(logp, logp_old, advantages, mask, ratio=ratio, **options)
    counts = mask.sum(1, keepdim=True).clamp(min=1)
    r = (torch.where(mask, (logp - logp_old).exp(), 0.0).sum(1, keepdim=True) / counts).expand_as(logp)  # fmt: skip
    loss = -torch.minimum(r * advantages, r.clamp(0.8, 1.2) * advantages)
    return masked_mean(loss, mask, reduction="sequence")


def _sum_of_logs(logp, logp_old, advantages, mask=None, *, ratio="token", **options):
    """The ratio of a whole answer without the root of its length."""
    if ratio != "sequence":
        return objectives.policy_loss(logp, logp_old, advantages, mask, ratio=ratio, **options)
    x = torch.where(mask, logp - logp_old, 0.0).sum(1, keepdim=True).expand_as(logp)
    return objectives.policy_loss(x, torch.zeros_like(x.detach()), advantages, mask, **options)


def _live_weight(logp, logp_old, advantages, mask=None, *, surrogate="clip", **options):
    """CISPO whose capped ratio is differentiated."""
    if surrogate != "cispo":
        return objectives.policy_loss(
            logp, logp_old, advantages, mask, surrogate=surrogate, **options
        )
    r = torch.where(mask, logp - logp_old, 0.0).exp().clamp(max=1.0 + options["clip_eps_high"])
    return masked_mean(-r * advantages * logp, mask)


def _over_padding(logp, logp_old, advantages, mask=None, **options):
    """mean() over the padded rectangle."""
    share = mask.sum() / mask.numel()
    return objectives.policy_loss(logp, logp_old, advantages, mask, **options) * share


def _without_kl(objective, logp, batch, **given):
    plain = objectives.grpo(kl="none", kl_coef=0.0)
    return objectives.gradient_coefficient(plain, logp, batch, **given)


def _undivided(objective, logp, batch, **given):
    """The slope itself, still divided by rows and lengths."""
    right = objectives.gradient_coefficient(objective, logp, batch, **given)
    return right / (len(right) * batch.mask.sum(1, keepdim=True))


def _other_way(logp, logp_ref, *, kind="k1"):
    """u = policy / reference."""
    return -(logp - logp_ref) if kind == "k1" else kl_estimate(logp_ref.detach(), logp.detach(), kind=kind)  # fmt: skip


def _k2_without_half(logp, logp_ref, *, kind="k1"):
    return kl_estimate(logp, logp_ref, kind=kind) * (2.0 if kind == "k2" else 1.0)


def _absolute_k1(logp, logp_ref, *, kind="k1"):
    x = kl_estimate(logp, logp_ref, kind=kind)
    return x.abs() if kind == "k1" else x


# ---------------------------------------------------------------------- whole objectives
class _DeadFeelKL(PolicyObjective):
    """The advantages of a dead group are 0, and its KL goes on pulling and is counted."""

    def prepare(self, batch, *, moments=None):
        return super().prepare(batch, moments=moments).replace(mask=batch.mask)


class _OwnDivisor(PolicyObjective):
    """Every micro-batch divides by its own count."""

    def terms(self, logp, batch, *, denom=None, **given):
        return super().terms(logp, batch, **given)


class _KLMeanOfTokens(PolicyObjective):
    """The KL term averaged over tokens, whatever the mean of the policy term."""

    def _kl(self, logp, batch, kl, how):
        return super()._kl(logp, batch, kl, {"reduction": "token"})


def _kl_as(**changes: Any) -> type[PolicyObjective]:
    class Wrong(PolicyObjective):
        def __init__(self, **fields: Any):
            turned = {k: x for k, x in changes.items() if k in fields}
            super().__init__(**(fields | turned))

    return Wrong


class _TrainsThePenalty(PolicyObjective):
    """The penalty with its sign turned: away from the reference."""

    def _kl(self, logp, batch, kl, how):
        return -super()._kl(logp, batch, kl, how)


def _preset(name: str, **changes: Any) -> Callable[..., PolicyObjective]:
    """The preset with one switch turned, whatever was asked for."""
    return lambda **options: getattr(objectives, name)(**(options | changes))


def _mutant(name: str, replaces: str, function: Callable[..., Any], bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


MUTANTS = (
    _mutant("epsilon in the divisor", "group_advantages", _with_epsilon, "std + 1e-4"),
    _mutant("groups by position", "group_advantages", _by_position, "reshape(-1, G) of rows in another order"),
    _mutant("own mean called loo", "group_advantages", _own_mean_called_loo, "the answer is in its own baseline"),
    _mutant("deviation of the batch", "group_advantages", _batch_deviation, "scale of other prompts"),
    _mutant("mean of the batch", "group_advantages", _whole_batch_mean, "one baseline for all prompts"),
    _mutant("population deviation", "group_advantages", _population, "ddof ignored"),
    _mutant("exact zero", "group_advantages", _exact_zero, "float noise is divided by float noise"),
    _mutant("lonely answers unscaled", "group_advantages", _lonely_unscaled, "a group of one gets its raw reward"),
    _mutant("answer by answer", "process_advantages", _process(_answer_by_answer), "steps normalised within their answer"),
    _mutant("single steps", "process_advantages", _process(_single_steps), "no sum over later steps"),
    _mutant("from the start", "process_advantages", _process(_from_the_start), "credit for the past"),
    _mutant("padding counts", "process_advantages", _process(_padding_counts), "zeros between steps are steps"),
    _mutant("any deviation", "informative_groups", _any_deviation, "tol ignored"),
    _mutant("all right kept", "informative_groups", _any_right, "only hopeless groups dropped"),
    _mutant("from the first token", "overlong_penalty", _from_zero, "every token costs"),
    _mutant("without cache", "overlong_penalty", _without_cache, "a cliff at the limit"),
    _mutant("old is new", "policy_loss", _old_is_new, "logp_old = logp.detach()"),
    _mutant("max for min", "policy_loss", _larger, "clips what should be corrected"),
    _mutant("symmetric clip", "policy_loss", _loss(clip_eps_high=lambda o: None if o.get("surrogate") is None else o.get("clip_eps_high")), "clip-higher ignored"),
    _mutant("mean of ratios", "policy_loss", _mean_of_ratios, "exponentials summed"),
    _mutant("product of ratios", "policy_loss", _sum_of_logs, "no root of the length"),
    _mutant("live weight", "policy_loss", _live_weight, "gradient through the capped ratio"),
    _mutant("over padding", "policy_loss", _over_padding, "mean() of the rectangle"),
    _mutant("local divisor", "policy_loss", _loss(denom=None), "denom ignored"),
    _mutant("dual clip lost", "policy_loss", _loss(dual_clip=None), "no bound for A < 0"),
    _mutant("tokens for answers", "policy_loss", _loss(reduction=lambda o: "token" if o.get("reduction") == "sequence" else o.get("reduction", "token")), "another mean"),
    _mutant("length ignored", "policy_loss", _loss(length=1.0), "Dr. GRPO without its constant"),
    _mutant("without KL", "gradient_coefficient", _without_kl, "advantages alone"),
    _mutant("still divided", "gradient_coefficient", _undivided, "the slope of the mean"),
    _mutant("other way", "kl_estimate", _other_way, "policy / reference"),
    _mutant("no half", "kl_estimate", _k2_without_half, "x^2 for x^2 / 2"),
    _mutant("absolute", "kl_estimate", _absolute_k1, "|x| for x"),
    _mutant("dead groups feel KL", "PolicyObjective", _DeadFeelKL, "filtered, and still pulled and counted"),
    _mutant("local divisors", "PolicyObjective", _OwnDivisor, "gradients that hang on the split"),
    _mutant("KL per token of the batch", "PolicyObjective", _KLMeanOfTokens, "another mean for the KL"),
    _mutant("k1 in the loss", "PolicyObjective", _kl_as(kl_kind="k1"), "a penalty of no effect"),
    _mutant("k2 in the loss", "PolicyObjective", _kl_as(kl_kind="k2"), "the other divergence"),
    _mutant("token for answer", "PolicyObjective", _kl_as(kl_level="token"), "later states forgotten"),
    _mutant("unweighted", "PolicyObjective", _kl_as(kl_weighted=False), "the ratio forgotten"),
    _mutant("away from the reference", "PolicyObjective", _TrainsThePenalty, "the penalty's sign"),
    _mutant("sums of tokens", "grpo", _preset("grpo", reduction="fixed"), "no division by the own length"),
    _mutant("without deviation", "grpo", _preset("grpo", scale="none"), "Dr. GRPO called GRPO"),
    _mutant("penalty of k2", "grpo", _preset("grpo", kl_kind="k2"), "k2 for k3"),
    _mutant("still scaled", "dr_grpo", _preset("dr_grpo", scale="group"), "divided by the deviation"),
    _mutant("still by length", "dr_grpo", lambda length=1.0, **o: objectives.dr_grpo(**(o | {"reduction": "sequence"})), "divided by the own length"),
    _mutant("not by the longest", "dr_grpo", lambda length=1.0, **o: objectives.dr_grpo(**o), "the constant forgotten"),
    _mutant("symmetric", "dapo", _preset("dapo", clip_eps_high=None), "clip-higher lost"),
    _mutant("dead groups kept", "dapo", _preset("dapo", filter_groups=False), "zeros in the divisor"),
    _mutant("cut answers kept", "dapo", _preset("dapo", mask_truncated=False), "punished for the limit"),
    _mutant("mean of means", "dapo", _preset("dapo", reduction="sequence"), "long answers count less"),
    _mutant("token ratios", "gspo", _preset("gspo", ratio="token"), "GRPO with a narrow clip"),
    _mutant("wide clip", "gspo", _preset("gspo", clip_eps=0.2, clip_eps_high=0.2), "PPO's 0.2 for a mean log ratio"),
    _mutant("token ratios", "gspo_token", _preset("gspo_token", ratio="token"), "the value of tokens"),
    _mutant("cap plus one", "cispo", _preset("cispo", clip_eps_high=5.0), "an absolute cap taken for the part above 1"),
    _mutant("clipped", "cispo", lambda **o: objectives.dapo(filter_groups=False, mask_truncated=False, **({"clip_eps_high": 4.0} | o)), "tokens lose their gradient"),
    _mutant("own reward", "rloo", _preset("rloo", baseline="mean"), "the answer in its own mean"),
    _mutant("KL per answer's token", "rloo", _preset("rloo", reduction="sequence"), "divided by the own length"),
    _mutant("per group", "reinforce_pp", lambda **o: objectives.reinforce_pp(baseline=True, **o), "the other variant"),
    _mutant("not whitened", "reinforce_pp", _preset("reinforce_pp", scale="none"), "raw returns"),
    _mutant("deviation of the group", "lite_ppo", _preset("lite_ppo", scale="group"), "GRPO's scale"),
)  # fmt: skip
"""Each replaces one subject of checks.grpo."""
