"""Tensors of random numbers, on the device that asks, from a NumPy or a torch generator."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dodona.algorithms._draws import is_torch


def uniforms(shape: tuple[int, ...], *, rng: Any, device: torch.device) -> Float[Tensor, "..."]:
    """Uniform in [0, 1), float64."""
    if is_torch(rng):
        drawn = torch.rand(shape, generator=rng, device=rng.device, dtype=torch.float64)
        return drawn.to(device)
    return torch.from_numpy(np.asarray(rng.random(shape))).to(device)


def normals(shape: tuple[int, ...], *, rng: Any, like: Tensor) -> Float[Tensor, "..."]:
    """Standard normal, of the dtype and on the device of ``like``."""
    if is_torch(rng):
        return torch.randn(shape, generator=rng, device=rng.device, dtype=like.dtype).to(
            like.device
        )
    return torch.from_numpy(np.asarray(rng.standard_normal(shape))).to(like)


def log_gammas(shape: tuple[int, ...], *, rng: Any, concentration: Tensor) -> Float[Tensor, "..."]:
    """The logarithm of gamma variables with these concentrations, float64.

    log G(a) = log G(a + 1) + log(U) / a, so that a small concentration can not underflow to 0.
    A torch generator seeds a NumPy one: torch has no public sampler that takes a generator.
    Source: Marsaglia & Tsang 2000, sec. 6.
    """
    if is_torch(rng):
        word = torch.randint(2**63 - 1, (1,), generator=rng, device=rng.device).item()
        rng = np.random.Generator(np.random.PCG64DXSM(int(word)))
    a = np.broadcast_to(concentration.detach().double().numpy(force=True), shape)
    above = np.log(rng.standard_gamma(a + 1.0))
    # 1 - u lies in (0, 1]
    below = np.log1p(-rng.random(shape)) / a
    return torch.from_numpy(np.asarray(above + below)).to(concentration.device)
