"""The optimality equation against brute force, fractions, a linear programme and printed tables."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dodona import mdp as planning
from dodona.checks.compare import as_mdp, close, inside
from dodona.core.protocols import Check, Mutant
from dodona.mdp import MDP
from dodona.oracles import fixtures, soft
from dodona.oracles.enumeration import optimal_bruteforce
from dodona.oracles.linear_program import optimal_lp
from dodona.oracles.rational import optimal_rational

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    "solve": planning.solve,
    "bellman_optimality": planning.bellman_optimality,
    "optimal_actions": planning.optimal_actions,
    "certify": planning.certify,
    "affine_rewards": planning.affine_rewards,
    "shape_rewards": planning.shape_rewards,
    "soft_optimality": planning.soft_optimality,
    "epsilon_soft_optimality": planning.epsilon_soft_optimality,
    "sweep_gamma": planning.sweep_gamma,
}
BOOK = ((-1.0, 0.9), (-1.0, 0.5), (-1.0, 0.0), (-10.0, 0.9))


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` draws more random models."""
    solve = subjects["solve"]
    for setting in BOOK:
        book = fixtures.book_grid(*setting)
        fact = book.facts["v*"]
        yield close(
            book.name,
            solve(as_mdp(book)).values,
            fact.value,
            tolerance=fact.error,
            source=fact.source,
        )
    book = fixtures.book_grid()
    ties = subjects["optimal_actions"](as_mdp(book), solve(as_mdp(book)).values).sum(axis=1)
    yield close(
        "optimal actions per cell",
        ties,
        book.facts["ties"].value,
        tolerance=0,
        source="Zhao 2025, fig. 3.4a",
    )
    for case in (
        fixtures.puterman_two_state(),
        fixtures.mdptoolbox_small(),
        fixtures.mdptoolbox_small(0.99),
        fixtures.forest(),
    ):
        fact = case.facts["v*"]
        yield close(
            case.name,
            solve(as_mdp(case)).values,
            fact.value,
            tolerance=fact.error + 1e-8,
            source=fact.source,
        )
    for seed in range(300 if full else 8):
        yield from _random(subjects, seed)
    masked = MDP.from_dense(
        np.full((2, 2, 2), 0.5), np.array([[1.0, 50.0], [0.0, 0.0]]), gamma=0.5, layout="sas",
        action_mask=np.array([[True, False], [True, True]]),
    )  # fmt: skip
    yield close(
        "infeasible action left out",
        solve(masked).values,
        [1.5, 0.5],
        tolerance=1e-7,
        source="by hand",
    )


def _random(subjects, seed: int) -> Iterator[Check]:
    rng = np.random.default_rng(seed)
    case = fixtures.random_mdp(rng, 5, 3, terminal=seed % 2)
    model = as_mdp(case)
    exact, best = optimal_rational(case.P, case.R, case.gamma, terminal=case.terminal)
    v = np.array([float(x) for x in exact])
    solution = subjects["solve"](model)
    yield inside(
        f"bracket, model {seed}", solution.lower, solution.upper, exact, source="fractions"
    )
    brute, _ = optimal_bruteforce(case.P, case.R, case.gamma, terminal=case.terminal)
    yield close(
        f"v*, model {seed}",
        solution.values,
        brute,
        tolerance=2e-8,
        source="all policies enumerated",
    )
    lp, _ = optimal_lp(case.P, case.R, case.gamma, terminal=case.terminal)
    yield close(f"v* by LP, model {seed}", solution.values, lp, tolerance=1e-7, source="HiGHS")
    live = ~case.terminal
    yield close(
        f"optimal set, model {seed}",
        subjects["optimal_actions"](model, v)[live],
        best[live],
        tolerance=0,
        source="fractions",
    )
    guess = rng.normal(size=5) * 10.0 ** rng.integers(-3, 4)
    proof = subjects["certify"](model, guess)
    yield inside(
        f"certificate of random values, model {seed}",
        proof.lower,
        proof.upper,
        exact,
        source="fractions",
    )
    start = np.where(live, guess, 0.0)
    loop = [max(case.R[s] + case.gamma * case.P[s] @ start) if live[s] else 0.0 for s in range(5)]
    yield close(
        f"one backup, model {seed}",
        subjects["bellman_optimality"](model, guess)[0],
        loop,
        tolerance=1e-9,
        source="definition",
    )
    potential = rng.normal(size=5)
    shaped = subjects["solve"](subjects["shape_rewards"](model, potential)).values
    yield close(
        f"shaping, model {seed}",
        shaped,
        v - np.where(live, potential, 0.0),
        tolerance=2e-8,
        source="Ng et al. 1999",
    )
    if live.all():
        moved = subjects["solve"](subjects["affine_rewards"](model, 2.0, 3.0)).values
        yield close(
            f"affine rewards, model {seed}",
            moved,
            2 * v + 3 / (1 - case.gamma),
            tolerance=2e-8,
            source="theorem 3.6",
        )
        yield close(
            f"soft optimum, model {seed}", subjects["soft_optimality"](model, tau=0.7).values,
            soft.soft_value(case.P, case.R, case.gamma, 0.7), tolerance=1e-9, source="oracles.soft",
        )  # fmt: skip
        reference = rng.dirichlet(np.ones(3), size=5)
        yield close(
            f"KL optimum, model {seed}", subjects["soft_optimality"](model, tau=0.7, reference=reference).values,
            soft.soft_value(case.P, case.R, case.gamma, 0.7, reference=reference), tolerance=1e-9, source="oracles.soft",
        )  # fmt: skip
        yield close(
            f"epsilon-soft optimum, model {seed}", subjects["epsilon_soft_optimality"](model, epsilon=0.1).values,
            soft.epsilon_soft_value(case.P, case.R, case.gamma, 0.1), tolerance=1e-9, source="oracles.soft",
        )  # fmt: skip
        sweep = subjects["sweep_gamma"](model, [0.3, 0.6, 0.9])
        for gamma, values in zip(sweep.parameters, sweep.values, strict=True):
            truth, _ = optimal_rational(case.P, case.R, float(gamma))
            yield close(
                f"gamma {gamma:g}, model {seed}",
                values,
                [float(x) for x in truth],
                tolerance=1e-8,
                source="fractions",
            )


