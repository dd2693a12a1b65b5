"""A user's own model from a file, and the answer as a file."""

import csv

import numpy as np
import pytest

from dodona.errors import DataError, InputError, MDPError, ShapeError
from dodona.mdp import MDP, solve, worlds
from dodona.mdp.formats.npz import mdp_from_npz
from dodona.mdp.formats.tables import mdp_from_file

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
            r"^state busy, action serve \(state 1, action 2\): the probabilities sum to 1.5, expected 1 "
            r"within .* for float32\)\.$",
        ),
        (
            "state,action,next_state,probability,reward\n0,0,1,0.5,1\n",
            MDPError,
            r"^state 0, action 0: the probabilities sum to 0.5.*float32\)\.$",
        ),
        (SHOP + "busy,,closed,1,2\n", DataError, "line 8: action is empty; a name or a number"),
        (SHOP + "\n ,serve,closed,1,2\n", DataError, "line 9: state is empty"),
        (
            SHOP + "busy,serve,closed,0,5,2\n",
            DataError,
            "line 8 has 6 fields, expected 5.*decimal comma",
        ),
        (
            SHOP.replace(",", ";"),
            DataError,
            "lacks the columns.*separated by ';'; write it with commas",
        ),
        (SHOP.replace(",", "\t"), DataError, "separated by tabs"),
        ("state," + SHOP, DataError, "has the column state twice"),
        ("", DataError, "lacks the columns state, action"),
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


# ---------------------------------------------------------------------- names and ends
HEADER = "state,action,next_state,probability,reward,terminated\n"


def table(tmp_path, text, *, encoding="utf-8", header=HEADER):
    (tmp_path / "t.csv").write_text(header + text, encoding=encoding)
    return MDP.from_table(tmp_path / "t.csv", gamma=0.5)


def test_whole_floats_are_the_state_numbers_that_they_mean(tmp_path):
    # a column of integers with a gap in it, as pandas writes it
    mdp = table(tmp_path, "0,0,1.0,1,1,0\n1,0,2.0,1,1,1.0\n")
    assert mdp.num_states == 3 and mdp.labels is None
    assert mdp.terminal.tolist() == [False, False, True]
    assert solve(mdp).values == pytest.approx([1.5, 1.0, 0.0], abs=1e-8)
    rows = [(np.int64(0), 0.0, np.float64(1), 1.0, 1.0), {"state": 1, "action": 0, "next_state": "0.0",
            "probability": 1, "reward": 0}]  # fmt: skip
    assert MDP.from_table(rows, gamma=0.5).indices.tolist() == [1, 0]


