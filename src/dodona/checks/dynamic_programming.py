"""Every planner against fractions, theorems and published optima; horizons, long-run averages, episodes."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dodona import mdp as planning
from dodona.checks import theorems
from dodona.checks.compare import as_mdp, each, holds, inside
from dodona.core.protocols import Check, Mutant
from dodona.mdp.proposals import PROPOSALS
from dodona.oracles import fixtures
from dodona.oracles import mdp as oracles
from dodona.oracles.instance import Fixture

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    name: getattr(planning, name)
    for name in (
        "solve",
        "planner",
        "truncated_policy_iteration",
        "backward_induction",
        "relative_value_iteration",
        "average_policy_iteration",
        "shortest_path_value_iteration",
        "MatrixFree",
        "solve_sharded",
    )
}
AVERAGE = ("relative_value_iteration", "average_policy_iteration")
EPISODES = ("wait or leave", "cliff", "corners 4x4", "frozen lake 4x4", "random walk 5")


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` draws more random models."""
    small = fixtures.mdptoolbox_small(0.99)
    yield from each(small.name, _methods(subjects, small, ["auto"]))
    yield from each("by hand", _periodic(subjects))
    yield from each("homes of rows", _homes(subjects))
    for seed in range(100) if full else (3, 0):
        rng = np.random.default_rng(seed)
        case = fixtures.random_mdp(rng, 4, 3, terminal=seed % 2, masked=seed % 4 > 1)
        if seed % 4 == 3:
            case = replace(case, R=np.where(case.mask, -np.abs(case.R), 0.0))
        yield from each(f"model {seed}", _random(subjects, case))
    for case in (fixtures.mdptoolbox_small(), fixtures.forest(), fixtures.river_swim()):
        fact = case.facts["gain"]
        for name in AVERAGE:
            gain = subjects[name](as_mdp(case)).gain
            yield from each(case.name, [(name, gain, fact.value, fact.error + 1e-8, fact.source)])
    for name in (*EPISODES, "gambler") if full else EPISODES:
        yield from each(name, _episodes(subjects, fixtures.fixture(name)))
    yield from each(small.name, _methods(subjects, small, PROPOSALS))


def _homes(subjects) -> Iterator[Any]:
    """Rows made on the fly and rows of a shard have the values of stored ones."""

    def wood(states, actions, fire):
        grown = np.minimum(states + 1, 2)
        kept = np.where(actions == 0, np.where(fire, 0, grown), 0)
        return kept, np.where(actions == 0, 4.0 * (states == 2), states.astype(float))

    def leave(states, actions, _):
        return states, (actions == 0).astype(float), actions == 0

    case = fixtures.forest()
    fact = case.facts["v*"]
    free = subjects["MatrixFree"](lambda s, a, e: wood(s, a, e == 0), [0.1, 0.9], 3, 2, gamma=0.9)
    for method in ("auto", "truncated", "inexact"):
        got = planning.solve(free, method=method, tol=1e-7).values
        yield f"on the fly, {method}", got, fact.value, fact.error + 1e-7, fact.source
    exit_ = subjects["MatrixFree"](leave, [1.0], 1, 2, gamma=0.9)
    yield "on the fly, an end", planning.solve(exit_).values, [1.0], 1e-8, "by hand: 1, then over"
    part = planning.shard(as_mdp(case), 0, 1)
    got = subjects["solve_sharded"](part, tol=1e-7).values
    yield "one shard", got, fact.value, fact.error + 1e-7, fact.source


def _methods(subjects, case: Fixture, methods: Iterable[str]) -> Iterator[Any]:
    """These methods to the published optimum."""
    fact = case.facts["v*"]
    for method in methods:
        got = subjects["solve"](as_mdp(case), method=method, tol=1e-7).values
        yield method, got, fact.value, 1.1e-7, fact.source


def _random(subjects, case: Fixture) -> Iterator[Any]:
    doors = {"terminal": case.terminal, "action_mask": case.action_mask}
    model = as_mdp(case)
    exact, _ = oracles.optimal_rational(case.P, case.R, case.gamma, **doors)
    optimum = np.array([float(x) for x in exact])
    first = np.where(case.terminal, -1, case.mask.argmax(axis=1))
    order = theorems.planner_order(model, first, optimum, planner=subjects["planner"])
    for name, slack in order.items():
        yield holds(name, slack, tolerance=1e-10, source="Puterman & Shin 1978")
    once = subjects["truncated_policy_iteration"](model, num_sweeps=1, tol=1e-6)
    plain = planning.value_iteration(model, tol=1e-6)
    yield "one sweep is value iteration", once.values, plain.values, 0.0, "identity"
    steps = subjects["backward_induction"](model, 3)
    loops = oracles.finite_horizon(case.P, case.R, case.gamma, 3, **doors)
    yield "three steps", steps.values, loops, 1e-12, "oracles.enumeration"
    best = [oracles.optimal_tree(case.P, case.R, case.gamma, 2, s, **doors) for s in range(4)]
    yield "two steps", steps.values[1], best, 1e-12, "the whole tree"
    worth: dict[bytes, np.ndarray] = {}  # by policy: most methods find the same one
    for method in PROPOSALS:
        solution = subjects["solve"](model, method=method, tol=1e-7)
        yield inside(method, solution.lower, solution.upper, exact, source="fractions")
        yield f"{method}, gap", solution.gap, 0.0, 1e-7, "tol"
        chosen = np.maximum(solution.policy, 0)
        if chosen.tobytes() not in worth:
            own = oracles.policy_value_rational(
                case.P, case.R, case.gamma, chosen, terminal=case.terminal
            )
            worth[chosen.tobytes()] = np.array([float(v) for v in own])
        slack = float((worth[chosen.tobytes()] - solution.lower).min())
        yield holds(f"{method}, its policy", slack, tolerance=1e-12, source="fractions")
    if not case.terminal.any() and case.action_mask is None:
        gain = oracles.average_reward_lp(case.P, case.R)
        for name in AVERAGE:
            found = subjects[name](model)
            yield name, found.gain, gain, 1e-7, "LP"
            own, _ = oracles.average_reward(case.P, case.R, found.policy)
            yield f"{name}, its policy", own, gain, 1e-7, "LP"


