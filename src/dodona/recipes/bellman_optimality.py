"""The optimality equation has one solution: what discount and penalty make of it, exactly.

Four settings of the 5x5 grid against their printed tables, the discount swept from 0 with the points
where the optimal policy changes, and the contraction of the operator measured from random starts.

Source: Zhao, Mathematical Foundations of RL, 2025, ch. 3 (fig. 3.4, th. 3.2).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms, Prepared
from dodona.errors import ConfigError
from dodona.figures.compose import panels, slider
from dodona.figures.curves import curves
from dodona.figures.regions import policy_regions
from dodona.mdp import MDP, bellman_optimality, solve, sweep_gamma, worlds
from dodona.recipes.bellman_equation import book_picture

# panel -> (gamma, penalty of a forbidden cell, printed values, digits that are printed)
PANELS: dict[str, tuple[float, float, str, int]] = {
    "a: far-sighted, small penalty": (0.9, -1.0, """
        5.832 5.58 6.2 6.48 5.832   6.48 7.2 8 7.2 6.48   7.2 8 10 8 7.2   8 10 10 10 8   7.2 9 10 9 8.1""", 3),
    "b: short-sighted": (0.5, -1.0, """
        0 0 0 0 0   0 0 0 0 .1   0 0 2 .1 .1   0 2 2 2 .2   0 1 2 1 .5""", 1),
    "c: only the next reward counts": (0.0, -1.0, """
        0 0 0 0 0   0 0 0 0 0   0 0 1 0 0   0 1 1 1 0   0 0 1 0 0""", 9),
    "d: far-sighted, large penalty": (0.9, -10.0, """
        3.4868 3.8742 4.3047 4.7830 5.3144   3.1381 3.4868 4.7830 5.3144 5.9049
        2.8243 2.5419 10 5.9049 6.5610   2.5419 10 10 10 7.2900   2.2877 9 10 9 8.1""", 4),
}  # fmt: skip
# Where the optimal policy changes, derived by hand. Entering a forbidden cell costs 1 once and the
# target then pays 1 / (1 - g); a detour of k - 1 more steps pays g^k / (1 - g) in all, so it loses
# where 2g - 1 > g^k, and detours on a grid are even. The last change weighs two forbidden cells now
# against one three steps later. Coefficients, highest power first.
BREAKS: dict[str, tuple[float, ...]] = {
    **{f"2g - 1 = g^{k}": (-1.0, *[0.0] * (k - 2), 2.0, -1.0) for k in (13, 11, 9, 7, 5, 3)},
    "2g^3 + g^2 = g + 1": (2.0, 1.0, -1.0, -1.0),
}
BEYOND = 1e-5  # looks again just past a break: less than the smallest distance of two of them
STEPS = 200  # from here on the bisection of the breaks is spread over enough discounts to count
FRAMES = 21  # stops of the slider
FRAMES_UP_TO = 0.9  # beyond, (1 - gamma) v* is nearly one everywhere and colours tell nothing


@dataclass(frozen=True, kw_only=True)
class Config:
    """How finely the discount is swept and how long the contraction is watched."""

    num_gammas: int = 200
    """discounts between 0 and largest_gamma, at least 3"""
    largest_gamma: float = 0.995
    """last discount of the sweep, in (0.9, 1)"""
    num_starts: int = 50
    """random first values of the contraction picture"""
    num_iterations: int = 60
    """sweeps of the optimality operator from each start"""
    gamma: float = 0.9
    """discount of the contraction picture, in (0, 1)"""
    seed: int = 0
    """seed of the random starts"""

    def __post_init__(self) -> None:
        for name, least in (("num_gammas", 3), ("num_starts", 1), ("num_iterations", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if not 0.9 < self.largest_gamma < 1:
            raise ConfigError(
                f"largest_gamma must be in (0.9, 1), got {self.largest_gamma}. 0.995 passes every break."
            )
        if not 0 < self.gamma < 1:
            raise ConfigError(f"gamma must be in (0, 1), got {self.gamma}. 0.9 is the book's.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_gammas=60, num_starts=10),
    "laptop": Config(),
    "paper": Config(num_gammas=2000, num_starts=1000),
}


def build(config: Config) -> Trainer:
    """Four panels, the sweep of the discount, then the contraction."""
    return Arms(
        {
            "panels": lambda seed: Prepared(_panel_events),
            "discount": lambda seed: Prepared(lambda: _sweep_events(config)),
            "contraction": lambda seed: _Contraction(config, seed),
        },
        seeds=(config.seed,),
    )


class _Contraction:
    """The optimality operator from many starts; one event per application.

    ratio = |f(v) - v*| / |v - v*| in the sup norm, the worst over starts: a theorem bounds it by gamma.
    """

    def __init__(self, config: Config, seed: int):
        self.config, self.mdp = config, worlds.book_grid(gamma=config.gamma)
        self.truth = solve(
            self.mdp, method="policy-iteration", tol=1e-12 / (1 - config.gamma)
        ).values
        rng = np.random.default_rng(seed)
        self.values = rng.normal(scale=10.0, size=(config.num_starts, self.mdp.num_states))
        self.iteration, self.first = 0, self._errors()

    def __iter__(self) -> Iterator[Event]:
        if self.iteration == 0:
            yield self._event(0.0)
        while self.iteration < self.config.num_iterations:
            before = self._errors()
            self.values = np.stack([bellman_optimality(self.mdp, v)[0] for v in self.values])
            self.iteration += 1
            after = self._errors()
            # below this, rounding and not the operator decides the quotient
            clear = before > 1e-6
            yield self._event(float(np.max(after[clear] / before[clear], initial=0.0)))

    def _errors(self) -> np.ndarray:
        return np.abs(self.values - self.truth).max(axis=1)

    def _event(self, ratio: float) -> Event:
        errors = self._errors() / self.first
        return Event(
            kind="update",
            step=self.iteration,
            num_samples=self.iteration * self.config.num_starts,
            metrics={"contraction/ratio": ratio, "error/worst": errors.max(), "error/best": errors.min(),
                     "error/median": float(np.median(errors))},
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {
            "values": self.values.copy(),
            "iteration": self.iteration,
            "first": self.first.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values, self.iteration = np.array(state["values"]), state["iteration"]
        self.first = np.array(state["first"])


def judge(events: Sequence[Event]) -> list[Row]:
    """Tables, break points and contraction against print, closed forms and the theorem."""
    rows = []
    for event in _of(events, "panels"):
        digits = PANELS[event.data["panel"]][3]
        rows.append(
            Row(
                name=f"fig. 3.4 {event.data['panel']}: largest distance to the printed values",
                measured=event.metrics["table/error"],
                expected=f"<= {0.5 * 10.0**-digits:.0e} (rounding of the print)",
                verdict=_verdict(event.metrics["table/error"] <= 0.5 * 10.0**-digits + 1e-9),
            )
        )
    for event in _of(events, "discount"):
        breaks, steps = event.data["breaks"], round(event.metrics["sweep/discounts"])
        roots = sorted(_root(p) for p in BREAKS.values())
        found = len(breaks) == len(roots)
        far = max(abs(b - r) for b, r in zip(breaks, roots, strict=True)) if found else math.inf
        rows += [
            Row(
                name=f"optimal policies between discount 0 and {event.data['gammas'][-1]:g}",
                measured=float(len(breaks) + 1),
                expected=f"{len(roots) + 1}: breaks where 2g - 1 = g^k for k = 13, 11, ..., 3 and 2g^3 + g^2 = g + 1",
                verdict=_verdict(found),
            ),
            Row(
                name="largest distance of a break point to its root",
                measured=far,
                expected="<= 1e-8",
                verdict=_verdict(far <= 1e-8),
            ),
        ]
        if steps >= STEPS:
            share = event.metrics["sweep/evaluations"] / steps
            rows.append(
                Row(
                    name=f"policy evaluations per discount, {steps} discounts, bisection of breaks included",
                    measured=share,
                    expected="<= 3 on average, by warm starts",
                    verdict=_verdict(share <= 3),
                )
            )
    contraction = _of(events, "contraction")
    if contraction:
        gamma = next(e.data["config"]["gamma"] for e in events if "config" in e.data)
        worst = max(e.metrics["contraction/ratio"] for e in contraction)
        rows.append(
            Row(
                name="worst contraction ratio |f(v) - v*| / |v - v*| of any step",
                measured=worst,
                expected=f"<= gamma = {gamma:g}",
                verdict=_verdict(
                    worst <= gamma + 1e-9
                ),  # errors above 1e-6, so rounding is below 1e-9
            )
        )
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Panels of fig. 3.4, the policy bands over the discount, a slider over it, the contraction."""
    out = {}
    shown = {
        f"{e.data['panel']} (gamma {e.data['gamma']:g}, penalty {e.data['penalty']:g})": _grid(
            e.data["values"], e.data["optimal"]
        )
        for e in _of(events, "panels")
    }
    if shown:
        out["panels"] = panels(
            shown,
            title="The same grid, four answers: discount and penalty choose the path",
        )
    for event in _of(events, "discount"):
        d = event.data
        last = f"; the last change is at {d['breaks'][-1]:.6f}" if d["breaks"] else ""
        out["discount"] = policy_regions(
            d["gammas"],
            d["start"],
            d["breaks"],
            title=f"{len(d['breaks']) + 1} policies cover every discount{last}",
            x="discount gamma",
            y="(1 - gamma) v* of cell (1, 1) (reward per step)",
        )
        out["slider"] = slider(
            {
                f"{f['gamma']:.3f}": _grid(f["values"], f["optimal"], unit="(1 - gamma) v* (reward per step)", limits=(-0.1, 1.0))
                for f in d["frames"]
            },
            title="The larger the discount, the more the best path cuts through forbidden cells (orange)",
            prefix="discount gamma = ",
        )  # fmt: skip
    contraction = _of(events, "contraction")
    if contraction:
        out["contraction"] = _contraction_figure(events, contraction)
    return out


