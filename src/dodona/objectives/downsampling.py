"""Which answers of a group are worth a gradient: draw many, train on the few whose rewards differ most.

Drawing an answer costs a third of training on it, and where one answer of many is right the others say the same
again and again. Of all subsets of m answers the one with the largest variance of rewards keeps the comparison
and drops the repetition.

Source: Xu et al. 2025, arXiv:2504.13818 (max-variance down-sampling; theorem 1: the subset is made of the
highest and the lowest rewards).
Not here: groups without a difference (advantages.informative_groups).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dodona.core.inputs import check_count, check_detached, check_finite
from dodona.errors import InputError


def max_variance_rows(rewards: Float[Tensor, "B"], *, group_size: int, keep: int) -> Int[Tensor, "K"]:  # fmt: skip
    """The rows of every group's ``keep`` answers with the largest variance of rewards, in order.

    For binary rewards: as many right as wrong ones, as far as there are. Answers of one reward are alike here: which
    of them stay is fixed by their order. Advantages are those of the kept answers: compute them afterwards.

    Args:
        rewards: groups adjacent, group_size rows each.
        keep: answers of a group that stay, 2..group_size.
    Returns: row numbers, ascending, keep of each group.
    Raises: InputError: keep outside 2..group_size; rows that are no whole groups.  NonFiniteError: rewards.
    Source: see the module.  Oracle: all subsets (tests).  Cost: O(B log group_size + B keep^2 / group_size).

    >>> rewards = torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    >>> rewards[max_variance_rows(rewards, group_size=4, keep=2)].sort().values
    tensor([0., 0., 1., 1.])
    """
    check_detached(rewards=rewards)
    check_count(group_size=group_size)
    check_finite(rewards=rewards)
    if not 2 <= keep <= group_size:
        raise InputError(
            f"keep must be in 2..group_size = {group_size}, got {keep}: fewer than two answers can not be compared."
        )
    if len(rewards) % group_size:
        raise InputError(f"{len(rewards)} rewards are no whole groups of {group_size}.")
    table = rewards.double().view(-1, group_size)
    order = table.argsort(dim=1, stable=True)
    ranked = table.gather(1, order)
    every = torch.arange(group_size, device=table.device)
    # of each group the i lowest and the keep - i highest
    best, chosen = table.new_full((len(table),), -1.0), order[:, :keep]
    for low in range(keep + 1):
        columns = torch.cat([every[:low], every[group_size - keep + low :]])
        variance = ranked[:, columns].var(dim=1, correction=0)
        better = variance > best
        best = torch.where(better, variance, best)
        chosen = torch.where(better[:, None], order[:, columns], chosen)
    first = torch.arange(len(table), device=table.device)[:, None] * group_size
    return (first + chosen.sort(dim=1).values).flatten()
