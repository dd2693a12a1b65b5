"""Value functions, linear and DQN, against projections, plain loops, exact systems and published divergence.

Sampled comparisons draw independent transitions, for which the expected weights are known exactly, and
use |z| <= 4.5.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dodona.checks import dqn, dqn_bugs, value_function_bugs
from dodona.checks.compare import as_mdp, each, holds
from dodona.core.protocols import Check
from dodona.mdp import MDP, worlds
from dodona.oracles import fixtures
from dodona.oracles import linear_replay as loops
from dodona.oracles import mdp as kit
from dodona.oracles import projection as exact
from dodona.rl import features, linear
from dodona.rl.dqn import dqn_trainer
from dodona.rl.q_networks import QNetwork
from dodona.rl.replay import ReplayBuffer

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    **{n: getattr(features, n) for n in ("Aggregation", "Polynomial", "Fourier", "TileCoding", "RBF")},
    **{
        n: getattr(linear, n)
        for n in (
            "on_policy_distribution", "linear_system", "td_fixed_point", "best_projection",
            "bellman_error_minimiser", "value_objectives", "max_step_size", "gradient_td_system",
            "emphatic_weights", "TDLinear", "GradientMC", "GradientTD", "LSTD", "LSTDQ", "LSPI",
            "SarsaLinear", "QLearningLinear", "FittedQ", "sample_transitions",
        )
    },
    "ReplayBuffer": ReplayBuffer,
    "QNetwork": QNetwork,
    "dqn_trainer": dqn_trainer,
}  # fmt: skip
MUTANTS = (*value_function_bugs.MUTANTS, *dqn_bugs.MUTANTS)
__all__ = ["MUTANTS", "SUBJECTS", "run"]

# map -> (best projection, TD fixed point, Bellman-error minimiser): exact RMSE to v_pi on the 5x5 grid
TABLE = {
    ("Polynomial", 1): (0.221480, 0.222774, 0.242532),
    ("Polynomial", 2): (0.191923, 0.193511, 0.216932),
    ("Polynomial", 3): (0.124586, 0.125149, 0.129757),
    ("Fourier", 1): (0.206333, 0.206704, 0.213188),
    ("Fourier", 2): (0.135995, 0.137421, 0.145885),
    ("Fourier", 3): (0.092516, 0.097347, 0.145595),
    ("Fourier", 4): (0.0, 0.0, 0.0),
}
BAIRD_EIGENVALUES = (-0.23925046, -0.02217811, 0.0, 4 / 7, 4 / 7, 4 / 7, 4 / 7, 4 / 7)
RUNS, STEPS = 200, 40  # of the sampled mean path


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` draws more random models."""
    # cheap ones first: most bugs are caught there, and every bug runs until it is
    yield from each("definition", _maps(subjects))
    yield from each("divergence", _divergence(subjects))
    for seed in range(20 if full else 1):
        yield from each(f"replay {seed}", _replay(subjects, seed))
        yield from each(f"data {seed}", _data(subjects, seed))
        yield from each(f"buffer {seed}", dqn.replay_checks(subjects, seed))
        yield from each(f"network {seed}", dqn.network_checks(subjects, seed))
    for seed in range(60 if full else 3):
        yield from each(f"model {seed}", _model(subjects, seed))
    for seed in range(20 if full else 1):
        yield from each(f"table {seed}", dqn.dqn_checks(subjects, seed))
    yield from each("book 5x5", _table(subjects))
    for seed in range(20 if full else 1):
        yield from each(f"empirical model {seed}", dqn.identity_check(subjects, seed))
    yield from each("sampled", _sampled(subjects, runs=2000 if full else RUNS))


def baird() -> tuple[MDP, np.ndarray, np.ndarray]:
    """(model, features [7, 8], target policy "solid") of Baird's star."""
    phi = np.zeros((7, 8))
    phi[np.arange(6), np.arange(6)] = 2.0
    phi[:6, 7] = phi[6, 6] = 1.0
    phi[6, 7] = 2.0
    return worlds.baird_star(), phi, np.ones(7, dtype=int)


