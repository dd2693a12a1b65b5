"""The follow-on trace: how much a state matters to those who would have come from where others have been.

    F_t = 1 + gamma w_{t-1} F_{t-1},   w = pi / b,   F = 1 where an episode begins

Under a behaviour b with long-run shares d_b the mean of F at a state is that state's share of the discounted
visits of pi from d_b, over d_b: weighed by it, off-policy steps of an actor follow the gradient of
J = d_b . v_pi on average, where plain ones ("semi") drop a term. It costs variance: w multiplies along time,
and where gamma^2 E[w^2] is above 1 the variance is infinite.

Not here: the ratios' other use, on the errors of a critic (returns.vtrace); the trainer (rl/off_policy.py).
Source: Sutton, Mahmood & White 2016, arXiv:1503.04269, eq. 18; Imani, Graves & White 2018, arXiv:1811.09013.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped

from dodona.core.inputs import (
    as_numpy,
    check_detached,
    check_finite,
    check_mask,
    check_range,
    check_shapes,
    dtype_kind,
    is_tensor,
)
from dodona.errors import ShapeError


def follow_on(
    log_ratio: Float[Any, "..."], terminated: Bool[Any, "..."], truncated: Bool[Any, "..."], *, gamma: float,
    carry: Float[Any, "..."] | None = None, mask: Shaped[Any, "..."] | None = None, time_dim: int = 0,
) -> tuple[Float[Any, "..."], Float[Any, "..."]]:  # fmt: skip
    """The trace of every row, and what the rows after the last one take over.

    F_t = 1 + c_t,  c_{t+1} = gamma exp(log_ratio_t) F_t, and 0 after an end or a cut.

    Args:
        log_ratio: [T, ...] logp - logp_old, the policy learnt about over the one that acted, nats.
        terminated, truncated: [T, ...] bool; either begins a new trace in the next row.
        gamma: discount in [0, 1].
        carry: [...] c of the first row, as the call before returned it; None: episodes begin here.
        mask: [T, ...] bool or float, 0 = the row is stepped over and answered by 0; None = all count.
        time_dim: the axis of time; 1 for the rows of a Batch.
    Returns: (trace [T, ...], carry [...]) in the kind and type given; summed in float64.
    Raises: ShapeError: names both shapes.  TypeError: flags that are not bool, or something that requires
        grad.  InputError: gamma.  NonFiniteError: a ratio that counts, or a trace too large for its type.
    Source: Imani et al. 2018, arXiv:1811.09013, eq. 8, with interest 1.
    Oracle: oracles.gradients.off_policy_gradient(form="emphatic"), the mean of it; by hand (tests).
    Cost: O(size), one pass.

    >>> import numpy as np
    >>> none = np.zeros(3, bool)
    >>> follow_on(np.log([2.0, 1.0, 4.0]), none, none, gamma=0.5)
    (array([1., 2., 2.]), array(4.))
    """
    check_range("[0, 1]", gamma=gamma)
    check_shapes(log_ratio=log_ratio, terminated=terminated, truncated=truncated)
    check_detached(log_ratio=log_ratio, carry=carry)
    check_mask(mask, log_ratio)
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if dtype_kind(flag) != "b":
            raise TypeError(f"{name} must be bool, got {flag.dtype}.")
    given = np.moveaxis(np.asarray(as_numpy(log_ratio)), time_dim, 0)
    over = np.moveaxis(as_numpy(terminated) | as_numpy(truncated), time_dim, 0)
    counts = np.ones_like(over) if mask is None else np.moveaxis(as_numpy(mask) != 0, time_dim, 0)
    check_finite(log_ratio=np.where(counts, given, 0.0))
    ahead = np.zeros(given.shape[1:]) if carry is None else as_numpy(carry).astype(np.float64)
    if ahead.shape != given.shape[1:]:
        raise ShapeError(
            f"carry has shape {ahead.shape}, expected {given.shape[1:]}: one number per lane, the shape of "
            "log_ratio without time."
        )
    weights = gamma * np.exp(np.where(counts, given, 0.0).astype(np.float64))
    trace = np.zeros(given.shape)
    for t in range(len(given)):
        trace[t] = np.where(counts[t], 1.0 + ahead, 0.0)
        # a reset row is stepped over, but the row that was cut before it has ended the trace
        ahead = np.where(counts[t], np.where(over[t], 0.0, weights[t] * trace[t]), ahead)
    with np.errstate(over="ignore"):
        found = np.moveaxis(trace, 0, time_dim).astype(given.dtype)
        onward = np.asarray(ahead).astype(given.dtype)
    check_finite(trace=found, carry=onward)
    if not is_tensor(log_ratio):
        return found, onward
    tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in (found, onward)]
    return tensors[0].to(log_ratio.device), tensors[1].to(log_ratio.device)
