"""Learners with a bug in them are diagnosed by name; right ones are called right."""

import numpy as np
import pytest

from dodona import rl
from dodona.checks.diagnose import CORRECT, diagnose, read_values
from dodona.checks.td_bugs import MUTANTS
from dodona.core.schedules import inverse_visits
from dodona.errors import DataError, InputError, ShapeError
from dodona.mdp import MDP, policy_action_values, solve
from dodona.oracles.learning_bugs import LEARNING_BUGS, buggy_action_values

LIMIT = 4


def model(masked: bool = False) -> MDP:
    """Five states, the last terminal, one start; every bug moves its values."""
    rng = np.random.default_rng(4)
    P = rng.dirichlet(np.full(5, 0.5), (5, 3))
    P[:, :, 4] *= 0.3
    P /= P.sum(axis=2, keepdims=True)
    mask = np.ones((5, 3), bool)
    if masked:
        mask[[0, 2], [1, 2]] = False
    R = rng.normal(size=(5, 3)) * 2
    R[4] = 0.0
    return MDP.from_dense(
        P, R, gamma=0.7, layout="sas", terminal=[4], start=np.eye(5)[0], action_mask=mask
    )


def experience(mdp: MDP, num: int, seed: int):
    """Uniform actions, episodes cut after LIMIT steps: columns (s, a, r, s2, terminated, truncated, a2)."""
    rng = np.random.default_rng(seed)
    runs = 400
    s, t = np.zeros(runs, dtype=int), np.zeros(runs, dtype=int)
    a = rng.integers(0, 3, runs)
    columns = []
    for _ in range(num // runs):
        s2, r, terminated = mdp.step(s, a, rng=rng)
        t += 1
        truncated = t == LIMIT
        cut = terminated | truncated
        a2 = rng.integers(0, 3, runs)
        columns.append((s, a, r, s2, terminated, truncated & ~terminated, a2))
        s, t = np.where(cut, 0, s2), np.where(cut, 0, t)
        a = a2
    # run after run, so that the row after a cut is the next episode's first
    return [np.array(x).T.ravel() for x in zip(*columns, strict=True)]


@pytest.fixture(scope="module")
def columns():
    return experience(model(), 240_000, 0)


def learnt(made, columns, **options):
    learner = made(5, 3, gamma=0.7, alpha=inverse_visits(0.8), **options)
    learner.update(*columns)
    return learner


def mutant(name: str):
    return next(m.function for m in MUTANTS if m.name == name)


def fed(name: str, change):
    from dodona.checks import td_bugs

    return td_bugs._fed(name, getattr(td_bugs, change))


@pytest.mark.parametrize(
    "made, name",
    [
        (rl.QLearning, CORRECT),
        (fed("QLearning", "_truncation_ends"), "truncation as termination"),
        (fed("QLearning", "_reset_leaks"), "reset leak"),
        (fed("QLearning", "_forgets_ends"), "ends forgotten"),
        (mutant("QLearning: reward of the next step"), "reward of the next step"),
        (rl.ExpectedSarsa, "mean for maximum"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_learner_is_diagnosed_by_the_name_of_its_bug(columns, made, name):
    options = {"target_policy": np.full((5, 3), 1 / 3)} if made is rl.ExpectedSarsa else {}
    diagnosis = diagnose(learnt(made, columns, **options).q, model(), limit=LIMIT)
    assert diagnosis.best == name
    assert diagnosis.clear and list(diagnosis.distances)[0] == name


def test_a_bootstrapped_end_is_recognised_by_the_value_it_keeps(columns):
    made = fed("QLearning", "_bootstraps_terminal")
    learner = learnt(made, columns, initial=3.0)
    assert diagnose(learner.q, model(), limit=LIMIT).best == "terminal bootstrapped"


def test_a_learner_of_a_policy_is_judged_by_that_policy(columns):
    uniform = np.full((5, 3), 1 / 3)
    learner = learnt(rl.Sarsa, columns)
    # truncated Sarsa knows no next action of a new episode, so cut rows are left to chance: still its own q
    assert diagnose(learner.q, model(), behaviour=uniform, target="policy").best == CORRECT
    optimal = learnt(rl.QLearning, columns)
    found = diagnose(optimal.q, model(), behaviour=uniform, target="policy")
    assert found.best == "maximum for mean"
    assert "best action instead of the mean" in str(found)


@pytest.mark.parametrize("bug", LEARNING_BUGS)
@pytest.mark.parametrize("target", ["optimal", "policy"])
def test_every_fixed_point_is_told_from_every_other(bug, target):
    mdp = model(masked=bug == "infeasible actions")
    P, R, gamma = mdp.dense()
    uniform = mdp.action_mask / np.maximum(mdp.action_mask.sum(axis=1, keepdims=True), 1)
    q = buggy_action_values(
        bug, P, R, gamma, behaviour=uniform, target=target, terminal=mdp.terminal,
        action_mask=mdp.action_mask, start=mdp.start, limit=LIMIT, stale=30.0,
    )  # fmt: skip
    if q is None or not np.isfinite(q[mdp.action_mask]).all():
        return  # does nothing to this target, or diverges
    found = diagnose(q, mdp, target=target, limit=LIMIT, stale=30.0)
    names = {found.best, *found.alike.get(found.best, ())}
    assert bug in names and found.distances[found.best] < 1e-9
    if bug != "infeasible actions" or target == "optimal":
        assert found.best != CORRECT


def test_the_right_values_are_those_of_the_planner():
    mdp = model(masked=True)
    P, R, gamma = mdp.dense()
    uniform = mdp.action_mask / np.maximum(mdp.action_mask.sum(axis=1, keepdims=True), 1)
    doors = {"behaviour": uniform, "terminal": mdp.terminal, "action_mask": mdp.action_mask}
    best = buggy_action_values(None, P, R, gamma, **doors)
    own = buggy_action_values(None, P, R, gamma, target="policy", **doors)
    mask = mdp.action_mask
    np.testing.assert_allclose(best[mask], solve(mdp, tol=1e-11).q[mask], atol=1e-9)
    np.testing.assert_allclose(own[mask], policy_action_values(mdp, uniform)[mask], atol=1e-9)


def test_state_values_and_unlearnt_entries_are_taken():
    mdp = model()
    solution = solve(mdp, tol=1e-10)
    assert diagnose(solution.values, mdp).best == CORRECT
    q = solution.q.copy()
    q[2] = np.nan
    assert diagnose(q, mdp).best == CORRECT


def test_what_a_model_can_not_tell_apart_is_said():
    # one step to the end: nothing is bootstrapped
    mdp = MDP.from_dense(
        np.tile(np.eye(2)[1], (2, 1, 1)), np.array([[1.0], [0.0]]), gamma=0.5, layout="sas", terminal=[1], start=np.eye(2)[0]
    )  # fmt: skip
    found = diagnose(np.array([[1.0], [0.0]]), mdp)
    assert found.best == CORRECT and "gamma squared" in found.alike[CORRECT]
    assert "the same values on this model" in str(found)


def test_wrong_arguments_are_named():
    mdp = model()
    with pytest.raises(ShapeError, match=r"q has shape \(3,\), expected \[S, A\] = \(5, 3\)"):
        diagnose(np.zeros(3), mdp)
    with pytest.raises(InputError, match="nothing to compare"):
        diagnose(np.full((5, 3), np.nan), mdp)
    with pytest.raises(ValueError, match="unknown bug"):
        buggy_action_values("typo", *mdp.dense(), behaviour=np.zeros(5, int))
    with pytest.raises(ValueError, match="target must be"):
        buggy_action_values(None, *mdp.dense(), behaviour=np.zeros(5, int), target="best")


def test_values_are_read_from_files(tmp_path):
    q = np.array([[1.0, 2.0], [3.0, np.nan]])
    np.savez(tmp_path / "a.npz", q=q)
    np.save(tmp_path / "a.npy", q)
    (tmp_path / "a.csv").write_text("state,left,right\n0,1,2\n1,3,nan\n")
    (tmp_path / "v.csv").write_text("1\n3\n")
    for name in ("a.npz", "a.npy", "a.csv"):
        np.testing.assert_array_equal(read_values(tmp_path / name), q)
    np.testing.assert_array_equal(read_values(tmp_path / "v.csv"), [1.0, 3.0])
    (tmp_path / "bad.csv").write_text("1,2\n3,x\n")
    np.savez(tmp_path / "b.npz", other=q)
    (tmp_path / "torn.csv").write_text("1,2\n3\n")
    for name, message in (
        ("bad.csv", "line 2: 'x' is no number"), ("b.npz", "no key q or values; it has other"),
        ("torn.csv", "is no table"), ("none.npz", "there is no file"), ("a.txt", "there is no file"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            read_values(tmp_path / name)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match="suffix '.txt'"):
        read_values(tmp_path / "a.txt")