# ---------------------------------------------------------------------- private
def _panel_events() -> list[Event]:
    events = []
    for step, (panel, (gamma, penalty, printed, _)) in enumerate(PANELS.items(), start=1):
        solution = solve(worlds.book_grid(gamma=gamma, r_forbidden=penalty), tol=1e-10)
        error = float(np.abs(solution.values - np.array(printed.split(), dtype=float)).max())
        events.append(
            Event(
                kind="evaluation",
                step=step,
                num_samples=round(solution.sweeps),
                metrics={"table/error": error, "bracket/gap": solution.gap},
                data={"panel": panel, "gamma": gamma, "penalty": penalty, "values": solution.values.tolist(),
                      "optimal": _packed(solution.optimal_actions)},
            )
        )  # fmt: skip
    return events


def _sweep_events(config: Config) -> list[Event]:
    gammas = np.linspace(0.0, config.largest_gamma, config.num_gammas)
    mdp = worlds.book_grid()
    sweep = sweep_gamma(mdp, gammas)
    per_step = (1.0 - gammas)[:, None] * sweep.values
    # a line of the record holds 64 kB: the curve is thinned, the break points are not
    kept = np.unique(np.linspace(0, len(gammas) - 1, min(len(gammas), 400)).round().astype(int))
    last = np.count_nonzero(gammas <= FRAMES_UP_TO) - 1
    stops = np.unique(np.linspace(0, last, FRAMES).round().astype(int))
    frames = [
        {
            "gamma": float(gammas[i]),
            "values": per_step[i].round(9).tolist(),
            "optimal": _packed(sweep.optimal[i]),
        }
        for i in stops
    ]
    return [
        Event(
            kind="evaluation",
            step=1,
            num_samples=sweep.evaluations,
            metrics={"sweep/evaluations": float(sweep.evaluations), "sweep/discounts": float(len(gammas))},
            data={"gammas": gammas[kept].round(9).tolist(), "start": per_step[kept, 0].round(12).tolist(), "frames": frames,
                  "breaks": _all_breaks(mdp, gammas, sweep.breaks)},
        )
    ]  # fmt: skip


