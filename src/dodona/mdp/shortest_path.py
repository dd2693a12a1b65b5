"""gamma = 1: episodes that end, without discount (stochastic shortest path, here with rewards).

Policy iteration among proper policies gives v. The proof can not be a constant shift, because
nothing shrinks it, so it is a weighted one: w(s) is the largest expected number of steps to the end
over the tied best actions, and u = v + delta w loses delta in each of them. f(u) <= u is then
verified pair by pair with its rounding, which proves v* <= u whatever w was; the lower bound is the
value of a proper policy.

The truth here is that of the model with rows normalised to one: without a discount the last digit
of a row sum would otherwise decide whether a cycle gains for ever.

Source: Bertsekas & Tsitsiklis 1991; Hartmanns & Kaminski 2020, arXiv:1910.01100 (optimistic value
iteration); de Alfaro 1997 (end components).
"""

import time
import warnings

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Bool, Int
from numba import njit

from dodona.core.shapes import BoolArray, FloatArray, IntArray
from dodona.errors import InputError, MDPError
from dodona.mdp.bellman import policy_value
from dodona.mdp.certificate import contraction
from dodona.mdp.chain import (
    Chain,
    closed_classes,
    flat_rows,
    never_ending,
    normalised,
    policy_chain,
)
from dodona.mdp.model import MDP
from dodona.mdp.optimality import pair_actions, sweep
from dodona.mdp.solution import Progress, Solution, all_pair_values

TIE = 1e-10  # relative to 1 + max |q|: actions closer than this to the best count as tied


def shortest_path_value_iteration(mdp: MDP, *, tol: float = 1e-8, max_iter: int = 1000) -> Solution:
    """Optimal undiscounted values of a model whose episodes end.

    v(s) = max_a [ r(s,a) + sum_s' p(s'|s,a) v(s') ], v = 0 where it ends.

    Args:
        mdp: its gamma is taken as 1, per-transition discounts stay.
        tol: largest upper - lower, reward units.
        max_iter: policy improvements.
    Returns:
        Solution; ``policy`` ends with probability one from everywhere.
    Raises:
        MDPError: a state that can never end, or a cycle that gains for ever (the end component is named).
        InputError: tol <= 0.
    Warns: RuntimeWarning where the upper bound could not be brought to tol.
    Source: see the module.
    Oracle: oracles.rational.optimal_rational at gamma 1, oracles.chains.proper_policy; published optima.
    Cost: a few linear solves and sweeps.
    """
    if not tol > 0:
        raise InputError(f"tol must be > 0, got {tol}. 1e-8 is usual.")
    begun = time.perf_counter()
    mdp = normalised(
        mdp if mdp.gamma == 1.0 or mdp.discounts is not None else mdp.replace(gamma=1.0)
    )
    _require_some_end(mdp)
    actions = soonest_ending(mdp, mdp.action_mask)
    choice = np.full(mdp.num_states, -1, dtype=np.int64)
    live = ~mdp.terminal
    choice[live] = mdp.pairs_of(np.flatnonzero(live), actions[live])
    history: list[Progress] = []
    swept = np.empty(mdp.num_states)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the gap is judged below
            lower = policy_value(mdp, pair_actions(mdp, choice), tol=tol / 4)
        before = choice.copy()
        keep = TIE * (1.0 + float(np.abs(lower.values).max(initial=0.0)))
        choice, (low, high, _) = sweep(mdp, lower.values, swept, choice, keep)
        history.append(
            Progress(
                iteration=len(history) + 1,
                sweeps=2.0 * (len(history) + 1),
                seconds=time.perf_counter() - begun,
                gap=np.inf,
                residual=max(abs(low), abs(high)) if np.isfinite(low) else 0.0,
            )
        )
        if np.array_equal(choice, before) or len(history) >= max_iter:
            break
        _require_no_gain_for_ever(mdp, choice)
    upper, proven = _upper_bound(mdp, lower.values, swept, lower.gap, tol)
    gap = float(np.max(upper - lower.lower, initial=0.0))
    note = ""
    if not proven or gap > tol:
        note = (
            f"gap {gap:.3e} is above tol {tol:.3e}: no super-solution close enough could be verified "
            "in float64. The lower bound is the value of the returned policy."
        )
        warnings.warn(f"shortest path did not converge: {note}", RuntimeWarning, stacklevel=2)
    return Solution(
        mdp=mdp,
        values=lower.lower + (upper - lower.lower) / 2 if proven else lower.values,
        lower=lower.lower,
        upper=upper,
        policy=pair_actions(mdp, before),
        residual=history[-1].residual,
        iterations=len(history),
        sweeps=history[-1].sweeps,
        seconds=time.perf_counter() - begun,
        converged=proven and gap <= tol,
        history=tuple(history),
        note=note,
    )


