"""Returns over time: discounted, n-step, lambda, and V-trace for actions of another policy. NumPy or torch.

One rule for them all. A row of a lane is a state, an action, a reward, and what they led to, whose value is v':

    a terminated row    led nowhere: its v' counts as 0, whatever it is (NaN too)
    a truncated row     was cut from outside: the sum ends there, with v', for there was a future
    the last row        as a truncated one
    a masked row        is stepped over as if deleted; its answer is 0

``values`` has T+1 rows, v(s_0) .. v(s_T), and v' stands in the row below; or it has T rows beside
``next_values``, which has v' of every row. An environment that resets within the step needs the second form:
below a cut stands the next episode. In the first form a truncated row must therefore be the last, or be
followed by a masked row: the reset row of an environment that resets in the next step, whose observation
is the true last one.

Not here: one-step targets (targets.py), advantages (advantages.py), and any gradient: a return is a constant.
Source: Sutton & Barto 2018, ch. 7 and 12; Pardo et al. 2018, arXiv:1712.00378 (time limits).
"""

from typing import Any

from jaxtyping import Bool, Float, Real, Shaped

from dodona.core.inputs import check_count, check_range
from dodona.errors import InputError
from dodona.objectives._lanes import lanes
from dodona.objectives._time_kernels import (
    discounted_recursion,
    gae_recursion,
    n_step_recursion,
    vtrace_recursion,
)


def discounted_returns(
    rewards: Real[Any, "..."], terminated: Bool[Any, "..."], truncated: Bool[Any, "..."], *, gamma: float,
    final_values: float | Real[Any, "..."] = 0, next_values: Float[Any, "..."] | None = None,
    mask: Shaped[Any, "..."] | None = None, time_dim: int = 0,
) -> Float[Any, "..."]:  # fmt: skip
    """The discounted sum of the rewards to the end of the episode, or of the rows.

    G_t = r_t + gamma G_{t+1} while the episode goes on; r_t where it terminated; r_t + gamma v'_t where it
    was cut.

    Args:
        rewards: [T, ...] time first, any lanes after it; reward units.
        terminated, truncated: [T, ...] bool, see the module.
        gamma: discount in [0, 1].
        final_values: v' of each lane's last counted row where that did not terminate; a number, or one per
            lane. 0 = what was not seen is not counted, as for whole episodes and answers.
        next_values: [T, ...] v' of every row; read where a row is truncated or last. Not with final_values.
        mask: [T, ...] bool or float, 0 = the row is stepped over; None = all count.
        time_dim: the axis of time; 1 for the rows of a Batch.
    Returns: [T, ...] reward units, in the kind and floating type given; 0 where masked.
    Raises: ShapeError: names both shapes.  TypeError: flags that are not bool, NumPy against torch, or
        something that requires grad.
        InputError: gamma; both kinds of last values; a truncated row inside a lane without next_values.
        NonFiniteError: a number that counts is NaN or infinite.
    Source: Sutton & Barto 2018, eq. 3.8.
    Oracle: oracles.returns.returns_by_definition.  Cost: O(size), one pass.

    >>> import numpy as np
    >>> none = np.zeros(3, bool)
    >>> discounted_returns(np.array([1.0, 1.0, 1.0]), none, none, gamma=0.5, final_values=4.0)
    array([2.25, 2.5 , 3.  ])
    """
    nothing = isinstance(final_values, (int, float)) and final_values == 0
    if next_values is not None and not nothing:
        raise InputError(
            "final_values and next_values were both given, and both say what follows the last row. "
            "Leave final_values out: next_values has it."
        )
    given = lanes(
        rewards, terminated, truncated, gamma=gamma, next_values=next_values,
        final_values=final_values, mask=mask, time_dim=time_dim,
    )  # fmt: skip
    return given.answer(discounted_recursion(given.rows, gamma))


def n_step_returns(
    rewards: Real[Any, "..."], values: Float[Any, "..."], terminated: Bool[Any, "..."],
    truncated: Bool[Any, "..."], *, num_steps: int, gamma: float,
    next_values: Float[Any, "..."] | None = None, mask: Shaped[Any, "..."] | None = None, time_dim: int = 0,
) -> Float[Any, "..."]:  # fmt: skip
    """num_steps rewards and the value of where they led: fewer rewards where the episode or the rows end.

    G_t = r_t + .. + gamma^{k-1} r_{t+k-1} + gamma^k v'_{t+k-1},  k = min(num_steps, rows to the cut or end).

    Args:
        values: [T+1, ...] v(s_0) .. v(s_T); T rows beside next_values.
        num_steps: n >= 1; 1 is TD(0), T or more is Monte Carlo with the last value.
        next_values: [T, ...] v' of every row, before any reset.
        Others: see discounted_returns.
    Returns: [T, ...], see discounted_returns.
    Raises: as discounted_returns.  InputError: num_steps below 1.
    Source: Sutton & Barto 2018, eq. 7.1; Mnih et al. 2016, arXiv:1602.01783 (5 steps).
    Oracle: oracles.returns.returns_by_definition.  Cost: O(size min(num_steps, T)); O(size) from T on.

    >>> import numpy as np
    >>> none = np.zeros(3, bool)
    >>> n_step_returns(np.ones(3), np.array([9.0, 9, 4, 8]), none, none, num_steps=2, gamma=0.5)
    array([2.5, 3.5, 5. ])
    """
    check_count(1, num_steps=num_steps)
    given = lanes(
        rewards, terminated, truncated, values, gamma=gamma, next_values=next_values, mask=mask,
        time_dim=time_dim,
    )  # fmt: skip
    return given.answer(n_step_recursion(given.rows, gamma, num_steps))


