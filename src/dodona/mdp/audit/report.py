"""What an audit found: records, and the same as JSON.

Not here: how it is found (examine.py), the words (text.py), the page (dodona.audit_page).
Source: see audit.py.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from dodona.core.shapes import BoolArray, IntArray
from dodona.errors import InputError
from dodona.mdp.audit.limited_play import Interval, Play, start_mean
from dodona.mdp.model import MDP
from dodona.mdp.solution import Solution

POINTS = 40  # of the returns by time limit in the JSON
Problem = Literal["", "never ends", "gains for ever", "better not to end"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large the model is; all but num_states counts only what can be reached from a start state.

    num_live: states where something is decided. actions: fewest and most feasible actions there.
    num_pairs, num_transitions: rows of the table, entries of its rows. num_endings: entries that end
    the episode. rewards: least and most of one transition.
    """

    num_states: int
    num_reachable: int
    num_live: int
    num_starts: int
    actions: tuple[int, int]
    num_pairs: int
    num_transitions: int
    num_endings: int
    rewards: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Ties:
    """Live states with several optimal actions, and by how little the best action leads a worse one.

    smallest_gap: min over states of q(best) - q(best action that is not optimal), and its ``state``;
    None: every action is optimal everywhere.
    """

    num_tied: int
    smallest_gap: float | None
    state: int | None


@dataclass(frozen=True, kw_only=True)
class Loops:
    """Live states from where the episode never ends.

    stuck: whatever is done. avoidable: some policy stays among them for ever. tied: some choice among
    optimal actions stays among them for ever. first_tie: the choice of the first optimal action does
    not end. None: there is no optimum to be greedy for.
    """

    stuck: int
    avoidable: int
    tied: int | None
    first_tie: int | None