def _minimum(mdp, **options):
    negative = planning.solve(mdp.replace(rewards=-mdp.rewards, transition_rewards=None), **options)
    return replace(negative, values=-negative.values, lower=-negative.upper, upper=-negative.lower)


def _without_ends(mdp, **options):
    """Terminal states kept alive with reward 0 and the value of their neighbour."""
    solution = planning.solve(mdp, **options)
    return replace(solution, values=np.where(mdp.terminal, solution.values.mean(), solution.values))


def _unclipped(mdp, values):
    """MacQueen's bracket as for stochastic rows, whatever the rows are."""
    values = np.where(mdp.terminal, 0.0, values)
    out, policy = planning.bellman_optimality(mdp, values)
    e = (out - values)[~mdp.terminal]
    factor = mdp.gamma / (1 - mdp.gamma)
    lower, upper = out + factor * e.min(), out + factor * e.max()
    proof = planning.certify(mdp, values)
    return replace(
        proof, lower=np.where(mdp.terminal, 0, lower), upper=np.where(mdp.terminal, 0, upper)
    )


def _first_only(mdp, values, *, tol=None):
    every = planning.optimal_actions(mdp, values, tol=tol)
    return every & (np.cumsum(every, axis=1) == 1)


def _all_feasible(mdp, **options):
    """The masked action let in with the reward of its neighbour."""
    solution = planning.solve(mdp, **options)
    if mdp.num_pairs < mdp.num_states * mdp.num_actions and not mdp.terminal.any():
        return replace(solution, values=solution.values + 1.0)
    return solution


MUTANTS = (
    Mutant(name="min instead of max", replaces="solve", function=_minimum, bug="costs and rewards confused"),
    Mutant(name="terminal bootstrapped", replaces="solve", function=_without_ends, bug="a terminal state keeps a value"),
    Mutant(name="gamma applied twice", replaces="solve", function=lambda m, **o: planning.solve(m.replace(gamma=m.gamma**2), **o), bug="discount squared"),
    Mutant(name="loose tolerance", replaces="solve", function=lambda m, **o: replace(s := planning.solve(m, method="value-iteration", tol=0.5), values=s.lower), bug="values returned at a policy's stopping test"),
    Mutant(name="infeasible actions in the max", replaces="solve", function=_all_feasible, bug="mask forgotten"),
    Mutant(name="unclipped certificate", replaces="certify", function=_unclipped, bug="the bracket of stochastic rows where episodes end"),
    Mutant(name="first tie only", replaces="optimal_actions", function=_first_only, bug="one optimal action reported where there are several"),
    Mutant(name="mean backup", replaces="bellman_optimality", function=lambda m, v, **o: (planning.bellman_operator(m, v, policy=m.action_mask / np.maximum(m.action_mask.sum(1, keepdims=True), 1)), None), bug="expectation instead of max"),
    Mutant(name="shaping without gamma", replaces="shape_rewards", function=lambda m, p: planning.shape_rewards(m, p * m.gamma), bug="Phi(s') - Phi(s)"),
    Mutant(name="affine without b", replaces="affine_rewards", function=lambda m, a, b: planning.affine_rewards(m, a, 0.0), bug="the constant dropped"),
    Mutant(name="soft as hard", replaces="soft_optimality", function=lambda m, **o: planning.solve(m), bug="temperature ignored"),
    Mutant(name="soft without reference", replaces="soft_optimality", function=lambda m, *, tau, reference=None: planning.soft_optimality(m, tau=tau), bug="KL to the reference dropped"),
    Mutant(name="epsilon halved", replaces="epsilon_soft_optimality", function=lambda m, *, epsilon: planning.epsilon_soft_optimality(m, epsilon=epsilon / 2), bug="exploration counted on the other actions only"),
    Mutant(name="sweep at one gamma", replaces="sweep_gamma", function=lambda m, g: replace(planning.sweep_gamma(m, g), values=np.tile(planning.solve(m).values, (len(g), 1))), bug="the discount is not changed"),
)  # fmt: skip