def soonest_ending(mdp: MDP, allowed: Bool[np.ndarray, "S A"]) -> Int[np.ndarray, "S"]:
    """Among allowed actions, a policy that ends with the fewest expected steps it can see.

    Starts from the actions that lie on a shortest path to the end and improves expected steps
    by policy iteration; a state from which the allowed actions never end keeps its first one.
    -1 in terminal states.

    Source: lexicographic second criterion, Puterman 1994, sec. 5.4.
    Oracle: expected steps by enumeration of policies.  Cost: a few linear solves.
    """
    pairs = np.flatnonzero(allowed[mdp.pair_state, mdp.actions])
    sub = restrict(mdp.replace(gamma=1.0), pairs)
    choice = _shortest_hops(sub)
    ends = ~never_ending(sub) & ~sub.terminal
    first = np.where(sub.terminal, -1, sub.sa_indptr[:-1])
    chosen = np.where(ends & (choice >= 0), choice, first)
    if ends.any():
        chosen = _fewest_steps(sub, chosen, ends)
    return pair_actions(sub, chosen)


def restrict(mdp: MDP, pairs: IntArray, *, terminal: BoolArray | None = None) -> MDP:
    """The same model with only these pairs (sorted); every live state must keep one.

    terminal: [S] states that are terminal now, default those of the model.
    """
    rewards = mdp.transition_rewards
    counts = np.diff(mdp.indptr)[pairs]
    take = flat_rows(mdp.indptr, pairs, counts)
    return MDP.from_pairs(
        pair_state=mdp.pair_state[pairs],
        pair_action=mdp.actions[pairs],
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        indices=mdp.indices[take],
        probs=mdp.probs[take],
        rewards=mdp.rewards[pairs],
        transition_rewards=None if rewards is None else rewards[take],
        num_states=mdp.num_states,
        gamma=mdp.gamma,
        terminal=mdp.terminal if terminal is None else terminal,
        discounts=None if mdp.discounts is None else mdp.discounts[take],
        start=mdp.start,
        labels=mdp.labels,
        num_actions=mdp.num_actions,
    )


# ---------------------------------------------------------------------- policies that end
def _shortest_hops(mdp: MDP) -> IntArray:
    """[S] a pair on a path with the fewest transitions to an end; -1 where there is none."""
    S = mdp.num_states
    pair = np.repeat(np.arange(mdp.num_pairs), np.diff(mdp.indptr))
    positive = np.asarray(mdp.weights) > 0
    mass = np.bincount(pair, weights=mdp.weights, minlength=mdp.num_pairs) * mdp.scale
    choice = np.full(S, -1, dtype=np.int64)
    reached = mdp.terminal.copy()
    first = np.flatnonzero(mass < 1.0 - 1e-9)[::-1]  # pairs that may end at once
    choice[mdp.pair_state[first]] = first
    reached[mdp.pair_state[first]] = True
    into = sparse.csr_array(
        (np.ones(positive.sum()), (mdp.indices[positive], pair[positive])), shape=(S, mdp.num_pairs)
    )
    frontier = np.flatnonzero(reached)
    while len(frontier):
        counts = np.diff(into.indptr)[frontier]
        pairs = np.unique(into.indices[flat_rows(into.indptr, frontier, counts)])[::-1]
        pairs = pairs[~reached[mdp.pair_state[pairs]]]
        choice[mdp.pair_state[pairs]] = pairs
        frontier = np.unique(mdp.pair_state[pairs])
        reached[frontier] = True
    return choice


