"""Proof of a value: one sweep from ANY v gives [lower, upper] around the true values.

For the operator f (a policy's, or the optimal one) with e = f(v) - v, and pairs that keep a
discounted mass between m and M on live states, a shift by the constant c gives
    f(v + c) <= f(v) + M c  (c >= 0),   f(v + c) <= f(v) + m c  (c < 0),
so c = max(e) / (1 - M or 1 - m) makes v + c a super-solution, f(v + c) <= v + c, hence
    v* <= f(v + c) <= f(v) + (M or m) c,
and likewise from below. With stochastic rows m = M = gamma, and this is MacQueen-Porteus; with
terminal states m drops to 0 and it becomes their clipped form, which is the only valid one there.
The lower bound is also below the value of the greedy policy of v, which attains f(v).

Rounding: every e is widened by a bound on the float64 error of its row, so the values of the
*stored* numbers as exact rationals lie inside. What remains when e = 0 is the floor: no float64
iteration can prove more.

Source: MacQueen 1966; Porteus 1971; Puterman 1994, th. 6.6.3; Higham 2002 (error of a sum).
Oracle: oracles.rational.optimal_rational, exact values of the stored floats.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import MDPError, NonFiniteError
from dodona.mdp.rows import Rows

UNIT = 2.0**-53  # unit roundoff of float64
TINY = 2.0**-1022  # smallest normal float64


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """What one sweep proves.

    lower, upper: [S], lower <= v* <= upper, and lower <= value of ``policy``.
    gap: max(upper - lower). policy: [S] greedy action, -1 in terminal states.
    policy_loss_bound: v* - v_policy is at most this, in every state.
    """

    lower: FloatArray
    upper: FloatArray
    gap: float
    policy: IntArray
    policy_loss_bound: float


def shifts(mdp: Rows, size: float, low: float, high: float) -> tuple[float, float]:
    """(down, up): f(v) + down <= truth <= f(v) + up on live states, from one sweep.

    Args:
        size: max |v| over live states, or more.
        low, high: min and max of f(v) - v over live states, as the sweep computed them.
    Returns:
        Two numbers that include the rounding of the sweep itself.
    Raises:
        MDPError: some pair keeps all its mass (gamma 1, or rows above one): a constant shift
            proves nothing there.
    Source: see the module.  Oracle: oracles.rational.optimal_rational.  Cost: O(1).
    """
    rate_low, rate_high, error = contraction(mdp, size)
    if rate_high >= 1.0:
        raise MDPError(
            f"a pair keeps discounted mass {rate_high!r} >= 1 on non-terminal states (gamma="
            f"{mdp.gamma}): one sweep proves nothing. Use shortest_path_value_iteration for "
            "episodes without discount, relative_value_iteration for average reward, "
            "backward_induction for a fixed horizon, or a smaller gamma."
        )
    shift_up = _shift(high + UNIT * abs(high) + error, rate_low, rate_high)
    shift_down = _shift(-(low - UNIT * abs(low) - error), rate_low, rate_high)
    up, down = _carry(shift_up, rate_low, rate_high), -_carry(shift_down, rate_low, rate_high)
    # |f(v)| <= |v| + |f(v) - v|; eight roundings cover forming and adding the shifts
    margin = error + 8 * UNIT * (size + abs(low) + abs(high) + abs(up) + abs(down))
    return down - margin, up + margin


def bracket(
    mdp: Rows,
    values: Float[np.ndarray, "S"],
    swept: Float[np.ndarray, "S"],
    low: float,
    high: float,
) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """[lower, upper] around the fixed point of the operator that made swept = f(values).

    Args:
        values: v, any finite numbers, 0 on terminal states.
        swept: f(v); it is overwritten by the upper bound.
        low, high: min and max of f(v) - v over live states.
    Raises:
        MDPError: as shifts.  NonFiniteError: NaN or infinity in v or f(v), with the state.
    Source: see the module.  Oracle: oracles.rational.optimal_rational.  Cost: O(S).
    """
    if mdp.ended:
        return swept.copy(), swept.copy()
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(np.argmax(~np.isfinite(values + swept)))
        raise NonFiniteError(
            f"values must be finite, got {float(values[bad])!r} in state {bad} (after one sweep "
            f"{float(swept[bad])!r}). Start from finite numbers; check rewards near 1e308."
        )
    down, up = shifts(mdp, mdp.largest(values), low, high)
    lower, upper = swept + down, swept  # fresh memory costs as much as half a sweep
    upper += up
    lower[mdp.terminal] = upper[mdp.terminal] = 0.0
    return lower, upper


def widest(lower: Float[np.ndarray, "..."], upper: Float[np.ndarray, "..."]) -> float:
    """max(upper - lower), a cache-sized piece at a time."""
    lower, upper, step = lower.ravel(), upper.ravel(), 1 << 15
    pieces = (slice(i, i + step) for i in range(0, len(lower), step))
    return max((float(np.max(upper[p] - lower[p])) for p in pieces), default=0.0)


def contraction(mdp: Rows, size: float) -> tuple[float, float, float]:
    """(m, M, error): safe bounds on the kept mass, and on the rounding error of one swept value.

    A row of n terms computed in any order errs by at most k u / (1 - k u) times the sum of
    absolute terms, k = n + 4 (n products, n - 1 sums, discount, scale, reward); a chain averaged
    over actions adds the roundings of that average. ``size`` bounds |v| on live states; terminal
    values are 0, so only the kept mass multiplies it.
    """
    roundings = mdp.num_roundings * UNIT
    roundings /= 1.0 - roundings
    low, high = mdp.mass
    rate_low, rate_high = max(low * (1.0 - roundings), 0.0), high * (1.0 + roundings)
    error = roundings * (mdp.reward_bound + rate_high * size) * (1.0 + 8 * UNIT)
    # below the normal numbers rounding is absolute; the smallest of them covers 2^52 such errors
    error += TINY
    return rate_low, rate_high, error


def floor(mdp: Rows, size: float) -> float:
    """The smallest gap that float64 can prove around values of this size."""
    down, up = shifts(mdp, size, 0.0, 0.0)
    return up - down


def _shift(change: float, rate_low: float, rate_high: float) -> float:
    """Smallest c with f(v + c) <= v + c, given f(v) - v <= change; rounded up."""
    shift = change / (1.0 - (rate_high if change >= 0 else rate_low))
    return shift + 8 * UNIT * abs(shift) / (1.0 - rate_high)


def _carry(shift: float, rate_low: float, rate_high: float) -> float:
    """How much of a shift c survives one sweep at most."""
    return shift * (rate_high if shift >= 0 else rate_low)
