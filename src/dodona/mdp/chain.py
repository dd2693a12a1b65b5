"""A policy in an MDP is a Markov chain with rewards: one row per state, the same field names.

A deterministic policy picks rows; a stochastic one averages them. Because the names are those of
MDP, the kernels and the certificate serve both.

Source: Zhao 2025, sec. 2.7 (r_pi, P_pi); Puterman 1994, sec. 5.6.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Shaped

from dodona.core.shapes import BoolArray, FloatArray, IntArray
from dodona.errors import MDPError, ShapeError, SupportError
from dodona.mdp.kernels import row_mass_extremes, threads_for
from dodona.mdp.model import MDP
from dodona.mdp.rows import Compressed, Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Chain(Compressed):
    """r_pi and the discounted P_pi of one policy.

    indptr [S+1], indices [nnz], weights [nnz], rewards [S]: row s is empty in terminal states.
    reward_bound and num_roundings come from the model, so that a certificate also covers the
    rounding of the average over actions.
    """

    indptr: IntArray
    indices: IntArray
    weights: FloatArray
    rewards: FloatArray
    scale: float
    gamma: float
    terminal: BoolArray
    reward_bound: float
    num_roundings: int

    @property
    def num_states(self) -> int:
        return len(self.rewards)

    @cached_property
    def choice(self) -> IntArray:
        """[S] row of each state, -1 in terminal ones: what the kernels call the chosen pair."""
        return np.where(self.terminal, -1, np.arange(self.num_states))

    @cached_property
    def mass(self) -> tuple[float, float]:
        """Smallest and largest discounted mass that a live state keeps on live states."""
        live = np.flatnonzero(~self.terminal)
        if not len(live):
            return 0.0, 0.0
        if len(live) < self.num_states:
            lengths = np.diff(self.indptr)[live]
            indptr = np.concatenate([[0], np.cumsum(lengths)])
        else:
            indptr = self.indptr
        with threads_for(len(self.indices)):
            low, high = row_mass_extremes(indptr, self.indices, self.weights, self.terminal)
        return self.scale * low, self.scale * high

    def with_rewards(self, rewards: FloatArray) -> "Chain":
        """The same chain paying ``rewards`` [S], for what else is linear in them."""
        bound = float(np.abs(rewards).max(initial=0.0))
        return replace(self, rewards=rewards, reward_bound=bound)

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """[S, S] scale * weights with the columns of terminal states removed (their value is 0)."""
        weights = self.scale * np.where(
            self.terminal[self.indices], 0.0, np.asarray(self.weights, dtype=np.float64)
        )
        shape = (self.num_states, self.num_states)
        # a copy: summing duplicates works in place
        matrix = sparse.csr_array((weights, self.indices, self.indptr), shape=shape, copy=True)
        matrix.sum_duplicates()
        return matrix


def policy_chain(mdp: MDP, policy: Shaped[np.ndarray, "..."] | list) -> Chain:
    """The chain of a policy: [S] action numbers, or [S, A] probabilities.

    Raises:
        ShapeError: neither [S] nor [S, A].
        TypeError: action numbers that are not integers, probabilities that are not real.
        SupportError: a row that is not a distribution, or mass on an infeasible action.
        MDPError: an infeasible action number.
    Oracle: oracles.dense.policy_value on P_pi, r_pi.  Cost: O(nnz of the rows it touches).
    """
    pairs, share = policy_pairs(mdp, policy)
    counts = np.diff(mdp.indptr)[pairs]
    take = flat_rows(mdp.indptr, pairs, counts)
    weights, rewards = mdp.weights[take], mdp.rewards[pairs]
    state = mdp.pair_state[pairs]
    extra = 0
    if share is not None:
        weights = weights.astype(np.float64) * np.repeat(share, counts)
        rewards = rewards * share
        extra = mdp.num_actions + 1
    per_state = np.bincount(state, weights=counts, minlength=mdp.num_states).astype(np.int64)
    return Chain(
        indptr=np.concatenate([[0], np.cumsum(per_state)]),
        indices=mdp.indices[take],
        weights=weights,
        rewards=np.bincount(state, weights=rewards, minlength=mdp.num_states),
        scale=mdp.scale,
        gamma=mdp.gamma,
        terminal=mdp.terminal,
        reward_bound=mdp.reward_bound * (1.0 + 1e-6),  # rows of pi may sum to a hair above one
        num_roundings=int(per_state.max(initial=0)) + 4 + extra,
    )


def normalised(mdp: MDP) -> MDP:
    """The model with rows that sum to one as well as float64 can tell: what gamma = 1 is about.

    Without a discount a row sum's last digits count once per step, so they must not be noise.
    """
    first = mdp.indptr[:-1]
    probs = np.asarray(mdp.probs, dtype=np.float64)
    sums = np.add.reduceat(probs, first) if len(first) else np.ones(0)
    if np.all(np.abs(sums - 1.0) <= 4 * np.finfo(np.float64).eps):
        return mdp
    return mdp.replace(probs=probs / np.repeat(sums, np.diff(mdp.indptr)))


def flat_rows(indptr: IntArray, rows: IntArray, counts: IntArray) -> IntArray:
    """Positions of the entries of the given rows, row after row."""
    start = np.repeat(indptr[rows] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return start + np.arange(len(start))


def policy_pairs(
    mdp: Model, policy: Shaped[np.ndarray, "..."] | list
) -> tuple[IntArray, FloatArray | None]:
    """(pairs, their probabilities) that a policy uses, in state order; None = all are certain."""
    policy = np.asarray(policy)
    S, A = mdp.num_states, mdp.num_actions
    if policy.shape == (S,):
        if policy.dtype.kind not in "iu":
            raise TypeError(
                f"a deterministic policy holds action numbers (integers), got dtype {policy.dtype}. "
                f"For probabilities pass [S, A] = {(S, A)}."
            )
        live = np.flatnonzero(~mdp.terminal)
        return mdp.pairs_of(live, policy[live]), None
    policy = distributions(mdp, policy)
    wrong = ~mdp.terminal[:, None] & (policy > 0) & ~mdp.action_mask
    if wrong.any():
        s, a = (int(i) for i in np.argwhere(wrong)[0])
        raise infeasible_mass(mdp, policy, s, a)
    share = policy[mdp.pair_state, mdp.actions]
    pairs = np.flatnonzero(share > 0)
    return pairs, share[pairs]


def distributions(mdp: Model, policy: np.ndarray) -> Float[np.ndarray, "S A"]:
    """A stochastic policy as float64 whose live rows are distributions, or the error that says why not."""
    S, A = mdp.num_states, mdp.num_actions
    if policy.shape != (S, A):
        raise ShapeError(
            f"policy has shape {policy.shape}, expected [S] = ({S},) action numbers or "
            f"[S, A] = {(S, A)} probabilities."
        )
    if policy.dtype.kind not in "biuf":
        raise TypeError(f"a stochastic policy holds real probabilities, got dtype {policy.dtype}.")
    policy = policy.astype(np.float64)
    sums = policy.sum(axis=1)
    good = (np.abs(sums - 1.0) <= 1e-9 * A**0.5) & np.all(policy >= 0, axis=1)
    bad = ~mdp.terminal & ~good
    if bad.any():
        s = int(np.argmax(bad))
        raise SupportError(
            f"policy row of state {s} is {policy[s].tolist()} with sum {float(sums[s])!r}; "
            "a distribution over actions is expected: non-negative, sum 1.",
            state=s,
        )
    return policy


def infeasible_mass(mdp: Any, policy: np.ndarray, s: int, a: int) -> SupportError:
    """The error for a policy that may take action a in state s, where it can not."""
    return SupportError(
        f"policy gives probability {float(policy[s, a])!r} to action {a} in state {s}, where it is "
        f"infeasible. Feasible there: {mdp.feasible(s)}.",
        state=s,
        action=a,
    )


def require_proper(mdp: MDP | Chain) -> None:
    """Every state can end under the chain's policy, or, for an MDP, under some policy.

    Raises:
        MDPError: names a state from which no discount or terminal state is ever reached.
    """
    stuck = never_ending(mdp)
    if stuck.any():
        s = int(np.argmax(stuck))
        raise MDPError(
            f"gamma is 1 and state {s} never reaches termination (the policy is improper), so its "
            "return has no end. Choose another policy, use gamma < 1, or ask for "
            "average_reward / relative_value_iteration.",
            state=s,
        )


def closed_classes(graph: sparse.csr_array) -> list[IntArray]:
    """The sets of states that can be reached from each other and never left, each rising.

    Args: graph: [S, S], an entry where a transition is possible.
    Source: Tarjan 1972.  Oracle: oracles.chains.null_vector has one dimension per class.
    Cost: O(S + entries).
    """
    count, label = sparse.csgraph.connected_components(graph, connection="strong")
    source = np.repeat(label, np.diff(graph.indptr))
    closed = np.ones(count, dtype=bool)
    closed[source[source != label[graph.indices]]] = False
    states = np.flatnonzero(closed[label])
    states = states[np.argsort(label[states], kind="stable")]
    return np.split(states, np.flatnonzero(np.diff(label[states])) + 1)


def never_ending(rows: MDP | Chain) -> BoolArray:
    """[S] True where no path leads to a terminal state or to a transition that ends."""
    S = rows.num_states
    per_row = np.diff(rows.indptr)
    owner = np.arange(S) if isinstance(rows, Chain) else rows.pair_state
    source = np.repeat(owner, per_row)
    positive = np.asarray(rows.weights) > 0
    mass = np.bincount(source, weights=rows.weights, minlength=S)
    pairs = 1 if isinstance(rows, Chain) else np.diff(rows.sa_indptr)
    leaks = rows.scale * mass < pairs - 1e-9 * np.maximum(pairs, 1)
    ends = rows.terminal | leaks
    graph = sparse.csr_array(
        (np.ones(positive.sum()), (rows.indices[positive], source[positive])), shape=(S, S)
    )
    return ~_reachable(graph, ends)


def _reachable(graph: sparse.csr_array, roots: BoolArray) -> BoolArray:
    """Nodes reachable from ``roots``: breadth first over whole frontiers."""
    seen = roots.copy()
    frontier = np.flatnonzero(roots)
    while len(frontier):
        counts = np.diff(graph.indptr)[frontier]
        reached = np.unique(graph.indices[flat_rows(graph.indptr, frontier, counts)])
        frontier = reached[~seen[reached]]
        seen[frontier] = True
    return seen
