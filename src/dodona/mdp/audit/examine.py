"""The audit of a tabular Gymnasium environment: what its best policies earn, and what is claimed of it.

From the environment's own table, exactly: the optimum, what the registered time limit changes, whether
the registered threshold can be reached at all, ties, and whether greedy play ever ends. A policy that
knows the time left and a stationary one are told apart: under a limit only the first is optimal.

Not here: reading the table (formats/gymnasium_table.py), the records (report.py), the words
(text.py), the page (dodona.audit_page).
Source: Puterman 1994, sec. 4.5 (finite horizon); Pardo et al. 2018, arXiv:1712.00378 (time limits).
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from dodona.core.shapes import IntArray
from dodona.errors import MDPError
from dodona.mdp.audit.limited_play import Play, play, start_mean, transition_pairs
from dodona.mdp.audit.report import AuditReport, Loops, Problem, Sizes, Ties
from dodona.mdp.chain import never_ending, policy_chain
from dodona.mdp.finite_horizon import backward_induction
from dodona.mdp.formats.gymnasium_table import mdp_from_gymnasium, open_environment
from dodona.mdp.model import MDP
from dodona.mdp.optimality import greedy, optimal_actions
from dodona.mdp.planning import solve
from dodona.mdp.shortest_path import restrict, shortest_path_value_iteration
from dodona.mdp.solution import Solution

__all__ = ["AuditReport", "audit", "reachable", "reachable_part"]

GREEDY_GAMMAS = (1.0, 0.999, 0.99)  # discounts whose greedy policies are played under the limit
BEYOND = 4  # returns by time limit are kept this many times beyond the registered limit ...
UNLIMITED = 25  # ... or beyond this one where none is registered ...
LARGEST = 20_000_000  # ... unless that would be more values than this


def audit(env: Any, *, gamma: float = 1.0) -> AuditReport:
    """Audit a tabular Gymnasium environment.

    v*(s) = max_a [ r + gamma sum_s' p v*(s') ], over policies that end;
    v_t(s) = max_a [ r + sum_s' p v_{t-1}(s') ] with t steps left, v_0 = 0.
    Limit and threshold are about undiscounted returns, as Gymnasium counts them, whatever gamma.

    Args:
        env: an id such as "FrozenLake8x8-v1", or an environment. One that gymnasium.make did not make
            has no threshold, and no limit but that of a TimeLimit wrapper; all else is audited.
        gamma: discount in [0, 1] of the optimum, the ties and the loops.
    Raises:
        InputError: an unknown id (the nearest is named), or no table ``env.unwrapped.P``.
        MDPError: gamma outside [0, 1], rows of the table that are no distribution.
    Source: see the module.
    Oracle: oracles.enumeration.finite_horizon, exact fractions, Monte Carlo in the environment itself.
    Cost: a few linear solves, and 4 H sweeps for each policy played, H the limit.
    """
    opened = isinstance(env, str)
    env = open_environment(env) if opened else env
    try:
        whole = mdp_from_gymnasium(env, gamma=1.0)
        name, limit, level = _registered(env)
    finally:
        if opened:
            env.close()
    seen = reachable(whole)
    mdp = reachable_part(whole, seen)
    models = {g: _at(mdp, g) for g in dict.fromkeys((float(gamma), *GREEDY_GAMMAS))}
    undiscounted, problem, where = _undiscounted(mdp)
    policy = None if undiscounted is None else undiscounted.policy
    solutions = {g: _discounted(model, policy) for g, model in models.items() if g < 1.0}
    if undiscounted is not None:
        solutions[1.0] = undiscounted
    limited = backward_induction(mdp, _horizon(mdp, limit))
    solution = solutions.get(gamma)
    return AuditReport(
        env_id=name,
        gamma=float(gamma),
        limit=limit,
        threshold=None if level is None else float(level),
        sizes=_sizes(whole, mdp, seen),
        mdp=models[gamma],
        reached=seen,
        solution=solution,
        undiscounted=undiscounted,
        problem=problem,
        problem_state=where,
        limited=limited,
        plays=tuple(_plays(models, solutions, gamma, limited, limit)),
        ties=None if solution is None else _ties(solution),
        loops=_loops(mdp, solution),
    )


def reachable(mdp: MDP) -> Bool[np.ndarray, "S"]:
    """[S] True where some policy leads from a start state; a transition that ends leads nowhere.

    Source: definition.  Oracle: powers of the transition matrix.  Cost: O(nnz) per layer.
    """
    owner = np.repeat(mdp.pair_state, np.diff(mdp.indptr))
    leads = (mdp.weights > 0) | mdp.terminal[mdp.indices]
    seen = mdp.start > 0
    while True:
        wider = seen.copy()
        wider[mdp.indices[leads & seen[owner]]] = True
        if np.array_equal(wider, seen):
            return seen
        seen = wider


def reachable_part(mdp: MDP, seen: Bool[np.ndarray, "S"]) -> MDP:
    """The same model with its other states made terminal; state numbers stay.

    Source: definition.  Oracle: the whole model's values on the states seen.  Cost: O(nnz).
    """
    pairs = np.flatnonzero(seen[mdp.pair_state])
    return restrict(mdp, pairs, terminal=mdp.terminal | ~seen)


# ---------------------------------------------------------------------- private
def _registered(env: Any) -> tuple[str, int | None, float | None]:
    """(name, time limit, reward threshold) of an environment, registered or not."""
    if env.spec is not None:
        return env.spec.id, env.spec.max_episode_steps, env.spec.reward_threshold
    from gymnasium.wrappers import TimeLimit

    name, limit = type(env.unwrapped).__name__, None
    while env is not env.unwrapped:
        if isinstance(env, TimeLimit):
            inner = env._max_episode_steps  # without a spec it stands nowhere else
            limit = inner if limit is None else min(limit, inner)
        env = env.env
    return name, limit, None


def _at(mdp: MDP, gamma: float) -> MDP:
    """The undiscounted model with a discount; transitions that end keep theirs, 0."""
    discounts = None if mdp.discounts is None else gamma * mdp.discounts
    return mdp.replace(gamma=gamma, discounts=discounts)


def _undiscounted(mdp: MDP) -> tuple[Solution | None, Problem, int | None]:
    """(optimum over policies that end, why there is none, a state of that reason)."""
    stuck = never_ending(mdp)
    if stuck.any():
        return None, "never ends", int(np.argmax(stuck))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the bracket says what is proven
            solution = shortest_path_value_iteration(mdp)
    except MDPError as error:
        if error.state is None:  # not a fact about the model: too many steps for float64
            raise
        return None, "gains for ever", error.state
    # idling for nothing beats an end that costs: then no policy that ends is optimal
    free = np.ones(mdp.num_pairs, dtype=bool)
    free[transition_pairs(mdp)[mdp.transition_rewards != 0]] = False
    idle = _avoidable(mdp, free) & (solution.upper < 0)
    if idle.any():
        return None, "better not to end", int(np.argmax(idle))
    return solution, "", None


def _discounted(mdp: MDP, guess: IntArray | None) -> Solution:
    # rounding grows with the largest return; policy iteration is at its floor when it ends
    largest = max(1.0, mdp.reward_bound / (1.0 - mdp.gamma))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return solve(mdp, method="policy-iteration", tol=1e-11 * largest, start_policy=guess)


def _horizon(mdp: MDP, limit: int | None) -> int:
    near = UNLIMITED if limit is None else limit
    return near * BEYOND if near * BEYOND * mdp.num_states <= LARGEST else near


def _plays(
    models: Mapping[float, MDP],
    solutions: Mapping[float, Solution],
    gamma: float,
    limited: Solution,
    limit: int | None,
) -> list[Play]:
    """The optimum under the limit, the greedy policies, the trap of the first tie, and chance."""
    mdp, horizon, plays = models[1.0], len(limited.policy), []
    if limit is not None:
        row = horizon - limit
        aware = play(
            mdp, limited.policy[row:], name="time-aware optimum", kind="time-aware", limit=limit, horizon=limit
        )  # fmt: skip
        plays.append(
            replace(
                aware,
                earned=start_mean(mdp.start, limited.lower[row], limited.upper[row]),
                returns=(limited.values @ mdp.start)[::-1],
            )
        )

    def stationary(name: str, policy: np.ndarray, kind: Any = "stationary") -> None:
        plays.append(play(mdp, policy, name=name, kind=kind, limit=limit, horizon=horizon))

    for g in sorted(solutions, reverse=True):
        solution = solutions[g]
        best = greedy(solution.mdp, solution.values, ties="proper", tol=_tie_tolerance(solution))
        stationary(f"greedy of gamma {g:g}", best)
        if g == gamma:
            first = greedy(
                solution.mdp, solution.values, ties="first", tol=_tie_tolerance(solution)
            )
            if not np.array_equal(first, best):
                stationary(f"greedy of gamma {g:g}, first of ties", first)
    mask = mdp.action_mask
    stationary("uniform random", mask / np.maximum(mask.sum(axis=1, keepdims=True), 1), "random")
    return plays


def _tie_tolerance(solution: Solution) -> float:
    """Above what the bracket leaves open, so that equal actions count as equal."""
    size = 1.0 + float(np.abs(solution.values).max()) + solution.mdp.reward_bound
    return max(1e-9 * size, 2.0 * solution.gap if np.isfinite(solution.gap) else 0.0)


def _sizes(whole: MDP, mdp: MDP, seen: np.ndarray) -> Sizes:
    counts = np.diff(mdp.sa_indptr)[~mdp.terminal]
    return Sizes(
        num_states=whole.num_states,
        num_reachable=int(seen.sum()),
        num_live=int((~mdp.terminal).sum()),
        num_starts=int(np.count_nonzero(mdp.start)),
        actions=(int(counts.min(initial=mdp.num_actions)), int(counts.max(initial=0))),
        num_pairs=mdp.num_pairs,
        num_transitions=len(mdp.indices),
        num_endings=int(np.count_nonzero(mdp.terminal[mdp.indices] | (mdp.weights == 0))),
        rewards=(
            float(mdp.transition_rewards.min(initial=np.inf)),
            float(mdp.transition_rewards.max(initial=-np.inf)),
        ),
    )


def _ties(solution: Solution) -> Ties:
    mdp, live = solution.mdp, ~solution.mdp.terminal
    best = optimal_actions(mdp, solution.values, tol=_tie_tolerance(solution))
    worse = np.where(best, -np.inf, solution.q)
    gaps = np.full(mdp.num_states, np.inf)
    gaps[live] = solution.q[live].max(axis=1) - worse[live].max(axis=1)
    s = int(np.argmin(gaps))
    some = bool(np.isfinite(gaps[s]))
    return Ties(
        num_tied=int(np.count_nonzero(best[live].sum(axis=1) > 1)),
        smallest_gap=float(gaps[s]) if some else None,
        state=s if some else None,
    )


def _loops(mdp: MDP, solution: Solution | None) -> Loops:
    """mdp: gamma 1, or a discount would count as an end."""
    tied = first = None
    if solution is not None:
        best = optimal_actions(solution.mdp, solution.values, tol=_tie_tolerance(solution))
        tied = int(_avoidable(mdp, best[mdp.pair_state, mdp.actions]).sum())
        policy = np.where(mdp.terminal, -1, best.argmax(axis=1))
        first = int(never_ending(policy_chain(mdp, policy)).sum())
    return Loops(
        stuck=int(never_ending(mdp).sum()),
        avoidable=int(_avoidable(mdp, np.ones(mdp.num_pairs, dtype=bool)).sum()),
        tied=tied,
        first_tie=first,
    )


def _avoidable(mdp: MDP, allowed: Bool[np.ndarray, "L"]) -> Bool[np.ndarray, "S"]:
    """[S] the largest set of states in which some choice of allowed pairs stays for ever."""
    owner, inside = transition_pairs(mdp), ~mdp.terminal
    while True:
        leaves = ~inside[mdp.indices] | (mdp.weights == 0)
        stays = allowed & inside[mdp.pair_state]
        stays[owner[leaves]] = False
        smaller = np.zeros_like(inside)
        smaller[mdp.pair_state[stays]] = True
        if np.array_equal(smaller, inside):
            return inside
        inside = smaller
