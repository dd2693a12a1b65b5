"""A policy's value solves a linear equation: printed tables come out, and the error falls as gamma^k.

Three policies of the 5x5 grid are evaluated by iteration, Gauss-Seidel and BiCGSTAB; textbook chains
with known values stand beside them.

Source: Zhao, Mathematical Foundations of RL, 2025, ch. 2 (fig. 2.7), fig. 3.4 and 8.6; Sutton & Barto 2018.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms, Prepared
from dodona.errors import ConfigError
from dodona.figures.cells import numbers_in_corners, outline
from dodona.figures.compose import panels
from dodona.figures.curves import curves
from dodona.figures.grid import grid_policy
from dodona.figures.sparsity import sparsity
from dodona.mdp import MDP, Labels, Planner, policy_action_values, policy_value, solve, worlds

# solver of the picture -> (planner, options). On a model with one action per state every planner
# only evaluates, so the planners' proof and state serve here too.
SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "iteration": ("value-iteration", {}),
    "Gauss-Seidel": ("gauss-seidel", {"inner": 1}),
    "BiCGSTAB": ("inexact", {"krylov": "bicgstab", "alpha": 0.1}),
}
# policy -> (printed values at gamma .9, digits that are printed, source)
TABLES: dict[str, tuple[str, int, str]] = {
    "good": ("""
        3.4868 3.8742 4.3047 4.7830 5.3144   3.1381 3.4868 4.7830 5.3144 5.9049
        2.8243 2.5419 10 5.9049 6.5610   2.5419 10 10 10 7.2900   2.2877 9 10 9 8.1""", 4, "fig. 3.4 d"),
    "always right": ("""
        -6.6 -7.3 -8.1 -9.0 -10   -8.5 -8.3 -8.1 -9 -10   -7.5 -8.3 -8.1 -9 -10
        -7.5 -7.2 -9.1 -9 -10   -7.6 -7.3 -8.1 -9 -10""", 1, "fig. 2.7 b"),
    "uniform": ("""
        -3.8463 -3.8138 -3.6442 -3.1209 -3.2350   -3.7936 -3.8473 -3.8004 -3.1063 -2.9241
        -3.5724 -3.8965 -3.3817 -3.1944 -2.9444   -3.9008 -3.6159 -3.4031 -2.8976 -3.2393
        -4.4589 -4.1608 -3.3858 -3.3634 -3.4532""", 4, "fig. 8.6 b"),
}  # fmt: skip
BOOK_GAMMA = 0.9  # the tables hold for this discount only
SLOPE_SHARE = 0.02  # how far the measured slope may be from log gamma
CLEAR = 1e-8  # relative; errors below it are rounding, and the slope is not read there


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which policies and solvers, how exact."""

    gamma: float = BOOK_GAMMA
    """discount in (0, 1); the printed tables are compared at 0.9 only"""
    tol: float = 1e-9
    """proven gap at which a solver stops, reward units"""
    policies: tuple[str, ...] = tuple(TABLES)
    """which policies: good, always right, uniform; comma-separated"""
    solvers: tuple[str, ...] = tuple(SOLVERS)
    """which solvers: iteration, Gauss-Seidel, BiCGSTAB; comma-separated"""
    seed: int = 0
    """unused: nothing here is random"""

    def __post_init__(self) -> None:
        if not 0 < self.gamma < 1:
            raise ConfigError(f"gamma must be in (0, 1), got {self.gamma}. 0.9 is the book's.")
        if not self.tol > 0:
            raise ConfigError(f"tol must be > 0, got {self.tol}. 1e-9 is usual.")
        for name, known in (("policies", TABLES), ("solvers", SOLVERS)):
            got = getattr(self, name)
            unknown = [x for x in got if x not in known]
            if unknown or not got:
                raise ConfigError(
                    f"{name} must be among {', '.join(known)}, got {unknown or 'none'}."
                )


PRESETS: Mapping[str, Config] = {"quick": Config(policies=("good", "uniform")), "laptop": Config()}


