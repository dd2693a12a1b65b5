"""A linear value function ends where its objective says: three exact levels, and divergence at the predicted rate.

Six feature sets on the 5x5 grid against best projection, TD fixed point and Bellman-error minimiser; LSTD
against steps; the 1000-state walk; Baird's star and w -> 2w, whose growth is known; tile-coded Sarsa on a car.

Source: Zhao 2025, ch. 8 (figs. 8.6-8.10); Sutton & Barto 2018, figs. 9.1, 9.2, 10.1, 11.2; Baird 1995.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms, Prepared
from dodona.errors import ConfigError
from dodona.mdp import policy_value, worlds
from dodona.oracles import projection as exact
from dodona.recipes import _value_function_divergence as divergence
from dodona.recipes import _value_function_figures as pictures
from dodona.rl import linear
from dodona.rl.features import Aggregation, Features, Fourier, Polynomial, Table, TileCoding
from dodona.rl.linear_base import LinearTrainer

# name -> (map, root mean square error to v_pi of best projection, TD fixed point, Bellman-error minimiser)
MAPS: dict[str, tuple[Callable[[], Features], float, float, float]] = {
    "polynomial 1": (lambda: Polynomial(1), 0.221480, 0.222774, 0.242532),
    "polynomial 2": (lambda: Polynomial(2), 0.191923, 0.193511, 0.216932),
    "polynomial 3": (lambda: Polynomial(3), 0.124586, 0.125149, 0.129757),
    "Fourier 1": (lambda: Fourier(1), 0.206333, 0.206704, 0.213188),
    "Fourier 2": (lambda: Fourier(2), 0.135995, 0.137421, 0.145885),
    "Fourier 3": (lambda: Fourier(3), 0.092516, 0.097347, 0.145595),
}
LEVELS = ("best projection", "TD fixed point", "Bellman-error minimiser")
GAMMA = 0.9
EPISODE = 500  # steps of an episode on the grid, as in the book
RADIUS = 1.0023925046  # of Baird's expected update at step .01
LSTD_MAP = "polynomial 3"
EVENTS = 40
Z = 4.5  # one level for every sampled comparison
CAR = [(-1.2, 0.6), (-0.07, 0.07)]
CAR_BAR = 160.0  # steps; the best policies need a little over 100, a random one hardly ever arrives


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many runs, and how long."""

    num_runs: int = 60
    """independent runs of every sampled curve, at least 2"""
    num_episodes: int = 500
    """episodes of 500 steps on the grid; the book's figures have 500"""
    alpha: float = 5e-4
    """step size of TD on the grid, in (0, 0.1]"""
    lstd_steps: int = 100_000
    """steps of LSTD, and of TD beside it, at least 10000"""
    walk_steps: int = 1_000_000
    """steps of every run of the 1000-state walk"""
    car_episodes: int = 200
    """episodes of the car, at least 20; 0 leaves it out"""
    car_seeds: int = 3
    """runs of the car"""
    seed: int = 0
    """seed of everything that is drawn"""

    def __post_init__(self) -> None:
        least = {
            "num_runs": 2,
            "num_episodes": 1,
            "lstd_steps": 10_000,
            "walk_steps": 1000,
            "car_episodes": 0,
            "car_seeds": 1,
        }
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} must be at least {minimum}, got {getattr(self, name)}.")
        if 0 < self.car_episodes < 20:
            raise ConfigError(f"car_episodes must be 0 or at least 20, got {self.car_episodes}.")
        if not 0 < self.alpha <= 0.1:
            raise ConfigError(f"alpha must be in (0, 0.1], got {self.alpha}. The book's is 0.0005.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_runs=10, num_episodes=100, walk_steps=200_000, car_episodes=0),
    "laptop": Config(),
    "paper": Config(num_runs=500, walk_steps=5_000_000, car_episodes=500, car_seeds=30),
}


