"""Sums, means and extremes of the rows that share a group number, handed back to each row.

Groups may be ragged, in any order and under any numbers.  Not here: what is made of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dodona.core.inputs import check_shapes
from dodona.errors import InputError


class Groups(NamedTuple):
    """Which group each row is in: ``index`` [B] in 0..num-1, ``sizes`` [num]."""

    index: Tensor
    sizes: Tensor

    def sum(self, x: Tensor) -> Tensor:
        """[B] -> [B], the sum over the row's group."""
        return torch.zeros(len(self.sizes), dtype=x.dtype, device=x.device).index_add(
            0, self.index, x
        )[self.index]

    def mean(self, x: Tensor) -> Tensor:
        return self.sum(x) / self.size.to(x.dtype)

    def max(self, x: Tensor) -> Tensor:
        return self._extreme(x, "amax")

    def min(self, x: Tensor) -> Tensor:
        return self._extreme(x, "amin")

    @property
    def size(self) -> Tensor:
        """[B] rows of the row's group."""
        return self.sizes[self.index]

    def _extreme(self, x: Tensor, kind: str) -> Tensor:
        empty = torch.zeros(len(self.sizes), dtype=x.dtype, device=x.device)
        return empty.scatter_reduce(0, self.index, x, kind, include_self=False)[self.index]


def groups(group: Tensor, x: Tensor, *, smallest: int = 1, why: str = "") -> Groups:
    """The groups of x's rows.

    Raises: ShapeError: not one number per row.  TypeError: not integers.
        InputError: a group of fewer rows than ``smallest``; ``why`` says what then has no meaning.
    """
    check_shapes(rewards=x, group=group)
    if group.dtype.is_floating_point or group.dtype == torch.bool:
        raise TypeError(f"group must be integers, one per row, got {group.dtype}.")
    numbers, index, sizes = group.unique(return_inverse=True, return_counts=True)
    if smallest > 1 and bool((sizes < smallest).any()):
        lonely = int(numbers[sizes < smallest][0])
        raise InputError(
            f"group {lonely} has {int(sizes[sizes < smallest][0])} row, at least {smallest} are needed: {why} "
            "Sample more answers per prompt, or use baseline='none' and scale='none'."
        )
    return Groups(index, sizes)
