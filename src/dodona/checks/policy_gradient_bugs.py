"""Wrong policy gradients, as tutorials and libraries had them: each of which the checks must catch.

All of them run, and many of them learn: the direction is only somewhat wrong, or right and far too noisy.

Source: card policy-gradient, sec. 9 (reports in public code). Not here: wrong returns with time limits
(environment_bugs.py).
"""

from collections.abc import Callable
from typing import Any

import torch

from dodona import objectives
from dodona.core.protocols import Mutant
from dodona.core.reductions import counted, masked_mean
from dodona.objectives import discounted_returns, reinforce_loss, surrogate_loss
from dodona.objectives.objective import PolicyObjective


def _mean_before_product(logp, weights, mask=None, **options):
    """- mean logp times mean weight: the episode's steps lose their own returns."""
    clean, counts = counted(weights, mask)
    mean = clean.mul(counts).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True).clamp(min=1e-30)
    return reinforce_loss(logp, mean.expand_as(logp), mask, **options)


def _any_reduction(reduction: str) -> Callable[..., Any]:
    def wrong(logp, weights, mask=None, **options):
        return masked_mean(-weights.nan_to_num() * logp, mask, reduction=reduction)

    return wrong


def _raw_masked(logp, weights, mask=None, **options):
    """The mask multiplies: NaN under it survives."""
    m = torch.ones_like(logp) if mask is None else mask.to(logp.dtype)
    loss = -weights * logp * m
    reduction, denom = options.get("reduction", "token"), options.get("denom")
    if reduction == "token":
        return loss.sum() / m.sum()
    return loss.sum() / ((m.sum(-1) > 0).sum() if denom is None else denom)


def _probability(logp, weights, mask=None, **options):
    """- mean w pi: the derivative of the probability, not of its logarithm."""
    return masked_mean(-weights.nan_to_num() * logp.exp(), mask, **options)


def _action_baseline(logp, weights, mask=None, **options):
    """A baseline that looks at the action: it takes part of the signal away."""
    return reinforce_loss(logp, weights - logp.detach(), mask, **options)


def _whitened(logp, weights, mask=None, **options):
    """Divides by the deviation of what happens to be in the batch."""
    clean, counts = counted(weights, mask)
    n = counts.sum()
    mean = (clean * counts).sum() / n
    spread = ((counts * (clean - mean) ** 2).sum() / n).sqrt()
    return reinforce_loss(logp, (weights - mean) / spread, mask, **options)


