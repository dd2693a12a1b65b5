"""Tabular learners against plain loops, exact learning curves and the equations that they solve.

Recorded transitions first: there every rule must agree with a textbook loop, one step to the last bit.
Then thousands of runs from a model: means on the exact curve, within 4.5 exact standard errors; and what
the learners converge to, with the spread of the runs themselves. Seeds are fixed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dodona import objectives, rl
from dodona.checks.compare import as_mdp, each, holds
from dodona.checks.td_bugs import MUTANTS
from dodona.core.protocols import Check
from dodona.core.schedules import inverse_visits
from dodona.mdp import worlds
from dodona.oracles import fixtures, learning, learning_differential, learning_from_memory
from dodona.oracles import learning_off_policy as off_policy
from dodona.oracles import mdp as exact
from dodona.oracles import td as curves

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    **{
        name: getattr(objectives, name)
        for name in (
            "continuation", "td_target", "sarsa_target", "expected_sarsa_target", "q_learning_target",
            "double_q_target",
        )
    },
    **{
        name: getattr(rl, name)
        for name in (
            "TD0", "NStepTD", "TDLambda", "MonteCarlo", "Sarsa", "ExpectedSarsa", "NStepSarsa",
            "NStepExpectedSarsa", "SarsaLambda", "QLearning", "DoubleQLearning", "WatkinsQLambda",
            "SpeedyQLearning", "OffPolicyNStep", "QSigma", "TreeBackup", "Retrace", "ReplayQLearning", "DynaQ",
            "PrioritizedDyna", "DifferentialSarsa", "DifferentialQLearning", "RLearning", "BatchTD", "BatchMC",
        )
    },
}  # fmt: skip
__all__ = ["MUTANTS", "SUBJECTS", "run"]
Z = 4.5  # standard errors, one level for every sampled check
STATES, ACTIONS = 4, 3  # of recorded transitions
GAMMA, ALPHA, EPSILON = 0.9, 0.3, 0.2
STEP = {"gamma": GAMMA, "alpha": ALPHA}
LOOPS = {
    "TD0": ("td", {}), "Sarsa": ("sarsa", {}), "ExpectedSarsa": ("expected", {}), "QLearning": ("max", {}),
    "NStepTD": ("td", {"num_steps": 3}), "NStepSarsa": ("sarsa", {"num_steps": 2}),
    "NStepExpectedSarsa": ("expected", {"num_steps": 3}), "MonteCarlo": ("monte carlo", {}),
}  # fmt: skip
"""Learner -> (kind of oracles.learning.replay, its options)."""
WITH_LAMBDA_0 = {"SarsaLambda": "sarsa", "WatkinsQLambda": "max"}
CORRECTED = (
    ("OffPolicyNStep", "per-decision", {}), ("OffPolicyNStep", "ordinary", {"weighting": "ordinary"}),
    ("OffPolicyNStep", "weighted", {"weighting": "weighted"}), ("QSigma", "sigma", {"sigma": 0.6}),
    ("QSigma", "mixed", {"sigma": 0.6, "control_variates": False}), ("TreeBackup", "sigma", {}),
)  # fmt: skip
"""Learner, kind of oracles.learning_off_policy.replay_off_policy, options."""
REMEMBERING = {
    "ReplayQLearning": ("replay", {"num_replays": 4, "capacity": 25}), "DynaQ": ("dyna", {"num_plans": 4}),
    "PrioritizedDyna": ("prioritized", {"num_plans": 4, "least": 0.05}),
}  # fmt: skip
PER_STEP = {"DifferentialSarsa": "sarsa", "DifferentialQLearning": "q", "RLearning": "r"}
AT_REST = (("BatchTD", "td", {}), ("BatchMC", "monte carlo", {}), ("BatchMC", "first visits", {"visits": "first"}))  # fmt: skip


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` takes ten times as many runs and records."""
    many = 10 if full else 1
    yield from each("by definition", _targets(subjects))
    for seed in range(2 * many):
        yield from each(f"record {seed}", _recorded(subjects, _transitions(seed)))
        yield from each(f"record {seed}", _corrected(subjects, _transitions(seed, 40), seed))
        yield from each(f"record {seed}", _remembered(subjects, _transitions(seed, 60)))
    yield from each("by hand", _by_hand(subjects))
    for seed in range(2 * many):
        yield from each(f"episode {seed}", _episodes(subjects, seed))
    yield from _curves(subjects, 2000 * many)
    yield from _fixed_points(subjects, 60 * many)


