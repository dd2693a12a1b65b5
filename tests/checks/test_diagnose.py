"""Learners with a bug in them are diagnosed by name; right ones are called right."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from dodona import rl
from dodona.checks import dynamic_programming, runner, td_bugs, temporal_difference
from dodona.checks.diagnosis import CORRECT, TRIED, diagnose, read_learned
from dodona.core.schedules import inverse_visits
from dodona.errors import DataError, InputError, ShapeError
from dodona.mdp import MDP, policy_action_values, solve
from dodona.oracles.learning_bugs import LEARNING_BUGS, buggy_action_values
from dodona.rl import _td_updates as updates

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

    def acts(s):
        return np.where(mdp.action_mask[s], rng.random((runs, 3)), -1.0).argmax(axis=1)

    a = acts(s)
    columns = []
    for _ in range(num // runs):
        s2, r, terminated = mdp.step(s, a, rng=rng)
        t += 1
        truncated = t == LIMIT
        cut = terminated | truncated
        after = np.where(cut, 0, s2)
        a2 = acts(after)
        columns.append((s, a, r, s2, terminated, truncated & ~terminated, a2))
        s, a, t = after, a2, np.where(cut, 0, t)
    # run after run, so that the row after a cut is the next episode's first
    return [np.array(x).T.ravel() for x in zip(*columns, strict=True)]


@pytest.fixture(scope="module")
def columns():
    return experience(model(), 240_000, 0)


def learnt(made, columns, *, initial=0.0, epsilon=0.1):
    learner = made(5, 3, gamma=0.7, alpha=inverse_visits(0.8), initial=initial)
    learner.update(*columns, epsilon=epsilon)
    return learner


class Minimum(rl.QLearning):
    """Learns costs: the worst action of what it is told."""

    def update(self, s, a, r, *others, **options):
        return super().update(s, a, -np.asarray(r), *others, **options)

    @property
    def tables(self):
        return -super().tables


def ruled(**changes):
    return td_bugs._ruled("QLearning", **changes)


def fed(change):
    return td_bugs._fed("QLearning", change)


def rewards(change):
    return fed(lambda s, a, r, *others: (s, a, change(r), *others))


LEARNERS = {
    "truncation as termination": fed(td_bugs._truncation_ends),
    "reset leak": fed(td_bugs._reset_leaks),
    "ends forgotten": fed(td_bugs._forgets_ends),
    "terminal bootstrapped": fed(td_bugs._bootstraps_terminal),
    "gamma omitted": ruled(gamma=1.0),
    "gamma squared": ruled(gamma=lambda rule: rule.gamma**2),
    "gamma on reward": rewards(lambda r: 0.7 * r),
    "reward of the next step": rewards(lambda r: np.roll(r, -1)),
    "reward of the step before": rewards(lambda r: np.roll(r, 1)),
    "mean for maximum": ruled(expectation=updates.SOFT),
    "minimum for maximum": Minimum,
    "future ignored": ruled(gamma=0.0),
    "rewards clipped": rewards(lambda r: np.clip(r, -1.0, 1.0)),
}
"""Bug -> a learner with it; those of a model that is read wrongly, and of masks, have tests of their own."""


@pytest.mark.parametrize("bug", LEARNERS)
def test_a_learner_is_diagnosed_by_the_name_of_its_bug(columns, bug):
    learner = learnt(LEARNERS[bug], columns, initial=3.0, epsilon=1.0)
    found = diagnose(learner.q, model(), limit=LIMIT, stale=3.0)
    assert found.best == bug and found.clear and list(found.distances)[0] == bug


@pytest.mark.parametrize("bug", LEARNERS)
def test_the_checks_fail_the_same_learner(bug):
    subjects = {**temporal_difference.SUBJECTS, "QLearning": LEARNERS[bug]}
    with runner._quiet():
        assert any(not check.passed for check in temporal_difference.run(subjects))


def test_a_right_learner_is_called_right(columns):
    found = diagnose(learnt(rl.QLearning, columns).q, model(), limit=LIMIT)
    assert found.best == CORRECT and found.clear


def test_a_learner_that_knows_no_mask_is_diagnosed():
    mdp = model(masked=True)
    columns = experience(mdp, 240_000, 1)
    learner = learnt(
        rl.QLearning, columns, initial=9.0
    )  # update is told of no model, so of no mask
    assert diagnose(learner.q, mdp, limit=LIMIT, stale=9.0).best == "infeasible actions"
    assert any("infeasible actions" in mutant.name for mutant in td_bugs.MUTANTS)


@pytest.mark.parametrize("bug", ["transposed", "layout"])
def test_a_model_that_is_read_wrongly_is_diagnosed(bug):
    mdp = model()
    P, R, gamma = mdp.dense()
    S, A, _ = P.shape
    q = np.zeros((S, A))
    for _ in range(400):
        v = q.max(axis=1)
        for s in range(S - 1):
            for a in range(A):
                i, j = divmod(
                    s * A + a, S
                )  # where the entry lies if the axes are taken for another order
                row = P[:, a, s] if bug == "transposed" else P[j, i]
                q[s, a] = R[s, a] + gamma * sum(row[t] * v[t] for t in range(S - 1))
    found = diagnose(q, mdp)
    assert found.best == bug and found.distances[bug] < 1e-9
    assert any(mutant.name == bug for mutant in dynamic_programming.MUTANTS)


def test_every_bug_has_a_learner_or_a_reader_of_its_own():
    assert set(LEARNING_BUGS) == {*LEARNERS, "maximum for mean", "infeasible actions", "transposed", "layout"}  # fmt: skip


def test_a_learner_of_a_policy_is_judged_by_that_policy(columns):
    uniform = np.full((5, 3), 1 / 3)
    learner = learnt(rl.Sarsa, columns)
    # truncated Sarsa knows no next action of a new episode, so cut rows are left to chance: still its own q
    assert diagnose(learner.q, model(), behaviour=uniform, target="policy").best == CORRECT
    greedy = td_bugs._ruled("ExpectedSarsa", expectation=updates.GREEDY)
    found = diagnose(learnt(greedy, columns).q, model(), behaviour=uniform, target="policy")
    assert found.best == "maximum for mean"
    assert "best action instead of the mean" in str(found)


def test_a_learner_that_explores_is_judged_by_what_it_does():
    mdp = model()
    learner = rl.ExpectedSarsa(5, 3, gamma=0.7, alpha=inverse_visits(0.8))
    learner.learn(mdp, num_steps=300_000, epsilon=0.3, seed=0)
    assert diagnose(learner.q, mdp, behaviour=0.3, target="policy").best == CORRECT
    assert diagnose(learner.q, mdp).best != CORRECT  # it knows that it will stumble: this is not q*


def test_values_that_were_hardly_tried_are_left_out():
    mdp = model()
    q = solve(mdp, tol=1e-10).q.copy()
    visits = np.full(q.shape, TRIED)
    q[1], visits[1] = 1e3, TRIED - 1
    assert diagnose(q, mdp).distances[CORRECT] > 100
    assert diagnose(q, mdp, visits=visits).distances[CORRECT] < 1e-8


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
    with pytest.raises(InputError, match="no entry of q was tried 100 times"):
        diagnose(np.zeros((5, 3)), mdp, visits=np.full((5, 3), 99))
    with pytest.raises(ShapeError, match=r"visits has shape \(5,\), expected that of q, \(5, 3\)"):
        diagnose(np.zeros((5, 3)), mdp, visits=np.zeros(5))
    with pytest.raises(InputError, match=r"epsilon must be in \[0, 1\], got 2.0"):
        diagnose(np.zeros((5, 3)), mdp, behaviour=2.0)
    with pytest.raises(InputError, match="state values name no greedy action"):
        diagnose(np.zeros(5), mdp, behaviour=0.1)
    with pytest.raises(ValueError, match="unknown bug"):
        buggy_action_values("typo", *mdp.dense(), behaviour=np.zeros(5, int))
    with pytest.raises(ValueError, match="target must be"):
        buggy_action_values(None, *mdp.dense(), behaviour=np.zeros(5, int), target="best")


def test_values_are_read_from_files(tmp_path):
    q = np.array([[1.0, 2.0], [3.0, np.nan]])
    np.savez(tmp_path / "a.npz", q=q, visits=np.ones((2, 2)))
    np.save(tmp_path / "a.npy", q)
    save_file({"agent/q": q, "optimiser/step": np.zeros(1)}, tmp_path / "a.safetensors")
    (tmp_path / "a.csv").write_text("state,left,right\n0,1,2\n1,3,nan\n")
    (tmp_path / "v.csv").write_text("1\n3\n")
    (tmp_path / "solution.csv").write_text("state,value,lower,upper,action\n0,1,0,2,1\n1,3,2,4,0\n")
    for name in ("a.npz", "a.npy", "a.csv", "a.safetensors"):
        np.testing.assert_array_equal(read_learned(tmp_path / name).values, q)
    assert read_learned(tmp_path / "a.npz").visits.tolist() == [[1, 1], [1, 1]]
    assert read_learned(tmp_path / "a.safetensors").visits is None
    for name in ("v.csv", "solution.csv"):
        np.testing.assert_array_equal(read_learned(tmp_path / name).values, [1.0, 3.0])


def test_files_that_hold_no_values_are_named(tmp_path):
    q = np.zeros((2, 2))
    (tmp_path / "bad.csv").write_text("1,2\n3,x\n")
    (tmp_path / "torn.csv").write_text("1,2\n3\n")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    (tmp_path / "a.txt").write_text("")
    np.savez(tmp_path / "b.npz", other=q)
    save_file({"one/q": q, "two/q": q}, tmp_path / "two.safetensors")
    for name, message in (
        ("bad.csv", "line 2: 'x' is no number"), ("b.npz", "no key q or values; it has other"),
        ("torn.csv", "is no table"), ("none.npz", "there is no file"), ("a.txt", "suffix '.txt'"),
        ("damaged.safetensors", "can not be read without pickles"),
        ("two.safetensors", "several keys: one/q, two/q"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            read_learned(tmp_path / name)
