"""Every planner against fractions and published optima; horizons, long-run averages, episodes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dodona import mdp as planning
from dodona.checks.compare import as_mdp, close, inside
from dodona.core.protocols import Check, Mutant
from dodona.mdp import MDP, worlds
from dodona.mdp.proposals import PROPOSALS
from dodona.oracles import fixtures
from dodona.oracles.enumeration import finite_horizon
from dodona.oracles.linear_program import average_reward_lp
from dodona.oracles.rational import optimal_rational

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    "solve": planning.solve,
    "truncated_policy_iteration": planning.truncated_policy_iteration,
    "backward_induction": planning.backward_induction,
    "relative_value_iteration": planning.relative_value_iteration,
    "average_policy_iteration": planning.average_policy_iteration,
    "shortest_path_value_iteration": planning.shortest_path_value_iteration,
}


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` draws more random models."""
    small = fixtures.mdptoolbox_small(0.99)
    for method in PROPOSALS:
        fact = small.facts["v*"]
        got = subjects["solve"](as_mdp(small), method=method, tol=1e-7).values
        yield close(
            f"{method} on {small.name}", got, fact.value, tolerance=1.1e-7, source=fact.source
        )
    for seed in range(100 if full else 4):
        case = fixtures.random_mdp(np.random.default_rng(seed), 6, 3, terminal=seed % 2)
        model = as_mdp(case)
        exact, _ = optimal_rational(case.P, case.R, case.gamma, terminal=case.terminal)
        for method in PROPOSALS:
            solution = subjects["solve"](model, method=method, tol=1e-7)
            yield inside(
                f"{method}, model {seed}", solution.lower, solution.upper, exact, source="fractions"
            )
            yield close(
                f"{method}, gap, model {seed}", solution.gap, 0.0, tolerance=1e-7, source="tol"
            )
        once = subjects["truncated_policy_iteration"](model, num_sweeps=1, tol=1e-6)
        plain = planning.value_iteration(model, tol=1e-6)
        yield close(
            f"one sweep is value iteration, model {seed}",
            once.values,
            plain.values,
            tolerance=0,
            source="identity",
        )
        steps = subjects["backward_induction"](model, 5).values
        loops = finite_horizon(case.P, case.R, case.gamma, 5, terminal=case.terminal)
        yield close(
            f"five steps, model {seed}", steps, loops, tolerance=1e-12, source="plain loops"
        )
        if not case.terminal.any():
            gain = average_reward_lp(case.P, case.R)
            for name in ("relative_value_iteration", "average_policy_iteration"):
                yield close(
                    f"{name}, model {seed}",
                    subjects[name](model).gain,
                    gain,
                    tolerance=1e-7,
                    source="LP",
                )
    for case in (fixtures.mdptoolbox_small(), fixtures.forest()):
        for name in ("relative_value_iteration", "average_policy_iteration"):
            fact = case.facts["gain"]
            yield close(
                f"{name} on {case.name}",
                subjects[name](as_mdp(case)).gain,
                fact.value,
                tolerance=1e-8,
                source=fact.source,
            )
    yield close(
        "RiverSwim-6 gain", subjects["relative_value_iteration"](worlds.river_swim()).gain, 0.4286224338,
        tolerance=1.1e-8, source="card dynamic-programming",
    )  # fmt: skip
    episode = subjects["shortest_path_value_iteration"]
    yield close(
        "gambler, p .4",
        episode(worlds.gambler()).values[[25, 50, 75]],
        [0.16, 0.4, 0.64],
        tolerance=1e-8,
        source="Sutton & Barto 2018, ex. 4.3",
    )
    lake = MDP.from_gymnasium("FrozenLake-v1", gamma=1.0)
    solution = episode(lake)
    yield close(
        "FrozenLake 4x4, no discount",
        float(lake.start @ solution.values),
        14 / 17,
        tolerance=1e-8,
        source="exact",
    )
    yield close(
        "FrozenLake 4x4, 100 steps",
        float(lake.start @ subjects["backward_induction"](lake, 100).values[0]),
        0.7441902878,
        tolerance=1e-10,
        source="card dynamic-programming",
    )


def _raw_span(mdp, *, method="auto", tol=1e-8):
    """Values as they stand when the span allows a good policy: pymdptoolbox#39."""
    solution = planning.solve(mdp, method=method, tol=tol)
    planner = planning.Planner(mdp, "value-iteration", tol=1e-12)
    while planner.advance():
        live = ~mdp.terminal
        change = (planner.work.swept - planner.work.values)[live]
        if np.ptp(change) < 0.01:
            break
    v = planner.work.swept
    return replace(solution, values=v, lower=v, upper=v)


def _capped(mdp, *, method="auto", tol=1e-8):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = planning.solve(mdp, method="value-iteration", tol=tol, max_iter=50)
    return replace(solution, lower=solution.values, upper=solution.values)


def _shifted(mdp, *, method="auto", tol=1e-8):
    solution = planning.solve(mdp, method=method, tol=tol)
    return replace(solution, lower=solution.lower + 3 * tol, upper=solution.upper + 3 * tol)


def _never_done(mdp, *, method="auto", tol=1e-8):
    solution = planning.solve(mdp, method=method, tol=100 * tol)
    return replace(solution, upper=solution.upper + 50 * tol)


MUTANTS = (
    Mutant(name="span-stop value returned raw", replaces="solve", function=_raw_span, bug="v* minus a constant shift"),
    Mutant(name="silent cap of 50 iterations", replaces="solve", function=_capped, bug="stopped early without saying so"),
    Mutant(name="bracket beside the truth", replaces="solve", function=_shifted, bug="an unsound bound"),
    Mutant(name="tolerance not reached", replaces="solve", function=_never_done, bug="gap wider than asked for"),
    Mutant(name="j off by one", replaces="truncated_policy_iteration", function=lambda m, *, num_sweeps, tol: planning.truncated_policy_iteration(m, num_sweeps=num_sweeps + 1, tol=tol), bug="zero extra sweeps called one"),
    Mutant(name="horizon off by one", replaces="backward_induction", function=lambda m, h: (s := planning.backward_induction(m, h + 1)) and replace(s, values=s.values[:-1]), bug="one decision too many"),
    Mutant(name="gain scaled by the step", replaces="relative_value_iteration", function=lambda m: replace(s := planning.relative_value_iteration(m), gain=s.gain * 0.5), bug="aperiodicity transform not undone"),
    Mutant(name="first policy's gain", replaces="average_policy_iteration", function=lambda m: replace(planning.average_policy_iteration(m), gain=planning.average_reward(m, np.zeros(m.num_states, dtype=int)).gain), bug="stops at once"),
    Mutant(name="discount .99 for none", replaces="shortest_path_value_iteration", function=lambda m: planning.solve(m.replace(gamma=0.99)), bug="episodes discounted"),
)  # fmt: skip
