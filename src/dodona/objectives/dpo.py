"""Direct preference optimisation: a policy from pairs of answers, without a reward model in between.

If preferences follow Bradley and Terry with a reward r, the policy that maximises E[r] - beta KL(pi || ref) has
r = beta log(pi / ref) + const. So the log ratio is the reward, and the pairs are fitted with it directly.

Source: Rafailov et al. 2023, arXiv:2305.18290, sec. 4.
Not here: where pairs come from (language/long2short.py), the trainer (language/dpo.py), the reward model that is
fitted instead (preference.py).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dodona.core.inputs import check_detached, check_range, check_shapes
from dodona.core.reductions import masked_mean


def dpo_loss(
    logp_chosen: Float[Tensor, "B"], logp_rejected: Float[Tensor, "B"], ref_chosen: Float[Tensor, "B"],
    ref_rejected: Float[Tensor, "B"], *, beta: float, label_smoothing: float = 0.0,
    denom: float | Tensor | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """The preference loss of DPO, to minimise.

    h = beta [(logp_chosen - ref_chosen) - (logp_rejected - ref_rejected)];
    mean of - (1 - e) log sigmoid(h) - e log sigmoid(-h),   e the label smoothing.

    Args:
        logp_chosen, logp_rejected: [B] log-probabilities of whole answers, sums over their tokens and not means.
        ref_chosen, ref_rejected: [B] the same under the reference.
        beta: > 0, the price of a nat of KL in units of the reward; 0.1 to 0.5 in the paper.
        label_smoothing: in [0, 0.5): the share of pairs that are believed to be the wrong way round.
        denom: pairs of the whole optimizer step.
    Returns: scalar, nats; log 2 where the policy is the reference.
    Raises: ShapeError.  TypeError: a reference that requires grad.  InputError: beta, label_smoothing.
    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7; smoothing: Mitchell 2023, "A note on DPO with noisy
        preferences".
    Oracle: by hand; the gradient over all pairs is 0 at oracles.sequences.soft_optimum (checks.kimi_k1_5).
    Cost: O(B).

    >>> same = torch.tensor([-3.0])
    >>> round(dpo_loss(same, same, same, same, beta=0.1).item(), 6)
    0.693147
    """
    check_range("(0, inf)", "The paper uses 0.1.", beta=beta)
    check_range("[0, 0.5)", "From 0.5 on the pairs would say nothing.", label_smoothing=label_smoothing)  # fmt: skip
    check_shapes(
        logp_chosen=logp_chosen, logp_rejected=logp_rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected
    )  # fmt: skip
    check_detached(ref_chosen=ref_chosen, ref_rejected=ref_rejected)
    h = beta * ((logp_chosen - ref_chosen) - (logp_rejected - ref_rejected))
    each = -torch.nn.functional.logsigmoid(h)
    if label_smoothing:
        each = (1.0 - label_smoothing) * each - label_smoothing * torch.nn.functional.logsigmoid(-h)
    return masked_mean(each, denom=denom)