def _maps(subjects) -> Iterator[tuple]:
    x = np.random.default_rng(0).uniform(size=(6, 2))
    wide = 2 * x - 1
    monomials = [[1, a, b, a * a, a * b, b * b] for a, b in wide]
    yield "monomials", subjects["Polynomial"](2).transform(wide), monomials, 1e-13, "definition"
    waves = [[np.cos(np.pi * (i * a + j * b)) for i in range(3) for j in range(3)] for a, b in x]
    fourier = subjects["Fourier"](2)
    yield "cosines", fourier.transform(x), waves, 1e-12, "definition"
    lengths = [1 / max(np.hypot(i, j), 1e-300) if i or j else 1 for i in range(3) for j in range(3)]
    yield "steps by frequency", fourier.step_scale(), lengths, 1e-14, "Konidaris et al. 2011"
    tiles = subjects["TileCoding"](3, 8, [(0.0, 1.0), (0.0, 1.0)])
    many = np.random.default_rng(1).uniform(size=(40, 2))
    cells = loops.tiles(many, 3, 8, [(0.0, 1.0), (0.0, 1.0)])
    shared = [[len(a & b) for b in cells] for a in cells]
    rows = tiles.transform(many)
    yield "tiles in common", rows @ rows.T, shared, 0.0, "oracles.linear_replay.tiles"
    yield "steps by tilings", tiles.step_scale().sum(), tiles.num_features / 8, 1e-9, "definition"
    bells = np.exp(-((x[:, None] - x) ** 2).sum(axis=2) / (2 * 0.3**2))
    yield "bells", subjects["RBF"](x, 0.3).transform(x), bells, 1e-13, "definition"
    even = subjects["RBF"](x, 0.3, normalized=True).transform(x)
    yield "bells add up to one", even, bells / bells.sum(axis=1, keepdims=True), 1e-13, "definition"
    groups = np.array([0, 2, 2, 1])
    rows = subjects["Aggregation"](groups).transform(np.arange(4))
    yield "groups", rows, np.eye(3)[groups], 0.0, "definition"


def _model(subjects, seed: int) -> Iterator[Any]:
    """One random model, its features and its policy; odd seeds have episodes."""
    rng = np.random.default_rng(seed)
    case = fixtures.random_mdp(rng, 6, 2, terminal=seed % 2)
    start = rng.dirichlet(np.ones(6)) * ~case.terminal
    doors = {"terminal": case.terminal, "start": start / start.sum()}
    model = as_mdp(case).replace(start=doors["start"])
    policy, phi = rng.dirichlet(np.ones(2), size=6), rng.standard_normal((6, 3))
    arrays = (case.P, case.R, case.gamma, policy, phi)
    share = exact.on_policy_shares(case.P, policy, **doors)
    got = subjects["on_policy_distribution"](model, policy)
    yield "share of time", got, share, 1e-12, "GTH on the chain with restarts"
    truth, least = exact.td_fixed_point(*arrays, **doors), exact.minimisers(*arrays, **doors)
    system = subjects["linear_system"](model, policy, phi)
    yield "A", system.A, truth.A, 1e-12, "sum over transitions"
    yield "b", system.b, truth.b, 1e-12, "sum over transitions"
    fixed = subjects["td_fixed_point"](model, policy, phi)
    yield "TD fixed point", fixed, truth.w, 1e-9, "orthonormal basis"
    off = rng.dirichlet(np.ones(6)) * ~case.terminal
    elsewhere = exact.td_fixed_point(*arrays, d=off, terminal=case.terminal).w
    yield "TD fixed point, other weights", subjects["td_fixed_point"](model, policy, phi, d=off), elsewhere, 1e-7 * (1 + np.abs(elsewhere).max()), "orthonormal basis"  # fmt: skip
    best = subjects["best_projection"](model, policy, phi)
    yield "best projection", best, least.value_error, 1e-10, "weighted least squares"
    lowest = subjects["bellman_error_minimiser"](model, policy, phi)
    yield "Bellman-error minimiser", lowest, least.bellman_error, 1e-10, "weighted least squares"
    w = rng.standard_normal(3)
    for name, weights in (("any w", w), ("w*", truth.w)):
        found = subjects["value_objectives"](model, policy, phi, weights)
        got = (found.value_error, found.bellman_error, found.projected_error)
        expected = exact.value_objectives(*arrays, weights, **doors)
        yield f"J_E, J_BE, J_PBE of {name}", got, expected, 1e-10, "definition"
    moves = exact.stability(truth.A, 0.1)
    yield "step limit", subjects["max_step_size"](truth.A), moves.limit, 1e-9, "eigenvalues"
    lowest = np.linalg.eigvalsh(system.A + system.A.T)[0] / 2
    floor = (1 - case.gamma) * np.linalg.eigvalsh(system.gram)[0]
    yield holds("A is positive definite", lowest - floor, tolerance=1e-12, source="Tsitsiklis & Van Roy 1997")  # fmt: skip
    errors = [exact.value_objectives(*arrays, w, **doors).J_E for w in (fixed, best)]
    slack = errors[1] / (1 - case.gamma**2) - errors[0]
    yield holds("error bound", slack, tolerance=1e-12, source="Tsitsiklis & Van Roy 1997, th. 1")
    series = sum(np.linalg.matrix_power(system.matrix.toarray().T, k) @ share for k in range(400))
    yield (
        "emphatic weights",
        subjects["emphatic_weights"](model, policy, share),
        series,
        1e-9,
        "series",
    )
    for kind in ("gtd2", "tdc"):
        G, g = subjects["gradient_td_system"](system, kind=kind, beta_over_alpha=2.0)
        rest = np.concatenate([truth.w, np.zeros(3)])
        yield f"{kind} rests at w*", G @ rest, g, 1e-9, "fixed point"


