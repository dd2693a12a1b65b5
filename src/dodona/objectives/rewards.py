"""What happens to a score before it becomes an advantage: KL penalty, scale, length, repetition.

Rows are answers; a score belongs to the whole answer and is paid on its last counted token, found by the
mask and never by a token's number. Everything here is a constant for the gradient.

Not here: advantages (advantages.py).
Source: Zheng et al. 2023, arXiv:2307.04964 (penalty, scale, clip); Yu et al. 2025, arXiv:2503.14476
(overlong); Kimi Team 2025, arXiv:2501.12599 (length).
"""

import warnings
from typing import Literal

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from dodona.core.inputs import (
    check_choice,
    check_count,
    check_detached,
    check_finite,
    check_mask,
    check_range,
    check_shapes,
)
from dodona.core.statistics import RunningMoments
from dodona.errors import InputError, ShapeError
from dodona.objectives._groups import groups


def kl_penalized_rewards(
    scores: Float[Tensor, "B"], logp_old: Float[Tensor, "B T"], logp_ref: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"], *, kl_coef: float,
) -> Float[Tensor, "B T"]:  # fmt: skip
    """r_t = - kl_coef (logp_old - logp_ref) + score on the last counted token.

    Summed over the row it estimates score - kl_coef KL(policy || reference) without bias, and its
    policy gradient with reward-to-go is exactly that objective's.

    Args:
        scores: [B] of whole answers.  logp_old, logp_ref: [B, T] of the tokens sampled.
        mask: [B, T], 1 = a token of the answer.  kl_coef: >= 0; 0.05 in the PPO-max study.
    Returns: [B, T], 0 where masked.
    Raises: ShapeError.  TypeError: something requires grad.  InputError: kl_coef; a row without a token.
    Source: Zheng et al. 2023, arXiv:2307.04964, eq. 12 (trick 1).
    Oracle: oracles.sequences.exact_objective.  Cost: O(B T).
    """
    check_range("[0, inf)", kl_coef=kl_coef)
    check_detached(scores=scores, logp_old=logp_old, logp_ref=logp_ref)
    check_shapes(logp_old=logp_old, logp_ref=logp_ref)
    return pay_at_the_end(scores, mask) - kl_coef * torch.where(mask.bool(), logp_old - logp_ref, 0.0)  # fmt: skip


def pay_at_the_end(
    scores: Float[Tensor, "..."], mask: Shaped[Tensor, "..."]
) -> Float[Tensor, "B T"]:
    """[B, T] rewards, 0 but for each row's score on its last counted token.

    Raises: ShapeError: not one score per row.  InputError: a row without a counted token.
    Source: ours.  Oracle: Batch.total_rewards.  Cost: O(B T).

    >>> pay_at_the_end(torch.tensor([2.0]), torch.tensor([[True, True, False]]))
    tensor([[0., 2., 0.]])
    """
    if scores.shape != mask.shape[:1]:
        raise ShapeError(
            f"scores has shape {tuple(scores.shape)} and mask has shape {tuple(mask.shape)}: one score per row."
        )
    check_mask(mask, torch.empty(mask.shape, device="meta"))
    counts = mask.bool()
    empty = ~counts.any(1)
    if bool(empty.any()):
        raise InputError(f"row {int(empty.nonzero()[0])} has no counted token to pay its score on.")
    columns = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(counts, columns, -1).amax(1)
    return torch.where(columns == last[:, None], scores[:, None], 0.0)


def normalize_rewards(
    scores: Float[Tensor, "B"], moments: RunningMoments, *,
    mode: Literal["whiten", "scale"] = "whiten", clip: float | None = None,
) -> Float[Tensor, "B"]:  # fmt: skip
    """Scores in units of their own history, which takes in this batch first.

    whiten: (R - mean) / std;  scale: R / std; then clipped to [-clip, clip]. Fewer than two scores, or a
    constant, have no scale: they are only centred (whiten) or left (scale), with a warning.

    Args:
        moments: the history; changed.  mode: which.  clip: > 0, standard deviations; None: none.
    Raises: InputError: mode, clip.  NonFiniteError: a score.
    Source: Zheng et al. 2023, arXiv:2307.04964, eq. 14 and 15 (tricks 4 and 5).
    Oracle: oracles.statistics.moments.  Cost: O(B).
    """
    check_choice(("whiten", "scale"), mode=mode)
    if clip is not None:
        check_range("(0, inf)", "It is in standard deviations.", clip=clip)
    check_finite(scores=scores)
    moments.update(scores)
    std = float(moments.std) if moments.count > 1 else 0.0
    out = scores - float(moments.mean) if mode == "whiten" else scores
    if std > 0:
        out = out / std
    else:
        warnings.warn(
            f"{int(moments.count)} scores without spread have no scale, they are not divided. Score more "
            "answers before the first update, or use reward_norm='none'.",
            RuntimeWarning,
            stacklevel=2,
        )
    return out if clip is None else out.clamp(-clip, clip)


