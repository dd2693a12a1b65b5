"""A user's own model from a file, and the answer as a file."""

import numpy as np
import pytest

from dodona.errors import DataError, InputError, MDPError
from dodona.mdp import MDP, solve, worlds
from dodona.mdp.formats.tables import mdp_from_file, mdp_from_npz

SHOP = """state,action,next_state,probability,reward
closed,open,busy,0.5,1
closed,open,busy,0.25,1
closed,open,closed,0.25,0
closed,wait,closed,1,0.1
busy,serve,closed,1,2
busy,burn,ruin,1,5
"""


def test_a_table_with_names_adds_up_repeated_rows(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text(SHOP)
    mdp = MDP.from_table(path, gamma=0.9)
    assert mdp.labels.states == ("closed", "busy", "ruin") and mdp.terminal.tolist() == [
        False,
        False,
        True,
    ]
    assert mdp.rewards.tolist() == [0.75, 0.1, 2.0, 5.0]
    # by hand: serve for ever, v(closed) = .75 + .9 (.75 v(busy) + .25 v(closed)), v(busy) = 2 + .9 v(closed)
    closed = (0.75 + 0.9 * 0.75 * 2) / (1 - 0.9 * 0.25 - 0.9 * 0.75 * 0.9)
    assert solve(mdp).values == pytest.approx([closed, 2 + 0.9 * closed, 0], abs=1e-8)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_model_survives_its_table(tmp_path, suffix):
    mdp = worlds.book_grid()
    mdp.to_table(tmp_path / f"m{suffix}")
    back = MDP.from_table(tmp_path / f"m{suffix}", gamma=0.9)
    for name in ("sa_indptr", "actions", "indptr", "indices", "probs", "rewards", "terminal"):
        assert np.array_equal(getattr(mdp, name), getattr(back, name)), name
    solve(mdp).write(tmp_path / f"s{suffix}")
    assert (tmp_path / f"s{suffix}").stat().st_size > 0


def test_a_terminated_row_into_a_living_state_ends(tmp_path):
    rows = [(0, 0, 1, 1.0, 1.0, 1), (1, 0, 0, 1.0, 1.0, 0)]
    assert solve(MDP.from_table(rows, gamma=0.5)).values == pytest.approx([1.0, 1.5], abs=1e-8)


def test_npz_dense_and_sparse_give_one_model(tmp_path):
    P, R, gamma = worlds.mdptoolbox_small().dense()
    np.savez(tmp_path / "d.npz", P=P, R=R, gamma=gamma)
    rows = P.reshape(4, 2)
    pair, successor = np.nonzero(rows)
    np.savez(
        tmp_path / "s.npz", data=rows[pair, successor], indices=successor, num_actions=2, R=R,
        indptr=np.concatenate([[0], np.cumsum(np.bincount(pair))]),
    )  # fmt: skip
    a, b = mdp_from_npz(tmp_path / "d.npz"), mdp_from_npz(tmp_path / "s.npz", gamma=0.9)
    assert np.array_equal(a.probs, b.probs) and np.array_equal(a.indices, b.indices)
    assert np.array_equal(a.rewards, b.rewards)


def test_a_python_file_gives_a_model(tmp_path):
    (tmp_path / "m.py").write_text(
        "from dodona.mdp.worlds import book_small\ndef mdp():\n    return book_small()\n"
    )
    assert mdp_from_file(tmp_path / "m.py", gamma=0.5).gamma == 0.5


@pytest.mark.parametrize(
    "text, error, message",
    [
        ("state,action\n0,0\n", DataError, "lacks the columns next_state, probability, reward"),
        (SHOP + "busy,serve,closed,much,2\n", DataError, "line 8 can not be read.*much"),
        (SHOP + "busy,serve,closed,1.5,2\n", DataError, "line 8: probability 1.5"),
        (
            SHOP + "busy,serve,ruin,0.5,2\n",
            MDPError,
            "state 1, action 2: the probabilities sum to 1.5",
        ),
        ("state,action,next_state,probability,reward\n", DataError, "holds no transition"),
    ],
)
def test_a_wrong_table_names_the_line(tmp_path, text, error, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(error, match=message):
        MDP.from_table(tmp_path / "t.csv", gamma=0.9)


def test_a_table_without_gamma_asks_for_it(tmp_path):
    (tmp_path / "t.csv").write_text(SHOP)
    with pytest.raises(InputError, match="pass gamma"):
        mdp_from_file(tmp_path / "t.csv")
    with pytest.raises(DataError, match="no file"):
        mdp_from_file(tmp_path / "nothing.csv")
