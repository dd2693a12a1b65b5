"""Losses on pairs: what makes a reward model rank answers as those did who compared them.

    P(chosen beats rejected) = sigmoid(r_chosen - r_rejected)

Only differences of rewards are ever seen, so a constant of each prompt is free; the centring term fixes it.

Source: Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, eq. 1; Zheng et al. 2023, arXiv:2307.04964,
eq. 1 and 2.
Not here: the model and its trainer (language/reward_model.py), preferences without a reward model (dpo.py).
"""

import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from dodona.core.inputs import check_detached, check_range, check_shapes
from dodona.core.reductions import masked_mean


def pairwise_reward_loss(
    rewards_chosen: Float[Tensor, "B"], rewards_rejected: Float[Tensor, "B"],
    mask: Shaped[Tensor, "B"] | None = None, *, margin: float | Float[Tensor, "B"] = 0.0,
    center_coef: float = 0.0, denom: float | Tensor | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """Minus the log-likelihood of the comparisons under Bradley and Terry, to minimise.

    mean [ - log sigmoid(d - margin) + center_coef (r_chosen + r_rejected)^2 ],   d = r_chosen - r_rejected.

    Args:
        rewards_chosen, rewards_rejected: [B], with gradient, reward units (1 unit: odds of e).
        mask: [B], 1 = counts; a float weighs, as if the pair came that often.
        margin: how far apart they should be, reward units; a number, or [B] for pairs that differ by degrees.
        center_coef: >= 0; draws the two towards opposite signs, which fixes the free constant. 0.01 in the source.
        denom: pairs of the whole optimizer step, see core.reductions.
    Returns: a scalar; its slope in d is - sigmoid(margin - d), alive however wrong a pair is ranked.
    Raises: ShapeError.  TypeError: a margin with gradient.  InputError: center_coef.
    Source: see the module; the margin is Touvron et al. 2023, arXiv:2307.09288, eq. 2, the centring term Eisenstein
        et al. 2023, arXiv:2312.09244, sec. 5.
    Oracle: oracles.preference.pairwise_loss, and oracles.preference.bradley_terry for its minimum.  Cost: O(B).

    >>> import torch
    >>> round(pairwise_reward_loss(torch.tensor([1.3]), torch.tensor([0.0])).item(), 6)
    0.241008
    """
    check_shapes(rewards_chosen=rewards_chosen, rewards_rejected=rewards_rejected)
    check_range("[0, inf)", "0 leaves the constant free.", center_coef=center_coef)
    if isinstance(margin, Tensor):
        check_shapes(rewards_chosen=rewards_chosen, margin=margin)
        check_detached(margin=margin)
    # not log(sigmoid): its gradient dies where a pair is very wrong
    each = -F.logsigmoid(rewards_chosen - rewards_rejected - margin)
    if center_coef:
        each = each + center_coef * (rewards_chosen + rewards_rejected) ** 2
    return masked_mean(each, mask, denom=denom)


def reward_model_loss(
    rewards_chosen: Float[Tensor, "B"], rewards_rejected: Float[Tensor, "B"], logp_chosen: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"], *, lm_coef: float = 1.0, margin: float | Float[Tensor, "B"] = 0.0,
    center_coef: float = 0.0, denom: float | Tensor | None = None, denom_tokens: float | Tensor | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """The comparisons, and besides the language-model loss on the chosen answers; to minimise.

    pairwise_reward_loss - lm_coef mean over counted tokens of log p(y_chosen,t | x, y_chosen,<t).
    The paper prints the second term with a plus and the first without its minus; as something to minimise both are
    negative.

    Args:
        rewards_chosen, rewards_rejected, margin, center_coef, denom: as pairwise_reward_loss.
        logp_chosen: [B, T] of the same trunk's language-model head, with gradient, nats.
        mask: [B, T], 1 = a token of the chosen answer.
        lm_coef: >= 0; 1 in the source.
        denom_tokens: counted tokens of the whole optimizer step.
    Raises: as pairwise_reward_loss.  ShapeError: not one row of tokens for each pair.
    Source: Zheng et al. 2023, arXiv:2307.04964, eq. 2.  Oracle: the sum of its parts (tests).  Cost: O(B T).
    """
    check_range("[0, inf)", "1 in the paper.", lm_coef=lm_coef)
    check_shapes(rewards_chosen=rewards_chosen, **{"rows of logp_chosen": logp_chosen[:, 0]})
    loss = pairwise_reward_loss(
        rewards_chosen, rewards_rejected, margin=margin, center_coef=center_coef, denom=denom
    )
    return loss - lm_coef * masked_mean(logp_chosen, mask, denom=denom_tokens)
