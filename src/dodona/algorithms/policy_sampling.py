"""Rejection on policies: exact samples of pi_ref exp(r / tau), and speculative decoding.

Both are rejection_sample with the reference (the draft) as proposal; here with the words of language
models. Exactness needs a true upper bound of the reward: the largest reward seen so far, as RSO uses,
gives another law.

Source: Liu et al., arXiv:2309.06657 (RSO); Leviathan et al., arXiv:2211.17192 and Chen et al.,
arXiv:2302.01318 (speculative decoding).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from dodona.algorithms._draws import uniforms
from dodona.algorithms.rejection import RejectionStats, rejection_sample
from dodona.core.inputs import check_range
from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import EnvelopeError, InputError, ShapeError

SUM_SLACK = 1e-6  # rows of float32 softmax add up to one within this


def tilted_sample(
    num_samples: int, reward: Callable[[Any], Any], *, propose: Callable[[int, Any], Any], tau: float,
    max_reward: float, max_trials: int, rng: Any,
) -> tuple[Any, RejectionStats]:  # fmt: skip
    """Exact samples of pi*(y) = pi_ref(y) exp(r(y) / tau) / Z, the optimum of reward minus tau KL.

    Propose y ~ pi_ref, keep it with probability exp((r(y) - r_max) / tau). The acceptance is
    E_ref exp((r - r_max) / tau); for a 0/1 reward it falls to the pass rate as tau -> 0.

    Args:
        reward: y -> [m], finite or -inf (never to be kept).
        propose: (m, rng) -> m samples of pi_ref, an array, tensor or list.
        tau: temperature > 0, reward units.
        max_reward: a true upper bound of the reward.
        max_trials, rng: as rejection_sample.
    Raises: EnvelopeError: a reward above max_reward.  InputError: tau <= 0, max_reward not finite.
        SamplingError: max_trials spent.
    Source: Liu et al., arXiv:2309.06657, sec. 3.2, with a true bound.
    Oracle: oracles.sampling.tilted_law on enumerated answers.
    Cost: num_samples / acceptance proposals and rewards.
    """
    check_range("(0, inf)", "Small tau keeps the best only.", tau=tau)
    check_range("(-inf, inf)", max_reward=max_reward)

    def log_weight(y: Any) -> Any:
        return (reward(y) - max_reward) / tau

    try:
        return rejection_sample(
            num_samples, log_weight, propose=propose, log_proposal=lambda y: np.zeros(len(y)), log_m=0.0,
            max_trials=max_trials, rng=rng,
        )  # fmt: skip
    except EnvelopeError as error:
        got = max_reward + tau * error.excess
        raise EnvelopeError(
            f"max_reward must bound every reward, got {max_reward:.6g} and a reward of {got:.6g} at "
            f"{error.point}. The samples so far are wrong and were discarded. Use a true bound.",
            point=error.point, excess=error.excess,
        ) from None  # fmt: skip


def speculative_sample(
    draft: FloatArray, target: FloatArray, tokens: IntArray, *, rng: Any
) -> tuple[Int[np.ndarray, "B"], Bool[np.ndarray, "B"]]:
    """Turn tokens that were drawn from ``draft`` into tokens of law ``target``, keeping most.

    Keep x ~ q with probability min(1, p(x) / q(x)); otherwise draw from max(0, p - q) / TV(p, q).
    The result has law p exactly, and 1 - TV(p, q) of the drafts are kept.

    Args:
        draft, target: [B, V], rows q and p of probabilities.
        tokens: [B], drawn from the rows of draft.
        rng: numpy.random.Generator or torch.Generator.
    Returns: tokens of law target, and which drafts were kept.
    Raises:
        ShapeError: shapes that differ.
        InputError: a row that is no distribution, a token outside it or impossible under draft (the
            row is named).
    Source: Leviathan et al., arXiv:2211.17192, sec. 2.3.
    Oracle: oracles.sampling.speculative_law (both paths enumerated).  Cost: O(B), O(V) per redraw.
    """
    if draft.shape != target.shape or tokens.shape != draft.shape[:1]:
        raise ShapeError(
            "draft and target must have one shape [B, V] and tokens [B], got "
            f"{draft.shape}, {target.shape} and {tokens.shape}."
        )
    B, V = draft.shape
    for name, rows in (("draft", draft), ("target", target)):
        bad = ~((rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) <= SUM_SLACK))
        if bad.any():
            i = int(bad.argmax())
            raise InputError(
                f"row {i} of {name} must be >= 0 and add up to 1, got sum {rows[i].sum():.8g}."
            )
    rows = np.arange(B)
    outside = (tokens < 0) | (tokens >= V)
    q = np.where(outside, 0.0, draft[rows, np.where(outside, 0, tokens)])
    if (q == 0).any():
        i = int((q == 0).argmax())
        raise InputError(
            f"token {int(tokens[i])} of row {i} can not come from draft: "
            + (f"there are {V} tokens." if outside[i] else "its probability there is 0.")
        )
    u = uniforms(2 * B, rng=rng).reshape(2, B)
    out = tokens.copy()
    redo = np.flatnonzero(u[0] * q >= target[rows, tokens])
    cumulative = np.cumsum(np.maximum(target[redo] - draft[redo], 0.0), axis=1)
    # equal rows leave no residual but rounding; there the draft is a sample of the target already
    some = cumulative[:, -1] > 0
    redo, cumulative = redo[some], cumulative[some]
    out[redo] = (cumulative <= u[1, redo, None] * cumulative[:, -1:]).sum(axis=1)
    kept = np.ones(B, dtype=bool)
    kept[redo] = False
    return out, kept
