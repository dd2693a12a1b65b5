"""Prediction with linear features: TD(0), n-step TD, TD(lambda), true online TD(lambda), gradient Monte Carlo.

    delta = r + c phi' . w - phi . w,   w <- w + alpha delta phi        (TD, semi-gradient: phi' . w is a constant)
    w <- w + alpha (g - phi . w) phi                                    (Monte Carlo, a true gradient)

with c = gamma (1 - terminated). The step of feature i is alpha * features.step_scale()[i].

Not here: off-policy methods that converge (gradient_td.py), least squares (lstd.py), control.

Source: Zhao 2025, alg. 8.1; Sutton 1988; van Seijen et al. 2016, arXiv:1512.04087 (true online).
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from dodona.core.inputs import check_choice, check_count, check_finite, check_range
from dodona.core.schedules import Schedule
from dodona.core.shapes import FloatArray
from dodona.errors import InputError, SamplingError
from dodona.mdp.model import MDP
from dodona.rl import _linear_kernels as kernels
from dodona.rl.features import Features
from dodona.rl.linear_base import LinearLearner, Walk, start_runs, value_errors
from dodona.rl.outcomes import policy_table, start_outcomes, state_outcomes
from dodona.rl.transitions import episode_limit


class TDLinear(LinearLearner):
    """Linear TD: w goes to w* = A^{-1} b, where the projected Bellman error is 0.

    Args:
        features, gamma, alpha: as LinearLearner.
        gae_lambda: trace parameter lambda in [0, 1]; 0 is TD(0).
        trace: "accumulating", or "online" for true online TD(lambda), which equals the lambda-return
            seen so far after every step.
        num_steps: n of n-step TD; above 1 only with lambda 0, and only in ``learn``.
    Raises: InputError: a range; n > 1 with lambda > 0.
    Source: Sutton 1988; Tsitsiklis & Van Roy 1997.
    Oracle: oracles.projection.td_fixed_point, oracles.projection.mean_dynamics.
    Cost: O(active features) a step; O(m) with lambda > 0.

    >>> from dodona.rl.features import OneHot
    >>> learner = TDLinear(OneHot(2), gamma=0.9, alpha=0.5)
    >>> learner.update([0], None, [1.0], [1], [True], [False])
    >>> learner.weights.tolist()
    [0.5, 0.0]
    """

    rule = kernels.TD

    def __init__(
        self,
        features: Features,
        *,
        gamma: float,
        alpha: float | Schedule,
        gae_lambda: float = 0.0,
        trace: str = "accumulating",
        num_steps: int = 1,
    ):
        check_range("[0, 1]", "0 is TD(0).", gae_lambda=gae_lambda)
        check_choice(("accumulating", "online"), trace=trace)
        check_count(num_steps=num_steps)
        if num_steps > 1 and (gae_lambda or trace == "online"):
            raise InputError(
                f"num_steps = {num_steps} and traces are two ways to look ahead: take gae_lambda=0 and "
                "trace='accumulating', or num_steps=1."
            )
        super().__init__(features, gamma=gamma, alpha=alpha)
        self.gae_lambda, self.num_steps = float(gae_lambda), num_steps
        if trace == "online":
            self.rule = kernels.TRUE_ONLINE
        self.second = np.zeros_like(self.weights)
        self.extra = np.zeros(1)

    def second_step_sizes(self, num: int) -> FloatArray:
        """Step sizes of the second weights, where a rule has them."""
        return np.zeros(num)

    def update(
        self,
        s: Shaped[np.ndarray, "B ..."] | list,
        a: Any,
        r: Float[np.ndarray, "B"] | list,
        s2: Shaped[np.ndarray, "B ..."] | list,
        terminated: Bool[np.ndarray, "B"] | list,
        truncated: Bool[np.ndarray, "B"] | list,
        a2: Any = None,
        *,
        ratios: Float[np.ndarray, "B"] | None = None,
    ) -> None:
        """Learn from transitions, one after another; they are consecutive unless an episode ends between.

        Args:
            s, s2: observations as ``features.transform`` takes them.  a, a2: not looked at.
            r: rewards.  terminated: no future.  truncated: cut from outside; bootstraps, ends the trace.
            ratios: target / behaviour probability of the action taken; None: on-policy.
        Raises: NonFiniteError: rewards, or weights that diverged.
        """
        if self.num_steps > 1:
            raise InputError("n-step TD needs whole stretches: use learn, or gae_lambda instead.")
        rewards = np.asarray(r, dtype=np.float64)
        check_finite(r=rewards)
        ends = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        num = len(rewards)
        index, value = self.rows(s)
        index2, value2 = self.rows(s2)
        kernels.value_updates(
            self.rule, index, value, index2, value2, rewards, self.discounts(np.asarray(terminated, bool)),
            ends, np.ones(num) if ratios is None else np.asarray(ratios, float), self.step_sizes(num),
            self.second_step_sizes(num), self.gae_lambda, self.scale, self.weights, self.second, self.extra,
        )  # fmt: skip
        self.num_updates += num
        check_finite(weights=self.weights)

    def walk(
        self,
        mdp: MDP,
        *,
        num_runs: int = 1,
        seed: int = 0,
        policy: Shaped[np.ndarray, "..."] | None = None,
        behaviour: Shaped[np.ndarray, "..."] | None = None,
        max_episode_steps: int | None = None,
        start_weights: FloatArray | None = None,
    ) -> Walk:
        """Runs in a model.

        Args:
            policy: whose values are learnt, [S] or [S, A]; None: uniform over feasible actions.
            behaviour: who acts; None: the policy. Another one corrects by importance ratios.
            max_episode_steps: episodes are cut there (and bootstrap).
            start_weights: [m] or [R, m].
        Raises: SupportError: the behaviour never takes an action of the policy.
        """
        self.require_gamma(mdp)
        target = policy_table(mdp, policy)
        acting = None if behaviour is None else policy_table(mdp, behaviour)
        if self.num_steps > 1 and acting is not None:
            raise InputError(
                "n-step TD is on-policy here: leave behaviour out, or take num_steps=1."
            )
        self.check_stability(mdp, target, acting)
        table = state_outcomes(mdp, *((target,) if acting is None else (acting, target)))
        starts, limit = start_outcomes(mdp), episode_limit(max_episode_steps)
        index, value = self.model_rows(mdp)
        state = start_runs(self, num_runs, seed, start_weights)
        if self.num_steps > 1:
            n = self.num_steps
            state |= {"ring": np.zeros((num_runs, n), np.int64), "rewards": np.zeros((num_runs, n)),
                      "discounts": np.zeros((num_runs, n))}  # fmt: skip

            def advance(state, counts):
                kernels.n_step_walk(
                    n, table, starts, index, value, self.alpha_at(counts), self.scale, limit, state["words"],
                    state["at"], state["age"], state["weights"], state["ring"], state["rewards"],
                    state["discounts"],
                )  # fmt: skip
        else:
            state |= {"second": np.zeros_like(state["weights"]), "extra": np.zeros((num_runs, 1))}

            def advance(state, counts):
                kernels.value_walk(
                    self.rule, table, starts, index, value, self.alpha_at(counts), self.beta_at(counts),
                    self.gae_lambda, self.scale, limit, state["words"], state["at"], state["age"],
                    state["weights"], state["second"], state["extra"],
                )  # fmt: skip

        return Walk(
            self, state, advance, lambda: value_errors(mdp, target, self.features.matrix(mdp))
        )

    def check_stability(self, mdp: MDP, target: FloatArray, acting: FloatArray | None) -> None:
        """Warn where a semi-gradient must or may diverge."""
        if self.gae_lambda == 0 and self.num_steps == 1:
            self.warn_if_unstable(mdp, target, acting, type(self).__name__)

    def alpha_at(self, counts: np.ndarray) -> FloatArray:
        return np.broadcast_to(self.alpha(counts), len(counts)).astype(float)

    def beta_at(self, counts: np.ndarray) -> FloatArray:
        return np.zeros(len(counts))

    def model_rows(self, mdp: MDP) -> tuple:
        index, value = self.features.rows(mdp)
        return np.ascontiguousarray(index, np.int64), np.ascontiguousarray(value, np.float64)


class GradientMC(LinearLearner):
    """Gradient Monte Carlo: every visited state moves towards the return that followed.

    Its limit is the best projection, the minimum of J_E: no bootstrapping, no bias, more variance.

    Args: as LinearLearner.
    Source: Zhao 2025, sec. 8.2; Sutton & Barto 2018, sec. 9.3.
    Oracle: oracles.projection.minimisers.  Cost: O(active features) a step, at the end of each episode.
    """

    def update(
        self,
        s: Shaped[np.ndarray, "B ..."] | list,
        a: Any,
        r: Float[np.ndarray, "B"] | list,
        s2: Any,
        terminated: Bool[np.ndarray, "B"] | list,
        truncated: Bool[np.ndarray, "B"] | list,
        a2: Any = None,
    ) -> None:
        """Learn from whole episodes in a row.

        Raises: InputError: the last episode is not finished, or one is cut: its return is not known.
        """
        ends = np.asarray(terminated, bool)
        cut = np.asarray(truncated, bool) & ~ends
        if not ends[-1] or cut.any():
            raise InputError(
                f"Monte Carlo needs returns to the end; step {int(np.argmax(cut)) if cut.any() else len(ends) - 1} "
                "is not followed by its end. Take TDLinear, which bootstraps."
            )  # fmt: skip
        rewards = np.asarray(r, dtype=np.float64)
        check_finite(r=rewards)
        index, value = self.rows(s)
        first = 0
        for last in np.flatnonzero(ends) + 1:
            row = np.arange(last - first)
            alpha = float(self.step_sizes(1)[0])
            kernels.returns_updates(
                row, rewards[first:last], self.discounts(ends[first:last]), index[first:last],
                value[first:last], alpha, self.scale, self.weights,
            )  # fmt: skip
            self.num_updates += len(row)
            first = last
        check_finite(weights=self.weights)

    def walk(
        self,
        mdp: MDP,
        *,
        num_runs: int = 1,
        seed: int = 0,
        policy: Shaped[np.ndarray, "..."] | None = None,
        longest_episode: int = 100_000,
        start_weights: FloatArray | None = None,
    ) -> Walk:
        """Runs of whole episodes; a run may go over its number of steps by the rest of an episode.

        Args: longest_episode: an episode that has not ended by then is an error.  Others: as TDLinear.
        Raises: SamplingError (when advanced): an episode that does not end.
        """
        self.require_gamma(mdp)
        check_count(longest_episode=longest_episode)
        target = policy_table(mdp, policy)
        table, starts = state_outcomes(mdp, target), start_outcomes(mdp)
        index, value = self.features.rows(mdp)
        index, value = np.ascontiguousarray(index, np.int64), np.ascontiguousarray(value)
        state = start_runs(self, num_runs, seed, start_weights)
        state["over"] = np.zeros(num_runs, np.int64)

        def advance(state, counts):
            run = kernels.monte_carlo_walk(
                table, starts, index, value, np.broadcast_to(self.alpha(counts), len(counts)).astype(float),
                self.scale, longest_episode, state["words"], state["over"], state["weights"],
            )  # fmt: skip
            if run >= 0:
                raise SamplingError(
                    f"an episode of run {run} did not end within {longest_episode} steps, so it has no "
                    "return. Does the policy end? Take TDLinear, or a larger longest_episode."
                )

        return Walk(
            self, state, advance, lambda: value_errors(mdp, target, self.features.matrix(mdp))
        )
