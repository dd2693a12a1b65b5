"""Kullback-Leibler divergences: three estimates from samples, two closed forms. NumPy or torch.

KL(p || q) = E_p[log p - log q]; the first argument is the law that drew the samples. Values are never
read, so everything here can be traced, vmapped and run without waiting for the device.

About gradients: that an estimator is unbiased says nothing of its derivative. On samples of the
policy, the derivative of k1 as a loss has mean 0, that of k2 points along KL(policy || reference),
that of k3 along KL(reference || policy). Of sequences that holds for the sums of log-probabilities,
not token by token.

Source: J. Schulman, "Approximating KL divergence", 2020 (k1, k2, k3); Tang & Munos 2025,
arXiv:2506.09477 (their gradients).
"""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from dodona.core.inputs import check_choice, check_detached, check_shapes, namespace

Kind = Literal["k1", "k2", "k3"]
KINDS = ("k1", "k2", "k3")


def kl_estimate(
    logp: Float[Any, "..."], logp_ref: Float[Any, "..."], *, kind: Kind = "k1"
) -> Float[Any, "..."]:
    """Per sample estimate of KL(p || p_ref), from log-probabilities of samples of p. Elementwise.

    x = logp - logp_ref:  k1 = x,  k2 = x^2 / 2,  k3 = exp(-x) - 1 + x.
    k1 and k3 are unbiased; k2 and k3 are never negative.

    Args:
        logp: under the law that drew the samples, nats; gradient may flow here only.
        logp_ref: under the other law, nats.
        kind: which; k1 goes into rewards, k3 into the loss of grpo.
    Returns: nats, same shape and kind. Overflows to inf where x < -709 (float32: -88): mask first.
    Raises:
        ShapeError: two shapes.  InputError: unknown kind.
        TypeError: logp_ref requires grad, or NumPy against torch.
    Source: see the module.  Oracle: oracles.statistics.kl_estimate_moments.  Cost: O(size).
    """
    check_choice(KINDS, kind=kind)
    check_shapes(logp=logp, logp_ref=logp_ref)
    check_detached(logp_ref=logp_ref)
    xp = namespace(logp, logp_ref)
    x = logp - logp_ref
    if kind == "k1":
        return x
    if kind == "k2":
        return 0.5 * x * x
    return xp.expm1(-x) + x  # exp(-x) - 1 loses every digit near x = 0 and can turn negative


def kl_categorical(
    logits_p: Float[Any, "... A"], logits_q: Float[Any, "... A"]
) -> Float[Any, "..."]:
    """KL(p || q) of categorical laws given by logits, summed over the last axis.

    sum_a p_a (log p_a - log q_a), with 0 log 0 = 0.

    Args:
        logits_p, logits_q: unnormalised log-probabilities; -inf is an action that can not happen.
    Returns: nats; inf where p has mass and q has none.
    Raises: ShapeError: two shapes.  TypeError: NumPy against torch.
    Source: Cover & Thomas 2006, eq. 2.26.
    Oracle: oracles.statistics.kl_categorical.  Cost: O(size).
    """
    check_shapes(logits_p=logits_p, logits_q=logits_q)
    xp = namespace(logits_p, logits_q)
    logp, logq = _log_softmax(logits_p), _log_softmax(logits_q)
    p = xp.exp(logp)
    # masked before the product: p (-inf) would be NaN where p = 0, in the gradient too
    both = xp.where(p > 0, logp, 0.0) - xp.where(p > 0, logq, 0.0)
    return (p * both).sum(-1)


def kl_gaussian(
    mean_p: Float[Any, "... D"],
    std_p: Float[Any, "... D"],
    mean_q: Float[Any, "... D"],
    std_q: Float[Any, "... D"],
) -> Float[Any, "..."]:
    """KL(p || q) of Gaussians with diagonal covariance, summed over the last axis.

    sum_d (e^{2t} - 1) / 2 - t + z^2 / 2,  t = log std_p - log std_q,  z = (mean_p - mean_q) / std_q.

    Args:
        mean_p, mean_q: any finite numbers.
        std_p, std_q: standard deviations, positive, units of the means (not their logarithms).
    Returns: nats; exactly 0 for equal laws, NaN for a negative standard deviation.
    Raises: ShapeError: shapes differ.  TypeError: NumPy against torch.
    Source: Kullback 1959, ch. 9.
    Oracle: oracles.statistics.kl_gaussian (quadrature).  Cost: O(size).
    """
    check_shapes(mean_p=mean_p, std_p=std_p, mean_q=mean_q, std_q=std_q)
    xp = namespace(mean_p, std_p, mean_q, std_q)
    t = xp.log(std_p) - xp.log(std_q)
    z = (mean_p - mean_q) / std_q
    return (0.5 * xp.expm1(2.0 * t) - t + 0.5 * z * z).sum(-1)


def _log_softmax(logits: Any) -> Any:
    if namespace(logits) is torch:
        return torch.log_softmax(logits, dim=-1)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
