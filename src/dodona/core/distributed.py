"""Sums over all processes of a training run; one process is a world of size 1 and pays nothing.

Source: ours, on torch.distributed as torchrun starts it. Not here: starting processes; sharded planning,
which exchanges halos (mdp.sharded).
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor


def world_size() -> int:
    """How many processes train together; 1 where no process group was made.

    Source: ours.  Oracle: two processes against one (tests).
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of the processes this one is, from 0.

    Source: ours.  Oracle: two processes (tests).
    """
    return dist.get_rank() if world_size() > 1 else 0


def my_rows(rows: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "m ..."]:
    """This process's share of rows that all processes know: consecutive ones, as even as it goes.

    Source: ours.  Oracle: two processes against one (tests).  Cost: a view.
    """
    return np.array_split(rows, world_size())[rank()]


def all_sum(x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """The sum of x over all processes, in each of them; x itself in a world of size 1.

    Source: ours.  Oracle: two processes against one (tests).  Cost: one all-reduce.
    """
    if world_size() == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total)
    return total


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces every gradient by its sum over all processes, in one all-reduce per dtype.

    A parameter that got no gradient in this process may have got one elsewhere, and counts as 0.
    For plain modules; DDP and FSDP sum by themselves.
    Source: ours.  Oracle: two processes against one (tests).  Cost: one all-reduce of all parameters.
    """
    if world_size() == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for p in parameters:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        by_dtype.setdefault(p.dtype, []).append(p.grad)
    for gradients in by_dtype.values():
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        for g, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            g.copy_(total.view_as(g))
