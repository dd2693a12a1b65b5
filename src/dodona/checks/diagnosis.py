"""Which bug explains these values? Learned values beside the fixed point of every known bug.

    diagnosis = diagnose(q, mdp)
    print(diagnosis)

Almost every bug of a learner makes it converge, to other values; those are computed exactly and compared.
The nearest one is named, with the distances of all, and with what can not be told apart on this model.

Values that have not converged lie near nothing, or worse, near a bug by chance: say with ``visits`` how
often each was tried, and only well-tried ones are compared.

Not here: bugs that leave the fixed point alone (they slow learning down), runs (verbs/diagnose.py).
Source: card oracle-kit-rl, sec. 5; oracles.learning_bugs.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from dodona.core.shapes import FloatArray
from dodona.errors import DataError, InputError, ShapeError
from dodona.mdp import MDP
from dodona.oracles.learning_bugs import LEARNING_BUGS, buggy_action_values

CORRECT = "correct"
SAME = 1e-6  # two fixed points nearer than this share of the values' spread are one
CLEAR = 2.0  # the second best must be so many times as far for a clear verdict
TRIED = 100  # visits from which a value counts: at step size .1 its first value has faded by 1e-5
KEYS = ("q", "values")
FORMATS = ".npz, .npy, .csv or .safetensors"


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

    def to_json(self) -> dict[str, Any]:
        return {
            "best": self.best, "clear": self.clear, "distances": dict(self.distances),
            "alike": {name: list(names) for name, names in self.alike.items()},
        }  # fmt: skip

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
    behaviour: Shaped[np.ndarray, "..."] | float | None = None,
    target: Literal["optimal", "policy"] = "optimal",
    limit: int | None = None,
    stale: float | None = None,
    visits: Shaped[np.ndarray, "..."] | None = None,
) -> Diagnosis:
    """Name the bug whose fixed point lies nearest to learned values.

    distance(b) = root mean square of q - q_b over live states and feasible actions, well tried ones.

    Args:
        q: [S, A] action values, or [S] state values; NaN where nothing was learnt.
        mdp: the environment as it is.
        behaviour: [S] or [S, A], the policy that acted; a number: epsilon-greedy in q with so large a share
            of random actions, ties split; None: every feasible action equally often.
        target: what should have been learnt: "optimal" values, or those of the behaviour ("policy").
        limit: steps after which episodes were truncated.
        stale: first value of every entry; None: what q says in terminal states, else 1.
        visits: how often each entry of q was tried, in its shape; fewer than TRIED are left out. None: all count.
    Returns: Diagnosis.
    Raises: ShapeError: q or visits.  InputError: nothing to compare, an epsilon outside [0, 1] or without
        action values, or discounts per transition.
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
    elif np.ndim(behaviour) == 0:
        behaviour = _epsilon_greedy(q, mask, float(behaviour))
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
    if visits is not None:
        counted &= _well_tried(np.asarray(visits), q.shape)
        if not counted.any():
            raise InputError(
                f"no entry of q was tried {TRIED} times, so none is worth comparing. Learn longer, or leave "
                "the visits out."
            )
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


class Learned(NamedTuple):
    """What a file holds: values [S, A] or [S], and how often each was tried, or None."""

    values: np.ndarray
    visits: np.ndarray | None


def read_learned(path: str | Path) -> Learned:
    """Learned values from .npz or .safetensors (by name: q, or values), .npy, or .csv.

    A name may stand behind others, as in a checkpoint's "agent/q"; "visits" beside it is read too. A CSV has a
    row per state and a column per action; of its first line, if that is names, "state" is left out, and
    where a column is called "value" or "values" it is taken alone.

    Args: path: the file.
    Returns: Learned.
    Raises: DataError: no such file, no such key or many of them, a cell that is no number (line named).
    Source: ours.  Oracle: files written by NumPy and safetensors.  Cost: that of the file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"there is no file {path}. Expected values as {FORMATS}, or a run's folder."
        )
    if path.suffix == ".csv":
        return Learned(_read_csv(path), None)
    if path.suffix not in (".npz", ".npy", ".safetensors"):
        raise DataError(f"{path} has suffix '{path.suffix}', expected {FORMATS}.")
    try:
        data = _arrays(path)
    except Exception as error:  # each format has exceptions of its own
        raise DataError(f"{path} can not be read without pickles: {error}.") from None
    if isinstance(data, np.ndarray):
        return Learned(data, None)
    named = {name: [key for key in data if key.rpartition("/")[2] == name] for name in (*KEYS, "visits")}  # fmt: skip
    found = next((named[name] for name in KEYS if named[name]), [])
    if len(found) != 1:
        what = f"several keys: {', '.join(found)}" if found else "no key q or values"
        raise DataError(f"{path} has {what}; it has {', '.join(sorted(data))}. Keep one of them.")
    visits = found[0].rpartition("/")[0] + "/visits" if "/" in found[0] else "visits"
    return Learned(data[found[0]], data.get(visits))


def _arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    data = np.load(path, allow_pickle=False)
    if path.suffix == ".npy":
        return data
    with data:
        return dict(data)


def _epsilon_greedy(
    q: np.ndarray, mask: Bool[np.ndarray, "S A"], epsilon: float
) -> Shaped[np.ndarray, "S A"]:
    if q.ndim == 1:
        raise InputError("state values name no greedy action: give the behaviour as [S] or [S, A].")
    if not 0.0 <= epsilon <= 1.0:
        raise InputError(f"epsilon must be in [0, 1], got {epsilon}. 0.1 is usual.")
    known = np.where(mask & ~np.isnan(q), q, -np.inf)
    best = mask & (known == known.max(axis=1, keepdims=True))
    greedy, even = (x / np.maximum(x.sum(axis=1, keepdims=True), 1) for x in (best, mask))
    return (1.0 - epsilon) * greedy + epsilon * even


def _well_tried(visits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if visits.shape != shape:
        raise ShapeError(f"visits has shape {visits.shape}, expected that of q, {shape}.")
    return visits >= TRIED


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
        names = [name.strip().lower() for name in rows[0]]
        alone = next((i for i, name in enumerate(names) if name in ("value", "values")), None)
        skip = {i for i, name in enumerate(names) if name == "state" or alone not in (None, i)}
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