def _fewest_steps(mdp: MDP, choice: IntArray, ends: BoolArray) -> IntArray:
    """Policy iteration on expected steps, on the states that can end."""
    keep = ends[mdp.pair_state]
    # pairs that may fall into a state that can not end are out: their expected steps are infinite
    pair = np.repeat(np.arange(mdp.num_pairs), np.diff(mdp.indptr))
    lost = ~(ends | mdp.terminal)[mdp.indices] & (mdp.weights > 0)
    keep[pair[lost]] = False
    stays = np.zeros(mdp.num_states, dtype=bool)
    stays[mdp.pair_state[keep]] = True
    inner = ends & stays & keep[np.maximum(choice, 0)]
    if not np.array_equal(inner, ends):
        return choice
    pairs = np.flatnonzero(keep)
    terminal = mdp.terminal | ~ends
    counts = np.diff(mdp.indptr)[pairs]
    take = flat_rows(mdp.indptr, pairs, counts)
    steps = MDP.from_pairs(
        pair_state=mdp.pair_state[pairs],
        pair_action=mdp.actions[pairs],
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        indices=mdp.indices[take],
        probs=mdp.probs[take],
        rewards=np.full(len(pairs), -1.0),
        num_states=mdp.num_states,
        gamma=1.0,
        terminal=terminal,
        discounts=None if mdp.discounts is None else mdp.discounts[take],
        num_actions=mdp.num_actions,
    )
    position = np.full(mdp.num_pairs, -1)
    position[pairs] = np.arange(len(pairs))
    inside = np.where(ends, position[np.maximum(choice, 0)], -1)
    swept = np.empty(mdp.num_states)
    for _ in range(1000):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            value = policy_value(steps, pair_actions(steps, inside)).values
        before, keep_tol = inside.copy(), 1e-9 * (1.0 + float(np.abs(value).max()))
        inside, _ = sweep(steps, value, swept, inside, keep_tol)
        if np.array_equal(inside, before):
            break
    return np.where(ends, pairs[np.maximum(inside, 0)], choice)


def _require_some_end(mdp: MDP) -> None:
    stuck = never_ending(mdp)
    if stuck.any():
        s = int(np.argmax(stuck))
        raise MDPError(
            f"gamma is 1 and state {s} can never end, whatever is done: {_trap(mdp, stuck)} is never left "
            f"({int(stuck.sum())} states can not end). Mark absorbing states in `terminal`, use gamma < 1, "
            "or relative_value_iteration for the average reward.",
            state=s,
        )


def _require_no_gain_for_ever(mdp: MDP, choice: IntArray) -> None:
    """A strict improvement of a proper policy that never ends collects reward for ever."""
    chain = policy_chain(mdp, np.maximum(pair_actions(mdp, choice), 0))
    stuck = never_ending(chain)
    if stuck.any():
        raise MDPError(
            f"gamma is 1 and {_trap(chain, stuck)} gains reward for ever, so its value is infinite. "
            "Use gamma < 1, or relative_value_iteration for the average reward.",
            state=int(np.argmax(stuck)),
        )


def _trap(rows: MDP | Chain, stuck: BoolArray) -> str:
    """Words for an end component among states that can not end: a class that no row leaves."""
    S = rows.num_states
    owner = np.arange(S) if isinstance(rows, Chain) else rows.pair_state
    source = np.repeat(owner, np.diff(rows.indptr))
    inside = stuck[source] & (np.asarray(rows.weights) > 0)
    source, successor = source[inside], rows.indices[inside]
    graph = sparse.csr_array((np.ones(len(source)), (source, successor)), shape=(S, S))
    states = next(c for c in closed_classes(graph) if stuck[c[0]])
    shown = ", ".join(map(str, states[:5])) + (", ..." if len(states) > 5 else "")
    return f"the end component {{{shown}}} of {len(states)} state{'s' if len(states) > 1 else ''}"


# ---------------------------------------------------------------------- the upper bound
def _upper_bound(
    mdp: MDP, values: FloatArray, swept: FloatArray, spread: float, tol: float
) -> tuple[FloatArray, bool]:
    """u >= v* with f(u) <= u verified, as close to ``values`` as rounding allows; and whether it was."""
    live = ~mdp.terminal
    if not live.any():
        return values.copy(), True
    size = float(np.abs(values).max())
    q = all_pair_values(mdp, values)
    tight = q >= values[mdp.pair_state] - TIE * (1.0 + size)
    cycles, inside = _end_components(mdp, tight)
    weight = _largest_steps(mdp, tight & ~inside, cycles)
    if weight is None:
        return np.full_like(values, np.inf), False
    error = _rounding(mdp, size)
    delta = 2.0 * (float(np.max(np.abs(swept - values))) + spread + 2 * error)
    while delta * float(weight.max()) <= max(tol, 1.0 + size):  # wider than the values says nothing
        upper = np.where(live, values + delta * weight, 0.0)
        level = np.full(mdp.num_states, -np.inf)
        np.maximum.at(level, cycles, upper)  # states of one component share one value
        upper = np.where(live, level[cycles], 0.0)
        if _is_super_solution(
            mdp.indptr, mdp.indices, mdp.weights, mdp.rewards, mdp.scale, mdp.pair_state,
            mdp.terminal, upper, _rounding(mdp, float(np.abs(upper).max())),
        ):  # fmt: skip
            return upper, True
        delta *= 4.0
    return np.full_like(values, np.inf), False


