"""Policy and value losses number by number: the value, and the slope in every log-probability, by cases.

What a paper says of one sample is written for one sample (`if A > 0 and r > 1 + eps: slope 0`), then every
token is weighed by how the mean counts it. Lists of numbers; rows [B] or [B][T]. No automatic slopes: where
a ratio is held constant, the value alone would say too little.

Source: of each surrogate, its function. Not here: gradients in parameters (gradients.py, sequences.py).
"""

import math
from collections import namedtuple

import numpy as np

from dodona.oracles.arrays import ArrayLike
from dodona.oracles.returns import (
    gae_by_definition,
    group_advantages_by_definition,
    process_advantages_by_definition,
    returns_by_definition,
)
from dodona.oracles.statistics import moments, whiten

Loss = namedtuple("Loss", ("value", "slopes"))
"""value: the number to minimise.  slopes: its slope in each entry of the first argument, in that shape."""

Token = namedtuple("Token", ("i", "t", "logp", "old", "advantage", "weight", "share"))
"""One counted entry; share = how much the mean counts it."""


def policy_loss(
    logp: ArrayLike, logp_old: ArrayLike | None, advantages: ArrayLike, mask: ArrayLike | None = None, *,
    surrogate: str = "clip", ratio: str = "token", clip_eps: float | None = 0.2,
    clip_eps_high: float | None = None, dual_clip: float | None = None, max_ratio: float | None = None,
    reduction: str = "token", length: float = 1.0, denom: float | None = None,
) -> Loss:  # fmt: skip
    """Every policy loss of objectives.policy_loss, token after token.

    Args: as objectives.policy_loss, in nested lists of one or two levels.
    Returns: Loss; slopes are 0 where masked. At a kink (r exactly on a bound) the slope is one of the two sides.
    Independent of: tensors, automatic differentiation, clamps, minima.
    Source: of each surrogate below.  Cost: O(B T^2) for ratios of sequences, else O(B T).
    """
    low = 0.0 if clip_eps is None else 1.0 - clip_eps
    high = 1.0 + (clip_eps_high if clip_eps_high is not None else clip_eps or 0.0)
    tokens = _tokens(logp, logp_old, advantages, mask, reduction, length, denom)
    flat = np.ndim(advantages) == 1
    value, slopes = [], np.zeros(np.shape(advantages) + ((1,) if flat else ()))
    for x in tokens:
        row = [y for y in tokens if y.i == x.i] if not flat else [x]
        if ratio == "none":
            found, own = -x.advantage * x.logp, {x.t: -x.advantage}
        elif surrogate == "gmpo":
            found, own = geometric_mean(x.advantage, row, clip_eps, clip_eps_high)
        else:
            r, moves = _ratio(x, row, ratio)
            if max_ratio is not None and r > max_ratio:
                r, moves = max_ratio, {}
            found, slope = SURROGATES[surrogate](r, x.advantage, low, high)
            if surrogate == "cispo":  # the value has logp as a factor, and nothing moves the ratio
                found, moves = found * x.logp, {x.t: 1.0}
            if dual_clip is not None and x.advantage < 0 and found > -dual_clip * x.advantage:
                found, slope = -dual_clip * x.advantage, 0.0
            own = {t: slope * move for t, move in moves.items()}
        value.append(x.share * found)
        for t, slope in own.items():
            slopes[x.i, t] += x.share * slope
    return Loss(math.fsum(value), slopes[:, 0] if flat else slopes)


def value_loss(
    values: ArrayLike, returns: ArrayLike, mask: ArrayLike | None = None, *, kind: str = "mse",
    values_old: ArrayLike | None = None, clip_eps: float = 0.2, reduction: str = "token",
    denom: float | None = None,
) -> Loss:  # fmt: skip
    """Half the squared error of a critic, entry after entry; arguments as objectives.value_loss.

    clipped: the larger of the error's own half square and that of v_old +- eps; clipped_no_max: the latter alone.
    A value that has moved by more than eps has slope 0 wherever the held one is taken.

    Returns: Loss, slopes in the values.
    Independent of: clamps and maxima of tensors.  Source: arXiv:1707.06347, eq. 9; Huber 1964.  Cost: O(B T).
    """
    old = values if values_old is None else values_old
    flat = np.ndim(values) == 1
    total, slopes = [], np.zeros(np.shape(values) + ((1,) if flat else ()))
    for x in _tokens(values, old, returns, mask, reduction, 1.0, denom):
        v, old, G = x.logp, x.old, x.advantage
        error = v - G
        own, slope = 0.5 * error**2, error
        if kind == "huber" and abs(error) > 1.0:
            own, slope = abs(error) - 0.5, math.copysign(1.0, error)
        elif kind in ("clipped", "clipped_no_max") and abs(v - old) > clip_eps:
            held = 0.5 * (old + math.copysign(clip_eps, v - old) - G) ** 2
            if kind == "clipped_no_max" or held > own:
                own, slope = held, 0.0
        total.append(x.share * own)
        slopes[x.i, x.t] += x.share * slope
    return Loss(math.fsum(total), slopes[:, 0] if flat else slopes)


