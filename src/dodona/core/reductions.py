"""Sums, means and standard deviations of what counts: the one place where a loss is averaged.

What is masked is replaced by 0 before anything is multiplied or summed, so an infinity or NaN under
the mask reaches neither the value nor the gradient. (What made the number may still spoil its own
gradient, as exp of a huge log ratio does: mask before exp, too.)
Three means exist, and a loss says which it takes:

    "token"     sum x m / sum m                      every counted number alike
    "sequence"  mean over each row's own, then over rows
    "fixed"     row sums / length, then mean over rows

Rows are the first axis; a row without a counted number is not counted. ``denom`` replaces the last
divisor (counted numbers for "token", counted rows otherwise) by that of the whole optimizer step, so
that any split into micro-batches and ranks adds up to the same gradient.
Half precision is summed in float32.

Source: Shao et al. 2024, arXiv:2402.03300, eq. 3 ("sequence"); Yu et al. 2025, arXiv:2503.14476
("token"); Liu et al. 2025, arXiv:2503.20783 ("fixed").
Not here: statistics over a whole run (statistics.py).
"""

import warnings
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from dodona.core.inputs import check_choice, check_count, check_mask, check_range
from dodona.errors import InputError, ShapeError

Reduction = Literal["token", "sequence", "fixed"]
REDUCTIONS = ("token", "sequence", "fixed")


