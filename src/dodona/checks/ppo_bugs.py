"""Wrong losses of PPO and its relatives, as they were written somewhere: each of which the checks must catch.

Most run, learn something, and are off where a policy has moved away from the one that acted.

Source: card ppo, sec. 9 (reports in public code). Not here: wrong returns (environment_bugs.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dodona import objectives
from dodona.core.kl import kl_estimate
from dodona.core.protocols import Mutant
from dodona.core.reductions import masked_mean
from dodona.objectives import AdaptiveKL, policy_loss, ratio_diagnostics, value_loss
from dodona.rl import ppo_trainer


def _with(function: Callable[..., Any], **changes: Any) -> Callable[..., Any]:
    """The function with other options; a callable gets the old one."""

    def wrong(*arguments: Any, **options: Any) -> Any:
        for name, new in changes.items():
            if name in options or not callable(new):
                options[name] = new(options.get(name)) if callable(new) else new
        return function(*arguments, **options)

    return wrong


def _clip_loss(term: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A PPO loss with another term per sample: term(r, A, low, high)."""

    def wrong(logp, logp_old, advantages, mask=None, *, clip_eps=0.2, clip_eps_high=None, dual_clip=None,
              reduction="token", denom=None):  # fmt: skip
        high = clip_eps if clip_eps_high is None else clip_eps_high
        x = logp - logp_old if mask is None else torch.where(mask.bool(), logp - logp_old, 0.0)
        loss = -term(x.exp(), advantages, 1.0 - clip_eps, 1.0 + high)
        if dual_clip is not None:
            loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
        return masked_mean(loss, mask, reduction=reduction, denom=denom)

    return wrong


def _policy(change: Callable[..., tuple]) -> Callable[..., Tensor]:
    """policy_loss of changed arguments: change(logp, old, A, mask, options) -> the same."""

    def wrong(logp, logp_old, advantages, mask=None, **options):
        logp, logp_old, advantages, mask, options = change(
            logp, logp_old, advantages, mask, options
        )
        return policy_loss(logp, logp_old, advantages, mask, **options)

    return wrong


def _dropped(*names: str) -> Callable[..., Tensor]:
    """The switches are taken and not looked at."""
    return _policy(
        lambda x, old, A, m, o: (x, old, A, m, {k: v for k, v in o.items() if k not in names})
    )


def _swapped(name: str, wrong: str, right: str) -> Callable[..., Tensor]:
    def change(x, old, A, m, o):
        refused = wrong == "sequence" and o.get("reduction") == "fixed"
        return x, old, A, m, {**o, name: wrong} if o.get(name) == right and not refused else o

    return _policy(change)


def _moving_ratio(logp, logp_old, advantages, mask=None, **options):
    """cispo without holding the ratio: r A logp has a slope in r as well."""
    if options.get("surrogate") != "cispo" or options["ratio"] != "token" or "max_ratio" in options:
        return policy_loss(logp, logp_old, advantages, mask, **options)
    eps, more = options.get("clip_eps", 0.2), options.get("clip_eps_high")
    low, high = 0.0 if eps is None else 1.0 - eps, 1.0 + (more if more is not None else eps)
    term = -(logp - logp_old).exp().clamp(low, high) * advantages * logp
    how = {k: options[k] for k in ("reduction", "length", "denom") if k in options}
    return masked_mean(term, mask, **how)


def _product_of_tokens(x, old, A, m, o):
    """The ratio of a whole row is a product, here not brought back to one token."""
    if o.get("ratio") != "sequence":
        return x, old, A, m, o
    counts = torch.ones_like(A) if m is None else (m != 0).to(A.dtype)
    return old + (x - old) * counts.sum(1, keepdim=True), old, A, m, o


def _mask_as_bool(x, old, A, m, o):
    return x, old, A, None if m is None else m.bool(), o


def _zeros_instead_of_removal(x, old, A, m, o):
    """What is masked counts in the mean, as 0."""
    if (
        m is None
        or o.get("ratio", "token") not in ("token", "none")
        or o.get("surrogate") == "gmpo"
    ):
        return x, old, A, m, o
    old = old if old is None else torch.where(m.bool(), old, x.detach())
    return x, old, torch.where(m.bool(), A * m, 0.0), None, o


class _Eager(AdaptiveKL):
    """Doubles as soon as the target is passed."""

    def update(self, kl):
        factor = 0.5 if kl < self.target / 1.5 else 2.0 if kl > self.target else 1.0
        self.kl_coef *= factor
        return self.kl_coef