def prepared_advantages(
    rewards: ArrayLike, mask: ArrayLike, *, advantage: str, gamma: float = 1.0, gae_lambda: float = 0.95,
    baseline: str = "none", scale: str = "none", ddof: int = 1, tol: float = 0.0,
    discount_states: bool = False, advantage_clip: float | None = None, kl_coef: float = 0.0,
    reward_norm: str = "none", reward_clip: float | None = None, filter_groups: bool = False,
    mask_truncated: bool = False, terminated: ArrayLike | None = None, truncated: ArrayLike | None = None,
    values: ArrayLike | None = None, next_values: ArrayLike | None = None, group: ArrayLike | None = None,
    reward_mask: ArrayLike | None = None, logp_old: ArrayLike | None = None, logp_ref: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
    """(mask, advantages, returns or None), [B, T]: what an objective's prepare makes of a first batch.

    Row after row: drop what the switches drop, rescale scores, take KL from the rewards, then the
    definitions of oracles.returns.

    Args: as the fields of PolicyObjective and Batch, rows first; kl_coef > 0 is a KL in the reward; rows of
        episodes need terminated; values without next_values: nothing is worth anything after a row.
    Independent of: tensors, passes over time, running moments.
    Source: of each switch, PolicyObjective.  Cost: O(B T^2).
    """
    r, m = (np.array(x, dtype=float) for x in (rewards, mask))
    B, T = r.shape
    ends = np.zeros((B, T), bool) if terminated is None else np.array(terminated)
    cuts = np.zeros((B, T), bool) if truncated is None else np.array(truncated)
    scores = [math.fsum(r[i, t] for t in range(T) if m[i, t]) for i in range(B)]
    for i in range(B):
        mates = [scores[j] for j in range(B) if filter_groups and group[j] == group[i]]
        cut, end = ((x[i] & (np.array(mask[i]) != 0)).any() for x in (cuts, ends))
        if (mates and max(mates) - min(mates) <= tol) or (mask_truncated and cut and not end):
            m[i] = 0.0
    if reward_norm != "none":
        scores = _units([scores[i] for i in range(B)], reward_norm, reward_clip)
        r = np.zeros((B, T))
        for i in range(B):
            r[i, max(t for t in range(T) if m[i, t])] = scores[i]
    for i, t in np.argwhere(m != 0):
        if kl_coef:
            r[i, t] -= kl_coef * (logp_old[i][t] - logp_ref[i][t])
    r[m == 0] = 0.0
    given = {"values": values, "next_values": next_values}
    A, G = np.zeros((B, T)), None
    if advantage == "group":
        sums = [math.fsum(x) for x in m * r]
        each = group_advantages_by_definition(
            sums, group, baseline=baseline, scale="none" if scale in ("whiten", "minibatch") else scale,
            ddof=ddof, tol=tol,
        )  # fmt: skip
        A += np.array(each)[:, None]
    elif advantage == "process":
        A += process_advantages_by_definition(r, reward_mask, group, ddof=ddof)
    else:
        rows = [_row(i, r, ends, cuts, m, **given) for i in range(B)]
        G = np.array([returns_by_definition(**x, gamma=gamma) for x in rows])
        if advantage == "gae":
            A = np.array([gae_by_definition(**x, gamma=gamma, gae_lambda=gae_lambda) for x in rows])
            G = A + np.array(values)
        elif baseline == "mean":
            A = G - math.fsum((G * m).ravel()) / m.sum()
        else:
            A = G - (np.array(values) if baseline == "value" else 0.0)
    if discount_states:
        A = A * np.array([_ages(ends[i] | cuts[i], m[i], gamma) for i in range(B)])
    if scale == "whiten":
        A = whiten(A, m, ddof=ddof)
    if advantage_clip is not None:
        A = np.array([[max(-advantage_clip, min(advantage_clip, a)) for a in row] for row in A])
    A[m == 0] = 0.0
    return m, A, G


# ---------------------------------------------------------------------- one sample
def clip(r: float, A: float, low: float, high: float) -> tuple[float, float]:
    """(loss, slope in log r) of PPO: a ratio that has gone far enough in A's direction stops.

    Source: arXiv:1707.06347, eq. 7.
    """
    if A > 0 and r > high:
        return -high * A, 0.0
    if A < 0 and r < low:
        return -low * A, 0.0
    return -r * A, -r * A


def unclipped(r: float, A: float, low: float, high: float) -> tuple[float, float]:
    """Source: arXiv:1502.05477, eq. 14."""
    return -r * A, -r * A


def cispo(r: float, A: float, low: float, high: float) -> tuple[float, float]:
    """(factor of logp, the same as its slope). Source: arXiv:2506.13585, eq. 4."""
    held = low if r < low else high if r > high else r
    return -held * A, -held * A


def sapo(r: float, A: float, low: float, high: float) -> tuple[float, float]:
    """A gate of height 4 / t around r = 1: slope 4 s (1 - s) r A, s = sigmoid(t (r - 1)).

    Source: arXiv:2511.20347, eq. 5 to 8.
    """
    t = 1.0 if A > 0 else 1.05
    s = 1.0 / (1.0 + math.exp(-t * (r - 1.0)))
    return -4.0 / t * s * A, -4.0 * s * (1.0 - s) * r * A


SURROGATES = {"clip": clip, "unclipped": unclipped, "cispo": cispo, "sapo": sapo}


def geometric_mean(
    A: float, row: list[Token], clip_eps: float | None, clip_eps_high: float | None
) -> tuple[float, dict[int, float]]:
    """(loss, slopes of its row's tokens) of GMPO: the row's ratio is a product of clipped ones, to the 1 / n.

    Source: arXiv:2507.20673, eq. 4, one-sided and in log ratios.
    """
    low = 0.2 if clip_eps is None else clip_eps
    high = low if clip_eps_high is None else clip_eps_high
    n, logs, free = math.fsum(y.weight for y in row), [], {}
    for y in row:
        d = y.logp - y.old
        if y.advantage > 0 and d > high:
            logs.append(y.weight * high)
        elif y.advantage <= 0 and d < -low:
            logs.append(y.weight * -low)
        else:
            logs.append(y.weight * d)
            free[y.t] = y.weight / n
    product = math.exp(math.fsum(logs) / n)
    return -product * A, {t: -product * A * move for t, move in free.items()}


# ---------------------------------------------------------------------- private
def _ratio(x: Token, row: list[Token], ratio: str) -> tuple[float, dict[int, float]]:
    """(the ratio of a token, how much each token of its row moves its logarithm)."""
    if ratio == "token":
        return math.exp(x.logp - x.old), {x.t: 1.0}
    n = math.fsum(y.weight for y in row)
    r = math.exp(math.fsum(y.weight * (y.logp - y.old) for y in row) / n)
    if ratio == "sequence":  # arXiv:2507.18071, eq. 7
        return r, {y.t: y.weight / n for y in row}
    return r, {x.t: 1.0}  # ibid., eq. 14


def _tokens(logp, old, advantages, mask, reduction, length, denom) -> list[Token]:
    """Every counted entry, with its share in the mean; a list [B] is rows of one."""
    flat = np.ndim(advantages) == 1

    def at(x, i, t):
        return float(x[i] if flat else x[i][t])

    width = 1 if flat else len(advantages[0]) if len(advantages) else 0
    rows = []
    for i in range(len(advantages)):
        weights = [1.0 if mask is None else at(mask, i, t) for t in range(width)]
        rows.append([(t, w) for t, w in enumerate(weights) if w])
    everything = math.fsum(w for row in rows for _, w in row)
    alive = sum(1 for row in rows if row)
    tokens = []
    for i, row in enumerate(rows):
        own = math.fsum(w for _, w in row)
        for t, w in row:
            share = {
                "token": w / (everything if denom is None else denom),
                "sequence": w / own / (alive if denom is None else denom),
                "fixed": w / length / (alive if denom is None else denom),
            }[reduction]
            before = 0.0 if old is None else at(old, i, t)
            tokens.append(Token(i, t, at(logp, i, t), before, at(advantages, i, t), w, share))
    return tokens


def _units(scores: list[float], mode: str, bound: float | None) -> list[float]:
    mean, std = moments([(x, 1.0) for x in scores])
    scaled = [(x - (mean if mode == "whiten" else 0.0)) / std for x in scores]
    return scaled if bound is None else [max(-bound, min(bound, x)) for x in scaled]


def _row(i, r, ends, cuts, m, *, values, next_values) -> dict:
    """One row as a lane of oracles.returns."""
    given = {"rewards": r[i], "terminated": ends[i], "truncated": cuts[i], "mask": m[i] != 0}
    if next_values is not None:
        here = None if values is None else np.asarray(values)[i]
        return given | {"values": here, "next_values": np.asarray(next_values)[i]}
    return given | {"values": None if values is None else np.append(np.asarray(values)[i], 0.0)}


def _ages(over, counts, gamma: float) -> list[float]:
    """gamma to the number of counted steps since the episode began."""
    ages, age = [], 0
    for ended, c in zip(over, counts, strict=True):
        ages.append(gamma**age)
        age = 0 if ended and c else age + (1 if c else 0)
    return ages