def _targets(subjects) -> Iterator[Any]:
    rng = np.random.default_rng(0)
    terminated = rng.random(8) < 0.4
    c = subjects["continuation"](terminated, GAMMA)
    yield "continuation", c, [0.0 if end else GAMMA for end in terminated], 0.0, "definition"
    c = np.where(terminated, 0.0, GAMMA)
    r, v, q, q2 = (
        rng.normal(size=8), rng.normal(size=8), rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    )  # fmt: skip
    a, p, mask = rng.integers(0, 3, 8), rng.dirichlet(np.ones(3), 8), rng.random((8, 3)) < 0.7
    mask[:, 1] = True
    v[terminated], q[terminated] = np.nan, np.inf  # what follows an end may be anything
    definition = learning.targets_by_definition
    source = "oracles.learning"
    got = subjects["td_target"](r, c, v)
    yield "td_target", got, definition("td", r, c, next_values=v), 1e-14, source
    got = subjects["sarsa_target"](r, c, q, a)
    yield "sarsa_target", got, definition("sarsa", r, c, next_q=q, next_actions=a), 1e-14, source
    got = subjects["expected_sarsa_target"](r, c, q, p)
    truth = definition("expected", r, c, next_q=q, next_probs=p)
    yield "expected_sarsa_target", got, truth, 1e-14, source
    got = subjects["q_learning_target"](r, c, q, action_mask=mask)
    yield "q_learning_target", got, definition("max", r, c, next_q=q, mask=mask), 1e-14, source
    got = subjects["double_q_target"](r, c, q, q2, action_mask=mask)
    truth = definition("double", r, c, next_q=q, other=q2, mask=mask)
    yield "double_q_target", got, truth, 1e-14, source


def _recorded(subjects, rows) -> Iterator[Any]:
    columns = [np.array(x) for x in zip(*rows, strict=True)]
    for name, (kind, options) in LOOPS.items():
        learner = subjects[name](STATES, ACTIONS, **STEP, **options)
        learner.update(*columns, epsilon=EPSILON)
        truth = learning.replay(kind, rows, STATES, ACTIONS, **STEP, epsilon=EPSILON, **options)
        tolerance = 1e-13 if options or kind == "monte carlo" else 0.0
        yield name, learner.tables[0].reshape(STATES, -1), truth, tolerance, "loops"
    first = subjects["MonteCarlo"](STATES, ACTIONS, gamma=GAMMA, alpha=inverse_visits(1.0), visits="first")  # fmt: skip
    first.update(*columns, epsilon=EPSILON)
    truth = learning.replay(
        "monte carlo", rows, STATES, ACTIONS, **STEP, epsilon=EPSILON, omega=1.0, first_visit=True
    )
    yield "MonteCarlo, first visits, means", first.tables[0], truth, 1e-13, "loops"
    for name, kind in WITH_LAMBDA_0.items():
        learner = subjects[name](STATES, ACTIONS, gae_lambda=0.0, **STEP)
        learner.update(*columns, epsilon=EPSILON)
        truth = learning.replay(kind, rows, STATES, ACTIONS, **STEP)
        yield f"{name}, lambda 0", learner.tables[0], truth, 0.0, "loops"


