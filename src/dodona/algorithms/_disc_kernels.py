"""The inner loops of disc and ball sampling, compiled by Numba: draw and map in one pass.

Every kernel takes the caller's NumPy generator and uses its numbers point by point, in order. So the
first k of n points are the k points that a smaller call gives, and a call continues where the one
before it stopped: nothing is drawn ahead and thrown away.

Polar maps work on blocks that stay in the first-level cache: numbers are drawn one by one (that is
what the generator can do), the map runs on whole vector registers. Sine and cosine of a fraction of
a turn are Taylor sums on [-pi/4, pi/4]; there the first term left out is below 1e-16 of the result.

Not here: meaning and input checks. Those are in disc.py.
"""

import math

import numpy as np
from numba import njit

BLOCK = 1024  # points; two scratch columns of it take 16 kB
SQRT, MAX, TRIANGLE, CONCENTRIC, NAIVE = range(5)
TURN = 2 * math.pi


@njit(cache=True, error_model="numpy")
def polar_points(rng, law, inner, first_turn, turns, radius, center_x, center_y, out):
    """Points center + radius (r cos t, r sin t) with r in [inner, 1] by ``law``.

    t is uniform on the sector that begins at ``first_turn`` and spans ``turns`` (1 = all around);
    the concentric law has an angle of its own. inner > 0 is for SQRT only.
    """
    r = np.empty(BLOCK)
    turn = np.empty(BLOCK)
    for first in range(0, len(out), BLOCK):
        num = min(BLOCK, len(out) - first)
        _draw(rng, law, inner, first_turn, turns, r[:num], turn[:num])
        _to_plane(r[:num], turn[:num])
        for i in range(num):
            out[first + i, 0] = center_x + radius * r[i]
            out[first + i, 1] = center_y + radius * turn[i]


@njit(cache=True, error_model="numpy")
def concentric_points(square, radius, out):
    """The concentric map of given points of [-1, 1]^2."""
    r = np.empty(BLOCK)
    turn = np.empty(BLOCK)
    for first in range(0, len(out), BLOCK):
        num = min(BLOCK, len(out) - first)
        r[:num] = square[first : first + num, 0]
        turn[:num] = square[first : first + num, 1]
        _concentric(r[:num], turn[:num])
        _to_plane(r[:num], turn[:num])
        for i in range(num):
            out[first + i, 0] = radius * r[i]
            out[first + i, 1] = radius * turn[i]


@njit(cache=True)
def square_rejection(rng, radius, center_x, center_y, out):
    """Points of the square until ``out`` is full of those in the disc; returns the trials."""
    kept, trials = 0, 0
    while kept < len(out):
        x = 2.0 * rng.random() - 1.0
        y = 2.0 * rng.random() - 1.0
        # written in any case and overwritten after a rejection: no branch to mispredict
        out[kept, 0] = center_x + radius * x
        out[kept, 1] = center_y + radius * y
        kept += x * x + y * y <= 1.0
        trials += 1
    return trials


@njit(cache=True)
def cube_rejection(rng, radius, out):
    """Points of the cube until ``out`` is full of those in the ball; returns the trials."""
    num, dim = out.shape
    kept, trials = 0, 0
    while kept < num:
        square = 0.0
        for j in range(dim):
            x = 2.0 * rng.random() - 1.0
            square += x * x
            out[kept, j] = radius * x
        kept += square <= 1.0
        trials += 1
    return trials


@njit(cache=True, error_model="numpy")
def radial_points(rng, inner, radius, surface, out):
    """Normal directions g / |g| times a radius; ``surface``: the radius of every point is ``radius``.

    Otherwise (r / radius)^dim is uniform on [inner^dim, 1].
    """
    num, dim = out.shape
    hole = inner**dim
    g = np.empty(dim)
    for i in range(num):
        square = 0.0
        while square == 0.0:  # no direction: almost never
            square = 0.0
            for j in range(dim):
                g[j] = rng.standard_normal()
                square += g[j] * g[j]
        length = radius / math.sqrt(square)
        if not surface:
            share = hole + (1.0 - hole) * rng.random()
            if dim == 2:
                length *= math.sqrt(share)
            else:
                length *= share ** (1.0 / dim)
        for j in range(dim):
            out[i, j] = length * g[j]


