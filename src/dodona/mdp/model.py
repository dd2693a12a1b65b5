"""A finite Markov decision process as flat arrays: one row of successors per feasible state-action pair.

Storage is compressed twice: ``sa_indptr`` groups the pairs of a state, ``indptr`` groups the
successors of a pair. Infeasible actions have no pair, terminal states have no pair and value 0, so
no solver ever meets a mask. The stored numbers *are* the model: brackets and proofs are about them.

Not here: what is valid (validation.py), builders from other formats (formats/),
operators (bellman.py, optimality.py), solvers (planning.py).

Source: Puterman, Markov Decision Processes, 1994, ch. 2; White 2017, arXiv:1609.01995
(per-transition discounts).
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dodona.core.shapes import BoolArray, FloatArray, IntArray
from dodona.errors import MDPError
from dodona.mdp.kernels import row_mass_extremes, threads_for
from dodona.mdp.rows import CompressedModel
from dodona.mdp.validation import UNSORTED, cast_exactly, set_dtypes, validate

if TYPE_CHECKING:
    import gymnasium

DENSE_LIMIT = (
    4 << 30
)  # bytes of a dense [S, A, S] array that dense() builds without being asked twice


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Names for people: [S] of states, [A] of actions, and the (rows, columns) of a grid world."""

    states: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    grid: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class MDP(CompressedModel):
    """A finite MDP, validated once, when it is made.

    q(s, a) = r(s, a) + gamma sum_s' p(s'|s, a) v(s'), and v = 0 on terminal states.
    Arrays that have their dtype already are kept, not copied: pass copies of what will be written to
    later, or the model changes unseen, behind the validation and behind what was derived from it.

    Args:
        sa_indptr: [S+1], the pairs of state s are sa_indptr[s]:sa_indptr[s+1].
        actions: [L], the action of each pair, increasing within a state.
        indptr: [L+1], the successors of pair l are indptr[l]:indptr[l+1].
        indices: [nnz], successor states.
        probs: [nnz], float64 or float32; each pair's sum is one within the dtype's tolerance.
        rewards: [L], expected reward of a pair, any unit.
        transition_rewards: [nnz], reward of each transition; only the variance of the return needs it.
        gamma: discount in [0, 1].
        discounts: [nnz], discount of each transition in [0, 1], 0 where it terminates; replaces gamma.
        terminal: [S], states where nothing follows.
        start: [S], distribution of the first state.
        labels: names and grid shape for tables and pictures; one name per state, per action.
        num_actions: size of the action set; default: largest action + 1.
    Raises:
        MDPError: the first offending state and action, what was got and what is expected.
        ShapeError: arrays that do not fit together.
    Source: Puterman 1994, ch. 2.
    Oracle: oracles.rational (exact values of the stored floats).
    Cost: one pass over nnz.
    """

    sa_indptr: IntArray
    actions: IntArray
    indptr: IntArray
    indices: IntArray
    probs: FloatArray
    rewards: FloatArray
    transition_rewards: FloatArray | None = None
    gamma: float
    discounts: FloatArray | None = None
    terminal: BoolArray
    start: FloatArray | None = None
    labels: Labels | None = None
    num_actions: int = 0

    def __post_init__(self) -> None:
        set_dtypes(self)
        if not self.num_actions:
            object.__setattr__(self, "num_actions", int(self.actions.max(initial=0)) + 1)
        validate(self)

    # ------------------------------------------------------------------ sizes and derived arrays
    @property
    def num_states(self) -> int:
        return len(self.sa_indptr) - 1

    @property
    def num_pairs(self) -> int:
        return len(self.actions)

    @cached_property
    def pair_state(self) -> IntArray:
        """[L] state of each pair."""
        return np.repeat(np.arange(self.num_states, dtype=np.int32), np.diff(self.sa_indptr))

    @property
    def action_mask(self) -> BoolArray:
        """[S, A] True where the action is feasible."""
        mask = np.zeros((self.num_states, self.num_actions), dtype=bool)
        mask[self.pair_state, self.actions] = True
        return mask

    @cached_property
    def weights(self) -> FloatArray:
        """[nnz] what multiplies v(s') besides ``scale``: the probability, times its own discount if any."""
        if self.discounts is None:
            return self.probs
        return np.asarray(self.probs, dtype=np.float64) * self.discounts

    @property
    def scale(self) -> float:
        """The factor in front of the weighted sum: gamma, or 1 where transitions carry discounts."""
        return self.gamma if self.discounts is None else 1.0

    @cached_property
    def mass(self) -> tuple[float, float]:
        """Smallest and largest discounted mass that a pair sends to non-terminal states.

        Both equal gamma in a continuing task with exact rows; they carry the true row sums of
        float32 models and the leak into terminal states, and so decide what a residual proves.
        """
        with threads_for(len(self.indices)):
            low, high = row_mass_extremes(self.indptr, self.indices, self.weights, self.terminal)
        return self.scale * low, self.scale * high

    @cached_property
    def reward_bound(self) -> float:
        """max |r(s, a)|."""
        return max(float(self.rewards.max(initial=0.0)), -float(self.rewards.min(initial=0.0)))

    @cached_property
    def max_branching(self) -> int:
        """Largest number of successors of a pair."""
        return int(np.diff(self.indptr).max(initial=0))

    @property
    def num_roundings(self) -> int:
        """Roundings of one swept value: n products, n - 1 sums, discount, scale, reward."""
        return self.max_branching + 4

    # ------------------------------------------------------------------ builders
    @classmethod
    def from_pairs(
        cls,
        *,
        pair_state: Int[np.ndarray, "L"],
        pair_action: Int[np.ndarray, "L"],
        indptr: Int[np.ndarray, "L_plus_1"],
        indices: Int[np.ndarray, "nnz"],
        probs: Float[np.ndarray, "nnz"],
        rewards: Float[np.ndarray, "L"],
        num_states: int,
        gamma: float,
        terminal: Bool[np.ndarray, "S"] | None = None,
        **fields: Any,
    ) -> "MDP":
        """Build from pairs sorted by (state, action); ``fields`` are further fields of MDP."""
        pair_state = cast_exactly(np.asarray(pair_state), np.int64, "pair_state")
        outside = pair_state[(pair_state < 0) | (pair_state >= num_states)]
        if outside.size:
            raise MDPError(
                f"state {outside[0]} is out of range: num_states is {num_states}. "
                "Number the states 0..num_states-1."
            )
        counts = np.bincount(pair_state, minlength=num_states)
        order = pair_state * (int(pair_action.max(initial=0)) + 1)
        if np.any(np.diff(order + pair_action) <= 0):
            raise MDPError(UNSORTED)
        if terminal is None:
            terminal = np.zeros(num_states, dtype=bool)
        return cls(
            sa_indptr=np.concatenate([[0], np.cumsum(counts)]),
            actions=pair_action,
            indptr=indptr,
            indices=indices,
            probs=probs,
            rewards=rewards,
            gamma=gamma,
            terminal=terminal,
            **fields,
        )

    @classmethod
    def from_dense(
        cls,
        P: Shaped[np.ndarray, "..."] | list,
        R: Shaped[np.ndarray, "..."] | list,
        *,
        gamma: float,
        layout: Literal["sas", "ass"] | None = None,
        terminal: Shaped[np.ndarray, "S"] | Iterable[int] | None = None,
        action_mask: Bool[np.ndarray, "S A"] | None = None,
        start: Float[np.ndarray, "S"] | None = None,
        labels: Labels | None = None,
    ) -> "MDP":
        """Build from dense arrays.

        Args:
            P: p(s'|s, a) as [S, A, S], or as [A, S, S] with layout="ass".
            R: r(s, a) as [S, A]; r(s, a, s') in the layout of P; or [S], the reward for
                arriving in s'.
            layout: "sas" or "ass"; may be left out where the shape can only be [S, A, S].
            terminal: [S] bool, or the numbers of the terminal states. Their rows are dropped.
            action_mask: [S, A], False where an action is infeasible; its row is dropped.
        Raises:
            MDPError: with the first offending state and action.
            ShapeError: shapes that do not fit, or a cube whose layout can not be known.
        Oracle: oracles.dense.policy_value on the same arrays.
        Cost: O(S^2 A).
        """
        from dodona.mdp.formats.dense import dense_to_rows

        return cls(
            **dense_to_rows(P, R, layout=layout, terminal=terminal, action_mask=action_mask),
            gamma=gamma,
            start=start,
            labels=labels,
        )

    @classmethod
    def from_gymnasium(cls, env: "gymnasium.Env | str", *, gamma: float) -> "MDP":
        """Read the table ``env.unwrapped.P`` of a tabular Gymnasium environment."""
        from dodona.mdp.formats.gymnasium_table import mdp_from_gymnasium

        return mdp_from_gymnasium(env, gamma=gamma)

    @classmethod
    def from_table(
        cls, path: "str | os.PathLike | Iterable", *, gamma: float | None = None
    ) -> "MDP":
        """Read a CSV or Parquet table (state, action, next_state, probability, reward) or its rows."""
        from dodona.mdp.formats.tables import mdp_from_table

        return mdp_from_table(path, gamma=gamma)

    @classmethod
    def from_scipy(cls, matrices: Any, R: Any, *, gamma: float, **fields: Any) -> "MDP":
        """Build from one SciPy sparse [S, S] matrix per action; ``fields`` as matrices.mdp_from_scipy."""
        from dodona.mdp.formats.matrices import mdp_from_scipy

        return mdp_from_scipy(matrices, R, gamma=gamma, **fields)

    @classmethod
    def from_mdptoolbox(cls, P: Any, R: Any, *, gamma: float, **fields: Any) -> "MDP":
        """Build from pymdptoolbox's P [A, S, S] and R; ``fields`` as matrices.mdp_from_mdptoolbox."""
        from dodona.mdp.formats.matrices import mdp_from_mdptoolbox

        return mdp_from_mdptoolbox(P, R, gamma=gamma, **fields)

    @classmethod
    def from_function(
        cls, step: Callable, num_states: int, num_actions: int, *, gamma: float, **fields: Any
    ) -> "MDP":
        """Build from step(s, a) -> iterable of (probability, next state, reward[, terminated]).

        None, or nothing, is an infeasible action; ``fields`` as builders.mdp_from_function.
        """
        from dodona.mdp.formats.builders import mdp_from_function

        return mdp_from_function(step, num_states, num_actions, gamma=gamma, **fields)

    @classmethod
    def from_samples(cls, batch: Any, *, gamma: float, **fields: Any) -> "MDP":
        """The empirical MDP of sampled transitions: counts as probabilities, mean rewards.

        ``batch``: (states, actions, rewards, next states, terminated), or a record of transitions;
        ``fields`` as builders.mdp_from_samples.
        """
        from dodona.mdp.formats.builders import mdp_from_samples

        return mdp_from_samples(batch, gamma=gamma, **fields)

    # ------------------------------------------------------------------ views
    def replace(self, **fields: Any) -> "MDP":
        """The same model with other fields, validated again.

        Another gamma alone also scales discounts that are gamma, or 0 where a transition ends, as
        from_gymnasium, from_table, from_function and from_samples make them.

        Raises: MDPError: another gamma, and discounts of another kind, which it would not change.

        >>> mdp = MDP.from_table([(0, 0, 1, 1.0, 1.0, 1), (1, 0, 0, 1.0, 1.0, 0)], gamma=0.5)
        >>> mdp.replace(gamma=0.9).discounts
        array([0. , 0.9])
        """
        gamma = fields.get("gamma", self.gamma)
        if gamma != self.gamma and self.discounts is not None and "discounts" not in fields:
            fields["discounts"] = self._discounts_at(gamma)
        return replace(self, **fields)

    def _discounts_at(self, gamma: float) -> FloatArray:
        """[nnz] the discounts under another gamma, where they are 0 (it ends) or gamma (it does not)."""
        ended = self.discounts == 0
        own = ~ended & (self.discounts != self.gamma)
        if own.any() or self.gamma == 0:
            reason = (
                f"discounts[{int(np.argmax(own))}] is {self.discounts[np.argmax(own)]}, neither 0 nor gamma"
                if own.any()
                else "at gamma 0 they do not tell which transitions end"
            )
            raise MDPError(
                f"this model has a discount per transition, which replaces gamma, so gamma={gamma} alone "
                f"has no meaning for it: {reason}. Pass the discounts too, replace(gamma=..., "
                "discounts=...), or discounts=None for one discount everywhere."
            )
        return np.where(ended, 0.0, gamma)

    def dense(self) -> tuple[Float[np.ndarray, "S A S"], Float[np.ndarray, "S A"], float]:
        """(P, R, gamma) as arrays; infeasible and terminal rows are zero in both.

        Raises:
            MDPError: the array would need more than 4 GiB, or discounts differ by transition.
        """
        S, A = self.num_states, self.num_actions
        if 8 * S * S * A > DENSE_LIMIT:
            raise MDPError(
                f"a dense [S, A, S] array of this model needs {8 * S * S * A / 2**30:.1f} GiB "
                f"(S={S}, A={A}). Keep the sparse rows: mdp.indptr, mdp.indices, mdp.probs."
            )
        if self.discounts is not None:
            raise MDPError(
                "this model has a discount per transition, which (P, R, gamma) can not hold. "
                "Use mdp.weights, the product of probability and discount."
            )
        P, R = np.zeros((S, A, S)), np.zeros((S, A))
        pair = np.repeat(np.arange(self.num_pairs), np.diff(self.indptr))
        np.add.at(P, (self.pair_state[pair], self.actions[pair], self.indices), self.probs)
        R[self.pair_state, self.actions] = self.rewards
        return P, R, self.gamma

    def step(
        self,
        states: Int[np.ndarray, "B"],
        actions: Int[np.ndarray, "B"],
        *,
        rng: np.random.Generator,
    ) -> tuple[Int[np.ndarray, "B"], Float[np.ndarray, "B"], Bool[np.ndarray, "B"]]:
        """Sample one transition per row: (next states, rewards, terminated).

        ``terminated`` is True where the successor is terminal or the transition's discount is 0.
        """
        pairs = self.pairs_of(np.asarray(states), np.asarray(actions))
        u = rng.random(len(pairs))
        successor = np.empty(len(pairs), dtype=np.int64)
        for i, pair in enumerate(pairs):
            row = slice(self.indptr[pair], self.indptr[pair + 1])
            cumulative = np.cumsum(self.probs[row], dtype=np.float64)
            successor[i] = row.start + np.searchsorted(
                cumulative[:-1], u[i] * cumulative[-1], side="right"
            )
        reward = (
            self.rewards[pairs]
            if self.transition_rewards is None
            else self.transition_rewards[successor]
        )
        next_state = self.indices[successor].astype(np.int64)
        terminated = self.terminal[next_state]
        if self.discounts is not None:
            terminated = terminated | (self.discounts[successor] == 0)
        return next_state, reward, terminated

    def pairs_of(self, states: IntArray, actions: IntArray) -> IntArray:
        """Index of each (state, action) pair; MDPError names the first infeasible one."""
        key = self.pair_state.astype(np.int64) * self.num_actions + self.actions
        wanted = np.asarray(states, dtype=np.int64) * self.num_actions + actions
        pairs = np.searchsorted(key, wanted)
        bad = (
            (pairs >= len(key))
            | (key[np.minimum(pairs, len(key) - 1)] != wanted)
            | (np.asarray(actions) < 0)
            | (np.asarray(actions) >= self.num_actions)
        )
        if bad.any():
            i = int(np.argmax(bad))
            s, a = int(states[i]), int(actions[i])
            raise MDPError(
                f"action {a} is infeasible in state {s}. Feasible there: {self.feasible(s)}.",
                state=s,
                action=a,
            )
        return pairs

    def feasible(self, state: int) -> list[int]:
        """The actions that may be taken in a state."""
        return self.actions[self.sa_indptr[state] : self.sa_indptr[state + 1]].tolist()

    def to_table(self, path: "str | os.PathLike") -> None:
        """Write the model as CSV or Parquet; ``from_table`` reads it back."""
        from dodona.mdp.formats.tables import mdp_to_table

        mdp_to_table(self, path)

    def to_scipy(self) -> tuple[list, Float[np.ndarray, "S A"]]:
        """(one sparse [S, S] matrix per action, R [S, A]); see matrices.mdp_to_scipy."""
        from dodona.mdp.formats.matrices import mdp_to_scipy

        return mdp_to_scipy(self)

    def to_mdptoolbox(
        self, *, infeasible: Literal["error", "repeat"] = "error"
    ) -> tuple[Float[np.ndarray, "A S S"], Float[np.ndarray, "S A"]]:
        """(P [A, S, S], R [S, A]) as pymdptoolbox takes them; see matrices.mdp_to_mdptoolbox."""
        from dodona.mdp.formats.matrices import mdp_to_mdptoolbox

        return mdp_to_mdptoolbox(self, infeasible=infeasible)
