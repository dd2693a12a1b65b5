"""Online mirror descent: regress the log ratio of whole answers on their reward.

The step max E_pi[r] - tau KL(pi || ref) has the solution pi* = ref exp(r / tau) / Z, so for every answer
r - tau log Z = tau log(pi* / ref). Training asks exactly that of the policy, on samples of the reference;
no critic, no ratio clip, and data of any full-support sampler have the same minimiser.

Not here: where samples come from, the restart of the optimizer at each iteration (language/kimi.py).
Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.3.
"""

from typing import Literal

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from dodona.core.inputs import check_choice, check_detached, check_range, check_shapes
from dodona.core.reductions import masked_mean, masked_sum
from dodona.errors import InputError
from dodona.objectives._groups import Groups, groups

LOG_Z = ("mean", "logmeanexp", "exact")


def kimi_loss(
    logp: Float[Tensor, "B T"], logp_ref: Float[Tensor, "B T"], rewards: Float[Tensor, "B"],
    group: Integer[Tensor, "..."], mask: Shaped[Tensor, "B T"] | None = None, *, tau: float,
    log_z: Literal["mean", "logmeanexp", "exact"] = "mean", tau_log_z: Float[Tensor, "B"] | None = None,
    baseline: Literal["mean", "loo"] = "mean", form: Literal["eq3", "squared"] = "eq3",
    denom: float | Tensor | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """The mirror-descent surrogate of Kimi k1.5, to minimise.

    L = sum_t (logp - logp_ref), over the row;  b = the estimate of tau log Z.
        eq3       - mean [ (r - b) L - tau / 2 L^2 ]        what the report's eq. 3 ascends
        squared     mean   (r - b - tau L)^2                its gradient is 2 tau times that of eq3

    Args:
        logp: [B, T] of the policy in training.  logp_ref: [B, T] of the policy that sampled.
        rewards: [B] of whole answers.  group: [B], rows with one number share a prompt.
        mask: [B, T], 1 = counts.
        tau: > 0, reward units; the report prints none. 0.5 for rewards of 0 and 1 is ours.
        log_z: b is the group's "mean" reward (the report's choice, and the limit of large tau),
            "logmeanexp" tau log mean exp(r / tau), or "exact", given in tau_log_z.
        tau_log_z: [B] tau log Z of each row's prompt, for "exact".
        baseline: the row itself is in its b ("mean", of the report), or left out ("loo").
        denom: rows of the whole optimizer step.
    Returns: scalar; reward units, squared for "squared".
    Raises:
        ShapeError, TypeError: shapes; logp_ref or rewards requires grad.
        InputError: tau; a switch; a group of one row with "loo"; tau_log_z missing or not wanted.
    Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.3.2 and eq. 3.
    Oracle: oracles.sequences.kimi_fixed_point, oracles.sequences.group_expectation.  Cost: O(B T).
    """
    check_choice(LOG_Z, log_z=log_z)
    check_choice(("mean", "loo"), baseline=baseline)
    check_choice(("eq3", "squared"), form=form)
    check_range("(0, inf)", "It is in reward units; 0.5 suits rewards of 0 and 1.", tau=tau)
    check_shapes(logp=logp, logp_ref=logp_ref)
    check_detached(logp_ref=logp_ref, rewards=rewards, tau_log_z=tau_log_z)
    if (log_z == "exact") != (tau_log_z is not None):
        raise InputError("tau_log_z goes with log_z='exact', and log_z='exact' needs tau_log_z.")
    log_ratio = masked_sum(logp - logp_ref, mask, dim=1)
    if tau_log_z is None:
        b = group_log_z(rewards, group, tau=tau, log_z=log_z, baseline=baseline)
    else:
        check_shapes(rewards=rewards, tau_log_z=tau_log_z)
        b = tau_log_z
    gain = rewards - b
    if form == "squared":
        loss = (gain - tau * log_ratio) ** 2
    else:
        loss = -(gain * log_ratio - 0.5 * tau * log_ratio**2)
    rows = None if mask is None else mask.bool().any(1)
    return masked_mean(loss, rows, denom=denom)


def group_log_z(
    rewards: Float[Tensor, "B"], group: Integer[Tensor, "..."], *, tau: float, log_z: str = "mean",
    baseline: str = "mean",
) -> Float[Tensor, "B"]:  # fmt: skip
    """b of every row: tau log Z of its prompt, estimated from the rewards of its group.

    Of whole groups: a minibatch that cuts them must be given what the collection says (kimi_loss, "exact").

    Args, Raises, Source: as kimi_loss.  Oracle: as kimi_loss.  Cost: O(B log B).
    """
    members = groups(group, rewards, **_SMALLEST[baseline])
    return _estimate(rewards, members, tau, log_z, baseline)


def soft_optimum(
    logp_ref: Float[Tensor, "... N"], rewards: Float[Tensor, "... N"], *, tau: float
) -> tuple[Float[Tensor, "... N"], Float[Tensor, "..."]]:
    """The solution of max_pi E[r] - tau KL(pi || ref) over N outcomes: ref exp(r / tau) / Z.

    Args:
        logp_ref: log-probabilities of all N outcomes (they sum to one).
        rewards: of each outcome.  tau: > 0, reward units.
    Returns: log pi*, and tau log Z, which is the value E_{pi*}[r] - tau KL(pi* || ref).
    Raises: ShapeError.  InputError: tau.
    Source: Kimi Team 2025, sec. 2.3.1; Rafailov et al. 2023, arXiv:2305.18290, eq. 4.
    Oracle: oracles.sequences.exact_objective; mdp.soft_optimality on the token MDP.  Cost: O(size).
    """
    check_range("(0, inf)", tau=tau)
    check_shapes(logp_ref=logp_ref, rewards=rewards)
    tilted = logp_ref + rewards / tau
    log_z = torch.logsumexp(tilted, dim=-1)
    return tilted - log_z[..., None], tau * log_z


# ---------------------------------------------------------------------- private
_SMALLEST = {
    "mean": {"smallest": 1},
    "loo": {"smallest": 2, "why": "without the row itself nothing is left."},
}


def _estimate(rewards: Tensor, of: Groups, tau: float, log_z: str, baseline: str) -> Tensor:
    """b of each row: tau log Z from the rewards of its group."""
    mine, size = baseline == "mean", of.size.to(rewards.dtype)
    count = size if mine else size - 1.0
    if log_z == "mean":
        return (of.sum(rewards) - (0.0 if mine else rewards)) / count
    if mine:
        top = of.max(rewards)
        return top + tau * torch.log(of.sum(torch.exp((rewards - top) / tau)) / count)
    # the largest of the others is not the group's where the row itself is the largest: pair by pair
    same = (of.index[:, None] == of.index[None, :]).fill_diagonal_(False)
    others = torch.where(same, (rewards / tau)[None, :], -float("inf"))
    return tau * (torch.logsumexp(others, dim=1) - torch.log(count))
