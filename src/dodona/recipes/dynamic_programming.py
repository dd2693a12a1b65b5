"""Planners race to the same proven answer: every value comes with a bracket that holds the truth.

Source: Zhao 2025, ch. 4 (the grid and fig. 4.5); Gymnasium's FrozenLake and Taxi tables.
"""

import csv
import functools
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms, Prepared
from dodona.errors import ConfigError
from dodona.figures.cells import numbers_in_corners
from dodona.mdp import MDP, Planner, optimal_actions, solve, worlds
from dodona.mdp.formats.tables import mdp_from_file, solution_columns
from dodona.recipes import _planning_figures as pictures

PLANNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "value iteration": ("value-iteration", {}),
    "Gauss-Seidel": ("gauss-seidel", {}),
    "backward": ("backward", {}),
    "prioritised": ("prioritized", {}),
    "topological": ("topological", {}),
    "truncated j=2": ("truncated", {"num_sweeps": 2}),
    "truncated j=5": ("truncated", {"num_sweeps": 5}),
    "truncated j=20": ("truncated", {"num_sweeps": 20}),
    "truncated j=100": ("truncated", {"num_sweeps": 100}),
    "policy iteration": ("policy-iteration", {}),
    "inexact PI": ("inexact", {}),
    "auto": ("auto", {}),
}
DISCOUNTS = "discounts"  # the arm that is no planner
# problem -> (what is compared, published or exact value, tolerance of the printed digits, source)
FACTS = {
    "FrozenLake8x8": ("v*(start)", 0.414640362, 5e-10, "exact solve of Gymnasium's table"),
    "Taxi": ("mean v* over starts", 6.327464, 5e-7, "exact solve of Gymnasium's table"),
    "book-grid": ("v*(row 1, column 1)", 5.832, 5e-4, "Zhao 2025, fig. 3.4"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which models, which planners, how exact."""

    mdp: str = "demo"
    """demo (FrozenLake 8x8, Taxi, book grid), maze, or a file: .csv, .parquet, .npz, .py"""
    gamma: float | None = None
    """discount in [0, 1); none: .99 (demo, .9 on the book grid), .999 (maze), or the file's own"""
    tol: float = 1e-6
    """largest upper - lower that counts as solved, reward units"""
    planners: tuple[str, ...] = tuple(PLANNERS)
    """which planners race, comma-separated"""
    height: int = 300
    """rows of the maze"""
    width: int = 300
    """columns of the maze"""
    slip: float = 0.1
    """probability that a move in the maze slips sideways"""
    num_gammas: int = 12
    """discounts under the slider of a grid model, 0 for none"""
    seed: int = 0
    """seed of the maze's walls"""

    def __post_init__(self) -> None:
        unknown = [p for p in self.planners if p not in PLANNERS]
        if unknown or not self.planners:
            raise ConfigError(f"planners must be among {', '.join(PLANNERS)}, got {unknown}.")
        if self.num_gammas < 0:
            raise ConfigError(f"num_gammas must be >= 0, got {self.num_gammas}. 12 is usual.")
        if not (self.tol > 0 and math.isfinite(self.tol)):
            raise ConfigError(f"tol must be > 0 and finite, got {self.tol}. 1e-6 is usual.")
        if self.gamma is not None and not 0 <= self.gamma < 1:
            raise ConfigError(f"gamma must be in [0, 1), got {self.gamma}. 0.99 is usual.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(
        planners=("value iteration", "truncated j=20", "policy iteration", "auto"), num_gammas=3
    ),
    "laptop": Config(),
    "paper": Config(
        mdp="maze",
        planners=(
            "value iteration",
            "Gauss-Seidel",
            "backward",
            "truncated j=20",
            "topological",
            "inexact PI",
            "auto",
        ),
    ),
}


def problems(config: Config) -> dict[str, MDP]:
    """The models of a configuration, by name."""
    if config.mdp == "demo":
        gamma = 0.99 if config.gamma is None else config.gamma
        return {
            "FrozenLake8x8": MDP.from_gymnasium("FrozenLake8x8-v1", gamma=gamma),
            "Taxi": MDP.from_gymnasium(_newest("Taxi"), gamma=gamma),
            "book-grid": worlds.book_grid(gamma=0.9 if config.gamma is None else config.gamma),
        }
    if config.mdp == "maze":
        gamma = 0.999 if config.gamma is None else config.gamma
        return {
            "maze": worlds.maze(config.height, config.width, slip=config.slip, seed=config.seed, gamma=gamma)
        }  # fmt: skip
    return {Path(config.mdp).stem: mdp_from_file(config.mdp, gamma=config.gamma)}


def build(config: Config) -> Trainer:
    """Every planner on every model, one after the other."""
    models = problems(config)
    for method in {PLANNERS[p][0] for p in config.planners}:
        warm = Planner(
            worlds.book_small(), method
        )  # compiles, so that the race does not pay for it
        while warm.advance():
            pass
    arms = {}
    for name, mdp in models.items():
        for planner in config.planners:
            arms[f"{name} | {planner}"] = functools.partial(
                _Entrant, mdp, planner, config.tol, last=planner == config.planners[-1]
            )
        if config.num_gammas and _drawable(mdp) and mdp.terminal.any():
            arms[f"{name} | {DISCOUNTS}"] = functools.partial(_discount_sweep, mdp, config)
    return Arms(arms, seeds=(config.seed,))


def _discount_sweep(mdp: MDP, config: Config, seed: int) -> Trainer:
    """The optimum at discounts that come closer and closer to one: 1 - gamma falls evenly by factors."""

    def make() -> list[Event]:
        events = []
        for step, left in enumerate(np.geomspace(0.5, 1e-3, config.num_gammas), start=1):
            model = mdp.replace(gamma=1.0 - left)
            solution = solve(model, tol=config.tol)
            optimal = optimal_actions(model, solution.values, tol=1e-5)
            data = {"picture": pictures.picture_of(mdp.labels, solution.values, optimal, mdp.terminal, model.gamma)}  # fmt: skip
            metrics = {"bracket/gap": solution.gap, "sweeps": solution.sweeps}
            events.append(
                Event(kind="evaluation", step=step, num_samples=0, metrics=metrics, data=data)
            )
        return events

    return Prepared(make)


def _drawable(mdp: MDP) -> bool:
    return mdp.labels is not None and mdp.labels.grid is not None and mdp.num_states <= 400


class _Entrant:
    """A planner whose last event carries its answer, and on request the whole solution."""

    def __init__(self, mdp: MDP, planner: str, tol: float, seed: int, *, last: bool):
        method, options = PLANNERS[planner]
        self.planner, self.last = Planner(mdp, method, tol=tol, **options), last
        self.mdp = mdp

    def __iter__(self):
        for event in self.planner:
            if self.planner.status != "going":
                event = replace(event, data={**event.data, **self._answer()})
            yield event

    def _answer(self) -> dict[str, Any]:
        solution = self.planner.solution()
        answer: dict[str, Any] = {"checked": _checked(self.mdp, solution.values)}
        if self.last:
            answer["artifacts"] = {"solution.csv": solution_csv(self.mdp, solution)}
            if _drawable(self.mdp):
                optimal = optimal_actions(self.mdp, solution.values, tol=1e-5)
                answer["picture"] = pictures.picture_of(
                    self.mdp.labels, solution.values, optimal, self.mdp.terminal, self.mdp.gamma
                )
        return answer

    def state_dict(self) -> dict[str, Any]:
        return self.planner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.planner.load_state_dict(state)


def judge(events: Sequence[Event]) -> list[Row]:
    """Every planner proved its gap; the values are the published ones; the raw span value is wrong."""
    tol = next(e.data["config"]["tol"] for e in events if e.kind == "start")
    rows = []
    for problem, runs in _by_problem(events).items():
        gaps = {p: run[-1].metrics["bracket/gap"] for p, run in runs.items()}
        proven = all(run[-1].data.get("converged") for run in runs.values())
        rows.append(
            Row(
                name=f"{problem}: widest proven gap of {len(gaps)} planners",
                measured=max(gaps.values()),
                expected=f"<= {tol:.0e}",
                verdict="pass" if proven and max(gaps.values()) <= tol else "miss",
            )
        )
        if problem == "maze" and {"value iteration", "auto"} <= set(runs):
            # inexact PI is not it at slip .1: its Krylov steps cost more sweeps than the order saves
            sweeps = {p: run[-1].metrics["sweeps"] for p, run in runs.items()}
            rows.append(
                Row(
                    name=f"maze: sweeps of auto (fewest: {min(sweeps, key=sweeps.__getitem__)})",
                    measured=sweeps["auto"],
                    expected=f"fewer than value iteration ({sweeps['value iteration']:.0f})",
                    verdict="pass" if sweeps["auto"] < sweeps["value iteration"] else "miss",
                )
            )
    rows += _fact_rows(events)
    return rows + _wrong_value_rows()


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, Any]:
    """Gap against work and time, depth of truncation, value maps with arrows, a slider of discounts."""
    problems = _by_problem(events)
    out: dict[str, Any] = {}
    for event in events:
        picture = event.data.get("picture")
        if picture and event.kind == "update":
            problem = event.data["arm"].rpartition(" | ")[0]
            out[f"{problem}-values"] = numbers_in_corners(
                pictures.value_map(
                    picture,
                    title=f"{problem}: optimal values and every optimal action, gamma {picture['gamma']:g}",
                )
            )
    for problem, runs in problems.items():
        out |= pictures.race(problem, runs, _clock(events, runs))
    depths = pictures.truncation(problems)
    if depths is not None:
        out["truncation"] = depths
    for problem in problems:
        sweep = [e for e in events if e.data.get("arm") == f"{problem} | {DISCOUNTS}"]
        if sweep:
            out[f"{problem}-discounts"] = pictures.discounts(problem, sweep)
    return out


