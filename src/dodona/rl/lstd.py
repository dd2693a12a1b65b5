"""Least squares in place of step sizes: LSTD, its recursive form, LSTDQ and LSPI.

    A_t = sum_k z_k (phi_k - c_k phi'_k)^T,   b_t = sum_k r_k z_k,   w = (A_t + ridge I)^{-1} b_t

with z = phi (or the trace phi_t + c lambda z), c = gamma (1 - terminated). Recursive form, Sherman-Morrison:

    A^{-1} <- A^{-1} - (A^{-1} phi) (phi - c phi')^T A^{-1} / (1 + (phi - c phi')^T A^{-1} phi),

from A_0^{-1} = I / ridge. The sign is a minus; the printed formula of Zhao 2025, sec. 8.2.5, has a plus,
with which the recursion is the inverse of nothing.

Not here: incremental learners (linear_td.py).

Source: Bradtke & Barto 1996 (LSTD); Boyan 2002 (lambda); Lagoudakis & Parr 2003 (LSTDQ, LSPI).
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dodona.core.inputs import check_count, check_finite, check_range
from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError, ShapeError
from dodona.mdp.model import MDP
from dodona.rl import _linear_kernels as kernels
from dodona.rl.features import Features
from dodona.rl.linear_base import WeightHistory
from dodona.rl.transitions import Transitions, sample_transitions, transitions
from dodona.rl.value_objectives import solve_or_least_norm

CHUNK = 2048  # rows whose features are dense at one time


class LSTD:
    """The fixed point of TD from data, without a step size.

    Args:
        features: phi; m should be well below the number of transitions.
        gamma: discount in [0, 1].
        ridge: > 0 with recursive, where it starts the inverse; >= 0 else. Added to A, not to its mean.
        recursive: keep A^{-1} (O(m^2) a transition); else keep A and solve when asked (one matrix
            product for a batch).
        gae_lambda: trace parameter in [0, 1].
    Attributes:
        A, b: what has been added up (A without recursive only).
    Raises: InputError: a range, or recursive without ridge.
    Source: Bradtke & Barto 1996.  Oracle: oracles.projection.td_fixed_point.
    Cost: recursive O(m^2) a transition; batch O(N m^2 + m^3), by BLAS.

    >>> from dodona.rl.features import OneHot
    >>> lstd = LSTD(OneHot(2), gamma=0.5, ridge=1e-9, recursive=False)
    >>> lstd.update(np.array([0, 1]), None, np.array([1.0, 2.0]), np.array([1, 1]),
    ...             np.array([False, True]), np.array([False, False]))
    >>> lstd.weights.round(6).tolist()
    [2.0, 2.0]
    """

    def __init__(
        self,
        features: Features,
        *,
        gamma: float,
        ridge: float = 1e-6,
        recursive: bool = True,
        gae_lambda: float = 0.0,
    ):
        check_range("[0, 1]", "0.9 to 0.99 are usual.", gamma=gamma)
        check_range("[0, 1]", "0 is LSTD(0).", gae_lambda=gae_lambda)
        check_range("[0, inf)", "1e-6 is usual.", ridge=ridge)
        if recursive and ridge == 0:
            raise InputError("the recursive form starts from I / ridge: take ridge > 0, or recursive=False.")  # fmt: skip
        self.features, self.gamma, self.ridge = features, float(gamma), float(ridge)
        self.recursive, self.gae_lambda = recursive, float(gae_lambda)
        m = features.num_features
        self.b = np.zeros(m)
        self.A = np.zeros((m, m))
        self.inverse = np.eye(m) / ridge if recursive else np.zeros((0, 0))
        self.num_updates = 0
        self._trace = np.zeros(m)
        self._solved: FloatArray | None = None

    @property
    def weights(self) -> Float[np.ndarray, "m"]:
        """w of what has been seen; a warning names the rank where the features have less than m."""
        if self._solved is None:
            if self.recursive:
                self._solved = self.inverse @ self.b
            else:
                self._solved = solve_or_least_norm(self.A, self.b, ridge=self.ridge)
        return self._solved

    def values(self, x: Shaped[np.ndarray, "B ..."]) -> Float[np.ndarray, "B"]:
        """phi(x) . w."""
        return self.features.transform(np.asarray(x)) @ self.weights

    def update(
        self,
        s: Shaped[np.ndarray, "B ..."],
        a: Any,
        r: Float[np.ndarray, "B"],
        s2: Shaped[np.ndarray, "B ..."],
        terminated: Bool[np.ndarray, "B"],
        truncated: Bool[np.ndarray, "B"],
        a2: Any = None,
        *,
        weights: Float[np.ndarray, "B"] | None = None,
    ) -> None:
        """Add transitions.

        Args: as TDLinear.update.  weights: [B] >= 0, how much each counts; exact probabilities give w*.
        Raises: NonFiniteError: rewards or features.  InputError: an update that made A singular.
        """
        r = np.asarray(r, dtype=np.float64)
        check_finite(r=r)
        check_range("[0, inf)", weights=weights)
        terminated = np.asarray(terminated, bool)
        ends = terminated | np.asarray(truncated, bool)
        discounts = np.where(terminated, 0.0, self.gamma)
        share = np.ones(len(r)) if weights is None else np.asarray(weights, dtype=np.float64)
        self._solved = None
        for first in range(0, len(r), CHUNK):
            now = slice(first, first + CHUNK)
            phi = np.ascontiguousarray(self.features.transform(np.asarray(s)[now]))
            after = self.features.transform(np.asarray(s2)[now])
            self._add(phi, after, r[now], discounts[now], ends[now], share[now])
        self.num_updates += len(r)
        check_finite(**{"A (from features)": self.inverse if self.recursive else self.A})

    def learn(
        self, source: Any, *, num_steps: int | None = None, seed: int = 0, num_records: int = 1, **options: Any
    ) -> WeightHistory:  # fmt: skip
        """Learn from recorded transitions, once, or from a walk through a model.

        Args:
            source: a Batch or (s, a, r, s2, terminated[, truncated]), or an MDP.
            num_steps: of the walk; with recorded transitions None, or how many of them.
            num_records: weights are kept so many times, evenly.
            options: of a walk: policy, max_episode_steps.
        Returns: WeightHistory of one run.
        Raises: InputError: an MDP without num_steps, or with another gamma; too few transitions.
        """
        if isinstance(source, MDP):
            if num_steps is None:
                raise InputError("a walk through a model needs num_steps.")
            if source.discounts is not None or source.gamma != self.gamma:
                raise InputError(
                    f"LSTD has gamma {self.gamma:g}; the model has "
                    f"{'discounts of its own' if source.discounts is not None else f'{source.gamma:g}'}. "
                    f"Make them one, for instance with mdp.replace(gamma={self.gamma:g}, discounts=None)."
                )
            rows = sample_transitions(source, num_steps, seed=seed, **options)
            place = self.features.inputs(source)
            rows = replace(rows, states=place[rows.states], next_states=place[rows.next_states])
        else:
            rows = transitions(source)
        num = len(rows.rewards) if num_steps is None else num_steps
        check_count(num_steps=num, num_records=num_records)
        if num > len(rows.rewards):
            raise InputError(f"num_steps is {num}, there are {len(rows.rewards)} transitions.")
        steps = np.linspace(0, num, min(num_records, num) + 1).round().astype(np.int64)
        kept = [np.zeros_like(self.b)]
        for first, last in zip(steps, steps[1:], strict=False):
            now = slice(first, last)
            self.update(
                rows.states[now], None, rows.rewards[now], rows.next_states[now], rows.terminated[now],
                rows.truncated[now],
            )  # fmt: skip
            kept.append(self.weights.copy())
        return WeightHistory(steps=steps, weights=np.stack(kept)[None])

    def _add(self, phi, after, r, discounts, ends, share) -> None:
        traces = phi
        if self.gae_lambda:
            traces = np.empty_like(phi)
            kernels.trace_rows(phi, discounts, ends, self.gae_lambda, self._trace, traces)
        step = after * -discounts[:, None]
        step += phi
        if self.recursive:
            traces, step = np.ascontiguousarray(traces), np.ascontiguousarray(step)
            if not kernels.recursive_lstd(traces, step, r, share, self.inverse, self.b):
                raise InputError(
                    "a transition made A singular, so its inverse does not exist. Take a larger ridge, "
                    "or recursive=False."
                )
        else:
            weighted = traces if (share == 1.0).all() else traces * share[:, None]
            self.A += weighted.T @ step
            self.b += weighted.T @ r


class LSTDQ:
    """Action values of a policy from data: LSTD on phi(s, a) = e_a (x) phi(s).

    Args:
        features: phi(s).  num_actions: A; A m weights.
        gamma, ridge: as LSTD, without recursion.
    Attributes:
        weights: [A, m], after ``fit``.
    Source: Lagoudakis & Parr 2003, sec. 6.  Oracle: oracles.dense.policy_value with one-hot features.
    Cost: O(N m^2 + (A m)^3).
    """

    def __init__(self, features: Features, num_actions: int, *, gamma: float, ridge: float = 1e-6):
        check_range("[0, 1]", "0.9 to 0.99 are usual.", gamma=gamma)
        check_range("[0, inf)", "1e-6 is usual.", ridge=ridge)
        check_count(num_actions=num_actions)
        self.features, self.num_actions = features, num_actions
        self.gamma, self.ridge = float(gamma), float(ridge)
        self.weights = np.zeros((num_actions, features.num_features))

    def q(self, x: Shaped[np.ndarray, "B ..."]) -> Float[np.ndarray, "B A"]:
        """phi(x) . w_a of every action."""
        return self.features.transform(np.asarray(x)) @ self.weights.T

    def fit(
        self,
        source: Any,
        next_policy: Int[np.ndarray, "N"] | Float[np.ndarray, "N A"],
        *,
        weights: Float[np.ndarray, "N"] | None = None,
    ) -> None:
        """Solve for the policy whose choice in every next state is given.

        Args:
            source: a Batch or (s, a, r, s2, terminated[, truncated]).
            next_policy: action in each next state [N], or probabilities [N, A]. An average is
                not a mean over taken actions: it adds no noise.
            weights: [N] >= 0, how much each transition counts.
        Raises: TypeError: actions that are not integers.  ShapeError: next_policy.
        """
        self.fit_rows(self.prepare(source, weights), next_policy)

    def prepare(self, source: Any, weights: FloatArray | None = None) -> dict[str, np.ndarray]:
        """Features and actions of the data: what does not depend on the policy."""
        rows: Transitions = transitions(source)
        check_range("[0, inf)", weights=weights)
        num = len(rows.rewards)
        return {
            "phi": self.features.transform(rows.states),
            "after": self.features.transform(rows.next_states),
            "actions": rows.action_numbers(self.num_actions),
            "rewards": rows.rewards,
            "discounts": np.where(rows.terminated, 0.0, self.gamma),
            "weights": np.ones(num) if weights is None else np.asarray(weights, dtype=float),
        }

    def fit_rows(
        self,
        data: dict[str, np.ndarray],
        next_policy: Int[np.ndarray, "N"] | Float[np.ndarray, "N A"],
    ) -> None:
        """``fit`` on prepared data."""
        num, m = data["phi"].shape
        A, next_policy = self.num_actions, np.asarray(next_policy)
        if next_policy.shape == (num,):
            next_policy = np.eye(A)[next_policy]
        if next_policy.shape != (num, A):
            raise ShapeError(
                f"next_policy has shape {next_policy.shape}, expected [N] = ({num},) actions or "
                f"[N, A] = {(num, A)} probabilities."
            )
        after = data["discounts"][:, None] * data["after"]
        system, right = np.zeros((A, m, A, m)), np.zeros((A, m))
        for a in range(A):
            mine = data["actions"] == a
            weighted = data["phi"][mine] * data["weights"][mine, None]
            system[a, :, a] += weighted.T @ data["phi"][mine]
            right[a] = weighted.T @ data["rewards"][mine]
            for b in range(A):
                system[a, :, b] -= weighted.T @ (next_policy[mine, b, None] * after[mine])
        flat = solve_or_least_norm(system.reshape(A * m, A * m), right.ravel(), ridge=self.ridge)
        self.weights = flat.reshape(A, m)


@dataclass(frozen=True, kw_only=True)
class LSPIReport:
    """iterations done; converged: the greedy policy did not change; changed: [K] next states whose action changed."""

    iterations: int
    converged: bool
    changed: tuple[int, ...]


class LSPI(LSTDQ):
    """Least-squares policy iteration: LSTDQ, then the greedy policy, until it stays.

    With one-hot features on every pair it is policy iteration on the empirical model, and converges to its
    optimum. With features it may end in a cycle; a warning says so.

    Args: as LSTDQ.  max_iter: at most so many policies.
    Source: Lagoudakis & Parr 2003.  Oracle: oracles.empirical.empirical_mdp with one-hot features.
    Cost: one LSTDQ per policy.
    """

    def __init__(
        self,
        features: Features,
        num_actions: int,
        *,
        gamma: float,
        ridge: float = 1e-6,
        max_iter: int = 50,
    ):
        super().__init__(features, num_actions, gamma=gamma, ridge=ridge)
        check_count(max_iter=max_iter)
        self.max_iter = max_iter

    def learn(self, source: Any, *, weights: Float[np.ndarray, "N"] | None = None) -> LSPIReport:
        """Iterate on fixed data from the current weights.

        Args: source, weights: as LSTDQ.fit; the data need not follow any policy.
        Returns: LSPIReport.  Warns: no policy stayed within max_iter.
        """
        data = self.prepare(source, weights)
        chosen: IntArray = (data["after"] @ self.weights.T).argmax(axis=1)
        changed: list[int] = []
        for _ in range(self.max_iter):
            self.fit_rows(data, chosen)
            q = data["after"] @ self.weights.T
            # an action that is as good to rounding stays, or ties would be exchanged for ever
            keep = q[np.arange(len(q)), chosen] >= q.max(axis=1) - 1e-9 * np.abs(q).max(initial=1.0)
            better = np.where(keep, chosen, q.argmax(axis=1))
            changed.append(int(((better != chosen) & (data["discounts"] > 0)).sum()))
            if not changed[-1]:
                return LSPIReport(iterations=len(changed), converged=True, changed=tuple(changed))
            chosen = better
        warnings.warn(
            f"LSPI changed {changed[-1]} actions in its last of {self.max_iter} iterations: with function "
            "approximation it may cycle. The weights are those of the last policy.",
            stacklevel=2,
        )
        return LSPIReport(iterations=len(changed), converged=False, changed=tuple(changed))
