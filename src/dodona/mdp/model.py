"""A finite Markov decision process as flat arrays: one row of successors per feasible state-action pair.

Storage is compressed twice: ``sa_indptr`` groups the pairs of a state, ``indptr`` groups the
successors of a pair. Infeasible actions have no pair, terminal states have no pair and value 0, so
no solver ever meets a mask. The stored numbers *are* the model: brackets and proofs are about them.

Not here: builders from other formats (from_dense.py, builders.py, tables.py, gymnasium_import.py), operators
(bellman.py, optimality.py), solvers (planning.py).

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
from dodona.errors import MDPError, ShapeError
from dodona.mdp.kernels import first_bad_row, row_mass_extremes

if TYPE_CHECKING:
    import gymnasium

DENSE_LIMIT = (
    4 << 30
)  # bytes of a dense [S, A, S] array that dense() builds without being asked twice


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Names for people: of states, of actions, and the (rows, columns) of a grid world."""

    states: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    grid: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class MDP:
    """A finite MDP, validated once, when it is made.

    q(s, a) = r(s, a) + gamma sum_s' p(s'|s, a) v(s'), and v = 0 on terminal states.

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
        labels: names and grid shape for tables and pictures.
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
        _set_dtypes(self)
        if not self.num_actions:
            object.__setattr__(self, "num_actions", int(self.actions.max(initial=0)) + 1)
        _validate(self)

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
        low, high = row_mass_extremes(self.indptr, self.indices, self.weights, self.terminal)
        return self.scale * low, self.scale * high

    @cached_property
    def reward_bound(self) -> float:
        """max |r(s, a)|."""
        return float(np.abs(self.rewards).max(initial=0.0))

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
        counts = np.bincount(pair_state, minlength=num_states)
        if len(counts) > num_states:
            raise MDPError(
                f"state {len(counts) - 1} is out of range: num_states is {num_states}. "
                "Number the states 0..num_states-1."
            )
        order = np.asarray(pair_state, dtype=np.int64) * (int(pair_action.max(initial=0)) + 1)
        if np.any(np.diff(order + pair_action) <= 0):
            raise MDPError(
                "pairs must be sorted by (state, action) and unique. Sort them with "
                "np.lexsort((pair_action, pair_state)) and merge repeated ones."
            )
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
        from dodona.mdp.from_dense import dense_to_rows

        return cls(
            **dense_to_rows(P, R, layout=layout, terminal=terminal, action_mask=action_mask),
            gamma=gamma,
            start=start,
            labels=labels,
        )

    @classmethod
    def from_gymnasium(cls, env: "gymnasium.Env | str", *, gamma: float) -> "MDP":
        """Read the table ``env.unwrapped.P`` of a tabular Gymnasium environment."""
        from dodona.mdp.gymnasium_import import mdp_from_gymnasium

        return mdp_from_gymnasium(env, gamma=gamma)

    @classmethod
    def from_table(
        cls, path: "str | os.PathLike | Iterable", *, gamma: float | None = None
    ) -> "MDP":
        """Read a CSV or Parquet table (state, action, next_state, probability, reward) or its rows."""
        from dodona.mdp.tables import mdp_from_table

        return mdp_from_table(path, gamma=gamma)

    @classmethod
    def from_scipy(cls, matrices: list, R: np.ndarray, *, gamma: float) -> "MDP":
        """Build from one SciPy sparse [S, S] matrix per action."""
        from dodona.mdp.builders import mdp_from_scipy

        return mdp_from_scipy(matrices, R, gamma=gamma)

    @classmethod
    def from_mdptoolbox(cls, P: Any, R: Any, *, gamma: float) -> "MDP":
        """Build from pymdptoolbox's P [A, S, S] and R."""
        from dodona.mdp.builders import mdp_from_mdptoolbox

        return mdp_from_mdptoolbox(P, R, gamma=gamma)

    @classmethod
    def from_function(
        cls, step: Callable, num_states: int, num_actions: int, *, gamma: float
    ) -> "MDP":
        """Build from step(s, a) -> iterable of (probability, next state, reward[, terminated])."""
        from dodona.mdp.builders import mdp_from_function

        return mdp_from_function(step, num_states, num_actions, gamma=gamma)

    # ------------------------------------------------------------------ views
    def replace(self, **fields: Any) -> "MDP":
        """The same model with other fields, validated again."""
        return replace(self, **fields)

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
        from dodona.mdp.tables import mdp_to_table

        mdp_to_table(self, path)