def overlong_penalty(
    lengths: Integer[Tensor, "B"], *, max_length: int, cache: int
) -> Float[Tensor, "B"]:
    """0 up to max_length - cache, falling to -1 at max_length, -1 beyond: added to the score.

    Args:
        lengths: [B] tokens of each answer.  max_length: tokens.  cache: tokens over which it falls.
    Raises: InputError: cache not in 1..max_length.
    Source: Yu et al. 2025, arXiv:2503.14476, eq. 13; there 20480 and 4096.
    Oracle: by hand.  Cost: O(B).

    >>> overlong_penalty(torch.tensor([6, 9, 12]), max_length=10, cache=4)
    tensor([ 0.0000, -0.7500, -1.0000])
    """
    check_count(max_length=max_length, cache=cache)
    if cache > max_length:
        raise InputError(
            f"cache must be at most max_length = {max_length}, got {cache}: the penalty begins at "
            "max_length - cache tokens."
        )
    return ((max_length - cache - lengths) / cache).clamp(-1.0, 0.0)


def length_rewards(
    lengths: Integer[Tensor, "B"], correct: Shaped[Tensor, "B"], group: Integer[Tensor, "B"], *, weight: float = 1.0,
) -> Float[Tensor, "B"]:  # fmt: skip
    """Short among the answers to one prompt is good, long is bad, and wrong is never rewarded.

    lambda = 1/2 - (len - min) / (max - min) over the group, 0 where all are as long;
    weight * (lambda if correct else min(0, lambda)).

    Args:
        lengths: [B] tokens.  correct: [B] bool.  group: [B].
        weight: >= 0; the report prints none. Train without it first.
    Raises: ShapeError.  TypeError: correct not bool.  InputError: weight.
    Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.3.3.  Oracle: by hand.  Cost: O(B).

    >>> length_rewards(torch.tensor([10, 20, 30, 20]), torch.tensor([True, True, False, False]),
    ...                torch.zeros(4, dtype=torch.int64))
    tensor([ 0.5000,  0.0000, -0.5000,  0.0000])
    """
    check_range("[0, inf)", weight=weight)
    check_shapes(lengths=lengths, correct=correct)
    if correct.dtype != torch.bool:
        raise TypeError(f"correct must be bool, got {correct.dtype}.")
    x = lengths.to(torch.get_default_dtype())
    of = groups(group, x)
    low, high = of.min(x), of.max(x)
    spread = high - low
    share = torch.where(spread > 0, 0.5 - (x - low) / spread.clamp(min=1.0), 0.0)
    return weight * torch.where(correct, share, share.clamp(max=0.0))


def repetition_penalty(
    tokens: Integer[Tensor, "B T"], mask: Shaped[Tensor, "B T"], *, ngram: int = 3
) -> Float[Tensor, "B"]:
    """- (1 - distinct / all) of the n-grams of each answer: 0 without repeats, near -1 in a loop.

    Args:
        tokens: [B, T].  mask: [B, T], 1 = a token of the answer.  ngram: >= 1 tokens.
    Returns: [B] in (-1, 0]; 0 for answers shorter than ngram.
    Raises: ShapeError.  InputError: ngram.
    Source: the distinct-n measure of Li et al. 2016, arXiv:1510.03055.  Oracle: by sets.  Cost: O(B T).
    """
    check_count(ngram=ngram)
    check_mask(mask, tokens)
    out = []
    for row, counts in zip(tokens, mask.bool(), strict=True):
        grams = row[counts].unfold(0, ngram, 1) if int(counts.sum()) >= ngram else row[:0]
        out.append(len(grams.unique(dim=0)) / len(grams) - 1.0 if len(grams) else 0.0)
    return torch.tensor(out, device=tokens.device)
