"""The planning methods, each as one answer to one question: which values come next?

Every outer iteration of every planner begins with one sweep f(v), which proves the bracket and
finds the greedy policy. A method only proposes the next values from there, so none can spoil the
proof, and value iteration, policy iteration and all between differ by one function.

Source: Zhao 2025, ch. 4 (value, policy, truncated policy iteration); Puterman & Shin 1978;
Moore & Atkeson 1993 (prioritised); Geist & Scherrer 2018, arXiv:1809.09501 (Anderson);
Gargiani et al. 2022, arXiv:2211.04299 (inexact policy iteration); Kahn 1962 / Tarjan 1972 (order).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sparse
from scipy.optimize import linprog

from dodona.core.shapes import FloatArray, IntArray
from dodona.errors import NoSolutionError
from dodona.mdp import kernels
from dodona.mdp.backward import backward_orders, backward_sweeps
from dodona.mdp.certificate import floor, shifts
from dodona.mdp.evaluation import evaluate
from dodona.mdp.model import MDP
from dodona.mdp.rows import CompressedModel, Model


@dataclass(kw_only=True)
class Work:
    """What a planner holds between outer iterations.

    values: v before the last sweep. swept: f(v). choice: greedy pairs of v. last_choice: those of
    the sweep before. residual: max |f(v) - v|. sweeps: work so far in full sweeps. memory: what a
    method needs to remember (arrays and numbers; part of the saved state). spare: arrays to reuse.
    """

    mdp: Model
    values: FloatArray
    swept: FloatArray
    choice: IntArray
    last_choice: IntArray
    options: dict[str, Any]
    iteration: int = 0
    sweeps: float = 0.0
    residual: float = np.inf
    gap: float = np.inf
    memory: dict[str, Any] = field(default_factory=dict)
    spare: list[FloatArray] = field(default_factory=list)

    def room(self) -> FloatArray:
        """[S] numbers to overwrite, used before where possible: fresh memory costs half a sweep."""
        return self.spare.pop() if self.spare else np.empty_like(self.swept)

    @property
    def rows(self) -> tuple:
        """Stored rows as the kernels take them."""
        m = self.mdp
        return m.sa_indptr, m.indptr, m.indices, m.weights, m.rewards, m.scale

    def num_changed(self) -> float:
        """States where the last sweep chose another row than the sweep before."""
        changed = np.count_nonzero(self.choice != self.last_choice)
        return float(self.mdp.total(np.array([float(changed)]))[0])


Proposal = Callable[[Work], FloatArray]


def jacobi(work: Work) -> FloatArray:
    """Value iteration: v <- f(v)."""
    return work.swept


def anderson(work: Work) -> FloatArray:
    """Value iteration with Anderson mixing over the last ``window`` steps, undone where it hurt.

    v <- sum_i a_i f(v_i), sum a_i = 1, minimising |sum_i a_i (f(v_i) - v_i)|. A mixed step whose
    residual grew is dropped and the memory cleared, so convergence is that of value iteration.
    """
    window = work.options.get("window", 5)
    pairs = work.memory.setdefault("pairs", [])
    if work.residual > work.memory.get("last", np.inf):
        pairs.clear()
    work.memory["last"] = work.residual
    pairs.append([work.values.copy(), work.swept.copy()])
    del pairs[:-window]
    if len(pairs) < 2:
        return work.swept
    swept = np.stack([p[1] for p in pairs])
    change = swept - np.stack([p[0] for p in pairs])
    steps = np.diff(change, axis=0)
    weights, *_ = np.linalg.lstsq(steps.T, change[-1], rcond=None)
    return swept[-1] - weights @ np.diff(swept, axis=0)


def gauss_seidel(work: Work) -> FloatArray:
    """``inner`` in-place sweeps, alternately upwards and downwards, relaxed by ``omega``."""
    values, order = work.swept.copy(), np.arange(work.mdp.num_states)
    throwaway = work.choice.copy()
    inner = work.options.get("inner", 4)
    for i in range(inner):
        direction = order if i % 2 == 0 else order[::-1]
        omega = work.options.get("omega", 1.0)
        kernels.ordered_sweep(direction, *work.rows, omega, values, throwaway)
    work.sweeps += inner
    return values


def random_order(work: Work) -> FloatArray:
    """Asynchronous: every state once in a random order that depends on seed and iteration only."""
    rng = np.random.default_rng([work.options.get("seed", 0), work.iteration])
    values = work.swept.copy()
    order = rng.permutation(work.mdp.num_states)
    kernels.ordered_sweep(order, *work.rows, 1.0, values, work.choice.copy())
    work.sweeps += 1
    return values


def red_black(work: Work) -> FloatArray:
    """Two half sweeps in parallel; the second half sees the first. Chessboard on grids."""
    S, labels = work.mdp.num_states, work.mdp.labels
    colours = np.arange(S) % 2
    if labels is not None and labels.grid is not None and labels.grid[0] * labels.grid[1] == S:
        colours = np.add(*np.divmod(np.arange(S), labels.grid[1])) % 2
    half, out = np.empty(S), np.empty(S)
    with kernels.threads_for(len(work.mdp.indices)):
        kernels.colour_sweep(colours, 0, *work.rows, work.swept, half)
        kernels.colour_sweep(colours, 1, *work.rows, half, out)
    work.sweeps += 1
    return out


def topological(work: Work) -> FloatArray:
    """Strongly connected components in reverse order, each swept until it is nearly solved."""
    if "order" not in work.memory:
        work.memory["order"], work.memory["starts"] = component_order(work.mdp)
    values = work.swept.copy()
    updates = kernels.component_sweeps(
        work.memory["order"], work.memory["starts"], *work.rows,
        1e-3 * work.residual, work.options.get("limit", 1000), values,
    )  # fmt: skip
    work.sweeps += updates / work.mdp.num_states
    return values


def prioritized(work: Work) -> FloatArray:
    """As many single-state updates as there are states, the largest |f(v) - v| first."""
    mdp, S = work.mdp, work.mdp.num_states
    if "preds" not in work.memory:
        work.memory["preds_indptr"], work.memory["preds"] = predecessors(mdp)
    values = work.values.copy()
    priority = np.abs(work.swept - values)
    order = np.argsort(-priority, kind="stable")
    where = np.empty(S, dtype=np.int64)
    where[order] = np.arange(S)
    kernels.prioritized_updates(
        S, priority[order], order, where, work.memory["preds_indptr"], work.memory["preds"],
        *work.rows, values,
    )  # fmt: skip
    work.sweeps += 1 + len(work.memory["preds"]) / S
    return values


def truncated(work: Work) -> FloatArray:
    """Truncated policy iteration: ``num_sweeps`` applications of T_pi in all; one is value iteration."""
    return policy_sweeps(work, work.options.get("num_sweeps", 20) - 1)


def policy_sweeps(work: Work, count: int) -> FloatArray:
    """f(v) followed by ``count`` sweeps over the greedy policy's rows."""
    a, b = work.room(), work.room()
    values, out = work.swept, a
    for _ in range(count):
        work.mdp.policy_sweep(work.choice, values, out)
        values, out = out, b if out is a else a
    work.spare.append(out)
    work.sweeps += count * work.mdp.policy_share
    return values