def _all_breaks(mdp: MDP, gammas: np.ndarray, breaks: Sequence[float]) -> list[float]:
    """Break points that share a step of the sweep too: a sweep finds only the first of each step."""
    while True:
        finer = np.union1d(gammas, [b + BEYOND for b in breaks if b + BEYOND < gammas[-1]])
        again = sweep_gamma(mdp, finer).breaks
        if len(again) == len(breaks):
            return [float(b) for b in again]
        breaks = again


def _contraction_figure(events: Sequence[Event], contraction: Sequence[Event]) -> go.Figure:
    config = next(e.data["config"] for e in events if "config" in e.data)
    steps = [e.step for e in contraction]
    column = {
        name: [max(e.metrics[f"error/{name}"], 1e-16) for e in contraction]
        for name in ("worst", "median", "best")
    }
    bound = [config["gamma"] ** k for k in steps]
    return curves(
        {"median start": (steps, column["median"]), "theorem: gamma^k": (steps, bound)},
        bands={"median start": (column["best"], column["worst"])},
        title=f"From {config['num_starts']} random starts, no error rises above gamma^k (band: best to worst start)",
        x="sweeps k", y="sup-norm error / first error", log_y=True,
    )  # fmt: skip


def _grid(
    values: Sequence[float] | np.ndarray,
    packed: Sequence[int],
    *,
    unit: str = "value (reward units)",
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    bits = np.array(packed, dtype=int)[:, None] >> np.arange(len(worlds.GRID_ACTIONS)) & 1
    return book_picture(values, bits.astype(bool), unit=unit, limits=limits)


def _packed(optimal: np.ndarray) -> list[int]:
    """[S, A] ties as one number per state, bit a for action a: short lines in the record."""
    return (optimal @ (1 << np.arange(optimal.shape[1]))).astype(int).tolist()


def _root(polynomial: Sequence[float]) -> float:
    """The root in (1/2, 1); g = 1, which divides some of them, is not a discount."""
    roots = np.roots(polynomial)
    real = roots[np.abs(roots.imag) < 1e-9].real
    return float(real[(real > 0.5) & (real < 1 - 1e-6)][0])


def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]


def _verdict(good: bool) -> Any:
    return "pass" if good else "miss"
