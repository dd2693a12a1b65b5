"""The Bellman equation against fractions, dense solves and printed tables."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dodona import mdp as planning
from dodona.checks.compare import as_mdp, close, inside
from dodona.core.protocols import Check, Mutant
from dodona.oracles import dense, enumeration, fixtures
from dodona.oracles.rational import policy_value_rational

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    "policy_value": planning.policy_value,
    "policy_action_values": planning.policy_action_values,
    "bellman_operator": planning.bellman_operator,
    "return_variance": planning.return_variance,
    "occupancy": planning.occupancy,
    "stationary_distribution": planning.stationary_distribution,
    "average_reward": planning.average_reward,
}


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` draws more random models."""
    value = subjects["policy_value"]
    book = fixtures.book_grid()
    grid = as_mdp(book)
    for name, policy in (("v uniform", np.full((25, 5), 0.2)), ("v right", np.ones(25, dtype=int))):
        fact = book.facts[name]
        yield close(
            f"5x5 grid, {name}",
            value(grid, policy).values,
            fact.value,
            tolerance=fact.error,
            source=fact.source,
        )
    for seed in range(200 if full else 12):
        rng = np.random.default_rng(seed)
        case = fixtures.random_mdp(rng, 5, 3, terminal=seed % 2)
        model = as_mdp(case)
        policy = rng.dirichlet(np.ones(3), size=5) if seed % 3 else rng.integers(0, 3, 5)
        truth = policy_value_rational(case.P, case.R, case.gamma, policy, terminal=case.terminal)
        solution = value(model, policy)
        exact = np.array([float(v) for v in truth])
        yield inside(
            f"bracket, model {seed}", solution.lower, solution.upper, truth, source="fractions"
        )
        yield close(
            f"value, model {seed}", solution.values, exact, tolerance=1e-9, source="fractions"
        )
        share = policy if policy.ndim == 2 else np.eye(3)[policy]
        q = subjects["policy_action_values"](model, policy)[~case.terminal]
        expected = (case.R + case.gamma * case.P @ exact)[~case.terminal]
        yield close(f"action values, model {seed}", q, expected, tolerance=1e-9, source="fractions")
        once = subjects["bellman_operator"](model, exact * 0 + 1.0, policy=policy)
        by_tree = [
            0.0
            if case.terminal[s]
            else float(share[s] @ (case.R[s] + case.gamma * case.P[s] @ (~case.terminal)))
            for s in range(5)
        ]
        yield close(
            f"one backup, model {seed}", once, by_tree, tolerance=1e-12, source="definition"
        )
        R3 = np.broadcast_to(case.R[:, :, None], case.P.shape)
        _, variance = dense.return_moments(case.P, R3, case.gamma, share, terminal=case.terminal)
        yield close(
            f"variance of the return, model {seed}", subjects["return_variance"](model, policy), variance,
            tolerance=1e-8, source="second-moment system",
        )  # fmt: skip
        if not case.terminal.any():
            yield from _long_run(subjects, case, model, share, seed)
    small = fixtures.random_mdp(np.random.default_rng(7), 3, 2, branching=2)
    share = np.full((3, 2), 0.5)
    tree = [
        enumeration.trajectory_tree(small.P, small.R, small.gamma, share, 6, s) for s in range(3)
    ]
    v = np.zeros(3)
    for _ in range(6):
        v = subjects["bellman_operator"](as_mdp(small), v, policy=share)
    yield close("six backups", v, tree, tolerance=1e-12, source="every trajectory enumerated")


def _long_run(subjects, case, model, share, seed) -> Iterator[Check]:
    start = np.full(5, 0.2)
    yield close(
        f"occupancy, model {seed}", subjects["occupancy"](model, share, start=start),
        dense.occupancy(case.P, case.gamma, share, start), tolerance=1e-10, source="step by step",
    )  # fmt: skip
    yield close(
        f"stationary shares, model {seed}", subjects["stationary_distribution"](model, share),
        dense.stationary(case.P, share), tolerance=1e-10, source="null vector",
    )  # fmt: skip
    answer = subjects["average_reward"](model, share)
    gain, bias = dense.average_reward(case.P, case.R, share)
    yield close(f"gain, model {seed}", answer.gain, gain, tolerance=1e-10, source="bordered system")
    yield close(f"bias, model {seed}", answer.bias, bias, tolerance=1e-8, source="bordered system")


def _with(change: Callable) -> Callable:
    return lambda mdp, policy, **options: planning.policy_value(change(mdp), policy, **options)


def _shrunk(mdp, policy, **options):
    solution = planning.policy_value(mdp, policy, **options)
    middle = solution.swept if hasattr(solution, "swept") else solution.values
    return replace(solution, lower=middle, upper=middle)


def _early(mdp, policy, **options):
    v = np.zeros(mdp.num_states)
    for _ in range(30):
        v = planning.bellman_operator(mdp, v, policy=policy)
    return replace(planning.policy_value(mdp, policy), values=v, lower=v, upper=v)


def _rows_reversed(mdp):
    return mdp.replace(indices=mdp.indices[::-1].copy(), transition_rewards=None)


MUTANTS = (
    Mutant(name="gamma omitted", replaces="policy_value", function=_with(lambda m: m.replace(gamma=0.999)), bug="the future is not discounted"),
    Mutant(name="gamma squared", replaces="policy_value", function=_with(lambda m: m.replace(gamma=m.gamma**2)), bug="discount applied twice"),
    Mutant(name="reward discounted", replaces="policy_value", function=_with(lambda m: m.replace(rewards=m.gamma * m.rewards)), bug="gamma applied to r as well"),
    Mutant(name="successors mixed up", replaces="policy_value", function=_with(_rows_reversed), bug="probabilities and successors out of step"),
    Mutant(name="reward of the wrong pair", replaces="policy_value", function=_with(lambda m: m.replace(rewards=np.roll(m.rewards, 1))), bug="reward shifted by one"),
    Mutant(name="stopped early", replaces="policy_value", function=_early, bug="thirty sweeps called converged"),
    Mutant(name="bracket without rounding", replaces="policy_value", function=_shrunk, bug="the middle returned as an exact answer"),
    Mutant(name="values of zero in q", replaces="policy_action_values", function=lambda m, p: planning.action_values(m, np.zeros(m.num_states)), bug="q without the future"),
    Mutant(name="optimal instead of policy backup", replaces="bellman_operator", function=lambda m, v, *, policy: planning.bellman_optimality(m, v)[0], bug="max instead of expectation"),
    Mutant(name="variance with gamma", replaces="return_variance", function=lambda m, p: planning.return_variance(m, p) * m.gamma, bug="gamma where gamma^2 stands"),
    Mutant(name="occupancy not normalised", replaces="occupancy", function=lambda m, p, *, start: planning.occupancy(m, p, start=start) / (1 - m.gamma), bug="(1 - gamma) forgotten"),
    Mutant(name="uniform shares", replaces="stationary_distribution", function=lambda m, p: np.full(m.num_states, 1 / m.num_states), bug="states weighted evenly"),
    Mutant(name="discounted gain", replaces="average_reward", function=lambda m, p: replace(planning.average_reward(m, p), gain=float((1 - m.gamma) * planning.policy_value(m, p).values[0])), bug="(1 - gamma) v taken for the gain"),
)  # fmt: skip
