"""Laws of continuous actions: Gaussian, and two on a box, the squashed Gaussian and the Beta.

What is sampled, stored and scored is the **raw** sample, a real number that nothing has clipped. The
laws on a box carry the map from there to the action, ``squash(raw)``, and ``log_prob(raw)`` is the
log-density of the action that raw becomes, per unit of the action. So nothing is ever inverted: an
action so close to its bound that it rounds to it still has its exact, finite density and gradient.

    SquashedGaussian   action = low + (high - low) (1 + tanh raw) / 2
    Beta               action = low + (high - low) / (1 + exp(-raw))

Source: Haarnoja et al. 2018, arXiv:1801.01290, app. C (squashing); Chou, Maturana & Scherer 2017
(Beta policies). Not here: laws of discrete actions (discrete.py), the log-cosh integral (_log_cosh.py).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dodona.core.inputs import check_shapes
from dodona.core.protocols import Distribution
from dodona.errors import ShapeError
from dodona.policies._draws import log_gammas, normals
from dodona.policies._log_cosh import expected_log_cosh
from dodona.policies.discrete import check_event, check_family, drawn_shape

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
LOG_2 = math.log(2.0)
Bound = float | Float[Tensor, "D"]


class DiagonalGaussian:
    """D independent normal variables.

    log p(a) = - sum_d z_d^2 / 2 + log_std_d + log(2 pi) / 2,  z = (a - mean) / std.

    Args:
        mean: [..., D], units of the action.
        log_std: [..., D], or [D] for one deviation in all states.
    Raises: ShapeError: log_std does not fit.
    Source: Williams 1992, sec. 6.  Oracle: oracles.distributions.gaussian_law (quadrature).
    Cost: O(size).
    """

    def __init__(self, mean: Float[Tensor, "... D"], log_std: Float[Tensor, "... D"]):
        self.mean, self.log_std = mean, _as(log_std, mean)

    @property
    def std(self) -> Float[Tensor, "... D"]:
        return self.log_std.exp()

    @property
    def params(self) -> Float[Tensor, "... M"]:
        """Mean and log std side by side, M = 2 D."""
        return torch.cat([self.mean, self.log_std], dim=-1)

    def log_prob(self, actions: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Log-density, nats.  Raises: ShapeError."""
        check_event(actions, self.mean.shape)
        # times exp(-log_std): where std itself is 0 in floating point, 1 / std still is right
        z = (actions - self.mean) * (-self.log_std).exp()
        return -(0.5 * z * z + self.log_std + HALF_LOG_2PI).sum(-1)

    @torch.no_grad()
    def sample(self, *, rng: Any, num_samples: int | None = None) -> Float[Tensor, "... D"]:
        """mean + std times a standard normal, [..., D] or [num_samples, ..., D].  Raises: TypeError: rng."""
        shape = drawn_shape(num_samples, self.mean.shape)
        return self.mean + self.std * normals(shape, rng=rng, like=self.mean)

    def mode(self) -> Float[Tensor, "... D"]:
        return self.mean

    def entropy(self) -> Float[Tensor, "..."]:
        """sum_d log_std_d + log(2 pi e) / 2, nats."""
        return (self.log_std + HALF_LOG_2PI + 0.5).sum(-1)

    def kl(self, other: Distribution) -> Float[Tensor, "..."]:
        """KL(self || other), nats; exactly 0 for equal laws.  Raises: TypeError: another family.  ShapeError."""
        check_family(self, other)
        # core.kl_gaussian of log deviations, which neither overflow nor underflow
        t = self.log_std - other.log_std
        z = (self.mean - other.mean) * (-other.log_std).exp()
        return (0.5 * torch.expm1(2.0 * t) - t + 0.5 * z * z).sum(-1)

    def fisher_times(self, tangent: Float[Tensor, "... M"]) -> Float[Tensor, "... M"]:
        """1 / std^2 on the means, 2 on the log deviations.  Raises: ShapeError."""
        check_shapes(tangent=tangent, params=self.params)
        of_mean, of_log_std = tangent.chunk(2, dim=-1)
        return torch.cat([of_mean * (-2.0 * self.log_std).exp(), 2.0 * of_log_std], dim=-1)


