"""Control with linear features: Sarsa, Expected Sarsa and Q-learning, q(s, a) = phi(s) . w_a.

    w_a <- w_a + alpha (r + c E - phi . w_a) phi

with E = q(s', a') (Sarsa, also after n steps), the epsilon-greedy mean (Expected Sarsa) or max_a q(s', a)
(Q-learning), and c = gamma (1 - terminated). Ties go to the first action, in what is done and aimed at.

Not here: a network instead of phi (dqn.py); least squares (lstd.py).

Source: Zhao 2025, alg. 8.2 and 8.3; Rummery & Niranjan 1994; Watkins 1989.
"""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dodona.core.inputs import check_count, check_finite, check_range, check_shapes
from dodona.core.schedules import Schedule, constant
from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError
from dodona.mdp.model import MDP
from dodona.rl import _linear_kernels as kernels
from dodona.rl.features import Aggregation, Features
from dodona.rl.linear_base import LinearLearner, Walk, WeightHistory, start_runs
from dodona.rl.outcomes import (
    action_outcomes,
    pair_outcomes,
    plain_outcomes,
    policy_table,
    start_outcomes,
)
from dodona.rl.transitions import episode_limit

NO_ROWS = (np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0))


class LinearControl(LinearLearner):
    """What the control learners share.

    Args:
        features, gamma, alpha: as LinearLearner.
        num_actions: A.
        gae_lambda: accumulating traces over all action weights; 0 is one-step.
    Attributes:
        weights: [A, m].
    """

    rule: int
    num_steps = 1

    def __init__(
        self,
        features: Features,
        num_actions: int,
        *,
        gamma: float,
        alpha: float | Schedule,
        gae_lambda: float = 0.0,
    ):
        check_count(num_actions=num_actions)
        check_range("[0, 1]", "0 is one-step.", gae_lambda=gae_lambda)
        self.num_actions, self.gae_lambda = num_actions, float(gae_lambda)
        super().__init__(features, gamma=gamma, alpha=alpha)
        self.trace = np.zeros_like(self.weights)

    def first_weights(self):
        return np.zeros((self.num_actions, self.features.num_features))

    def q(self, x: Shaped[np.ndarray, "B ..."]) -> Float[np.ndarray, "B A"]:
        """phi(x) . w_a of every action."""
        index, value = self.features.sparse(np.asarray(x))
        return (self.weights[:, index] * value).sum(axis=2).T

    def values(self, x: Shaped[np.ndarray, "B ..."]) -> Float[np.ndarray, "B"]:
        """max_a q."""
        return self.q(x).max(axis=1)

    def act(
        self, x: Shaped[np.ndarray, "B ..."], *, epsilon: float = 0.0, rng: np.random.Generator | None = None
    ) -> Int[np.ndarray, "B"]:  # fmt: skip
        """Epsilon-greedy actions; without rng the greedy ones."""
        best = self.q(x).argmax(axis=1)
        if rng is None:
            return best
        explore = rng.random(len(best)) < epsilon
        return np.where(explore, rng.integers(0, self.num_actions, len(best)), best)

    def update(
        self,
        s: Shaped[np.ndarray, "B ..."] | list,
        a: Int[np.ndarray, "B"] | list,
        r: Float[np.ndarray, "B"] | list,
        s2: Shaped[np.ndarray, "B ..."] | list,
        terminated: Bool[np.ndarray, "B"] | list,
        truncated: Bool[np.ndarray, "B"] | list,
        a2: Int[np.ndarray, "B"] | list | None = None,
        *,
        epsilon: float = 0.0,
    ) -> None:
        """Learn from transitions, one after another.

        Args:
            a, a2: action numbers; a2, the action taken next, is needed by Sarsa (any number where
                nothing follows).
            epsilon: of the policy whose mean Expected Sarsa takes.
            Others: as TDLinear.update.
        Raises: InputError: Sarsa without a2, an action outside 0..A-1.  TypeError: actions not integer.
        """
        self._require_one_step()
        rewards, ended = np.asarray(r, dtype=np.float64), np.asarray(terminated, bool)
        check_finite(r=rewards)
        num = len(rewards)
        if a2 is None and self.rule == kernels.SARSA:
            raise InputError(
                "Sarsa aims at the action that is taken next: pass a2, or use SarsaLinear(expected=True)."
            )
        following = np.zeros(num, np.int64) if a2 is None else np.asarray(a2)
        following = self._actions(np.where(ended, 0, following), "a2")
        index, value = self.rows(s)
        index2, value2 = self.rows(s2)
        kernels.action_updates(
            self.rule, index, value, self._actions(np.asarray(a), "a"), rewards, index2, value2, following,
            np.ones((num, self.num_actions), bool), self.discounts(ended),
            ended | np.asarray(truncated, bool), self.step_sizes(num), float(epsilon), self.gae_lambda,
            self.scale, self.weights, self.trace,
        )  # fmt: skip
        self.num_updates += num
        check_finite(weights=self.weights)

    def walk(
        self,
        mdp: MDP,
        *,
        num_runs: int = 1,
        seed: int = 0,
        epsilon: float | Schedule = 0.1,
        behaviour: Shaped[np.ndarray, "..."] | None = None,
        max_episode_steps: int | None = None,
        start_weights: FloatArray | None = None,
    ) -> Walk:
        """Runs in a model.

        Args:
            epsilon: share of random actions, a number or a Schedule of finished steps.
            behaviour: [S] or [S, A], who acts instead of the epsilon-greedy policy.
            Others: as TDLinear.walk.
        Raises: InputError: another number of actions than the model's.
        """
        self.require_gamma(mdp)
        if mdp.num_actions != self.num_actions:
            raise InputError(
                f"the learner has {self.num_actions} actions, the model {mdp.num_actions}."
            )
        if not isinstance(epsilon, Schedule):
            check_range("[0, 1]", "0.1 is usual.", epsilon=epsilon)
            epsilon = constant(float(epsilon))
        if behaviour is not None:
            self.warn_off_policy()
        pair_of = np.full((mdp.num_states, mdp.num_actions), -1, dtype=np.int64)
        pair_of[mdp.pair_state, mdp.actions] = np.arange(mdp.num_pairs)
        table, starts = pair_outcomes(mdp), start_outcomes(mdp)
        choices = (
            plain_outcomes(*NO_ROWS)
            if behaviour is None
            else action_outcomes(mdp, policy_table(mdp, behaviour))
        )
        index, value = self.features.rows(mdp)
        index, value = np.ascontiguousarray(index, np.int64), np.ascontiguousarray(value)
        limit = episode_limit(max_episode_steps)
        state = start_runs(self, num_runs, seed, start_weights)
        state |= {
            "action": np.full(num_runs, -1, np.int64),
            "trace": np.zeros_like(state["weights"] if self.gae_lambda else state["weights"][:, :1, :1]),
        }  # fmt: skip

        common = (self.rule, table, starts, pair_of, mdp.action_mask, choices, index, value)
        n = self.num_steps
        if n > 1:
            whole, numbers = np.zeros((num_runs, n), np.int64), np.zeros((num_runs, n))
            state |= {
                "ring": whole,
                "taken": whole.copy(),
                "rewards": numbers,
                "discounts": numbers.copy(),
            }

        def sizes(schedule, counts):
            return np.broadcast_to(schedule(counts), len(counts)).astype(float)

        def advance(state, counts):
            alphas, epsilons = sizes(self.alpha, counts), sizes(epsilon, counts)
            place = (
                limit,
                state["words"],
                state["at"],
                state["action"],
                state["age"],
                state["weights"],
            )
            if n > 1:
                kernels.n_step_action_walk(
                    n, *common, alphas, epsilons, self.scale, *place, state["ring"], state["taken"],
                    state["rewards"], state["discounts"],
                )  # fmt: skip
            else:
                kernels.action_walk(
                    *common, alphas, epsilons, self.gae_lambda, self.scale, *place, state["trace"]
                )

        return Walk(self, state, advance)

    def warn_off_policy(self) -> None:
        """Sarsa learns about who acts, so nothing is off-policy."""

    def learn_env(
        self, env: Any, *, num_episodes: int, epsilon: float = 0.0, seed: int = 0
    ) -> tuple[IntArray, FloatArray]:
        """Episodes in a Gymnasium environment with discrete actions, one update a step.

        Args:
            env: a single environment; a time limit counts as truncation and bootstraps.
            num_episodes: at least 1.
            epsilon: share of random actions; 0 where the initial values are optimistic.
            seed: of environment and exploration.
        Returns: (steps [N], returns [N]) of every episode, undiscounted.
        Raises: InputError: actions that are not Discrete(num_actions).  NonFiniteError: divergence.
        Source: Sutton & Barto 2018, sec. 10.1.  Oracle: the same updates through ``update``.
        Cost: that of the environment and some ten microseconds a step.
        """
        check_count(num_episodes=num_episodes)
        self._require_one_step()
        num = getattr(env.action_space, "n", None)
        if num != self.num_actions:
            raise InputError(
                f"the learner has {self.num_actions} discrete actions, the environment has "
                f"{env.action_space}."
            )
        rng = np.random.default_rng(seed)
        lengths, returns = np.zeros(num_episodes, np.int64), np.zeros(num_episodes)
        for episode in range(num_episodes):
            obs, _ = env.reset(seed=seed if episode == 0 else None)
            here = self.rows(_row(obs))
            a = self._choose(here, epsilon, rng)
            over = False
            while not over:
                obs, reward, terminated, truncated, _ = env.step(a)
                after, over = self.rows(_row(obs)), terminated or truncated
                a2 = self._choose(after, epsilon, rng)
                self._learn_step(here, a, float(reward), after, terminated, over, a2, epsilon)
                lengths[episode] += 1
                returns[episode] += reward
                here, a = after, a2
            check_finite(weights=self.weights)
        return lengths, returns

    def learn(
        self, source, *, num_steps, num_runs=1, seed=0, num_records=1, **options
    ) -> WeightHistory:
        if hasattr(source, "reset") and hasattr(source, "step") and hasattr(source, "action_space"):
            raise InputError(
                "an environment is counted in episodes: learn_env(env, num_episodes=...). learn takes an "
                "MDP or recorded transitions."
            )
        return super().learn(
            source, num_steps=num_steps, num_runs=num_runs, seed=seed, num_records=num_records, **options
        )  # fmt: skip

    def _require_one_step(self) -> None:
        if self.num_steps > 1:
            raise InputError(
                "n-step Sarsa needs a walk through a model: learn(mdp), or gae_lambda."
            )

    def _choose(self, row: tuple, epsilon: float, rng: np.random.Generator) -> int:
        if epsilon and rng.random() < epsilon:
            return int(rng.integers(self.num_actions))
        index, value = row
        return int((self.weights[:, index[0]] @ value[0]).argmax())

    def _learn_step(self, here, a, reward, after, terminated, over, a2, epsilon) -> None:
        kernels.action_updates(
            self.rule, *here, np.array([a]), np.array([reward]), *after, np.array([a2]),
            np.ones((1, self.num_actions), bool), np.array([0.0 if terminated else self.gamma]),
            np.array([over]), self.step_sizes(1), float(epsilon), self.gae_lambda, self.scale, self.weights,
            self.trace,
        )  # fmt: skip
        self.num_updates += 1

    def _actions(self, actions: np.ndarray, name: str) -> IntArray:
        if actions.dtype.kind not in "iu":
            raise TypeError(f"{name} holds action numbers (integers), got dtype {actions.dtype}.")
        check_range(f"[0, {self.num_actions})", **{name: actions})
        return actions.astype(np.int64)


