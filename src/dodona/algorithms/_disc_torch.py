"""The maps of disc and ball sampling on torch tensors, for points that are needed on a device.

The formulas are those of _disc_kernels.py, in float64 on the generator's device. A block of points
draws its numbers together, so unlike there the first points depend on how many are asked for.
"""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def disc(num: int, method: str, *, rng: Generator) -> Float[Tensor, "num 2"]:
    """Points of the unit disc by one of the methods of disc.sample_disc."""
    if method == "rejection":
        return _cube_rejection(num, 2, rng=rng)
    if method == "gauss":
        return ball(num, 2, "radial", 0.0, rng=rng)
    if method == "sqrt":
        return ring(num, 0.0, 0.0, 1.0, rng=rng)
    if method == "concentric":
        a, b = (2.0 * _uniform(num, 2, rng=rng) - 1.0).unbind(dim=1)
        wide = a.abs() >= b.abs()
        r, other = torch.where(wide, a, b), torch.where(wide, b, a)
        eighth = 0.125 * other / torch.where(r == 0, 1.0, r)
        return _plane(r, torch.where(wide, eighth, 0.25 - eighth))
    if method == "naive":  # wrong on purpose
        return _plane(*_uniform(num, 2, rng=rng).unbind(dim=1))
    first, second, turn = _uniform(num, 3, rng=rng).unbind(dim=1)
    if method == "max":
        return _plane(torch.maximum(first, second), turn)
    total = first + second  # triangle
    return _plane(torch.minimum(total, 2.0 - total), turn)


def ring(
    num: int, inner: float, first_turn: float, turns: float, *, rng: Generator
) -> Float[Tensor, "num 2"]:
    """Points with radius in [inner, 1] on the sector that begins at first_turn and spans turns."""
    share, turn = _uniform(num, 2, rng=rng).unbind(dim=1)
    return _plane((inner**2 + (1.0 - inner**2) * share).sqrt(), first_turn + turns * turn)


def ball(
    num: int, dim: int, method: str, inner: float, *, rng: Generator
) -> Float[Tensor, "num dim"]:
    """Points of the unit ball, or of the shell [inner, 1] by ``radial``."""
    if method == "rejection":
        return _cube_rejection(num, dim, rng=rng)
    if method == "dropped":
        return directions(num, dim + 2, rng=rng)[:, :dim]
    share = _uniform(num, 1, rng=rng)
    radii = (inner**dim + (1.0 - inner**dim) * share) ** (1.0 / dim)
    return radii * directions(num, dim, rng=rng)


def directions(num: int, dim: int, *, rng: Generator) -> Float[Tensor, "num dim"]:
    """Points of the unit sphere."""
    g = torch.randn(num, dim, generator=rng, device=rng.device, dtype=torch.float64)
    return g / torch.linalg.vector_norm(g, dim=1, keepdim=True)


def placed(
    points: Float[Tensor, "num 2"], radius: float, center: tuple[float, float], dtype: str
) -> Float[Tensor, "num 2"]:
    """center + radius points, in place, cast last."""
    return points.mul_(radius).add_(points.new_tensor(center)).to(getattr(torch, dtype))


# ---------------------------------------------------------------------- private
def _uniform(num: int, columns: int, *, rng: Generator) -> Tensor:
    return torch.rand(num, columns, generator=rng, device=rng.device, dtype=torch.float64)


def _plane(r: Tensor, turn: Tensor) -> Tensor:
    angle = math.tau * turn
    return torch.stack([r * torch.cos(angle), r * torch.sin(angle)], dim=1)


def _cube_rejection(num: int, dim: int, *, rng: Generator) -> Tensor:
    """Every round draws as many candidates as points are missing: never one too many."""
    kept, missing = [], num
    while missing > 0:
        x = 2.0 * _uniform(missing, dim, rng=rng) - 1.0
        kept.append(x[x.square().sum(dim=1) <= 1.0])
        missing -= len(kept[-1])
    return torch.cat(kept) if kept else _uniform(0, dim, rng=rng)
