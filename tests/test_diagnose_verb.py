"""dodona diagnose: values from a file, the environment by its id or file, the bug by its name."""

import json

import numpy as np
import pytest

from dodona.cli import main
from dodona.mdp import MDP, solve
from dodona.oracles.learning_bugs import buggy_action_values


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
    ],
)
def test_wrong_words_are_named(words, message, capsys):
    assert main(["diagnose", *words]) == 2
    assert message in capsys.readouterr().err