def policy(work: Work) -> FloatArray:
    """Policy iteration: solve the greedy policy exactly. Once it stays, polish by f."""
    if not work.num_changed():
        return work.swept
    if work.options.get("switch", "howard") == "simplex" and work.iteration > 1:
        # one state changes its mind: the one that gains most
        gain = work.swept - work.values
        s = int(np.argmax(np.where(work.choice != work.last_choice, gain, -np.inf)))
        chosen = work.last_choice.copy()
        chosen[s] = work.choice[s]
        work.choice[:] = chosen
    values, passes = evaluate(
        work.mdp,
        work.choice,
        work.swept,
        method=work.options.get("evaluation", "auto"),
        residual=max(work.options["tol"] * (1.0 - min(work.mdp.mass[1], 1.0)) / 4, 1e-14),
    )
    work.sweeps += passes * work.mdp.policy_share
    return values


def inexact(work: Work, *, krylov: str = "gmres") -> FloatArray:
    """Inexact policy iteration: Krylov until the policy's residual is alpha times the last change."""
    change = work.swept - work.values
    size = float(np.sqrt(work.mdp.total(np.array([change @ change]))[0]))
    values, passes = evaluate(
        work.mdp,
        work.choice,
        work.swept,
        method=work.options.get("krylov", krylov),
        residual=work.options.get("alpha", 1e-4) * size,
    )
    work.sweeps += passes * work.mdp.policy_share
    return values


