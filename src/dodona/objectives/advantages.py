"""Advantages: by how much an action did better than expected, against a critic (gae) or against a group.

The group forms need no critic: answers to one prompt, or episodes from one start, are each other's
baseline. Groups may be ragged, in any order and under any numbers.

Not here: value targets (returns.py), and whitening over a batch (core.reductions.whiten).
Source: Schulman et al. 2016, arXiv:1506.02438 (gae); Shao et al. 2024, arXiv:2402.03300 (groups).
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Integer, Real, Shaped
from torch import Tensor

from dodona.core.inputs import (
    check_choice,
    check_count,
    check_detached,
    check_mask,
    check_range,
    check_shapes,
)
from dodona.core.reductions import masked_std
from dodona.errors import NonFiniteError, ShapeError
from dodona.objectives._groups import Groups, groups
from dodona.objectives._lanes import lanes
from dodona.objectives._time_kernels import gae_recursion

Baseline = Literal["mean", "loo", "none"]
Scale = Literal["group", "batch", "none"]


def gae(
    rewards: Real[Any, "..."], values: Float[Any, "..."], terminated: Bool[Any, "..."],
    truncated: Bool[Any, "..."], *, gamma: float, gae_lambda: float,
    next_values: Float[Any, "..."] | None = None, mask: Shaped[Any, "..."] | None = None, time_dim: int = 0,
) -> Float[Any, "..."]:  # fmt: skip
    """Generalised advantage estimation. NumPy or torch.

    A_t = delta_t + gamma lambda (1 - cut_t) A_{t+1},  delta_t = r_t + gamma (1 - terminated_t) v'_t - v_t,
    cut = terminated or truncated: a time limit ends the sum, but still looks at the value v'_t of the
    observation it left behind.

    Args:
        rewards: [T, ...] time first, any lanes after it; reward units.
        values: [T+1, ...] v(s_0) .. v(s_T); T rows beside next_values. Without next_values a truncated row
            must be the last or be followed by a masked one, whose value is then v'.
        terminated, truncated: [T, ...] bool; terminated wins where both are.
        gamma: discount in [0, 1].  gae_lambda: in [0, 1]; 0 is the TD error, 1 is Monte Carlo minus v.
        next_values: [T, ...] v' of every row, the true successor before any reset; may be anything where
            terminated.
        mask: [T, ...] bool or float, 0 = the row is stepped over as if deleted; None = all count.
        time_dim: the axis of time; 1 for the rows of a Batch.
    Returns: [T, ...] reward units, in the kind and floating type given; 0 where masked. Add the T values
        for the targets of the critic (the same as lambda_returns).
    Raises: ShapeError: names both shapes.  TypeError: flags that are not bool, NumPy against torch, or
        something that requires grad.
        InputError: gamma, gae_lambda; a truncated row whose successor is unknown.
        NonFiniteError: a number that counts is NaN or infinite.
    Source: Schulman et al. 2016, arXiv:1506.02438, eq. 16; Pardo et al. 2018, arXiv:1712.00378.
    Oracle: oracles.returns.gae_by_definition (a double sum).  Cost: O(size), one pass.

    >>> import numpy as np
    >>> none = np.zeros(2, bool)
    >>> gae(np.ones(2), np.array([9.0, 4, 8]), none, none, gamma=0.5, gae_lambda=0.5)
    array([-5.75,  1.  ])
    """
    check_range("[0, 1]", gae_lambda=gae_lambda)
    given = lanes(
        rewards, terminated, truncated, values, gamma=gamma, next_values=next_values, mask=mask,
        time_dim=time_dim,
    )  # fmt: skip
    return given.answer(gae_recursion(given.rows, given.values, gamma, gae_lambda, plus=False))


def group_advantages(
    rewards: Float[Tensor, "B"], group: Integer[Tensor, "B"], *, baseline: Baseline = "mean",
    scale: Scale = "group", ddof: int = 1, tol: float = 0.0,
) -> Float[Tensor, "B"]:  # fmt: skip
    """(R_i - what its group earned) / how much rewards spread.

    mean: R_i - mean of the group (GRPO);  loo: R_i - mean of the others = G / (G - 1) (R_i - mean) (RLOO).
    A group whose rewards differ by no more than tol teaches nothing: exactly 0, where baseline or scale
    look at the group. So nothing is added to the divisor.

    Args:
        rewards: [B] one per answer, reward units.
        group: [B] integers; rows with one number are one group. Sizes may differ.
        baseline: "none" keeps R_i.
        scale: "group" divides by the standard deviation of the group's rewards, "batch" by that of all rewards
            (Lite PPO), "none" by nothing (Dr. GRPO).
        ddof: 1 divides squares by n - 1, as TRL, verl and OpenRLHF do, 0 by n; the paper does not say.
        tol: >= 0, reward units; the range that is still float noise.
    Returns: [B], without unit where scaled; at least float32.
    Raises: ShapeError.  TypeError: rewards that require grad; groups that are not integers.
        InputError: unknown options; a group of one row where the group is looked at; one reward in all
        for scale="batch".
        NonFiniteError: names the groups of such rewards.
    Source: Shao et al. 2024, arXiv:2402.03300, sec. 4.1.2; Ahmadian et al. 2024, arXiv:2402.14740 (loo);
        Liu et al. 2025, arXiv:2503.20783 (no scale); arXiv:2508.08221 (batch).
    Oracle: oracles.returns.group_advantages_by_definition.  Cost: O(B log B), reads sizes.

    >>> reward, prompt = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([7, 7, 7, 7])
    >>> group_advantages(reward, prompt, ddof=0)
    tensor([ 1., -1., -1.,  1.])
    """
    check_choice(("mean", "loo", "none"), baseline=baseline)
    check_choice(("group", "batch", "none"), scale=scale)
    _check_options(rewards, group, ddof=ddof, tol=tol)
    own = baseline != "none" or scale == "group"
    members = groups(
        group, rewards, smallest=2 if own else 1, why="it is its own baseline and has no spread."
    )
    x = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
    centred, spread, reach = _moments(members, x, ddof)
    answer = x if baseline == "none" else centred
    if baseline == "loo":
        answer = answer * members.size / (members.size - 1)
    if scale == "group":
        answer = answer / spread
    elif scale == "batch":
        spread = masked_std(x, ddof=ddof)
        answer = answer / torch.where(spread > 0, spread, 1.0)
    return torch.where(reach <= tol, 0.0, answer) if own else answer


def process_advantages(
    rewards: Float[Tensor, "B T"], reward_mask: Shaped[Tensor, "B T"], group: Integer[Tensor, "B"], *,
    ddof: int = 1,
) -> Float[Tensor, "B T"]:  # fmt: skip
    """Process supervision: every step's reward against all steps of the group, then summed to the end.

    A_{i,t} = sum over steps of answer i that end at t or later of (r - mean) / std, mean and std over all
    step rewards of the group. With one step per answer it is group_advantages.

    Args:
        rewards: [B, T] the reward of a step, where the step ends; reward units.
        reward_mask: [B, T] bool, where a step ends. A step of reward 0 is a step.
        group: [B] integers.
        ddof: see group_advantages.
    Returns: [B, T] without unit, at least float32; 0 after the last step, and for groups whose step
        rewards are all equal.
    Raises: ShapeError.  TypeError: rewards that require grad, a mask of integers.
        InputError: a group of a single step.  NonFiniteError: names the groups of such rewards.
    Source: Shao et al. 2024, arXiv:2402.03300, sec. 4.1.3.
    Oracle: oracles.returns.process_advantages_by_definition.  Cost: O(B T).

    >>> step_rewards, ends = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]), torch.tensor([[True, True, False]] * 2)
    >>> process_advantages(step_rewards, ends, torch.tensor([0, 0]), ddof=0).round(decimals=4)
    tensor([[-1.1547,  0.5774,  0.0000],
            [ 1.1547,  0.5774,  0.0000]])
    """
    check_mask(reward_mask, rewards, name="reward_mask")
    if group.shape != rewards.shape[:1]:
        raise ShapeError(
            f"group has shape {tuple(group.shape)} and rewards has shape {tuple(rewards.shape)}: one number "
            "per row is expected, [B] beside [B, T]."
        )
    row, place = (reward_mask != 0).nonzero(as_tuple=True)
    steps, owner = rewards[row, place], group[row]
    _check_options(steps, owner, ddof=ddof)
    members = groups(owner, steps, smallest=2, why="one step reward has no spread.")
    x = steps.to(torch.promote_types(steps.dtype, torch.float32))
    centred, spread, reach = _moments(members, x, ddof)
    scaled = torch.zeros(rewards.shape, dtype=x.dtype, device=x.device)
    scaled[row, place] = torch.where(reach > 0, centred / spread, 0.0)
    return scaled.flip(1).cumsum(1).flip(1)


def informative_groups(
    rewards: Float[Tensor, "B"], group: Integer[Tensor, "B"], *, tol: float = 0.0
) -> Bool[Tensor, "B"]:
    """Whether a row's group has rewards that differ by more than tol: the others have advantage 0.

    The range of the group decides and not its standard deviation, which float noise keeps above 0.

    Args: as group_advantages.
    Returns: [B] bool; False for a group of one.
    Raises: as group_advantages, but a group of one is allowed.
    Source: Yu et al. 2025, arXiv:2503.14476, sec. 3.2 (dynamic sampling).
    Oracle: oracles.returns.group_advantages_by_definition, which is 0 just there.  Cost: O(B log B).

    >>> informative_groups(torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([0, 0, 1, 1]))
    tensor([False, False,  True,  True])
    """
    _check_options(rewards, group, tol=tol)
    members = groups(group, rewards)
    return members.max(rewards) - members.min(rewards) > tol


def _moments(members: Groups, x: Tensor, ddof: int) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean, standard deviation, range) of each row's group; the deviation of a constant is given as 1."""
    low = members.min(x)
    reach = members.max(x) - low
    above = (x - low) / torch.where(
        reach > 0, reach, 1.0
    )  # in [0, 1]: no square under- or overflows
    centred = above - members.mean(above)
    # a group that ddof leaves nothing of has no use for its deviation
    spread = (members.sum(centred**2) / (members.size - ddof).clamp(min=1)).sqrt()
    return centred * reach, torch.where(reach > 0, spread * reach, 1.0), reach


def _check_options(rewards: Tensor, group: Tensor, *, ddof: int = 1, tol: float = 0.0) -> None:
    check_detached(rewards=rewards)
    check_count(0, ddof=ddof)
    check_range("[0, 1]", "1 divides by n - 1, 0 by n.", ddof=ddof)
    check_range("[0, inf)", tol=tol)
    check_shapes(rewards=rewards, group=group)
    finite = rewards.isfinite()
    if not bool(finite.all()):
        raise NonFiniteError(
            f"rewards must be finite, got NaN or infinity in groups {group[~finite].unique().tolist()}. "
            "Look at what scored them, or leave those groups out."
        )
