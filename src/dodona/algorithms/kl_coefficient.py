"""The coefficient tau of a KL penalty for which the optimal policy lies at a given KL from its reference.

The maximiser of E_pi[r] - tau KL(pi || pi_ref) is pi_b(y) proportional to pi_ref(y) exp(b r(y)),
b = 1 / tau, and d KL(pi_b || pi_ref) / db = b Var_{pi_b}[r] >= 0. So KL turns once at every target,
and a search by bit pattern finds b to the neighbouring double.
Source: Peters, Muelling & Altun 2010 (REPS); Ziebart 2010, thesis, sec. 5 (the tilted family).
Not for policies that can only be sampled: r and log pi_ref of every y are needed.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dodona.algorithms.batch_search import first_true_batch
from dodona.core.shapes import FloatArray
from dodona.errors import InputError, NoSolutionError, ShapeError

UNDERFLOW = 745.0  # exp(-745) is the last positive double
NEWTON_STEPS = 7  # then most rows are within some ulps; the others are searched without a guess
SETTLED = 1e-7  # relative change of the last Newton step that makes its result a guess


@dataclass(frozen=True, kw_only=True)
class KLCoefficient:
    """The solution of one row, or of [B] rows.

    tau: coefficient of the KL penalty, reward units per nat; inf for a target of 0.
    inverse_tau: b = 1 / tau, which was searched: the largest double whose computed KL does not exceed
        the target.
    kl: KL(pi_b || pi_ref) there, nats.
    limit: KL for b -> inf, -log pi_ref(best y): no target beyond it has a solution.
    """

    tau: FloatArray | float
    inverse_tau: FloatArray | float
    kl: FloatArray | float
    limit: FloatArray | float


def kl_coefficient(
    logp_ref: Float[np.ndarray, "*B V"],
    rewards: Float[np.ndarray, "*B V"],
    target: FloatArray | float,
) -> KLCoefficient:
    """tau such that KL(pi_tau || pi_ref) = target, for pi_tau proportional to pi_ref exp(r / tau).

    >>> found = kl_coefficient(np.log([0.5, 0.5]), np.array([0.0, 1.0]), 0.1)
    >>> round(found.tau, 6), round(found.kl, 12)
    (1.059947, 0.1)

    Args:
        logp_ref: [V] or [B, V], log pi_ref, nats; rows sum to one, -inf where pi_ref is 0.
        rewards: r of the same shape; any number where pi_ref is 0.
        target: KL in nats, >= 0, one number or [B].
    Returns: a KLCoefficient with numbers for [V], arrays [B] for [B, V]; its kl is the target to 1e-12.
    Raises:
        ShapeError: shapes that do not fit.
        InputError: rows that are not log-probabilities, rewards that are not finite, a target < 0 or NaN.
        NoSolutionError: a target at or beyond the limit; the message names both.
    Source: module docstring.
    Oracle: oracles.search.tilted_kl_by_definition on a dense grid of b.
    Cost: about 20 evaluations of the KL of all rows: seven steps of Newton's method for a guess,
        which the search then proves. One row without a guess takes 57.
    """
    logp_ref, rewards = np.asarray(logp_ref), np.asarray(rewards)
    problem = _Rows(logp_ref, rewards, target)
    b = problem.solve()
    kl = problem.kl(b)
    with np.errstate(divide="ignore"):
        tau = 1.0 / b
    if logp_ref.ndim == 1:
        tau, b, kl, limit = (float(x[0]) for x in (tau, b, kl, problem.limit))
        return KLCoefficient(tau=tau, inverse_tau=b, kl=kl, limit=limit)
    return KLCoefficient(tau=tau, inverse_tau=b, kl=kl, limit=problem.limit)


def tilted_kl(
    logp_ref: Float[np.ndarray, "*B V"],
    rewards: Float[np.ndarray, "*B V"],
    inverse_tau: FloatArray | float,
) -> FloatArray | float:
    """KL(pi_b || pi_ref) of pi_b proportional to pi_ref exp(b r), nats.

    E_{pi_b}[z] - log E_{pi_ref}[exp z] with z = b (r - max r).

    Args: logp_ref, rewards: as kl_coefficient.  inverse_tau: b >= 0, one number or [B].
    Returns: a number for [V], [B] for [B, V].
    Raises: as kl_coefficient; InputError: b < 0, infinite or NaN.
    Source: module docstring.  Oracle: oracles.search.tilted_kl_by_definition.
    """
    logp_ref, rewards = np.asarray(logp_ref), np.asarray(rewards)
    problem = _Rows(logp_ref, rewards, 0.0)
    b = problem.per_row("inverse_tau", inverse_tau)
    kl = problem.kl(np.minimum(b, problem.hi))
    return float(kl[0]) if logp_ref.ndim == 1 else kl


class _Rows:
    """B tilted families, one column each: sums over y then run along contiguous rows."""

    def __init__(self, logp_ref: FloatArray, rewards: FloatArray, target: FloatArray | float):
        if logp_ref.ndim not in (1, 2) or logp_ref.shape != rewards.shape or not logp_ref.size:
            raise ShapeError(
                f"logp_ref and rewards must be [V] or [B, V] of one shape, not empty, got "
                f"{logp_ref.shape} and {rewards.shape}."
            )
        self.num_rows = 1 if logp_ref.ndim == 1 else len(logp_ref)
        self.p = np.ascontiguousarray(np.exp(np.atleast_2d(logp_ref).astype(np.float64)).T)
        rewards = np.atleast_2d(rewards).astype(np.float64).T
        off = ~(np.abs(self.p.sum(axis=0) - 1.0) <= 1e-6)
        if off.any():
            row = int(np.argmax(off))
            raise InputError(
                f"row {row} of logp_ref sums to {self.p[:, row].sum():.6g} as probabilities, expected "
                "1. Pass log-probabilities: x - logsumexp(x)."
            )
        support = self.p > 0
        bad = support & ~np.isfinite(rewards)
        if bad.any():
            y, row = (int(i) for i in np.argwhere(bad)[0])
            raise InputError(f"rewards[{row}, {y}] is {rewards[y, row]}, expected a finite number.")
        best = np.where(support, rewards, -np.inf).max(axis=0)
        self.r = np.where(support, rewards - best, 0.0)
        top = support & (self.r == 0.0)
        self.limit = np.maximum(-np.log(np.where(top, self.p, 0.0).sum(axis=0)), 0.0)
        self.target = self.per_row("target", target)
        self.width = np.abs(self.r.min(axis=0))
        second = -np.where(self.r < 0, self.r, -np.inf).max(axis=0)
        with np.errstate(divide="ignore", over="ignore"):
            # beyond hi only the best answers have any probability, and KL is at its limit
            self.hi = np.minimum(UNDERFLOW / second, 1e300 / self.width)

    def per_row(self, name: str, value: FloatArray | float) -> FloatArray:
        value = np.asarray(value, dtype=np.float64)
        if value.shape not in ((), (self.num_rows,)):
            raise ShapeError(
                f"{name} must be one number or one per row, shape ({self.num_rows},), got {value.shape}."
            )
        value = np.array(np.broadcast_to(value, (self.num_rows,)))
        bad = ~((value >= 0) & np.isfinite(value))
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(f"{name} must be finite and >= 0, got {value[row]} in row {row}.")
        return value

    def kl(self, b: FloatArray) -> FloatArray:
        return _kl(self.p, self.r, b)

    def solve(self) -> FloatArray:
        """[B] the largest double b >= 0 whose KL does not exceed the target."""
        over = self.target >= self.limit
        over &= self.target > 0
        if over.any():
            row = int(np.argmax(over))
            raise NoSolutionError(
                f"row {row} asks for a KL of {self.target[row]:.12g}; the limit for tau -> 0 is "
                f"{self.limit[row]:.12g} = -log pi_ref(best y), which no tau > 0 reaches. Ask for less."
            )
        lo, hi = self._ends()
        guess, settled = self._newton(lo, hi)
        beyond = np.empty_like(lo)
        for rows, near in ((np.flatnonzero(settled), guess), (np.flatnonzero(~settled), None)):
            # take, for rows of memory: [:, rows] would give columns
            p, r, target = self.p.take(rows, 1), self.r.take(rows, 1), self.target[rows]
            beyond[rows] = first_true_batch(
                lambda b, p=p, r=r, target=target: _kl(p, r, b) > target,
                lo[rows], hi[rows], guess=None if near is None else near[rows], check="none",
            )  # fmt: skip
        return np.where(self.target > 0, np.nextafter(beyond, 0.0), 0.0)

    def _ends(self) -> tuple[FloatArray, FloatArray]:
        """[lo, hi] that holds b: KL <= b^2 (max r - min r)^2 / 8 (Hoeffding); (0, 0) for a target of 0."""
        hi = np.where(self.target > 0, self.hi, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            lo = np.where(self.target > 0, np.sqrt(8.0 * self.target) / self.width, 0.0)
        return np.minimum(lo, hi), hi

    def _newton(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, np.ndarray]:
        """(b near the solution, whether it is): Newton's method on sqrt(-log(1 - KL / limit)).

        KL grows as b^2 at first and nears its limit exponentially; that function of it is about
        linear in b at both ends, so that few steps lead far.
        """
        b, change = lo.copy(), np.full_like(lo, np.inf)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            wanted = np.sqrt(-np.log1p(-self.target / self.limit))
            for _ in range(NEWTON_STEPS):
                z = b * self.r
                w = np.exp(z)
                w *= self.p
                total = w.sum(axis=0)
                w *= self.r
                mean = w.sum(axis=0) / total
                w *= self.r
                variance = w.sum(axis=0) / total - mean * mean
                kl = b * mean - np.log(total)
                height = np.sqrt(-np.log1p(-kl / self.limit))
                slope = b * variance / (self.limit - kl) / (2.0 * height)
                new = np.clip(b - (height - wanted) / slope, lo, hi)
                change = np.abs(new - b) / b  # NaN, which is not settled, where the formula failed
                b = np.where(np.isfinite(new), new, b)
        return b, (change <= SETTLED) & (lo < b) & (b < hi)


def _kl(p: FloatArray, r: FloatArray, b: FloatArray) -> FloatArray:
    """[B] KL(pi_b || pi_ref); p, r [V, B] with r <= 0 its distance to the best reward of the column."""
    z = b * r
    w = np.exp(z)
    w *= p
    total = w.sum(axis=0)
    z *= w
    return z.sum(axis=0) / total - np.log(total)