def masked_mean(
    x: Shaped[Tensor, "..."],
    mask: Shaped[Tensor, "..."] | None = None,
    *,
    reduction: Reduction = "token",
    length: float = 1.0,
    denom: float | Shaped[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """The mean of what counts, as one scalar; 0 with zero gradient where nothing counts.

    token: sum x m / sum m; sequence: mean_i (sum_t x m / sum_t m)_i; fixed: mean_i (sum_t x m)_i / length.

    Args:
        x: [B], [B, T] or more axes; rows first, everything after the first axis belongs to its row.
        mask: 1 = counts, 0 = ignored; a float weighs. None: everything counts.
        reduction: which of the three.
        length: the constant divisor of "fixed", in tokens; 1.0 is the plain sequence sum, the longest
            allowed answer is Dr. GRPO.
        denom: counted tokens ("token") or counted rows (else) of the whole optimizer step, over all
            micro-batches and ranks; a number, or a scalar tensor as an all-reduce leaves it.
    Raises:
        ShapeError: mask and x differ, or x is a scalar.
        TypeError: a mask of integers, or one that requires grad.
        InputError: unknown reduction; length or denom not positive; length given without "fixed".
    Source: see the module.  Oracle: oracles.statistics.masked_mean.  Cost: O(size of x).

    >>> x = torch.tensor([[1.0, 2.0, 3.0], [6.0, float("nan"), 0.0]])
    >>> mask = torch.tensor([[True, True, True], [True, False, False]])
    >>> masked_mean(x, mask).item(), masked_mean(x, mask, reduction="sequence").item()
    (3.0, 4.0)
    """
    check_choice(REDUCTIONS, reduction=reduction)
    check_range("(0, inf)", "It counts tokens.", length=length)
    if length != 1.0 and reduction != "fixed":
        raise InputError(
            f"length={length} belongs to reduction='fixed', got reduction={reduction!r}, which would "
            "ignore it. Leave length out, or use reduction='fixed'."
        )
    if denom is not None and not isinstance(denom, Tensor):
        check_range(
            "(0, inf)", "An optimizer step in which nothing counts is skipped.", denom=denom
        )
    values, weights = counted(x, mask)
    if reduction == "token":
        return _ratio((values * weights).sum(), weights.sum(), denom)
    row_sum, row_weight = _per_row(values * weights), _per_row(weights)
    if reduction == "sequence":
        row_sum = row_sum / _positive(row_weight)
    else:
        row_sum = row_sum / length
    return _ratio(row_sum.sum(), (row_weight > 0).sum(), denom)


def masked_sum(
    x: Shaped[Tensor, "..."], mask: Shaped[Tensor, "..."] | None = None, *, dim: int | None = None
) -> Float[Tensor, "..."]:
    """sum x m: of everything, as one scalar, or along one axis.

    Args:
        x, mask: as masked_mean.
        dim: the axis to sum away; None sums all.
    Raises: ShapeError, TypeError: as masked_mean.
    Source: see the module.  Oracle: oracles.statistics.masked_sum.  Cost: O(size of x).
    """
    values, weights = counted(x, mask)
    return (values * weights).sum(dim=dim)


def masked_std(
    x: Shaped[Tensor, "..."], mask: Shaped[Tensor, "..."] | None = None, *, ddof: int = 1
) -> Float[Tensor, ""]:
    """The standard deviation of what counts, all axes pooled; exactly 0 for a constant.

    sqrt(sum m (x - mean)^2 / (sum m - ddof)).

    Args:
        x, mask: as masked_mean; float weights act as repetitions.
        ddof: 1 divides by n - 1 (Bessel), 0 by n.
    Raises:
        ShapeError, TypeError: as masked_mean.
        InputError: no more than ddof numbers count, so there is no such thing; ddof negative.
    Source: Chan, Golub, LeVeque 1983 (two passes after a shift).
    Oracle: oracles.statistics.masked_std.  Cost: O(size of x), reads the count.
    """
    check_count(0, ddof=ddof)
    centred, weights = _centred(x, mask)
    count = weights.sum()
    if count <= ddof:
        raise InputError(
            f"a standard deviation with ddof={ddof} needs more than {ddof} counted numbers, got "
            f"{count.item():g}. Use ddof=0, or a larger batch."
        )
    return _root(centred, weights, count - ddof)


def whiten(
    x: Shaped[Tensor, "..."],
    mask: Shaped[Tensor, "..."] | None = None,
    *,
    ddof: int = 1,
    eps: float = 1e-8,
) -> Float[Tensor, "..."]:
    """x with mean 0 and standard deviation 1 over what counts; 0 where masked, and for a constant.

    (x - mean) / (std + eps).

    Args:
        x, mask: as masked_mean. Statistics are pooled over all axes.
        ddof: of the standard deviation; 1 is what RLHF libraries use for advantages.
        eps: added to std, units of x; 1e-8 as in the PPO code bases.
    Raises: ShapeError, TypeError: as masked_mean.  InputError: eps or ddof negative.
    Warns:
        RuntimeWarning: no more than ddof numbers count: they are only centred. ddof=0 is silent.
    Source: Engstrom et al. 2020, arXiv:2005.12729 (advantage normalisation); Zheng et al. 2023,
        arXiv:2307.04964 (its sixth trick).
    Oracle: oracles.statistics.whiten.  Cost: O(size of x), reads the count.
    """
    check_count(0, ddof=ddof)
    check_range("[0, inf)", eps=eps)
    centred, weights = _centred(x, mask)
    count = weights.sum()
    if 0 < count <= ddof:
        warnings.warn(
            f"whiten got {count.item():g} counted numbers with ddof={ddof}: they have no standard "
            "deviation and are only centred. Use a larger batch, or ddof=0 to say that this is meant.",
            RuntimeWarning,
            stacklevel=2,
        )
    if count <= ddof:
        return centred
    # a constant has std 0 and centred 0: dividing by 1 there keeps eps=0 free of 0 / 0
    return centred / _positive(_root(centred, weights, count - ddof) + eps)


def counted(
    x: Shaped[Tensor, "..."], mask: Shaped[Tensor, "..."] | None = None
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """(x with exactly 0 where masked, weights m), at least in float32.

    The building block of a reduction that is not here.
    Raises: ShapeError, TypeError: as masked_mean.  Cost: O(size of x).
    """
    if x.ndim == 0:
        raise ShapeError("x has shape (), rows on the first axis are expected: [B] or [B, T].")
    check_mask(mask, x)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if mask is None:
        return x, torch.ones_like(x)
    # where, not a product: 0 * inf is NaN, and so is its gradient
    return torch.where(mask.bool(), x, 0.0), mask.to(x.dtype)


def _per_row(x: Tensor) -> Tensor:
    return x.flatten(1).sum(dim=1) if x.ndim > 1 else x


def _positive(x: Tensor) -> Tensor:
    """A divisor that is safe: 0 becomes 1, under a numerator that is 0 as well."""
    return torch.where(x > 0, x, 1.0)


def _ratio(total: Tensor, count: Tensor, denom: float | Tensor | None) -> Tensor:
    return total / (_positive(count) if denom is None else denom)


def _centred(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(x - mean with 0 where masked, weights). Subtracting one of the counted numbers first makes a
    constant exactly 0 and spares the digits that a large offset would cost."""
    values, weights = counted(x, mask)
    if not values.numel():
        return values, weights
    some = weights.flatten().max(dim=0).indices
    values = values - values.flatten()[some].detach()
    mean = (values * weights).sum() / _positive(weights.sum())
    return torch.where(weights.bool(), values - mean, 0.0), weights


def _root(centred: Tensor, weights: Tensor, divisor: Tensor) -> Tensor:
    variance = (weights * centred**2).sum() / divisor
    # the slope of sqrt at 0 is infinite and would meet a zero gradient: inf * 0 = NaN
    return torch.where(variance > 0, torch.where(variance > 0, variance, 1.0).sqrt(), 0.0)