def build(config: Config) -> Trainer:
    """Known chains, then every policy's table, then every solver on every policy."""
    arms: dict[str, Callable[[int], Trainer]] = {
        "textbook": lambda seed: Prepared(_textbook),
        "tables": lambda seed: Prepared(lambda: _tables(config)),
    }
    for policy in config.policies:
        for solver in config.solvers:
            arms[f"{policy} | {solver}"] = functools.partial(_Evaluation, config, policy, solver)
    return Arms(arms, seeds=(config.seed,))


class _Evaluation:
    """One solver on the chain of one policy; every event knows the true error and tests the bracket."""

    def __init__(self, config: Config, policy: str, solver: str, seed: int):
        mdp = worlds.book_grid(gamma=config.gamma)
        self.chain = one_policy(mdp, grid_policies()[policy])
        method, options = SOLVERS[solver]
        self.planner = Planner(self.chain, method, tol=config.tol, **options)
        self.truth = policy_value(
            self.chain, np.zeros(mdp.num_states, dtype=int), method="lu"
        ).values

    def __iter__(self) -> Iterator[Event]:
        for event in self.planner:
            solution = self.planner.solution()
            # the truth itself is known to about 1e-13
            outside = (self.truth < solution.lower - 1e-12) | (self.truth > solution.upper + 1e-12)
            error = float(np.abs(self.planner.work.swept - self.truth).max())
            extra = {"error/sup": error, "bracket/violations": float(np.count_nonzero(outside))}
            yield replace(event, metrics={**event.metrics, **extra})

    def state_dict(self) -> dict[str, Any]:
        return self.planner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.planner.load_state_dict(state)


def one_policy(mdp: MDP, policy: np.ndarray) -> MDP:
    """The model that is left when the policy [S, A] chooses: one action, v = r_pi + gamma P_pi v."""
    P, R, gamma = mdp.dense()
    chain_P = np.einsum("sa,sat->st", policy, P)
    chain_r = np.einsum("sa,sa->s", policy, R)
    labels = Labels(grid=mdp.labels.grid)
    return MDP.from_dense(
        chain_P[:, None, :], chain_r[:, None], gamma=gamma, layout="sas", labels=labels
    )


def grid_policies() -> dict[str, np.ndarray]:
    """The three policies of the 5x5 grid as [S, A] probabilities.

    "good" never enters a forbidden cell, so its values do not depend on the penalty; it is optimal
    where the penalty is 10.
    """
    cautious = solve(worlds.book_grid(r_forbidden=-10.0, gamma=BOOK_GAMMA)).policy
    right = np.full(25, worlds.GRID_ACTIONS.index("right"))
    return {
        "good": np.eye(5)[cautious],
        "always right": np.eye(5)[right],
        "uniform": np.full((25, 5), 0.2),
    }


def book_picture(
    values: Sequence[float] | np.ndarray, taken: np.ndarray, *, unit: str = "value (reward units)",
    limits: tuple[float, float] | None = None,
) -> go.Figure:  # fmt: skip
    """The 5x5 grid with an arrow per action taken [S, A] and its forbidden cells framed.

    limits: the colour range, where several pictures must be comparable.
    """
    forbidden = np.zeros((5, 5), dtype=bool)
    for row, column in worlds.BOOK_FORBIDDEN:
        forbidden[row - 1, column - 1] = True
    figure = grid_policy(
        np.asarray(values).tolist(), taken.tolist(), grid=(5, 5), actions=worlds.GRID_ACTIONS, title="", unit=unit,
    )  # fmt: skip
    if limits is not None:
        figure.update_traces(zmin=limits[0], zmax=limits[1], selector={"type": "heatmap"})
    return outline(numbers_in_corners(figure), forbidden.ravel(), grid=(5, 5))


