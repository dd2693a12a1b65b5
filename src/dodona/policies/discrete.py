"""Laws of discrete actions: one choice of many, several choices at once, several bits.

An action that can not be taken has logit -inf: it is never drawn, its log-probability is -inf, and it
adds nothing to entropy, divergence, Fisher matrix or any gradient. Nothing but ``sample`` reads values,
so everything else can be traced, vmapped and run without waiting for the device.
Not here: laws of continuous actions (continuous.py), policies (table.py, mlp.py).

Source: Sutton & Barto 2018, sec. 13.1 (softmax); Amari 1998 (Fisher).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from dodona.core.inputs import check_count, check_finite, check_shapes
from dodona.core.kl import kl_categorical
from dodona.core.protocols import Distribution
from dodona.errors import InputError, ShapeError
from dodona.policies._draws import uniforms

FEW = 32  # actions


class Categorical:
    """One of A actions: p_a = exp(logit_a) / sum_b exp(logit_b).

    Args: logits: [..., A], nats up to a constant; -inf where an action can not be taken, one at least can.
    Actions are int64 [...]; further axes in front are samples.
    Source: see the module.  Oracle: oracles.distributions.categorical_law (enumeration).  Cost: O(size).
    """

    def __init__(self, logits: Float[Tensor, "... A"]):
        self.logits = logits

    @cached_property
    def log_probs(self) -> Float[Tensor, "... A"]:
        """log p of every action, nats."""
        if self.logits.shape[-1] > FEW:
            return torch.log_softmax(self.logits, dim=-1)
        # across columns, which is several times faster than along rows of a few numbers
        return torch.log_softmax(self.logits.movedim(-1, 0), dim=0).movedim(0, -1)

    @property
    def probs(self) -> Float[Tensor, "... A"]:
        return self.log_probs.exp()

    @property
    def params(self) -> Float[Tensor, "... A"]:
        """The logits: what fisher_times is the metric of."""
        return self.logits

    def log_prob(self, actions: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """log p of these actions, nats.

        Raises: ShapeError.  InputError: an action outside 0..A-1.
        """
        check_event(actions, self.logits.shape[:-1])
        logp = self.log_probs.expand(*actions.shape, -1)
        try:
            return logp.gather(-1, actions[..., None])[..., 0]
        except (RuntimeError, IndexError):
            A = logp.shape[-1]
            outside = (actions < 0) | (actions >= A)
            if not outside.any():
                raise
            raise InputError(
                f"actions must be in 0..{A - 1}, got {actions[outside][0].item()}. Were they stored for "
                "another action set?"
            ) from None

    @torch.no_grad()
    def sample(self, *, rng: Any, num_samples: int | None = None) -> Int[Tensor, "..."]:
        """Actions, int64 [...] or [num_samples, ...]; one uniform each, by the inverse of the sum of p.

        Raises: NonFiniteError: a law that is NaN, or has no action that can be taken.  TypeError: rng.
        """
        p = self.probs.double()
        check_finite(probabilities=p)
        below = p.cumsum(-1)
        u = uniforms(drawn_shape(num_samples, p.shape[:-1]), rng=rng, device=p.device)
        # an impossible action leaves the sum as it was, so no level lies inside its step
        return (below <= (u * below[..., -1])[..., None]).sum(-1)

    def mode(self) -> Int[Tensor, "..."]:
        """The likeliest action, the first of equals."""
        return self.logits.argmax(-1)

    def entropy(self) -> Float[Tensor, "..."]:
        """- sum p log p, nats."""
        return -_expected(self.log_probs, self.log_probs).sum(-1)

    def kl(self, other: Distribution) -> Float[Tensor, "..."]:
        """KL(self || other), nats; inf where self has mass and other has none.

        Raises: TypeError: another family.  ShapeError.
        """
        check_family(self, other)
        return kl_categorical(self.logits, other.logits)

    def fisher_times(self, tangent: Float[Tensor, "... A"]) -> Float[Tensor, "... A"]:
        """(diag p - p p^T) tangent: the Fisher matrix of the logits.  Raises: ShapeError."""
        check_shapes(tangent=tangent, params=self.params)
        p = self.probs
        return p * (tangent - (p * tangent).sum(-1, keepdim=True))


class MultiCategorical:
    """Several independent choices at once: the product of categorical laws.

    Args:
        logits: [..., A_1 + ... + A_D], those of all choices side by side.
        sizes: (A_1, ..., A_D).
    Actions are int64 [..., D].
    Raises: ShapeError: sizes do not add up to the last axis.
    Source: Huang et al. 2022, "The 37 implementation details of PPO" (multi-discrete).
    Oracle: oracles.distributions.product_law (enumeration).  Cost: O(size).
    """

    def __init__(self, logits: Float[Tensor, "... M"], sizes: Sequence[int]):
        check_count(**{f"sizes[{i}]": size for i, size in enumerate(sizes)})
        if logits.shape[-1] != sum(sizes):
            raise ShapeError(
                f"logits have shape {tuple(logits.shape)} and sizes {tuple(sizes)} add up to {sum(sizes)}: "
                "the last axis holds the logits of all choices."
            )
        self.logits, self.sizes = logits, tuple(sizes)
        self.factors = tuple(Categorical(part) for part in logits.split(self.sizes, dim=-1))

    @property
    def params(self) -> Float[Tensor, "... M"]:
        return self.logits

    def log_prob(self, actions: Int[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Sum of the choices' log p, nats.  Raises: ShapeError.  InputError: a choice outside its range."""
        check_event(actions, (*self.logits.shape[:-1], len(self.sizes)))
        each = [law.log_prob(a) for law, a in zip(self.factors, actions.unbind(-1), strict=True)]
        return torch.stack(each).sum(0)

    def sample(self, *, rng: Any, num_samples: int | None = None) -> Int[Tensor, "... D"]:
        """As Categorical.sample, choice after choice.  Raises: as there."""
        return torch.stack([f.sample(rng=rng, num_samples=num_samples) for f in self.factors], -1)

    def mode(self) -> Int[Tensor, "... D"]:
        return torch.stack([law.mode() for law in self.factors], dim=-1)

    def entropy(self) -> Float[Tensor, "..."]:
        return torch.stack([law.entropy() for law in self.factors]).sum(0)

    def kl(self, other: Distribution) -> Float[Tensor, "..."]:
        """KL(self || other), nats.  Raises: TypeError, ShapeError: another family, other sizes."""
        check_family(self, other)
        pairs = zip(self.factors, other.factors, strict=True)
        return torch.stack([mine.kl(theirs) for mine, theirs in pairs]).sum(0)

    def fisher_times(self, tangent: Float[Tensor, "... M"]) -> Float[Tensor, "... M"]:
        """Block by block.  Raises: ShapeError."""
        check_shapes(tangent=tangent, params=self.params)
        pairs = zip(self.factors, tangent.split(self.sizes, dim=-1), strict=True)
        return torch.cat([law.fisher_times(part) for law, part in pairs], dim=-1)


