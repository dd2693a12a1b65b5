"""A normal law whose components depend on each other: what a diagonal Gaussian leaves out.

Source: Barndorff-Nielsen 1978 (the multivariate normal).  Not here: independent components, which is what
nearly everybody trains (continuous.py); laws on a box.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dodona.core.protocols import Distribution
from dodona.errors import ShapeError
from dodona.policies._draws import normals
from dodona.policies.continuous import HALF_LOG_2PI
from dodona.policies.discrete import check_event, check_family, drawn_shape


class CorrelatedGaussian:
    """D normal variables with covariance L L^T.

    log p(a) = - |z|^2 / 2 - sum_d log L_dd - D log(2 pi) / 2,  z = L^{-1} (a - mean).

    Args:
        mean: [..., D], units of the action.
        scale: L, [D, D] for one covariance in all states or [..., D, D]; lower triangular, its diagonal > 0.
    Raises: ShapeError: scale does not fit.
    Source: see the module.  Oracle: torch.distributions.MultivariateNormal (tests).  Cost: O(D^2) per row.
    """

    def __init__(self, mean: Float[Tensor, "... D"], scale: Float[Tensor, "*rows D D"]):
        D = mean.shape[-1]
        if scale.shape[-2:] != (D, D) or scale.shape[:-2] not in ((), mean.shape[:-1]):
            raise ShapeError(
                f"scale has shape {tuple(scale.shape)} and mean has shape {tuple(mean.shape)}: [D, D] or "
                "[..., D, D] is expected."
            )
        self.mean, self.scale = mean, scale

    @property
    def params(self) -> Float[Tensor, "... M"]:
        """Mean and L side by side, M = D + D^2."""
        scale = self.scale.expand(*self.mean.shape, self.mean.shape[-1])
        return torch.cat([self.mean, scale.flatten(-2)], dim=-1)

    def log_prob(self, actions: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
        """Log-density, nats.  Raises: ShapeError."""
        check_event(actions, self.mean.shape)
        z = self._solve(actions - self.mean)
        return -(0.5 * z * z + HALF_LOG_2PI).sum(-1) - self._log_volume()

    @torch.no_grad()
    def sample(self, *, rng: Any, num_samples: int | None = None) -> Float[Tensor, "... D"]:
        """mean + L times standard normals, [..., D] or [num_samples, ..., D].  Raises: TypeError: rng."""
        z = normals(drawn_shape(num_samples, self.mean.shape), rng=rng, like=self.mean)
        return self.mean + (self.scale @ z[..., None])[..., 0]

    def mode(self) -> Float[Tensor, "... D"]:
        return self.mean

    def entropy(self) -> Float[Tensor, "..."]:
        """D (1 + log(2 pi)) / 2 + sum_d log L_dd, nats."""
        constant = self.mean.shape[-1] * (0.5 + HALF_LOG_2PI)
        return (constant + self._log_volume()).expand(self.mean.shape[:-1])

    def kl(self, other: Distribution) -> Float[Tensor, "..."]:
        """KL(self || other), nats.  Raises: TypeError: another family.  ShapeError."""
        check_family(self, other)
        assert isinstance(other, CorrelatedGaussian)
        apart = other._solve(self.mean - other.mean)
        spread = torch.linalg.solve_triangular(other.scale, self.scale, upper=False)
        trace = (spread * spread).sum((-2, -1))
        D = self.mean.shape[-1]
        return 0.5 * (trace + (apart * apart).sum(-1) - D) + other._log_volume() - self._log_volume()  # fmt: skip

    def _solve(self, x: Tensor) -> Tensor:
        """L^{-1} x."""
        return torch.linalg.solve_triangular(self.scale, x[..., None], upper=False)[..., 0]

    def _log_volume(self) -> Tensor:
        return self.scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
