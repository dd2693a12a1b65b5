"""The optimality equation against brute force, fractions, a linear programme, theorems and printed tables."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dodona import mdp as planning
from dodona.checks import theorems
from dodona.checks.compare import as_mdp, each, holds, inside
from dodona.core.protocols import Check, Mutant
from dodona.oracles import fixtures
from dodona.oracles import mdp as oracles
from dodona.oracles.instance import Fixture

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    name: getattr(planning, name)
    for name in (
        "solve",
        "bellman_optimality",
        "optimal_actions",
        "greedy",
        "certify",
        "affine_rewards",
        "shape_rewards",
        "soft_optimality",
        "epsilon_soft_optimality",
        "sweep_gamma",
        "sweep_reward",
        "blackwell_gamma",
        "fixed_point",
    )
}
PUBLISHED = (
    "book 5x5", "book 5x5, gamma .5", "book 5x5, gamma 0", "book 5x5, forbidden -10", "book 2x2", "line of two",
    "mdptoolbox small", "mdptoolbox small, gamma .99", "Puterman 3.1", "forest", "forest, gamma .96", "jumps 5x5",
    "exit or loop", "exit or loop, bonus 1",
)  # fmt: skip


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full``: 500 random models, 10 000 certificates."""
    yield from each("by hand", _by_hand(subjects))
    for seed in range(500 if full else 4):
        rng = np.random.default_rng(seed)
        case = fixtures.random_mdp(rng, 4, 3, terminal=seed % 2, masked=seed % 3 == 0)
        if seed % 4 == 3:  # losses only: a solver that starts from 0 has to come down
            case = replace(case, R=np.where(case.mask, -np.abs(case.R), 0.0))
        yield from each(f"model {seed}", _random(subjects, case, rng, 20 if full else 3))
    yield from each("by hand", _breaks(subjects))
    for name in PUBLISHED:
        yield from each(name, _published(subjects, fixtures.fixture(name)))


def _published(subjects, case: Fixture) -> Iterator[Any]:
    model = as_mdp(case)
    values = subjects["solve"](model).values
    for name, fact in case.facts.items():
        if fact.of == "v*":
            got = values if fact.states is None else values[list(fact.states)]
            yield name, got, fact.value, fact.error + 1e-8, fact.source
        elif fact.of == "ties":
            got = subjects["optimal_actions"](model, values).sum(axis=1)
            yield name, got, fact.value, 0.0, fact.source


def _by_hand(subjects) -> Iterator[Any]:
    """Small models whose answer is seen by looking."""
    got = subjects["fixed_point"](lambda x: 0.5 * x + 1.0, np.array([10.0]), tol=1e-12)
    yield "x = x / 2 + 1", got, [2.0], 1e-11, "by hand"
    # .3 at once, or .1 and half of .4: the same, but for the last digit of float64
    even = fixtures.Fixture(
        name="even", P=np.eye(3)[[[2, 1], [2, 2], [0, 0]]], R=np.array([[0.3, 0.1], [0.4, 0.4], [0, 0]]),
        gamma=0.5, terminal=np.array([False, False, True]),
    )  # fmt: skip
    ties = subjects["optimal_actions"](as_mdp(even), np.array([0.3, 0.4, 0.0]))
    yield "ties in spite of rounding", ties, [[1, 1], [1, 1], [0, 0]], 0.0, "by hand"
    waiting = fixtures.wait_or_leave()
    chosen = subjects["greedy"](as_mdp(waiting), np.array([1.0, 0.0]), ties="proper")
    ends = oracles.proper_policy(waiting.P, np.maximum(chosen, 0), terminal=waiting.terminal)
    yield "proper ties end", ends, [True, True], 0.0, "oracles.chains.proper_policy"
    both = subjects["greedy"](as_mdp(waiting), np.array([1.0, 0.0]))
    yield "both tied actions", both, [[0.5, 0.5], [0, 0]], 0.0, "by hand"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        moved = subjects["affine_rewards"](as_mdp(fixtures.exit_loop()), 1.0, 1.0)
    yield "warns where episodes end", len(caught), 1, 0.0, "card bellman-optimality, sec. 4.8"
    found = subjects["solve"](moved)
    yield (
        "the counter-example turns",
        [found.values[0], found.policy[0]],
        [10.0, 1],
        1e-7,
        "by hand",
    )


