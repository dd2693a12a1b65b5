"""Tabular learning from samples: Monte Carlo, TD(0), n-step, TD(lambda), Sarsa, Q-learning and their kin.

All of them do  estimate += alpha (target - estimate)  on the entry just left, and a target is
r + gamma E[value of what follows]. A class here is the choice of that expectation:

    TD0               v(s')                        samples the action and the successor
    Sarsa             q(s', a')                    samples both too, for action values
    ExpectedSarsa     sum_a pi(a|s') q(s', a)      averages the action, samples the successor
    QLearning         max_a q(s', a)               averages it under the greedy policy
    DoubleQLearning   q2(s', argmax_a q1(s', a))   greedy by one table, valued by the other
    SpeedyQLearning   max_a of the last two tables   the same, with a step that may be large
    NStep..., MonteCarlo                           samples n rewards, or all, before it asks for a value
    TDLambda, ...Lambda                            a mean of all these, weighted by lambda

The first five solve: Bellman's equation of the policy (TD0, Sarsa, ExpectedSarsa), of the best policy that
explores (Sarsa, ExpectedSarsa with constant epsilon: not q*), the optimality equation (QLearning).
Books that write delta = estimate - target and subtract have the same update.

Not here: ratios of two policies (off_policy_td.py), memory and models (dyna.py), data as a whole (batch_td.py),
reward per step (differential.py), function approximation (linear.py, dqn.py), loops (learner.py, _td_kernels.py).
Source: Zhao 2025, ch. 5-7; Sutton & Barto 2018, ch. 5-7, 12; of each class, its docstring.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from dodona.core.inputs import check_choice, check_count, check_range
from dodona.core.schedules import Schedule
from dodona.errors import InputError
from dodona.objectives.targets import (
    double_q_target,
    expected_sarsa_target,
    q_learning_target,
    sarsa_target,
    td_target,
)
from dodona.rl import _td_updates as updates
from dodona.rl.learner import Learner

TRACES = {"accumulating": updates.ACCUMULATING, "replacing": updates.REPLACING, "dutch": updates.DUTCH}  # fmt: skip
LONGEST_EPISODE = 10_000  # room of Monte Carlo where no time limit says otherwise


class TD0(Learner):
    """v(s) += alpha (r + gamma v(s') - v(s)): the value of the policy that acts.

    Args: num_states, num_actions, gamma, alpha, initial: see learner.Learner.
    Source: Sutton 1988.  Oracle: oracles.td.td_moments (exact learning curve), oracles.learning.replay.
    Cost: some ten loads per step.
    """

    expectation, of_states = updates.STATE, True

    def target(
        self, rewards: Float[np.ndarray, "B"], discounts: Float[np.ndarray, "B"],
        next_states: Int[np.ndarray, "B"], next_actions: Int[np.ndarray, "B"] | None = None,
        *, epsilon: float = 0.1,
    ) -> Float[np.ndarray, "B"]:  # fmt: skip
        """r + c v(s')."""
        return td_target(rewards, discounts, self.values[next_states])


class Sarsa(Learner):
    """q(s, a) += alpha (r + gamma q(s', a') - q(s, a)), a' being the action that is taken next.

    With a fixed policy it finds that policy's q. With constant epsilon it finds the best q among
    policies that explore so, which is not q*: it knows that it will stumble.

    Args: see learner.Learner.
    Source: Rummery & Niranjan 1994; Zhao 2025, alg. 7.1.
    Oracle: oracles.soft.epsilon_soft_value, oracles.td.td_moments, oracles.learning.replay.
    """

    expectation, ahead = updates.SAMPLE, True
    needs_next_action = True

    def target(
        self, rewards: Float[np.ndarray, "B"], discounts: Float[np.ndarray, "B"],
        next_states: Int[np.ndarray, "B"], next_actions: Int[np.ndarray, "B"] | None = None,
        *, epsilon: float = 0.1,
    ) -> Float[np.ndarray, "B"]:  # fmt: skip
        """r + c q(s', a')."""
        if next_actions is None:
            raise InputError(self.without_next_action)
        return sarsa_target(rewards, discounts, self.q[next_states], next_actions)


class ExpectedSarsa(Learner):
    """q(s, a) += alpha (r + gamma sum_a pi(a|s') q(s', a) - q(s, a)): Sarsa without the noise of a'.

    Args:
        target_policy: [S] actions or [S, A] probabilities of the policy that is learnt about, whoever acts;
            None: the one that acts, epsilon-greedy with its own split of ties, or the fixed one.
        Others: see learner.Learner.
    Source: van Seijen et al. 2009; Zhao 2025, sec. 7.2.
    Oracle: as Sarsa.
    """

    expectation = updates.SOFT

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float, alpha: float | Schedule = 0.1,
        initial: float | Shaped[np.ndarray, "..."] = 0.0, target_policy: Shaped[np.ndarray, "..."] | None = None,
    ):  # fmt: skip
        super().__init__(num_states, num_actions, gamma=gamma, alpha=alpha, initial=initial)
        self.target_policy = None if target_policy is None else np.asarray(target_policy)

    def target(
        self, rewards: Float[np.ndarray, "B"], discounts: Float[np.ndarray, "B"],
        next_states: Int[np.ndarray, "B"], next_actions: Int[np.ndarray, "B"] | None = None,
        *, epsilon: float = 0.1,
    ) -> Float[np.ndarray, "B"]:  # fmt: skip
        """r + c sum_a pi(a|s') q(s', a)."""
        probs = self.probabilities(epsilon)[next_states]
        return expected_sarsa_target(rewards, discounts, self.q[next_states], probs)


class QLearning(Learner):
    """q(s, a) += alpha (r + gamma max_a q(s', a) - q(s, a)): finds q*, whatever policy acts.

    On-policy version: epsilon-greedy in q acts. Off-policy version: a fixed policy acts (``policy`` of
    learn), or a data set is replayed. While it explores it earns less than what it has learnt.

    Args: see learner.Learner.
    Source: Watkins 1989; Zhao 2025, alg. 7.2 and 7.3.
    Oracle: oracles.linear_program.optimal_lp, oracles.empirical.empirical_mdp, oracles.learning.replay.
    """

    expectation = updates.GREEDY
    covers = True

    def target(
        self, rewards: Float[np.ndarray, "B"], discounts: Float[np.ndarray, "B"],
        next_states: Int[np.ndarray, "B"], next_actions: Int[np.ndarray, "B"] | None = None,
        *, epsilon: float = 0.1,
    ) -> Float[np.ndarray, "B"]:  # fmt: skip
        """r + c max_a q(s', a)."""
        return q_learning_target(rewards, discounts, self.q[next_states])


class DoubleQLearning(Learner):
    """Two tables; a coin says which one moves, towards what the other says of its greedy action.

    max_a of noisy estimates is too large on average; here who chooses does not judge. ``q`` is their mean,
    which is what acts.

    Args: see learner.Learner.
    Source: van Hasselt 2010.  Oracle: oracles.linear_program.optimal_lp, oracles.learning.replay.
    """

    expectation, num_tables = updates.OTHER, 2
    covers = True

    def target(
        self, rewards: Float[np.ndarray, "B"], discounts: Float[np.ndarray, "B"],
        next_states: Int[np.ndarray, "B"], next_actions: Int[np.ndarray, "B"] | None = None,
        *, epsilon: float = 0.1,
    ) -> Float[np.ndarray, "B"]:  # fmt: skip
        """r + c q2(s', argmax_a q1(s', a)), the target of the first table."""
        first, second = (table[next_states] for table in self.tables)
        return double_q_target(rewards, discounts, first, second)


class SpeedyQLearning(QLearning):
    """Q-learning whose step may be large: it averages a difference of two estimates instead of noise.

    In round n, with T the sampled optimality operator, q_{n+1} = q_n + (n T q_n - (n - 1) T q_{n-1} - q_n) / (n + 1):
    its error falls as 1 / ((1 - gamma)^2 sqrt(n)) where that of Q-learning with 1 / n falls as n^-(1 - gamma).
    A round ends when every pair met so far was met again; its samples are averaged. Pairs that are never met
    again stop the rounds, so let the behaviour come back everywhere. ``q`` is q_n, which acts.

    Args: num_states, num_actions, gamma, initial: see learner.Learner; it has its own step size.
    Source: Azar, Munos, Ghavamzadeh & Kappen 2011 (asynchronous form).
    Oracle: oracles.learning_from_memory.speedy, oracles.mdp.optimal_lp.
    """

    method, num_tables = updates.SPEEDY, 3

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float,
        initial: float | Shaped[np.ndarray, "..."] = 0.0,
    ):  # fmt: skip
        super().__init__(num_states, num_actions, gamma=gamma, alpha=1.0, initial=initial)

    def begin(self, memory: updates.Memory) -> None:
        super().begin(memory)
        for name in ("change", "seen", "count"):  # the round it is in
            getattr(memory, name)[:] = getattr(self.memory, name)

    def estimates(self, memory: updates.Memory) -> Float[np.ndarray, "K S A"]:
        return self.shaped(memory.tables[:, 0])


class _NStep(Learner):
    """What the n-step learners share: the window's length."""

    method = updates.WINDOW

    def __init__(
        self, num_states: int, num_actions: int, *, num_steps: int, gamma: float,
        alpha: float | Schedule = 0.1, initial: float | Shaped[np.ndarray, "..."] = 0.0,
    ):  # fmt: skip
        check_count(num_steps=num_steps)
        self.num_steps = num_steps
        super().__init__(num_states, num_actions, gamma=gamma, alpha=alpha, initial=initial)


class NStepTD(_NStep, TD0):
    """v(s_t) += alpha (r_1 + gamma r_2 + ... + gamma^n v(s_{t+n}) - v(s_t)).

    The update of step t is made at step t + n; the last n - 1 of an episode at its end, by what rewards
    there are (and the value of the last state, where a time limit cut).

    Args: num_steps: n >= 1; 1 is TD(0), more than any episode is Monte Carlo.  Others: see learner.Learner.
    Source: Sutton & Barto 2018, sec. 7.1.  Oracle: oracles.td.td_moments, oracles.learning.replay.
    """


class NStepSarsa(_NStep, Sarsa):
    """n-step Sarsa: as NStepTD with q(s_{t+n}, a_{t+n}).

    Args: see NStepTD.
    Source: Sutton & Barto 2018, sec. 7.2; Zhao 2025, sec. 7.3.  Oracle: oracles.learning.replay.
    """


class NStepExpectedSarsa(_NStep, ExpectedSarsa):
    """n-step Expected Sarsa: n sampled rewards, then the mean over the actions of the policy that acts.

    Args: see NStepTD.
    Source: Sutton & Barto 2018, sec. 7.2.  Oracle: oracles.learning.replay.
    """


class MonteCarlo(_NStep):
    """The whole return as target: no value is asked for, unless a time limit cut the episode.

    Constant alpha, or the mean of the returns with alpha=inverse_visits(1.0); epsilon-greedy control, or
    a fixed policy; ``exploring_starts`` of learn.

    Args:
        of: "actions" learns q, "states" learns v of the policy that acts.
        visits: "every", or "first" visit of an entry in an episode.
        longest_episode: room for the steps of one episode.
        Others: see learner.Learner.
    Raises: SamplingError (of learn): an episode longer than that.
    Source: Sutton & Barto 2018, ch. 5; Zhao 2025, ch. 5.
    Oracle: oracles.chains.return_moments, oracles.learning.replay.
    """

    whole = True

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float, alpha: float | Schedule = 0.1,
        initial: float | Shaped[np.ndarray, "..."] = 0.0, of: Literal["actions", "states"] = "actions",
        visits: Literal["every", "first"] = "every", longest_episode: int = LONGEST_EPISODE,
    ):  # fmt: skip
        check_choice(("every", "first"), visits=visits)
        check_choice(("actions", "states"), of=of)
        self.first_visit, self.of_states = visits == "first", of == "states"
        # asked only where a time limit cut the episode
        self.expectation = updates.STATE if self.of_states else updates.SOFT
        super().__init__(
            num_states, num_actions, num_steps=longest_episode, gamma=gamma, alpha=alpha, initial=initial
        )  # fmt: skip


