"""Uniform random points in a disc, annulus, sector, ball, shell, ellipsoid, and on a sphere.

Six exact ways for the disc, by name, and the popular wrong one (``naive``), which tests must reject.
Why r = R sqrt(U): radius_law.py derives it, density, distribution, inverse.
A NumPy generator gives NumPy arrays at near the speed of its raw numbers; a torch generator gives
tensors on its device.

Source: LeetCode 478; von Neumann 1951 (rejection); Devroye, Non-Uniform Random Variate Generation,
1986, ch. II and V.4; Shirley & Chiu 1997 (concentric map); Harman & Lacko 2010 (dropped coordinates).
Not here: low-discrepancy points (bring your own square points to ``concentric_map``), and laws other
than the uniform one (``rejection_sample``, re-exported from rejection.py).
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from dodona.algorithms import _disc_kernels as kernels
from dodona.algorithms._draws import is_torch
from dodona.algorithms.policy_sampling import speculative_sample, tilted_sample
from dodona.algorithms.radius_law import (
    disc_radius_cdf,
    disc_radius_pdf,
    disc_radius_ppf,
    inner_share,
)
from dodona.algorithms.rejection import RejectionStats, rejection_sample
from dodona.algorithms.uniformity import UniformityTest, chi2_cells, ks_uniform
from dodona.core.inputs import check_choice, check_count, check_range
from dodona.core.shapes import FloatArray
from dodona.errors import InputError, ShapeError

__all__ = [
    "BALL_METHODS", "DISC_METHODS", "RejectionStats", "UniformityTest", "chi2_cells", "concentric_map",
    "disc_radius_cdf", "disc_radius_pdf", "disc_radius_ppf", "ks_uniform", "rejection_sample",
    "sample_annulus", "sample_ball", "sample_disc", "sample_ellipsoid", "sample_sphere",
    "speculative_sample", "tilted_sample",
]  # fmt: skip

DiscMethod = Literal["sqrt", "rejection", "max", "triangle", "gauss", "concentric", "naive"]
BallMethod = Literal["radial", "rejection", "dropped"]
DISC_METHODS = tuple(m for m in get_args(DiscMethod) if m != "naive")
"""The exact ways; ``naive`` is a seventh name that is biased."""
BALL_METHODS = get_args(BallMethod)
LARGEST_REJECTION_DIM = 8  # there the ball fills 1.6 % of its cube; at 10 it is 0.25 %
_LAWS = {
    "sqrt": kernels.SQRT,
    "max": kernels.MAX,
    "triangle": kernels.TRIANGLE,
    "concentric": kernels.CONCENTRIC,
    "naive": kernels.NAIVE,
}


def sample_disc(
    num_samples: int, *, radius: float = 1.0, center: Sequence[float] | FloatArray = (0.0, 0.0),
    method: DiscMethod = "sqrt", rng: Any, dtype: Any = "float64",
) -> Float[Any, "num_samples 2"]:  # fmt: skip
    """Uniform points in the closed disc |z - center| <= radius.

    U, U1, U2 uniform on [0, 1), angle t = 2 pi U:

    - ``sqrt``: r = R sqrt(U1), the inverse of F(r) = r^2 / R^2. Two uniforms a point, always.
    - ``rejection``: points of the square [-R, R]^2 until one is in the disc. 8 / pi = 2.546 uniforms
      on average, no sine, no root.
    - ``max``: r = R max(U1, U2), because P(max <= s) = s^2. Three uniforms, no root.
    - ``triangle``: s = U1 + U2, r = R min(s, 2 - s): folding the sum gives the density 2 s.
    - ``gauss``: direction g / |g| of two normals, r = R sqrt(U). The one that works in any dimension.
    - ``concentric``: the area-preserving map of the square, see concentric_map.
    - ``naive``: r = R U. BIASED, kept to be caught: half of the points fall into the inner quarter of
      the area, the density 1 / (2 pi R |z|) is unbounded at the centre.

    Args:
        num_samples: number of points, >= 0.
        radius: R > 0, any unit.
        center: two numbers, same unit.
        rng: numpy.random.Generator or torch.Generator.
        dtype: float64, or float32: drawn in float64 and rounded last, because 24-bit uniforms have
            no radius between 0 and R / 4096.
    Returns:
        Points; |z - center| <= R (1 + 4 eps) before the centre is added. From a NumPy generator the
        first k of n points are the points of a call for k, and a second call continues the first.
    Raises:
        InputError: radius not in (0, inf), center not finite, unknown method or dtype, n < 0.
        TypeError: num_samples is no integer, rng no generator.
    Source: Devroye 1986, sec. V.4; Shirley & Chiu 1997.
    Oracle: oracles.sampling.disc_by_definition (the formulas on the same stream), exact laws.
    Cost: O(num_samples), memory of the result only.
    """
    check_count(0, num_samples=num_samples)
    check_range("(0, inf)", radius=radius)
    check_choice(get_args(DiscMethod), method=method)
    x, y = _center(center)
    radius, dtype = float(radius), _dtype(dtype)
    if is_torch(rng):
        from dodona.algorithms import _disc_torch

        points = _disc_torch.disc(num_samples, method, rng=rng)
        return _disc_torch.placed(points, radius, (x, y), dtype)
    out = np.empty((num_samples, 2), dtype=dtype)
    if method == "rejection":
        kernels.square_rejection(rng, radius, x, y, out)
    elif method == "gauss":
        normal = out if (x, y) == (0.0, 0.0) else np.empty((num_samples, 2))
        kernels.radial_points(rng, 0.0, radius, False, normal)
        if normal is not out:
            np.add(normal, (x, y), out=out, casting="same_kind")
    else:
        kernels.polar_points(rng, _LAWS[method], 0.0, 0.0, 1.0, radius, x, y, out)
    return out


def sample_annulus(
    num_samples: int, *, r_in: float, r_out: float, sector_rad: tuple[float, float] = (0.0, math.tau),
    rng: Any,
) -> Float[Any, "num_samples 2"]:  # fmt: skip
    """Uniform points between two circles around 0, or in a sector of that ring.

    r = sqrt(r_in^2 + U (r_out^2 - r_in^2)): the area up to r is uniform.  t uniform on the sector.

    Args:
        r_in, r_out: 0 <= r_in <= r_out; equal radii give the circle, r_in = 0 the disc.
        sector_rad: first and last angle, radians from the x axis, at most a full turn apart.
        rng: numpy.random.Generator or torch.Generator.
    Raises:
        InputError: r_in > r_out or out of range (both are named), an empty or too wide sector.
    Source: Devroye 1986, sec. V.4.
    Oracle: oracles.sampling.disc_by_definition, exact laws.  Cost: as sample_disc.
    """
    check_count(0, num_samples=num_samples)
    inner = inner_share(r_in, r_out, outer="r_out")
    first, last = float(sector_rad[0]), float(sector_rad[1])
    if not (math.isfinite(first) and 0 < last - first <= math.tau * (1 + 1e-15)):
        raise InputError(
            f"sector_rad must be (first, last) with 0 < last - first <= 2 pi, got ({first}, {last})."
        )
    turn, turns = first / math.tau % 1.0, (last - first) / math.tau
    if is_torch(rng):
        from dodona.algorithms import _disc_torch

        points = _disc_torch.ring(num_samples, inner, turn, turns, rng=rng)
        return _disc_torch.placed(points, r_out, (0.0, 0.0), "float64")
    out = np.empty((num_samples, 2))
    kernels.polar_points(rng, kernels.SQRT, inner, turn, turns, float(r_out), 0.0, 0.0, out)
    return out


def sample_ball(
    num_samples: int, dim: int, *, radius: float = 1.0, r_in: float = 0.0,
    method: BallMethod = "radial", force: bool = False, rng: Any,
) -> Float[Any, "num_samples dim"]:  # fmt: skip
    """Uniform points in the closed ball of ``dim`` dimensions around 0, or in a shell of it.

    - ``radial``: direction g / |g|, g ~ N(0, I), and r^d = r_in^d + U (R^d - r_in^d): d + 1 numbers.
    - ``dropped``: a point on the unit sphere of d + 2 dimensions without its last two coordinates.
    - ``rejection``: points of the cube until one is in the ball. The share that is, pi^(d/2) /
      (Gamma(d/2 + 1) 2^d), falls faster than exponentially: .785, .524, .308, .164 for d = 2..5.

    Args:
        dim: d >= 1.
        radius: R > 0.
        r_in: inner radius of a shell, 0 <= r_in <= R; above 0 for ``radial`` only.
        force: let ``rejection`` run above 8 dimensions.
        rng: numpy.random.Generator or torch.Generator.
    Returns: points, in the order of the stream as sample_disc.
    Raises: InputError: radii out of range, dim < 1, rejection above 8 dimensions (its acceptance is
        named), a shell by another method.
    Source: Harman & Lacko 2010 (dropped); Devroye 1986, sec. V.4.
    Oracle: exact laws of (r / R)^d, of one coordinate, of the acceptance in oracles.sampling.
    Cost: O(num_samples dim); rejection O(num_samples dim / acceptance).
    """
    check_count(0, num_samples=num_samples)
    check_count(dim=dim)
    check_choice(BALL_METHODS, method=method)
    inner = inner_share(r_in, radius)
    if r_in > 0 and method != "radial":
        raise InputError(f"a shell (r_in {r_in}) needs method 'radial', got '{method}'.")
    if method == "rejection" and dim > LARGEST_REJECTION_DIM and not force:
        acceptance = math.exp(dim / 2 * math.log(math.pi / 4) - math.lgamma(dim / 2 + 1))
        raise InputError(
            f"rejection in {dim} dimensions accepts {acceptance:.3g} of its trials, about "
            f"{1 / acceptance:.2g} per point; it is refused above {LARGEST_REJECTION_DIM}. "
            "Use method='radial', or force=True."
        )
    if is_torch(rng):
        from dodona.algorithms import _disc_torch

        return radius * _disc_torch.ball(num_samples, dim, method, inner, rng=rng)
    radius, out = float(radius), np.empty((num_samples, dim))
    if method == "rejection":
        kernels.cube_rejection(rng, radius, out)
    elif method == "dropped":
        kernels.dropped_points(rng, radius, out)
    else:
        kernels.radial_points(rng, inner, radius, False, out)
    return out


def sample_sphere(
    num_samples: int, dim: int, *, radius: float = 1.0, rng: Any
) -> Float[Any, "num_samples dim"]:
    """Uniform points on the sphere |x| = radius in ``dim`` dimensions: radius g / |g|, g ~ N(0, I).

    Args: dim: of the space, >= 1; 2 is the circle, 1 the two ends of an interval.
    Raises: InputError: dim < 1, radius not in (0, inf).
    Source: Muller 1959; Marsaglia 1972.
    Oracle: exact law of one coordinate in oracles.sampling.  Cost: O(num_samples dim).
    """
    check_count(0, num_samples=num_samples)
    check_count(dim=dim)
    check_range("(0, inf)", radius=radius)
    if is_torch(rng):
        from dodona.algorithms import _disc_torch

        return radius * _disc_torch.directions(num_samples, dim, rng=rng)
    out = np.empty((num_samples, dim))
    kernels.radial_points(rng, 0.0, float(radius), True, out)
    return out


def sample_ellipsoid(
    num_samples: int, A: FloatArray, *, center: Sequence[float] | FloatArray | None = None, rng: Any
) -> Float[Any, "num_samples dim"]:
    """Uniform points in the ellipsoid center + A ball: an affine map keeps the uniform law uniform.

    Args:
        A: [dim, dim], invertible; its columns are where the unit axes go. |det A| is the ratio of
            volumes.
        center: [dim], default 0.
    Raises:
        ShapeError: A is not square, or center does not fit.
        InputError: A singular (its image is flat and has no density) or not finite.
    Source: change of variables.
    Oracle: A^-1 (x - center) is uniform in the ball.  Cost: O(num_samples dim^2).
    """
    A = np.asarray(A, dtype=np.float64)
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape[0] < 1:
        raise ShapeError(f"A must be a square matrix [dim, dim], got shape {A.shape}.")
    dim = len(A)
    check_range("(-inf, inf)", A=A)
    if np.linalg.matrix_rank(A) < dim:
        raise InputError(
            f"A must be invertible, got rank {np.linalg.matrix_rank(A)} of {dim}: the image is flat. "
            "Sample the ball of that rank and map it yourself."
        )
    shift = np.zeros(dim) if center is None else np.asarray(center, dtype=np.float64)
    if shift.shape != (dim,):
        raise ShapeError(f"center must have shape ({dim},) to fit A, got {shift.shape}.")
    check_range("(-inf, inf)", center=shift)
    ball = sample_ball(num_samples, dim, rng=rng)
    if is_torch(rng):
        return ball @ ball.new_tensor(A).T + ball.new_tensor(shift)
    return ball @ A.T + shift


def concentric_map(
    square: Float[np.ndarray, "num_samples 2"], *, radius: float = 1.0
) -> Float[np.ndarray, "num_samples 2"]:
    """The area-preserving map of the square [-1, 1]^2 onto the disc, square rings onto circles.

    |a| >= |b|: r = a, t = (pi / 4) b / a; otherwise r = b, t = pi / 2 - (pi / 4) a / b; 0 -> 0.
    Stratified or low-discrepancy points stay stratified: neighbours stay neighbours.

    Args: square: points with both coordinates in [-1, 1].
    Raises: InputError: a point outside the square (the first is named), radius not in (0, inf).
    Source: Shirley & Chiu 1997.
    Oracle: oracles.sampling.disc_by_definition.  Cost: O(num_samples).
    """
    check_range("(0, inf)", radius=radius)
    square = np.ascontiguousarray(square, dtype=np.float64)
    outside = ~(np.abs(square) <= 1).all(axis=1)
    if outside.any():
        i = int(outside.argmax())
        raise InputError(f"point {i} must lie in [-1, 1]^2, got {square[i].tolist()}.")
    out = np.empty_like(square)
    kernels.concentric_points(square, float(radius), out)
    return out


# ---------------------------------------------------------------------- private
def _center(center: Any) -> tuple[float, float]:
    c = np.asarray(center, dtype=np.float64)
    if c.shape != (2,):
        raise ShapeError(f"center must be two numbers (x, y), got shape {c.shape}.")
    check_range("(-inf, inf)", center=c)
    return float(c[0]), float(c[1])


def _dtype(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.") if "torch" in str(dtype) else np.dtype(dtype).name
    check_choice(("float64", "float32"), dtype=name)
    return name