class SquashedGaussian(DiagonalGaussian):
    """A Gaussian sent through tanh onto a box; actions are raw, see the module.

    log p = log N(raw) - sum_d [log(high_d - low_d) + log 2 - 2 (raw_d + softplus(-2 raw_d))],
    the bracket being log d action / d raw, without the cancellation of 1 - tanh^2 raw.
    Divergence and Fisher matrix are those of the Gaussian: a fixed map changes neither.

    Args:
        mean, log_std: of the raw variable.
        low, high: the box, numbers or [D], finite, units of the action.
    Raises: ShapeError.
    Source: Haarnoja et al. 2018, arXiv:1801.01290, app. C.
    Oracle: oracles.distributions.squashed_gaussian_law (quadrature).  Cost: O(size).
    """

    def __init__(
        self, mean: Float[Tensor, "... D"], log_std: Float[Tensor, "... D"], *, low: Bound = -1.0,
        high: Bound = 1.0,
    ):  # fmt: skip
        super().__init__(mean, log_std)
        self.low, self.width = _box(low, high, mean)

    def squash(self, raw: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """The actions, inside [low, high]."""
        return self.low + self.width * torch.sigmoid(2.0 * raw)  # (1 + tanh raw) / 2

    def log_prob(self, actions: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Log-density of squash(actions), nats, for raw actions.  Raises: ShapeError."""
        stretch = self.width.log() + LOG_2 - 2.0 * (actions + F.softplus(-2.0 * actions))
        return super().log_prob(actions) - stretch.sum(-1)

    def mode(self) -> Float[Tensor, "... D"]:
        """The raw mean, whose action is the median: the density itself may peak at the bounds."""
        return self.mean

    def entropy(self) -> Float[Tensor, "..."]:
        """Differential entropy of the action, nats; exact to 1e-9 (there is no closed form, see _log_cosh)."""
        stretch = self.width.log() - LOG_2 - 2.0 * expected_log_cosh(self.mean, self.log_std)
        return super().entropy() + stretch.sum(-1)


class Beta:
    """D independent Beta variables on a box; actions are raw, the logit of the place in the box.

    p(x) = x^(alpha - 1) (1 - x)^(beta - 1) / B(alpha, beta),  x = 1 / (1 + exp(-raw)).

    Args:
        alpha, beta: [..., D] concentrations > 0; above 1 the density has one peak, inside.
        low, high: the box, numbers or [D], finite, units of the action.
    Raises: ShapeError.
    Source: Chou, Maturana & Scherer 2017.  Oracle: oracles.distributions.beta_law (quadrature).
    Cost: O(size); gamma functions are taken in float64, where their differences cancel.
    """

    def __init__(
        self, alpha: Float[Tensor, "... D"], beta: Float[Tensor, "... D"], *, low: Bound = 0.0,
        high: Bound = 1.0,
    ):  # fmt: skip
        check_shapes(alpha=alpha, beta=beta)
        self.alpha, self.beta = alpha, beta
        self.low, self.width = _box(low, high, alpha)

    @property
    def params(self) -> Float[Tensor, "... M"]:
        """alpha and beta side by side, M = 2 D."""
        return torch.cat([self.alpha, self.beta], dim=-1)

    def squash(self, raw: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """The actions, inside [low, high]."""
        return self.low + self.width * torch.sigmoid(raw)

    def log_prob(self, actions: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Log-density of squash(actions), nats, for raw actions.  Raises: ShapeError."""
        check_event(actions, self.alpha.shape)
        powers = (self.alpha - 1.0) * F.logsigmoid(actions)
        powers = powers + (self.beta - 1.0) * F.logsigmoid(-actions)
        return (powers - self._log_beta().to(powers.dtype) - self.width.log()).sum(-1)

    @torch.no_grad()
    def sample(self, *, rng: Any, num_samples: int | None = None) -> Float[Tensor, "... D"]:
        """Raw: log of a gamma variable less log of another, exact at both ends.  Raises: TypeError: rng."""
        shape = drawn_shape(num_samples, self.alpha.shape)
        above = log_gammas(shape, rng=rng, concentration=self.alpha)
        return (above - log_gammas(shape, rng=rng, concentration=self.beta)).to(self.alpha.dtype)

    def mode(self) -> Float[Tensor, "... D"]:
        """Raw, where the density peaks; the mean where it has no single peak inside."""
        peaked = (self.alpha > 1) & (self.beta > 1)
        less = peaked.to(self.alpha.dtype)
        return (self.alpha - less).log() - (self.beta - less).log()

    def entropy(self) -> Float[Tensor, "..."]:
        """Differential entropy of the action, nats."""
        a, b = self.alpha.double(), self.beta.double()
        each = self._log_beta() + (a + b - 2.0) * torch.digamma(a + b)
        each = each - (a - 1.0) * torch.digamma(a) - (b - 1.0) * torch.digamma(b)
        return (each.to(self.alpha.dtype) + self.width.log()).sum(-1)

    def kl(self, other: Distribution) -> Float[Tensor, "..."]:
        """KL(self || other) of two laws on one box, nats.  Raises: TypeError: another family.  ShapeError."""
        check_family(self, other)
        a, b = self.alpha.double(), self.beta.double()
        more_a, more_b = a - other.alpha.double(), b - other.beta.double()
        each = other._log_beta() - self._log_beta() - (more_a + more_b) * torch.digamma(a + b)
        each = each + more_a * torch.digamma(a) + more_b * torch.digamma(b)
        return each.to(self.alpha.dtype).sum(-1)

    def fisher_times(self, tangent: Float[Tensor, "... M"]) -> Float[Tensor, "... M"]:
        """The Fisher matrix of (alpha, beta): trigamma of each less trigamma of their sum.  Raises: ShapeError."""
        check_shapes(tangent=tangent, params=self.params)
        of_alpha, of_beta = tangent.chunk(2, dim=-1)
        shared = _trigamma(self.alpha + self.beta) * (of_alpha + of_beta)
        return torch.cat(
            [_trigamma(self.alpha) * of_alpha - shared, _trigamma(self.beta) * of_beta - shared],
            dim=-1,
        )

    def _log_beta(self) -> Tensor:
        a, b = self.alpha.double(), self.beta.double()
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _trigamma(x: Tensor) -> Tensor:
    return torch.polygamma(1, x)


def _as(x: Tensor, like: Tensor) -> Tensor:
    """One deviation for all states, repeated."""
    if x.ndim == 1 and like.ndim > 1 and x.shape == like.shape[-1:]:
        return x.expand_as(like)
    check_shapes(mean=like, log_std=x)
    return x


def _box(low: Bound, high: Bound, like: Tensor) -> tuple[Tensor, Tensor]:
    """(low, high - low), each a number or [D]."""
    low, high = (torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in (low, high))
    for name, x in (("low", low), ("high", high)):
        if x.ndim and x.shape != like.shape[-1:]:
            raise ShapeError(
                f"{name} has shape {tuple(x.shape)}, a number or {tuple(like.shape[-1:])} is expected: one "
                "bound per coordinate of the action."
            )
    return low, (high - low).expand(like.shape[-1:])
