"""A user's own model in, the answer out: CSV, Parquet and Python files.

A table has the columns state, action, next_state, probability, reward and optionally terminated.
Rows with one (state, action, next_state) add up; pairs that do not occur are infeasible; states
without a row of their own are terminal. States that are named exactly 0..S-1 have these numbers;
any other names are labels: whole numbers with gaps, numbered by size, or text (leading zeros
included), numbered as it first occurs. Actions likewise.

Not here: NumPy archives (npz.py), other libraries' formats (matrices.py, gymnasium_table.py).
Source: RFC 4180 (CSV); the columns are ours.
"""

import csv
import importlib.util
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dodona.errors import DataError, InputError, MDPError, MissingDependencyError
from dodona.mdp.formats.npz import mdp_from_npz
from dodona.mdp.model import MDP, Labels
from dodona.mdp.rows import Model
from dodona.mdp.validation import LAYOUT_HINT

COLUMNS = ("state", "action", "next_state", "probability", "reward")
TRUE = frozenset(("1", "1.0", "true", "yes", "t", "y"))
FALSE = frozenset(("0", "0.0", "false", "no", "f", "n", ""))
# pandas writes a column of integers with a gap in it as floats; 007 is a name
WHOLE = re.compile(r"(0|[1-9][0-9]*)(\.0+)?")
Row = tuple[str, str, str, float, float, bool]


def mdp_from_table(path: Any, *, gamma: float | None = None) -> MDP:
    """An MDP from a CSV or Parquet file, or from rows (tuples or mappings).

    Args:
        path: a file, or rows of (state, action, next_state, probability, reward[, terminated]).
            Names are text or numbers, 1.0 is 1; terminated is 1/0, true/false, yes/no, t/f or y/n in
            any case, and empty means that it goes on.
        gamma: discount in [0, 1]; needed, a table holds none.
    Raises:
        DataError: the file and line of the first row that can not be read.
        MDPError: rows that are no distribution; state and action by name and number.
        InputError: no gamma.  MissingDependencyError: Parquet without the extra "parquet".
    Source: see the module.  Oracle: MDP.from_dense on the same numbers.  Cost: O(rows log rows).

    >>> mdp = mdp_from_table([("shut", "wait", "open", 1, 0), ("open", "sell", "gone", 1, 5)], gamma=0.9)
    >>> mdp.labels.states, mdp.terminal.tolist()
    (('shut', 'open', 'gone'), [False, False, True])
    """
    if gamma is None:
        raise InputError("a table holds no discount: pass gamma, for instance gamma=0.95.")
    if isinstance(path, (str, os.PathLike)):
        rows, where = _read(Path(path)), str(path)
    else:
        rows, where = _given(path), "rows"
    if not rows:
        raise DataError(f"{where} holds no transition. Expected columns: {', '.join(COLUMNS)}.")
    parsed = [_parse(row, line) for line, row in rows]
    return _assemble(parsed, gamma)


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


def _given(rows: Iterable) -> list[tuple[str, Mapping[str, Any]]]:
    """(where it stands, row) for each row in memory."""
    named = []
    for number, row in enumerate(rows, start=1):
        line = f"rows, row {number}"
        if not isinstance(row, Mapping):
            if isinstance(row, str) or not isinstance(row, Iterable):
                raise DataError(
                    f"{line} is {row!r}, expected ({', '.join(COLUMNS)}[, terminated])."
                )
            row = _by_column(tuple(row), (*COLUMNS, "terminated"), line, optional=1)
        named.append((line, row))
    return named


def _read(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """(where it stands, row) for each row of a file."""
    rows, names = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    missing = [c for c in COLUMNS if c not in names]
    if not missing:
        return rows
    text = (
        f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(names)}. "
        f"Expected: {', '.join(COLUMNS)} and optionally terminated."
    )
    if len(names) == 1:
        for mark, name in ((";", "';'"), ("\t", "tabs"), ("|", "'|'")):
            if mark in names[0]:
                text += f" Its columns are separated by {name}; write it with commas."
    raise DataError(text)


def _read_csv(path: Path) -> tuple[list[tuple[str, Mapping[str, Any]]], list[str]]:
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front, which is no part of the first name
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            names = [name.strip() for name in next(reader, [])]
            # blank lines count as lines and are no rows
            lines = [(f"{path}, line {reader.line_num}", tuple(row)) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} can not be read as CSV: {error}.") from None
    twice = [c for c in COLUMNS if names.count(c) > 1]
    if twice:
        raise DataError(f"{path} has the column {twice[0]} twice; keep the one that is meant.")
    if set(COLUMNS) - set(names):
        return [], names  # said by the caller; cut into wrong fields, no line would make sense
    return [(line, _by_column(row, names, line)) for line, row in lines], names


