"""From rewards to advantages, as an objective's switches say: once per collection, without gradient.

    mask what the switches drop -> normalise scores -> KL into the reward -> advantages -> scale and clip

Not here: the mathematics of each step (rewards.py, advantages.py, returns.py).
Source: of each switch, objective.PolicyObjective.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.distributed import world_size
from dodona.core.inputs import check_finite
from dodona.core.reductions import masked_mean, masked_sum, whiten
from dodona.core.statistics import RunningMoments
from dodona.errors import InputError
from dodona.objectives.advantages import (
    gae,
    group_advantages,
    informative_groups,
    process_advantages,
)
from dodona.objectives.mirror import group_log_z
from dodona.objectives.returns import discounted_returns
from dodona.objectives.rewards import normalize_rewards, pay_at_the_end

if TYPE_CHECKING:
    from dodona.objectives.objective import PolicyObjective

EPS = 1e-8  # of advantage normalisation: PPO's code bases


def prepare(objective: "PolicyObjective", batch: Batch, moments: RunningMoments | None) -> Batch:
    """See PolicyObjective.prepare."""
    _require(objective, batch)
    _require_one_process(objective)
    with torch.no_grad():
        batch = _masked(objective, batch)
        _check_counted(batch)
        if objective.advantage == "given":
            return batch.replace(advantages=_finish(objective, batch.advantages, batch))
        rewards = _rewards(objective, batch, moments)
        if objective.surrogate == "mirror":
            # the whole answer's gain over its group, on every token of its row: the loss reads one of them. Here,
            # because a minibatch may hold a part of the group
            total = masked_sum(rewards, batch.mask, dim=1)
            gain = total - group_log_z(
                total, batch.group, tau=objective.tau, log_z=objective.log_z,
                baseline="loo" if objective.baseline == "loo" else "mean",
            )  # fmt: skip
            return batch.replace(advantages=gain[:, None].expand_as(rewards).contiguous())
        advantages, returns = _advantages(objective, rewards, batch)
        batch = batch.replace(advantages=_finish(objective, advantages, batch), returns=returns)
        return batch if objective.keep_best is None else _best(batch, objective.keep_best)


def _require(objective: "PolicyObjective", batch: Batch) -> None:
    wanted = {
        "advantages": (objective.advantage == "given", "advantage='given'"),
        "rewards": (objective.advantage != "given", f"advantage={objective.advantage!r}"),
        "values": (objective.advantage == "gae" or objective.baseline == "value", "its critic"),
        "group": (objective.advantage in ("group", "process") or objective.surrogate == "mirror", "its groups"),
        "reward_mask": (objective.advantage == "process", "advantage='process'"),
        "terminated": (objective.advantage in ("gae", "returns"), "the end of episodes"),
        "logp_old": (objective.ratio != "none" and objective.ratio_to == "old" or objective.kl == "reward", "its ratio"),
        "logp_ref": (objective.needs_reference, "its reference"),
    }  # fmt: skip
    for name, (needed, why) in wanted.items():
        if needed and getattr(batch, name) is None:
            raise InputError(
                f"objective '{objective.name}' needs batch.{name} for {why}, and the batch has none."
            )


def _require_one_process(objective: "PolicyObjective") -> None:
    """Statistics over a collection are taken of the rows that are here; a share of them has others."""
    wide = {
        "scale='whiten'": objective.scale == "whiten", "scale='batch'": objective.scale == "batch",
        "baseline='mean' of returns": objective.baseline == "mean" and objective.advantage == "returns",
    }  # fmt: skip
    for name, wanted in wide.items():
        if wanted and world_size() > 1:
            raise InputError(
                f"objective '{objective.name}' with {name} looks at the whole collection, and each of {world_size()} "
                "processes has a share of it. Use statistics of groups (scale='group'), or one process."
            )


def _masked(objective: "PolicyObjective", batch: Batch) -> Batch:
    keep = None
    if objective.filter_groups:
        keep = informative_groups(batch.total_rewards(), batch.group, tol=objective.tol)
    if objective.mask_truncated and batch.truncated is not None:
        cut = (batch.truncated & batch.mask.bool()).any(1)
        if batch.terminated is not None:
            cut &= ~(batch.terminated & batch.mask.bool()).any(1)
        keep = ~cut if keep is None else keep & ~cut
    if keep is None:
        return batch
    return batch.replace(mask=torch.where(keep[:, None], batch.mask, torch.zeros_like(batch.mask)))  # fmt: skip


def _rewards(objective: "PolicyObjective", batch: Batch, moments: RunningMoments | None) -> Tensor:
    rewards, mask = batch.rewards, batch.mask
    if objective.reward_norm != "none":
        if moments is None:
            raise InputError(
                f"reward_norm={objective.reward_norm!r} needs the history of scores: prepare(batch, "
                "moments=RunningMoments())."
            )
        rows = mask.bool().any(1)  # a row that is masked whole has no score and no last token
        # without rows too: the history may be one that several processes share
        scores = normalize_rewards(
            batch.total_rewards()[rows],
            moments,
            mode=objective.reward_norm,
            clip=objective.reward_clip,
        )
        rewards = torch.zeros_like(rewards)
        if len(scores):
            rewards[rows] = pay_at_the_end(scores, mask[rows]).to(rewards)
    given = mask.bool() if batch.reward_mask is None else mask.bool() & batch.reward_mask.bool()
    rewards = torch.where(given, rewards, 0.0)
    if objective.kl == "reward":
        rewards = rewards - objective.kl_coef * torch.where(
            mask.bool(), batch.logp_old - batch.logp_ref, 0.0
        )
    return rewards


def _advantages(
    objective: "PolicyObjective", rewards: Tensor, batch: Batch
) -> tuple[Tensor, Tensor | None]:
    mask, time = batch.mask, {"mask": batch.mask, "time_dim": 1}
    if objective.advantage in ("group", "process"):
        scale = "none" if objective.scale in ("whiten", "minibatch") else objective.scale
        if objective.advantage == "process":
            return process_advantages(rewards, batch.reward_mask, batch.group, ddof=objective.ddof), None  # fmt: skip
        each = group_advantages(
            masked_sum(rewards, mask, dim=1), batch.group, baseline=objective.baseline, scale=scale,
            ddof=objective.ddof, tol=objective.tol,
        )  # fmt: skip
        return each[:, None].expand_as(rewards), None
    truncated = batch.truncated if batch.truncated is not None else torch.zeros_like(batch.terminated)  # fmt: skip
    if objective.advantage == "gae":
        values = batch.values if batch.next_values is not None else _with_end(objective, batch)
        advantages = gae(
            rewards, values, batch.terminated, truncated, gamma=objective.gamma,
            gae_lambda=objective.gae_lambda, next_values=batch.next_values, **time,
        )  # fmt: skip
        return advantages, advantages + batch.values
    after = {} if batch.next_values is None else {"next_values": batch.next_values}
    returns = discounted_returns(rewards, batch.terminated, truncated, gamma=objective.gamma, **after, **time)  # fmt: skip
    if objective.baseline == "value":
        return returns - batch.values, returns
    if objective.baseline == "mean":
        return returns - masked_mean(returns, mask), returns
    return returns, returns


def _with_end(objective: "PolicyObjective", batch: Batch) -> Tensor:
    """[B, T+1] values of whole answers: each ends, and nothing is worth anything after the end."""
    counts = batch.mask.bool()
    columns = torch.arange(counts.shape[1], device=counts.device)
    last = torch.where(counts, columns, -1).amax(1)
    open_end = counts.any(1) & ~batch.terminated.gather(1, last.clamp(min=0)[:, None])[:, 0]
    if bool(open_end.any()):
        raise InputError(
            f"objective '{objective.name}': row {int(open_end.nonzero()[0])} does not end in its last counted "
            "column, so its advantages need batch.next_values, v of the true successors."
        )
    return torch.cat([batch.values, torch.zeros_like(batch.values[:, :1])], dim=1)


def _finish(objective: "PolicyObjective", advantages: Tensor, batch: Batch) -> Tensor:
    mask = batch.mask
    if objective.discount_states:
        # a power of integers would be float32
        advantages = advantages * objective.gamma ** _step_numbers(batch).to(advantages.dtype)
    if objective.scale == "whiten":
        advantages = whiten(advantages, mask, ddof=objective.ddof, eps=EPS)
    if objective.advantage_clip is not None:
        advantages = advantages.clamp(-objective.advantage_clip, objective.advantage_clip)
    return torch.where(mask.bool(), advantages, 0.0)


def _best(batch: Batch, keep: int) -> Batch:
    """Of each group the rows with the largest advantages above 0, so many at most; the others count no more."""
    counts = batch.mask.bool()
    # an answer's advantage is the same on all its tokens
    each = torch.where(counts, batch.advantages, -torch.inf).amax(1)
    order = each.argsort(descending=True, stable=True)
    order = order[batch.group[order].argsort(stable=True)]
    number = batch.group[order]
    first = torch.searchsorted(number, number)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - first
    chosen = (rank < keep) & (each > 0)
    return batch.replace(mask=torch.where(chosen[:, None], batch.mask, torch.zeros_like(batch.mask)))  # fmt: skip


def _step_numbers(batch: Batch) -> Tensor:
    """[B, T] steps since the episode began, counted steps only; the row begins an episode."""
    counts = batch.mask.bool()
    ends = torch.zeros_like(counts) if batch.terminated is None else batch.terminated & counts
    if batch.truncated is not None:
        ends = ends | (batch.truncated & counts)
    numbers = torch.zeros(counts.shape, dtype=torch.int64, device=counts.device)
    t = numbers[:, 0]
    for column in range(counts.shape[1]):
        numbers[:, column] = t
        t = torch.where(ends[:, column], 0, t + counts[:, column])
    return numbers


def _check_counted(batch: Batch) -> None:
    """What counts must be finite; under the mask anything may stand."""
    keep = batch.mask.bool()
    for name in ("rewards", "logp_old", "logp_ref", "values", "advantages"):
        x = getattr(batch, name)
        if x is not None and not bool(torch.isfinite(x).logical_or(~keep).all()):
            check_finite(**{f"batch.{name}": torch.where(keep, x, 0.0)})