def backward(work: Work) -> FloatArray:
    """Gauss-Seidel outwards from the ends: one improving sweep, then ``inner`` of its policy.

    Starts from the lower bound that the last sweep proves, see backward.py; that sweep's bracket is
    kept, because the first ones from there are wider. Where rewards lie elsewhere than the ends,
    the orders from both take turns.
    """
    mdp, values, memory = work.mdp, work.swept, work.memory
    if "orders" not in memory:
        memory["orders"] = backward_orders(mdp)
        live = ~mdp.terminal
        change = (work.swept - work.values)[live]
        size = mdp.largest(work.swept) + work.residual
        down, up = shifts(mdp, size, float(change.min()), float(change.max()))
        memory["proven"] = [np.where(live, work.swept + shift, 0.0) for shift in (down, up)]
        values = memory["proven"][0].copy()
    order = memory["orders"][work.iteration % len(memory["orders"])]
    work.sweeps += backward_sweeps(
        mdp, order, values, work.choice, evaluations=work.options.get("inner", 4)
    )
    return values


def adaptive(work: Work) -> FloatArray:
    """The default: policy sweeps while they mix fast, backward Gauss-Seidel where they do not, then Krylov.

    Sweeps of a fixed policy show how fast it mixes: a forecast above ``patience`` full sweeps to the
    tolerance means slowly. Information then has a long way to go, which the backward order
    shortens; where it does not (forecast above 1000 sweeps after 10 iterations), distance is not
    the obstacle, and a Krylov evaluation is left.
    """
    mode = work.memory.get("mode", "sweeps")
    if mode == "sweeps":
        values, slow = _settle(work, work.options.get("patience", 60))
        if not slow:
            return values
        mode = "backward" if isinstance(work.mdp, CompressedModel) else "krylov"
        work.memory["mode"] = mode
    if mode == "backward":
        past = work.memory.setdefault("past", [])
        past.append([work.sweeps, float(np.log(work.gap))])
        if len(past) <= 10 or _forecast(*past[-8], *past[-1], work.options["tol"]) < 1000:
            return backward(work)
        work.memory["mode"] = "krylov"
    return inexact(work, krylov="bicgstab")


def _settle(work: Work, patience: float) -> tuple[FloatArray, bool]:
    """(values, whether the greedy policy mixes too slowly): policy sweeps to a small share of the gap.

    The share is the tolerance once the policy stays, and a quarter of the gap before: what the
    next policy needs to know is not worth more.
    """
    mdp, tol = work.mdp, work.options["tol"]
    goal = tol / 2 if not work.num_changed() else max(tol / 2, work.gap / 4)
    a, b = work.room(), work.room()
    values, out = work.swept, a
    work.spare.append(b)
    widths = [work.gap]
    while True:
        low, high, size = mdp.policy_sweep(work.choice, values, out)
        values, out = out, b if out is a else a
        work.spare[-1] = out
        work.sweeps += mdp.policy_share
        down, up = shifts(mdp, size + max(abs(low), abs(high)), low, high)
        widths.append(up - down)
        if widths[-1] <= max(goal, 4 * floor(mdp, size)):
            return values, False
        if len(widths) > 5:
            need = _forecast(0.0, np.log(widths[-4]), 3.0, np.log(widths[-1]), tol)
            if need * mdp.policy_share > patience:
                return values, True


