"""Wrong mirror descent: regressions on the wrong number, to be caught.

Source: card kimi-k1.5, sec. 9 (reports in public code). Not here: what happens around the loss (_kimi_answer_bugs.py).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dodona import objectives
from dodona.checks import _kimi_answer_bugs as answers
from dodona.core.protocols import Mutant
from dodona.core.reductions import masked_mean, masked_sum

Change = Callable[[dict[str, Any]], dict[str, Any]]


def _fed(change: Change) -> Callable[..., Tensor]:
    """kimi_loss with other arguments; change gets them by name."""

    def wrong(logp, logp_ref, rewards, group, mask=None, **options):
        given = {
            "logp": logp, "logp_ref": logp_ref, "rewards": rewards, "group": group, "mask": mask, **options
        }  # fmt: skip
        return objectives.kimi_loss(**(given | change(given)))

    return wrong


def _own_length(call: dict[str, Any]) -> dict[str, Any]:
    """The mean log ratio of the tokens for their sum."""
    n = call["mask"].sum(1, keepdim=True).clamp(min=1)
    return {"logp": call["logp"] / n, "logp_ref": call["logp_ref"] / n}


def _held(call: dict[str, Any]) -> dict[str, Any]:
    """logp_ref = logp.detach(): the log ratio is always 0, and so is what it costs."""
    return {"logp_ref": call["logp"].detach()}


def _of_the_others(call: dict[str, Any]) -> dict[str, Any]:
    """The baseline that was not asked for."""
    return {"baseline": "mean" if call.get("baseline") == "loo" else "loo"}


def _summed_ratios(logp, logp_ref, rewards, group, mask=None, **options):
    """The log of a sum of exponentials for a sum of logs."""
    x = torch.where(mask, logp - logp_ref, -torch.inf)
    counts = mask.sum(1)
    some = counts > 0
    whole = torch.zeros_like(rewards)
    whole[some] = torch.logsumexp(x[some], 1) - torch.log(counts[some].to(x.dtype))
    first = torch.where(torch.arange(mask.shape[1]) == 0, whole[:, None], 0.0)
    return objectives.kimi_loss(first, torch.zeros_like(logp_ref), rewards, group, mask, **options)


def _square_unhalved(logp, logp_ref, rewards, group, mask=None, *, tau, form="eq3", **options):
    """tau L^2 for tau / 2 L^2."""
    right = objectives.kimi_loss(logp, logp_ref, rewards, group, mask, tau=tau, form=form, **options)  # fmt: skip
    if form == "squared":
        return right
    L = masked_sum(logp - logp_ref, mask, dim=1)
    return right + 0.5 * tau * masked_mean(L**2, mask.any(1), denom=options.get("denom"))


def _without_tau(logp, logp_ref, rewards, group, mask=None, *, tau, form="eq3", **options):
    """(r - b - L)^2: the log ratio is not in reward units."""
    given = {"tau": 1.0, "form": form, **options}
    if options.get("log_z") == "logmeanexp":
        return objectives.kimi_loss(logp, logp_ref, rewards, group, mask, tau=tau, form=form, **options)  # fmt: skip
    return objectives.kimi_loss(logp, logp_ref, rewards, group, mask, **given)


def _unshifted(logp, logp_ref, rewards, group, mask=None, *, tau, log_z="mean", **options):
    """exp(r / tau) without taking out the largest: infinite for large rewards."""
    if log_z != "logmeanexp" or options.get("baseline") == "loo":
        return objectives.kimi_loss(logp, logp_ref, rewards, group, mask, tau=tau, log_z=log_z, **options)  # fmt: skip
    same = (group[:, None] == group[None, :]).to(rewards.dtype)
    mean = (same * torch.exp(rewards / tau)[None, :]).sum(1) / same.sum(1)
    return objectives.kimi_loss(
        logp, logp_ref, rewards, group, mask, tau=tau, log_z="exact",
        tau_log_z=tau * torch.log(mean), **options,
    )  # fmt: skip


def _sum_of_exponentials(logp, logp_ref, rewards, group, mask=None, *, tau, log_z="mean", **options):  # fmt: skip
    """log sum exp for log mean exp."""
    if log_z != "logmeanexp" or options.get("baseline") == "loo":
        return objectives.kimi_loss(logp, logp_ref, rewards, group, mask, tau=tau, log_z=log_z, **options)  # fmt: skip
    same = torch.where(group[:, None] == group[None, :], 0.0, -torch.inf)
    return objectives.kimi_loss(
        logp, logp_ref, rewards, group, mask, tau=tau, log_z="exact",
        tau_log_z=tau * torch.logsumexp(same + (rewards / tau)[None, :], 1), **options,
    )  # fmt: skip


def _factor(form: str) -> Callable[..., Tensor]:
    """One form with the scale of the other."""

    def wrong(*arguments, tau, **options):
        right = objectives.kimi_loss(*arguments, tau=tau, **options)
        return right / (2 * tau) if options.get("form", "eq3") == form else right

    return wrong


def _counts_empty_rows(logp, logp_ref, rewards, group, mask=None, **options):
    share = mask.any(1).to(logp.dtype).mean()
    right = objectives.kimi_loss(logp, logp_ref, rewards, group, mask, **options)
    return right if options.get("denom") else right * share


def _negated(*arguments, **options):
    """What should be maximised is minimised."""
    right = objectives.kimi_loss(*arguments, **options)
    return -right if options.get("form", "eq3") == "eq3" else right


# ---------------------------------------------------------------------- the optimum
def _times_tau(logp_ref, rewards, *, tau):
    return objectives.soft_optimum(logp_ref, rewards, tau=1.0 / tau)


def _lowest(logp_ref, rewards, *, tau):
    return objectives.soft_optimum(logp_ref, -rewards, tau=tau)


def _log_z_alone(logp_ref, rewards, *, tau):
    logp, tau_log_z = objectives.soft_optimum(logp_ref, rewards, tau=tau)
    return logp, tau_log_z / tau


def _unnormalised(logp_ref, rewards, *, tau):
    _, tau_log_z = objectives.soft_optimum(logp_ref, rewards, tau=tau)
    return logp_ref + rewards / tau, tau_log_z


def _forgets_the_reference(logp_ref, rewards, *, tau):
    _, tau_log_z = objectives.soft_optimum(logp_ref, rewards, tau=tau)
    return torch.log_softmax(rewards / tau, -1), tau_log_z


# ---------------------------------------------------------------------- lengths
def _wrong_ones_too(lengths, correct, group, *, weight=1.0):
    return objectives.length_rewards(lengths, torch.ones_like(correct), group, weight=weight)


def _whole_batch(lengths, correct, group, *, weight=1.0):
    return objectives.length_rewards(lengths, correct, torch.zeros_like(group), weight=weight)


def _over_the_longest(lengths, correct, group, *, weight=1.0):
    share = 0.5 - lengths / lengths.max()
    return weight * torch.where(correct, share, share.clamp(max=0.0))


def _half_for_equals(lengths, correct, group, *, weight=1.0):
    """A spread of 0 replaced by 1: equal lengths earn the most."""
    right = objectives.length_rewards(lengths, correct, group, weight=weight)
    return torch.where(correct & (lengths == lengths[0]).all(), 0.5 * weight, right)


def _longer_is_better(lengths, correct, group, *, weight=1.0):
    return objectives.length_rewards(-lengths, correct, group, weight=weight)


def _weightless(lengths, correct, group, *, weight=1.0):
    return objectives.length_rewards(lengths, correct, group)


def _mutant(name: str, replaces: str, function: Callable[..., Any], bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


MUTANTS = (
    _mutant("own length", "kimi_loss", _fed(_own_length), "the mean log ratio for the sum"),
    _mutant("ratio held", "kimi_loss", _fed(_held), "logp_ref = logp.detach()"),
    _mutant("other baseline", "kimi_loss", _fed(_of_the_others), "the answer in or out of its mean"),
    _mutant("one group", "kimi_loss", _fed(lambda c: {"group": torch.zeros_like(c["group"])}), "one baseline for all prompts"),
    _mutant("tau doubled", "kimi_loss", _fed(lambda c: {"tau": 2 * c["tau"]}), "tau L^2 without its half"),
    _mutant("sums of ratios", "kimi_loss", _summed_ratios, "exponentials summed"),
    _mutant("square unhalved", "kimi_loss", _square_unhalved, "tau L^2 for tau / 2 L^2"),
    _mutant("tau forgotten", "kimi_loss", _without_tau, "nats against rewards"),
    _mutant("overflow", "kimi_loss", _unshifted, "exp(r / tau) unshifted"),
    _mutant("log sum exp", "kimi_loss", _sum_of_exponentials, "not divided by the number of answers"),
    _mutant("squared as eq. 3", "kimi_loss", _factor("squared"), "the factor 2 tau lost"),
    _mutant("eq. 3 over 2 tau", "kimi_loss", _factor("eq3"), "divided once more"),
    _mutant("empty rows count", "kimi_loss", _counts_empty_rows, "masked rows in the divisor"),
    _mutant("local divisor", "kimi_loss", _fed(lambda c: {"denom": None}), "denom ignored"),
    _mutant("sign", "kimi_loss", _negated, "eq. 3 is to be ascended"),
    _mutant("times tau", "soft_optimum", _times_tau, "exp(r tau)"),
    _mutant("lowest", "soft_optimum", _lowest, "exp(-r / tau)"),
    _mutant("log Z alone", "soft_optimum", _log_z_alone, "log Z for tau log Z"),
    _mutant("unnormalised", "soft_optimum", _unnormalised, "not divided by Z"),
    _mutant("without reference", "soft_optimum", _forgets_the_reference, "softmax of rewards"),
    _mutant("wrong ones too", "length_rewards", _wrong_ones_too, "short wrong answers rewarded"),
    _mutant("whole batch", "length_rewards", _whole_batch, "lengths of other prompts"),
    _mutant("over the longest", "length_rewards", _over_the_longest, "len / max"),
    _mutant("half for equals", "length_rewards", _half_for_equals, "no spread, best reward"),
    _mutant("longer is better", "length_rewards", _longer_is_better, "the sign"),
    _mutant("weight ignored", "length_rewards", _weightless, "w is always 1"),
    _mutant("tau doubled", "kimi", lambda tau, **o: objectives.kimi(2 * tau, **o), "another step size"),
    _mutant("log mean exp", "kimi", lambda tau, **o: objectives.kimi(tau, **({"log_z": "logmeanexp"} | o)), "not the report's choice"),
    _mutant("left out", "kimi", lambda tau, **o: objectives.kimi(tau, **(o | {"baseline": "loo"})), "not the report's baseline"),
    _mutant("towards the reference", "kimi", lambda tau, **o: objectives.kimi(tau, **(o | {"ratio_to": "ref"})), "another policy than the one that sampled"),
    _mutant("group advantages", "kimi", lambda tau, **o: objectives.dr_grpo(**({"surrogate": "unclipped"} | o)), "no price for moving"),
    *answers.MUTANTS,
)  # fmt: skip
"""Each replaces one subject of checks.kimi_k1_5."""
