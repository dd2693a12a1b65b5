"""The Bellman equation against fractions, dense solves, trajectories and printed tables."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dodona import mdp as planning
from dodona.checks.compare import as_mdp, close, each, inside
from dodona.core.protocols import Check, Mutant
from dodona.oracles import fixtures
from dodona.oracles import mdp as oracles
from dodona.oracles.instance import Fixture

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    name: getattr(planning, name)
    for name in (
        "policy_value",
        "action_values",
        "policy_action_values",
        "policy_advantages",
        "bellman_operator",
        "return_variance",
        "occupancy",
        "stationary_distribution",
        "average_reward",
    )
}
PUBLISHED = (
    "book 5x5", "book 2x2", "line of two", "random walk 5", "random walk 19", "jumps 5x5", "corners 4x4",
)  # fmt: skip


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` draws more random models."""
    for case in map(fixtures.fixture, PUBLISHED):
        yield from each(case.name, _published(subjects, case))
    for seed in range(300 if full else 6):
        rng = np.random.default_rng(seed)
        case = fixtures.random_mdp(rng, 5, 3, terminal=seed % 2, masked=seed % 3 == 0)
        policy = _policy(rng, case, stochastic=seed % 4 > 0)
        truth = oracles.policy_value_rational(
            case.P, case.R, case.gamma, policy, terminal=case.terminal
        )
        found = subjects["policy_value"](as_mdp(case), policy)
        yield inside(f"bracket, model {seed}", found.lower, found.upper, truth, source="fractions")
        exact = np.array([float(v) for v in truth])
        yield close(f"value, model {seed}", found.values, exact, tolerance=1e-9, source="fractions")
        yield from each(f"model {seed}", _random(subjects, case, policy, exact))
    yield from each("three states", _trajectories(subjects))


def _published(subjects, case: Fixture) -> Iterator[tuple]:
    for name, fact in case.facts.items():
        if fact.of == "v":
            got = subjects["policy_value"](as_mdp(case), fact.policy).values
            got = got if fact.states is None else got[list(fact.states)]
            yield name, got, fact.value, fact.error + 1e-9, fact.source  # 1e-9: the solver's own


def _policy(rng: np.random.Generator, case: Fixture, *, stochastic: bool) -> np.ndarray:
    """[S, A] or [S], on feasible actions."""
    if not stochastic:
        return np.array([rng.choice(np.flatnonzero(row)) if row.any() else 0 for row in case.mask])
    share = rng.dirichlet(np.ones(3), size=5) * case.mask
    return share / np.where(case.terminal, 1.0, share.sum(axis=1))[:, None]


def _random(subjects, case: Fixture, policy: np.ndarray, exact: np.ndarray) -> Iterator[tuple]:
    P, R, gamma, live, ends = case.P, case.R, case.gamma, case.mask, case.terminal
    model = as_mdp(case)
    q = R + gamma * P @ np.where(ends, 0.0, exact)
    for name, got, expected in (
        ("action_values", subjects["action_values"](model, exact), q),
        ("policy_action_values", subjects["policy_action_values"](model, policy), q),
        ("policy_advantages", subjects["policy_advantages"](model, policy), q - exact[:, None]),
    ):
        yield name, got[live], expected[live], 1e-9, "fractions"
        yield f"{name} where infeasible", np.isneginf(got), ~live, 0.0, "definition"
    share = policy if policy.ndim == 2 else np.eye(3)[policy]
    once = subjects["bellman_operator"](model, np.ones(5), policy=policy)
    loop = [0.0 if ends[s] else share[s] @ (R[s] + gamma * P[s] @ ~ends) for s in range(5)]
    yield "one backup", once, loop, 1e-12, "definition"
    variance = subjects["return_variance"](model, policy)
    moments = oracles.return_moments(P, R, gamma, policy, terminal=ends)
    yield "variance of the return", variance, moments.variance, 1e-8, "second moment"
    start = np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    steps = oracles.occupancy(P, gamma, policy, start, terminal=ends)
    time = subjects["occupancy"](model, policy, start=start)
    yield "occupancy", time, steps, 1e-10, "step by step"
    if ends.any():
        return
    shares = subjects["stationary_distribution"](model, policy)
    yield "long-run shares", shares, oracles.null_vector(P, policy), 1e-10, "null vector"
    gain, bias = oracles.average_reward(P, R, policy)
    answer = subjects["average_reward"](model, policy)
    yield "gain", answer.gain, gain, 1e-10, "bordered system"
    yield "bias", answer.bias, bias, 1e-8, "bordered system"


def _trajectories(subjects) -> Iterator[tuple]:
    case = fixtures.random_mdp(np.random.default_rng(7), 3, 2, branching=2)
    share, v = np.full((3, 2), 0.5), np.zeros(3)
    trees = [oracles.trajectory_tree(case.P, case.R, case.gamma, share, 6, s) for s in range(3)]
    for _ in range(6):
        v = subjects["bellman_operator"](as_mdp(case), v, policy=share)
    yield (
        "six backups",
        v,
        [chances @ returns for chances, returns in trees],
        1e-12,
        "every trajectory",
    )