class Bernoulli:
    """D independent bits: bit d is 1 with probability 1 / (1 + exp(-logit_d)).

    Args: logits: [..., D], log odds; -inf or inf for a bit that can not change.
    Actions are [..., D], 0 or 1, int64 or bool.
    Source: Cox 1958.  Oracle: oracles.distributions.product_law (enumeration).  Cost: O(size).
    """

    def __init__(self, logits: Float[Tensor, "... D"]):
        self.logits = logits

    @cached_property
    def log_probs(self) -> Float[Tensor, "... D 2"]:
        """log p of 0 and of 1."""
        return torch.stack([F.logsigmoid(-self.logits), F.logsigmoid(self.logits)], dim=-1)

    @property
    def params(self) -> Float[Tensor, "... D"]:
        return self.logits

    def log_prob(self, actions: Shaped[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Sum over bits, nats.  Raises: ShapeError."""
        check_event(actions, self.logits.shape)
        off, on = self.log_probs.unbind(-1)
        return torch.where(actions != 0, on, off).sum(-1)

    @torch.no_grad()
    def sample(self, *, rng: Any, num_samples: int | None = None) -> Int[Tensor, "... D"]:
        """int64 [..., D] or [num_samples, ..., D]; one uniform per bit.  Raises: NonFiniteError: NaN."""
        p = torch.sigmoid(self.logits.double())
        check_finite(probabilities=p)
        return (uniforms(drawn_shape(num_samples, p.shape), rng=rng, device=p.device) < p).long()

    def mode(self) -> Int[Tensor, "... D"]:
        return (self.logits > 0).long()

    def entropy(self) -> Float[Tensor, "..."]:
        return -_expected(self.log_probs, self.log_probs).sum((-2, -1))

    def kl(self, other: Distribution) -> Float[Tensor, "..."]:
        """KL(self || other), nats.  Raises: TypeError: another family.  ShapeError."""
        check_family(self, other)
        p, q = self.log_probs, other.log_probs
        return _expected(p, p - q).sum((-2, -1))

    def fisher_times(self, tangent: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """p (1 - p) tangent: the Fisher matrix of the logits.  Raises: ShapeError."""
        check_shapes(tangent=tangent, params=self.params)
        return torch.sigmoid(self.logits) * torch.sigmoid(-self.logits) * tangent


def check_family(law: Any, other: Any) -> None:
    """Divergences compare laws of one family and one shape.

    Raises: TypeError: another family.  ShapeError: another shape.
    """
    if type(other) is not type(law):
        raise TypeError(
            f"kl compares two laws of one family, got {type(law).__name__} and {type(other).__name__}."
        )
    check_shapes(params=law.params, other_params=other.params)


def check_event(actions: Tensor, shape: tuple[int, ...]) -> None:
    """Actions have the shape of the law, perhaps with axes of samples in front.  Raises: ShapeError."""
    expected = tuple(shape)
    if tuple(actions.shape[actions.ndim - len(expected) :]) != expected:
        raise ShapeError(
            f"actions have shape {tuple(actions.shape)} and the law is one of actions of shape {expected}: "
            "the last axes must be these."
        )


def drawn_shape(num_samples: int | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    check_count(num_samples=num_samples)
    return tuple(shape) if num_samples is None else (num_samples, *shape)


def _expected(logp: Tensor, x: Tensor) -> Tensor:
    """p x, and 0 where p is 0. Masked before the product: 0 (-inf) would be NaN, in the gradient too."""
    p = logp.exp()
    return p * torch.where(p > 0, x, 0.0)
