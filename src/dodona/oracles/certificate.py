"""How far any values are from optimal, proven by one pass over the rows, of any number of states.

A constant shift c makes u = v + c a super-solution, f(u) <= u, if and only if
    q(s, a) + gamma m(s, a) c <= v(s) + c  for every pair, that is  c >= (q(s, a) - v(s)) / (1 - gamma m(s, a)),
m the mass that a row keeps on live states. So the least such c is the largest of these ratios, and
v* <= v + c. From below, l = v + c has l <= f(l) as soon as one action per state has a ratio of at
least c: the greatest such c is the smallest over states of the largest ratio. Rows that sum to one
make this MacQueen's bracket; rows that lose mass need no case of their own, which is where the
unclipped form goes wrong.

Source: Puterman 1994, th. 6.2.2 (f(u) <= u implies v* <= u). Not here: values (any solver's will do).
"""

from collections import namedtuple

import numpy as np

from dodona.oracles.arrays import UNIT, ArrayLike, doors

BLOCK_BYTES = 64 << 20  # of P at a time


class Certificate(namedtuple("Certificate", ("lower", "upper", "policy"))):
    """lower <= value of ``policy`` <= v* <= upper, each [S]; policy -1 in terminal states."""

    @property
    def gap(self) -> float:
        """max(upper - lower)."""
        return float(np.max(self.upper - self.lower, initial=0.0))


def certify(
    P: ArrayLike,
    R: ArrayLike,
    gamma: float,
    v: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
    action_mask: ArrayLike | None = None,
) -> Certificate:
    """[lower, upper] around the optimal values, whatever v is; see the module for the proof.

    Rows are read in blocks of states and tested on the way: entries >= 0, sums at most one. Every
    ratio is widened by the rounding of its own row, so the bounds hold for the stored numbers taken
    as exact.

    Args:
        P: [S, A, S] (also a memory map), or one SciPy sparse [S, S] matrix per action.
        R: [S, A].  gamma: in [0, 1].  v: [S], finite; terminal states count as 0.
        terminal: [S] bool.  action_mask: [S, A] bool.
    Returns: Certificate(lower, upper, policy).
    Raises:
        ValueError: shapes; v not finite; a row that is no (sub-)distribution, or that keeps all its
            discounted mass, where a constant proves nothing: its state and action are named.
    Independent of: the solver that made v; the clipped two-case bracket.
    Source: see the module.  Cost: one pass over P, 64 MiB of it in memory at a time.
    """
    R, v = np.asarray(R, dtype=float), np.array(v, dtype=float)
    S, A = R.shape
    ends, mask = doors(S, A, terminal, action_mask)
    if v.shape != (S,) or not np.all(np.isfinite(v[~ends])):
        raise ValueError(f"v must be {S} finite numbers, got {v.tolist()[:10]}.")
    v[ends] = 0.0
    live = (~ends).astype(float)
    policy = np.full(S, -1)
    if ends.all():
        return Certificate(v, v, policy)
    # safe bounds on each state's largest ratio
    low, high = np.full(S, -np.inf), np.full(S, -np.inf)
    step = max(1, BLOCK_BYTES // (8 * S * A))
    for at in range(0, S, step):
        now = slice(at, min(at + step, S))
        rows = _block(P, now, A)  # [b, A, S]
        kept, value, size = rows @ live, rows @ v, rows @ np.abs(v)
        _test(rows, R[now], mask[now], kept, gamma, at)
        count = np.count_nonzero(rows, axis=2) + 4
        unit = count * UNIT / (1 - count * UNIT)
        error = unit * (np.abs(R[now]) + gamma * size + np.abs(v[now, None]))
        change = R[now] + gamma * value - v[now, None]
        slip = count * UNIT * kept
        lower = _ratio(change - error, gamma * (kept - slip), gamma * (kept + slip), up=False)
        upper = _ratio(change + error, gamma * (kept - slip), gamma * (kept + slip), up=True)
        lower[~mask[now]] = upper[~mask[now]] = -np.inf
        low[now], high[now] = lower.max(axis=1), upper.max(axis=1)
        policy[now] = np.where(ends[now], -1, lower.argmax(axis=1))
    lower = np.where(ends, 0.0, np.nextafter(v + low[~ends].min(), -np.inf))
    upper = np.where(ends, 0.0, np.nextafter(v + high.max(), np.inf))
    return Certificate(lower, upper, policy)


def _block(P, now: slice, A: int) -> np.ndarray:
    """Rows of a block of states, [b, A, S] float64."""
    if isinstance(P, (list, tuple)) and hasattr(P[0], "tocsr"):
        return np.stack([P[a].tocsr()[now].toarray() for a in range(A)], axis=1)
    return np.array(P[now], dtype=float)


def _test(rows, R, mask, kept, gamma: float, at: int) -> None:
    sums = rows.sum(axis=2)
    bad = (rows < 0).any(axis=2) | ~(sums <= 1 + 1e-9 * rows.shape[2] ** 0.5) | ~np.isfinite(R)
    whole = gamma * kept * (1 + rows.shape[2] * UNIT) >= 1.0
    for wrong, text in (
        (mask & bad, "no row of probabilities with a finite reward"),
        (mask & whole, "a row that keeps all its discounted mass: no constant proves anything"),
    ):
        if wrong.any():
            s, a = (int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"state {at + s}, action {a}: {text} (sum {sums[s, a]!r}, gamma {gamma})."
            )


def _ratio(change, kept_low, kept_high, *, up: bool) -> np.ndarray:
    """change / (1 - kept), rounded outwards: the denominator that makes it largest (up) or smallest."""
    kept = np.where((change >= 0) == up, kept_high, kept_low)
    ratio = change / (1.0 - kept)
    return ratio + (4 * UNIT if up else -4 * UNIT) * np.abs(ratio)