def _episodes(subjects, case: Fixture) -> Iterator[Any]:
    """No discount: printed optima, a policy that ends, and the effect of a time limit."""
    model = as_mdp(case)
    solution = subjects["shortest_path_value_iteration"](model)
    chosen = np.maximum(solution.policy, 0)
    ends = oracles.proper_policy(case.P, chosen, terminal=case.terminal)
    yield "its policy ends", ends, np.ones(len(ends)), 0.0, "oracles.chains.proper_policy"
    own, _ = oracles.policy_value(case.P, case.R, 1.0, chosen, terminal=case.terminal)
    yield "its policy is worth it", own, solution.values, 1e-7, "dense solve"
    for name, fact in case.facts.items():
        where = slice(None) if fact.states is None else list(fact.states)
        if fact.of == "v*" or case.R.shape[1] == 1:
            yield name, solution.values[where], fact.value, fact.error + 1e-8, fact.source
        elif fact.of == "v_H":
            got = subjects["backward_induction"](model, fact.horizon).values[0][where]
            yield name, got, fact.value, fact.error, fact.source


def _periodic(subjects) -> Iterator[Any]:
    """Two states that swap places: without the aperiodicity transform the values never settle."""
    swap = Fixture(
        name="swap", P=np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), R=np.array([[1.0], [3.0]]), gamma=0.9,
        terminal=np.zeros(2, bool),
    )  # fmt: skip
    for name in AVERAGE:
        found = subjects[name](as_mdp(swap))
        yield name, found.gain, 2.0, 1e-7, "by hand"
        yield f"{name}, gap", found.gap, 0.0, 1e-7, "tol"


# ---------------------------------------------------------------------- bugs
def _bug(name: str) -> Callable:
    """What any planner converges to with one bug in its backup, with a bracket around it."""

    def wrong(mdp, *, method="auto", tol=1e-8):
        P, R, gamma = mdp.dense()
        v = oracles.buggy_value(
            name, P, R, gamma, terminal=mdp.terminal, action_mask=mdp.action_mask
        )
        return replace(planning.solve(mdp), values=v, lower=v - tol / 4, upper=v + tol / 4)

    return wrong


def _raw_span(mdp, *, method="auto", tol=1e-8):
    """Values as they stand when the span allows a good policy: pymdptoolbox#39."""
    planner = planning.Planner(mdp, "value-iteration", tol=1e-12)
    while planner.advance():
        change = (planner.work.swept - planner.work.values)[~mdp.terminal]
        if np.ptp(change) < 0.01:
            break
    v = planner.work.swept
    return replace(planner.solution(), values=v, lower=v - tol / 4, upper=v + tol / 4)


def _capped(mdp, *, method="auto", tol=1e-8):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = planning.solve(mdp, method="value-iteration", tol=tol, max_iter=50)
    return replace(solution, lower=solution.values - tol / 4, upper=solution.values + tol / 4)


def _unclipped_gauss_seidel(mdp, *, method="auto", tol=1e-8):
    """MacQueen's bracket around in-place sweeps, for which only its clipped form holds."""
    good = planning.solve(mdp, method=method, tol=tol)
    if method != "gauss-seidel":
        return good
    v, share = np.zeros(mdp.num_states), mdp.gamma / (1 - mdp.gamma)
    while True:
        before = v.copy()
        for s in range(mdp.num_states):
            v[s] = planning.bellman_optimality(mdp, v)[0][s]
        change = (v - before)[~mdp.terminal]
        if share * np.ptp(change) <= tol:
            break
    lower = np.where(mdp.terminal, 0.0, v + share * change.min())
    upper = np.where(mdp.terminal, 0.0, v + share * change.max())
    return replace(good, values=(lower + upper) / 2, lower=lower, upper=upper)


def _shifted(mdp, *, method="auto", tol=1e-8):
    solution = planning.solve(mdp, method=method, tol=tol)
    return replace(solution, lower=solution.lower + 3 * tol, upper=solution.upper + 3 * tol)


