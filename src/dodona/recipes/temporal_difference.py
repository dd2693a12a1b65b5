"""Learners land where exact numbers say: on the exact learning curve, at the cliff's levels, at the best n.

Four experiments: TD(0) on the walk of five states against its exact curve; four learners at the cliff
against what is possible there; n and alpha on the walk of nineteen; first values and exploration on the
5x5 grid.

Source: Sutton & Barto 2018, ex. 6.2, 6.6 and fig. 7.2; Zhao 2025, figs. 7.4 and 7.5; Singh & Dayan 1998.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona import rl
from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.shapes import FloatArray
from dodona.core.trainer import Arms
from dodona.errors import ConfigError
from dodona.figures.compose import slider
from dodona.figures.curves import curves
from dodona.figures.prediction import prediction
from dodona.mdp import (
    MDP,
    action_values,
    optimal_actions,
    policy_value,
    shortest_path_value_iteration,
    solve,
    worlds,
)
from dodona.oracles import fixtures
from dodona.oracles import td as exact
from dodona.recipes._watched import Watched
from dodona.recipes.bellman_equation import Prepared, book_picture

WALK_STEPS = 600
PRINTED = {10: 0.0498028, 100: 0.0156833, 600: 0.0033761}
"""Steps -> exact mean square error of TD(0) on the walk of five states, alpha .1."""
AT_THE_CLIFF = {
    "Sarsa": rl.Sarsa, "Expected Sarsa": rl.ExpectedSarsa, "Q-learning": rl.QLearning,
    "double Q-learning": rl.DoubleQLearning,
}  # fmt: skip
LENGTHS = (1, 2, 4, 8, 16, 32)
SIZES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
BEST = {1: 0.349, 2: 0.284, 4: 0.274, 8: 0.285, 16: 0.329}
"""n -> least error over SIZES with BEST_RUNS runs: the experiment of Sutton & Barto's fig. 7.2."""
BEST_RUNS = 20
FIRST = {0: (4.22, 1.90, 0.178, 0.0036), 10: (0.050, 0.00014), 100: (49.4, 26.1, 2.71, 0.047)}
"""First value of q -> error after MARKS steps, a mean of FIRST_RUNS runs: the experiment of Zhao's fig. 7.4."""
MARKS = (10_000, 20_000, 50_000, 100_000)
FIRST_RUNS = 4
EXPLORE = (1.0, 0.5, 0.1)
FRAMES = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
Z = 4.5  # standard errors, one level for every sampled comparison


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many runs and steps each experiment takes."""

    walk_runs: int = 4000
    """runs of TD(0) on the walk of five states, at least 100"""
    cliff_runs: int = 100
    """runs of each learner at the cliff, at least 10"""
    cliff_steps: int = 200_000
    """steps of a run at the cliff, at least 20000"""
    length_runs: int = 1000
    """runs per n and alpha on the walk of nineteen states, at least 20"""
    grid_runs: int = 100
    """runs per first value and per exploration on the 5x5 grid, at least 10"""
    alpha: float = 0.1
    """step size at the cliff, in (0, 1]"""
    epsilon: float = 0.1
    """exploration at the cliff, in (0, 1); the printed levels are compared at 0.1"""
    seed: int = 0
    """seed of every run"""

    def __post_init__(self) -> None:
        for name, least in (("walk_runs", 100), ("cliff_runs", 10), ("cliff_steps", 20_000), ("length_runs", 20), ("grid_runs", 10)):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        for name, end in (("alpha", "]"), ("epsilon", ")")):
            value = getattr(self, name)
            if not 0 < value < 1 and not (end == "]" and value == 1):
                raise ConfigError(f"{name} must be in (0, 1{end}, got {value}. 0.1 is the books'.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(walk_runs=1000, cliff_runs=30, cliff_steps=100_000, length_runs=100, grid_runs=20),
    "laptop": Config(),
    "paper": Config(
        walk_runs=100_000, cliff_runs=2000, cliff_steps=500_000, length_runs=20_000, grid_runs=2000
    ),
}  # fmt: skip


def build(config: Config) -> Trainer:
    """The walk, four learners at the cliff, every n, first values and exploration on the grid."""
    arms: dict[str, Callable[[int], Trainer]] = {"walk": lambda seed: _walk(config, seed)}
    for name in AT_THE_CLIFF:
        arms[f"cliff | {name}"] = functools.partial(_cliff, config, name)
    for n in LENGTHS:
        arms[f"n | {n}"] = lambda seed, n=n: Prepared(lambda: [_lengths(config, n, seed)])
    for first in FIRST:
        arms[f"first | {first}"] = functools.partial(_grid, config, float(first), 1.0)
    for share in EXPLORE[1:]:
        arms[f"explore | {share:g}"] = functools.partial(_grid, config, 0.0, share)
    return Arms(arms, seeds=(config.seed,))


def learnt(config: Config) -> dict[str, tuple[MDP, dict[str, Any]]]:
    """Arm -> its model and what its table should hold, as options of diagnose (dodona diagnose RUN)."""
    cliff, grid = worlds.cliff(), worlds.book_grid()
    out: dict[str, tuple[MDP, dict[str, Any]]] = {"walk": (worlds.random_walk(5), {"target": "policy", "stale": 0.0})}  # fmt: skip
    for name in AT_THE_CLIFF:
        target = "policy" if "Sarsa" in name else "optimal"
        out[f"cliff | {name}"] = cliff, {"target": target, "behaviour": config.epsilon, "stale": 0.0}  # fmt: skip
    for arm in (*(f"first | {first}" for first in FIRST), *(f"explore | {x:g}" for x in EXPLORE[1:])):  # fmt: skip
        out[arm] = grid, {}
    return out


# ---------------------------------------------------------------------- the experiments
def _walk(config: Config, seed: int) -> Trainer:
    """TD(0), step by step, beside the exact mean and second moment of its table."""
    case, truth = fixtures.random_walk(5), np.arange(1, 6) / 6
    rewards = np.zeros((7, 1, 7))
    rewards[5, 0, 6] = 1.0
    moments = exact.td_moments(
        case.P, rewards, 1.0, np.zeros(7, int), alpha=0.1, num_steps=WALK_STEPS, start=case.start,
        terminal=case.terminal, initial=0.5,
    )  # fmt: skip
    first = np.where(case.terminal, 0.0, 0.5)
    trainer = rl.TD0(7, 1, gamma=1.0, alpha=0.1, initial=first).trainer(
        worlds.random_walk(5),
        num_steps=WALK_STEPS,
        record_every=10,
        num_runs=config.walk_runs,
        seed=seed,
    )
    curve, errors = moments.mean_square_error(truth), moments.standard_error(config.walk_runs)

    def look(trainer: Any) -> tuple[dict, dict]:
        tables, t = trainer.tables[:, 1:6], trainer.done
        squares = ((tables - truth) ** 2).mean(axis=1)
        z = np.abs(tables.mean(axis=0) - moments.mean[t]) / np.maximum(errors[t], 1e-12)
        return {
            "square/mean": float(squares.mean()),
            "square/error": float(squares.std(ddof=1) / len(squares) ** 0.5),
            "square/exact": float(curve[t]),
            "z/largest": float(z.max()),
        }, {"t": t}

    return Watched(trainer, look, "walk")


def _cliff(config: Config, name: str, seed: int) -> Trainer:
    """A learner at the cliff; the last event tells where its greedy paths lead."""
    model = worlds.cliff()
    learner = AT_THE_CLIFF[name](48, 4, gamma=1.0, alpha=config.alpha)
    trainer = learner.trainer(
        model,
        num_steps=config.cliff_steps,
        num_runs=config.cliff_runs,
        epsilon=config.epsilon,
        seed=seed,
    )

    def look(trainer: Any) -> tuple[dict, dict]:
        returns = trainer.columns["episode_return"][-1]
        ended = returns[np.isfinite(returns)]
        spread = float(ended.std(ddof=1) / len(ended) ** 0.5) if len(ended) > 1 else 0.0
        data: dict[str, Any] = {"t": trainer.done}
        if trainer.done == config.cliff_steps:
            data["tail"] = _tail(trainer.history())
            data["paths"] = [_greedy_path(model, q) for q in trainer.tables]
        return {"episode/return_error": spread}, data

    return Watched(trainer, look, f"cliff-{name.replace(' ', '-')}")


def _lengths(config: Config, n: int, seed: int) -> Event:
    """Error over the first ten episodes on the walk of nineteen states, for every alpha."""
    model, truth = worlds.random_walk(19, left_reward=-1.0), np.arange(-10, 11) / 10
    truth[[0, 20]] = 0.0
    means, spreads = [], []
    for alpha in SIZES:
        learner = rl.NStepTD(21, 1, num_steps=n, gamma=1.0, alpha=alpha)
        history = learner.learn(
            model,
            num_episodes=10,
            record_every=1,
            num_runs=config.length_runs,
            seed=seed,
            truth=truth,
        )
        runs = history.rmse.mean(axis=1)
        means.append(float(runs.mean()))
        spreads.append(float(runs.std(ddof=1)))
    best = int(np.argmin(means))
    return Event(
        kind="evaluation", step=1, num_samples=10 * config.length_runs * len(SIZES),
        metrics={"error/best": means[best], "error/spread": spreads[best], "alpha/best": SIZES[best]},
        data={"n": n, "means": means, "errors": [s / config.length_runs**0.5 for s in spreads]},
    )  # fmt: skip


def _grid(config: Config, first: float, share: float, seed: int) -> Trainer:
    """One long episode of a fixed behaviour on the 5x5 grid: max_a q against v*."""
    model = worlds.book_grid()
    solution = solve(model, tol=1e-12)
    best = optimal_actions(model, solution.values, tol=1e-9)
    policy = share / 5 + (1.0 - share) * best / best.sum(axis=1, keepdims=True)
    trainer = rl.QLearning(25, 5, gamma=0.9, alpha=0.1, initial=first).trainer(
        model.replace(start=np.eye(25)[0]), num_steps=MARKS[-1], record_every=MARKS[-1] // 200,
        num_runs=config.grid_runs, policy=policy, seed=seed, truth=solution.values,
    )  # fmt: skip

    def look(trainer: Any) -> tuple[dict, dict]:
        rmse, q = trainer.columns["rmse"][-1], trainer.learner.q
        data: dict[str, Any] = {"t": trainer.done}
        if trainer.done in FRAMES and share == 1.0 and first == 0.0:
            data["values"], data["greedy"] = q.max(axis=1).tolist(), q.argmax(axis=1).tolist()
        return {"error/spread": float(rmse.std(ddof=1))}, data

    return Watched(trainer, look, f"grid-{first:g}-{share:g}")


# ---------------------------------------------------------------------- exact levels
@functools.lru_cache(maxsize=4)
def cliff_levels(epsilon: float) -> dict[str, float]:
    """What one episode at the cliff is worth, from linear solves.

    "optimum": without exploring.  "best": the best policy that explores.  Exploring around the optimal
    actions: "split" their ties (as Q-learning does), "right" or "down": ties off the path to that side.
    """
    model = worlds.cliff()
    start = int(model.start.argmax())  # type: ignore[union-attr]

    def explored(greedy: FloatArray) -> FloatArray:
        """[S] values of epsilon-greedy around shares [S, A] of the greedy actions."""
        policy = epsilon / 4 + (1.0 - epsilon) * greedy / greedy.sum(axis=1, keepdims=True)
        return policy_value(model, policy, method="lu", tol=1e-6).values

    def best(values: FloatArray) -> FloatArray:
        q = np.where(model.terminal[:, None], 0.0, action_values(model, values))
        return (q >= q.max(axis=1, keepdims=True) - 1e-9).astype(float)

    optimum = shortest_path_value_iteration(model).values
    greedy = best(optimum)
    levels = {"optimum": optimum, "split": explored(greedy)}
    for name, order in (("right", [0, 1, 2, 3]), ("down", [2, 1, 0, 3])):
        first = np.array(order)[greedy[:, order].argmax(axis=1)]
        levels[name] = explored(np.eye(4)[first])
    values, before = levels["split"], None
    while before is None or np.abs(values - before).max() > 1e-9:
        values, before = explored(best(values)), values
    levels["best"] = values
    return {name: float(v[start]) for name, v in levels.items()}


def _greedy_path(model: MDP, q: FloatArray) -> list[int]:
    """[steps to the goal (0: never), highest row that is entered, 0 on top]."""
    s, top = 36, 3
    for step in range(1, 49):
        a = int(q[s].argmax())
        pair = int(model.pairs_of(np.array([s]), np.array([a]))[0])
        s = int(model.indices[model.indptr[pair]])
        top = min(top, s // 12)
        if model.terminal[s]:
            return [step, top]
    return [0, top]


def _tail(history: rl.History) -> list[float]:
    """(mean, standard error) of the return over the last fifth of the records."""
    some = history.episode_return[:, -max(1, len(history.step) // 5) :]
    runs = np.nanmean(some, axis=1)
    return [float(runs.mean()), float(runs.std(ddof=1) / len(runs) ** 0.5)]


# ---------------------------------------------------------------------- judgement
def judge(events: Sequence[Event]) -> list[Row]:
    """The exact curve, the cliff's levels, the best n, the errors after marks of steps."""
    rows = [*_judge_walk(_of(events, "walk"))]
    config = next((e.data["config"] for e in events if "config" in e.data), None)
    last = {name: run[-1] for name in AT_THE_CLIFF if (run := _of(events, f"cliff | {name}")) and "tail" in run[-1].data}  # fmt: skip
    if config and len(last) == len(AT_THE_CLIFF):
        rows += _judge_cliff(last, cliff_levels(config["epsilon"]), config["epsilon"])
    lengths = {e.data["n"]: e for n in LENGTHS for e in _of(events, f"n | {n}")}
    if config and len(lengths) == len(LENGTHS):
        rows += _judge_lengths(lengths, config["length_runs"])
    for first, printed in FIRST.items():
        run = {e.data["t"]: e for e in _of(events, f"first | {first}")}
        if config and MARKS[-1] in run:
            marks = [run[t] for t in MARKS[: len(printed)]]
            # the printed numbers are means of few runs: both spreads count
            z = max(
                abs(e.metrics["error/rmse"] - p)
                / (e.metrics["error/spread"] * (1 / FIRST_RUNS + 1 / config["grid_runs"]) ** 0.5)
                for e, p in zip(marks, printed, strict=True)
            )
            shown = ", ".join(f"{e.metrics['error/rmse']:.3g}" for e in marks)
            rows.append(
                Row(
                    name=f"fig. 7.4, q from {first}: error after {', '.join(f'{t:.0e}' for t in MARKS[: len(printed)])} steps",
                    measured=f"{shown} (z {z:.1f})",
                    expected=f"{', '.join(map(str, printed))} (a mean of {FIRST_RUNS} runs), |z| <= {Z}",
                    verdict=_verdict(z <= Z),
                )
            )
    return rows


