"""The oracles of planning judged by one another: fractions, linear algebra, programmes, trees, chance.

Numbers of the small models are eighths and quarters, so that fractions stay short and "exact" means
equal. Sampled comparisons use the exact standard error and |z| <= 4.5.
"""

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from dodona.checks.compare import each, holds, inside
from dodona.checks.oracle_kit_bugs import GAMMA, MUTANTS
from dodona.core.protocols import Check
from dodona.oracles import fixtures
from dodona.oracles import mdp as kit
from dodona.oracles.instance import Fixture, uniform

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    name: getattr(kit, name)
    for name in kit.__all__
    if callable(getattr(kit, name)) and not isinstance(getattr(kit, name), type)
}
__all__ = ["MUTANTS", "SUBJECTS", "run"]

WALK = 0.3  # chance of a step to the right in the ruin of a gambler
SLOW = ("gambler", "gambler, fair", "frozen lake 8x8", "cliff")  # left to the full run


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the kit; ``full`` draws more models and compares every published instance."""
    for seed in range(60 if full else 2):
        case = _model(seed)
        for compare in (
            _fractions,
            _optima,
            _series,
            _horizons,
            _moments,
            _soft,
            _wrong,
            _long_run,
        ):
            yield from each(case.name, compare(subjects, case))
    for compare in (_tiny_shares, _arrival, _data):
        yield from each("by hand", compare(subjects))
    for name in fixtures.FIXTURES:
        if full or name not in SLOW:
            yield from each(name, _published(subjects, fixtures.fixture(name)))


def _model(seed: int) -> Fixture:
    """Four states, two actions, numbers in eighths: a forbidden action, a tie, and an end in odd seeds."""
    rng = np.random.default_rng(seed)
    P = rng.multinomial(8, np.full(4, 0.25), size=(4, 2)) / 8
    R = rng.integers(-8, 8, size=(4, 2)) / 4
    P[1, 1], R[1, 1] = P[1, 0], R[1, 0]
    R[0, 1] = 3.0  # tempting, and forbidden
    mask = np.ones((4, 2), dtype=bool)
    mask[0, 1] = False
    ends = np.arange(4) == (3 if seed % 2 else 4)
    R[ends] = 0.0
    return Fixture(name=f"model {seed}", P=P, R=R, gamma=GAMMA, terminal=ends, action_mask=mask)


def _policy(case: Fixture) -> np.ndarray:
    """[S, A] a quarter and three quarters where both actions are feasible; in terminal states too."""
    return np.where(case.action_mask.all(axis=1)[:, None], [0.25, 0.75], case.action_mask)


def _floats(values) -> np.ndarray:
    return np.array([float(v) for v in values])


def _fractions(subjects, case: Fixture) -> Iterator[Any]:
    """Values put back into their own equations, in exact arithmetic; the bound of the dense solve."""
    share, ends = _policy(case), {"terminal": case.terminal}
    v = subjects["policy_value_rational"](case.P, case.R, GAMMA, share, **ends)
    q = _q(case, v)
    off = max(
        abs(v[s] - sum(Fraction(float(share[s, a])) * q[s][a] for a in range(2))) for s in range(4)
    )
    yield "policy in its equation", float(off), 0.0, 0.0, "substitution"
    dense, bound = subjects["policy_value"](case.P, case.R, GAMMA, share, **ends)
    yield inside("bound of the dense solve", dense - bound, dense + bound, v, source="fractions")
    yield "width of that bound", bound, 0.0, 1e-12, "float64"
    rows = [[Fraction(3), Fraction(1, 7)], [Fraction(-1), Fraction(2)]]
    x = subjects["solve_rational"](rows, [Fraction(1, 3), Fraction(5)])
    left = [sum(a * b for a, b in zip(row, x, strict=True)) for row in rows]
    yield (
        "elimination",
        float(max(abs(left[0] - Fraction(1, 3)), abs(left[1] - 5))),
        0.0,
        0.0,
        "substitution",
    )
    best, ties = subjects["optimal_rational"](
        case.P, case.R, GAMMA, action_mask=case.action_mask, **ends
    )
    q = _q(case, best)
    options = [[q[s][a] for a in range(2) if case.mask[s, a]] or [Fraction(0)] for s in range(4)]
    off = max(abs(best[s] - max(options[s])) for s in range(4))
    yield "optimum in its equation", float(off), 0.0, 0.0, "substitution"
    tight = [[bool(case.mask[s, a] and q[s][a] == best[s]) for a in range(2)] for s in range(4)]
    yield "all optimal actions", ties, tight, 0.0, "substitution"


def _q(case: Fixture, v) -> list[list[Fraction]]:
    """Action values in plain loops; 0 for everything a terminal state does."""
    return [
        [
            Fraction(0)
            if case.terminal[s]
            else Fraction(float(case.R[s, a]))
            + Fraction(GAMMA)
            * sum(Fraction(float(case.P[s, a, j])) * v[j] for j in range(4) if not case.terminal[j])
            for a in range(2)
        ]
        for s in range(4)
    ]


def _optima(subjects, case: Fixture) -> Iterator[Any]:
    doors = {"terminal": case.terminal, "action_mask": case.action_mask}
    exact, _ = subjects["optimal_rational"](case.P, case.R, GAMMA, **doors)
    truth, live = _floats(exact), ~case.terminal
    brute, policy = subjects["optimal_bruteforce"](case.P, case.R, GAMMA, **doors)
    yield "all policies", brute, truth, 1e-12, "fractions"
    own, _ = subjects["policy_value"](
        case.P, case.R, GAMMA, np.maximum(policy, 0), terminal=case.terminal
    )
    yield "one policy attains it", own, truth, 1e-12, "theorem 3.4"
    v, rho = subjects["optimal_lp"](case.P, case.R, GAMMA, **doors)
    yield "linear programme", v, truth, 1e-7, "fractions"
    into = 1.0 + GAMMA * np.einsum("sa,sat->t", rho, case.P)
    yield "flow of its dual", rho.sum(axis=1)[live], into[live], 1e-7, "balance"
    yield "worth of its dual", (rho * case.R).sum(), truth.sum(), 1e-6, "strong duality"
    for size in (-10.0, 1e-3, 1e3):
        guess = size * (1.0 + 1e-3 * np.random.default_rng(0).standard_normal(4))
        proof = subjects["certify"](case.P, case.R, GAMMA, guess, **doors)
        yield inside(
            f"certificate at {size:g}", proof.lower, proof.upper, exact, source="fractions"
        )
        value = subjects["policy_value_rational"](
            case.P, case.R, GAMMA, np.maximum(proof.policy, 0), terminal=case.terminal
        )
        yield inside(f"its policy at {size:g}", proof.lower, proof.upper, value, source="fractions")
    proof = subjects["certify"](case.P, case.R, GAMMA, truth, **doors)
    yield "certificate of the optimum", proof.upper, proof.lower, 1e-12, "float64"


def _series(subjects, case: Fixture) -> Iterator[Any]:
    share = _policy(case)
    exact = subjects["policy_value_rational"](case.P, case.R, GAMMA, share, terminal=case.terminal)
    for terms in (1, 10, 60):
        total, bound = subjects["neumann"](
            case.P, case.R, GAMMA, share, terms=terms, terminal=case.terminal
        )
        slack = bound + 1e-12 - np.abs(total - _floats(exact)).max()
        yield holds(f"{terms} terms", float(slack), tolerance=0.0, source="tail of the series")
    first, _ = subjects["neumann"](case.P, case.R, GAMMA, share, terms=1, terminal=case.terminal)
    yield "first term", first, (share * case.R).sum(axis=1), 1e-15, "r_pi"
    start = np.array([0.5, 0.25, 0.125, 0.125])
    time = subjects["occupancy"](case.P, GAMMA, share, start, terminal=case.terminal)
    yield "occupancy", time.sum(), 1.0, 1e-12, "a distribution"
    worth = float((time[:, None] * share * case.R).sum()) / (1 - GAMMA)
    yield "worth of the occupancy", worth, float(start @ _floats(exact)), 1e-11, "fractions"


def _horizons(subjects, case: Fixture) -> Iterator[Any]:
    doors = {"terminal": case.terminal, "action_mask": case.action_mask}
    v = subjects["finite_horizon"](case.P, case.R, GAMMA, 3, **doors)
    tree = [subjects["optimal_tree"](case.P, case.R, GAMMA, 3, s, **doors) for s in range(4)]
    yield "three decisions", v[0], tree, 1e-13, "the whole tree"
    best = np.where(case.mask, case.R, -np.inf).max(axis=1, where=case.mask, initial=-np.inf)
    last = np.where(case.terminal, 0.0, best)
    yield "the last decision", v[2], last, 0.0, "max r"
    worth = np.array([1.0, -2.0, 4.0, 0.0])
    v = subjects["finite_horizon"](case.P, case.R, GAMMA, 1, terminal_values=worth, **doors)
    q = np.where(case.mask, case.R + GAMMA * case.P @ worth, -np.inf)
    once = np.where(case.terminal, 0.0, q.max(axis=1, where=case.mask, initial=-np.inf))
    yield "worth of the end", v[0], once, 1e-14, "one backup"


def _moments(subjects, case: Fixture) -> Iterator[Any]:
    """Rewards that depend on s': every trajectory, then chance with its exact standard error."""
    share, ends = _policy(case), {"terminal": case.terminal}
    R3 = case.R[:, :, None] + np.arange(4) / 4
    moments = subjects["return_moments"](case.P, R3, GAMMA, share, horizon=4, **ends)
    mean, variance = np.zeros(4), np.zeros(4)
    for s in range(4):
        chances, returns = subjects["trajectory_tree"](case.P, R3, GAMMA, share, 4, s, **ends)
        mean[s] = chances @ returns
        variance[s] = chances @ (returns - mean[s]) ** 2
    yield "mean of four rewards", moments.mean, mean, 1e-13, "every trajectory"
    yield "their variance", moments.variance, variance, 1e-12, "every trajectory"
    whole = subjects["return_moments"](case.P, R3, GAMMA, share, **ends)
    long = subjects["return_moments"](case.P, R3, GAMMA, share, horizon=300, **ends)
    expected = (case.P * R3).sum(axis=2)
    exact = subjects["policy_value_rational"](case.P, expected, GAMMA, share, **ends)
    yield "mean return", whole.mean, _floats(exact), 1e-12, "fractions"
    yield "its variance", whole.variance, long.variance, 1e-11, "300 steps"
    returns = _simulated(case, share, R3, steps=12, num_samples=400)
    twelve = subjects["return_moments"](case.P, R3, GAMMA, share, horizon=12, **ends)
    error = twelve.standard_error(returns.shape[1])
    z = np.abs(returns.mean(axis=1) - twelve.mean) / np.maximum(error, 1e-300)
    yield "simulation", float(z[error > 0].max()), 0.0, 4.5, "z, exact standard error"


