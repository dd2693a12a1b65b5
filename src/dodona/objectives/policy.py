"""Losses of the policy: one general form with independent switches, and its named corners.

    L = - mean of  f(ratio) A          ratio = exp(logp - logp_old), over what is not masked

    surrogate    what f does with the ratio         clip, unclipped, cispo, sapo, gmpo
    ratio        whose ratio it is                  token, sequence, sequence_token, none
    reduction    which mean                         token, sequence, fixed (core.reductions)

The same numbers train a table, an MLP on CartPole, a transformer and a pose head. Masked entries are
replaced before anything is exponentiated. No value is read here, so every function can be traced and
vmapped; what is not finite is found before (PolicyObjective.prepare) or after (core.updates).

Not here: where advantages come from (advantages.py), KL to a reference, value and entropy terms
(objective.py), mirror descent (mirror.py).
Source: Schulman et al. 2017, arXiv:1707.06347; of each switch, policy_loss.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from dodona.core.inputs import check_choice, check_detached, check_mask, check_range, check_shapes
from dodona.core.reductions import Reduction, counted, masked_mean, masked_sum
from dodona.errors import InputError

Surrogate = Literal["clip", "unclipped", "cispo", "sapo", "gmpo"]
Ratio = Literal["token", "sequence", "sequence_token", "none"]
SURROGATES = ("clip", "unclipped", "cispo", "sapo", "gmpo")
RATIOS = ("token", "sequence", "sequence_token", "none")
CLIP_EPS = 0.2  # Schulman et al. 2017, sec. 6.1
FARTHEST = 60.0  # nats of log ratio; beyond it a ratio is no estimate of anything
SAPO_TEMPERATURES = (1.0, 1.05)  # of positive and of negative advantages: Gao et al. 2025, sec. 3


def policy_loss(
    logp: Float[Tensor, "..."], logp_old: Float[Tensor, "..."] | None, advantages: Float[Tensor, "..."],
    mask: Shaped[Tensor, "..."] | None = None, *, surrogate: Surrogate = "clip", ratio: Ratio = "token",
    clip_eps: float | None = CLIP_EPS, clip_eps_high: float | None = None, dual_clip: float | None = None,
    max_ratio: float | None = None, reduction: Reduction = "token", length: float = 1.0,
    denom: float | Tensor | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """The policy term of every on-policy method, to minimise.

    r = exp(logp - logp_old), per token; [lo, hi] = [1 - clip_eps, 1 + clip_eps_high].
        clip        - min(r A, clip(r, lo, hi) A)                    PPO, GRPO, DAPO
        unclipped   - r A                                            TRPO, off-policy actor-critic
        cispo       - sg(clip(r, lo, hi)) A logp                     no token loses its gradient
        sapo        - (4 / t) sigmoid(t (r - 1)) A                   t = 1 where A > 0, 1.05 elsewhere
        gmpo        - exp(mean_t log clip(r)) A                      log r is clipped, one-sided, at
                                                                     clip_eps_high (A > 0), -clip_eps (A < 0)
    ratio "sequence": r = exp(mean_t log r_t), one for the row (GSPO). "sequence_token": the value of that,
    the gradient of each token. "none": - A logp, whatever policy acted (REINFORCE).
    At r = 1 all of them have the gradient of REINFORCE with the same A.

    Args:
        logp: [B, T] or any shape, log-probability of what was done under the policy in training, nats.
        logp_old: under the policy that acted; None with ratio="none" only.
        advantages: same shape; of one row all alike for gmpo.
        mask: 1 = counts.
        clip_eps: > 0, below 1 is taken away; 0.2 is PPO's. None (cispo only): no lower bound.
        clip_eps_high: > 0, what is added to 1; None: clip_eps. DAPO 0.28; the "cap" of CISPO minus one.
        dual_clip: c > 1: where A < 0 the loss stays below - c A. 3 in Ye et al.
        max_ratio: > 1, caps r itself, for A < 0 too.
        reduction, length, denom: see core.reductions.masked_mean.
    Returns: scalar, reward units of the advantages.
    Raises:
        ShapeError: shapes differ.
        TypeError: logp_old, advantages or mask require grad.
        InputError: a switch that does not exist, that is out of range, or that the surrogate would ignore.
    Source: PPO arXiv:1707.06347, eq. 7; dual clip arXiv:1912.09729; CISPO arXiv:2506.13585; GSPO
        arXiv:2507.18071; SAPO arXiv:2511.20347; GMPO arXiv:2507.20673.
    Oracle: oracles.losses.policy_loss (loops over numbers), oracles.sequences (exact gradients).
    Cost: O(size).

    >>> r = torch.tensor([0.5, 1.1, 1.5])
    >>> zero, one = torch.zeros(3), torch.ones(3)
    >>> [round(policy_loss(r[i:i+1].log(), zero[:1], one[:1]).item(), 6) for i in range(3)]
    [-0.5, -1.1, -1.2]
    """
    _check_switches(surrogate, ratio, clip_eps, clip_eps_high, dual_clip, max_ratio, reduction)
    check_detached(advantages=advantages, logp_old=logp_old)
    check_shapes(logp=logp, advantages=advantages)
    check_mask(mask, logp)
    options = {"reduction": reduction, "length": length, "denom": denom}
    if mask is not None:
        # before the product: NaN may stand under the mask, and its slope would be 0 * NaN
        advantages = torch.where(mask.bool(), advantages, 0.0)
    if ratio == "none":
        return masked_mean(-advantages * logp, mask, **options)
    if logp_old is None:
        raise InputError(
            "logp_old is missing: ratio='token' compares with the policy that acted. Store the "
            "log-probabilities when sampling, or use ratio='none' (REINFORCE)."
        )
    check_shapes(logp=logp, logp_old=logp_old)
    # held far out: exp would overflow float32, and inf times the clip's zero gradient is NaN
    log_ratio = (logp - logp_old).clamp(-FARTHEST, FARTHEST)
    if mask is not None:
        log_ratio = torch.where(mask.bool(), log_ratio, 0.0)
    low = 0.0 if clip_eps is None else 1.0 - clip_eps
    high = 1.0 + (clip_eps_high if clip_eps_high is not None else clip_eps or 0.0)
    if surrogate == "gmpo":
        loss = _gmpo(log_ratio, advantages, mask, clip_eps, clip_eps_high)
        return masked_mean(loss, mask, **options)
    r = _ratio(log_ratio, mask, ratio).exp()
    if max_ratio is not None:
        r = r.clamp(max=max_ratio)
    loss = _SURROGATES[surrogate](r, advantages, low, high, logp)
    if dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    return masked_mean(loss, mask, **options)


def ppo_clip_loss(
    logp: Float[Tensor, "..."], logp_old: Float[Tensor, "..."], advantages: Float[Tensor, "..."],
    mask: Shaped[Tensor, "..."] | None = None, *, clip_eps: float = CLIP_EPS,
    clip_eps_high: float | None = None, dual_clip: float | None = None, reduction: Reduction = "token",
    denom: float | Tensor | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """PPO's clipped surrogate: - mean min(r A, clip(r, 1 - eps, 1 + eps) A).

    The gradient of a sample is r A grad logp, and 0 where A > 0 and r > 1 + eps, or A < 0 and
    r < 1 - eps. It bounds neither r nor the KL: nothing pulls back a ratio that is already outside.

    Args, Returns, Raises: see policy_loss.
    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7; 0.2 is from sec. 6.1.
    Oracle: oracles.losses.policy_loss.  Cost: O(size).
    """
    return policy_loss(
        logp, logp_old, advantages, mask, clip_eps=clip_eps, clip_eps_high=clip_eps_high,
        dual_clip=dual_clip, reduction=reduction, denom=denom,
    )  # fmt: skip


def surrogate_loss(
    logp: Float[Tensor, "..."], logp_old: Float[Tensor, "..."], advantages: Float[Tensor, "..."],
    mask: Shaped[Tensor, "..."] | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """The importance-weighted surrogate - mean r A: of TRPO, and of off-policy actor-critic.

    Equal to the objective in value and gradient where the two policies are one.

    Args, Returns, Raises: see policy_loss.
    Source: Kakade & Langford 2002; Schulman et al. 2015, arXiv:1502.05477, eq. 14.
    Oracle: oracles.losses.policy_loss.  Cost: O(size).
    """
    return policy_loss(logp, logp_old, advantages, mask, surrogate="unclipped")


def reinforce_loss(
    logp: Float[Tensor, "..."], weights: Float[Tensor, "..."], mask: Shaped[Tensor, "..."] | None = None, *,
    reduction: Reduction = "token", length: float = 1.0, denom: float | Tensor | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """- mean w logp: its gradient is that of the expected weight, if the policy itself acted.

    Args:
        logp: [B, T] or any shape.  weights: returns, advantages, or anything else held constant.
        Others: see policy_loss. The gradient of the expected return of whole episodes is
        reduction="fixed" (sums over the row, mean over rows).
    Returns, Raises: see policy_loss.
    Source: Williams 1992.  Oracle: oracles.gradients.policy_gradient.  Cost: O(size).
    """
    return policy_loss(
        logp, None, weights, mask, ratio="none", reduction=reduction, length=length, denom=denom
    )


def ppo_kl_loss(
    logp: Float[Tensor, "..."], logp_old: Float[Tensor, "..."], advantages: Float[Tensor, "..."],
    mask: Shaped[Tensor, "..."] | None = None, *, kl: Float[Tensor, "..."], kl_coef: float,
) -> Float[Tensor, ""]:  # fmt: skip
    """PPO with a penalty in place of the clip: - mean r A + kl_coef mean KL(old || new).

    Args:
        kl: same shape, KL(pi_old || pi) of each state, with its gradient (Distribution.kl of the old one).
        kl_coef: >= 0; a constant, or AdaptiveKL's.
        Others, Returns, Raises: see policy_loss.
    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 8.
    Oracle: oracles.losses.policy_loss and kl by hand.  Cost: O(size).
    """
    check_range("[0, inf)", kl_coef=kl_coef)
    check_shapes(logp=logp, kl=kl)
    return surrogate_loss(logp, logp_old, advantages, mask) + kl_coef * masked_mean(kl, mask)


class AdaptiveKL:
    """The coefficient that keeps a measured KL near its target: halved below, doubled above 1.5 times.

    d < target / 1.5: coef / 2;  d > 1.5 target: 2 coef. The start matters little.

    Args:
        target: > 0, nats.  kl_coef: > 0, where it starts.
    Raises: InputError: either not positive; a KL that is negative or not finite.
    Source: Schulman et al. 2017, arXiv:1707.06347, sec. 4.  Oracle: by hand.
    """

    def __init__(self, target: float = 0.01, kl_coef: float = 1.0):
        check_range("(0, inf)", target=target, kl_coef=kl_coef)
        self.target, self.kl_coef = target, kl_coef

    def update(self, kl: float) -> float:
        """The next coefficient, after a batch in which ``kl`` was measured."""
        check_range("[0, inf)", "It is a mean over states.", kl=kl)
        if kl < self.target / 1.5:
            self.kl_coef /= 2.0
        elif kl > self.target * 1.5:
            self.kl_coef *= 2.0
        return self.kl_coef

    def state_dict(self) -> dict[str, float]:
        return {"target": self.target, "kl_coef": self.kl_coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.target, self.kl_coef = state["target"], state["kl_coef"]


def dpg_loss(
    q_of_mu: Float[Tensor, "..."], mask: Shaped[Tensor, "..."] | None = None
) -> Float[Tensor, ""]:
    """- mean q(s, mu(s)): its gradient is the deterministic policy gradient, through the action.

    Args: q_of_mu: the critic's value of the actor's own action, reward units; only the actor may step.
    Raises: ShapeError, TypeError: the mask.  InputError: nothing to differentiate.
    Source: Silver et al. 2014, eq. 9.  Oracle: oracles.lqr.LQR.gradient.  Cost: O(size).
    """
    if torch.is_grad_enabled() and not q_of_mu.requires_grad:
        raise InputError(
            "q_of_mu has no gradient: the critic must be given the actor's action itself, not a "
            "detached or stored one."
        )
    return masked_mean(-q_of_mu, mask)


def ratio_diagnostics(
    logp: Float[Tensor, "..."], logp_old: Float[Tensor, "..."], advantages: Float[Tensor, "..."],
    mask: Shaped[Tensor, "..."] | None = None, *, clip_eps: float = CLIP_EPS,
    clip_eps_high: float | None = None,
) -> dict[str, Float[Tensor, ""]]:  # fmt: skip
    """How far the policy has moved from the one that acted.

    clip_fraction: share of counted entries whose gradient the clip stops (on the side of their A).
    kl_old: k3 estimate of KL(old || new).  kl_old_k1: the k1 estimate.  ratio_max: the largest ratio.
    ess: (sum r)^2 / (n sum r^2), the share of samples that still count.

    Args: as policy_loss.
    Returns: scalar tensors without gradient.
    Raises: ShapeError, TypeError: as policy_loss.
    Source: Schulman 2020 (k1, k3); Kish 1965 (ess).  Oracle: by hand.  Cost: O(size).
    """
    check_shapes(logp=logp, logp_old=logp_old, advantages=advantages)
    check_mask(mask, logp)
    with torch.no_grad():
        x = logp - logp_old
        if mask is not None:
            x = torch.where(mask.bool(), x, 0.0)
        _, weights = counted(x, mask)
        r = x.exp()
        high = clip_eps if clip_eps_high is None else clip_eps_high
        stopped = torch.where(
            advantages > 0, r > 1.0 + high, (advantages < 0) & (r < 1.0 - clip_eps)
        )
        inside = torch.where(weights > 0, r, 0.0)
        n = masked_sum(weights)
        squares = (weights * r * r).sum()
        return {
            "clip_fraction": masked_mean(stopped.to(x.dtype), mask),
            # samples of the old law, so x enters with the other sign
            "kl_old": masked_mean(torch.expm1(x) - x, mask),
            "kl_old_k1": masked_mean(-x, mask),
            "ratio_max": inside.max(),
            "ess": torch.where(
                n > 0, (weights * r).sum() ** 2 / (n * squares).clamp(min=1e-30), 0.0
            ),
        }


# ---------------------------------------------------------------------- private
def _clip(r: Tensor, advantages: Tensor, low: float, high: float, logp: Tensor) -> Tensor:
    return -torch.minimum(r * advantages, r.clamp(low, high) * advantages)


def _unclipped(r: Tensor, advantages: Tensor, low: float, high: float, logp: Tensor) -> Tensor:
    return -r * advantages


def _cispo(r: Tensor, advantages: Tensor, low: float, high: float, logp: Tensor) -> Tensor:
    return -r.detach().clamp(low, high) * advantages * logp


def _sapo(r: Tensor, advantages: Tensor, low: float, high: float, logp: Tensor) -> Tensor:
    positive, negative = SAPO_TEMPERATURES
    # where() of two numbers would be float32
    t = torch.where(advantages > 0, torch.full_like(r, positive), negative)
    return -(4.0 / t) * torch.sigmoid(t * (r - 1.0)) * advantages


_SURROGATES: dict[str, Callable[..., Tensor]] = {
    "clip": _clip, "unclipped": _unclipped, "cispo": _cispo, "sapo": _sapo,
}  # fmt: skip


def _gmpo(
    log_ratio: Tensor, advantages: Tensor, mask: Tensor | None, clip_eps: float | None,
    clip_eps_high: float | None,
) -> Tensor:  # fmt: skip
    """The geometric mean of a row's clipped ratios, on every token of the row."""
    low = CLIP_EPS if clip_eps is None else clip_eps
    high = low if clip_eps_high is None else clip_eps_high
    bounded = torch.where(advantages > 0, log_ratio.clamp(max=high), log_ratio.clamp(min=-low))
    return -_row_mean(bounded, mask).exp() * advantages