def _breaks(subjects) -> Iterator[Any]:
    """Take 1 now, or 0 and then r for ever: patience pays from gamma = 1 / (1 + r)."""
    patience = as_mdp(_patience(1.0))
    yield "Blackwell's discount", subjects["blackwell_gamma"](patience), 0.5, 1e-6, "by hand"
    first = (patience.pair_state == 1) & (patience.actions == 0)
    sweep = subjects["sweep_reward"](patience.replace(gamma=0.5), first, [0.25, 0.75, 1.5, 2.0])
    yield "break of the reward", sweep.breaks, [1.0], 1e-6, "by hand"


def _patience(reward: float) -> Fixture:
    """State 0: take 1 and fall into state 2, worth nothing; or go to state 1, which pays for ever."""
    P = np.zeros((3, 2, 3))
    P[0, 0, 2] = P[0, 1, 1] = P[1, :, 1] = P[2, :, 2] = 1.0
    R = np.array([[1.0, 0.0], [reward, 0.0], [0.0, 0.0]])
    mask = np.array([[True, True], [True, False], [True, False]])
    return fixtures.Fixture(
        name="patience", P=P, R=R, gamma=0.9, terminal=np.zeros(3, bool), action_mask=mask
    )


def _random(subjects, case: Fixture, rng, num_guesses: int) -> Iterator[Any]:
    P, R, gamma, live = case.P, case.R, case.gamma, ~case.terminal
    doors = {"terminal": case.terminal, "action_mask": case.action_mask}
    model = as_mdp(case)
    exact, best = oracles.optimal_rational(P, R, gamma, **doors)
    v = np.array([float(x) for x in exact])
    solution = subjects["solve"](model)
    yield inside("bracket", solution.lower, solution.upper, exact, source="fractions")
    brute, _ = oracles.optimal_bruteforce(P, R, gamma, **doors)
    yield "v*", solution.values, brute, 2e-8, "all policies enumerated"
    lp, _ = oracles.optimal_lp(P, R, gamma, **doors)
    yield "v* by LP", solution.values, lp, 1e-7, "HiGHS"
    yield "optimal set", subjects["optimal_actions"](model, v), best, 0.0, "fractions"
    for _ in range(num_guesses):
        guess = 10.0 ** rng.integers(-3, 4) * (rng.normal() + 0.1 * rng.normal(size=4))
        yield from _guess(subjects, case, model, guess, exact)
    potential = rng.normal(size=4)
    shaped = subjects["solve"](subjects["shape_rewards"](model, potential)).values
    yield "shaping", shaped, v - np.where(live, potential, 0.0), 2e-8, "Ng et al. 1999"
    if live.all():
        moved = subjects["solve"](subjects["affine_rewards"](model, 2.0, 3.0)).values
        yield "affine rewards", moved, 2 * v + 3 / (1 - gamma), 2e-7, "theorem 3.6"
    yield from _relatives(subjects, case, model, rng)


def _guess(subjects, case: Fixture, model, guess: np.ndarray, exact) -> Iterator[Any]:
    """What one sweep from any values proves, and the theorems it obeys."""
    live = ~case.terminal
    proof = subjects["certify"](model, guess)
    yield inside(
        "certificate of random values", proof.lower, proof.upper, exact, source="fractions"
    )
    doors = {"terminal": case.terminal, "action_mask": case.action_mask}
    other = oracles.certify(case.P, case.R, case.gamma, guess, **doors)
    overlap = np.minimum(proof.upper, other.upper) - np.maximum(proof.lower, other.lower)
    yield holds("two certificates meet", float(overlap.min()), tolerance=0.0, source="row ratios")
    value = oracles.policy_value_rational(
        case.P, case.R, case.gamma, np.maximum(proof.policy, 0), terminal=case.terminal
    )
    slack = min(float(a) - low for a, low in zip(value, proof.lower, strict=True))
    yield holds("lower bound of its policy", slack, tolerance=1e-12, source="fractions")
    start = np.where(live, guess, 0.0)
    backup = subjects["bellman_optimality"]
    swept, chosen = backup(model, guess)
    q = np.where(case.mask, case.R + case.gamma * case.P @ start, -np.inf)
    loop = [q[s].max() if live[s] else 0.0 for s in range(4)]
    size = 1.0 + float(np.abs(start).max())
    yield "one backup", swept, loop, 1e-12 * size, "definition"
    first = [int(q[s].argmax()) if live[s] else -1 for s in range(4)]
    yield "its first greedy action", chosen, first, 0.0, "definition"
    optimum = np.array([float(x) for x in exact])
    for name, slack in (
        ("contraction", theorems.contraction(model, guess, optimum, operator=backup)),
        ("monotone", theorems.monotone(model, guess, optimum, operator=backup)),
        ("greedy loss", theorems.greedy_loss(model, guess, optimum, operator=backup)),
        ("rate", theorems.fixed_point_rate(model, guess, optimum, num_sweeps=3, operator=backup)),
        ("constant", theorems.constant_shift(model, guess, 7.0, operator=backup) if live.all() else 0.0),
    ):  # fmt: skip
        yield holds(name, slack, tolerance=1e-10 * size, source="checks.theorems")