def _simulated(case: Fixture, share, R3, *, steps: int, num_samples: int) -> np.ndarray:
    """[S, N] returns of the first steps from every state."""
    rng = np.random.default_rng(0)
    joint = (share[:, :, None] * case.P).reshape(4, 8).cumsum(axis=1)
    state = np.repeat(np.arange(4), num_samples)
    total = np.zeros(len(state))
    for t in range(steps):
        u = rng.random(len(state))[:, None] * joint[state, -1:]
        a, after = np.divmod(np.minimum((u >= joint[state]).sum(axis=1), 7), 4)
        live = ~case.terminal[state]
        total += np.where(live, GAMMA**t * R3[state, a, after], 0.0)
        state = np.where(live, after, state)
    return total.reshape(4, num_samples)


def _soft(subjects, case: Fixture) -> Iterator[Any]:
    """The soft optimum is the value of its own Gibbs policy; the exploring one beats all its kind."""
    tau, epsilon = 0.75, 0.25
    doors = {"terminal": case.terminal, "action_mask": case.action_mask}
    live = ~case.terminal
    for reference in (None, _policy(case)):
        v, bound = subjects["soft_value"](case.P, case.R, GAMMA, tau, reference=reference, **doors)
        prior = case.mask * (1.0 if reference is None else reference)
        q = case.R + GAMMA * case.P @ np.where(live, v, 0.0)
        law = prior * np.exp(q / tau)
        law /= np.where(live, law.sum(axis=1), 1.0)[:, None]
        paid = np.where(
            law > 0, tau * np.log(np.where(law > 0, law, 1.0) / np.where(law > 0, prior, 1.0)), 0.0
        )
        own, _ = subjects["policy_value"](case.P, case.R - paid, GAMMA, law, terminal=case.terminal)
        kind = "entropy" if reference is None else "KL"
        yield f"{kind} optimum", v, own, 1e-11, "value of its Gibbs policy"
        yield f"{kind} bound", bound, 0.0, 1e-11, "float64"
    hard = _floats(subjects["optimal_rational"](case.P, case.R, GAMMA, **doors)[0])
    cold, _ = subjects["soft_value"](case.P, case.R, GAMMA, 1e-3, **doors)
    slack = min(
        float((cold - hard).min()), float((hard + 1e-3 * np.log(2) / (1 - GAMMA) - cold).min())
    )
    yield holds(
        "cold limit", slack, tolerance=1e-12, source="0 <= soft - hard <= tau log A / (1 - gamma)"
    )
    v, bound = subjects["epsilon_soft_value"](case.P, case.R, GAMMA, epsilon, **doors)
    even = uniform(case)
    options = [np.flatnonzero(row).tolist() or [0] for row in case.mask]
    best = np.full(4, -np.inf)
    for choice in product(*options):
        mixed = (1 - epsilon) * np.eye(2)[list(choice)] * live[:, None] + epsilon * even
        best = np.maximum(
            best, subjects["policy_value"](case.P, case.R, GAMMA, mixed, terminal=case.terminal)[0]
        )
    yield "exploring optimum", v, best, 1e-11, "all exploring policies"
    yield "its bound", bound, 0.0, 1e-11, "float64"


