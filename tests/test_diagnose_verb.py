"""dodona diagnose: values from a file or a run, the environment by its id or file, the bug by its name."""

import json

import numpy as np
import pytest

from dodona import recipes
from dodona.cli import main
from dodona.mdp import MDP, policy_action_values, solve
from dodona.oracles.learning_bugs import buggy_action_values
from dodona.recipes import temporal_difference as recipe
from dodona.runs import Interrupted, RunFolder, drive


@pytest.fixture(scope="module")
def lake():
    return MDP.from_gymnasium("FrozenLake-v1", gamma=0.9)


def wrong(mdp: MDP, bug: str, **options) -> np.ndarray:
    P, R, gamma = mdp.dense()
    uniform = mdp.action_mask / np.maximum(mdp.action_mask.sum(axis=1, keepdims=True), 1)
    return buggy_action_values(
        bug, P, R, gamma, behaviour=uniform, terminal=mdp.terminal, start=mdp.start, **options
    )


def test_right_values_are_called_right(lake, tmp_path, capsys):
    np.savez(tmp_path / "q.npz", q=solve(lake, tol=1e-10).q)
    words = [str(tmp_path / "q.npz"), "--env", "FrozenLake-v1", "--gamma", "0.9"]
    assert main(["diagnose", *words]) == 0
    assert capsys.readouterr().out.startswith("correct: the values are right")


def test_a_bug_is_named_from_a_table_of_numbers(lake, tmp_path, capsys):
    np.savetxt(tmp_path / "q.csv", wrong(lake, "gamma squared"), delimiter=",")
    words = [str(tmp_path / "q.csv"), "--env", "FrozenLake-v1", "--gamma", "0.9", "--json"]
    assert main(["diagnose", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"] == "gamma squared" and found["clear"]
    assert found["distances"]["gamma squared"] < 1e-9 < found["distances"]["correct"]


def test_a_time_limit_is_told(lake, tmp_path, capsys):
    np.save(tmp_path / "q.npy", wrong(lake, "truncation as termination", limit=10))
    words = [str(tmp_path / "q.npy"), "--env", "FrozenLake-v1", "--gamma", "0.9", "--limit", "10"]
    assert main(["diagnose", *words]) == 0
    assert capsys.readouterr().out.startswith("truncation as termination: a time limit is taken")


def test_a_model_from_a_file_brings_its_own_discount(tmp_path, capsys):
    P, R = np.array([[[0.5, 0.5]], [[0.2, 0.8]]]), np.array([[1.0], [3.0]])
    np.savez(tmp_path / "m.npz", P=P, R=R, gamma=0.5)
    q = solve(MDP.from_dense(P, R, gamma=0.5, layout="sas"), tol=1e-10).q
    np.savez(tmp_path / "q.npz", q=q)
    assert main(["diagnose", str(tmp_path / "q.npz"), "--mdp", str(tmp_path / "m.npz")]) == 0
    assert capsys.readouterr().out.startswith("correct")


@pytest.mark.parametrize(
    "words, message",
    [
        (["q.npz"], "needs the environment: --env ID or --mdp FILE"),
        (["q.npz", "--env", "FrozenLake-v1"], "an environment has no discount: give --gamma"),
        (
            ["q.npz", "--env", "FrozenLake-v1", "--gamma", "1", "--target", "best"],
            "target must be one of",
        ),
        (["none.npz", "--env", "FrozenLake-v1", "--gamma", "1"], "there is no file none.npz"),
        (["q.npz", "--env", "FrozenLake-v1", "--mdp", "m.npz"], "not both"),
        (["latest", "--out", "nowhere"], "there is no run under nowhere"),
    ],
)
def test_wrong_words_are_named(words, message, capsys):
    assert main(["diagnose", *words]) == 2
    assert message in capsys.readouterr().err


def test_who_acted_is_told_by_epsilon(lake, tmp_path, capsys):
    q = solve(lake, tol=1e-10).q
    for _ in range(300):  # the values of a learner that stumbles in three of ten steps
        best = q == q.max(axis=1, keepdims=True)
        policy = 0.7 * best / best.sum(axis=1, keepdims=True) + 0.3 / 4
        q = policy_action_values(lake, policy)
    np.save(tmp_path / "q.npy", q)
    words = [str(tmp_path / "q.npy"), "--env", "FrozenLake-v1", "--gamma", "0.9", "--json"]
    assert main(["diagnose", *words, "--target", "policy", "--epsilon", "0.3"]) == 0
    assert json.loads(capsys.readouterr().out)["distances"]["correct"] < 1e-6
    assert main(["diagnose", *words]) == 0
    assert json.loads(capsys.readouterr().out)["distances"]["correct"] > 1e-2


# ---------------------------------------------------------------------- runs
@pytest.fixture
def two_arms(monkeypatch):
    """The recipe with two of its arms, so that a run takes no time."""
    build = recipe.build

    def fewer(config):
        arms = build(config)
        arms.turns = [turn for turn in arms.turns if turn[0] in ("first | 10", "explore | 0.1")]
        return arms

    monkeypatch.setattr(recipe, "build", fewer)
    return recipe.Config(grid_runs=10)


def folder_of(config, tmp_path) -> RunFolder:
    return RunFolder.create("temporal-difference", config, out=tmp_path)


def test_a_run_is_diagnosed_arm_by_arm(two_arms, tmp_path, capsys):
    folder = folder_of(two_arms, tmp_path)
    drive("temporal-difference", recipe.build(two_arms), folder)
    assert main(["diagnose", "latest", "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {arm: d["best"] for arm, d in found.items()} == {"first | 10": "correct", "explore | 0.1": "correct"}  # fmt: skip
    assert all(d["clear"] for d in found.values())
    assert (
        main(["diagnose", str(folder.path), "--gamma", "0.95"]) == 0
    )  # says: not of this discount
    out = capsys.readouterr().out
    assert (
        out.startswith("first | 10\n") and "\n\nexplore | 0.1\n" in out and "correct: " not in out
    )


def test_a_stopped_run_is_diagnosed_from_its_checkpoint(two_arms, tmp_path, capsys):
    folder, seen = folder_of(two_arms, tmp_path), []

    def stop(event):
        seen.append(event)
        if len(seen) == 60:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        drive("temporal-difference", recipe.build(two_arms), folder, progress=stop, checkpoint_seconds=0.0)  # fmt: skip
    assert main(["diagnose", str(folder.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first | 10"]["best"] == "correct"


def test_a_run_without_values_says_so(two_arms, tmp_path, capsys):
    folder = folder_of(two_arms, tmp_path)
    with pytest.raises(Interrupted):
        drive("temporal-difference", recipe.build(two_arms), folder, deadline=0.0)
    assert main(["diagnose", str(folder.path)]) == 2
    assert "holds no learned values yet. One of these must have ended" in capsys.readouterr().err
    other = RunFolder.create("kmp", recipes.load("kmp").Config(), out=tmp_path)
    assert main(["diagnose", str(other.path)]) == 2
    assert "is a run of kmp, which keeps no learned values" in capsys.readouterr().err