class _Backwards(AdaptiveKL):
    def update(self, kl):
        factor = 2.0 if kl < self.target / 1.5 else 0.5 if kl > self.target * 1.5 else 1.0
        self.kl_coef *= factor
        return self.kl_coef


def _both_sides_stopped(logp, old, advantages, mask=None, *, clip_eps=0.2, **options):
    found = ratio_diagnostics(logp, old, advantages, mask, clip_eps=clip_eps, **options)
    far = ((logp - old).exp() - 1.0).abs() > clip_eps
    return {**found, "clip_fraction": masked_mean(far.to(logp.dtype), mask)}


def _other_direction(logp, old, advantages, mask=None, **options):
    """KL(new || old) from samples of the old."""
    found = ratio_diagnostics(logp, old, advantages, mask, **options)
    return {**found, "kl_old": ratio_diagnostics(old, logp, advantages, mask)["kl_old"]}


def _critic(term: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A clipped critic with another term: term(v, G, v_old, eps) -> what is averaged."""

    def wrong(values, returns, mask=None, *, kind="mse", values_old=None, clip_eps=0.2, **options):
        if kind != "clipped":
            clip = (
                {"values_old": values_old, "clip_eps": clip_eps} if values_old is not None else {}
            )
            return value_loss(values, returns, mask, kind=kind, **clip, **options)
        return masked_mean(0.5 * term(values, returns, values_old, clip_eps), mask, **options)

    return wrong


def _near(v: Tensor, old: Tensor, eps: float) -> Tensor:
    return old + (v - old).clamp(-eps, eps)


def _clamped_k3(logp, logp_ref, *, kind="k1"):
    """r - 1 - ln r with the ratio upside down."""
    return kl_estimate(-logp, -logp_ref, kind=kind) if kind == "k3" else kl_estimate(logp, logp_ref, kind=kind)  # fmt: skip


def _never_explores(policy, env, *, config, **given):
    """The likeliest action acts, as in an evaluation."""
    trainer = ppo_trainer(policy, env, config=config, **given)
    learns = trainer.policy

    def greedy(obs, *, rng, num_samples=1):
        law = learns.distribution(obs)
        return law.mode(), law.log_prob(law.mode()).detach()

    learns.sample = greedy
    return trainer


def _pays_backwards(policy, env, *, config, **given):
    """Costs are taken for rewards."""
    trainer = ppo_trainer(policy, env, config=config, **given)
    collect = trainer.collector.collect

    def negated(policy):
        batch = collect(policy)
        return batch.replace(rewards=-batch.rewards)

    trainer.collector.collect = negated
    return trainer


def _mutant(name: str, replaces: str, function: Callable, bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


MUTANTS = (
    _mutant("maximum", "ppo_clip_loss", _clip_loss(lambda r, A, lo, hi: torch.maximum(r * A, r.clamp(lo, hi) * A)), "the optimistic side"),
    _mutant("clipped only", "ppo_clip_loss", _clip_loss(lambda r, A, lo, hi: r.clamp(lo, hi) * A), "no minimum: a policy that went wrong can not come back"),
    _mutant("clip times |A|", "ppo_clip_loss", _clip_loss(lambda r, A, lo, hi: torch.minimum(r, r.clamp(lo, hi)) * A), "minimum before the sign"),
    _mutant("one bound", "ppo_clip_loss", _clip_loss(lambda r, A, lo, hi: torch.minimum(r * A, r.clamp(max=hi) * A)), "no lower bound"),
    _mutant("bounds in log space", "ppo_clip_loss", _clip_loss(lambda r, A, lo, hi: torch.minimum(r * A, r.clamp(1 / hi, hi) * A)), "1 / (1 + eps) for 1 - eps"),
    _mutant("ratio upside down", "ppo_clip_loss", _clip_loss(lambda r, A, lo, hi: torch.minimum(A / r, (1 / r).clamp(lo, hi) * A)), "old - new"),
    _mutant("ratio held", "ppo_clip_loss", _clip_loss(lambda r, A, lo, hi: torch.minimum(r.detach() * A, r.clamp(lo, hi) * A)), "half of the gradient is detached"),
    _mutant("log ratio", "ppo_clip_loss", _clip_loss(lambda r, A, lo, hi: torch.minimum(r.log() * A, r.clamp(lo, hi).log() * A)), "ln r for r"),
    _mutant("sign", "ppo_clip_loss", _clip_loss(lambda r, A, lo, hi: -torch.minimum(r * A, r.clamp(lo, hi) * A)), "the objective is minimised"),
    _mutant("eps of its own", "ppo_clip_loss", _with(objectives.ppo_clip_loss, clip_eps=0.1), "0.1 whatever is asked for"),
    _mutant("upper bound ignored", "ppo_clip_loss", _with(objectives.ppo_clip_loss, clip_eps_high=lambda _: None), "clip-higher is not read"),
    _mutant("masked is 0", "policy_loss", _policy(_zeros_instead_of_removal), "pads count in the mean"),
    _mutant("weights are bits", "policy_loss", _policy(_mask_as_bool), "a float mask does not weigh"),
    _mutant("token for sequence", "policy_loss", _swapped("reduction", "token", "sequence"), "long rows count more"),
    _mutant("sequence for token", "policy_loss", _swapped("reduction", "sequence", "token"), "short rows count more"),
    _mutant("length ignored", "policy_loss", _dropped("length"), "the constant is not divided by"),
    _mutant("denominator ignored", "policy_loss", _dropped("denom"), "micro-batches do not add up"),
    _mutant("dual clip ignored", "policy_loss", _dropped("dual_clip"), "a switch without effect"),
    _mutant("cap ignored", "policy_loss", _dropped("max_ratio"), "a switch without effect"),
    _mutant("product of ratios", "policy_loss", _policy(_product_of_tokens), "the row's ratio to the power of its length"),
    _mutant("tokens share the slope", "policy_loss", _swapped("ratio", "sequence", "sequence_token"), "GSPO for GSPO-token"),
    _mutant("ratio moves", "policy_loss", _moving_ratio, "cispo's weight is not held"),
    _mutant("plain gate", "policy_loss", _swapped("surrogate", "unclipped", "sapo"), "no gate at all"),
    _mutant("arithmetic mean", "policy_loss", _swapped("surrogate", "clip", "gmpo"), "tokens on their own for the geometric mean"),
    _mutant("reward", "ppo_kl_loss", _with(objectives.ppo_kl_loss, kl=lambda kl: -kl), "distance is paid for"),
    _mutant("penalty held", "ppo_kl_loss", _with(objectives.ppo_kl_loss, kl=lambda kl: kl.detach()), "the penalty has no gradient"),
    _mutant("no half", "value_loss", lambda *a, **o: 2.0 * value_loss(*a, **o), "the coefficient counts twice"),
    _mutant("minimum", "value_loss", _critic(lambda v, G, old, eps: torch.minimum((v - G) ** 2, (_near(v, old, eps) - G) ** 2)), "the smaller error"),
    _mutant("held alone", "value_loss", _critic(lambda v, G, old, eps: (_near(v, old, eps) - G) ** 2), "no maximum: a value that moved away stays there"),
    _mutant("around the return", "value_loss", _critic(lambda v, G, old, eps: torch.maximum((v - G) ** 2, (v - G).clamp(-eps, eps) ** 2)), "clips the error: never active"),
    _mutant("old is now", "value_loss", _critic(lambda v, G, old, eps: (v - G) ** 2), "old values recomputed before the loss: no clip"),
    _mutant("ratio upside down", "kl_estimate", _clamped_k3, "r - 1 - ln r of the wrong ratio"),
    _mutant("both sides", "ratio_diagnostics", _both_sides_stopped, "counts ratios whose gradient flows"),
    _mutant("other direction", "ratio_diagnostics", _other_direction, "KL(new || old)"),
    _mutant("eager", "AdaptiveKL", _Eager, "no dead zone above the target"),
    _mutant("backwards", "AdaptiveKL", _Backwards, "relaxes where the policy moves too much"),
    _mutant("not normalised", "ppo", lambda **o: objectives.ppo(**{**o, "scale": "none"}), "advantages as they are"),
    _mutant("biased deviation", "ppo", lambda **o: objectives.ppo(**{**o, "ddof": 0}), "n for n - 1"),
    _mutant("entropy twice", "ppo", lambda **o: objectives.ppo(**{**o, "entropy_coef": 2.0 * o["entropy_coef"]}), "a bonus of another size"),
    _mutant("never explores", "ppo_trainer", _never_explores, "acts greedily while it learns"),
    _mutant("pays backwards", "ppo_trainer", _pays_backwards, "costs for rewards"),
    _mutant("does not learn", "ppo_trainer", lambda policy, env, *, config, **o: ppo_trainer(policy, env, config=replace(config, lr=1e-9), **o), "steps of no length"),
    _mutant("critic clipped", "ppo", lambda **o: objectives.ppo(**{**o, "value_kind": "clipped_no_max"}), "another critic than asked for"),
)  # fmt: skip
"""Each replaces one subject of checks.ppo."""