def _relatives(subjects, case: Fixture, model, rng) -> Iterator[Any]:
    """Soft, KL and exploring optima; the same model at other discounts."""
    P, R, gamma, mask = case.P, case.R, case.gamma, case.mask
    doors = {"terminal": case.terminal, "action_mask": case.action_mask}
    soft, _ = oracles.soft_value(P, R, gamma, 0.7, **doors)
    got = subjects["soft_optimality"](model, tau=0.7)
    yield "soft optimum", got.values, soft, 1e-9, "oracles.soft"
    reference = rng.dirichlet(np.ones(3), size=4) * mask
    reference /= np.where(case.terminal, 1.0, reference.sum(axis=1))[:, None]
    soft, _ = oracles.soft_value(P, R, gamma, 0.7, reference=reference, **doors)
    got = subjects["soft_optimality"](model, tau=0.7, reference=reference).values
    yield "KL optimum", got, soft, 1e-9, "oracles.soft"
    greedy, _ = oracles.epsilon_soft_value(P, R, gamma, 0.1, **doors)
    got = subjects["epsilon_soft_optimality"](model, epsilon=0.1).values
    yield "epsilon-soft optimum", got, greedy, 1e-9, "oracles.soft"
    gammas = [0.3, 0.8]
    sweep = subjects["sweep_gamma"](model, gammas)
    truth = [[float(x) for x in oracles.optimal_bruteforce(P, R, g, **doors)[0]] for g in gammas]
    yield "other discounts", sweep.values, truth, 1e-8, "all policies enumerated"


# ---------------------------------------------------------------------- bugs
def _bug(name: str) -> Callable:
    """The optimum one bug in the operator leads to, with a bracket around it."""

    def wrong(mdp, **options):
        P, R, gamma = mdp.dense()
        v = oracles.buggy_value(
            name, P, R, gamma, terminal=mdp.terminal, action_mask=mdp.action_mask
        )
        return replace(planning.solve(mdp), values=v, lower=v - 1e-6, upper=v + 1e-6)

    return wrong


def _unclipped(mdp, values):
    """MacQueen's bracket as for stochastic rows, whatever the rows are."""
    values = np.where(mdp.terminal, 0.0, values)
    out, policy = planning.bellman_optimality(mdp, values)
    e = (out - values)[~mdp.terminal]
    share = mdp.gamma / (1 - mdp.gamma)
    live = ~mdp.terminal
    lower = np.where(live, out + share * e.min(), 0.0)
    upper = np.where(live, out + share * e.max(), 0.0)
    return planning.Certificate(
        lower=lower, upper=upper, gap=float(np.ptp(e)), policy=policy, policy_loss_bound=0.0
    )


def _residual_only(mdp, values):
    """|v* - v| <= |f(v) - v|, the factor 1 / (1 - gamma) forgotten."""
    values = np.where(mdp.terminal, 0.0, values)
    out, policy = planning.bellman_optimality(mdp, values)
    width = float(np.abs(out - values).max())
    return planning.Certificate(
        lower=out - width, upper=out + width, gap=2 * width, policy=policy, policy_loss_bound=0.0
    )


def _first_only(mdp, values, *, tol=None):
    best = planning.optimal_actions(mdp, values, tol=tol)
    return best & (np.cumsum(best, axis=1) == 1)


def _exactly_equal(mdp, values, *, tol=None):
    return planning.optimal_actions(mdp, values, tol=1e-300)


def _loose(mdp, **options):
    """The lower end of the bracket at which a policy's stopping test is satisfied."""
    solution = planning.solve(mdp, method="value-iteration", tol=0.5)
    return replace(solution, values=solution.lower)