def _set_dtypes(mdp: MDP) -> None:
    """The kernels are compiled for these dtypes only; conversions copy only where they differ."""
    fixed: dict[str, type] = {
        "sa_indptr": np.int64,
        "actions": np.int32,
        "indptr": np.int64,
        "indices": np.int32,
        "rewards": np.float64,
        "terminal": np.bool_,
    }
    for name in ("transition_rewards", "discounts", "start"):
        if getattr(mdp, name) is not None:
            fixed[name] = np.float64
    probs = np.asarray(mdp.probs)
    if probs.dtype not in (np.float32, np.float64):
        fixed["probs"] = np.float64
    else:
        object.__setattr__(mdp, "probs", np.ascontiguousarray(probs))
    for name, dtype in fixed.items():
        array = np.asarray(getattr(mdp, name))
        if array.dtype.kind not in "biuf":
            raise MDPError(
                f"{name} has dtype {array.dtype}; real numbers are expected. "
                "Convert it with .astype(float) after checking what it holds."
            )
        object.__setattr__(mdp, name, np.ascontiguousarray(array, dtype=dtype))
    object.__setattr__(mdp, "gamma", float(mdp.gamma))


def row_sum_tolerance(dtype: np.dtype, branching: int) -> float:
    """How far a row of probabilities may miss one: rounding of the dtype, growing like sqrt(branching)."""
    unit = 1e-9 if dtype == np.float64 else 1e-6
    return unit * max(branching, 1) ** 0.5


def _validate(mdp: MDP) -> None:
    S, L, nnz = mdp.num_states, mdp.num_pairs, len(mdp.indices)
    if S < 1:
        raise MDPError("the model is empty: it has no state. At least one is needed.")
    sizes = {
        "indptr": L + 1,
        "rewards": L,
        "probs": nnz,
        "terminal": S,
        "transition_rewards": nnz,
        "discounts": nnz,
        "start": S,
    }
    for name, size in sizes.items():
        array = getattr(mdp, name)
        if array is not None and array.shape != (size,):
            raise ShapeError(
                f"{name} has shape {array.shape}, expected ({size},) with S={S} states, "
                f"L={L} pairs, nnz={nnz} transitions."
            )
    if not 0.0 <= mdp.gamma <= 1.0:
        raise MDPError(
            f"gamma must be in [0, 1], got {mdp.gamma}. 0.9 to 0.999 is usual; "
            "1 needs a model where every policy can end."
        )
    for name, end in (("sa_indptr", L), ("indptr", nnz)):
        array = getattr(mdp, name)
        if array[0] != 0 or array[-1] != end or np.any(np.diff(array) < 0):
            raise MDPError(f"{name} must rise from 0 to {end}, got {array[0]}..{array[-1]}.")
    counts = np.diff(mdp.sa_indptr)
    for wrong, text in (
        ((counts == 0) & ~mdp.terminal, "has no feasible action and is not terminal. "
         "Give it an action, or mark it in `terminal`."),
        ((counts > 0) & mdp.terminal, "is terminal and has actions. "
         "A terminal state has value 0 and no pair; for an absorbing state that pays, leave it out of `terminal`."),
    ):  # fmt: skip
        if wrong.any():
            s = int(np.argmax(wrong))
            raise MDPError(f"state {s} {text}", state=s)
    if L and mdp.actions.min() < 0:
        raise MDPError(f"actions must be >= 0, got {mdp.actions.min()}.")
    if L and mdp.actions.max() >= mdp.num_actions:
        raise MDPError(
            f"action {mdp.actions.max()} is out of range: num_actions is {mdp.num_actions}."
        )
    _validate_rows(mdp)
    _validate_start(mdp)


def _validate_rows(mdp: MDP) -> None:
    tolerance = row_sum_tolerance(mdp.probs.dtype, mdp.max_branching)
    kind, pair, got = first_bad_row(
        mdp.indptr, mdp.indices, mdp.probs, mdp.rewards, mdp.num_states, tolerance
    )
    if kind:
        s = int(np.searchsorted(mdp.sa_indptr, pair, side="right")) - 1
        a = int(mdp.actions[pair])
        where = f"state {s}, action {a}"
        text = {
            1: f"{where}: the probabilities sum to {got!r}, expected 1 within {tolerance:.1e} "
            "(1e-9 sqrt(branching), 1e-6 sqrt(branching) for float32). "
            "Did you pass P[a, s, s'] as P[s, a, s']? Then say layout='ass'.",
            2: f"{where}: probability {got!r}; every probability must be in [0, 1] and finite.",
            3: f"{where}: successor {int(got)} is out of range, states are 0..{mdp.num_states - 1}.",
            4: f"{where}: reward {got!r}; every reward must be finite. "
            "An action that must not be taken is left out (infeasible), not given -inf.",
            5: f"{where}: the pair has no successor. Give it one, or leave the action out.",
        }[kind]
        raise MDPError(text, state=s, action=a)
    if mdp.discounts is not None:
        bad = ~((mdp.discounts >= 0) & (mdp.discounts <= 1))
        if bad.any():
            k = int(np.argmax(bad))
            raise MDPError(f"discounts[{k}] is {mdp.discounts[k]}; each must be in [0, 1].")


def _validate_start(mdp: MDP) -> None:
    if mdp.start is None:
        return
    if not np.all(mdp.start >= 0) or abs(mdp.start.sum() - 1.0) > 1e-9 * mdp.num_states**0.5:
        raise MDPError(
            f"start must be a distribution over states, got sum {mdp.start.sum()!r} and "
            f"minimum {mdp.start.min()!r}."
        )
