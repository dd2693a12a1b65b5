"""Losses of critics: state values against returns, action values against targets, and how well they explain.

A target is a constant: no gradient flows through it. Masked means removed, before anything is squared.

Not here: the targets (targets.py, returns.py) and the network.
Source: Schulman et al. 2017, arXiv:1707.06347; Mnih et al. 2015, Nature 518:529.
"""

from typing import Literal

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from dodona.core.inputs import check_choice, check_detached, check_mask, check_range, check_shapes
from dodona.core.reductions import Reduction, counted, masked_mean, masked_std
from dodona.errors import InputError, ShapeError

ValueKind = Literal["mse", "clipped", "clipped_no_max", "huber"]
KNEE = 1.0  # error, in value units, from which Huber's loss is linear: gradients lie in [-1, 1]


def value_loss(
    values: Float[Tensor, "..."], returns: Float[Tensor, "..."],
    mask: Shaped[Tensor, "..."] | None = None, *, kind: ValueKind = "mse",
    values_old: Float[Tensor, "..."] | None = None, clip_eps: float = 0.2,
    reduction: Reduction = "token", denom: float | Tensor | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """Half the squared error of a critic, to minimise; the half is in every kind.

    With e = v - G and e_c = v_old + clip(v - v_old, -eps, eps) - G:
    mse: e^2 / 2;  clipped: max(e^2, e_c^2) / 2;  clipped_no_max: e_c^2 / 2;
    huber: e^2 / 2 for |e| <= 1, |e| - 1/2 beyond.

    clipped pauses a value that has moved by eps towards its return; clipped_no_max also one that has moved
    away, so it can never come back. Neither did better than mse in arXiv:2006.05990.

    Args:
        values: [B, T] or any shape, v with its gradient, reward units.
        returns: same shape, the targets, constant.
        mask: same shape, 1 = counts; a float weighs.
        kind: "mse" as in the PPO paper; "clipped" as in baselines and CleanRL; "clipped_no_max" as in
            Stable-Baselines3.
        values_old: same shape, v at collection; needed by the clipped kinds and by no other.
        clip_eps: > 0, in value units: 0.2 suits rewards scaled to a standard deviation of 1 and freezes
            a critic whose values are in the hundreds.
        reduction, denom: see core.reductions.masked_mean.
    Returns: a scalar. The loss of A2C in Mnih et al. 2016 has no half: its coefficient counts twice here.
    Raises: ShapeError.  TypeError: returns or values_old that require grad.
        InputError: values_old missing, or given where nothing is clipped; clip_eps not positive.
    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 9; Engstrom et al. 2020, arXiv:2005.12729 (clipping).
    Oracle: oracles.returns.value_loss_by_definition.  Cost: O(size).

    >>> value_loss(torch.tensor([1.0]), torch.tensor([2.0])).item()
    0.5
    """
    check_choice(("mse", "clipped", "clipped_no_max", "huber"), kind=kind)
    check_shapes(values=values, returns=returns, values_old=values_old)
    check_detached(returns=returns, values_old=values_old)
    clips = kind in ("clipped", "clipped_no_max")
    if clips != (values_old is not None):
        raise InputError(
            f"kind='{kind}' {'needs values_old, the values at collection' if clips else 'would ignore values_old'}"
            f", got {'None' if clips else 'one'}. Give it with kind='clipped', leave it out with kind='mse'."
        )
    error, _ = counted(values - returns, mask)  # masked before the square: 0 * inf would be NaN
    if kind == "huber":
        return masked_mean(_huber(error), mask, reduction=reduction, denom=denom)
    square = error**2
    if clips:
        check_range("(0, inf)", "It is in value units.", clip_eps=clip_eps)
        near = values_old + (values - values_old).clamp(-clip_eps, clip_eps)
        error, _ = counted(near - returns, mask)
        square = error**2 if kind == "clipped_no_max" else torch.maximum(square, error**2)
    return masked_mean(0.5 * square, mask, reduction=reduction, denom=denom)


def dqn_loss(
    q: Float[Tensor, "B A"], actions: Integer[Tensor, "B"], targets: Float[Tensor, "B"],
    mask: Shaped[Tensor, "B"] | None = None, *, kind: Literal["mse", "huber"] = "mse",
) -> Float[Tensor, ""]:  # fmt: skip
    """The squared error of the values of the actions taken, to minimise.

    mse: mean (q(s, a) - y)^2, without a half;  huber: e^2 / 2 for |e| <= 1, |e| - 1/2 beyond, whose
    gradient is the error clipped to [-1, 1].

    Args:
        q: [B, A] values of all actions, with their gradient, reward units.
        actions: [B] integers in [0, A), the actions taken; any where masked.
        targets: [B] y, constant.
        mask: [B] 1 = counts. A float weighs, and the mean divides by the sum of the weights.
        kind: "mse" is the loss as printed, "huber" the clipped error of the Nature agent.
    Returns: a scalar; its gradient is 0 at actions not taken.
    Raises: ShapeError: also for targets [B, 1], which would be broadcast to [B, B].
        TypeError: targets that require grad.  InputError: an action out of range.
    Source: Mnih et al. 2015, Nature 518:529, eq. 2 and "Training algorithm".
    Oracle: oracles.returns.dqn_loss_by_definition.  Cost: O(B A) with the gradient.

    >>> dqn_loss(torch.tensor([[1.0, 9.0]]), torch.tensor([0]), torch.tensor([3.0])).item()
    4.0
    """
    check_choice(("mse", "huber"), kind=kind)
    if q.ndim != 2 or targets.ndim != 1:
        raise ShapeError(
            f"q has shape {tuple(q.shape)} and targets has shape {tuple(targets.shape)}: [B, A] and [B] are "
            "expected. Use targets.squeeze(-1) for [B, 1]."
        )
    check_shapes(**{"q without its actions": q[:, 0], "actions": actions, "targets": targets})
    check_detached(targets=targets)
    check_mask(mask, targets)
    index = actions.long() if mask is None else torch.where(mask.bool(), actions.long(), 0)
    if bool(((index < 0) | (index >= q.shape[1])).any()):
        raise InputError(
            f"actions must be in 0..{q.shape[1] - 1}, got {int(index.min())}..{int(index.max())}. The "
            "last axis of q has one entry per action."
        )
    error, _ = counted(q.gather(1, index[:, None]).squeeze(1) - targets, mask)
    return masked_mean(_huber(error) if kind == "huber" else error**2, mask)


def explained_variance(
    values: Float[Tensor, "..."], returns: Float[Tensor, "..."], mask: Shaped[Tensor, "..."] | None = None
) -> float:  # fmt: skip
    """1 - Var(G - v) / Var(G): 1 for a perfect critic, 0 for a constant, below 0 for worse than a constant.

    Args:
        values, returns: [B, T] or any shape.  mask: 1 = counts; a float weighs.
    Returns: a number; NaN where the returns do not vary, so that nothing can be explained. A constant
        error does not show: look at the loss as well.
    Raises: ShapeError.  InputError: nothing counts.
    Source: definition.  Oracle: oracles.returns.explained_variance_by_definition.  Cost: O(size).

    >>> explained_variance(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
    0.75
    """
    check_shapes(values=values, returns=returns)
    values, returns = values.detach().double(), returns.detach().double()
    spread = masked_std(returns, mask, ddof=0).item() ** 2
    left = masked_std(returns - values, mask, ddof=0).item() ** 2
    return 1.0 - left / spread if spread > 0 else float("nan")


def _huber(error: Tensor) -> Tensor:
    size = error.abs()
    return torch.where(size <= KNEE, 0.5 * error**2, KNEE * (size - 0.5 * KNEE))