def judge(events: Sequence[Event]) -> list[Row]:
    """Tables as printed, slope log gamma, every bracket holds, every solver converged."""
    rows = []
    for event in _of(events, "textbook"):
        error = event.metrics["table/error"]
        rows.append(
            Row(
                name=event.data["name"],
                measured=error,
                expected=f"<= 1e-9 from {event.data['expected']}",
                verdict=_verdict(error <= 1e-9),
            )
        )
    for event in _of(events, "tables"):
        if "table/error" in event.metrics:
            digits, source = TABLES[event.data["policy"]][1:]
            error = event.metrics["table/error"]
            rows.append(
                Row(
                    name=f"{source}, policy {event.data['policy']}: largest distance to the printed values",
                    measured=error,
                    expected=f"<= {0.5 * 10.0**-digits:.0e} (rounding of the print)",
                    verdict=_verdict(error <= 0.5 * 10.0**-digits + 1e-9),
                )
            )
    runs = _runs(events)
    for policy, solvers in runs.items():
        if "iteration" in solvers:
            config = _config(events)
            target, slope = float(np.log(config["gamma"])), _slope(solvers["iteration"])
            rows.append(
                Row(
                    name=f"policy {policy}: slope of log error per iteration",
                    measured=slope,
                    expected=f"log gamma = {target:.5f} within 2 %",
                    verdict=_verdict(abs(slope - target) <= SLOPE_SHARE * abs(target)),
                )
            )
    if runs:
        every = [run for solvers in runs.values() for run in solvers.values()]
        broken = sum(e.metrics["bracket/violations"] for run in every for e in run)
        finished = sum(bool(run[-1].data.get("converged")) for run in every)
        rows += [
            Row(
                name=f"states outside their bracket, {sum(len(run) for run in every)} brackets",
                measured=broken,
                expected="0",
                verdict=_verdict(broken == 0),
            ),
            Row(
                name=f"runs of {len(every)} that proved their gap",
                measured=float(finished),
                expected=str(len(every)),
                verdict=_verdict(finished == len(every)),
            ),
        ]
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Value maps of the policies, the sparsity of P_pi, error against work."""
    out: dict[str, go.Figure] = {}
    shown, pattern = {}, None
    largest = 1.0 / (1.0 - _config(events)["gamma"])  # of a value, rewards being at most one
    for event in _of(events, "tables"):
        d = event.data
        shown[d["policy"]] = book_picture(
            d["values"], np.array(d["taken"], dtype=bool), limits=(-largest, largest)
        )
        pattern = d
    if shown:
        out["values"] = panels(
            shown,
            title="The same grid is worth 10 or -10, the policy decides (orange: forbidden cells)",
            columns=min(3, len(shown)),
        )
    if pattern is not None:
        out["sparsity"] = sparsity(
            pattern["rows"], pattern["columns"], pattern["probs"], shape=(25, 25),
            title=f"Policy '{pattern['policy']}': {len(pattern['rows'])} of 625 transition probabilities are not zero",
        )  # fmt: skip
    runs = _runs(events)
    if runs:
        out |= _error_figures(runs, _config(events)["gamma"])
    return out


# ---------------------------------------------------------------------- private
def _textbook() -> list[Event]:
    """Chains whose values are known in closed form."""
    small, S2 = worlds.book_small(), {"down": 2, "right": 1, "stay": 4}
    rest = [S2["down"], S2["right"], S2["stay"]]
    half = np.eye(5)[[1, *rest]]
    half[0] = [0, 0.5, 0.5, 0, 0]
    walk5, walk19 = worlds.random_walk(5), worlds.random_walk(19, left_reward=-1.0)
    cases = [
        ("2x2 grid, down in s1: v", policy_value(small, [2, *rest]).values, [9, 10, 10, 10]),
        ("2x2 grid, right or down in s1: v(s1)", policy_value(small, half).values[:1], [8.5]),
        ("2x2 grid, right in s1: q(s1, .)", policy_action_values(small, [1, *rest])[0], [6.2, 8, 9, 6.2, 7.2]),
        ("two cells, always left: v", policy_value(worlds.line_two(), [0, 0]).values, [-10, -9]),
        ("5-state walk: v(i) = i / 6", _inner(walk5), np.arange(1, 6) / 6),
        ("19-state walk: v(i) = (i - 10) / 10", _inner(walk19), np.arange(-9, 10) / 10),
    ]  # fmt: skip
    return [
        Event(
            kind="evaluation",
            step=step,
            num_samples=0,
            metrics={"table/error": float(np.abs(got - np.asarray(want, dtype=float)).max())},
            data={
                "name": name,
                "expected": str(want) if isinstance(want, list) else "the closed form",
            },
        )
        for step, (name, got, want) in enumerate(cases, start=1)
    ]


def _inner(walk: MDP) -> np.ndarray:
    policy = np.where(walk.terminal, -1, 0)
    return policy_value(walk, policy).values[1:-1]


def _tables(config: Config) -> list[Event]:
    mdp, events = worlds.book_grid(gamma=config.gamma), []
    for step, name in enumerate(config.policies, start=1):
        policy = grid_policies()[name]
        solution = policy_value(mdp, policy)
        metrics = {"bracket/gap": solution.gap}
        if config.gamma == BOOK_GAMMA:
            printed = np.array(TABLES[name][0].split(), dtype=float)
            metrics["table/error"] = float(np.abs(solution.values - printed).max())
        chain = one_policy(mdp, policy)
        events.append(
            Event(
                kind="evaluation",
                step=step,
                num_samples=0,
                metrics=metrics,
                data={"policy": name, "values": solution.values.tolist(), "taken": (policy > 0).astype(int).tolist(),
                      "rows": np.repeat(chain.pair_state, np.diff(chain.indptr)).tolist(), "columns": chain.indices.tolist(),
                      "probs": chain.probs.tolist()},
            )
        )  # fmt: skip
    return events


def _error_figures(
    runs: Mapping[str, Mapping[str, list[Event]]], gamma: float
) -> dict[str, go.Figure]:
    out = {}
    plain = {p: solvers["iteration"] for p, solvers in runs.items() if "iteration" in solvers}
    if plain:
        longest = max(len(run) for run in plain.values())
        first = max(run[0].metrics["error/sup"] for run in plain.values())
        steps = list(range(1, longest + 1))
        out["slope"] = curves(
            {
                **{p: ([e.step for e in run], _errors(run)) for p, run in plain.items()},
                # lifted off the curves, which it would cover
                "slope log gamma": (steps, [4 * first * gamma ** (k - 1) for k in steps]),
            },
            title="Whatever the policy, the error of plain iteration falls by gamma a step",
            x="iterations k", y="sup-norm error (reward units)", log_y=True,
        )  # fmt: skip
    policy, solvers = list(runs.items())[-1]
    fewest = min(solvers, key=lambda s: solvers[s][-1].metrics["sweeps"])
    out["solvers"] = curves(
        {s: ([e.metrics["sweeps"] for e in run], _errors(run)) for s, run in solvers.items()},
        title=f"Policy '{policy}': {fewest} needs the fewest passes over the model",
        x="work (passes over the policy's rows)", y="sup-norm error (reward units)", log_y=True,
    )  # fmt: skip
    return out


def _errors(run: Sequence[Event]) -> list[float]:
    return [max(e.metrics["error/sup"], 1e-16) for e in run]


def _slope(run: Sequence[Event]) -> float:
    """Least-squares slope of log error over the later half of what is clear of rounding."""
    errors = np.array(_errors(run))
    clear = int(np.count_nonzero(errors > CLEAR * errors[0]))
    if clear < 4:
        return float("nan")
    part = slice(clear // 2, clear)
    return float(np.polyfit([e.step for e in run][part], np.log(errors[part]), 1)[0])


def _runs(events: Sequence[Event]) -> dict[str, dict[str, list[Event]]]:
    """policy -> solver -> its events."""
    out: dict[str, dict[str, list[Event]]] = {}
    for event in events:
        if event.kind == "update" and " | " in event.data.get("arm", ""):
            policy, _, solver = event.data["arm"].rpartition(" | ")
            out.setdefault(policy, {}).setdefault(solver, []).append(event)
    return out


def _config(events: Sequence[Event]) -> Mapping[str, Any]:
    return next(e.data["config"] for e in events if "config" in e.data)


def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]


def _verdict(good: bool) -> Any:
    return "pass" if good else "miss"