def build(config: Config) -> Trainer:
    """Exact levels, six maps learnt on the grid, LSTD, the walk, two divergences, the car."""
    arms: dict[str, Callable[[int], Trainer]] = {"levels": lambda seed: Prepared(_levels)}
    for name in MAPS:
        arms[f"grid | {name}"] = functools.partial(_GridRuns, config, name)
    arms["LSTD"] = lambda seed: Prepared(lambda: _lstd_events(config, seed))
    arms["walk"] = lambda seed: Prepared(lambda: _walk_events(config, seed))
    arms["Baird"] = lambda seed: Prepared(divergence.baird_events)
    arms["pair"] = lambda seed: Prepared(divergence.pair_events)
    if config.car_episodes:
        for k in range(config.car_seeds):
            arms[f"car | {k}"] = functools.partial(_car_run, config, k)
    return Arms(arms, seeds=(config.seed,))


class _GridRuns:
    """TD of one map from w0 ~ N(0, I); the last event also compares its weights with the exact mean path."""

    def __init__(self, config: Config, name: str, seed: int):
        self.grid, self.policy = worlds.book_grid(), np.full((25, 5), 0.2)
        self.map, self.config = MAPS[name][0](), config
        learner = linear.TDLinear(
            Table(self.map.matrix(self.grid)), gamma=GAMMA, alpha=config.alpha
        )
        rng = np.random.default_rng([seed, list(MAPS).index(name)])
        self.first = rng.normal(size=(config.num_runs, self.map.num_features))
        self.trainer: LinearTrainer = learner.trainer(
            self.grid, num_steps=config.num_episodes * EPISODE, num_runs=config.num_runs, seed=seed,
            num_events=EVENTS, policy=self.policy, max_episode_steps=EPISODE, start_weights=self.first,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Event]:
        for event in self.trainer:
            data = self._answer() if self.trainer.position == len(self.trainer.goals) else {}
            yield Event(
                kind=event.kind, step=event.step, num_samples=event.num_samples, metrics=event.metrics, data=data
            )  # fmt: skip

    def _answer(self) -> dict[str, Any]:
        system = linear.linear_system(self.grid, self.policy, self.map)
        steps = self.config.num_episodes * EPISODE
        mean = np.array(
            [
                exact.mean_dynamics(system.A, system.b, w, alpha=self.config.alpha, num_steps=steps)
                for w in self.first
            ]
        )
        truth = policy_value(self.grid, self.policy).values
        weights = self.trainer.walk.weights
        values = weights @ system.phi.T
        off = values - mean @ system.phi.T
        share = system.weights
        return {
            "values": values.mean(axis=0).round(6).tolist(),
            "predicted": float(np.sqrt((((mean @ system.phi.T - truth) ** 2) @ share).mean())),
            "noise": float((off**2 @ share).mean()),
            "z": float(
                np.abs(off.mean(axis=0) / (off.std(axis=0, ddof=1) / math.sqrt(len(off)))).max()
            ),
        }

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state)