def _divergence(subjects) -> Iterator[Any]:
    model, phi, solid = baird()
    system = subjects["linear_system"](model, solid, phi, d=np.full(7, 1 / 7))
    moves = exact.stability(system.A, 0.01)
    yield (
        "Baird: eigenvalues",
        np.sort(moves.eigenvalues.real),
        BAIRD_EIGENVALUES,
        1e-7,
        "card, numpy",
    )
    yield (
        "Baird: spectral radius at step .01",
        moves.radius,
        1.0023925046,
        1e-9,
        "1 + .01 x .2392505",
    )
    yield "Baird: no step is stable", subjects["max_step_size"](system.A), 0.0, 0.0, "eigenvalues"
    for kind in ("gtd2", "tdc"):
        G, _ = subjects["gradient_td_system"](system, kind=kind, beta_over_alpha=1.0)
        real = np.linalg.eigvals(G).real.min()
        yield holds(f"Baird: {kind} is stable", real, tolerance=1e-9, source="Sutton et al. 2009")
        values = exact.mean_dynamics(G, np.zeros(16), np.arange(1.0, 17.0), alpha=0.05, num_steps=10**8)  # fmt: skip
        # its slowest mode has eigenvalue 2.4e-5
        yield f"Baird: {kind} ends at v = 0", phi @ values[:8], np.zeros(7), 1e-6, "exact power"
    f = subjects["emphatic_weights"](model, solid, np.full(7, 1 / 7))
    emphatic = subjects["linear_system"](model, solid, phi, d=f)
    real = np.linalg.eigvals(emphatic.A).real.min()
    yield holds("Baird: emphatic TD is stable", real, tolerance=1e-9, source="arXiv:1503.04269")
    column = np.array([[1.0], [2.0]])
    for gamma in (0.4, 0.6, 0.9):
        A = subjects["linear_system"](
            worlds.doubling_pair(gamma=gamma), np.zeros(2, int), column, d=np.array([1.0, 0.0])
        ).A
        yield (
            f"w to 2w, gamma {gamma}",
            1 - 0.1 * A[0, 0],
            1 + 0.1 * (2 * gamma - 1),
            1e-14,
            "S&B 11.2",
        )
    for epsilon in (0.0, 0.4):
        edge = 5 / (6 - 4 * epsilon)
        for gamma, sign in ((edge - 0.01, 1.0), (edge + 0.01, -1.0)):
            if gamma <= 1:
                two = worlds.tsitsiklis_van_roy(epsilon=epsilon, gamma=gamma)
                A = subjects["linear_system"](
                    two,
                    np.array([0, 0, -1]),
                    np.vstack([column, [[0.0]]]),
                    d=np.array([1.0, 1.0, 0.0]),
                ).A
                yield f"Tsitsiklis-Van Roy {epsilon}, {gamma:.3f}", np.sign(A[0, 0]), sign, 0.0, "S&B ex. 11.1"  # fmt: skip