@pytest.mark.parametrize(
    "names",
    [("007", "012"), ("7", "100000000"), ("1", "2"), ("1.0", "1.5"), ("²", "٣"), ("-1", "0"), ("0" * 5000, "x")],
)  # fmt: skip
def test_names_that_do_not_count_from_zero_are_kept(tmp_path, names):
    first, last = names
    mdp = table(tmp_path, f"{first},go,{last},1,1,1\n")
    assert mdp.labels.states == names and mdp.labels.actions == ("go",)
    solve(mdp).write(tmp_path / "s.csv")
    with open(tmp_path / "s.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == list(names) and rows[0]["action"] == "go"


def test_whole_numbers_with_gaps_keep_their_order_and_text_its_occurrence(tmp_path):
    chain = [(100, 0, 9, 1.0, 1.0), (9, 0, 20.0, 1.0, 1.0)]
    mdp = MDP.from_table(chain, gamma=0.5)
    assert mdp.labels.states == ("9", "20", "100") and mdp.terminal.tolist() == [False, True, False]
    assert solve(mdp).values == pytest.approx([1.0, 0.0, 1.5], abs=1e-8)
    named = MDP.from_table([("x", 0, "b", 1.0, 1.0), ("b", 0, "a", 1.0, 1.0)], gamma=0.5)
    assert named.labels.states == ("x", "b", "a")
    # nothing enters the walls of a maze; the cells that are left stay in their order
    maze = worlds.maze(5, 5)
    maze.to_table(tmp_path / "maze.csv")
    back = MDP.from_table(tmp_path / "maze.csv", gamma=maze.gamma)
    cells = [int(name) for name in back.labels.states]
    assert len(cells) < 25
    assert solve(back).values == pytest.approx(solve(maze).values[cells], abs=1e-7)


def test_states_may_be_named_where_actions_are_numbered_and_the_other_way_round(tmp_path):
    assert table(tmp_path, "a,0,b,1,1,1\n").labels.actions is None
    mdp = table(tmp_path, "0,left,1,1,1,1\n")
    assert mdp.labels.states is None and mdp.labels.actions == ("left",)
    with pytest.raises(MDPError, match=r"^state 0, action left \(state 0, action 0\): the prob"):
        table(tmp_path, "0,left,1,0.5,1,1\n")


@pytest.mark.parametrize(
    "word, ends",
    [("1", True), ("1.0", True), ("True", True), ("YES", True), (" t ", True), ("y", True),
     ("0", False), ("0.0", False), ("false", False), ("No", False), ("F", False), ("n", False), ("", False)],
)  # fmt: skip
def test_every_word_for_an_end_is_understood(tmp_path, word, ends):
    mdp = table(tmp_path, f"0,0,1,1,1,{word}\n1,0,0,1,1,0\n")
    assert solve(mdp).values[0] == pytest.approx(1.0 if ends else 2.0, abs=1e-8)


def test_a_word_that_is_none_is_named_with_its_line(tmp_path):
    with pytest.raises(
        DataError, match="line 3: terminated is 'ja'; expected 1 or 0, true or false"
    ):
        table(tmp_path, "0,0,1,1,1,0\n1,0,0,1,1,ja\n")


def test_nothing_in_a_frame_is_no_end_and_no_name():
    nan = float("nan")
    for missing in (None, nan):
        mdp = MDP.from_table([(0, 0, 1, 1.0, 1.0, missing), (1, 0, 0, 1.0, 1.0, True)], gamma=0.5)
        assert mdp.discounts.tolist() == [0.5, 0.0]
        with pytest.raises(DataError, match="rows, row 1: next_state is empty"):
            MDP.from_table([(0, 0, missing, 1.0, 1.0)], gamma=0.5)


@pytest.mark.parametrize(
    "row", [7, "0,0,1,1,1", (0, 0, 1, 1.0), (0, 0, 1, 1.0, 1.0, 0, 0), {"state": 0}]
)
def test_a_row_of_another_form_is_named(row):
    with pytest.raises(DataError, match="rows, row 2"):
        MDP.from_table([(0, 0, 1, 1.0, 1.0), row], gamma=0.5)


def test_a_byte_order_mark_and_blanks_around_column_names_do_no_harm(tmp_path):
    header = HEADER.replace(",", " , ")
    mdp = table(tmp_path, "0,0,1,1,1,0\n", encoding="utf-8-sig", header=header)
    assert mdp.num_states == 2


def test_a_damaged_parquet_file_is_named(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="t.parquet can not be read as Parquet"):
        MDP.from_table(tmp_path / "t.parquet", gamma=0.5)


# ---------------------------------------------------------------------- NumPy archives
SPARSE = {
    "data": np.ones(2), "indices": np.array([1, 0]), "indptr": np.array([0, 1, 2]),
    "num_actions": np.array(1), "R": np.zeros((2, 1)), "gamma": np.array(0.9),
}  # fmt: skip


def test_a_sparse_archive_is_read_with_its_ends_and_empty_rows(tmp_path):
    changed = {
        "indptr": np.array([0, 1, 1]),
        "data": [1],
        "indices": [1],
        "terminal": [False, True],
    }
    np.savez(tmp_path / "m.npz", **SPARSE | changed)
    mdp = mdp_from_npz(tmp_path / "m.npz")
    assert mdp.num_pairs == 1 and mdp.terminal.tolist() == [False, True] and mdp.gamma == 0.9


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"num_actions": np.array(0)}, DataError, "key 'num_actions' is 0; at least 1"),
        ({"num_actions": np.array([1, 1])}, DataError, r"key 'num_actions' has shape \(2,\).*one integer"),
        ({"num_actions": np.array(1.5)}, DataError, "key 'num_actions' has .* dtype float64; one integer"),
        ({"num_actions": np.array(3)}, DataError, r"key 'indptr' has 3 entries; expected S \* num_actions \+ 1"),
        ({"indptr": np.zeros(0, int)}, DataError, "key 'indptr' has 0 entries"),
        ({"indptr": np.array([0, 1, 3])}, DataError, r"key 'indptr' must rise from 0 to 2.* got 0\.\.3"),
        ({"indptr": np.array([0.0, 1.0, 2.0])}, DataError, "key 'indptr' has .*expected one row of integers"),
        ({"indices": np.array(["a", "b"])}, DataError, "key 'indices' has .*expected one row of integers"),
        ({"indices": np.array([1, 2**32])}, MDPError, r"indices\[1\] is 4294967296"),
        ({"data": np.ones(1)}, DataError, "key 'data' has 1 entries, expected 2"),
        ({"data": np.ones((2, 1))}, DataError, r"key 'data' has shape \(2, 1\)"),
        ({"R": np.zeros(1)}, DataError, r"key 'R' has shape \(1,\).*expected r\(s, a\).*\(2, 1\)"),
        ({"R": np.zeros((2, 1), complex)}, DataError, "key 'R' has .*complex128"),
        ({"gamma": np.array([0.9, 0.8])}, DataError, r"key 'gamma' has shape \(2,\).*one number"),
        ({"gamma": np.array("much")}, DataError, "key 'gamma' has .*one number"),
        ({"start": np.ones(3) / 3}, ShapeError, r"start has shape \(3,\)"),
        ({"terminal": np.array([True])}, ShapeError, r"terminal has shape \(1,\)"),
    ],
)  # fmt: skip
def test_a_key_that_does_not_fit_is_named_with_its_file(tmp_path, changes, error, message):
    np.savez(tmp_path / "m.npz", **SPARSE | changes)
    with pytest.raises(error, match=message) as caught:
        mdp_from_npz(tmp_path / "m.npz")
    assert error is not DataError or "m.npz" in str(caught.value)