def judge(events: Sequence[Event]) -> list[Row]:
    """Levels to six digits, learners at theirs, rates of divergence as predicted."""
    rows = []
    for event in _of(events, "levels"):
        wanted = MAPS[event.data["map"]][1:]
        got = [event.metrics[f"level/{level}"] for level in LEVELS]
        good = all(abs(x - y) <= 6e-7 for x, y in zip(got, wanted, strict=True))
        rows.append(
            Row(
                name=f"{event.data['map']}: RMSE of {', '.join(LEVELS)}",
                measured=" / ".join(f"{x:.6f}" for x in got),
                expected=" / ".join(f"{x:.6f}" for x in wanted),
                verdict=_verdict(good),
            )
        )
    for name in MAPS:
        done = [e for e in _of(events, f"grid | {name}") if "z" in e.data]
        for event in done:
            predicted, noise = event.data["predicted"], event.data["noise"]
            rows.append(
                Row(
                    name=f"{name}: TD after {event.step} steps, RMSE over runs",
                    measured=event.metrics["value/rmse"],
                    expected=f"{math.sqrt(predicted**2 + noise):.4f}: mean path {predicted:.4f} and noise of the steps",
                    verdict=_verdict(_near_level(event)),
                )
            )  # fmt: skip
    rows += _lstd_rows(events) + _walk_rows(events) + _divergence_rows(events)
    cars = [e for e in events if e.data.get("arm", "").startswith("car")]
    if cars:
        last = [np.mean(e.data["lengths"][-max(10, len(e.data["lengths"]) // 10) :]) for e in cars]
        rows.append(
            Row(
                name=f"car: steps to the top at the end, mean of {len(cars)} runs",
                measured=float(np.mean(last)),
                expected=f"<= {CAR_BAR:.0f}",
                verdict=_verdict(np.mean(last) <= CAR_BAR),
            )
        )
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Fits as surfaces, learning curves with their levels, LSTD, the walk, divergence, the car."""
    out: dict[str, go.Figure] = {}
    levels = {e.data["map"]: e for e in _of(events, "levels")}
    runs = {name: run for name in MAPS if (run := _of(events, f"grid | {name}"))}
    ended = {n: run[-1].data["values"] for n, run in runs.items() if "values" in run[-1].data}
    if runs and levels:
        out["curves"] = pictures.learning_curves(runs, levels, LEVELS, EPISODE)
    if ended and levels:
        out["surfaces"] = pictures.surfaces(ended, next(iter(levels.values())).data["truth"])
    for arm, draw in (
        ("LSTD", pictures.lstd), ("walk", pictures.walk), ("Baird", pictures.baird), ("pair", pictures.pair)
    ):  # fmt: skip
        for event in _of(events, arm):
            out[arm] = draw(event)
    cars = [e.data["lengths"] for e in events if e.data.get("arm", "").startswith("car")]
    if cars:
        out["car"] = pictures.car(cars)
    return out


# ---------------------------------------------------------------------- arms
def _levels() -> list[Event]:
    grid, policy = worlds.book_grid(), np.full((25, 5), 0.2)
    truth = policy_value(grid, policy).values
    events = []
    for step, (name, (make, *_)) in enumerate(MAPS.items(), start=1):
        phi = make().matrix(grid)
        found = (
            linear.best_projection(grid, policy, phi),
            linear.td_fixed_point(grid, policy, phi),
            linear.bellman_error_minimiser(grid, policy, phi),
        )
        errors = [linear.value_objectives(grid, policy, phi, w).value_error ** 0.5 for w in found]
        events.append(
            Event(
                kind="evaluation", step=step, num_samples=0,
                metrics={f"level/{level}": e for level, e in zip(LEVELS, errors, strict=True)},
                data={"map": name, "num_features": phi.shape[1], "truth": truth.round(6).tolist()},
            )
        )  # fmt: skip
    return events


def _lstd_events(config: Config, seed: int) -> list[Event]:
    """LSTD and TD on the same number of steps: distance of their values to the fixed point; the sign."""
    grid, policy = worlds.book_grid(), np.full((25, 5), 0.2)
    table = Table(MAPS[LSTD_MAP][0]().matrix(grid))
    fixed = table.table @ linear.td_fixed_point(grid, policy, table)
    steps = np.unique(np.geomspace(100, config.lstd_steps, 13).round().astype(int))
    runs = min(config.num_runs, 20)
    td = linear.TDLinear(table, gamma=GAMMA, alpha=0.05)
    rows = {"lstd": np.zeros((runs, len(steps))), "td": np.zeros((runs, len(steps)))}
    recursion = 0.0
    for run in range(runs):
        walk = td.walk(grid, seed=1000 * seed + run, policy=policy, max_episode_steps=EPISODE)
        data = linear.sample_transitions(
            grid, int(steps[-1]), seed=1000 * seed + run, policy=policy, max_episode_steps=EPISODE
        )
        batch = linear.LSTD(table, gamma=GAMMA, recursive=False)
        one_by_one = linear.LSTD(table, gamma=GAMMA)
        before = 0
        for k, now in enumerate(steps):
            part = slice(before, now)
            given = (
                data.states[part], None, data.rewards[part], data.next_states[part], data.terminated[part],
                data.truncated[part],
            )  # fmt: skip
            batch.update(*given)
            walk.advance(int(now - before))
            if run == 0:
                one_by_one.update(*given)
                recursion = max(recursion, float(np.abs(one_by_one.weights - batch.weights).max()))
            for name, w in (("lstd", batch.weights), ("td", walk.weights[0])):
                rows[name][run, k] = np.sqrt(np.mean((table.table @ w - fixed) ** 2))
            before = now
    rms = {name: np.sqrt((e**2).mean(axis=0)).tolist() for name, e in rows.items()}
    slope = np.polyfit(np.log(steps[4:]), np.log(rms["lstd"][4:]), 1)[0]
    return [
        Event(
            kind="evaluation", step=1, num_samples=int(2 * runs * steps[-1]),
            metrics={"lstd/slope": float(slope), "lstd/recursion": recursion, "lstd/plus_sign": _plus_sign(seed)},
            data={"steps": steps.tolist(), "alpha": 0.05, **rms},
        )
    ]  # fmt: skip


def _plus_sign(seed: int) -> float:
    """How far the printed recursion, with a plus, is from an inverse after one random update."""
    rng = np.random.default_rng(seed)
    A, phi, step = np.eye(3) + 0.1 * rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)
    inverse = np.linalg.inv(A)
    term = np.outer(inverse @ phi, step @ inverse) / (1 + step @ inverse @ phi)
    return float(np.abs(inverse + term - np.linalg.inv(A + np.outer(phi, step))).max())


def _walk_events(config: Config, seed: int) -> list[Event]:
    """Ten groups of a hundred states: Monte Carlo to the best projection, TD to its fixed point."""
    walk = worlds.jumping_walk(gamma=1.0)
    policy = np.zeros(1002, dtype=int)
    groups = Aggregation(np.clip((np.arange(1002) - 1) // 100, 0, 9))
    truth = policy_value(walk, policy, method="lu").values[1:-1]
    found = {
        "Monte Carlo": (
            linear.GradientMC(groups, gamma=1.0, alpha=2e-4),
            linear.best_projection(walk, policy, groups),
        ),
        "TD": (
            linear.TDLinear(groups, gamma=1.0, alpha=2e-3),
            linear.td_fixed_point(walk, policy, groups),
        ),
    }
    data: dict[str, Any] = {"truth": truth[::10].round(6).tolist()}
    metrics = {}
    for name, (learner, limit) in found.items():
        start = np.broadcast_to(limit, (config.num_runs, 10))
        history = learner.learn(
            walk,
            num_steps=config.walk_steps,
            num_runs=config.num_runs,
            seed=seed,
            start_weights=start,
        )
        last = history.weights[:, -1]
        z = (last.mean(axis=0) - limit) / (last.std(axis=0, ddof=1) / math.sqrt(len(last)))
        metrics[f"walk/z {name}"] = float(np.abs(z).max())
        metrics[f"walk/distance {name}"] = float(np.abs(last.mean(axis=0) - limit).max())
        data[name] = {"limit": limit.round(6).tolist(), "mean": last.mean(axis=0).round(6).tolist()}
    return [
        Event(
            kind="evaluation", step=1, num_samples=2 * config.walk_steps * config.num_runs, metrics=metrics, data=data
        )
    ]  # fmt: skip


def _car_run(config: Config, k: int, seed: int) -> Trainer:
    def drive() -> list[Event]:
        import gymnasium

        tiles = TileCoding(8, 8, CAR)
        learner = linear.SarsaLinear(tiles, 3, gamma=1.0, alpha=0.5)
        # registered with 200 steps, in which a beginner never arrives
        env = gymnasium.make("MountainCar-v0", max_episode_steps=10_000)
        lengths, _ = learner.learn_env(env, num_episodes=config.car_episodes, seed=1000 * seed + k)
        env.close()
        return [
            Event(
                kind="evaluation", step=config.car_episodes, num_samples=int(lengths.sum()),
                metrics={"episode/length": float(lengths[-10:].mean())}, data={"lengths": lengths.tolist()},
            )
        ]  # fmt: skip

    return Prepared(drive)


# ---------------------------------------------------------------------- rows
def _near_level(event: Event) -> bool:
    """The mean square error is what the mean path and the noise add up to, and the mean is on its path."""
    predicted = event.data["predicted"] ** 2 + event.data["noise"]
    spread = Z * event.metrics["value/mse_stderr"]
    return abs(event.metrics["value/mse"] - predicted) <= spread and event.data["z"] <= Z


def _lstd_rows(events: Sequence[Event]) -> list[Row]:
    rows = []
    for event in _of(events, "LSTD"):
        m = event.metrics
        rows += [
            Row(
                name=f"LSTD, {LSTD_MAP}: slope of its error over steps, log-log",
                measured=m["lstd/slope"],
                expected="-0.5 +- 0.1: error falls with the square root of the data",
                verdict=_verdict(abs(m["lstd/slope"] + 0.5) <= 0.1),
            ),
            Row(
                name=f"recursive LSTD against one solve, {event.data['steps'][-1]} transitions",
                measured=m["lstd/recursion"],
                expected="<= 1e-6",
                verdict=_verdict(m["lstd/recursion"] <= 1e-6),
            ),
            Row(
                name="the same with the plus sign of the printed formula, one update",
                measured=m["lstd/plus_sign"],
                expected="> 0.01: it is no inverse",
                verdict=_verdict(m["lstd/plus_sign"] > 0.01),
            ),
        ]
    return rows


def _walk_rows(events: Sequence[Event]) -> list[Row]:
    aims = {"Monte Carlo": "best projection", "TD": "TD fixed point"}
    return [
        Row(
            name=f"1000-state walk, ten groups: {name} at its {aim}, largest |z|",
            measured=event.metrics[f"walk/z {name}"],
            expected=f"<= {Z}",
            verdict=_verdict(event.metrics[f"walk/z {name}"] <= Z),
        )
        for event in _of(events, "walk")
        for name, aim in aims.items()
    ]


def _divergence_rows(events: Sequence[Event]) -> list[Row]:
    rows = []
    for event in _of(events, "Baird"):
        m = event.metrics
        rows.append(
            Row(
                name="Baird's star: growth of w per expected TD update, step .01",
                measured=m["rate/measured"],
                expected=f"{RADIUS:.6f} (spectral radius)",
                verdict=_verdict(abs(m["rate/measured"] - RADIUS) <= 2e-6),
            )
        )
        for name in ("TDC", "GTD2", "emphatic TD"):
            share = m[f"last/{name}"] / m[f"first/{name}"]
            rows.append(
                Row(
                    name=f"Baird's star: {name}, last over first projected Bellman error",
                    measured=share,
                    expected="< 0.1",
                    verdict=_verdict(share < 0.1),
                )
            )
    for event in _of(events, "pair"):
        rows.append(
            Row(
                name="w to 2w: factor per update, largest distance to 1 + alpha (2 gamma - 1)",
                measured=event.metrics["pair/worst"],
                expected="<= 1e-12",
                verdict=_verdict(event.metrics["pair/worst"] <= 1e-12),
            )
        )
    return rows


def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]


def _verdict(good: Any) -> Any:
    return "pass" if good else "miss"
