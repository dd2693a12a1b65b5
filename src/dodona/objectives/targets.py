"""One-step targets r + gamma E[value of what follows]: they differ only in the expectation. NumPy or torch.

    td_target              v(s')                     the state values say it
    sarsa_target           q(s', a')                 one action drawn by the policy that acts
    expected_sarsa_target  sum_a pi(a|s') q(s', a)   the mean of that draw: same target, less noise
    q_learning_target      max_a q(s', a)            the mean under the greedy policy
    double_q_target        q2(s', argmax_a q1)       greedy by one table, valued by the other
    td3_target             min(q1, q2)(s', a')       the smaller of two critics: noise pushes down, not up

``discounts`` is gamma where there is a future and 0 where the episode ended; a time limit is no end, so
a truncated transition keeps its gamma and the value of its true last state (``continuation`` makes the
discounts). Where a discount is 0 the value after it is not looked at: it may be anything, NaN too.

Not here: learners that move towards a target (rl/td.py).
Source: Sutton 1988; Rummery & Niranjan 1994; van Seijen et al. 2009; Watkins 1989; van Hasselt 2010,
arXiv:1509.06461; Fujimoto et al., arXiv:1802.09477; Pardo et al., arXiv:1712.00378 (time limits).
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from dodona.core.inputs import (
    check_detached,
    check_range,
    check_shapes,
    dtype_kind,
    is_tensor,
    namespace,
)
from dodona.errors import InputError, ShapeError


def continuation(terminated: Shaped[Any, "..."], gamma: float) -> Float[Any, "..."]:
    """gamma (1 - terminated): the weight of what follows. A truncated step is not terminated.

    Args:
        terminated: bool, the episode ended by itself.
        gamma: discount in [0, 1].
    Returns: float64 for NumPy, torch's default dtype for tensors.
    Raises: TypeError: not bool (a ``done`` that also holds time limits is not asked for either).
        InputError: gamma.
    Source: Pardo et al., arXiv:1712.00378, eq. 2.  Oracle: by hand.  Cost: O(size).

    >>> import numpy as np
    >>> continuation(np.array([False, True]), 0.9)
    array([0.9, 0. ])
    """
    if dtype_kind(terminated) != "b":
        raise TypeError(
            f"terminated must be bool, got {getattr(terminated, 'dtype', type(terminated).__name__)}. "
            "Gymnasium's env.step returns it third: obs, reward, terminated, truncated, info."
        )
    check_range("[0, 1]", gamma=gamma)
    return gamma * (1.0 - (terminated.float() if is_tensor(terminated) else terminated))


def td_target(
    rewards: Float[Any, "..."], discounts: Float[Any, "..."], next_values: Float[Any, "..."]
) -> Float[Any, "..."]:
    """r + c v(s').

    Args:
        rewards: reward units.  discounts: c = gamma (1 - terminated), in [0, 1].
        next_values: v of the true successor, before any reset.
    Returns: same shape, reward units; a constant for the gradient.
    Raises: ShapeError.  InputError: discounts outside [0, 1].
        TypeError: NumPy against torch, or a value that requires grad.
    Source: Sutton 1988.
    Oracle: oracles.learning.targets_by_definition.  Cost: O(size).

    >>> import numpy as np
    >>> td_target(np.array([1.0, 1.0]), np.array([0.5, 0.0]), np.array([4.0, 4.0]))
    array([3., 1.])
    """
    check_detached(next_values=next_values)
    check_shapes(rewards=rewards, discounts=discounts, next_values=next_values)
    check_range("[0, 1]", "It is gamma (1 - terminated).", discounts=discounts)
    xp = namespace(rewards, discounts, next_values)
    # chosen before the product: 0 * inf would be NaN
    return rewards + discounts * xp.where(discounts != 0, next_values, 0.0)


def sarsa_target(
    rewards: Float[Any, "..."], discounts: Float[Any, "..."], next_q: Float[Any, "..."],
    next_actions: Integer[Any, "..."],
) -> Float[Any, "..."]:  # fmt: skip
    """r + c q(s', a'), a' drawn by the policy that acts.

    Args: as td_target.  next_q: q(s', .).  next_actions: a' in [0, A); any where the discount is 0.
    Returns, Raises: as td_target.  InputError: an action out of range where it counts.
    Source: Rummery & Niranjan 1994.
    Oracle: oracles.learning.targets_by_definition.  Cost: O(size).
    """
    _check_rows(rewards, next_q)
    check_shapes(rewards=rewards, next_actions=next_actions)
    xp = namespace(next_q, next_actions)
    live = discounts != 0
    if bool(((next_actions < 0) | (next_actions >= next_q.shape[-1]))[live].any()):
        raise InputError(
            f"next_actions must be in 0..{next_q.shape[-1] - 1} wherever the discount is not 0. Without "
            "a next action use expected_sarsa_target or q_learning_target."
        )
    index = xp.where(live, next_actions, 0)
    return td_target(rewards, discounts, _taken(next_q, index))


def expected_sarsa_target(
    rewards: Float[Any, "..."], discounts: Float[Any, "..."], next_q: Float[Any, "..."],
    next_probs: Float[Any, "... A"],
) -> Float[Any, "..."]:  # fmt: skip
    """r + c sum_a pi(a|s') q(s', a).

    Args: as td_target.  next_q: q(s', .), -inf where an action is infeasible.
        next_probs: pi(.|s') of the policy that is learnt about, which need not be the one that acts.
    Returns, Raises: as td_target.  InputError: probabilities outside [0, 1] or that do not sum to one.
    Source: van Seijen et al. 2009.
    Oracle: oracles.learning.targets_by_definition; mean of sarsa_target.  Cost: O(size).
    """
    _check_rows(rewards, next_q)
    check_shapes(next_q=next_q, next_probs=next_probs)
    check_range("[0, 1]", "They are probabilities.", next_probs=next_probs)
    xp = namespace(next_q, next_probs)
    sums = next_probs.sum(-1)
    wrong = (abs(sums - 1.0) > 1e-5) & (discounts != 0)
    if bool(wrong.any()):
        raise InputError(
            f"next_probs must sum to 1 over the actions, got {float(sums[wrong].reshape(-1)[0])}."
        )
    # chosen before the product: an infeasible action has q = -inf and probability 0
    return td_target(
        rewards, discounts, (next_probs * xp.where(next_probs > 0, next_q, 0.0)).sum(-1)
    )


def q_learning_target(
    rewards: Float[Any, "..."], discounts: Float[Any, "..."], next_q: Float[Any, "..."], *,
    action_mask: Bool[Any, "... A"] | None = None,
) -> Float[Any, "..."]:  # fmt: skip
    """r + c max_a q(s', a).

    Args: as td_target.  next_q: q(s', .).  action_mask: True where an action is feasible; None = all.
    Returns, Raises: as td_target.  InputError: a successor that counts without a feasible action.
    Source: Watkins 1989.
    Oracle: oracles.learning.targets_by_definition.  Cost: O(size).
    """
    allowed = _allowed(rewards, discounts, next_q, action_mask)
    return td_target(
        rewards, discounts, allowed.amax(-1) if is_tensor(allowed) else allowed.max(-1)
    )


def double_q_target(
    rewards: Float[Any, "..."], discounts: Float[Any, "..."], next_q_online: Float[Any, "... A"],
    next_q_target: Float[Any, "... A"], *, action_mask: Bool[Any, "... A"] | None = None,
) -> Float[Any, "..."]:  # fmt: skip
    """r + c q_target(s', argmax_a q_online(s', a)): who chooses does not judge, so noise is not maximised.

    Args: as q_learning_target.  next_q_online: chooses (the first of ties).  next_q_target: judges.
    Returns, Raises: as q_learning_target.
    Source: van Hasselt 2010; arXiv:1509.06461, eq. 4.
    Oracle: oracles.learning.targets_by_definition.  Cost: O(size).
    """
    check_shapes(next_q_online=next_q_online, next_q_target=next_q_target)
    chosen = _allowed(rewards, discounts, next_q_online, action_mask).argmax(-1)
    return td_target(rewards, discounts, _taken(next_q_target, chosen))


def td3_target(
    rewards: Float[Any, "..."], discounts: Float[Any, "..."], next_q1: Float[Any, "..."],
    next_q2: Float[Any, "..."],
) -> Float[Any, "..."]:  # fmt: skip
    """r + c min(q1, q2)(s', a'): an actor climbs where a critic errs upwards; two rarely err in one place.

    Args: as td_target.  next_q1, next_q2: of two target critics at the target actor's action, with the noise
        that smooths it where that is wanted. The same one twice gives DDPG's target.
    Returns, Raises: as td_target.
    Source: Fujimoto et al. 2018, arXiv:1802.09477, eq. 10.
    Oracle: td_target of either, row by row.  Cost: O(size).

    >>> import numpy as np
    >>> td3_target(np.array([1.0]), np.array([0.5]), np.array([4.0]), np.array([2.0]))
    array([2.])
    """
    check_detached(next_q1=next_q1, next_q2=next_q2)
    check_shapes(next_q1=next_q1, next_q2=next_q2)
    return td_target(rewards, discounts, namespace(next_q1, next_q2).minimum(next_q1, next_q2))


def _check_rows(rewards: Shaped[Any, "..."], next_q: Shaped[Any, "..."]) -> None:
    check_detached(next_q=next_q)
    if tuple(next_q.shape[:-1]) != tuple(rewards.shape) or not next_q.ndim:
        raise ShapeError(
            f"next_q has shape {tuple(next_q.shape)} and rewards has shape {tuple(rewards.shape)}: "
            "next_q has one axis more, the actions of each successor."
        )


def _allowed(rewards: Any, discounts: Any, next_q: Any, action_mask: Any) -> Any:
    """next_q with -inf where an action is infeasible."""
    _check_rows(rewards, next_q)
    if action_mask is None:
        return next_q
    check_shapes(next_q=next_q, action_mask=action_mask)
    idle = ~action_mask.any(-1) & (discounts != 0)
    if bool(idle.any()):
        raise InputError(
            "a successor has no feasible action and a discount above 0. Mark the transition as "
            "terminated, or let the mask keep an action."
        )
    return namespace(next_q, action_mask).where(action_mask, next_q, -float("inf"))


def _taken(q: Any, actions: Any) -> Any:
    """[..., A] and [...] -> [...], the entry of each action."""
    if is_tensor(q):
        return q.gather(-1, actions.long()[..., None]).squeeze(-1)
    return np.take_along_axis(q, actions[..., None], axis=-1)[..., 0]
