"""Uniform in a disc is r = R sqrt(U): every exact way passes its test, the popular r = R U fails it.

Point clouds with their radius histograms and running p-values; the acceptance of rejection, which
estimates pi; its cost as the dimension grows; what a squeeze saves. The same theorem at work on
policies is recipe rejection-sampling.

Source: von Neumann 1951; Devroye 1986; Marsaglia 1977.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.algorithms.disc import (
    DISC_METHODS,
    RejectionStats,
    chi2_cells,
    disc_radius_pdf,
    ks_uniform,
    rejection_sample,
    sample_disc,
)
from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms, Prepared
from dodona.errors import ConfigError
from dodona.figures.compose import panels
from dodona.figures.curves import curves
from dodona.figures.distribution import distribution
from dodona.figures.points import points
from dodona.figures.prediction import prediction
from dodona.figures.style import COLOURS
from dodona.oracles import sampling as oracle

LEVEL = 1e-6
LARGEST_Z = 4.9  # standard errors; two-sided level 1e-6
NAIVE_DISTANCE = 0.25  # sup |s - s^2|, at s = 1/2
NAIVE_REJECTED = (
    400  # points; at 200 the wrong sampler is found out for 99 seeds of 100, here for all
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which disc methods, and how many points each part draws."""

    num_points: int = 100_000
    """points per disc method, at least 1000"""
    num_shown: int = 2000
    """points in a cloud and its histogram, at most 4000"""
    num_trials: int = 1_000_000
    """points of the square from which pi is estimated, at least 1000"""
    num_samples: int = 20_000
    """samples of every other experiment, at least 1000"""
    largest_dim: int = 10
    """last dimension in which rejection is tried, 3 to 12"""
    methods: tuple[str, ...] = ("sqrt", "rejection", "max", "naive")
    """which disc methods: sqrt, rejection, max, triangle, gauss, concentric, naive; comma-separated"""
    seed: int = 0
    """seed of every stream"""

    def __post_init__(self) -> None:
        for name in ("num_points", "num_trials", "num_samples"):
            if getattr(self, name) < 1000:
                raise ConfigError(f"{name} must be at least 1000, got {getattr(self, name)}.")
        if not 100 <= self.num_shown <= min(4000, self.num_points):
            raise ConfigError(
                f"num_shown must be in [100, 4000] and at most num_points, got {self.num_shown}."
            )
        if not 3 <= self.largest_dim <= 12:
            raise ConfigError(
                f"largest_dim must be in [3, 12], got {self.largest_dim}. Beyond, rejection accepts "
                "less than one point of three thousand."
            )
        known = (*DISC_METHODS, "naive")
        unknown = [m for m in self.methods if m not in known]
        if unknown or not self.methods:
            raise ConfigError(f"methods must be among {', '.join(known)}, got {unknown or 'none'}.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_points=20_000, num_trials=100_000, num_samples=5000, largest_dim=7),
    "laptop": Config(),
    "paper": Config(
        num_points=10_000_000,
        num_trials=100_000_000,
        num_samples=200_000,
        methods=(*DISC_METHODS, "naive"),
    ),
}


def build(config: Config) -> Trainer:
    """Clouds method by method, then acceptance, dimensions and squeeze."""
    arms: dict[str, Callable[[int], Trainer]] = {}

    def add(name: str, make: Callable[[Config, np.random.Generator], list[Event]]) -> None:
        number = len(arms)  # every arm has a stream of its own
        arms[name] = lambda seed: Prepared(
            lambda: make(config, np.random.default_rng([seed, number]))
        )

    for method in config.methods:
        add(f"disc | {method}", functools.partial(_cloud, method))
    add("acceptance", _acceptance)
    add("dimensions", _dimensions)
    add("squeeze", _squeeze)
    return Arms(arms, seeds=(config.seed,))