def _judge_walk(run: list[Event]) -> list[Row]:
    if not run or run[-1].data["t"] != WALK_STEPS:
        return []
    at = {e.data["t"]: e.metrics for e in run}
    far = max(abs(at[t]["square/exact"] - printed) for t, printed in PRINTED.items())
    z = max(e.metrics["z/largest"] for e in run)
    square = max(
        abs(e.metrics["square/mean"] - e.metrics["square/exact"]) / e.metrics["square/error"]
        for e in run
    )
    return [
        Row(name="walk: exact curve at 10, 100, 600 steps against the known numbers", measured=far, expected="<= 5e-8", verdict=_verdict(far <= 5.1e-8)),
        Row(name=f"walk: mean of v, largest distance in exact standard errors ({len(run)} records, 5 states)", measured=z, expected=f"<= {Z}", verdict=_verdict(z <= Z)),
        Row(name="walk: mean square error, largest distance in standard errors", measured=square, expected=f"<= {Z}", verdict=_verdict(square <= Z)),
    ]  # fmt: skip


def _judge_cliff(last: dict[str, Event], levels: dict[str, float], epsilon: float) -> list[Row]:
    rows = []
    if epsilon == 0.1:
        known = {
            "optimum": -13.0,
            "best": -20.707677,
            "right": -45.803322,
            "down": -51.813188,
            "split": -50.800048,
        }
        far = max(abs(levels[name] - value) for name, value in known.items())
        rows.append(Row(name="cliff: levels by linear solves against the known -13, -20.7077, -45.8033, -50.8000, -51.8132", measured=far, expected="<= 1e-6", verdict=_verdict(far <= 1e-6)))  # fmt: skip
    mean, error = last["Q-learning"].data["tail"]
    z = abs(mean - levels["split"]) / error
    rows.append(Row(name=f"cliff: what Q-learning earns while it explores (z {z:.1f})", measured=mean, expected=f"{levels['split']:.2f}: exploring along the edge, ties split; |z| <= {Z}", verdict=_verdict(z <= Z)))  # fmt: skip
    above = {
        name: (e.data["tail"][0] - levels["best"]) / e.data["tail"][1] for name, e in last.items()
    }
    worst = max(above.values())
    rows.append(Row(name="cliff: the best return of the four, in standard errors above the best that explores", measured=worst, expected=f"<= {Z}: nobody beats {levels['best']:.2f}", verdict=_verdict(worst <= Z)))  # fmt: skip
    gap = last["Expected Sarsa"].data["tail"][0] - mean
    rows.append(Row(name="cliff: Expected Sarsa earns more than Q-learning by", measured=gap, expected="> 0: it knows that it will stumble", verdict=_verdict(gap > Z * error)))  # fmt: skip
    edge = float(np.mean([path == [13, 2] for path in last["Q-learning"].data["paths"]]))
    rows.append(Row(name="cliff: runs of Q-learning whose greedy path is the edge, 13 steps", measured=edge, expected=">= 0.95", verdict=_verdict(edge >= 0.95)))  # fmt: skip
    safe = float(np.mean([path[1] < 2 for path in last["Sarsa"].data["paths"]]))
    rows.append(Row(name="cliff: runs of Sarsa whose greedy path keeps away from the edge", measured=safe, expected=">= 0.95", verdict=_verdict(safe >= 0.95)))  # fmt: skip
    return rows