def _ratio(log_ratio: Tensor, mask: Tensor | None, ratio: str) -> Tensor:
    """The log ratio that enters the surrogate, in the shape of the tokens."""
    if ratio == "token":
        return log_ratio
    mean = _row_mean(log_ratio, mask)
    return mean if ratio == "sequence" else mean.detach() + log_ratio - log_ratio.detach()


def _row_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over each row's counted entries, repeated along the row."""
    if x.ndim == 1:
        return x
    values, weights = counted(x, mask)
    axes = tuple(range(1, x.ndim))
    total, count = values.mul(weights).sum(axes, keepdim=True), weights.sum(axes, keepdim=True)
    return (total / torch.where(count > 0, count, 1.0)).expand(x.shape)


def _check_switches(
    surrogate: str, ratio: str, clip_eps: float | None, clip_eps_high: float | None,
    dual_clip: float | None, max_ratio: float | None, reduction: str,
) -> None:  # fmt: skip
    check_choice(SURROGATES, surrogate=surrogate)
    check_choice(RATIOS, ratio=ratio)
    if clip_eps is None and surrogate != "cispo":
        raise InputError(
            f"clip_eps=None (no lower bound) is for surrogate='cispo', got surrogate={surrogate!r}. PPO "
            "uses 0.2; for no clipping at all use surrogate='unclipped'."
        )
    if clip_eps is None and clip_eps_high is None:
        raise InputError("clip_eps=None leaves clip_eps_high to say where the ratio is capped; give it.")  # fmt: skip
    if clip_eps is not None:
        check_range(
            "(0, 1)", "PPO uses 0.2; for no clipping use surrogate='unclipped'.", clip_eps=clip_eps
        )
    if clip_eps_high is not None:
        check_range("(0, inf)", "It is added to 1: DAPO uses 0.28.", clip_eps_high=clip_eps_high)
    for name, bound in (("dual_clip", dual_clip), ("max_ratio", max_ratio)):
        if bound is not None:
            check_range("(1, inf)", "It bounds a ratio that starts at 1.", **{name: bound})
    ignored = {
        "clip_eps_high": clip_eps_high is not None and surrogate in ("unclipped", "sapo"),
        "clip_eps": clip_eps not in (None, CLIP_EPS) and surrogate in ("unclipped", "sapo"),
        "dual_clip": dual_clip is not None and surrogate != "clip",
        "max_ratio": max_ratio is not None and surrogate == "gmpo",
        "a surrogate": ratio == "none" and surrogate not in ("clip", "unclipped"),
        "a bound on the ratio": ratio == "none" and (dual_clip is not None or max_ratio is not None),
        "ratio": surrogate == "gmpo" and ratio != "token",
    }  # fmt: skip
    for name, lost in ignored.items():
        if lost:
            raise InputError(
                f"{name} would be ignored by surrogate={surrogate!r} with ratio={ratio!r}. Leave it out, or "
                "choose the surrogate that reads it."
            )
    if ratio == "sequence" and reduction == "fixed":
        raise InputError(
            "ratio='sequence' is one number of a row, and reduction='fixed' would add it once per token. "
            "Use reduction='sequence' (GSPO)."
        )
