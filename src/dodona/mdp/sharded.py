"""Planning over several processes: each holds the rows of its own states, all prove one bracket.

Rows are split by state; a sweep first fetches the values of the foreign successors (halo.py), then
runs the same kernels as in one process, so value iteration and truncated policy iteration give the
same bits for any number of ranks, and every method the same bracket up to rounding. What a planner
adds up over states (extremes, dot products of the Krylov solvers) is gathered from all ranks.

    torchrun --nproc-per-node 4 plan.py             # where plan.py holds
    torch.distributed.init_process_group("gloo")
    solution = solve_sharded(shard(mdp, rank, 4), tol=1e-6)

Not here: which state belongs where. Number the states so that successors are near (reverse
Cuthill-McKee does), and the halo is small.

Source: Gargiani et al. 2025, arXiv:2502.14474 (distributed inexact policy iteration); Bertsekas &
Tsitsiklis 1989, ch. 4 (parallel value iteration).
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import InputError, MDPError, ShapeError
from dodona.mdp import kernels
from dodona.mdp.chain import flat_rows
from dodona.mdp.halo import Halo, World
from dodona.mdp.matrix_free import MatrixFree
from dodona.mdp.model import MDP
from dodona.mdp.planning import Planner
from dodona.mdp.rows import Extremes, Model
from dodona.mdp.solution import Solution

METHODS = frozenset(("auto", "value-iteration", "truncated", "policy-iteration", "inexact"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """The rows of the states first, first + 1, ... of a model, and the foreign states they lead to.

    first: number of the first own state. num_states: states of the whole model.
    halo: [H] numbers of the foreign successors, rising.
    rows: own states, then those of the halo. A halo state has no row here, so ``rows`` calls it
        terminal, which it need not be: only solve_sharded may plan with it.
    """

    first: int
    num_states: int
    halo: IntArray
    rows: MDP

    @property
    def num_own(self) -> int:
        """Number of own states."""
        return self.rows.num_states - len(self.halo)

    @classmethod
    def from_rows(
        cls,
        *,
        first: int,
        num_states: int,
        sa_indptr: Int[np.ndarray, "S_plus_1"],
        actions: Int[np.ndarray, "L"],
        indptr: Int[np.ndarray, "L_plus_1"],
        indices: Int[np.ndarray, "nnz"],
        probs: Float[np.ndarray, "nnz"],
        rewards: Float[np.ndarray, "L"],
        gamma: float,
        discounts: Float[np.ndarray, "nnz"] | None = None,
        terminal: Bool[np.ndarray, "S"] | None = None,
        num_actions: int = 0,
    ) -> "Shard":
        """Build from the rows of own states, as a rank that makes its own part does.

        Args:
            first, num_states: as the fields.
            indices: [nnz] successors, numbered as in the whole model.
            terminal: [S] of the own states; default: none.
            others: as the fields of MDP, of the own states only.
        Raises:
            MDPError: as MDP; a note says where the numbers in the message start.
            ShapeError: own states that do not lie in 0..num_states-1.
        """
        own = len(sa_indptr) - 1
        if not (0 <= first and 1 <= own and first + own <= num_states):
            raise ShapeError(
                f"a shard of {own} states from {first} on does not fit a model of {num_states} states."
            )
        foreign = (indices < first) | (indices >= first + own)
        halo = np.unique(indices[foreign])
        if len(halo) and (halo[0] < 0 or halo[-1] >= num_states):
            raise MDPError(
                f"a successor is out of range: got {halo[0]}..{halo[-1]}, states are "
                f"0..{num_states - 1}. Number successors as in the whole model."
            )
        local = np.where(foreign, own + np.searchsorted(halo, indices), indices - first)
        ends = np.zeros(own, dtype=bool) if terminal is None else terminal
        try:
            rows = MDP(
                sa_indptr=np.concatenate([sa_indptr, np.full(len(halo), sa_indptr[-1])]),
                actions=actions,
                indptr=indptr,
                indices=local,
                probs=probs,
                rewards=rewards,
                gamma=gamma,
                discounts=discounts,
                terminal=np.concatenate([ends, np.ones(len(halo), dtype=bool)]),
                num_actions=num_actions,
            )
        except MDPError as error:
            error.add_note(f"States are numbered here from the first one of the shard, {first}.")
            raise
        return cls(first=first, num_states=num_states, halo=halo, rows=rows)


def shard(mdp: MDP | MatrixFree, rank: int, num_ranks: int) -> Shard:
    """The rank's part of a model: consecutive states, transitions shared evenly.

    Of an MDP, which must fit one machine, it copies rows. A MatrixFree model makes its functions say
    the rows of this rank and no others, so that the whole need not fit anywhere:

        shard(worlds.matrix_free.chain(10**9), rank, 64)

    Args:
        mdp: the same on every rank.
        rank: in 0..num_ranks-1.
        num_ranks: at most the number of states.
    Raises: InputError: a rank or a number of ranks out of range. MDPError: as MatrixFree, of own rows.
    Source: row partition as in Gargiani et al. 2025, arXiv:2502.14474.
    Oracle: the shards of all ranks hold the rows of the model, in order.
    Cost: O(S + transitions of the shard); of a MatrixFree model O(transitions of the shard), and one
        byte per state of the whole, the mark of the terminal ones.
    """
    S = mdp.num_states
    if not 1 <= num_ranks <= S or not 0 <= rank < num_ranks:
        raise InputError(
            f"rank must be in 0..num_ranks-1 and num_ranks in 1..{S} (the states), got "
            f"rank={rank}, num_ranks={num_ranks}."
        )
    if isinstance(mdp, MatrixFree):
        return _made_by_functions(mdp, rank * S // num_ranks, (rank + 1) * S // num_ranks)
    edges = _even_edges(mdp, num_ranks)
    first, last = int(edges[rank]), int(edges[rank + 1])
    pairs = np.arange(mdp.sa_indptr[first], mdp.sa_indptr[last])
    counts = np.diff(mdp.indptr)[pairs]
    take = flat_rows(mdp.indptr, pairs, counts)
    return Shard.from_rows(
        first=first,
        num_states=S,
        sa_indptr=mdp.sa_indptr[first : last + 1] - mdp.sa_indptr[first],
        actions=mdp.actions[pairs],
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        indices=mdp.indices[take],
        probs=mdp.probs[take],
        rewards=mdp.rewards[pairs],
        gamma=mdp.gamma,
        discounts=None if mdp.discounts is None else mdp.discounts[take],
        terminal=mdp.terminal[first:last],
        num_actions=mdp.num_actions,
    )


def _made_by_functions(model: MatrixFree, first: int, last: int) -> Shard:
    rows = model.stored_rows(first, last)
    pairs = np.bincount(rows["pair_state"] - first, minlength=last - first)
    return Shard.from_rows(
        first=first,
        num_states=model.num_states,
        sa_indptr=np.concatenate([[0], np.cumsum(pairs)]),
        actions=rows["pair_action"],
        indptr=rows["indptr"],
        indices=rows["indices"],
        probs=rows["probs"],
        rewards=rows["rewards"],
        gamma=model.gamma,
        discounts=np.where(rows["ended"], 0.0, model.gamma) if rows["ended"].any() else None,
        terminal=model.terminal[first:last],
        num_actions=model.num_actions,
    )


def solve_sharded(
    shard: Shard,
    *,
    tol: float = 1e-8,
    process_group: Any = None,
    method: str = "auto",
    **options: Any,
) -> Solution:
    """Optimal values and policy of the own states, with the proven bracket of the whole model.

    Every rank of the group calls it with its shard and the same arguments. Rank after rank, the
    shards must hold the states 0..num_states-1.

    Args:
        tol: largest upper - lower over all states, reward units.
        process_group: of torch.distributed, moving CPU tensors (gloo). None: the default group, or
            this process alone where torch.distributed is not initialised.
        method: "auto", "value-iteration", "truncated", "inexact" (a distributed GMRES, or
            krylov="bicgstab") or "policy-iteration".
        options: as Planner's; start_values and start_policy are those of the own states.
    Returns:
        Solution of the own states; iterations, residual, converged and history are those of the
        whole model. ``.q`` fetches foreign values: ask for it on every rank or on none.
    Raises:
        MDPError: shards that overlap, leave a gap, or disagree on gamma or on the number of states
            (on every rank); else as Planner.
        InputError: ranks that disagree on tol; a group that this process is not in.
    Warns: RuntimeWarning on rank 0 where the gap stays above tol.
    Source: see the module.
    Oracle: solve on the whole model; equal to 1e-12 for 1, 2, 3 and 4 ranks.
    Cost: per sweep, the own rows, one exchange of halo values, one gather of three numbers. Threads
        add to processes: set NUMBA_NUM_THREADS to the cores of a rank.
    """
    world = World(process_group)
    if options.get("switch", "howard") != "howard":
        raise InputError(
            "switch='simplex' looks for one state among all: only 'howard' is sharded."
        )
    planning = Planner(Sharded(shard, world, tol=tol), method, tol=tol, **options)
    while planning.advance():
        pass
    solution = planning.solution()
    if not solution.converged and world.rank == 0:
        warnings.warn(f"{method} did not converge: {solution.note}", RuntimeWarning, stacklevel=2)
    return solution


class Sharded(Model):
    """A model whose states lie in several processes: this one's part of every vector.

    Every method is collective: all ranks call it, in the same order. Args: tol: compared over ranks.
    """

    methods = METHODS
    advice = "its states lie in several processes."
    start = labels = None

    def __init__(self, shard: Shard, world: World, *, tol: float = 0.0):
        self.shard, self.world = shard, world
        rows, own = shard.rows, shard.num_own
        self.num_states, self.first, self.gamma = own, shard.first, rows.gamma
        self.terminal = rows.terminal[:own]
        edges = _agree(shard, world, tol)
        self._halo = Halo(world, edges, shard.halo)
        self._values = np.zeros(own + len(shard.halo))
        self._gather_facts()

    def optimality_sweep(self, values, out, choice, keep) -> Extremes:
        rows = self.shard.rows
        return self._overall(
            kernels.optimality_sweep(
                rows.sa_indptr, rows.indptr, rows.indices, rows.weights, rows.rewards, rows.scale,
                self._with_halo(values), out, choice, keep,
            )
        )  # fmt: skip

    def policy_sweep(self, choice, values, out) -> Extremes:
        return self._overall(self.shard.rows.policy_sweep(choice, self._with_halo(values), out))

    def policy_product(self, choice, values, out) -> None:
        self.shard.rows.policy_product(choice, self._with_halo(values), out)

    def policy_rewards(self, choice) -> FloatArray:
        return self.shard.rows.policy_rewards(choice)

    def pair_actions(self, choice) -> IntArray:
        return self.shard.rows.pair_actions(choice)

    def pairs_of(self, states, actions) -> IntArray:
        return self.shard.rows.pairs_of(states, actions)

    def q_table(self, values) -> FloatArray:
        out = np.full((self.num_states, self.num_actions), -np.inf)
        rows = self.shard.rows
        out[rows.pair_state, rows.actions] = rows.pair_values(self._with_halo(values))
        return out

    def others_below(self, choice, values, bound) -> bool:
        q = self.shard.rows.pair_values(self._with_halo(values))
        q[choice[choice >= 0]] = -np.inf
        above = np.count_nonzero(~(q < bound[self.shard.rows.pair_state]))
        return not self.total(np.array([float(above)]))[0]

    def total(self, parts: FloatArray) -> FloatArray:
        return self.world.gather(parts).sum(axis=0)

    def largest(self, values: FloatArray) -> float:
        here = np.abs(values).max(initial=0.0)
        return float(self.world.gather(np.array([here])).max())

    # ------------------------------------------------------------------ private
    def _with_halo(self, values: FloatArray) -> FloatArray:
        own = len(values)
        self._values[:own] = values
        self._halo.fetch(self._values[:own], self._values[own:])
        return self._values

    def _overall(self, extremes: Extremes) -> Extremes:
        low, high, size = self.world.gather(np.array(extremes)).T
        return float(low.min()), float(high.max()), float(size.max())

    def _gather_facts(self) -> None:
        """What the certificate and the planner need to know about all rows."""
        rows = self.shard.rows
        dead = self._with_halo(self.terminal.astype(np.float64)) > 0.5
        low, high = np.inf, 0.0
        if rows.num_pairs:
            with kernels.threads_for(len(rows.indices)):
                extremes = kernels.row_mass_extremes(rows.indptr, rows.indices, rows.weights, dead)
            low, high = (rows.scale * x for x in extremes)
        low, high, bound, roundings, actions, live, pairs, discounted = self.world.gather(
            np.array(
                [
                    low, high, rows.reward_bound, rows.num_roundings,
                    rows.num_actions, np.count_nonzero(~self.terminal), rows.num_pairs,
                    rows.discounted,
                ],
                dtype=np.float64,
            )
        ).T  # fmt: skip
        self.mass = (min(float(low.min()), float(high.max())), float(high.max()))
        self.reward_bound, self.num_roundings = float(bound.max()), int(roundings.max())
        self.num_actions, self.discounted = int(actions.max()), bool(discounted.any())
        self.ended = live.sum() == 0
        self.policy_share = float(live.sum() / max(pairs.sum(), 1))


def _agree(shard: Shard, world: World, tol: float) -> Int[np.ndarray, "ranks_plus_1"]:
    """Edges of the shards in the order of ranks; the same error on every rank where they do not fit."""
    whole = world.gather(np.array([shard.first, shard.num_own, shard.num_states]))
    real = world.gather(np.array([shard.rows.gamma, tol]))
    for values, name, advice in (
        (real[:, 0], "gamma", "All shards must come from one model."),
        (whole[:, 2], "num_states", "All shards must come from one model."),
        (real[:, 1], "tol", "Call solve_sharded with the same arguments on every rank."),
    ):
        if np.any(values != values[0]):
            r = int(np.argmax(values != values[0]))
            error = InputError if name == "tol" else MDPError
            raise error(
                f"ranks disagree on {name}: {values[0]} on rank 0, {values[r]} on rank {r}. {advice}"
            )
    first, own, n = whole[:, 0], whole[:, 1], int(whole[0, 2])
    edges = np.concatenate([[0], np.cumsum(own)])
    if np.any(first != edges[:-1]) or edges[-1] != n:
        held = ", ".join(f"{a}..{a + b - 1}" for a, b in zip(first, own, strict=True))
        raise MDPError(
            f"the shards must hold the states 0..{n - 1}, each once and in the order of ranks; they "
            f"hold {held}. Make them with shard(mdp, rank, num_ranks), one for each of the "
            f"{world.size} processes."
        )
    return edges


def _even_edges(mdp: MDP, num_ranks: int) -> Int[np.ndarray, "ranks_plus_1"]:
    """Cuts that give every rank about as many transitions, and at least one state."""
    ranks = np.arange(num_ranks + 1)
    work = mdp.indptr[mdp.sa_indptr] + np.arange(mdp.num_states + 1)  # a state costs a write too
    edges = np.searchsorted(work, ranks * work[-1] / num_ranks)
    edges = np.maximum.accumulate(np.maximum(edges - ranks, 0)) + ranks
    return np.minimum(edges, mdp.num_states - num_ranks + ranks)
