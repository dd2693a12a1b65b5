"""Answers of TM-40 as a Batch, and what an objective's gradient is on them: on one batch, or in expectation.

Source: card grpo, sec. 4.  Not here: the truth (oracles.sequences).
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona import objectives
from dodona.checks._verify_candidates import Batches, Groups
from dodona.core.batch import Batch
from dodona.oracles import sequences as exact


@cache
def problem() -> exact.TokenProblem:
    return exact.tm40()


def answers(members: np.ndarray, group: np.ndarray, *, rewards: np.ndarray | None = None) -> Batch:
    """[B] numbers of answers -> their Batch, on policy: logp_old is the policy's own."""
    x = Batches(problem())(members)
    mask = x["mask"]
    terminated = torch.zeros_like(mask)
    terminated[torch.arange(len(mask)), mask.sum(1) - 1] = True
    scores = x["rewards"] if rewards is None else torch.tensor(rewards)
    return Batch(
        obs={"prompt": torch.zeros(len(mask), 1, dtype=torch.int64)},
        actions=torch.zeros(mask.shape, dtype=torch.int64), mask=mask, logp_old=x["logp_old"],
        logp_ref=x["logp_ref"], rewards=objectives.pay_at_the_end(scores, mask), terminated=terminated,
        truncated=torch.zeros_like(mask), group=torch.tensor(group),
    )  # fmt: skip


def weights(
    objective: Any, logp: Tensor, batch: Batch, *, denom: float | None = None
) -> np.ndarray:
    """[B, T] minus the slope in logp of the objective's loss on a prepared batch."""
    logp = logp.clone().requires_grad_()
    loss = torch.stack(list(objective.terms(logp, batch, denom=denom).values())).sum()
    (slope,) = torch.autograd.grad(loss, logp)
    return -slope.numpy()


@cache
def all_groups(size: int) -> tuple[Groups, Batch]:
    """Every group of that size, each under a number of its own, as one batch."""
    groups = Groups(problem(), size)
    numbers = np.repeat(np.arange(len(groups.members)), size)
    return groups, answers(groups.members.ravel(), numbers)


def expected_ascent(objective: Any, size: int) -> np.ndarray:
    """[H, V] the expected gradient over all groups: a mean over rows falls apart into its groups."""
    assert objective.reduction != "token", "a mean over tokens mixes the groups of one batch"
    groups, batch = all_groups(size)
    found = weights(objective, batch.logp_old, objective.prepare(batch))
    return groups.gradient(found.reshape(*groups.members.shape, -1) * len(groups.members))