def _long_run(subjects, case: Fixture) -> Iterator[Any]:
    if case.terminal.any():
        return
    share = _policy(case)
    P_pi = (share[:, :, None] * case.P).sum(axis=1)
    rows = [[Fraction(float(P_pi[j, i])) - (i == j) for j in range(4)] for i in range(3)]
    exact = _floats(subjects["solve_rational"]([*rows, [1] * 4], [0, 0, 0, 1]))
    for name in ("stationary", "null_vector"):
        yield name, subjects[name](case.P, share), exact, 1e-14, "fractions"
    gain, bias = subjects["average_reward"](case.P, case.R, share)
    r = (share * case.R).sum(axis=1)
    yield "gain", gain, float(exact @ r), 1e-13, "long-run shares"
    yield "bias in its equation", gain + bias, r + P_pi @ bias, 1e-13, "substitution"
    yield "bias on average", float(exact @ bias), 0.0, 1e-13, "d . h = 0"
    gains = [
        subjects["average_reward"](case.P, case.R, np.array(choice))[0]
        for choice in product(*[np.flatnonzero(row).tolist() for row in case.mask])
    ]
    best = subjects["average_reward_lp"](case.P, case.R, action_mask=case.action_mask)
    yield "best gain", best, max(gains), 1e-8, "all policies"