def _forecast(x: float, log_gap: float, x_now: float, log_gap_now: float, tol: float) -> float:
    """Work still to do at the speed between two points (work, log gap)."""
    rate = (log_gap_now - log_gap) / (x_now - x)
    return (np.log(tol) - log_gap_now) / rate if rate < 0 else np.inf


def linear_program(work: Work) -> FloatArray:
    """min sum v subject to v >= r_a + W_a v for every pair (HiGHS), up to its tolerance.

    Near gamma 1 that tolerance is wide in values, though it names the policy: what is left is for
    policy iteration to finish.
    """
    mdp = work.mdp
    if work.memory.get("solved"):
        return policy(work)
    L, S = mdp.num_pairs, mdp.num_states
    weights = sparse.csr_array((mdp.scale * mdp.weights, mdp.indices, mdp.indptr), shape=(L, S))
    states = sparse.csr_array((np.ones(L), (np.arange(L), mdp.pair_state)), shape=(L, S))
    bounds = np.where(mdp.terminal[:, None], 0.0, [[-np.inf, np.inf]])
    answer = linprog(
        (~mdp.terminal).astype(float),
        A_ub=sparse.csr_matrix(weights - states),
        b_ub=-mdp.rewards,
        bounds=bounds,
        method="highs",
    )
    if answer.x is None:
        raise NoSolutionError(f"the linear programme has no solution: {answer.message}")
    work.memory["solved"] = 1
    work.sweeps += int(answer.nit)
    return np.where(mdp.terminal, 0.0, answer.x)


PROPOSALS: dict[str, Proposal] = {
    "auto": adaptive,
    "value-iteration": jacobi,
    "anderson": anderson,
    "gauss-seidel": gauss_seidel,
    "backward": backward,
    "random-order": random_order,
    "red-black": red_black,
    "topological": topological,
    "prioritized": prioritized,
    "truncated": truncated,
    "policy-iteration": policy,
    "inexact": inexact,
    "linear-program": linear_program,
}


def predecessors(mdp: MDP) -> tuple[IntArray, IntArray]:
    """(indptr [S+1], states): every state with a transition into s."""
    graph = successor_graph(mdp).T.tocsr()
    graph.sum_duplicates()
    return graph.indptr.astype(np.int64), graph.indices.astype(np.int64)


def successor_graph(mdp: MDP) -> sparse.csr_array:
    """[S, S] number of transitions from s to s' that carry weight."""
    source = np.repeat(mdp.pair_state, np.diff(mdp.indptr))
    S, carries = mdp.num_states, mdp.weights > 0
    edges = (source[carries], mdp.indices[carries])
    graph = sparse.csr_array((np.ones(len(edges[0])), edges), shape=(S, S))
    graph.sum_duplicates()
    return graph


def component_order(mdp: MDP) -> tuple[IntArray, IntArray]:
    """(states, starts): states grouped by strongly connected component, successors first."""
    graph = successor_graph(mdp)
    count, label = sparse.csgraph.connected_components(graph, connection="strong")
    rank = _ranks(graph, label, count)
    order = np.argsort(rank[label], kind="stable").astype(np.int64)
    sizes = np.bincount(rank[label], minlength=count)
    return order, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _ranks(graph: sparse.csr_array, label: IntArray, count: int) -> IntArray:
    """A rank per component such that every successor component has a smaller one (Kahn)."""
    entries = graph.tocoo()
    a, b = label[entries.row], label[entries.col]
    edges = np.unique(np.stack([a, b], axis=1)[a != b], axis=0)
    if not len(edges):
        return np.arange(count)
    outgoing = np.bincount(edges[:, 0], minlength=count)
    into = sparse.csr_array((np.ones(len(edges)), (edges[:, 1], edges[:, 0])), shape=(count, count))
    rank, ready, position = np.empty(count, dtype=np.int64), list(np.flatnonzero(outgoing == 0)), 0
    while ready:
        c = ready.pop()
        rank[c] = position
        position += 1
        for p in into.indices[into.indptr[c] : into.indptr[c + 1]]:
            outgoing[p] -= 1
            if outgoing[p] == 0:
                ready.append(p)
    return rank
