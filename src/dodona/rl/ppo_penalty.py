"""PPO with a KL penalty in place of the clip, and a coefficient that follows the measured KL.

    L = E[r A] - beta KL(pi_old || pi),     after each collection  beta <- beta / 2, beta or 2 beta

    update = PenalizedUpdate(GradientUpdate(unit="steps", epochs=10), KLPenalty(target=0.01))
    PolicyTrainer(policy, collector, ppo(surrogate="unclipped"), update=update, ...)

In the loss the divergence is the k3 estimate on the samples of pi_old, whose mean and whose gradient's mean
are the exact ones; what the coefficient follows is the exact divergence of the laws in the visited states.

Not here: the rule of the coefficient (objectives.AdaptiveKL), a penalty towards a fixed reference
(PolicyObjective.kl).

Source: Schulman et al. 2017, arXiv:1707.06347, sec. 4 and eq. 8; Schulman 2020, "Approximating KL divergence".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.inputs import check_range
from dodona.core.reductions import masked_mean
from dodona.core.statistics import RunningMoments
from dodona.core.updates import BoundUpdate, Objective, Update
from dodona.errors import InputError
from dodona.objectives import AdaptiveKL

__all__ = ["KLPenalty", "PenalizedUpdate"]

# what an objective says of itself
SAID = ("needs_critic", "needs_reference", "needs_entropy", "needs_kl", "reduction", "reads")


@dataclass(frozen=True, kw_only=True)
class KLPenalty:
    """The weight of KL(old || new) in the loss.  Raises: InputError: a number that is not positive."""

    kl_coef: float = 1.0
    """beta at the start, reward units per nat; the paper's start value, of little importance"""
    target: float | None = 0.01
    """KL per collection that beta is steered to, nats (0.01 did best in the paper); None: beta stays"""

    def __post_init__(self) -> None:
        check_range("(0, inf)", kl_coef=self.kl_coef)
        check_range("(0, inf)", "None keeps kl_coef as it is.", target=self.target)


@dataclass(frozen=True)
class PenalizedUpdate:
    """Another update whose objective has the penalty added.

    Args: inner: GradientUpdate, or another Update.  penalty: see KLPenalty.
    Events: update/kl_coef, of this collection; update/kl_exact, measured after it, nats.
    Raises (from run): InputError: an objective that clips; no logp_old.
    Source: see the module.
    Oracle: the loss by hand; a scripted sequence of divergences (tests/rl/test_ppo_penalty.py).
    Cost: two forward passes of the policy more per collection, without gradient.
    """

    inner: Update
    penalty: KLPenalty = KLPenalty()

    def bind(self, policy: Any, critic: Any = None, reference: Any = None) -> "BoundPenalized":
        """The update of these networks."""
        return BoundPenalized(self.inner.bind(policy, critic, reference), self.penalty, policy)


class BoundPenalized:
    """See PenalizedUpdate."""

    def __init__(self, inner: BoundUpdate, penalty: KLPenalty, policy: Any):
        self.inner, self.policy = inner, policy
        self.follows = penalty.target is not None
        self.rule = AdaptiveKL(penalty.target or 1.0, penalty.kl_coef)

    def run(
        self, batch: Batch, objective: Objective, *, rng: np.random.Generator, step: int
    ) -> dict[str, float]:
        """The inner update's numbers, and how far it went."""
        whose = getattr(objective, "objective", objective)  # a trainer may have wrapped it
        if getattr(whose, "surrogate", "unclipped") == "clip":
            raise InputError(
                "a KL penalty is in place of the clip, and this objective clips as well. Use "
                "ppo(surrogate='unclipped')."
            )
        if batch.logp_old is None:
            raise InputError("the penalty compares with logp_old, and the batch has none.")
        before, coef = self._laws(batch), self.rule.kl_coef
        numbers = self.inner.run(batch, _Penalized(objective, coef), rng=rng, step=step)
        # rounding may leave a divergence of nothing just below 0
        kl = max(0.0, float(masked_mean(before.kl(self._laws(batch)), batch.mask)))
        if self.follows:
            self.rule.update(kl)
        return numbers | {"update/kl_coef": coef, "update/kl_exact": kl}

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict(), "rule": self.rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])
        self.rule.load_state_dict(state["rule"])

    @torch.no_grad()
    def _laws(self, batch: Batch) -> Any:
        return self.policy.distribution(batch.obs, batch.actions)


class _Penalized:
    """An objective with beta k3(pi_old || pi) added to its loss."""

    def __init__(self, objective: Objective, kl_coef: float):
        self.objective, self.kl_coef = objective, kl_coef
        for name in SAID:
            if hasattr(objective, name):
                setattr(self, name, getattr(objective, name))

    def prepare(self, batch: Batch, *, moments: RunningMoments | None = None) -> Batch:
        return self.objective.prepare(batch, moments=moments)

    def __call__(
        self, logp: Tensor, batch: Batch, *, denom: float | None = None, **given: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        loss, numbers = self.objective(logp, batch, denom=denom, **given)
        # masked before the exponential
        x = torch.where(batch.mask.bool(), logp - batch.logp_old, 0.0)
        kl = masked_mean(torch.expm1(x) - x, batch.mask, denom=denom)
        return loss + self.kl_coef * kl, numbers | {
            "loss/kl_old": self.kl_coef * float(kl.detach())
        }