def _tiny_shares(subjects) -> Iterator[Any]:
    """A walk that drifts left: shares fall by 2^-7 a step, and each keeps its digits under GTH only."""
    n, up = 12, 2.0**-8
    P = np.zeros((n, 1, n))
    for s in range(n):
        P[s, 0, min(s + 1, n - 1)] += up
        P[s, 0, max(s - 1, 0)] += 0.5
        P[s, 0, s] += 0.5 - up
    exact = 2.0 ** (-7.0 * np.arange(n))
    exact /= exact.sum()
    got = subjects["stationary"](P, np.zeros(n, dtype=int))
    yield "digits of tiny shares", got / exact, np.ones(n), 1e-13, "closed form"
    got = subjects["null_vector"](P, np.zeros(n, dtype=int))
    yield "sizes of tiny shares", got, exact, 1e-14, "closed form"


def _arrival(subjects) -> Iterator[Any]:
    """The ruin of a gambler in closed form, and a policy that only may end."""
    n = 8
    P = np.zeros((n, 2, n))
    for s in range(n):
        P[s, 0, min(s + 1, n - 1)] += WALK
        P[s, 0, max(s - 1, 0)] += 1 - WALK
        P[s, 1, s] = 1.0  # the second action stays for ever
    ends = np.isin(np.arange(n), [0, n - 1])
    walk, top = np.zeros(n, dtype=int), np.arange(n) == n - 1
    odds = (1 - WALK) / WALK
    ruin = (1 - odds ** np.arange(n)) / (1 - odds ** (n - 1))
    got = subjects["hitting_probability"](P, walk, top, terminal=ends)
    yield "the gambler's ruin", got, ruin, 1e-14, "closed form"
    got = subjects["hitting_probability"](P, walk, top | ends, terminal=ends)
    yield "it ends", got, np.ones(n), 1e-13, "the walk ends"
    yield (
        "proper",
        subjects["proper_policy"](P, walk, terminal=ends),
        np.ones(n),
        0,
        "the walk ends",
    )
    waits = walk.copy()
    waits[4] = 1
    got = subjects["proper_policy"](P, waits, terminal=ends)
    yield "a trap in the middle", got, ends, 0, "every inner state may meet it"
    got = subjects["hitting_probability"](P, waits, top, terminal=ends)
    yield "beyond the trap", got[:5], np.zeros(5), 0, "no path"


