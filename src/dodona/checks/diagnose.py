"""Which bug explains these values? Learned values beside the fixed point of every known bug.

    diagnosis = diagnose(q, mdp)
    print(diagnosis)

Almost every bug of a learner makes it converge, to other values; those are computed exactly and compared.
The nearest one is named, with the distances of all, and with what can not be told apart on this model.

Not here: bugs that leave the fixed point alone (they slow learning down), and values that have not
converged: then every distance is large.
Source: card oracle-kit-rl, sec. 5; oracles.learning_bugs.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from dodona.core.shapes import FloatArray
from dodona.errors import DataError, InputError, ShapeError
from dodona.mdp import MDP
from dodona.oracles.learning_bugs import LEARNING_BUGS, buggy_action_values

CORRECT = "correct"
SAME = 1e-6  # two fixed points nearer than this share of the values' spread are one
CLEAR = 2.0  # the second best must be so many times as far for a clear verdict


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What explains the values.

    best: "correct", or a key of oracles.learning_bugs.LEARNING_BUGS.
    distances: name -> root mean square distance over what was compared, reward units, nearest first.
    alike: name -> the names whose fixed points are the same on this model, so that nothing tells them apart.
    clear: the next best is at least twice as far.
    """

    best: str
    distances: Mapping[str, float]
    alike: Mapping[str, tuple[str, ...]]

    @property
    def clear(self) -> bool:
        first, *rest = self.distances.values()
        return not rest or rest[0] >= CLEAR * first

    def __str__(self) -> str:
        what = "the values are right" if self.best == CORRECT else LEARNING_BUGS[self.best]
        lines = [f"{self.best}: {what}" + ("" if self.clear else " (not clear: another is almost as near)")]  # fmt: skip
        if self.alike.get(self.best):
            lines.append(f"  the same values on this model: {', '.join(self.alike[self.best])}")
        lines += [f"  {distance:12.6g}  {name}" for name, distance in self.distances.items()]
        return "\n".join(lines)


def diagnose(
    q: Shaped[np.ndarray, "..."],
    mdp: MDP,
    *,
    behaviour: Shaped[np.ndarray, "..."] | None = None,
    target: Literal["optimal", "policy"] = "optimal",
    limit: int | None = None,
    stale: float | None = None,
) -> Diagnosis:
    """Name the bug whose fixed point lies nearest to learned values.

    distance(b) = root mean square of q - q_b over live states and feasible actions.

    Args:
        q: [S, A] action values, or [S] state values; NaN where nothing was learnt.
        mdp: the environment as it is.
        behaviour: [S] or [S, A], the policy that acted; None: every feasible action equally often.
        target: what should have been learnt: "optimal" values, or those of the behaviour ("policy").
        limit: steps after which episodes were truncated.
        stale: first value of every entry; None: what q says in terminal states, else 1.
    Returns: Diagnosis.
    Raises: ShapeError: q.  InputError: nothing finite to compare, or discounts per transition.
    Source: card oracle-kit-rl, sec. 5.
    Oracle: oracles.learning_bugs.buggy_action_values, itself judged by learners with the bug.
    Cost: up to 4000 dense sweeps per bug.
    """
    q = np.asarray(q, dtype=float)
    S, A = mdp.num_states, mdp.num_actions
    if q.shape not in ((S,), (S, A)):
        raise ShapeError(f"q has shape {q.shape}, expected [S, A] = ({S}, {A}) or [S] = ({S},).")
    P, R, gamma = mdp.dense()
    mask = mdp.action_mask
    if behaviour is None:
        behaviour = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    if stale is None:
        ends = q[mdp.terminal]
        finite = ends[np.isfinite(ends)]
        stale = float(finite.flat[0]) if finite.size and np.any(finite) else 1.0
    options: dict[str, Any] = {
        "behaviour": behaviour, "target": target, "terminal": mdp.terminal, "action_mask": mask,
        "start": mdp.start, "limit": limit, "stale": stale,
    }  # fmt: skip
    counted = np.isfinite(q) & (~mdp.terminal if q.ndim == 1 else mask)
    if not counted.any():
        raise InputError("q has no finite value in a live state, so there is nothing to compare.")
    points = {}
    for bug in (None, *LEARNING_BUGS):
        found = buggy_action_values(bug, P, R, gamma, **options)
        if found is not None:
            points[bug or CORRECT] = _as_values(found, options, q.ndim, bug)[counted]
    spread = float(np.ptp(points[CORRECT])) + float(np.abs(points[CORRECT]).max()) + 1e-300
    kept: dict[str, FloatArray] = {}
    alike: dict[str, list[str]] = {}
    for name, point in points.items():
        twin = next((k for k, x in kept.items() if _near(point, x, SAME * spread)), None)
        if twin is None:
            kept[name] = point
        else:
            alike.setdefault(twin, []).append(name)
    distances = {name: _distance(q[counted], point) for name, point in kept.items()}
    order = sorted(distances, key=distances.__getitem__)
    return Diagnosis(
        best=order[0],
        distances={name: distances[name] for name in order},
        alike={name: tuple(names) for name, names in alike.items()},
    )