def lambda_returns(
    rewards: Real[Any, "..."], values: Float[Any, "..."], terminated: Bool[Any, "..."],
    truncated: Bool[Any, "..."], *, gamma: float, gae_lambda: float,
    next_values: Float[Any, "..."] | None = None, mask: Shaped[Any, "..."] | None = None, time_dim: int = 0,
) -> Float[Any, "..."]:  # fmt: skip
    """All n-step returns at once, with weights (1 - lambda) lambda^{n-1}; the longest takes what is left.

    G_t = r_t + gamma ((1 - lambda) v'_t + lambda G_{t+1}); r_t + gamma v'_t where cut; r_t where terminated.
    Computed as v_t + A_t with the A_t of gae, which is the same wherever v'_t is the value of the next row.

    Args:
        values, next_values: see n_step_returns.
        gae_lambda: in [0, 1]; 0 is TD(0), 1 is Monte Carlo with the last value.
        Others: see discounted_returns.
    Returns: [T, ...], see discounted_returns; the targets of the critic that goes with gae.
    Raises: as discounted_returns.  InputError: gae_lambda outside [0, 1].
    Source: Sutton & Barto 2018, eq. 12.18; Schulman et al. 2016, arXiv:1506.02438.
    Oracle: oracles.returns.returns_by_definition.  Cost: O(size), two passes.

    >>> import numpy as np
    >>> none = np.zeros(2, bool)
    >>> lambda_returns(np.ones(2), np.array([9.0, 4, 8]), none, none, gamma=0.5, gae_lambda=0.5)
    array([3.25, 5.  ])
    """
    check_range("[0, 1]", gae_lambda=gae_lambda)
    given = lanes(
        rewards, terminated, truncated, values, gamma=gamma, next_values=next_values, mask=mask,
        time_dim=time_dim,
    )  # fmt: skip
    return given.answer(gae_recursion(given.rows, given.values, gamma, gae_lambda, plus=True))


def vtrace(
    rewards: Real[Any, "..."], values: Float[Any, "..."], terminated: Bool[Any, "..."],
    truncated: Bool[Any, "..."], *, log_ratio: Float[Any, "..."], gamma: float, rho_max: float = 1.0,
    c_max: float = 1.0, next_values: Float[Any, "..."] | None = None,
    mask: Shaped[Any, "..."] | None = None, time_dim: int = 0,
) -> tuple[Float[Any, "..."], Float[Any, "..."]]:  # fmt: skip
    """Targets and advantages for a policy that did not act, from the actions of one that did.

    With w_t = exp(log_ratio_t), rho_t = min(rho_max, w_t), c_t = min(c_max, w_t) and
    delta_t = rho_t (r_t + gamma v'_t - v_t):
    targets_t = v_t + delta_t + gamma c_t (targets_{t+1} - v'_t), the last term only inside an episode;
    advantages_t = rho_t (r_t + gamma targets_{t+1} - v_t), with v'_t for targets_{t+1} at a cut.

    rho_max decides what is learnt (the value of a policy between the two), c_max only how fast.

    Args:
        values, next_values: see n_step_returns.
        log_ratio: [T, ...] logp - logp_old, the policy learnt about over the one that acted, nats.
        rho_max: bound of the ratio on errors, > 0; 1.0 as in the paper; inf: no bias, much variance.
        c_max: bound of the ratio on traces, in (0, rho_max].
        Others: see discounted_returns.
    Returns: (targets, advantages), each [T, ...]. The advantages hold the ratio already: they are weights
        for reinforce_loss, not for a loss with a ratio of its own.
    Raises: as discounted_returns.  InputError: a bound that is not positive, or c_max above rho_max.
    Source: Espeholt et al. 2018, arXiv:1802.01561, eq. 1, remark 1 and sec. 4.2.
    Oracle: oracles.returns.vtrace_by_definition.  Cost: O(size), one pass.

    >>> import numpy as np
    >>> none, even = np.zeros(2, bool), np.zeros(2)
    >>> vtrace(np.ones(2), np.array([9.0, 4, 8]), none, none, log_ratio=even, gamma=0.5)[0]
    array([3.5, 5. ])
    """
    check_range("(0, inf]", rho_max=rho_max, c_max=c_max)
    if c_max > rho_max:
        raise InputError(
            f"c_max must be at most rho_max, got c_max={c_max} and rho_max={rho_max}: a trace may not "
            "weigh more than the error it carries. Lower c_max, or raise rho_max."
        )
    given = lanes(
        rewards, terminated, truncated, values, gamma=gamma, next_values=next_values, mask=mask,
        time_dim=time_dim, log_ratio=log_ratio,
    )  # fmt: skip
    targets, advantages = vtrace_recursion(
        given.rows, given.values, given.log_ratio, gamma, rho_max, c_max
    )
    return given.answer(targets), given.answer(advantages)
