"""GMRES and BiCGSTAB for v = b + W v, where vectors may be spread over processes.

Both touch W only through products and vectors only through sums, and every sum passes through
``total``, so the same lines serve one process and many: on one, ``total`` is the identity.

GMRES builds its space with W instead of I - W (the spaces agree, Krylov spaces do not see a shift),
which saves a subtraction per step and the cancellation in it. Gram-Schmidt runs twice, in its
classical form: matrix products instead of a loop, and two sums over processes per step.

Source: Saad & Schultz 1986 (GMRES); van der Vorst 1992 (BiCGSTAB); Giraud, Langou, Rozloznik 2005
(twice is enough).  Not here: what a residual proves (certificate.py).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numba import njit

from dodona.core.shapes import FloatArray

RESTART = 30  # vectors kept; fewer cost more products near gamma 1
MAX_CYCLES = 200  # restarts before GMRES gives up
BLAS_ALONE = 10_000  # up to this length OpenBLAS multiplies in one thread by itself
MAX_STEPS = 2000  # steps of two products before BiCGSTAB gives up

Product = Callable[[FloatArray, FloatArray], None]  # (x, out): out = W x
Total = Callable[[FloatArray], FloatArray]  # sums of this process's parts over all processes


def gmres(
    product: Product,
    b: Float[np.ndarray, "S"],
    start: Float[np.ndarray, "S"],
    *,
    residual: float,
    total: Total,
) -> tuple[Float[np.ndarray, "S"], bool]:
    """Restarted GMRES: (v, whether ||b + W v - v||_2 <= residual).

    Args:
        product: out = W x.  b: the right side.  start: first guess.
        residual: target of the 2-norm over all processes; 0 runs to the rounding floor.
        total: sum over processes.
    Returns:
        The last iterate; each restart measures its true residual and the best one is kept.
    Oracle: oracles.dense.policy_value.
    Cost: per step one product and four passes over the vectors kept.
    """
    v, best, least = start.copy(), start, np.inf
    basis = np.empty((RESTART + 1, len(b)))
    for _ in range(MAX_CYCLES):
        product(v, basis[0])
        basis[0] += b
        basis[0] -= v
        norm = float(np.sqrt(total(np.array([basis[0] @ basis[0]]))[0]))
        if not norm < least:  # a restart that gains nothing has reached rounding
            break
        best, least = v.copy(), norm
        if norm <= residual:
            return best, True
        basis[0] /= norm
        weights, count = _cycle(product, basis, norm, residual, total)
        v += weights @ basis[:count]
    return best, False


def bicgstab(
    product: Product,
    b: Float[np.ndarray, "S"],
    start: Float[np.ndarray, "S"],
    *,
    residual: float,
    total: Total,
) -> tuple[Float[np.ndarray, "S"], bool]:
    """BiCGSTAB: (v, whether the recurred residual fell to ``residual``). Arguments as gmres.

    False too where it breaks down; GMRES from the same start is the remedy.
    Oracle: oracles.dense.policy_value.  Cost: per step two products and ten passes over vectors.
    """
    v, swept, y, z = start.copy(), np.empty_like(b), np.empty_like(b), np.empty_like(b)
    product(v, swept)
    r = b + swept - v
    shadow, p = r.copy(), r.copy()
    rho = square = float(total(np.array([dot(r, r)]))[0])
    floor = np.finfo(float).tiny
    for _ in range(MAX_STEPS):
        if np.sqrt(square) <= residual:
            return v, True
        product(p, y)
        np.subtract(p, y, out=y)  # y = (I - W) p
        along = float(total(np.array([dot(shadow, y)]))[0])
        if not abs(along) > floor:
            break
        alpha = rho / along
        r -= alpha * y
        v += alpha * p
        square = float(total(np.array([dot(r, r)]))[0])
        if np.sqrt(square) <= residual:
            return v, True
        product(r, z)
        np.subtract(r, z, out=z)
        zr, zz = total(np.array([dot(z, r), dot(z, z)]))
        if not zz > floor:
            break
        omega = zr / zz
        v += omega * r
        r -= omega * z
        previous = rho
        rho, square = (float(x) for x in total(np.array([dot(shadow, r), dot(r, r)])))
        if not (np.isfinite(square) and abs(rho) > floor and omega != 0.0):
            break
        p -= omega * y
        p *= rho / previous * (alpha / omega)
        p += r
    return v, bool(np.isfinite(square) and np.sqrt(square) <= residual)


def dot(x: FloatArray, y: FloatArray) -> float:
    """x . y in one thread: a BLAS that wakes its own for every product fights the sweeps' threads."""
    return _serial_dot(x, y) if len(x) > BLAS_ALONE else float(x @ y)


@njit(cache=True, fastmath=True, nogil=True)
def _serial_dot(x, y):
    total = 0.0
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


def _cycle(
    product: Product, basis: FloatArray, norm: float, residual: float, total: Total
) -> tuple[FloatArray, int]:
    """Grow the basis until the projected residual is small: (weights of the vectors, their number)."""
    R = np.zeros((RESTART + 1, RESTART))
    turns = np.empty((RESTART, 2))
    g = np.zeros(RESTART + 1)
    g[0] = norm
    for j in range(RESTART):
        known, w = basis[: j + 1], basis[j + 1]
        product(basis[j], w)
        along = total(known @ w)
        w -= along @ known
        rest = total(np.concatenate([known @ w, [w @ w]]))
        w -= rest[:-1] @ known
        length = np.sqrt(max(rest[-1] - rest[:-1] @ rest[:-1], 0.0))
        column = R[: j + 2, j]
        column[:-1] = -(along + rest[:-1])
        column[j] += 1.0  # I - W seen through a basis made with W
        column[-1] = -length
        for i, (c, s) in enumerate(turns[:j]):
            column[i], column[i + 1] = (
                c * column[i] + s * column[i + 1],
                c * column[i + 1] - s * column[i],
            )
        size = np.hypot(column[j], column[j + 1])
        if not (np.isfinite(size) and size > 0.0):
            return _back(R, g, j), j
        turns[j] = column[j] / size, column[j + 1] / size
        column[j], column[j + 1] = size, 0.0
        g[j], g[j + 1] = turns[j, 0] * g[j], -turns[j, 1] * g[j]
        if abs(g[j + 1]) <= residual or length <= np.finfo(float).eps * size:
            return _back(R, g, j + 1), j + 1
        w /= length
    return _back(R, g, RESTART), RESTART


def _back(R: FloatArray, g: FloatArray, n: int) -> FloatArray:
    """Weights that solve the triangle R y = g."""
    y = g[:n].copy()
    for i in range(n - 1, -1, -1):
        y[i] = (y[i] - R[i, i + 1 : n] @ y[i + 1 :]) / R[i, i]
    return y
