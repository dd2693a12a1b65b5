"""A policy played from the start distribution for a number of steps: return, success, length, exactly.

Forward in time, d_{t+1} = P_t^T d_t on the states that live: one pass gives the expected return under
every limit up to the last step, for policies that change with the time as well.

Not here: which policy is best under a limit (finite_horizon.py).
Source: Puterman 1994, sec. 4.2; Higham 2002, sec. 3 (rounding of sums of non-negative terms).
"""

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from dodona.core.shapes import FloatArray
from dodona.errors import MDPError
from dodona.mdp.bellman import policy_value
from dodona.mdp.certificate import UNIT
from dodona.mdp.model import MDP


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number between two proven bounds; ``upper`` may be infinite."""

    lower: float
    upper: float

    @property
    def middle(self) -> float:
        """The best single number: the middle, or the lower bound where there is no upper one."""
        return (self.lower + self.upper) / 2 if math.isfinite(self.upper) else self.lower

    def reaches(self, threshold: float) -> bool | None:
        """True: proven to be at least the threshold; False: proven to be below; None: undecided."""
        if self.lower >= threshold:
            return True
        return False if self.upper < threshold else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Play:
    """What one policy does from the start distribution, undiscounted.

    earned: expected return, within the limit if there is one. succeeded: chance to end by a transition
    that pays the most among those that end. ended: chance to end at all. steps: expected length.
    None: without a limit and without an end there is no such number.
    returns: [H+1] expected return under a limit of 0..H steps.
    """

    name: str
    kind: Literal["time-aware", "stationary", "random"]
    earned: Interval | None
    succeeded: float | None
    ended: float | None
    steps: float | None
    returns: FloatArray = field(repr=False)


def play(
    mdp: MDP,
    policy: Shaped[np.ndarray, "..."],
    *,
    name: str,
    kind: Literal["time-aware", "stationary", "random"],
    limit: int | None,
    horizon: int,
) -> Play:
    """Play a policy from ``mdp.start`` without discount.

    Args:
        mdp: gamma 1, with a start distribution and a reward per transition.
        policy: [S] actions, [S, A] probabilities, or, time-aware, [H, S] actions with H >= horizon.
        limit: steps after which play is cut off; None: it goes on until it ends.
        horizon: how far ``returns`` goes, at least the limit.
    Source: see the module.
    Oracle: backward induction with one action per state, Monte Carlo.  Cost: horizon passes over nnz.
    """
    wins = _wins(mdp)
    shares = _shares(mdp, policy, kind == "time-aware")
    returns, won, alive = _forward(mdp, shares, wins, horizon)
    if limit is None:
        earned, succeeded, ended, steps = _without_limit(mdp, policy, wins)
    else:
        steps = float(alive[:limit].sum())
        error = _rounding(mdp, limit) * mdp.reward_bound * steps
        mean = float(returns[limit])
        earned = Interval(lower=mean - error, upper=mean + error)
        succeeded, ended = float(won[limit]), float(max(1.0 - alive[limit], 0.0))
    return Play(
        name=name,
        kind=kind,
        earned=earned,
        succeeded=succeeded,
        ended=ended,
        steps=steps,
        returns=returns,
    )


def start_mean(start: Float[np.ndarray, "S"], lower: FloatArray, upper: FloatArray) -> Interval:
    """Mean of a state-wise bracket over the start distribution, its own rounding included.

    Source: definition.  Oracle: exact fractions.  Cost: O(S).
    """
    live = np.flatnonzero(start)
    ends = []
    for bound, sign in ((lower, -1.0), (upper, 1.0)):
        terms = start[live] * bound[live]
        ends.append(math.fsum(terms) + sign * 2 * UNIT * float(np.abs(terms).sum()))
    return Interval(lower=ends[0], upper=ends[1])


def transition_pairs(mdp: MDP) -> Int[np.ndarray, "nnz"]:
    """[nnz] the pair of each transition.  Source: definition.  Oracle: none needed.  Cost: O(nnz)."""
    return np.repeat(np.arange(mdp.num_pairs), np.diff(mdp.indptr))


# ---------------------------------------------------------------------- private
def _wins(mdp: MDP) -> FloatArray:
    """[L] chance that a pair ends the episode by a transition that pays the most among those that end."""
    ends = mdp.terminal[mdp.indices] | (mdp.weights == 0)
    if not ends.any():
        return np.zeros(mdp.num_pairs)
    most = mdp.transition_rewards[ends].max()
    wins = ends & (mdp.transition_rewards >= most)
    return np.bincount(transition_pairs(mdp), weights=wins * mdp.probs, minlength=mdp.num_pairs)


def _shares(mdp: MDP, policy: np.ndarray, time_aware: bool) -> Iterator[FloatArray]:
    """[L] probability of each pair in its state, step after step."""
    if time_aware:
        for actions in policy:
            yield (actions[mdp.pair_state] == mdp.actions).astype(np.float64)
    elif policy.ndim == 1:
        yield from itertools.repeat((policy[mdp.pair_state] == mdp.actions).astype(np.float64))
    else:
        yield from itertools.repeat(policy[mdp.pair_state, mdp.actions])


def _forward(
    mdp: MDP, shares: Iterator[FloatArray], wins: FloatArray, horizon: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(returns, succeeded, alive), each [H+1]: after 0..H steps."""
    owner, weights = transition_pairs(mdp), mdp.weights
    returns, won, alive = np.zeros((3, horizon + 1))
    mass = np.where(mdp.terminal, 0.0, mdp.start)
    alive[0] = mass.sum()
    for t in range(horizon):
        pairs = mass[mdp.pair_state] * next(shares)
        returns[t + 1] = returns[t] + mdp.rewards @ pairs
        won[t + 1] = won[t] + wins @ pairs
        mass = np.bincount(mdp.indices, weights=weights * pairs[owner], minlength=len(mass))
        mass[mdp.terminal] = 0.0
        alive[t + 1] = mass.sum()
    return returns, won, alive


def _rounding(mdp: MDP, steps: int) -> float:
    """Relative error of a return summed over that many steps.

    Masses are sums of products of non-negative numbers, so each step multiplies them by at most
    1 + (fan-in + 4) u; the dot product with the rewards and the sum over steps add their own terms.
    """
    fan_in = int(np.bincount(mdp.indices).max(initial=0))
    roundings = (steps * (fan_in + 5) + mdp.num_pairs) * UNIT
    return roundings / (1.0 - roundings)


def _without_limit(
    mdp: MDP, policy: np.ndarray, wins: FloatArray
) -> tuple[Interval | None, float | None, float | None, float | None]:
    """(earned, succeeded, ended, steps) of play that nothing cuts off; None where it may never end."""
    chance = mdp.replace(rewards=wins, transition_rewards=None)
    length = mdp.replace(rewards=np.ones(mdp.num_pairs), transition_rewards=None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the bracket says what is proven
            value, won, steps = (policy_value(m, policy) for m in (mdp, chance, length))
    except MDPError:  # improper: from some state this policy never ends
        return None, None, None, None
    earned = start_mean(mdp.start, value.lower, value.upper)
    return earned, float(mdp.start @ won.values), 1.0, float(mdp.start @ steps.values)
