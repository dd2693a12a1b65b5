"""Reward per step as the yardstick: differential Sarsa, differential Q-learning and R-learning.

For a task that never ends, without a discount: the gain g is the long-run mean reward, and q(s, a) is what is earned
above it,

    q(s, a) = E[r - g + q(s', a')]    or    E[r - g + max_a q(s', a)].

Both are learnt at once: delta = r - g + E - q(s, a) moves q by alpha, and g by eta alpha. q is fixed only up
to a constant; g is not, and judges the learner.

Not here: gain and bias of a model (mdp.average_reward, mdp.relative_value_iteration).
Source: Schwartz 1993; Mahadevan 1996; Sutton & Barto 2018, sec. 10.3-10.4; Wan, Naik & Sutton, arXiv:2006.16318.
"""

import numpy as np
from jaxtyping import Float, Int, Shaped

from dodona.core.inputs import check_finite, check_range
from dodona.core.schedules import Schedule
from dodona.errors import InputError
from dodona.objectives.targets import q_learning_target, sarsa_target
from dodona.rl import _td_updates as updates
from dodona.rl.learner import Learner


class _Differential(Learner):
    """What they share: a gain beside the table, and sources that never end."""

    method, continuing = updates.AVERAGE, True

    def __init__(
        self, num_states: int, num_actions: int, *, alpha: float | Schedule = 0.1, eta: float = 0.1,
        initial: float | Shaped[np.ndarray, "..."] = 0.0, initial_gain: float = 0.0,
    ):  # fmt: skip
        check_range("(0, inf)", "0.1 is usual: the gain is a mean over all pairs.", eta=eta)
        check_finite(initial_gain=initial_gain)
        self.eta = eta
        super().__init__(num_states, num_actions, gamma=1.0, alpha=alpha, initial=initial)
        self.memory.gain[:] = initial_gain

    @property
    def gain(self) -> float:
        """The estimate of the long-run mean reward per step."""
        return float(self.memory.gain[0])

    def begin(self, memory: updates.Memory) -> None:
        super().begin(memory)
        memory.gain[:] = self.memory.gain


class DifferentialSarsa(_Differential):
    """delta = r - g + q(s', a') - q(s, a):  q(s, a) += alpha delta,  g += eta alpha delta.

    With constant epsilon g tends to the best gain among policies that explore so, not to the optimum.

    Args:
        num_states, num_actions, alpha, initial: see learner.Learner; a model's gamma is left out.
        eta: step of the gain over the step of the table, > 0. The gain is one number that every step moves, so it
            may go slower.
        initial_gain: first value of g, reward per step.
    Raises: InputError, MDPError (of update, learn): an episode that ends.
    Source: Sutton & Barto 2018, sec. 10.3, here with one entry per pair.
    Oracle: oracles.learning_differential.differential, oracles.mdp.average_reward_lp (of the model with epsilon in it).
    """

    expectation, ahead, needs_next_action = updates.SAMPLE, True, True

    def target(
        self, rewards: Float[np.ndarray, "B"], discounts: Float[np.ndarray, "B"],
        next_states: Int[np.ndarray, "B"], next_actions: Int[np.ndarray, "B"] | None = None,
        *, epsilon: float = 0.1,
    ) -> Float[np.ndarray, "B"]:  # fmt: skip
        """r - g + q(s', a')."""
        if next_actions is None:
            raise InputError(self.without_next_action)
        return sarsa_target(rewards - self.gain, discounts, self.q[next_states], next_actions)


class DifferentialQLearning(_Differential):
    """delta = r - g + max_a q(s', a) - q(s, a):  q(s, a) += alpha delta,  g += eta alpha delta.

    Every step moves the gain, so that any policy may act.

    Args, Raises: see DifferentialSarsa.
    Source: Wan, Naik & Sutton, arXiv:2006.16318.
    Oracle: oracles.learning_differential.differential, oracles.mdp.average_reward_lp.
    """

    expectation, covers = updates.GREEDY, True

    def target(
        self, rewards: Float[np.ndarray, "B"], discounts: Float[np.ndarray, "B"],
        next_states: Int[np.ndarray, "B"], next_actions: Int[np.ndarray, "B"] | None = None,
        *, epsilon: float = 0.1,
    ) -> Float[np.ndarray, "B"]:  # fmt: skip
        """r - g + max_a q(s', a)."""
        return q_learning_target(rewards - self.gain, discounts, self.q[next_states])


class RLearning(DifferentialQLearning):
    """R-learning: as differential Q-learning, but the gain moves after greedy actions only.

    After q(s, a) has moved, and if it is now the largest of its state:
    g += eta alpha (r - g + max_a q(s', a) - max_a q(s, a)).

    Args, Raises: see DifferentialSarsa.
    Source: Schwartz 1993; Mahadevan 1996, sec. 5.
    Oracle: oracles.learning_differential.differential, oracles.mdp.average_reward_lp.
    """

    cuts = True


__all__ = ["DifferentialQLearning", "DifferentialSarsa", "RLearning"]