def _returns(change: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Other numbers in the place of returns: change(rewards, right returns, gamma), rows [B, T] of one episode."""

    def wrong(rewards, terminated, truncated, *, gamma, mask=None, time_dim=0, **options):
        right = discounted_returns(
            rewards, terminated, truncated, gamma=gamma, mask=mask, time_dim=time_dim, **options
        )
        m = torch.ones_like(right) if mask is None else (mask != 0).to(right.dtype)
        return torch.where(m != 0, change(rewards * m, right, gamma), 0.0)

    return wrong


def _powers(x: torch.Tensor, gamma: float) -> torch.Tensor:
    return gamma ** torch.arange(x.shape[1], dtype=x.dtype)


def _forward_discounted(rewards, right, gamma):
    return rewards * _powers(rewards, gamma)


def _reversed(rewards, right, gamma):
    """The recursion run from the front: the past, discounted."""
    out = torch.zeros_like(rewards)
    for t in range(rewards.shape[1]):
        out[:, t] = rewards[:, t] + (gamma * out[:, t - 1] if t else 0.0)
    return out


def _kept(objective: PolicyObjective, change: Callable[..., torch.Tensor]) -> Any:
    """The objective with other advantages after prepare: change(advantages, batch)."""

    class Wrong(PolicyObjective):
        def prepare(self, batch, *, moments=None):
            done = super().prepare(batch, moments=moments)
            kept = torch.where(done.mask.bool(), change(done.advantages, done, self), 0.0)
            return done.replace(advantages=kept)

    return Wrong(**{name: getattr(objective, name) for name in objective.__dataclass_fields__})


def _preset(change: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    return lambda **options: _kept(objectives.reinforce(**options), change)


def _first_for_all(advantages, batch, objective):
    """G_0 for every step (and the discount of the states on top of it)."""
    return advantages[:, :1].expand_as(advantages)


def _rewards_forward(advantages, batch, objective):
    return batch.rewards * _powers(batch.rewards, objective.gamma)


def _immediate(advantages, batch, objective):
    return batch.rewards


def _discounted_twice(advantages, batch, objective):
    if not objective.discount_states:
        return advantages
    return advantages * _powers(advantages, objective.gamma)


def _baseline_of_action(advantages, batch, objective):
    return advantages - 0.5 * batch.actions.to(advantages.dtype)


def _ratio_upside_down(logp, logp_old, advantages, mask=None):
    return surrogate_loss(2 * logp_old - logp.detach() + logp - logp.detach(), logp_old, advantages, mask)  # fmt: skip


def _no_ratio(logp, logp_old, advantages, mask=None):
    return reinforce_loss(logp, advantages, mask)


def _mutant(name: str, replaces: str, function: Callable, bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


MUTANTS = (
    _mutant("mean before product", "reinforce_loss", _mean_before_product, "Farama-Foundation/Gymnasium #1336"),
    _mutant("mean over steps", "reinforce_loss", _any_reduction("token"), "long episodes count more"),
    _mutant("mean of means", "reinforce_loss", _any_reduction("sequence"), "each episode divided by its length"),
    _mutant("mask multiplies", "reinforce_loss", _raw_masked, "0 times NaN"),
    _mutant("sign", "reinforce_loss", lambda *a, **o: -reinforce_loss(*a, **o), "descends"),
    _mutant("probability", "reinforce_loss", _probability, "grad pi for grad ln pi"),
    _mutant("baseline of the action", "reinforce_loss", _action_baseline, "biased"),
    _mutant("whitened", "reinforce_loss", _whitened, "another scale in every batch"),
    _mutant("no ratio", "surrogate_loss", _no_ratio, "off-policy actions taken for one's own"),
    _mutant("ratio upside down", "surrogate_loss", _ratio_upside_down, "behaviour over policy"),
    _mutant("ratio squared", "policy_loss", lambda x, old, A, m=None, **o: objectives.policy_loss(2 * x - x.detach(), old, A, m, **o), "the slope counts twice"),
    _mutant("first return for all", "discounted_returns", _returns(lambda r, G, g: G[:, :1].expand_as(G)), "huggingface/deep-rl-class PR #70"),
    _mutant("forward discounted", "discounted_returns", _returns(_forward_discounted), "hunkim/ReinforcementZeroToAll #1"),
    _mutant("backwards", "discounted_returns", _returns(_reversed), "the past for the future"),
    _mutant("undiscounted", "discounted_returns", lambda *a, gamma, **o: discounted_returns(*a, gamma=1.0, **o), "gamma forgotten"),
    _mutant("own reward left out", "discounted_returns", _returns(lambda r, G, g: G - r), "from the next step on"),
    _mutant("missing gamma^t", "reinforce", lambda **o: objectives.reinforce(**{**o, "discount_states": False}), "Nota & Thomas 2019"),
    _mutant("gamma^t twice", "reinforce", _preset(_discounted_twice), "in the returns and in front of them"),
    _mutant("first return for all", "reinforce", _preset(_first_for_all), "udacity/deep-reinforcement-learning #42"),
    _mutant("forward discounted", "reinforce", _preset(_rewards_forward), "rewards for returns"),
    _mutant("immediate rewards", "reinforce", _preset(_immediate), "no future"),
    _mutant("baseline of the action", "reinforce", _preset(_baseline_of_action), "takes signal away"),
    _mutant("baseline ignored", "reinforce", lambda **o: objectives.reinforce(**{**o, "baseline": "none"}), "right and noisy"),
    _mutant("mean over steps", "reinforce", lambda **o: objectives.reinforce(**{**o, "reduction": "token"}), "long episodes count less"),
)  # fmt: skip
"""Each replaces one subject of checks.policy_gradient."""