def _data(subjects) -> Iterator[Any]:
    """A data set with every transition as often as its probability says gives the model back."""
    case = _model(1)
    s, a, after = np.nonzero(case.P * case.mask[:, :, None])
    times = (8 * case.P[s, a, after]).astype(int)
    s, a, after = (np.repeat(x, times) for x in (s, a, after))
    noise = np.zeros(len(s))
    for pair in {(int(i), int(j)) for i, j in zip(s, a, strict=True)}:
        members = np.flatnonzero((s == pair[0]) & (a == pair[1]))
        noise[members] = np.arange(len(members)) - (len(members) - 1) / 2  # mean 0
    order = np.random.default_rng(0).permutation(len(s))
    ended = case.terminal[after]
    got = subjects["empirical_mdp"](
        s[order], a[order], (case.R[s, a] + noise)[order], after[order], ended[order],
        num_states=4, num_actions=2,
    )  # fmt: skip
    P = np.zeros((5, 2, 5))
    P[:4, :, :4] = np.where(case.mask[:, :, None] & ~case.terminal, case.P, 0.0)
    P[:4, :, 4] = (case.P * case.mask[:, :, None])[:, :, case.terminal].sum(axis=2)
    R = np.zeros((5, 2))
    R[:4] = np.where(case.mask, case.R, 0.0)
    yield "frequencies", got.P, P, 0, "the model behind the data"
    yield "mean rewards", got.R, R, 1e-15, "the model behind the data"
    yield "what was tried", got.action_mask[:4], case.mask, 0, "the model behind the data"
    yield "what ends", got.terminal, [*case.terminal, True], 0, "the model behind the data"


def _wrong(subjects, case: Fixture) -> Iterator[Any]:
    """Where a bug has a closed form of its own, its fixed point is that."""
    doors = {"terminal": case.terminal, "action_mask": case.action_mask}

    def optimum(P=case.P, R=case.R, gamma=GAMMA, **doors) -> np.ndarray:
        return _floats(subjects["optimal_rational"](P, R, gamma, **doors)[0])

    for bug, expected in (
        ("gamma squared", optimum(gamma=GAMMA**2, **doors)),
        ("gamma on reward", GAMMA * optimum(**doors)),
        ("minimum", -optimum(R=-case.R, **doors)),
        ("infeasible", optimum(terminal=case.terminal)),
        ("swapped", _floats(subjects["policy_value_rational"](case.P, case.R, GAMMA, uniform(case), terminal=case.terminal))),
    ):  # fmt: skip
        got = subjects["buggy_value"](bug, case.P, case.R, GAMMA, **doors)
        yield bug, got, expected, 1e-10, "fractions"


def _published(subjects, case: Fixture) -> Iterator[Any]:
    """Every fact of an instance, by the oracle that can."""
    doors = {"terminal": case.terminal, "action_mask": case.action_mask}
    for name, fact in case.facts.items():
        extra = 0.0
        if fact.of == "v":
            got, _ = subjects["policy_value"](
                case.P, case.R, case.gamma, fact.policy, terminal=case.terminal
            )
        elif fact.of == "v*" and case.gamma < 1:
            (got, _), extra = subjects["optimal_lp"](case.P, case.R, case.gamma, **doors), 1e-7
        elif fact.of == "v*":
            got, extra = subjects["finite_horizon"](case.P, case.R, 1.0, 1500, **doors)[0], 1e-8
        elif fact.of == "v_H":
            got = subjects["finite_horizon"](case.P, case.R, 1.0, fact.horizon, **doors)[0]
        elif fact.of == "gain":
            got, extra = (
                subjects["average_reward_lp"](case.P, case.R, action_mask=case.action_mask),
                1e-7,
            )
        elif fact.of == "soft":
            got, _ = subjects["soft_value"](
                case.P, case.R, case.gamma, fact.tau, reference=uniform(case), **doors
            )
        else:  # "ties" needs the exact set, which is beyond the limit of fractions here
            continue
        got = got if fact.states is None else got[list(fact.states)]
        yield name, got, fact.value, fact.error + extra, fact.source