def solution_csv(mdp: MDP, solution: Any) -> bytes:
    """state, value, lower, upper, action: one line per state, numbers exact to the last bit."""
    columns = solution_columns(solution, mdp)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()


# ---------------------------------------------------------------------- private
def _newest(prefix: str) -> str:
    """The newest registered version of an environment: Taxi-v3 or Taxi-v4."""
    import gymnasium

    versions = [k for k in gymnasium.registry if k.startswith(f"{prefix}-v")]
    return max(versions, key=lambda k: int(k.rpartition("v")[2]))


def _arms(events: Sequence[Event]) -> dict[str, list[Event]]:
    arms: dict[str, list[Event]] = {}
    for event in events:
        if event.kind == "update":
            arms.setdefault(event.data["arm"], []).append(event)
    return arms


def _by_problem(events: Sequence[Event]) -> dict[str, dict[str, list[Event]]]:
    """Problem -> planner -> its events."""
    out: dict[str, dict[str, list[Event]]] = {}
    for arm, run in _arms(events).items():
        problem, _, planner = arm.rpartition(" | ")  # a file name may hold the sign
        out.setdefault(problem, {})[planner] = run
    return out


def _clock(events: Sequence[Event], runs: Mapping[str, list[Event]]) -> dict[str, list[float]]:
    """Seconds of each planner alone: its own events' times, less the time it began."""
    times = {id(e): (before.seconds or 0.0) for before, e in zip(events, events[1:], strict=False)}
    return {
        p: [max((e.seconds or 0.0) - times[id(run[0])], 1e-6) for e in run]
        for p, run in runs.items()
    }