@njit(cache=True, error_model="numpy")
def dropped_points(rng, radius, out):
    """The first dim coordinates of a uniform point on the unit sphere of dim + 2 dimensions."""
    num, dim = out.shape
    g = np.empty(dim)
    for i in range(num):
        square = 0.0
        while square == 0.0:
            for j in range(dim):
                g[j] = rng.standard_normal()
                square += g[j] * g[j]
            for _ in range(2):
                square += rng.standard_normal() ** 2
        for j in range(dim):
            out[i, j] = radius * g[j] / math.sqrt(square)


# ---------------------------------------------------------------------- private
@njit(cache=True, error_model="numpy")
def _draw(rng, law, inner, first_turn, turns, r, turn):
    """Radius in units of the outer one, angle in turns; each point takes its numbers in a row."""
    if law == SQRT:
        for i in range(len(r)):
            r[i] = rng.random()
            turn[i] = rng.random()
        hole = inner * inner
        for i in range(len(r)):
            r[i] = np.sqrt(hole + (1.0 - hole) * r[i])
            turn[i] = first_turn + turns * turn[i]
    elif law == MAX:
        for i in range(len(r)):
            r[i] = max(rng.random(), rng.random())
            turn[i] = rng.random()
    elif law == TRIANGLE:
        for i in range(len(r)):
            # min folds the half of the triangle above 1 back: its density 2 - s becomes 2 s
            total = rng.random() + rng.random()
            r[i] = min(total, 2.0 - total)
            turn[i] = rng.random()
    elif law == CONCENTRIC:
        for i in range(len(r)):
            r[i] = 2.0 * rng.random() - 1.0
            turn[i] = 2.0 * rng.random() - 1.0
        _concentric(r, turn)
    else:  # NAIVE: wrong on purpose
        for i in range(len(r)):
            r[i] = rng.random()
            turn[i] = rng.random()


@njit(cache=True, error_model="numpy")
def _concentric(a, b):
    """In place (a, b) -> (signed radius, turns): a ring of the square becomes a ring of the disc."""
    for i in range(len(a)):
        wide = abs(a[i]) >= abs(b[i])
        r = a[i] if wide else b[i]
        other = b[i] if wide else a[i]
        eighth = 0.125 * other / (r if r != 0.0 else 1.0)
        a[i] = r
        b[i] = eighth if wide else 0.25 - eighth


@njit(cache=True, error_model="numpy")
def _to_plane(r, turn):
    """In place (r, turns) -> (r cos, r sin)."""
    for i in range(len(r)):
        quarter = np.floor(4.0 * turn[i] + 0.5)
        x = TURN * (turn[i] - 0.25 * quarter)
        z = x * x
        tail = 1 / 362880 + z * (-1 / 39916800 + z * (1 / 6227020800 - z / 1307674368000))
        sine = x * (1.0 + z * (-1 / 6 + z * (1 / 120 + z * (-1 / 5040 + z * tail))))
        tail = 1 / 479001600 + z * (-1 / 87178291200 + z / 20922789888000)
        tail = 1 / 40320 + z * (-1 / 3628800 + z * tail)
        cosine = 1.0 + z * (-1 / 2 + z * (1 / 24 + z * (-1 / 720 + z * tail)))
        half = np.floor(0.5 * quarter)
        even = quarter == 2.0 * half
        signed = r[i] * (1.0 - 2.0 * (half - 2.0 * np.floor(0.5 * half)))
        r[i] = signed * (cosine if even else -sine)
        turn[i] = signed * (sine if even else cosine)