def _judge_lengths(lengths: dict[int, Event], num_runs: int) -> list[Row]:
    best = min(lengths, key=lambda n: lengths[n].metrics["error/best"])
    z = max(
        abs(lengths[n].metrics["error/best"] - known)
        / (lengths[n].metrics["error/spread"] * (1 / BEST_RUNS + 1 / num_runs) ** 0.5)
        for n, known in BEST.items()
    )
    shown = ", ".join(f"{lengths[n].metrics['error/best']:.3f}" for n in BEST)
    return [
        Row(name="n on the walk of nineteen: the best n over the first ten episodes", measured=float(best), expected="between 2 and 8", verdict=_verdict(2 <= best <= 8)),
        Row(name=f"n on the walk of nineteen: least error for n = {', '.join(map(str, BEST))}", measured=f"{shown} (z {z:.1f})", expected=f"{', '.join(map(str, BEST.values()))} ({BEST_RUNS} runs), |z| <= {Z}", verdict=_verdict(z <= Z)),
    ]  # fmt: skip


# ---------------------------------------------------------------------- pictures
def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """The exact curve with its samples, returns at the cliff, n and alpha, the grid over time."""
    out: dict[str, go.Figure] = {}
    walk = _of(events, "walk")
    if walk:
        out["walk"] = _walk_figure(walk)
    config = next((e.data["config"] for e in events if "config" in e.data), None)
    cliff = {name: run for name in AT_THE_CLIFF if (run := _of(events, f"cliff | {name}"))}
    if cliff and config:
        out["cliff"] = _cliff_figure(cliff, cliff_levels(config["epsilon"]))
    lengths = {e.data["n"]: e for n in LENGTHS for e in _of(events, f"n | {n}")}
    if lengths:
        best = min(lengths, key=lambda n: lengths[n].metrics["error/best"])
        out["lengths"] = curves(
            {f"n = {n}": (SIZES, e.data["means"]) for n, e in lengths.items()},
            title=f"Between one step and the whole return: n = {best} learns fastest",
            x="step size alpha", y="RMS error, first 10 episodes (value units)",
        )  # fmt: skip
        out["lengths"].update_yaxes(range=[0.2, 0.7])
    for kind, title, name in (
        ("first", "Optimism explores: from 10, the largest value there is, the grid is learnt first", "q from {}"),
        ("explore", "The less the behaviour explores, the longer the rest of the grid waits", "epsilon {}"),
    ):  # fmt: skip
        runs = {name.format(k): run for k, run in _grid_runs(events, kind).items() if run}
        if runs:
            out[kind] = _error_figure(runs, title)
    frames = [e for e in _of(events, "first | 0") if "values" in e.data]
    if frames:
        out["grid"] = slider(
            {f"{e.data['t']:,}": book_picture(e.data["values"], np.eye(5, dtype=bool)[e.data["greedy"]], limits=(0.0, 10.0)) for e in frames},
            title="Values flow backwards from the target, one visit at a time (run 0, q from 0)",
            prefix="steps: ",
        )  # fmt: skip
    return out