def _replay(subjects, seed: int) -> Iterator[tuple]:
    """Two episodes of random features, the first cut by a time limit, against plain loops."""
    rng = np.random.default_rng(seed)
    num, m = 14, 3
    table = features.Table(rng.standard_normal((7, m)), step_scale=np.array([1.0, 0.5, 2.0]))
    s, s2 = rng.integers(0, 7, num), rng.integers(0, 7, num)
    r, terminated, truncated = rng.standard_normal(num), np.zeros(num, bool), np.zeros(num, bool)
    truncated[5], terminated[-1] = True, True
    gamma, alpha = 0.9, 0.2
    rows = loops.Rows(
        table.table[s], table.table[s2], r, np.where(terminated, 0.0, gamma), terminated | truncated
    )
    given = (s, None, r, s2, terminated, truncated)
    scale, ratios = table.step_scale(), rng.uniform(0.2, 2.0, num)
    for decay in (0.0, 0.7):
        learner = subjects["TDLinear"](table, gamma=gamma, alpha=alpha, gae_lambda=decay)
        learner.update(*given, ratios=ratios)
        expected = loops.td_lambda(rows, alpha=alpha, gae_lambda=decay, scale=scale, ratios=ratios)
        yield f"TD({decay})", learner.weights, expected, 1e-12, "oracles.linear_replay"
    yield from _online(subjects, table, scale)
    plain = features.Table(table.table)
    for kind in ("gtd2", "tdc", "residual", "emphatic"):
        learner = subjects["GradientTD"](plain, gamma=gamma, alpha=0.1, beta=0.3, kind=kind)
        learner.update(*given, ratios=ratios)
        expected = loops.gradient_td(rows, kind, alpha=0.1, beta=0.3, ratios=ratios)
        yield kind, learner.weights, expected, 1e-12, "oracles.linear_replay"
    mc = subjects["GradientMC"](plain, gamma=gamma, alpha=0.1)
    last = loops.Rows(*(c[6:] for c in rows))
    mc.update(*(None if c is None else c[6:] for c in given))
    yield (
        "Monte Carlo",
        mc.weights,
        loops.monte_carlo(last, alpha=0.1),
        1e-12,
        "oracles.linear_replay",
    )
    for recursive in (False, True):
        for decay in (0.0, 0.6):
            lstd = subjects["LSTD"](
                plain, gamma=gamma, ridge=0.1, recursive=recursive, gae_lambda=decay
            )
            lstd.update(*given)
            expected = loops.lstd(rows, ridge=0.1, gae_lambda=decay)
            kind = "recursive" if recursive else "batch"
            yield f"LSTD({decay}), {kind}", lstd.weights, expected, 1e-9, "one dense solve"
    actions, following = rng.integers(0, 2, num), rng.integers(0, 2, num)
    common = {"num_actions": 2, "alpha": alpha, "scale": scale}
    for rule, learner in (
        ("sarsa", subjects["SarsaLinear"](table, 2, gamma=gamma, alpha=alpha)),
        ("expected", subjects["SarsaLinear"](table, 2, gamma=gamma, alpha=alpha, expected=True)),
        ("q", subjects["QLearningLinear"](table, 2, gamma=gamma, alpha=alpha)),
    ):
        learner.update(s, actions, r, s2, terminated, truncated, following, epsilon=0.3)
        expected = loops.control(rows, actions, following, rule=rule, epsilon=0.3, **common)
        yield rule, learner.weights, expected, 1e-12, "oracles.linear_replay"


def _online(subjects, table, scale) -> Iterator[tuple]:
    """One episode whose states follow on each other, which is what online returns are about."""
    path = np.array([0, 3, 1, 3, 6, 2])
    ended = np.arange(5) == 4
    r = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    learner = subjects["TDLinear"](table, gamma=0.9, alpha=0.1, gae_lambda=0.7, trace="online")
    learner.update(path[:-1], None, r, path[1:], ended, ~ended & False)
    rows = loops.Rows(
        table.table[path[:-1]], table.table[path[1:]], r, np.where(ended, 0.0, 0.9), ended
    )
    expected = loops.online_lambda_return(rows, alpha=0.1, gae_lambda=0.7, scale=scale)
    yield "true online TD(0.7)", learner.weights, expected, 1e-12, "online lambda-returns"