def _corrected(subjects, rows, seed: int) -> Iterator[Any]:
    """Targets of many steps about a policy that did not act, against their recursive definitions."""
    columns, rng = [np.array(x) for x in zip(*rows, strict=True)], np.random.default_rng(seed)
    pi, mu = (rng.dirichlet(np.ones(ACTIONS), STATES) for _ in range(2))
    whose = {"target_policy": pi, "behaviour": mu}
    for name, kind, options in CORRECTED:
        learner = subjects[name](STATES, ACTIONS, num_steps=3, **whose, **options, **STEP)
        learner.update(*columns)
        truth = off_policy.replay_off_policy(
            kind, rows, STATES, ACTIONS, num_steps=3, sigma=options.get("sigma", 0.0), target=pi, behaviour=mu,
            **STEP,
        )  # fmt: skip
        yield f"{name}, {kind}", learner.q, truth, 1e-11, "definition"
    whole = next(i for i, x in enumerate(rows) if i > 5 and x[4]) + 1
    begun = max((i + 1 for i, x in enumerate(rows[: whole - 1]) if x[4] or x[5]), default=0)
    first, episode = rng.normal(size=(STATES, ACTIONS)), [x[begun:whole] for x in columns]
    for credit in ("retrace", "tree", "importance", "lambda"):
        learner = subjects["Retrace"](
            STATES,
            ACTIONS,
            gae_lambda=0.8,
            credit=credit,
            offline=True,
            initial=first,
            **whose,
            **STEP,
        )
        learner.update(*episode)
        truth = off_policy.corrected_episode(
            credit, rows[begun:whole], first, gae_lambda=0.8, target=pi, behaviour=mu, **STEP
        )
        yield f"Retrace, {credit}", learner.q, truth, 1e-12, "forward view"


def _remembered(subjects, rows) -> Iterator[Any]:
    """Replay, models, rounds, rewards per step and whole records, against lists and dictionaries."""
    columns, size = [np.array(x) for x in zip(*rows, strict=True)], (STATES, ACTIONS)
    for name, (kind, options) in REMEMBERING.items():
        learner = subjects[name](*size, **options, **STEP)
        learner.update(*columns)
        shown = {"num_plans": 4, "capacity": 25, "least": 0.05}
        truth = learning_from_memory.remembering(kind, rows, *size, **shown, **STEP)
        yield name, learner.q, truth, 1e-13, "loops"
    learner = subjects["SpeedyQLearning"](*size, gamma=GAMMA)
    learner.update(*columns)
    yield "SpeedyQLearning", learner.q, learning_from_memory.speedy(rows, *size, gamma=GAMMA), 1e-12, "loops"  # fmt: skip
    endless = [(*x[:4], False, x[5], x[6]) for x in rows]
    columns[4] = np.zeros(len(rows), dtype=bool)
    for name, kind in PER_STEP.items():
        learner = subjects[name](*size, alpha=ALPHA, eta=0.2)
        learner.update(*columns)
        table, gain = learning_differential.differential(kind, endless, *size, alpha=ALPHA, eta=0.2)
        yield name, learner.q, table, 0.0, "loops"
        yield f"{name}, gain", learner.gain, gain, 0.0, "loops"
    columns[4] = np.array([x[4] for x in rows])
    for name, kind, options in AT_REST:
        learner = subjects[name](*size, gamma=0.5, **options)
        learner.update(*columns)
        truth = learning_from_memory.at_rest(kind, rows, STATES, gamma=0.5, sweeps=60)
        yield f"{name}, {kind}", learner.values, truth, 1e-6, "sweeps"