def _rounding(mdp: MDP, size: float) -> float:
    """Rounding of one swept value, and of rows that miss one by rounding."""
    _, _, error = contraction(mdp, size)
    return 3.0 * error


@njit(cache=True)
def _is_super_solution(
    indptr, indices, weights, rewards, scale, pair_state, terminal, upper, error
):
    """f(u) <= u for every pair, rounding included; exact where all successors share one value."""
    for pair in range(len(rewards)):
        total, mass, least, most, ends = 0.0, 0.0, np.inf, -np.inf, False
        for k in range(indptr[pair], indptr[pair + 1]):
            u = upper[indices[k]]
            total += weights[k] * u
            mass += weights[k]
            least, most = min(least, u), max(most, u)
            ends = ends or terminal[indices[k]]
        limit = upper[pair_state[pair]]
        whole = most >= 0.0 or scale * mass >= 1.0 - 1e-9
        if least == most and rewards[pair] == 0.0 and whole and not ends:
            if most > limit:
                return False
        elif not rewards[pair] + scale * total + error <= limit:
            return False
    return True


def _end_components(mdp: MDP, tight: BoolArray) -> tuple[IntArray, BoolArray]:
    """(component [S], inside [L]): maximal end components of the tight pairs that pay nothing.

    ``inside`` marks the pairs that stay in their component; other states are components of one.
    """
    S = mdp.num_states
    per_pair = np.diff(mdp.indptr)
    owner = np.repeat(np.arange(mdp.num_pairs), per_pair)
    source = np.repeat(mdp.pair_state, per_pair)
    mass = np.bincount(owner, weights=mdp.weights, minlength=mdp.num_pairs) * mdp.scale
    inside = tight & (mdp.rewards == 0.0) & (mass >= 1.0 - 1e-9)
    while True:
        edges = inside[owner] & (mdp.weights > 0)
        graph = sparse.csr_array(
            (np.ones(edges.sum()), (source[edges], mdp.indices[edges])), shape=(S, S)
        )
        _, label = sparse.csgraph.connected_components(graph, connection="strong")
        leaves = np.zeros(mdp.num_pairs, dtype=bool)
        leaves[owner[(mdp.weights > 0) & (label[source] != label[mdp.indices])]] = True
        if not (inside & leaves).any():
            return label, inside
        inside &= ~leaves


def _largest_steps(mdp: MDP, pairs: BoolArray, cycles: IntArray) -> FloatArray | None:
    """[S] largest expected number of tight steps to the end, components taken as one state."""
    count = int(cycles.max()) + 1
    terminal = np.zeros(count, dtype=bool)
    terminal[cycles[mdp.terminal]] = True
    chosen = np.flatnonzero(pairs)
    owner = cycles[mdp.pair_state[chosen]]
    order = np.argsort(owner, kind="stable")
    chosen, owner = chosen[order], owner[order]
    if np.any(np.bincount(owner, minlength=count)[~terminal] == 0):
        return None  # a component that no tight pair leaves: the optimal policy never ends there
    first = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))])
    counts = np.diff(mdp.indptr)[chosen]
    take = flat_rows(mdp.indptr, chosen, counts)
    quotient = MDP.from_pairs(
        pair_state=owner,
        pair_action=np.arange(len(owner)) - first[owner],
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        indices=cycles[mdp.indices[take]],
        probs=mdp.probs[take],
        rewards=np.ones(len(owner)),
        num_states=count,
        gamma=1.0,
        terminal=terminal,
        discounts=None if mdp.discounts is None else mdp.discounts[take],
    )
    choice = _shortest_hops(quotient)
    swept = np.empty(count)
    for _ in range(1000):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                steps = policy_value(quotient, pair_actions(quotient, choice)).values
        except MDPError:
            return None
        before = choice.copy()
        choice, _ = sweep(quotient, steps, swept, choice, 1e-6 * (1.0 + float(steps.max())))
        if np.array_equal(choice, before):
            return np.maximum(steps, 0.0)[cycles] * (1.0 + 1e-5)
    return None
