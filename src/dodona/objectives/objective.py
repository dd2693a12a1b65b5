"""PolicyObjective: a whole training objective as one record of independent switches.

    batch = objective.prepare(batch)                   once per collection: rewards -> advantages, returns
    loss, diagnostics = objective(logp, batch, ...)    once per minibatch: the scalar to minimise

The same record serves a table, an MLP, a language model and a pose head; it knows log-probabilities,
rewards, masks and groups, and nothing of who made them. Named settings are in presets.py.

Not here: the mathematics of each term (policy.py, mirror.py, advantages.py, returns.py, values.py).
Source: of each field, ``sources`` of the presets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.inputs import check_choice, check_count, check_range
from dodona.core.kl import kl_estimate
from dodona.core.protocols import EMPTY
from dodona.core.reductions import masked_mean, masked_sum, whiten
from dodona.core.statistics import RunningMoments
from dodona.errors import InputError
from dodona.objectives._prepare import EPS, prepare
from dodona.objectives.mirror import kimi_loss
from dodona.objectives.policy import (
    CLIP_EPS,
    policy_loss,
    ratio_diagnostics,
)
from dodona.objectives.values import value_loss

CHOICES = {
    "advantage": ("gae", "returns", "group", "process", "given"),
    "baseline": ("none", "mean", "loo", "value"),
    "scale": ("none", "group", "batch", "whiten", "minibatch"),
    "reward_norm": ("none", "scale", "whiten"),
    "surrogate": ("clip", "unclipped", "cispo", "sapo", "gmpo", "mirror"),
    "ratio": ("token", "sequence", "sequence_token", "none"),
    "ratio_to": ("old", "ref"),
    "reduction": ("token", "sequence", "fixed"),
    "kl": ("none", "reward", "loss"),
    "kl_kind": ("k1", "k2", "k3", "exact"),
    "kl_level": ("token", "sequence"),
    "value_kind": ("mse", "clipped", "clipped_no_max", "huber"),
    "log_z": ("mean", "logmeanexp"),
}
READS = (
    "obs", "actions", "mask", "logp_old", "logp_ref", "values", "group", "advantages", "returns",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PolicyObjective:
    """What is maximised, field by field. A given option that nothing would read is refused.

    Raises (when made): InputError: an unknown choice, a number out of range, fields that do not go together.
    """

    name: str
    # rewards -> advantages
    advantage: Literal["gae", "returns", "group", "process", "given"] = "gae"
    """gae; discounted returns to go; one number per answer; per step of an answer; the batch brings them"""
    gamma: float = 1.0
    """discount in [0, 1]"""
    gae_lambda: float = 0.95
    """trace parameter of gae in [0, 1]"""
    discount_states: bool = False
    """gamma^t in front of step t, as the gradient of the discounted start value has it"""
    baseline: Literal["none", "mean", "loo", "value"] = "none"
    """subtracted from returns (mean: of the batch; value: of the critic) or from a group's rewards"""
    scale: Literal["none", "group", "batch", "whiten", "minibatch"] = "none"
    """rewards of groups over their group's or the batch's deviation; or whitened over all, or per minibatch"""
    ddof: int = 1
    """of every standard deviation"""
    tol: float = 0.0
    """rewards of a group that differ by no more than this are equal"""
    advantage_clip: float | None = None
    """bound of |advantage|"""
    reward_norm: Literal["none", "scale", "whiten"] = "none"
    """scores over the deviation of their history, with or without the mean removed"""
    reward_clip: float | None = None
    """bound of |score| after that, standard deviations"""
    # surrogate
    surrogate: Literal["clip", "unclipped", "cispo", "sapo", "gmpo", "mirror"] = "clip"
    """see policy_loss; mirror is kimi_loss"""
    ratio: Literal["token", "sequence", "sequence_token", "none"] = "token"
    """see policy_loss"""
    ratio_to: Literal["old", "ref"] = "old"
    """the ratio's denominator: the policy that acted, or the reference"""
    clip_eps: float | None = CLIP_EPS
    """see policy_loss"""
    clip_eps_high: float | None = None
    """see policy_loss"""
    dual_clip: float | None = None
    """see policy_loss"""
    max_ratio: float | None = None
    """see policy_loss"""
    tau: float | None = None
    """of mirror, reward units"""
    log_z: Literal["mean", "logmeanexp"] = "mean"
    """of mirror, see kimi_loss"""
    # reduction
    reduction: Literal["token", "sequence", "fixed"] = "token"
    """see core.reductions"""
    length: float = 1.0
    """the constant of "fixed", tokens"""
    # KL to the reference
    kl: Literal["none", "reward", "loss"] = "none"
    """where the penalty stands"""
    kl_kind: Literal["k1", "k2", "k3", "exact"] = "k1"
    """the estimator; exact needs the divergence of each state, given to the call"""
    kl_level: Literal["token", "sequence"] = "token"
    """of each token, or of the answer's summed log ratio"""
    kl_weighted: bool = False
    """the estimate times the ratio: corrects its value for samples of the old policy"""
    kl_coef: float = 0.0
    """weight of the penalty"""
    # critic, entropy, data
    value_kind: Literal["mse", "clipped", "clipped_no_max", "huber"] = "mse"
    """see value_loss"""
    value_coef: float = 0.0
    """weight of value_loss, which has the 1/2"""
    value_clip_eps: float | None = None
    """of the clipped kinds, reward units; None: clip_eps"""
    entropy_coef: float = 0.0
    """weight of the entropy, nats"""
    entropy_target: float | None = None
    """the penalty is |entropy - target| instead, nats"""
    entropy_quantile: float | None = None
    """only tokens whose entropy is above this quantile enter the policy term"""
    ptx_coef: float = 0.0
    """weight of a language-model loss on other text, which the trainer adds"""
    filter_groups: bool = False
    """groups whose rewards are all alike are masked"""
    mask_truncated: bool = False
    """rows that were cut from outside are masked"""
    keep_best: int | None = None
    """so many answers of each group are trained on, those with the largest advantages above 0; None: all"""
    sources: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """field -> paper and section, or "ours\""""

    def __post_init__(self) -> None:
        for name, options in CHOICES.items():
            check_choice(options, **{name: getattr(self, name)})
        check_range("[0, 1]", gamma=self.gamma, gae_lambda=self.gae_lambda)
        check_range("[0, inf)", kl_coef=self.kl_coef, value_coef=self.value_coef,
                    entropy_coef=self.entropy_coef, ptx_coef=self.ptx_coef, tol=self.tol)  # fmt: skip
        check_count(0, ddof=self.ddof)
        for name in ("advantage_clip", "reward_clip", "value_clip_eps", "tau"):
            if getattr(self, name) is not None:
                check_range("(0, inf)", **{name: getattr(self, name)})
        check_count(keep_best=self.keep_best)
        if self.entropy_quantile is not None:
            check_range("[0, 1)", entropy_quantile=self.entropy_quantile)
        for wrong, what in self._contradictions():
            if wrong:
                raise InputError(f"objective '{self.name}': {what}")

    def _contradictions(self) -> list[tuple[bool, str]]:
        mirror = self.surrogate == "mirror"
        return [
            (mirror and self.tau is None, "surrogate='mirror' needs tau, in reward units."),
            (not mirror and self.tau is not None, "tau belongs to surrogate='mirror'."),
            (mirror and self.scale != "none", f"scale={self.scale!r} would undo tau. Use scale='none'."),
            (mirror and self.ratio_to == "old" and self.kl == "loss",
             "the mirror step holds its KL already. Use kl='none'."),
            (self.kl == "none" and self.kl_coef > 0, f"kl_coef is {self.kl_coef}, and kl='none' ignores it."),
            (self.kl == "reward" and self.kl_kind != "k1", "a KL in the reward is k1; others belong in the loss."),
            (self.kl_weighted and self.kl != "loss", "kl_weighted belongs to kl='loss'."),
            (self.kl_kind == "exact" and self.kl_level != "token", "an exact KL is one of states, kl_level='token'."),
            (self.kl_weighted and self.ratio == "none", "kl_weighted needs a ratio."),
            (self.baseline == "value" and self.advantage != "returns",
             f"baseline='value' belongs to advantage='returns', got {self.advantage!r} (gae has its critic already)."),
            (self.baseline == "loo" and self.advantage != "group" and not mirror,
             f"baseline='loo' belongs to groups, got advantage={self.advantage!r}."),
            (self.scale in ("group", "batch") and self.advantage not in ("group", "process"),
             f"scale={self.scale!r} belongs to groups, got advantage={self.advantage!r}. Use scale='whiten'."),
            (self.filter_groups and self.advantage not in ("group", "process"),
             f"filter_groups belongs to groups, got advantage={self.advantage!r}."),
            (self.keep_best is not None and (self.advantage != "group" or mirror),
             f"keep_best chooses among the answers of a group by their advantage, got advantage={self.advantage!r}, "
             f"surrogate={self.surrogate!r}."),
            (self.entropy_target is not None and self.entropy_coef == 0, "entropy_target needs an entropy_coef."),
            (self.reward_clip is not None and self.reward_norm == "none",
             "reward_clip is in standard deviations and belongs to reward_norm."),
        ]  # fmt: skip

    @property
    def needs_reference(self) -> bool:
        """logp_ref is read."""
        return self.kl != "none" or self.ratio_to == "ref"

    @property
    def needs_critic(self) -> bool:
        """values are read."""
        return self.advantage == "gae" or self.baseline == "value" or self.value_coef > 0

    @property
    def needs_entropy(self) -> bool:
        """the entropy of each state's law is read."""
        return self.entropy_coef > 0 or self.entropy_quantile is not None

    @property
    def needs_kl(self) -> bool:
        """the exact divergence of each state is read."""
        return self.kl == "loss" and self.kl_kind == "exact"

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of a prepared batch that a call reads; the others need not follow into minibatches."""
        return READS

    def prepare(self, batch: Batch, *, moments: RunningMoments | None = None) -> Batch:
        """The batch with advantages and returns; no gradient, once per collection.

        Args:
            batch: with rewards, and what the switches need: values (and next_values) for a critic, group
                for groups, logp_old and logp_ref for a reference, reward_mask for steps of answers.
            moments: the history of scores, for reward_norm; changed.
        Returns: advantages [B, T] (0 where masked), returns [B, T] where there is a critic; a mask without
            dead groups or cut rows where the switches say so.
        Raises: InputError: a field that is missing, by name and why.  NonFiniteError: what counts is not finite.
        Source: of each switch.  Oracle: oracles.losses.prepared_advantages.  Cost: O(B T).
        """
        return prepare(self, batch, moments)

    def __call__(
        self, logp: Float[Tensor, "..."], batch: Batch, *, values: Float[Tensor, "..."] | None = None,
        entropy: Float[Tensor, "..."] | None = None, kl: Float[Tensor, "..."] | None = None,
        denom: float | Tensor | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:  # fmt: skip
        """(loss, diagnostics): the scalar to minimise, and numbers that say how it goes.

        Args:
            logp: log-probabilities of batch.actions under the policy in training, with gradient.
            batch: prepared; a minibatch of it, flat or in rows.
            values: the critic's, with gradient, if value_coef > 0.
            entropy: of each state's law, with gradient, if the switches read it.
            kl: KL(policy || reference) of each state, for kl_kind="exact".
            denom: what counts in the whole optimizer step, see core.reductions.
        Raises: InputError: not prepared, or something missing that the switches read.
        Source, Oracle: as the terms.  Cost: O(size).
        """
        given = {"values": values, "entropy": entropy, "kl": kl, "denom": denom}
        loss, measured = self.measured(logp, batch, **given)
        # read at once
        return loss, dict(zip(measured, torch.stack(list(measured.values())).tolist(), strict=True))

    def measured(
        self, logp: Float[Tensor, "..."], batch: Batch, *, values: Float[Tensor, "..."] | None = None,
        entropy: Float[Tensor, "..."] | None = None, kl: Float[Tensor, "..."] | None = None,
        denom: float | Tensor | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:  # fmt: skip
        """(loss, diagnostics) as a call gives them, the diagnostics as tensors: nothing is read, so it can be traced."""
        terms = self.terms(logp, batch, values=values, entropy=entropy, kl=kl, denom=denom)
        loss = torch.stack(list(terms.values())).sum()
        numbers = {f"loss/{name}": term.detach() for name, term in terms.items()}
        if batch.logp_old is not None and batch.advantages is not None:
            far = ratio_diagnostics(
                logp, batch.logp_old, batch.advantages, batch.mask,
                clip_eps=self.clip_eps or CLIP_EPS, clip_eps_high=self.clip_eps_high,
            )  # fmt: skip
            numbers |= {f"policy/{name}": x for name, x in far.items()}
        if entropy is not None:
            numbers["policy/entropy"] = masked_mean(entropy.detach(), batch.mask)
        if batch.logp_ref is not None:
            numbers["kl/ref"] = masked_mean((logp - batch.logp_ref).detach(), batch.mask)
        return loss, numbers

    def terms(
        self, logp: Float[Tensor, "..."], batch: Batch, *, values: Float[Tensor, "..."] | None = None,
        entropy: Float[Tensor, "..."] | None = None, kl: Float[Tensor, "..."] | None = None,
        denom: float | Tensor | None = None,
    ) -> dict[str, Float[Tensor, ""]]:  # fmt: skip
        """The weighted terms of the loss by name; their sum is the loss. Nothing is read, so it can be traced."""
        if batch.advantages is None:
            raise InputError("this batch has no advantages. Call objective.prepare(batch) first.")
        if denom is not None:
            self._require_additive()
        mask, how = batch.mask, {"reduction": self.reduction, "length": self.length, "denom": denom}
        terms = {"policy": self._policy(logp, batch, entropy, how)}
        if self.kl == "loss":
            terms["kl"] = self.kl_coef * self._kl(logp, batch, kl, how)
        if self.value_coef:
            if values is None or batch.returns is None:
                raise InputError(
                    f"objective '{self.name}' has value_coef = {self.value_coef} and got no "
                    f"{'values' if values is None else 'returns (prepare the batch)'}. Give a critic, or "
                    "set value_coef=0."
                )
            clipped = self.value_kind.startswith("clipped")
            clip = {"values_old": batch.values, "clip_eps": self.value_clip_eps or self.clip_eps or CLIP_EPS}  # fmt: skip
            terms["value"] = self.value_coef * value_loss(
                values, batch.returns, mask, kind=self.value_kind, **(clip if clipped else {}),
                reduction="token" if self.reduction == "fixed" else self.reduction,
                denom=None if self.reduction == "fixed" else denom,
            )  # fmt: skip
        if self.entropy_coef:
            if entropy is None:
                raise InputError(f"objective '{self.name}' has an entropy_coef and got no entropy.")
            if self.entropy_target is None:
                terms["entropy"] = -self.entropy_coef * masked_mean(entropy, mask, **how)
            else:
                mean = masked_mean(entropy, mask, **how)
                terms["entropy"] = self.entropy_coef * (mean - self.entropy_target).abs()
        return terms

    # ------------------------------------------------------------------ private
    def _require_additive(self) -> None:
        """Pieces of a minibatch add up to it only where no term looks at the whole of it."""
        whole = {
            "scale='minibatch'": (self.scale == "minibatch", "scale='whiten' looks at the collection"),
            "entropy_target": (self.entropy_target is not None, "leave it out"),
            "entropy_quantile": (self.entropy_quantile is not None, "leave it out"),
            "reduction='fixed' with a critic": (self.reduction == "fixed" and self.value_coef > 0, "use 'token'"),
            "kl_level='sequence' with reduction='token'": (
                self.kl == "loss" and self.kl_level == "sequence" and self.reduction == "token", "use 'sequence'"),
        }  # fmt: skip
        for name, (wrong, instead) in whole.items():
            if wrong:
                raise InputError(
                    f"objective '{self.name}' with {name} can not be split into micro-batches or ranks: it looks at "
                    f"the whole minibatch ({instead}). Or leave micro_batch out."
                )

    def _policy(self, logp: Tensor, batch: Batch, entropy: Tensor | None, how: dict) -> Tensor:
        mask, advantages = batch.mask, batch.advantages
        if self.entropy_quantile is not None:
            if entropy is None:
                raise InputError(f"objective '{self.name}' has an entropy_quantile and got no entropy.")  # fmt: skip
            mask = _above(entropy.detach(), mask, self.entropy_quantile)
        if self.surrogate == "mirror":
            return kimi_loss(
                logp, batch.logp_ref if self.ratio_to == "ref" else batch.logp_old, advantages[:, 0],
                batch.group, mask, tau=self.tau, log_z="exact", tau_log_z=torch.zeros_like(advantages[:, 0]),
                denom=how["denom"],
            )  # fmt: skip
        if self.scale == "minibatch":
            advantages = whiten(advantages, mask, ddof=self.ddof, eps=EPS)
        return policy_loss(
            logp, batch.logp_ref if self.ratio_to == "ref" else batch.logp_old, advantages, mask,
            surrogate=self.surrogate, ratio=self.ratio, clip_eps=self.clip_eps,
            clip_eps_high=self.clip_eps_high, dual_clip=self.dual_clip, max_ratio=self.max_ratio, **how,
        )  # fmt: skip

    def _kl(self, logp: Tensor, batch: Batch, kl: Tensor | None, how: dict) -> Tensor:
        mask = batch.mask
        if self.kl_kind == "exact":
            if kl is None:
                raise InputError(
                    f"objective '{self.name}' has kl_kind='exact' and got no kl. Give KL(policy || "
                    "reference) of each state, from Distribution.kl."
                )
            return masked_mean(kl, mask, **how)
        if self.kl_level == "sequence":
            x = masked_sum(logp - batch.logp_ref, mask, dim=1)
            each = kl_estimate(x, torch.zeros_like(x), kind=self.kl_kind)
            rows = mask.bool().any(1)
            if self.kl_weighted:
                each = masked_sum(logp - batch.logp_old, mask, dim=1).exp() * each
            return masked_mean(each, rows, denom=None if self.reduction == "token" else how["denom"])  # fmt: skip
        # masked before the exponential
        x = torch.where(mask.bool(), logp - batch.logp_ref, 0.0)
        each = kl_estimate(x, torch.zeros_like(x), kind=self.kl_kind)
        if self.kl_weighted:
            each = torch.where(mask.bool(), logp - batch.logp_old, 0.0).exp() * each
        return masked_mean(each, mask, **how)


def gradient_coefficient(
    objective: PolicyObjective, logp: Float[Tensor, "B T"], batch: Batch, **given: Any
) -> Float[Tensor, "B T"]:
    """What each token's grad logp is multiplied by: - d loss / d logp, times what it was divided by.

    On policy, REINFORCE and GRPO without KL have their advantages here; GRPO with k3 adds
    kl_coef (ref / policy - 1).

    Args: objective, batch: prepared.  logp: [B, T].  given: values, entropy, kl, as the objective takes them.
    Returns: [B, T], 0 where masked.
    Raises: as the objective.
    Source: Shao et al. 2024, arXiv:2402.03300, sec. 5.2.1.  Oracle: by hand.  Cost: one backward pass.
    """
    logp = logp.detach().requires_grad_()
    with torch.enable_grad():
        terms = objective.terms(logp, batch, **given)
        loss = torch.stack([t for name, t in terms.items() if name != "value"]).sum()
        (gradient,) = torch.autograd.grad(loss, logp)
    weights = batch.mask.to(gradient.dtype)
    rows = (weights.sum(1) > 0).sum()
    if objective.reduction == "token":
        divisor = weights.sum()
    elif objective.reduction == "sequence":
        divisor = rows * weights.sum(1, keepdim=True)
    else:
        divisor = rows * objective.length
    return -gradient * divisor


def diff(a: PolicyObjective, b: PolicyObjective) -> dict[str, tuple[Any, Any]]:
    """The fields in which two objectives differ: name -> (of a, of b).

    >>> from dodona.objectives import dapo, grpo
    >>> diff(dapo(), grpo())["clip_eps_high"]
    (0.28, None)
    """
    return {
        f.name: (getattr(a, f.name), getattr(b, f.name))
        for f in fields(PolicyObjective)
        if f.name != "sources" and getattr(a, f.name) != getattr(b, f.name)
    }


def _above(entropy: Tensor, mask: Tensor, quantile: float) -> Tensor:
    """The mask of the counted tokens whose entropy is at or above the quantile of all of them."""
    counts = mask.bool()
    if not counts.any():
        return mask
    bound = torch.quantile(entropy[counts].float(), quantile).to(entropy.dtype)
    return torch.where(entropy >= bound, mask, torch.zeros_like(mask))