def _by_hand(subjects) -> Iterator[Any]:
    """Small cases with known numbers: two tables, cut traces, ties."""
    learner = subjects["DoubleQLearning"](2, 2, gamma=0.5, alpha=1.0)
    learner.tables[0][1], learner.tables[1][1] = [3.0, 2.0], [10.0, 20.0]
    for _ in range(30):
        learner.update(0, 0, 1.0, 1, False, False)
    # table 0 prefers action 0, which table 1 says is worth 10; table 1 prefers 1, which is worth 2 there
    yield "DoubleQLearning, two tables", learner.tables[:, 0, 0], [6.0, 2.0], 0.0, "by hand"
    two = [np.array(x) for x in ([0, 1], [0, 1], [0.0, 2.0], [1, 2], [False, True], [False, False], [1, 0])]  # fmt: skip
    learner = subjects["WatkinsQLambda"](3, 2, gamma=1.0, alpha=0.5, gae_lambda=1.0)
    learner.tables[0][1, 0] = 1.0
    learner.update(*two)
    # the second action explores, so what it earns is not credited to the first
    yield "WatkinsQLambda, cut", learner.tables[0], [[0.5, 0], [1, 1], [0, 0]], 0.0, "by hand"
    learner = subjects["SarsaLambda"](3, 2, gamma=1.0, alpha=0.5, gae_lambda=0.5)
    learner.update(*two)
    yield "SarsaLambda, two steps", learner.tables[0], [[0.5, 0], [0, 1], [0, 0]], 0.0, "by hand"
    learner = subjects["ExpectedSarsa"](1, 4, gamma=0.5)
    learner.tables[0][0] = [2.0, 0.0, 2.0, 1.0]
    yield "ExpectedSarsa, split of ties", learner.probabilities(0.2), [[0.45, 0.05, 0.45, 0.05]], 1e-15, "by hand"  # fmt: skip


def _episodes(subjects, seed: int) -> Iterator[Any]:
    """One episode with a state that comes back: backward views against forward views."""
    rng = np.random.default_rng(seed)
    states, rewards, first = rng.integers(0, STATES, 9), rng.normal(size=8), rng.normal(size=STATES)
    ends = np.arange(8) == 7
    options = {"gamma": GAMMA, "gae_lambda": 0.6, "alpha": 0.2}
    for name, extra, oracle in (
        ("offline", {"offline": True}, learning.lambda_episode),
        ("true online", {"trace": "dutch"}, learning.online_lambda_episode),
    ):
        learner = subjects["TDLambda"](STATES, 1, initial=first, **options, **extra)
        zeros = np.zeros(8, dtype=int)
        learner.update(states[:-1], zeros, rewards, states[1:], ends, np.zeros(8, bool))
        truth = oracle(states[:-1].tolist(), rewards.tolist(), first.tolist(), **options)
        yield f"TDLambda, {name}", learner.values, truth, 1e-12, "forward view"


def _curves(subjects, num_runs: int) -> Iterator[Check]:
    """The mean over runs on its exact learning curve; the largest z-score of all entries."""
    walk = fixtures.random_walk(5)
    rewards = np.zeros((7, 1, 7))
    rewards[5, 0, 6] = 1.0  # the fixture's r(s, a) is a mean; the spread needs the reward itself
    doors = {"start": walk.start, "terminal": walk.terminal, "initial": 0.5}
    first = np.where(walk.terminal, 0.0, 0.5)
    policy = np.zeros(7, dtype=int)
    for name, n in (("TD0", 1), ("NStepTD", 2), ("NStepTD", 4)):
        learner = subjects[name](
            7, 1, gamma=1.0, initial=first, **({"num_steps": n} if n > 1 else {})
        )
        history = learner.learn(worlds.random_walk(5), num_steps=100, num_runs=num_runs, seed=n)
        moments = curves.td_moments(walk.P, rewards, 1.0, policy, alpha=0.1, num_steps=100, n=n, **doors)  # fmt: skip
        yield _on_curve(f"{name}, n = {n}, 100 steps of the walk", history.tables, moments)
    learner = subjects["TDLambda"](7, 1, gae_lambda=0.8, gamma=1.0, initial=first, offline=True)
    history = learner.learn(worlds.random_walk(5), num_episodes=10, num_runs=num_runs, seed=5)
    moments = curves.episode_moments(
        walk.P, rewards, 1.0, policy, alpha=0.1, num_episodes=10, gae_lambda=0.8, **doors
    )
    yield _on_curve("TDLambda, 10 episodes of the walk", history.tables, moments)
    case = fixtures.random_mdp(np.random.default_rng(0), 4, 2, branching=2, terminal=1, gamma=0.8)
    policy = np.random.default_rng(1).dirichlet(np.ones(2), 4)
    for name, kind in (("Sarsa", "sarsa"), ("ExpectedSarsa", "expected sarsa")):
        learner = subjects[name](4, 2, gamma=0.8, alpha=0.2)
        history = learner.learn(
            as_mdp(case), num_steps=60, num_runs=num_runs, policy=policy, seed=2
        )
        moments = curves.td_moments(
            case.P, case.R, 0.8, policy, alpha=0.2, num_steps=60, kind=kind, terminal=case.terminal
        )
        yield _on_curve(f"{name}, 60 steps of a fixed policy", history.tables, moments)