class SarsaLinear(LinearControl):
    """Sarsa with linear features: learns about the epsilon-greedy policy that acts.

    Args:
        features, num_actions, gamma, alpha, gae_lambda: as LinearControl.
        expected: aim at the mean over the next action instead of the one that is taken; less noise.
        num_steps: n of n-step Sarsa; above 1 only with lambda 0, and only in ``learn`` on a model.
    Raises: InputError: n > 1 with lambda > 0.
    Source: Zhao 2025, alg. 8.2; van Seijen et al. 2009 (expected).
    Oracle: oracles.soft.epsilon_soft_value with one-hot features.
    Cost: O(A x active features) a step; O(A m) with traces.
    """

    def __init__(
        self,
        features: Features,
        num_actions: int,
        *,
        gamma: float,
        alpha: float | Schedule,
        gae_lambda: float = 0.0,
        expected: bool = False,
        num_steps: int = 1,
    ):
        check_count(num_steps=num_steps)
        if num_steps > 1 and gae_lambda:
            raise InputError(
                f"num_steps = {num_steps} and traces are two ways to look ahead: take gae_lambda=0, or "
                "num_steps=1."
            )
        super().__init__(features, num_actions, gamma=gamma, alpha=alpha, gae_lambda=gae_lambda)
        self.num_steps = num_steps
        self.rule = kernels.EXPECTED_SARSA if expected else kernels.SARSA

    def walk(self, mdp: MDP, **options: Any) -> Walk:
        if self.rule == kernels.EXPECTED_SARSA and options.get("behaviour") is not None:
            raise InputError(
                "Expected Sarsa takes the epsilon-greedy mean; with a behaviour of its own use "
                "SarsaLinear(expected=False), or QLearningLinear."
            )
        return super().walk(mdp, **options)