def test_keys_that_are_missing_are_listed(tmp_path):
    np.savez(tmp_path / "m.npz", R=np.zeros((2, 1)), indptr=np.zeros(3))
    with pytest.raises(DataError, match="m.npz lacks data, indices, num_actions. Expected P and R"):
        mdp_from_npz(tmp_path / "m.npz", gamma=0.9)
    with pytest.raises(InputError, match="has no key 'gamma': pass gamma"):
        mdp_from_npz(tmp_path / "m.npz")


def test_a_damaged_archive_is_named_wherever_the_damage_is(tmp_path):
    path = tmp_path / "m.npz"
    np.savez_compressed(path, **SPARSE)
    whole = path.read_bytes()
    rng, refused = np.random.default_rng(0), 0
    damaged = [whole[:n] for n in (0, 3, 40, len(whole) // 2, len(whole) - 1)]
    for place in rng.integers(len(whole), size=200):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        try:  # a time stamp may change unnoticed; a name in the directory is a missing key
            mdp_from_npz(path)
        except InputError as error:
            refused += "m.npz" in str(error)
    assert refused >= 100 and refused > len(damaged) // 2


def test_one_array_with_the_name_of_an_archive_is_refused(tmp_path):
    np.save(tmp_path / "m.npy", np.zeros((2, 1, 2)))
    (tmp_path / "m.npy").rename(tmp_path / "m.npz")
    with pytest.raises(DataError, match="m.npz can not be read as .npz.*one array without a name"):
        mdp_from_npz(tmp_path / "m.npz", gamma=0.9)
