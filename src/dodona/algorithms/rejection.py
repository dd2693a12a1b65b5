"""Von Neumann's rejection: exact samples of any law that another one, scaled up, covers.

The one theorem behind points in a disc, answers of a tilted language model and speculative decoding
(the latter two in policy_sampling.py). Densities come as logarithms and need no norm; samples may be
arrays, tensors or any sequence.

Source: von Neumann 1951; Devroye, Non-Uniform Random Variate Generation, 1986, ch. II.3; Marsaglia
1977 (squeeze).
Not here: envelopes made by themselves (scipy.stats.sampling does that in one dimension).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dodona.algorithms._draws import is_torch, uniforms
from dodona.core.inputs import as_numpy, check_count, check_range, is_tensor
from dodona.core.shapes import BoolArray, FloatArray, IntArray
from dodona.errors import EnvelopeError, InputError, SamplingError, ShapeError, SqueezeError

SLACK = 1e-9  # what rounding may lift log f above log g + log M
BATCH = 1 << 15  # most candidates at a time: their densities then stay in the cache


@dataclass(frozen=True, kw_only=True)
class RejectionStats:
    """What the samples cost, and what theory says about it.

    trials: candidates judged.  accepted: how many passed; those beyond num_samples were dropped.
    target_evals: points at which the target was evaluated.
    expected_acceptance: mean acceptance probability of the candidates. It estimates Z / M as
        accepted / trials does, with less noise, and given the candidates it is the mean of it.
    """

    trials: int
    accepted: int
    target_evals: int
    expected_acceptance: float

    @property
    def acceptance(self) -> float:
        """accepted / trials; NaN when nothing was tried."""
        return self.accepted / self.trials if self.trials else math.nan


def rejection_sample(
    num_samples: int, log_target: Callable[[Any], Any], *, propose: Callable[[int, Any], Any],
    log_proposal: Callable[[Any], Any], log_m: float, log_squeeze: Callable[[Any], Any] | None = None,
    max_trials: int, rng: Any,
) -> tuple[Any, RejectionStats]:  # fmt: skip
    """Independent samples of the law f / Z, f <= M g, from a law g that can be sampled.

    Draw x ~ g and U ~ U[0, 1), keep x iff U < exp(log f(x) - log g(x) - log M). Then
    P(kept, x in A) = int_A g f / (M g) = int_A f / M: a kept x has law f / Z, a trial is kept with
    probability a = Z / M, trials per sample are geometric with mean 1 / a and variance (1 - a) / a^2.
    A squeeze s <= f keeps x at once where U < s / (M g); then f is evaluated (M - int s) / Z instead
    of M / Z times per sample.

    Args:
        num_samples: how many, >= 0.
        log_target: x -> [m], log f of m candidates; -inf where f is 0. Need not be normalised.
        propose: (m, rng) -> m candidates: an array or tensor [m, ...], or a list.
        log_proposal: x -> [m], log g; finite at what g proposes.
        log_m: log M, with log f - log g <= log M everywhere. A maximum that was only estimated biases
            the law.
        log_squeeze: x -> [m], log s, cheap; -inf where it says nothing.
        max_trials: candidates after which to give up.
        rng: numpy.random.Generator or torch.Generator, handed on to ``propose``.
    Returns: samples of the kind that ``propose`` gives, and what they cost.
    Raises:
        EnvelopeError: log f - log g - log M > 1e-9 at a candidate (point and excess are in the
            error); all samples so far are wrong and are discarded.
        SqueezeError: log s > log f at a candidate, likewise.
        SamplingError: max_trials spent; accepted and trials are named.
        InputError: NaN or +inf from a density, -inf from log_proposal (the point is named).
        ShapeError: a density that does not give one number per candidate.
    Source: von Neumann 1951; Devroye 1986, th. II.3.1 and II.3.2.
    Oracle: enumerated law on five points; binomial law of accepted; loops of oracles.sampling.
    Cost: about num_samples M / Z candidates. Every round tries what is expected to be missing, so
        there are O(log log num_samples) rounds and hardly a candidate too many.

    Half of a normal law from an exponential one; x - x^2 / 2 is at most 1/2:

    >>> half_normal, stats = rejection_sample(
    ...     1000, lambda x: -0.5 * x**2, propose=lambda m, rng: rng.standard_exponential(m),
    ...     log_proposal=lambda x: -x, log_m=0.5, max_trials=10_000, rng=np.random.default_rng(0))
    >>> len(half_normal), stats.trials >= stats.accepted >= 1000
    (1000, True)
    """
    check_count(0, num_samples=num_samples)
    check_count(max_trials=max_trials)
    check_range("(-inf, inf)", "It bounds log f - log g from above.", log_m=log_m)
    is_torch(rng)
    if num_samples == 0:
        nothing = RejectionStats(trials=0, accepted=0, target_evals=0, expected_acceptance=math.nan)
        return propose(0, rng), nothing
    parts: list[Any] = []
    trials, accepted, evaluated, chance = 0, 0, 0, 0.0
    while accepted < num_samples:
        if trials >= max_trials:
            raise SamplingError(
                f"max_trials={max_trials} are spent with {accepted} of {num_samples} samples accepted, "
                f"expected acceptance {chance / trials:.3g}. Raise max_trials, or find a proposal "
                "closer to the target.",
                accepted=accepted, trials=trials,
            )  # fmt: skip
        rate = max(chance, 1.0) / trials if trials else 1.0
        num = min(math.ceil((num_samples - accepted) / rate), BATCH, max_trials - trials)
        candidates = propose(num, rng)
        if len(candidates) != num:
            raise ShapeError(
                f"propose({num}, rng) must give {num} candidates, got {len(candidates)}."
            )
        kept, num_evaluated, expected = _judge(
            candidates, log_target, log_proposal, log_m, log_squeeze, uniforms(num, rng=rng)
        )
        parts.append(_take(candidates, np.flatnonzero(kept)[: num_samples - accepted]))
        trials += num
        accepted += int(np.count_nonzero(kept))
        evaluated += num_evaluated
        chance += expected
    stats = RejectionStats(
        trials=trials,
        accepted=accepted,
        target_evals=evaluated,
        expected_acceptance=chance / trials,
    )
    return _join(parts), stats


# ---------------------------------------------------------------------- private
def _judge(
    candidates: Any, log_target: Callable[[Any], Any], log_proposal: Callable[[Any], Any], log_m: float,
    log_squeeze: Callable[[Any], Any] | None, u: FloatArray,
) -> tuple[BoolArray, int, float]:  # fmt: skip
    """Which candidates are kept, how often f was evaluated, the sum of acceptance probabilities."""
    num = len(candidates)
    log_hat = _log_density(log_proposal, candidates, num, "log_proposal")
    never = log_hat == -math.inf
    if never.any():
        i = int(never.argmax())
        raise InputError(
            f"log_proposal is -inf at the point {_point(candidates, i)} that propose gave: propose "
            "and log_proposal are not the same law."
        )
    log_hat = log_hat + log_m
    if log_squeeze is None:
        ratio = _log_density(log_target, candidates, num, "log_target") - log_hat
        _inside_envelope(ratio, candidates)
        chance = np.exp(np.minimum(ratio, 0.0))
        return u < chance, num, float(chance.sum())
    low = _log_density(log_squeeze, candidates, num, "log_squeeze") - log_hat
    # a squeeze above the envelope proves one of the two wrong; f tells which
    squeezed = np.exp(np.minimum(low, 0.0))
    kept = (u < squeezed) & (low <= SLACK)
    rows = np.flatnonzero(~kept)
    rest, low, squeezed = _take(candidates, rows), low[rows], squeezed[rows]
    ratio = _log_density(log_target, rest, len(rows), "log_target") - log_hat[rows]
    _inside_envelope(ratio, rest)
    over = low > ratio + SLACK
    if over.any():
        i = int(over.argmax())
        excess, point = float(low[i] - ratio[i]), _point(rest, i)
        raise SqueezeError(
            f"the squeeze must stay below the target, got log s - log f = {excess:.6g} at {point}. "
            "The samples so far are wrong and were discarded. Lower log_squeeze there.",
            point=point, excess=excess,
        )  # fmt: skip
    chance = np.exp(np.minimum(ratio, 0.0))
    kept[rows] = u[rows] < chance
    # once the squeeze has not kept a candidate, f does so with chance (f - s) / (M g - s)
    expected = (
        num - len(rows) + float(np.maximum((chance - squeezed) / (1.0 - squeezed), 0.0).sum())
    )
    return kept, len(rows), expected


def _inside_envelope(ratio: FloatArray, candidates: Any) -> None:
    over = ratio > SLACK
    if over.any():
        i = int(over.argmax())
        excess, point = float(ratio[i]), _point(candidates, i)
        raise EnvelopeError(
            f"the envelope must cover the target, got log f - log g - log M = {excess:.6g} > 0 at "
            f"{point}. The samples so far are wrong and were discarded. Raise log_m by at least that.",
            point=point, excess=excess,
        )  # fmt: skip


def _log_density(density: Callable[[Any], Any], candidates: Any, num: int, name: str) -> FloatArray:
    """Its numbers on the host, in float64. [num]"""
    values = as_numpy(density(candidates)).astype(np.float64, copy=False)
    if values.shape != (num,):
        raise ShapeError(
            f"{name} must give one number per candidate, shape ({num},), got shape {values.shape}."
        )
    bad = ~(values < math.inf)
    if bad.any():
        i = int(bad.argmax())
        raise InputError(
            f"{name} must give numbers below +inf, got {values[i]} at {_point(candidates, i)}."
        )
    return values


def _point(candidates: Any, i: int) -> Any:
    point = candidates[i]
    return point.tolist() if hasattr(point, "tolist") else point


def _take(samples: Any, rows: IntArray) -> Any:
    if isinstance(samples, np.ndarray):
        return samples[rows]
    if is_tensor(samples):
        import torch

        return samples[torch.as_tensor(rows, device=samples.device)]
    return [samples[i] for i in rows]


def _join(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    if is_tensor(parts[0]):
        import torch

        return torch.cat(parts)
    return [sample for part in parts for sample in part]