class _Traces(Learner):
    """What the learners with traces share."""

    method = updates.TRACES

    def __init__(
        self, num_states: int, num_actions: int, *, gae_lambda: float, gamma: float,
        alpha: float | Schedule = 0.1, initial: float | Shaped[np.ndarray, "..."] = 0.0,
        trace: Literal["accumulating", "replacing", "dutch"] = "accumulating", offline: bool = False,
    ):  # fmt: skip
        check_range("[0, 1]", "0 is one step, 1 is Monte Carlo.", gae_lambda=gae_lambda)
        check_choice(tuple(TRACES), trace=trace)
        if offline and trace == "dutch":
            raise InputError(
                "dutch traces correct a table that moves; offline it does not. Choose one."
            )
        self.gae_lambda, self.trace, self.offline = gae_lambda, TRACES[trace], offline
        super().__init__(num_states, num_actions, gamma=gamma, alpha=alpha, initial=initial)


class TDLambda(_Traces, TD0):
    """Every state moves by alpha delta e(s); e fades by gamma lambda a step and grows where the state is visited.

    Offline with accumulating traces it is the lambda-return update exactly; online with dutch traces it
    is the online lambda-return exactly (true online TD(lambda)).

    Args:
        gae_lambda: lambda in [0, 1].
        trace: what a visit does: "accumulating" e + 1, "replacing" 1, "dutch" e + 1 - alpha e (after fading).
        offline: the table stands still until the episode ends.
        Others: see learner.Learner.
    Source: Sutton 1988; Singh & Sutton 1996 (replacing); van Seijen et al., arXiv:1512.04087 (dutch).
    Oracle: oracles.learning.lambda_episode, oracles.learning.online_lambda_episode.
    Cost: one pass over the states visited in this episode, per step.
    """


class SarsaLambda(_Traces, Sarsa):
    """Sarsa with traces of state-action pairs.

    Args: see TDLambda.
    Source: Rummery & Niranjan 1994; Sutton & Barto 2018, sec. 12.7.  Oracle: TDLambda on the pairs.
    """


class WatkinsQLambda(_Traces, QLearning):
    """Q-learning with traces, which an exploring action cuts: behind it lies another policy.

    Args: see TDLambda; offline is not for it.
    Source: Watkins 1989; Sutton & Barto 2018, sec. 12.10.  Oracle: QLearning (lambda 0), optimal_lp.
    """

    ahead, cuts = True, True
    needs_next_action = True


__all__ = [
    "TD0", "DoubleQLearning", "ExpectedSarsa", "MonteCarlo", "NStepExpectedSarsa", "NStepSarsa", "NStepTD",
    "QLearning", "Sarsa", "SarsaLambda", "SpeedyQLearning", "TDLambda", "WatkinsQLambda",
]  # fmt: skip
