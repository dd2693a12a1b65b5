"""What evaluation, planning and proof ask of a model: sweeps over its rows, wherever the rows are.

A row is the law of one feasible state-action pair. Rows may be stored (``Compressed``: MDP, Chain),
made on the fly by a function (matrix_free.py), or spread over processes (sharded.py). Planners never
look at them: they sweep, and add up over states through ``total`` and ``largest``, which a model
spread over processes answers for all of them.

Not here: kernels (kernels.py), meaning (certificate.py).
Source: Puterman 1994, ch. 6 (the operators).
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dodona.core.shapes import BoolArray, FloatArray, IntArray
from dodona.mdp import kernels

Extremes = tuple[float, float, float]
"""min and max of f(v) - v over all live states, wherever they are, and max |f(v)|."""


class Rows(ABC):
    """One row per state, chosen among those of a model: what evaluation and proofs need.

    num_states: length of the vectors held here. first: number of the first of these states.
    terminal: [S] states where nothing follows; their value is 0.
    mass: smallest and largest discounted mass that a row keeps on live states.
    reward_bound: bound on |reward| of a row. num_roundings: of one swept value, see certificate.py.
    ``choice`` [S] names the row of each state as the model numbers them, -1 in terminal states.
    """

    first = 0
    num_states: int
    gamma: float
    terminal: BoolArray
    mass: tuple[float, float]
    reward_bound: float
    num_roundings: int

    @abstractmethod
    def policy_sweep(
        self,
        choice: Int[np.ndarray, "S"],
        values: Float[np.ndarray, "S"],
        out: Float[np.ndarray, "S"],
    ) -> Extremes:
        """out = r + W v of the chosen rows."""

    @abstractmethod
    def policy_product(
        self,
        choice: Int[np.ndarray, "S"],
        values: Float[np.ndarray, "S"],
        out: Float[np.ndarray, "S"],
    ) -> None:
        """out = W v, the linear part of policy_sweep."""

    @abstractmethod
    def policy_rewards(self, choice: Int[np.ndarray, "S"]) -> Float[np.ndarray, "S"]:
        """r of the chosen rows, 0 in terminal states."""

    def total(self, parts: FloatArray) -> FloatArray:
        """Sums over the states held here -> sums over all states."""
        return parts

    def largest(self, values: FloatArray) -> float:
        """max |values| over all states."""
        # two reads instead of one array of absolute values: fresh memory costs more than reading
        return max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))

    @cached_property
    def ended(self) -> bool:
        """Every state is terminal: all values are 0."""
        return bool(self.terminal.all())


class Model(Rows):
    """Rows to choose from: what planners need.

    num_actions: size of the action set. start: [S] distribution of the first state, or None.
    labels: model.Labels for tables and pictures, or None.
    discounted: some discount or end is at work, so that values can be finite.
    policy_share: cost of a pass over one row per state, in passes over all rows.
    methods: the planning methods that this home of rows allows; None = all. advice: what to do instead.
    """

    num_actions: int
    start: FloatArray | None
    labels: Any
    discounted: bool
    policy_share: float
    methods: frozenset[str] | None = None
    advice = ""

    @abstractmethod
    def optimality_sweep(
        self,
        values: Float[np.ndarray, "S"],
        out: Float[np.ndarray, "S"],
        choice: Int[np.ndarray, "S"],
        keep: float,
    ) -> Extremes:
        """out = max over rows of r + W v; ``choice`` becomes greedy.

        A row within ``keep`` of the best stays chosen; keep < 0 takes the first best.
        """

    @abstractmethod
    def pair_actions(self, choice: Int[np.ndarray, "S"]) -> Int[np.ndarray, "S"]:
        """Action numbers of chosen rows; -1 stays -1."""

    @abstractmethod
    def pairs_of(
        self, states: Int[np.ndarray, "B"], actions: Int[np.ndarray, "B"]
    ) -> Int[np.ndarray, "B"]:
        """Row of each (state, action); MDPError names the first infeasible one."""

    @abstractmethod
    def q_table(self, values: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S A"]:
        """r + W v of every row, -inf where infeasible."""

    @abstractmethod
    def others_below(
        self,
        choice: Int[np.ndarray, "S"],
        values: Float[np.ndarray, "S"],
        bound: Float[np.ndarray, "S"],
    ) -> bool:
        """Every row that is not chosen has r + W v below its state's bound."""


class Compressed(Rows):
    """Rows stored as indptr, indices, weights, rewards, scale: see kernels.py."""

    indptr: IntArray
    indices: IntArray
    weights: FloatArray
    rewards: FloatArray
    scale: float

    def policy_sweep(self, choice, values, out) -> Extremes:
        with kernels.threads_for(self._visited):
            return kernels.policy_sweep(
                choice, self.indptr, self.indices, self.weights, self.rewards, self.scale, values, out
            )  # fmt: skip

    def policy_product(self, choice, values, out) -> None:
        with kernels.threads_for(self._visited):
            kernels.policy_sweep(
                choice, self.indptr, self.indices, self.weights, self._no_rewards, self.scale, values, out
            )  # fmt: skip

    def policy_rewards(self, choice) -> FloatArray:
        out, live = np.zeros(len(choice)), choice >= 0
        out[live] = self.rewards[choice[live]]
        return out

    @cached_property
    def _visited(self) -> int:
        """Transitions that a pass over one row per state visits, on average over the rows."""
        return len(self.indices) * self.num_states // max(len(self.rewards), 1)

    @cached_property
    def _no_rewards(self) -> FloatArray:
        return np.zeros_like(self.rewards)


class CompressedModel(Compressed, Model):
    """All rows stored, grouped by state: the rows of state s are sa_indptr[s]:sa_indptr[s+1]."""

    sa_indptr: IntArray
    actions: IntArray
    pair_state: IntArray
    discounts: FloatArray | None

    def optimality_sweep(self, values, out, choice, keep) -> Extremes:
        with kernels.threads_for(len(self.indices)):
            return kernels.optimality_sweep(
                self.sa_indptr, self.indptr, self.indices, self.weights, self.rewards, self.scale,
                values, out, choice, keep,
            )  # fmt: skip

    def pair_actions(self, choice) -> IntArray:
        if not len(self.actions):
            return np.full(len(choice), -1, dtype=np.int64)
        actions = self.actions[choice].astype(np.int64)
        actions[choice < 0] = -1
        return actions

    def pair_values(self, values: Float[np.ndarray, "S"]) -> Float[np.ndarray, "L"]:
        """r + W v of every feasible pair."""
        out = np.empty(len(self.actions))
        with kernels.threads_for(len(self.indices)):
            kernels.pair_values(
                self.indptr, self.indices, self.weights, self.rewards, self.scale, values, out
            )
        return out

    def q_table(self, values) -> FloatArray:
        out = np.full((self.num_states, self.num_actions), -np.inf)
        out[self.pair_state, self.actions] = self.pair_values(values)
        return out

    def others_below(self, choice, values, bound) -> bool:
        q = self.pair_values(values)
        q[choice[choice >= 0]] = -np.inf
        return bool(np.all(q < bound[self.pair_state]))

    @property
    def discounted(self) -> bool:
        return self.discounts is not None or self.gamma < 1.0

    @cached_property
    def policy_share(self) -> float:
        live = self.num_states - int(self.terminal.sum())
        return live / max(len(self.actions), 1)