class QLearningLinear(LinearControl):
    """Q-learning with linear features, acting epsilon-greedily (on-policy version) or by a behaviour.

    Args: features, num_actions, gamma, alpha: as LinearControl.
    Source: Zhao 2025, alg. 8.3; Watkins 1989.  Oracle: oracles.linear_program.optimal_lp with one-hot features.
    Cost: O(A x active features) a step.
    """

    rule = kernels.Q_LEARNING

    def __init__(
        self, features: Features, num_actions: int, *, gamma: float, alpha: float | Schedule
    ):
        super().__init__(features, num_actions, gamma=gamma, alpha=alpha)

    def warn_off_policy(self) -> None:
        if not isinstance(self.features, Aggregation):
            warnings.warn(
                "off-policy, function approximation and bootstrapping together are the deadly triad: "
                "QLearningLinear may diverge. GradientTD(kind='tdc') evaluates off-policy and converges; "
                "LSPI improves on fixed data.",
                stacklevel=4,
            )


def greedy_policy(q: Float[np.ndarray, "S A"], mdp: MDP) -> Int[np.ndarray, "S"]:
    """[S] first best feasible action, -1 in terminal states.

    Source: definition.  Oracle: oracles.enumeration.optimal_bruteforce.  Cost: O(S A).
    """
    check_shapes(q=q, feasible=mdp.action_mask)
    best = np.where(mdp.action_mask, q, -np.inf).argmax(axis=1)
    return np.where(mdp.terminal, -1, best)


# ---------------------------------------------------------------------- private
def _row(obs: Any) -> np.ndarray:
    x = np.asarray(obs)
    return x.reshape(1, -1) if x.ndim else x.reshape(1)