def _data(subjects, seed: int) -> Iterator[tuple]:
    """Every transition of a model once, weighted by its exact probability: data without noise."""
    rng = np.random.default_rng(seed)
    case = fixtures.random_mdp(rng, 4, 2)
    policy = rng.dirichlet(np.ones(2), size=4)
    s, a, s2 = np.nonzero(case.P)
    d = exact.on_policy_shares(case.P, policy)
    none = np.zeros(len(s), bool)
    given = (s, a, case.R[s, a], s2, none)
    chance = d[s] * policy[s, a] * case.P[s, a, s2]
    phi = rng.standard_normal((4, 2))
    lstd = subjects["LSTD"](features.Table(phi), gamma=case.gamma, ridge=0.0, recursive=False)
    lstd.update(*given, none, weights=chance)
    truth = exact.td_fixed_point(case.P, case.R, case.gamma, policy, phi)
    yield "LSTD on exact weights", lstd.weights, truth.w, 1e-10, "oracles.projection"
    every = features.OneHot(4)
    chance = case.P[s, a, s2]
    v, _ = kit.policy_value(case.P, case.R, case.gamma, policy)
    q = case.R + case.gamma * case.P @ v
    lstdq = subjects["LSTDQ"](every, 2, gamma=case.gamma, ridge=0.0)
    lstdq.fit(given, policy[s2], weights=chance)
    yield "LSTDQ", lstdq.q(np.arange(4)), q, 1e-9, "dense solve"
    optimum, _ = kit.optimal_bruteforce(case.P, case.R, case.gamma)
    best = case.R + case.gamma * case.P @ optimum
    lspi = subjects["LSPI"](every, 2, gamma=case.gamma, ridge=0.0)
    lspi.learn(given, weights=chance)
    yield "LSPI", lspi.q(np.arange(4)), best, 1e-9, "every policy"
    # fitted Q takes no weights, so every pair has one successor here
    counted = fixtures.random_mdp(np.random.default_rng(seed + 1), 4, 2, branching=1)
    s, a, s2 = np.nonzero(counted.P)
    fitted = subjects["FittedQ"](lambda: linear.LeastSquares(every), 2, gamma=0.9)
    fitted.learn((s, a, counted.R[s, a], s2, np.zeros(len(s), bool)), tol=1e-9)
    optimum, _ = kit.optimal_bruteforce(counted.P, counted.R, counted.gamma)
    best = counted.R + 0.9 * counted.P @ optimum
    yield "fitted Q", fitted.q(np.arange(4)), best, 1e-7, "every policy"


def _table(subjects) -> Iterator[tuple]:
    grid, policy = worlds.book_grid(), np.full((25, 5), 0.2)
    share = subjects["on_policy_distribution"](grid, policy)
    yield "share of time is even", share, np.full(25, 1 / 25), 1e-13, "doubly stochastic"
    for (kind, size), levels in TABLE.items():
        phi = subjects[kind](size).matrix(grid)
        for name, level in zip(("best_projection", "td_fixed_point", "bellman_error_minimiser"), levels, strict=True):  # fmt: skip
            w = subjects[name](grid, policy, phi)
            got = subjects["value_objectives"](grid, policy, phi, w).value_error ** 0.5
            yield f"RMSE of {name}, {kind} {size}", got, level, 6e-7, "card, independent solve"


def _sampled(subjects, runs: int) -> Iterator[tuple]:
    """Episodes of one step from even starts: transitions are independent, the mean path is exact."""
    grid, policy = worlds.book_grid(), np.full((25, 5), 0.2)
    phi = features.Polynomial(1)
    learner = subjects["TDLinear"](phi, gamma=0.9, alpha=0.1)
    first = np.array([2.0, -1.0, 1.0])
    history = learner.learn(
        grid, policy=policy, num_steps=STEPS, num_runs=runs, seed=5, max_episode_steps=1, start_weights=first,
        num_records=STEPS
    )  # fmt: skip
    case = fixtures.fixture("book 5x5")
    system = exact.td_fixed_point(case.P, case.R, 0.9, policy, phi.matrix(grid))
    for steps in (1, STEPS):
        mean = exact.mean_dynamics(system.A, system.b, first, alpha=0.1, num_steps=steps)
        w = history.weights[:, steps]
        z = (w.mean(axis=0) - mean) / (w.std(axis=0, ddof=1) / np.sqrt(runs))
        yield f"TD mean after {steps} steps, z", z, np.zeros(3), 4.5, "(I - alpha A)^t"
    rows = subjects["sample_transitions"](grid, 20_000, seed=2, max_episode_steps=1)
    counts = np.bincount(rows.states * 5 + rows.actions, minlength=125)
    z = (counts - 160) / np.sqrt(160 * 124 / 125)
    yield "pairs are drawn evenly, z", z, np.zeros(125), 4.5, "binomial"
    wanted = case.P[rows.states, rows.actions].argmax(axis=1)
    yield "successors", rows.next_states, wanted, 0.0, "the grid"
    yield "rewards", rows.rewards, case.R[rows.states, rows.actions], 0.0, "the grid"
    yield "cut after one step", rows.truncated, np.ones(20_000), 0.0, "definition"