def _read_parquet(path: Path) -> tuple[list[tuple[str, Mapping[str, Any]]], list[str]]:
    pyarrow = _pyarrow()
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} can not be read as Parquet: {error}.") from None
    rows = [(f"{path}, row {i}", row) for i, row in enumerate(table.to_pylist(), start=1)]
    return rows, table.column_names


def _by_column(
    fields: tuple, names: Sequence[str], line: str, *, optional: int = 0
) -> dict[str, Any]:
    """Column -> field; DataError where a row has fewer or more fields than there are columns."""
    if not len(names) - optional <= len(fields) <= len(names):
        raise DataError(
            f"{line} has {len(fields)} fields, expected {len(names)} ({', '.join(names)}). "
            f"A decimal comma, or an unquoted one in a name? Row: {fields}."
        )
    return dict(zip(names, fields, strict=False))


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet  # noqa: F401  makes pyarrow.parquet an attribute
    except ImportError:
        raise MissingDependencyError(
            "Parquet needs pyarrow: pip install 'dodona[parquet]'."
        ) from None
    return pyarrow


def _parse(row: Mapping[str, Any], line: str) -> Row:
    try:
        probability, reward = float(row["probability"]), float(row["reward"])
        names = tuple(_text(row[c]) for c in COLUMNS[:3])
    except (KeyError, TypeError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{line} can not be read: {what}. Row: {dict(row)}.") from None
    if "" in names:
        column = COLUMNS[names.index("")]
        raise DataError(f"{line}: {column} is empty; a name or a number is expected.")
    if not 0 <= probability <= 1 or not np.isfinite(reward):
        raise DataError(
            f"{line}: probability {probability!r} and reward {reward!r}; a probability in [0, 1] and a "
            "finite reward are expected."
        )
    word = _text(row.get("terminated")).lower()
    if word not in TRUE | FALSE:
        raise DataError(
            f"{line}: terminated is {row['terminated']!r}; expected 1 or 0, true or false, yes or no."
        )
    return (*names, probability, reward, word in TRUE)


def _text(field: Any) -> str:
    """A field without blanks around it; empty for what Parquet and pandas hold where nothing stood."""
    if field is None or (isinstance(field, float | np.floating) and np.isnan(field)):
        return ""
    return str(field).strip()


def _numbering(names: Iterable[str]) -> tuple[dict[str, int], tuple[str, ...] | None]:
    """(name -> number, labels): the numbers themselves where the names are 0..n-1, without labels."""
    whole = {name: WHOLE.fullmatch(name) for name in names}
    plain = {name: match[1] if match else name for name, match in whole.items()}
    if not all(whole.values()):  # 1.0 beside 1.1 or "closed" is a name
        plain = {name: name for name in whole}
    labels = tuple(dict.fromkeys(plain.values()))
    if all(whole.values()):
        # by size, compared as text: an id of a thousand digits is no number to compute with
        labels = tuple(sorted(labels, key=lambda digits: (len(digits), digits)))
    number = {label: i for i, label in enumerate(labels)}
    counted = all(label == str(i) for i, label in enumerate(labels))
    return {name: number[label] for name, label in plain.items()}, None if counted else labels


def _assemble(parsed: list[Row], gamma: float) -> MDP:
    states, state_names = _numbering(x for p in parsed for x in (p[0], p[2]))
    actions, action_names = _numbering(p[1] for p in parsed)
    S, A = len(set(states.values())), len(set(actions.values()))
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
    labels = None
    if state_names or action_names:
        labels = Labels(states=state_names, actions=action_names)
    try:
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
            num_actions=A,
        )
    except MDPError as error:
        raise _by_name(error, labels) from None


def _by_name(error: MDPError, labels: Labels | None) -> MDPError:
    """The error with the names of the table, and without advice that is for arrays."""
    text = str(error).removesuffix(LAYOUT_HINT)
    s, a = error.state, error.action
    if labels is None or s is None or a is None:
        return MDPError(text, state=s, action=a)
    numbers = f"state {s}, action {a}"
    state = labels.states[s] if labels.states else s
    action = labels.actions[a] if labels.actions else a
    named = f"state {state}, action {action} ({numbers})"
    return MDPError(text.replace(numbers, named, 1), state=s, action=a)