# ---------------------------------------------------------------------- bugs
def _bug(name: str) -> Callable:
    """The values a policy seems to have with one bug in the operator, with a bracket around them."""

    def wrong(mdp, policy, **options):
        P, R, gamma = mdp.dense()
        v = oracles.buggy_value(
            name, P, R, gamma, policy=np.asarray(policy), terminal=mdp.terminal, action_mask=mdp.action_mask
        )  # fmt: skip
        return replace(planning.policy_value(mdp, policy), values=v, lower=v - 1e-6, upper=v + 1e-6)

    return wrong


def _without_rounding(mdp, policy, **options):
    solution = planning.policy_value(mdp, policy, **options)
    return replace(solution, lower=solution.values, upper=solution.values)


def _early(mdp, policy, **options):
    v = np.zeros(mdp.num_states)
    for _ in range(30):
        v = planning.bellman_operator(mdp, v, policy=policy)
    return replace(planning.policy_value(mdp, policy), values=v, lower=v - 1e-6, upper=v + 1e-6)


def _on(change: Callable) -> Callable:
    return lambda mdp, policy, **options: planning.policy_value(change(mdp), policy, **options)


def _successors_reversed(mdp):
    return mdp.replace(indices=mdp.indices[::-1].copy(), transition_rewards=None)


def _of_rewards(mdp, policy):
    """The variance that independent rewards would have."""
    spread = mdp.replace(rewards=mdp.rewards**2, transition_rewards=None, gamma=mdp.gamma**2)
    return planning.policy_value(spread, policy).values


MUTANTS = (
    *(
        Mutant(name=name, replaces="policy_value", function=_bug(name), bug=oracles.BUGS[name])
        for name in oracles.BUGS
        if name != "minimum"  # a policy leaves nothing to minimise
    ),
    Mutant(name="successors mixed up", replaces="policy_value", function=_on(_successors_reversed), bug="probabilities and successors out of step"),
    Mutant(name="reward of the wrong pair", replaces="policy_value", function=_on(lambda m: m.replace(rewards=np.roll(m.rewards, 1))), bug="reward shifted by one"),
    Mutant(name="stopped early", replaces="policy_value", function=_early, bug="thirty sweeps called converged"),
    Mutant(name="bracket without rounding", replaces="policy_value", function=_without_rounding, bug="the middle returned as an exact answer"),
    Mutant(name="values of zero in q", replaces="policy_action_values", function=lambda m, p: planning.action_values(m, np.zeros(m.num_states)), bug="q without the future"),
    Mutant(name="only what is taken", replaces="policy_action_values", function=lambda m, p: np.where(np.asarray(p) > 0 if np.ndim(p) == 2 else np.eye(m.num_actions)[np.asarray(p)] > 0, planning.policy_action_values(m, p), -np.inf), bug="q only for actions the policy takes"),
    Mutant(name="infeasible as zero", replaces="action_values", function=lambda m, v: np.where(m.action_mask, planning.action_values(m, v), 0.0), bug="infeasible actions worth 0"),
    Mutant(name="against the best", replaces="policy_advantages", function=lambda m, p: (q := planning.policy_action_values(m, p)) - np.where(m.terminal, 0.0, q.max(axis=1))[:, None], bug="q minus its maximum"),
    Mutant(name="optimal instead of policy backup", replaces="bellman_operator", function=lambda m, v, *, policy: planning.bellman_optimality(m, v)[0], bug="max instead of expectation"),
    Mutant(name="variance with gamma", replaces="return_variance", function=lambda m, p: planning.return_variance(m, p) * m.gamma, bug="gamma where gamma^2 stands"),
    Mutant(name="squares of rewards", replaces="return_variance", function=_of_rewards, bug="squares of rewards without their cross terms"),
    Mutant(name="occupancy not normalised", replaces="occupancy", function=lambda m, p, *, start: planning.occupancy(m, p, start=start) / (1 - m.gamma), bug="(1 - gamma) forgotten"),
    Mutant(name="uniform start", replaces="occupancy", function=lambda m, p, *, start: planning.occupancy(m, p, start=np.full(len(start), 1 / len(start))), bug="start distribution forgotten"),
    Mutant(name="uniform shares", replaces="stationary_distribution", function=lambda m, p: np.full(m.num_states, 1 / m.num_states), bug="states weighted evenly"),
    Mutant(name="discounted shares", replaces="stationary_distribution", function=lambda m, p: planning.occupancy(m, p, start=np.full(m.num_states, 1 / m.num_states)), bug="gamma left in"),
    Mutant(name="discounted gain", replaces="average_reward", function=lambda m, p: replace(planning.average_reward(m, p), gain=float((1 - m.gamma) * planning.policy_value(m, p).values[0])), bug="(1 - gamma) v taken for the gain"),
    Mutant(name="pinned bias", replaces="average_reward", function=lambda m, p: replace(a := planning.average_reward(m, p), bias=a.bias - a.bias[0]), bug="h(0) = 0 instead of d . h = 0"),
)  # fmt: skip
