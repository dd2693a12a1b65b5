"""A user's own model in, the answer out: CSV, Parquet, NPZ and Python files.

A table has the columns state, action, next_state, probability, reward and optionally terminated.
States and actions are numbers or any text; rows with one (state, action, next_state) add up; pairs
that do not occur are infeasible; states without a row of their own are terminal.

Not here: other libraries' formats (matrices.py, builders.py).
"""

import csv
import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dodona.errors import DataError, InputError, MissingDependencyError
from dodona.mdp.formats.dense import terminal_mask
from dodona.mdp.model import MDP, Labels
from dodona.mdp.rows import Model

COLUMNS = ("state", "action", "next_state", "probability", "reward")
TRUE = {"1", "true", "yes", "True", "TRUE"}


def mdp_from_table(path: Any, *, gamma: float | None = None) -> MDP:
    """An MDP from a CSV or Parquet file, or from rows (tuples or mappings).

    Args:
        path: a file, or rows of (state, action, next_state, probability, reward[, terminated]).
        gamma: discount; needed, a table holds none.
    Raises:
        DataError: the file and line of the first row that can not be read.
        MDPError: rows that are no distribution (state and action are numbered as they first occur).
        InputError: no gamma.  MissingDependencyError: Parquet without the extra "parquet".
    """
    if gamma is None:
        raise InputError("a table holds no discount: pass gamma, for instance gamma=0.95.")
    if isinstance(path, (str, os.PathLike)):
        rows, where = _read(Path(path)), str(path)
    else:
        rows, where = [_mapping(row) for row in path], "rows"
    if not rows:
        raise DataError(f"{where} holds no transition. Expected columns: {', '.join(COLUMNS)}.")
    parsed = [_parse(row, number, where) for number, row in enumerate(rows, start=1)]
    states = _numbering([x for p in parsed for x in (p[0], p[2])])
    actions = _numbering([p[1] for p in parsed])
    return _assemble(parsed, states, actions, gamma)


def mdp_from_npz(path: str | os.PathLike, *, gamma: float | None = None) -> MDP:
    """An MDP from .npz: P [S, A, S], or data, indices, indptr, num_actions (rows s * A + a), and R.

    Optional keys: gamma, terminal, start. gamma= wins over the file's.
    Raises: DataError: a missing key or an unreadable file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            data = dict(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can not be read as .npz without pickles: {error}.") from None
    if gamma is None and "gamma" in data:
        gamma = float(data["gamma"])
    if gamma is None:
        raise InputError(f"{path} has no key 'gamma': pass gamma, for instance gamma=0.95.")
    missing = {"R"} - set(data)
    if "P" not in data:
        missing |= {"data", "indices", "indptr", "num_actions"} - set(data)
    if missing:
        raise DataError(
            f"{path} lacks {', '.join(sorted(missing))}. Expected P and R, or data, indices, "
            f"indptr, num_actions and R; got {', '.join(sorted(data))}."
        )
    start = data.get("start")
    if "P" in data:
        return MDP.from_dense(
            data["P"], data["R"], gamma=gamma, layout="sas", terminal=data.get("terminal"), start=start
        )  # fmt: skip
    A = int(data["num_actions"])
    L = len(data["indptr"]) - 1
    terminal = terminal_mask(data.get("terminal"), L // A)
    counts = np.diff(data["indptr"])
    keep = (counts > 0) & ~np.repeat(terminal, A)
    entries = np.repeat(keep, counts)
    pair = np.flatnonzero(keep)
    return MDP.from_pairs(
        pair_state=pair // A,
        pair_action=pair % A,
        indptr=np.concatenate([[0], np.cumsum(counts[keep])]),
        indices=data["indices"][entries],
        probs=data["data"][entries],
        rewards=np.asarray(data["R"], dtype=np.float64).reshape(-1)[pair],
        num_states=L // A,
        gamma=gamma,
        terminal=terminal,
        start=start,
        num_actions=A,
    )


def mdp_from_file(path: str | os.PathLike, *, gamma: float | None = None) -> MDP:
    """An MDP from .csv, .parquet, .npz, or a .py file with ``mdp() -> MDP`` (which is executed)."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}. Expected a .csv, .parquet, .npz or .py model.")
    if path.suffix in (".csv", ".parquet"):
        return mdp_from_table(path, gamma=gamma)
    if path.suffix == ".npz":
        return mdp_from_npz(path, gamma=gamma)
    if path.suffix != ".py":
        raise DataError(f"{path} has suffix '{path.suffix}', expected .csv, .parquet, .npz or .py.")
    spec = importlib.util.spec_from_file_location("user_mdp", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "mdp", None)):
        raise DataError(f"{path} defines no function mdp(). Expected: def mdp() -> MDP.")
    model = module.mdp()
    if not isinstance(model, MDP):
        raise DataError(
            f"mdp() in {path} returned {type(model).__name__}, expected dodona.mdp.MDP."
        )
    return model if gamma is None else model.replace(gamma=gamma)


def mdp_to_table(mdp: MDP, path: str | os.PathLike) -> None:
    """Write every transition as a row, numbers exact to the last bit."""
    counts = np.diff(mdp.indptr)
    pair = np.repeat(np.arange(mdp.num_pairs), counts)
    reward = mdp.rewards[pair] if mdp.transition_rewards is None else mdp.transition_rewards
    ended = mdp.terminal[mdp.indices]
    if mdp.discounts is not None:
        ended = ended | (mdp.discounts == 0)
    states, actions = _names(mdp)
    columns = {
        "state": [states[s] for s in mdp.pair_state[pair]],
        "action": [actions[a] for a in mdp.actions[pair]],
        "next_state": [states[s] for s in mdp.indices],
        "probability": [float(p) for p in mdp.probs],
        "reward": [float(r) for r in reward],
        "terminated": [int(e) for e in ended],
    }
    _write(Path(path), columns)