def _mean_backup(mdp, values, **options):
    mask = mdp.action_mask
    even = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    out = planning.bellman_operator(mdp, values, policy=even)
    return out, planning.bellman_optimality(mdp, values)[1]


def _in_place(mdp, values, **options):
    """Each state sees the new values of the states before it."""
    v = np.where(mdp.terminal, 0.0, values)
    for s in range(mdp.num_states):
        v[s] = planning.bellman_optimality(mdp, v)[0][s]
    return v, planning.bellman_optimality(mdp, values)[1]


def _silent(mdp, a, b):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return planning.affine_rewards(mdp, a, b)


def _sweep_once(mdp, gammas):
    still = np.tile(planning.solve(mdp).values, (len(gammas), 1))
    return replace(planning.sweep_gamma(mdp, gammas), values=still)


MUTANTS = (
    *(
        Mutant(name=name, replaces="solve", function=_bug(name), bug=bug)
        for name, bug in oracles.BUGS.items()
    ),
    Mutant(name="loose tolerance", replaces="solve", function=_loose, bug="values returned at a policy's stopping test"),
    Mutant(name="unclipped certificate", replaces="certify", function=_unclipped, bug="the bracket of stochastic rows where episodes end"),
    Mutant(name="residual for error", replaces="certify", function=_residual_only, bug="1 / (1 - gamma) forgotten"),
    Mutant(name="first tie only", replaces="optimal_actions", function=_first_only, bug="one optimal action reported where there are several"),
    Mutant(name="ties by equality", replaces="optimal_actions", function=_exactly_equal, bug="rounding decides what is tied"),
    Mutant(name="first tie for the proper one", replaces="greedy", function=lambda m, v, *, ties="all": planning.greedy(m, v, ties="first" if ties == "proper" else ties), bug="waits for ever at gamma 1"),
    Mutant(name="one tie for all", replaces="greedy", function=lambda m, v, *, ties="all": np.eye(m.num_actions)[np.maximum(planning.greedy(m, v, ties="first"), 0)] if ties == "all" else planning.greedy(m, v, ties=ties), bug="the other optimal actions lost"),
    Mutant(name="mean backup", replaces="bellman_optimality", function=_mean_backup, bug="expectation instead of max"),
    Mutant(name="in-place backup", replaces="bellman_optimality", function=_in_place, bug="Gauss-Seidel called Jacobi"),
    Mutant(name="last tie", replaces="bellman_optimality", function=lambda m, v, **o: (planning.bellman_optimality(m, v)[0], np.where(m.terminal, -1, 2)), bug="the greedy action of another state"),
    Mutant(name="shaping without gamma", replaces="shape_rewards", function=lambda m, p: planning.shape_rewards(m, p * m.gamma), bug="Phi(s') - Phi(s)"),
    Mutant(name="affine without b", replaces="affine_rewards", function=lambda m, a, b: planning.affine_rewards(m, a, 0.0), bug="the constant dropped"),
    Mutant(name="affine in silence", replaces="affine_rewards", function=_silent, bug="no word where episodes end"),
    Mutant(name="soft as hard", replaces="soft_optimality", function=lambda m, **o: planning.solve(m), bug="temperature ignored"),
    Mutant(name="soft without reference", replaces="soft_optimality", function=lambda m, *, tau, reference=None: planning.soft_optimality(m, tau=tau), bug="KL to the reference dropped"),
    Mutant(name="epsilon halved", replaces="epsilon_soft_optimality", function=lambda m, *, epsilon: planning.epsilon_soft_optimality(m, epsilon=epsilon / 2), bug="exploration counted on the other actions only"),
    Mutant(name="sweep at one gamma", replaces="sweep_gamma", function=_sweep_once, bug="the discount is not changed"),
    Mutant(name="breaks on the grid", replaces="sweep_reward", function=lambda m, mask, x: replace(s := planning.sweep_reward(m, mask, x), breaks=tuple(x[i] for i in np.flatnonzero(np.diff(s.regions)))), bug="the last value before the change taken for it"),
    Mutant(name="first break", replaces="blackwell_gamma", function=lambda m: planning.sweep_gamma(m, np.linspace(0, 0.9, 8)).parameters[4], bug="a grid point instead of the break"),
    Mutant(name="one step", replaces="fixed_point", function=lambda f, x, *, tol: f(x), bug="stops after the first change"),
)  # fmt: skip