def _fixed_points(subjects, num_runs: int) -> Iterator[Check]:
    """With steps 1 / visits^.8 on three states: the equation that each learner solves."""
    case = fixtures.random_mdp(np.random.default_rng(2), 3, 2, terminal=1, gamma=0.5)
    model, half = as_mdp(case), np.full((3, 2), 0.5)
    doors = {"terminal": case.terminal}
    optimum, _ = exact.optimal_lp(case.P, case.R, 0.5, **doors)
    best, _ = exact.epsilon_soft_value(case.P, case.R, 0.5, 0.4, **doors)
    own, _ = exact.policy_value(case.P, case.R, 0.5, half, **doors)
    for name, options, values, policy, source in (
        ("Sarsa", {}, best, None, "epsilon-soft optimum"),
        ("QLearning", {}, optimum, None, "LP"),
        ("QLearning", {}, optimum, half, "LP, off policy"),
        ("DoubleQLearning", {}, optimum, half, "LP, off policy"),
        ("WatkinsQLambda", {"gae_lambda": 0.5}, optimum, None, "LP"),
        ("ExpectedSarsa", {}, best, None, "epsilon-soft optimum"),
        ("NStepSarsa", {"num_steps": 2}, own, half, "policy's own q"),
        ("NStepExpectedSarsa", {"num_steps": 2}, own, half, "policy's own q"),
        ("SarsaLambda", {"gae_lambda": 0.5}, own, half, "policy's own q"),
        ("MonteCarlo", {}, own, half, "policy's own q"),
    ):
        learner = subjects[name](3, 2, gamma=0.5, alpha=inverse_visits(0.8), **options)
        history = learner.learn(model, num_steps=10_000, num_runs=num_runs, policy=policy, epsilon=0.4, seed=3)  # fmt: skip
        q = (case.R + 0.5 * case.P @ values)[case.mask]
        got = history.tables[:, case.mask]
        error = got.std(axis=0, ddof=1) / num_runs**0.5
        z = float(np.max(np.abs(got.mean(axis=0) - q) / error))
        yield holds(f"{name}, its equation ({source})", Z - z, tolerance=0.0, source=source)


def _on_curve(name: str, tables: np.ndarray, moments: curves.Moments) -> Check:
    got = tables.reshape(len(tables), -1)[:, moments.entries].mean(axis=0)
    error = np.maximum(moments.standard_error(len(tables))[-1], 1e-12)
    z = float(np.max(np.abs(got - moments.mean[-1]) / error))
    return holds(f"{name}: largest |z| below {Z}", Z - z, tolerance=0.0, source="oracles.td")


def _transitions(seed: int, num: int = 80) -> list[learning.Transition]:
    """Episodes in one piece; some end, some are cut from outside."""
    rng = np.random.default_rng(seed)
    rows, s, a = [], int(rng.integers(STATES)), int(rng.integers(ACTIONS))
    for _ in range(num):
        s2, a2, end = int(rng.integers(STATES)), int(rng.integers(ACTIONS)), rng.choice(3, p=[0.75, 0.15, 0.1])  # fmt: skip
        rows.append((s, a, float(rng.normal()), s2, bool(end == 1), bool(end == 2), a2))
        s, a = (int(rng.integers(STATES)), int(rng.integers(ACTIONS))) if end else (s2, a2)
    return rows