def write_solution(solution: Any, mdp: Model, path: str | os.PathLike) -> None:
    """Write state, value, lower, upper, action; one row per state, numbers exact to the last bit."""
    _write(Path(path), solution_columns(solution, mdp))


def solution_columns(solution: Any, mdp: Model) -> dict[str, list[Any]]:
    """The columns of a solution's table; the action of a terminal state is empty."""
    if solution.values.ndim != 1 or solution.policy.ndim != 1:
        raise InputError("only a solution with one action per state has such a table.")
    states, actions = _names(mdp)
    return {
        "state": list(states),
        "value": [float(x) for x in solution.values],
        "lower": [float(x) for x in solution.lower],
        "upper": [float(x) for x in solution.upper],
        "action": ["" if a < 0 else str(actions[a]) for a in solution.policy],
    }


# ---------------------------------------------------------------------- private
def _names(mdp: Model) -> tuple[Any, Any]:
    labels = mdp.labels or Labels()
    states = labels.states or range(mdp.first, mdp.first + mdp.num_states)
    return states, labels.actions or range(mdp.num_actions)


def _write(path: Path, columns: Mapping[str, list[Any]]) -> None:
    if path.suffix == ".parquet":
        pyarrow = _pyarrow()
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path)
        return
    if path.suffix != ".csv":
        raise InputError(f"{path} has suffix '{path.suffix}', expected .csv or .parquet.")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _read(path: Path) -> list[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        table = _pyarrow().parquet.read_table(path)
        rows, names = table.to_pylist(), table.column_names
    else:
        try:
            with open(path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows, names = list(reader), reader.fieldnames or []
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path} can not be read as CSV: {error}.") from None
    missing = [c for c in COLUMNS if c not in names]
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(names)}. "
            f"Expected: {', '.join(COLUMNS)} and optionally terminated."
        )
    return rows


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet  # noqa: F401  makes pyarrow.parquet an attribute
    except ImportError:
        raise MissingDependencyError(
            "Parquet needs pyarrow: pip install 'dodona[parquet]'."
        ) from None
    return pyarrow


def _mapping(row: Any) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    return dict(zip((*COLUMNS, "terminated"), row, strict=False))


def _parse(
    row: Mapping[str, Any], number: int, where: str
) -> tuple[str, str, str, float, float, bool]:
    line = f"{where}, row {number}" if where == "rows" else f"{where}, line {number + 1}"
    try:
        probability, reward = float(row["probability"]), float(row["reward"])
        names = tuple(str(row[c]).strip() for c in COLUMNS[:3])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{line} can not be read: {error}. Row: {dict(row)}.") from None
    if not 0 <= probability <= 1 or not np.isfinite(reward):
        raise DataError(
            f"{line}: probability {probability!r} and reward {reward!r}; a probability in [0, 1] and a "
            "finite reward are expected."
        )
    return (*names, probability, reward, str(row.get("terminated", "")).strip() in TRUE)


def _numbering(names: Iterable[str]) -> dict[str, int]:
    """Name -> number: the numbers themselves where names are 0..n-1, else in order of occurrence."""
    unique = dict.fromkeys(names)
    if all(n.isdigit() and str(int(n)) == n for n in unique):
        return {str(i): i for i in range(max(int(n) for n in unique) + 1)}
    return {n: i for i, n in enumerate(unique)}


def _assemble(
    parsed: list[tuple], states: dict[str, int], actions: dict[str, int], gamma: float
) -> MDP:
    S = len(states)
    state = np.array([states[p[0]] for p in parsed])
    action = np.array([actions[p[1]] for p in parsed])
    successor = np.array([states[p[2]] for p in parsed])
    probs, reward = np.array([p[3] for p in parsed]), np.array([p[4] for p in parsed])
    ended = np.array([p[5] for p in parsed])
    # one key per transition; a terminated one stays apart from one that lives on
    key = np.stack([state, action, successor, ended])
    unique, inverse = np.unique(key, axis=1, return_inverse=True)
    inverse = inverse.ravel()
    total = np.bincount(inverse, weights=probs)
    paid = np.bincount(inverse, weights=probs * reward)
    state, action, successor = unique[0], unique[1], unique[2]
    ended = unique[3].astype(bool)
    terminal = np.ones(S, dtype=bool)
    terminal[state] = False
    first = np.flatnonzero(np.diff(state, prepend=-1) | np.diff(action, prepend=-1))
    mixed = bool(np.any(ended & ~terminal[successor]))
    text = tuple(states)
    numbered = all(n.isdigit() for n in (*text, *actions))
    labels = None if numbered else Labels(states=text, actions=tuple(actions))
    return MDP.from_pairs(
        pair_state=state[first],
        pair_action=action[first],
        indptr=np.concatenate([first, [len(state)]]),
        indices=successor,
        probs=total,
        rewards=np.add.reduceat(paid, first),
        transition_rewards=np.divide(paid, total, out=np.zeros_like(paid), where=total > 0),
        num_states=S,
        gamma=gamma,
        terminal=terminal,
        discounts=np.where(ended, 0.0, gamma) if mixed else None,
        labels=labels,
        num_actions=len(actions),
    )
