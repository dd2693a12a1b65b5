"""The law of the radius of a uniform point, derived in code: density, distribution, inverse.

pdf (how long is a ring?), cdf (how much area lies within?), ppf (within which radius lies this share
of the area?): three steps of the inverse transform, for disc, annulus, ball and shell at once.

Source: Devroye, Non-Uniform Random Variate Generation, 1986, th. II.2.1 and sec. V.4.
Not here: drawing (disc.py).
"""

from typing import Any

import numpy as np

from dodona.core.inputs import check_count, check_range
from dodona.core.shapes import FloatArray
from dodona.errors import InputError


def disc_radius_pdf(
    r: Any, *, radius: float = 1.0, r_in: float = 0.0, dim: int = 2
) -> FloatArray | float:
    """Density of the radius of a uniform point: step 1 of the inverse transform.

    Uniform means density 1 / (pi R^2) on the disc. The ring between r and r + dr has the area
    2 pi r dr, so f(r) = 2 pi r / (pi R^2) = 2 r / R^2 on [0, R]: far rings are longer, and the radius
    is not uniform. In d dimensions, with a hole: f(r) = d r^(d-1) / (R^d - r_in^d) on [r_in, R].

    Args: r: any shape; the density is 0 outside [r_in, R].  r_in: < radius.  dim: d >= 1.
    Raises: InputError: radii out of range or equal, dim < 1.
    Source: Devroye 1986, sec. V.4.  Oracle: the ring's area by quadrature.

    >>> float(disc_radius_pdf(1.0, radius=2.0))
    0.5
    """
    q = _law(radius, r_in, dim)
    if q == 1.0:
        raise InputError(f"the radius has no density where r_in equals radius ({radius}).")
    s = np.asarray(r, dtype=np.float64) / radius
    inside = (s >= q) & (s <= 1)
    return np.where(inside, dim * np.abs(s) ** (dim - 1) / (1 - q**dim), 0.0) / radius


def disc_radius_cdf(
    r: Any, *, radius: float = 1.0, r_in: float = 0.0, dim: int = 2
) -> FloatArray | float:
    """P(|z| <= r), the integral of the density: step 2 of the inverse transform.

    F(r) = int_0^r 2 s / R^2 ds = r^2 / R^2, the share of the area within r. In d dimensions, with a
    hole: (r^d - r_in^d) / (R^d - r_in^d). F(|z|) is uniform on [0, 1], which is what ks_uniform tests.

    Args, Raises: as disc_radius_pdf, r_in < radius.
    Source: Devroye 1986, sec. II.2.  Oracle: quadrature of the density.

    >>> float(disc_radius_cdf(1.0, radius=2.0))
    0.25
    """
    q = _law(radius, r_in, dim)
    if q == 1.0:
        return np.where(np.asarray(r, dtype=np.float64) >= radius, 1.0, 0.0)
    s = np.clip(np.asarray(r, dtype=np.float64) / radius, q, 1.0)
    return (s**dim - q**dim) / (1 - q**dim)


def disc_radius_ppf(
    u: Any, *, radius: float = 1.0, r_in: float = 0.0, dim: int = 2
) -> FloatArray | float:
    """The radius below which the share u of all points lies: step 3 of the inverse transform.

    F(r) = u solved for r: R sqrt(u), because P(R sqrt(U) <= r) = P(U <= r^2 / R^2) = F(r). In d
    dimensions, with a hole: (r_in^d + u (R^d - r_in^d))^(1/d).

    Args: u: in [0, 1], any shape; the rest as disc_radius_pdf.
    Raises: InputError: u outside [0, 1] or NaN; radii, dim as disc_radius_pdf.
    Source: Devroye 1986, th. II.2.1.  Oracle: F(ppf(u)) = u.

    >>> float(disc_radius_ppf(0.25, radius=2.0))
    1.0
    """
    q = _law(radius, r_in, dim)
    check_range("[0, 1]", u=u)
    u = np.asarray(u, dtype=np.float64)
    r = radius * (q**dim + u * (1 - q**dim)) ** (1.0 / dim)
    return np.clip(r, r_in, radius)  # the power of a tiny hole is zero


def inner_share(r_in: float, radius: float, *, outer: str = "radius") -> float:
    """The radius of a hole in units of the outer one.

    Raises: InputError: radius not in (0, inf), r_in not in [0, radius]; both are named.
    """
    check_range("(0, inf)", **{outer: radius})
    if not 0 <= r_in <= radius:
        raise InputError(f"r_in must be in [0, {outer}], got r_in {r_in} and {outer} {radius}.")
    return r_in / radius


# ---------------------------------------------------------------------- private
def _law(radius: float, r_in: float, dim: int) -> float:
    check_count(dim=dim)
    return inner_share(r_in, radius)