def _never_done(mdp, *, method="auto", tol=1e-8):
    solution = planning.solve(mdp, method=method, tol=100 * tol)
    return replace(solution, upper=solution.upper + 50 * tol)


def _policy_of_zero(mdp, *, method="auto", tol=1e-8):
    """The right values with the policy of the first sweep."""
    first = planning.greedy(mdp, np.zeros(mdp.num_states), ties="first")
    return replace(planning.solve(mdp, method=method, tol=tol), policy=first)


def _gauss_seidel_for_jacobi(mdp, method="auto", **options):
    other = {"value-iteration": "gauss-seidel"}.get(method, method)
    return planning.planner(mdp, other, **options)


def _never_improves(mdp, method="auto", **options):
    """Policy iteration that takes its first policy for the best."""
    one = planning.planner(mdp, method, **options)
    if method == "policy-iteration":
        one.advance = lambda: False
    return one


def _first_greedy(mdp, **options):
    """The optimum with the first of its tied actions, which may wait for ever."""
    solution = planning.shortest_path_value_iteration(mdp, **options)
    return replace(solution, policy=planning.greedy(mdp, solution.values, ties="first"))


def _without_step(mdp, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return planning.relative_value_iteration(mdp, step=1.0, max_iter=400)


def _first_policy(mdp):
    found = planning.average_policy_iteration(mdp)
    gain = planning.average_reward(mdp, np.zeros(mdp.num_states, dtype=int)).gain
    return replace(found, gain=gain)


def _time_reversed(mdp, horizon):
    steps = planning.backward_induction(mdp, horizon)
    return replace(steps, values=steps.values[::-1])


MUTANTS = (
    *(
        Mutant(name=name, replaces="solve", function=_bug(name), bug=bug)
        for name, bug in oracles.BUGS.items()
    ),
    Mutant(name="span-stop value returned raw", replaces="solve", function=_raw_span, bug="v* minus a constant shift"),
    Mutant(name="silent cap of 50 iterations", replaces="solve", function=_capped, bug="stopped early without saying so"),
    Mutant(name="unclipped Gauss-Seidel bracket", replaces="solve", function=_unclipped_gauss_seidel, bug="Jacobi's bracket around in-place sweeps"),
    Mutant(name="bracket beside the truth", replaces="solve", function=_shifted, bug="an unsound bound"),
    Mutant(name="tolerance not reached", replaces="solve", function=_never_done, bug="gap wider than asked for"),
    Mutant(name="policy of the first sweep", replaces="solve", function=_policy_of_zero, bug="values and policy out of step"),
    Mutant(name="Gauss-Seidel called Jacobi", replaces="planner", function=_gauss_seidel_for_jacobi, bug="more than one backup per improvement"),
    Mutant(name="stops at once", replaces="planner", function=_never_improves, bug="the first policy taken for the best"),
    Mutant(name="j off by one", replaces="truncated_policy_iteration", function=lambda m, *, num_sweeps, tol: planning.truncated_policy_iteration(m, num_sweeps=num_sweeps + 1, tol=tol), bug="zero extra sweeps called one"),
    Mutant(name="horizon off by one", replaces="backward_induction", function=lambda m, h: (s := planning.backward_induction(m, h + 1)) and replace(s, values=s.values[:-1]), bug="one decision too many"),
    Mutant(name="time reversed", replaces="backward_induction", function=_time_reversed, bug="row 0 is the last decision"),
    Mutant(name="gain scaled by the step", replaces="relative_value_iteration", function=lambda m: replace(s := planning.relative_value_iteration(m), gain=s.gain * 0.5), bug="aperiodicity transform not undone"),
    Mutant(name="no aperiodicity transform", replaces="relative_value_iteration", function=_without_step, bug="periodic chains never settle"),
    Mutant(name="first policy's gain", replaces="average_policy_iteration", function=_first_policy, bug="stops at once"),
    Mutant(name="worst policy", replaces="average_policy_iteration", function=lambda m: replace(planning.average_policy_iteration(m), policy=planning.average_policy_iteration(m.replace(rewards=-m.rewards, transition_rewards=None)).policy), bug="argmin for argmax"),
    Mutant(name="discount .99 for none", replaces="shortest_path_value_iteration", function=lambda m: planning.solve(m.replace(gamma=0.99)), bug="episodes discounted"),
    Mutant(name="termination forgotten", replaces="MatrixFree", function=lambda f, *a, **o: planning.MatrixFree(lambda *x: f(*x)[:2], *a, **o), bug="a third answer of the transition is dropped"),
    Mutant(name="events alike", replaces="MatrixFree", function=lambda f, events, *a, **o: planning.MatrixFree(f, np.full(len(events), 1 / len(events)), *a, **o), bug="probabilities of the events ignored"),
    Mutant(name="halo taken for ends", replaces="solve_sharded", function=lambda part, *, tol: planning.solve(planning.shard(as_mdp(fixtures.forest()), 0, 2).rows, tol=tol), bug="states of other processes count 0"),
    Mutant(name="first tie", replaces="shortest_path_value_iteration", function=_first_greedy, bug="a policy that waits for ever"),
)  # fmt: skip