def _walk_figure(run: list[Event]) -> go.Figure:
    t = [e.data["t"] for e in run]
    root = [e.metrics["square/mean"] ** 0.5 for e in run]
    # the error of a root: half the error of the square over the root
    whiskers = [2.58 * e.metrics["square/error"] / (2 * r) for e, r in zip(run, root, strict=True)]
    figure = prediction(
        t[::3], root[::3], whiskers[::3], (t, [e.metrics["square/exact"] ** 0.5 for e in run]),
        title=f"TD(0) on the walk of five states: {run[0].data['num_runs']} runs lie on the exact curve",
        x="steps", y="root mean square error (value units)", name="exact, no simulation",
    )  # fmt: skip
    figure.data[-1].name = "sampled (99 %)"
    return figure


def _cliff_figure(runs: dict[str, list[Event]], levels: dict[str, float]) -> go.Figure:
    series, bands = {}, {}
    for name, run in runs.items():
        some = [e for e in run if "episode/return" in e.metrics][1:]
        mean = [e.metrics["episode/return"] for e in some]
        half = [Z / 2 * e.metrics["episode/return_error"] for e in some]
        series[name] = ([e.data["t"] for e in some], mean)
        bands[name] = (
            [m - h for m, h in zip(mean, half, strict=True)],
            [m + h for m, h in zip(mean, half, strict=True)],
        )
    figure = curves(
        series, bands=bands,
        title="At the cliff, who learns the optimum falls off it: online return against exact levels",
        x="steps", y="return of an episode (reward units)",
        lines={
            f"optimum without exploring: {levels['optimum']:.0f}": levels["optimum"],
            f"best that explores: {levels['best']:.2f}": levels["best"],
            f"exploring along the edge, ties to the right: {levels['right']:.2f}": levels["right"],
            f"ties split: {levels['split']:.2f}": levels["split"],
        },
    )  # fmt: skip
    figure.update_traces(mode="lines", selector={"type": "scatter", "fill": None})
    figure.update_yaxes(range=[-62, -8])
    figure.update_layout(height=560, legend={"orientation": "h", "y": -0.14})
    return figure


def _error_figure(runs: dict[str, list[Event]], title: str) -> go.Figure:
    figure = curves(
        {name: ([e.data["t"] for e in run][::2], [max(e.metrics["error/rmse"], 1e-12) for e in run][::2]) for name, run in runs.items()},
        title=title, x="steps", y="RMS of max q - v* (value units)", log_y=True,
    )  # fmt: skip
    return figure.update_yaxes(range=[-4, 2.2])  # powers of ten: below is exact for any purpose


def _grid_runs(events: Sequence[Event], kind: str) -> dict[str, list[Event]]:
    if kind == "first":
        return {str(first): _of(events, f"first | {first}") for first in FIRST}
    shares = {f"{share:g}": _of(events, f"explore | {share:g}") for share in EXPLORE[1:]}
    return {"1": _of(events, "first | 0"), **shares} if any(shares.values()) else {}


def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]


def _verdict(good: bool) -> Any:
    return "pass" if good else "miss"