def judge(events: Sequence[Event]) -> list[Row]:
    """Exact methods pass, the wrong one fails as it must, every acceptance is the predicted one."""
    rows: list[Row] = []
    for method, run in _clouds(events).items():
        last = run[-1].metrics
        distance, bound = last["ks/distance"], last["ks/threshold"]
        if method == "naive":
            found = _rejected_from(run)
            rows += [
                _row(
                    "naive: KS distance of (r / R)^2", distance, f"1/4 within {bound:.2g}",
                    abs(distance - NAIVE_DISTANCE) <= bound,
                ),
                _row(
                    "naive: points after which it stays rejected at level 1e-6", found, f"<= {NAIVE_REJECTED}",
                    found <= NAIVE_REJECTED,
                ),
            ]  # fmt: skip
            continue
        rows += [
            _row(
                f"{method}: KS distance of (r / R)^2, {run[-1].num_samples} points", distance,
                f"<= {bound:.3g} (level 1e-6)", distance <= bound,
            ),
            _row(
                f"{method}: p-value of 8 x 8 cells of equal area", last["cells/p"], ">= 1e-6",
                last["cells/p"] >= LEVEL,
            ),
        ]  # fmt: skip
    for event in _of(events, "acceptance")[-1:]:
        estimate, error = event.metrics["pi/estimate"], event.metrics["pi/error"]
        rows.append(
            _row(
                f"4 accepted / trials, {event.metrics['trials']:.0f} trials", estimate,
                f"pi within {LARGEST_Z} standard errors of {error:.2g}", abs(estimate - math.pi) <= LARGEST_Z * error,
            )
        )  # fmt: skip
    rows += _squeeze_rows(_of(events, "squeeze"))
    return rows + worst_acceptance(_of(events, "dimensions"), "acceptance of ball in cube, d")


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Clouds over histograms, running p-values, pi, cost by dimension, squeeze."""
    out: dict[str, go.Figure] = {}
    clouds = _clouds(events)
    names = list(clouds)
    for i in range(0, len(names), 4):  # four in a row stay readable
        label = "clouds" if i == 0 else f"clouds-{i // 4 + 1}"
        out[label] = _cloud_panels({name: clouds[name] for name in names[i : i + 4]})
    if clouds:
        out["p-values"] = _p_values(clouds)
    for arm, draw in (
        ("acceptance", _pi_curve), ("dimensions", _cost_by_dimension), ("squeeze", _squeeze_picture),
    ):  # fmt: skip
        run = _of(events, arm)
        if run:
            out[arm] = draw(run)
    return out


# ---------------------------------------------------------------------- shared with rejection-sampling
def counted(place: float, stats: RejectionStats, expected: float) -> dict[str, float]:
    """Metrics of one rejection experiment: where it stands on its axis, counts, predicted share."""
    return {"place": float(place), "trials": float(stats.trials), "accepted": float(stats.accepted),
            "acceptance/expected": expected}  # fmt: skip


def share(event: Event) -> float:
    """Accepted share of the trials."""
    return event.metrics["accepted"] / event.metrics["trials"]


def share_error(event: Event) -> float:
    """Half of the 95 % interval of the accepted share."""
    return 1.96 * math.sqrt(share(event) * (1 - share(event)) / event.metrics["trials"])


def standard_errors(count: float, trials: float, chance: float) -> float:
    """How far a count of successes is from its mean; a sure event that failed is infinitely far."""
    spread = math.sqrt(trials * chance * (1 - chance))
    away = count - trials * chance
    return away / spread if spread > 0 else (0.0 if abs(away) < 0.5 else math.inf)


def acceptance_errors(event: Event) -> float:
    """Measured against predicted acceptance, in standard errors."""
    m = event.metrics
    return standard_errors(m["accepted"], m["trials"], m["acceptance/expected"])


def worst_acceptance(run: Sequence[Event], what: str) -> list[Row]:
    """One row for experiments along an axis; none before the first."""
    if not run:
        return []
    places = [e.metrics["place"] for e in run]
    worst = max((acceptance_errors(e) for e in run), key=abs)
    name = f"{what} {min(places):g} to {max(places):g}: worst of {len(run)}, in standard errors"
    return [_row(name, worst, f"within +-{LARGEST_Z}", abs(worst) <= LARGEST_Z)]


# ---------------------------------------------------------------------- experiments
def _cloud(method: str, config: Config, rng: np.random.Generator) -> list[Event]:
    """KS on the first n points, n growing; the last event carries the cells and the picture."""
    z = sample_disc(config.num_points, method=method, rng=rng)
    square = (z**2).sum(axis=1)
    events = []
    for step, n in enumerate(_growing(10, config.num_points), start=1):
        test = ks_uniform(square[:n], level=LEVEL)
        metrics = {
            "ks/distance": test.statistic,
            "ks/threshold": test.threshold,
            "ks/p": test.p_value,
        }
        data: dict[str, Any] = {}
        if n == config.num_points:
            metrics["cells/p"] = chi2_cells(z).p_value
            data = {"points": np.round(z[: config.num_shown], 3).tolist()}
        events.append(Event(kind="update", step=step, num_samples=n, metrics=metrics, data=data))
    return events


def _acceptance(config: Config, rng: np.random.Generator) -> list[Event]:
    """Square to disc: counts of accepted points of the square, added up."""
    events, trials, accepted = [], 0, 0
    for step, n in enumerate(_growing(100, config.num_trials), start=1):
        stats = _ball_in_cube(max(1, round((n - trials) * math.pi / 4)), 2, rng)
        trials, accepted = trials + stats.trials, accepted + stats.accepted
        share = accepted / trials
        metrics = {"trials": float(trials), "accepted": float(accepted), "pi/estimate": 4 * share,
                   "pi/error": 4 * math.sqrt(share * (1 - share) / trials)}  # fmt: skip
        events.append(Event(kind="update", step=step, num_samples=trials, metrics=metrics))
    return events


def _dimensions(config: Config, rng: np.random.Generator) -> list[Event]:
    """Random numbers that a point of the ball costs by rejection, dimension by dimension."""
    events = []
    for step, dim in enumerate(range(2, config.largest_dim + 1), start=1):
        stats = _ball_in_cube(config.num_samples, dim, rng)
        metrics = counted(dim, stats, oracle.cube_acceptance(dim))
        events.append(Event(kind="update", step=step, num_samples=stats.trials, metrics=metrics))
    return events


def _squeeze(config: Config, rng: np.random.Generator) -> list[Event]:
    """A normal law from a Laplace law, without and with the parabola 1 - x^2 / 2 below it."""
    events = []
    for step, squeeze in enumerate((None, _log_parabola), start=1):
        x, stats = rejection_sample(
            config.num_samples, lambda x: -0.5 * x**2, propose=lambda m, rng: rng.laplace(size=m),
            log_proposal=lambda x: -np.abs(x), log_m=0.5, log_squeeze=squeeze,
            max_trials=100 * config.num_samples, rng=rng,
        )  # fmt: skip
        mass = 0.0 if squeeze is None else oracle.PARABOLA_MASS
        acceptance, evaluations = oracle.rejection_cost(oracle.NORMAL_BY_LAPLACE, 1.0, mass)
        metrics = counted(step - 1, stats, acceptance)
        metrics |= {"evaluations": float(stats.target_evals), "evaluations/expected": evaluations}  # fmt: skip
        shown = np.round(x[: config.num_shown], 3).tolist()
        events.append(
            Event(kind="update", step=step, num_samples=stats.trials, metrics=metrics, data={"samples": shown})
        )  # fmt: skip
    return events


# ---------------------------------------------------------------------- pictures
def _cloud_panels(clouds: Mapping[str, list[Event]]) -> go.Figure:
    """A row of clouds over a row of their radius histograms."""
    tops, bottoms = {}, {}
    for method, run in clouds.items():
        z = np.array(run[-1].data["points"])
        test = ks_uniform((z**2).sum(axis=1), level=LEVEL)
        tops[f"{method}: {'rejected' if test.rejected else 'uniform'}"] = points(
            z, title="", colour=_colour(method)
        )
        bottoms[f"{method}: radius, D = {test.statistic:.3f}"] = distribution(
            np.hypot(*z.T), disc_radius_pdf, title="", x="r / R", support=(0.0, 1.0), num_bins=20, colour=_colour(method),
        ).update_traces(showlegend=False).update_yaxes(range=[0, 2.6])  # fmt: skip
    return panels(
        tops | bottoms, columns=len(clouds),
        title=f"{len(z)} points each: a disc is filled evenly where radii have density 2 r (line)",
    )  # fmt: skip


def _colour(method: str) -> str:
    """One colour per method in all pictures, the warning one for the wrong one."""
    return COLOURS[5] if method == "naive" else COLOURS[DISC_METHODS.index(method) % 5]


def _p_values(clouds: Mapping[str, list[Event]]) -> go.Figure:
    series = {
        method: ([e.num_samples for e in run], [max(e.metrics["ks/p"], 1e-12) for e in run])
        for method, run in clouds.items()
    }
    below = [m for m in series if m != "naive" and min(series[m][1]) < LEVEL]
    title = f"Rejected: {', '.join(below)}" if below else "No exact way is ever rejected"
    if "naive" in clouds:
        title = f"{title}, r = R U is from {_rejected_from(clouds['naive']):.0f} points on"
    figure = curves(
        series, title=title, x="points seen", y="p-value (bound), cut at 1e-12", log_x=True, log_y=True,
        lines={"level 1e-6": LEVEL},
    )  # fmt: skip
    figure.update_annotations(y=math.log10(LEVEL))  # on a log axis a note stands at its exponent
    for method in series:
        colour = _colour(method)
        figure.update_traces(
            line={"color": colour}, marker={"color": colour}, selector={"name": method}
        )
    return figure


def _pi_curve(run: Sequence[Event]) -> go.Figure:
    trials = [e.metrics["trials"] for e in run]
    estimate = np.array([e.metrics["pi/estimate"] for e in run])
    error = 1.96 * np.array([e.metrics["pi/error"] for e in run])
    name = "4 accepted / trials"
    return curves(
        {name: (trials, estimate.tolist())}, bands={name: ((estimate - error).tolist(), (estimate + error).tolist())},
        title=f"Four times the accepted share of the square is pi: {estimate[-1]:.4f} +- {error[-1]:.1g}",
        x="trials", y="estimate of pi (band: 95 %)", log_x=True, lines={"pi": math.pi},
    )  # fmt: skip


def _cost_by_dimension(run: Sequence[Event]) -> go.Figure:
    dims = [int(e.metrics["place"]) for e in run]
    cost = [d / share(e) for d, e in zip(dims, run, strict=True)]
    return prediction(
        dims, cost, [c * share_error(e) / share(e) for c, e in zip(cost, run, strict=True)],
        (dims, [d / oracle.cube_acceptance(d) for d in dims]), name="rejection, d / acceptance",
        others={"radial, d + 1": (dims, [d + 1 for d in dims]), "dropped, d + 2": (dims, [d + 2 for d in dims])},
        title=f"Rejection is cheapest in the plane and costs {cost[-1]:.0f} numbers a point at d = {dims[-1]}",
        x="dimension d", y="random numbers per point", log_y=True,
    )  # fmt: skip


def _squeeze_picture(run: Sequence[Event]) -> go.Figure:
    cost = [e.metrics["evaluations"] / e.metrics["accepted"] for e in run]
    title = "A normal law out of a Laplace law"
    if len(run) == 2:
        title = f"A parabola below the density saves {1 - cost[1] / cost[0]:.0%} of its evaluations"
    return distribution(
        run[-1].data["samples"], lambda x: np.exp(-0.5 * x**2) / math.sqrt(math.tau), title=title, x="x",
        support=(-3.5, 3.5), num_bins=35,
    )  # fmt: skip


# ---------------------------------------------------------------------- private
def _ball_in_cube(num: int, dim: int, rng: np.random.Generator) -> RejectionStats:
    def log_inside(x: np.ndarray) -> np.ndarray:
        return np.where((x**2).sum(axis=1) <= 1, 0.0, -np.inf)

    _, stats = rejection_sample(
        num, log_inside, propose=lambda m, rng: 2 * rng.random((m, dim)) - 1,
        log_proposal=lambda x: np.zeros(len(x)), log_m=0.0, max_trials=10**10, rng=rng,
    )  # fmt: skip
    return stats


def _log_parabola(x: np.ndarray) -> np.ndarray:
    inside = np.maximum(1 - 0.5 * x**2, 0.0)
    return np.log(inside, out=np.full(len(x), -np.inf), where=inside > 0)


def _squeeze_rows(run: Sequence[Event]) -> list[Row]:
    rows, expected = [], f"within {LARGEST_Z} standard errors"
    for event in run:
        m = event.metrics
        name = "with squeeze" if m["place"] else "normal by Laplace"
        asking = m["evaluations/expected"] * m["acceptance/expected"]  # share of trials that ask f
        asked = standard_errors(m["evaluations"], m["trials"], asking)
        rows += [
            _row(
                f"{name}: acceptance", share(event),
                f"{m['acceptance/expected']:.4f} {expected}", abs(acceptance_errors(event)) <= LARGEST_Z,
            ),
            _row(
                f"{name}: target evaluations per sample", m["evaluations"] / m["accepted"],
                f"{m['evaluations/expected']:.4f} {expected}", abs(asked) <= LARGEST_Z,
            ),
        ]  # fmt: skip
    return rows


def _rejected_from(run: Sequence[Event]) -> float:
    """Fewest points from which on every test rejects; infinite when the last one does not."""
    found = math.inf
    for event in reversed(run):
        if event.metrics["ks/p"] >= LEVEL:
            break
        found = float(event.num_samples)
    return found


def _growing(first: int, last: int) -> list[int]:
    """About five counts a decade from first to last."""
    steps = round(5 * math.log10(last / first)) + 1
    return sorted({*np.geomspace(first, last, max(steps, 2)).round().astype(int).tolist(), last})


def _clouds(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Method -> its events, for methods that came to their end."""
    runs: dict[str, list[Event]] = {}
    for event in events:
        arm = str(event.data.get("arm", ""))
        if arm.startswith("disc | "):
            runs.setdefault(arm.removeprefix("disc | "), []).append(event)
    return {method: run for method, run in runs.items() if "points" in run[-1].data}


def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]


def _row(name: str, measured: float, expected: str, good: bool) -> Row:
    return Row(name=name, measured=measured, expected=expected, verdict="pass" if good else "miss")