@dataclass(frozen=True, kw_only=True)
class Attainment:
    """Is the registered threshold reached in one setting? margin = return - threshold.

    reached: True and False are proven; None: the bracket holds the threshold.
    """

    setting: str
    margin: Interval
    reached: bool | None


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditReport:
    """Everything that the audit found; every number is exact or between proven bounds.

    mdp: the reachable part, at ``gamma``; states that can not be reached are terminal there.
    solution, undiscounted: optimum over policies that end, at ``gamma`` and at 1; at 1 there may be
    none: ``problem`` says why, ``problem_state`` where.
    limited: undiscounted optimum for every number of steps left.
    """

    env_id: str
    gamma: float
    limit: int | None
    threshold: float | None
    sizes: Sizes
    mdp: MDP = field(repr=False)
    reached: BoolArray = field(repr=False)
    solution: Solution | None = field(repr=False)
    undiscounted: Solution | None = field(repr=False)
    problem: Problem
    problem_state: int | None
    limited: Solution = field(repr=False)
    plays: tuple[Play, ...]
    ties: Ties | None
    loops: Loops

    @property
    def optimum(self) -> Interval | None:
        """Mean of v* over the start distribution, at ``gamma``."""
        return self._mean(self.solution)

    @property
    def undiscounted_optimum(self) -> Interval | None:
        """Mean of v* over the start distribution, at gamma 1."""
        return self._mean(self.undiscounted)

    @property
    def time_aware(self) -> Play | None:
        """The optimum under the registered limit; None: no limit is registered."""
        return next((p for p in self.plays if p.kind == "time-aware"), None)

    @property
    def best_stationary(self) -> Play | None:
        """Of the stationary policies played, the first with the largest return."""
        found = [p for p in self.plays if p.kind == "stationary" and p.earned is not None]
        best = max((p.earned.lower for p in found), default=0.0)
        return next((p for p in found if math.isclose(p.earned.lower, best, rel_tol=1e-9)), None)

    def limits(self, num_points: int) -> IntArray:
        """Time limits from 1 to the longest one computed, evenly spread on a log axis."""
        longest = len(self.limited.policy)
        return np.unique(np.geomspace(1, longest, num_points).round().astype(int))

    def values_with(self, steps: int) -> Float[np.ndarray, "S"]:
        """Optimal undiscounted values with that many steps left, at most len(limited.values) - 1."""
        return self.limited.values[len(self.limited.values) - 1 - steps]

    def starts(self) -> list[dict[str, Any]]:
        """One row per start state: state, probability, optimum with its bracket, and within_limit.

        ``optimum`` is at ``gamma`` and left out where there is none, ``within_limit`` without a limit.
        """
        rows = []
        for s in np.flatnonzero(self.mdp.start).tolist():
            row: dict[str, Any] = {"state": s, "probability": float(self.mdp.start[s])}
            if self.solution is not None:
                lower, upper = float(self.solution.lower[s]), float(self.solution.upper[s])
                row["optimum"] = _bounds(Interval(lower=lower, upper=upper))
            if self.limit is not None:
                row["within_limit"] = float(self.values_with(self.limit)[s])
            rows.append(row)
        return rows

    def attainments(self) -> list[Attainment]:
        """The threshold in every setting that can be judged, the most generous first.

        A stationary False is about the policies played: a better one may exist, up to the optimum.
        """
        settings: list[tuple[str, Interval | None]] = [("no limit", self.undiscounted_optimum)]
        if self.time_aware is not None:
            settings.append(("limit, time-aware", self.time_aware.earned))
            if self.best_stationary is not None:
                settings.append(("limit, stationary", self.best_stationary.earned))
        level = self.threshold
        return [
            Attainment(
                setting=setting,
                margin=Interval(lower=earned.lower - level, upper=earned.upper - level),
                reached=earned.reaches(level),
            )
            for setting, earned in settings
            if level is not None and earned is not None
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain data for machines; what is infinite or unknown is None."""
        from dodona.mdp.audit.text import findings

        limits = self.limits(POINTS)
        return {
            "env_id": self.env_id,
            "gamma": self.gamma,
            "time_limit": self.limit,
            "reward_threshold": self.threshold,
            "findings": dict(findings(self)),
            "sizes": asdict(self.sizes),
            "optimum": _bounds(self.optimum),
            "undiscounted_optimum": _bounds(self.undiscounted_optimum),
            "no_optimum": {"why": self.problem, "state": self.problem_state}
            if self.problem
            else None,
            "threshold": [
                {"setting": a.setting, "margin": _bounds(a.margin), "reached": a.reached}
                for a in self.attainments()
            ],
            "policies": [
                {
                    "name": p.name,
                    "kind": p.kind,
                    "return": _bounds(p.earned),
                    "succeeded": p.succeeded,
                    "ended": p.ended,
                    "steps": p.steps,
                }
                for p in self.plays
            ],
            "ties": None if self.ties is None else asdict(self.ties),
            "loops": asdict(self.loops),
            "starts": self.starts(),
            "return_by_limit": {
                "limit": limits.tolist(),
                **{p.name: p.returns[limits].tolist() for p in self.plays},
            },
        }

    def text(self) -> str:
        """The report for people: findings, one sentence each, then the table of policies."""
        from dodona.mdp.audit.text import report_text

        return report_text(self)

    def write(self, folder: str | Path) -> Path:
        """Write audit.json and audit.txt into a folder, made where it is missing; returns it.

        Raises: InputError: the folder can not be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            numbers = json.dumps(self.to_json(), indent=2, allow_nan=False)
            (folder / "audit.json").write_text(numbers + "\n")
            (folder / "audit.txt").write_text(self.text() + "\n")
        except OSError as error:
            raise InputError(
                f"the output folder {folder} can not be written: {error.strerror}. "
                "Choose another with --out."
            ) from None
        return folder

    def _mean(self, solution: Solution | None) -> Interval | None:
        if solution is None:
            return None
        return start_mean(self.mdp.start, solution.lower, solution.upper)


def _bounds(x: Interval | None) -> dict[str, float | None] | None:
    """An infinite upper bound is no JSON: None."""
    if x is None:
        return None
    upper = x.upper if math.isfinite(x.upper) else None
    return {"value": x.middle, "lower": x.lower, "upper": upper}