def read_values(path: str | Path) -> Shaped[np.ndarray, "..."]:
    """Learned values from .npz (key q, or values), .npy, or .csv (a row per state, a column per action).

    A first line of names in a CSV is skipped; a column named "state" is left out.
    Raises: DataError: no such file, no such key, a cell that is no number (line named).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}. Expected values as .npz, .npy or .csv.")
    if path.suffix == ".csv":
        return _read_csv(path)
    if path.suffix not in (".npz", ".npy"):
        raise DataError(f"{path} has suffix '{path.suffix}', expected .npz, .npy or .csv.")
    try:
        data = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can not be read without pickles: {error}.") from None
    if path.suffix == ".npy":
        return data
    with data:
        name = next((key for key in ("q", "values") if key in data), None)
        if name is None:
            raise DataError(f"{path} has no key q or values; it has {', '.join(sorted(data))}.")
        return data[name]


def _as_values(
    found: np.ndarray, options: dict[str, Any], ndim: int, bug: str | None
) -> np.ndarray:
    """The [S, A] fixed point, or what a learner of state values has there."""
    if ndim == 2:
        return found
    policy = np.asarray(options["behaviour"])
    mean = options["target"] == "policy" and bug != "maximum for mean" or bug == "mean for maximum"
    if mean:
        share = np.eye(found.shape[1])[policy] if policy.ndim == 1 else policy
        return np.where(share > 0, share * np.nan_to_num(found), 0.0).sum(axis=1)
    fill = np.inf if bug == "minimum for maximum" else -np.inf
    filled = np.where(np.isnan(found), fill, found)
    return filled.min(axis=1) if bug == "minimum for maximum" else filled.max(axis=1)


def _near(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return False
    return bool(np.abs(a - b).max() <= tolerance)


def _distance(got: np.ndarray, point: np.ndarray) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        distance = float(np.sqrt(np.mean((got - point) ** 2)))
    return distance if np.isfinite(distance) else float("inf")


def _read_csv(path: Path) -> np.ndarray:
    with open(path, newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    skip: set[int] = set()
    begin = 0
    if rows and not _number(rows[0][-1]):
        skip = {i for i, name in enumerate(rows[0]) if name.strip().lower() == "state"}
        begin = 1
    table = []
    for line, row in enumerate(rows[begin:], start=begin + 1):
        cells = [cell for i, cell in enumerate(row) if i not in skip]
        if not all(_number(cell) for cell in cells):
            bad = next(cell for cell in cells if not _number(cell))
            raise DataError(f"{path}, line {line}: '{bad}' is no number.")
        table.append([float(cell) for cell in cells])
    if not table or len({len(row) for row in table}) > 1:
        raise DataError(
            f"{path} is no table: a row per state with as many numbers each is expected."
        )
    values = np.array(table)
    return values[:, 0] if values.shape[1] == 1 else values


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