def _checked(mdp: MDP, values: np.ndarray) -> float:
    return float(mdp.start @ values) if mdp.start is not None else float(values[0])


def _fact_rows(events: Sequence[Event]) -> list[Row]:
    config = next(e.data["config"] for e in events if e.kind == "start")
    if config["mdp"] != "demo" or config["gamma"] is not None:
        return []
    rows = []
    for problem, (what, expected, digits, source) in FACTS.items():
        found = [
            run[-1].data["checked"] for arm, run in _arms(events).items() if arm.startswith(problem)
        ]
        worst = max(found, key=lambda x: abs(x - expected))
        rows.append(
            Row(
                name=f"{problem}: {what}, worst of {len(found)} planners",
                measured=worst,
                expected=f"{expected} ({source})",
                verdict="pass" if abs(worst - expected) <= digits + config["tol"] else "miss",
            )
        )
    return rows


def _wrong_value_rows() -> list[Row]:
    """The well-known shortcut: the value at a span stop is not the value; the bracket's middle is."""
    planner = Planner(worlds.mdptoolbox_small(gamma=0.99), "value-iteration", tol=1e-12)
    truth = np.array([392.2991071428571, 386.1607142857143])  # (43937.5, 43250) / 112, exact
    while planner.advance():
        change = planner.work.swept - planner.work.values
        if np.ptp(change) < 0.01 * 0.01 / 0.99:
            break
    raw = float(np.abs(planner.work.swept - truth).max())
    middle = float(np.abs(planner.solution().values - truth).max())
    return [
        Row(
            name=f"shortcut: error of the raw value at the span stop ({planner.work.iteration} sweeps)",
            measured=raw,
            expected="241.4: a policy's stopping test does not give values",
            verdict="pass" if math.isclose(raw, 241.4, abs_tol=0.05) else "miss",
        ),
        Row(
            name="the middle of the proven bracket after the same sweeps",
            measured=middle,
            expected="5e-4",
            verdict="pass" if middle < 6e-4 else "miss",
        ),
    ]
