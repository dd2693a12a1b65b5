"""Divergence on demand: Baird's star and w -> 2w, whose growth per update is known beforehand.

Not here: sampled learners that behave (value_function_approximation.py).

Source: Baird 1995; Sutton & Barto 2018, sec. 11.2.
"""

import numpy as np

from dodona.core.protocols import Event
from dodona.mdp import worlds
from dodona.rl import linear
from dodona.rl.features import Table

BAIRD_STEPS = 5000
PAIR_ALPHA = 0.1


def baird() -> tuple[linear.LinearSystem, linear.LinearSystem]:
    """(TD, emphatic TD): expected updates on Baird's star, target "solid", states weighted evenly."""
    phi = np.zeros((7, 8))
    phi[np.arange(6), np.arange(6)] = 2.0
    phi[:6, 7] = phi[6, 6] = 1.0
    phi[6, 7] = 2.0
    star, solid, even = worlds.baird_star(), np.ones(7, dtype=int), np.full(7, 1 / 7)
    plain = linear.linear_system(star, solid, phi, d=even)
    f = linear.emphatic_weights(star, solid, even)
    return plain, linear.linear_system(star, solid, phi, d=f)


def baird_events() -> list[Event]:
    """Projected Bellman error of TD, emphatic TD, TDC and GTD2 along expected updates, and how fast TD grows."""
    plain, emphatic = baird()
    first = np.array([1.0, 1, 1, 1, 1, 1, 10, 1])
    zero = np.zeros(8)
    moves: dict[str, tuple[np.ndarray, float]] = {
        "TD": (plain.A, 0.01),
        "emphatic TD": (emphatic.A, 0.001),
    }
    for kind in ("tdc", "gtd2"):
        G, _ = linear.gradient_td_system(plain, kind=kind, beta_over_alpha=10.0)
        moves[kind.upper()] = (G, 0.005)
    kept = np.unique(np.linspace(0, BAIRD_STEPS, 101).round().astype(int))
    series, norms = {}, []
    for name, (G, alpha) in moves.items():
        x = np.concatenate([first, zero])[: len(G)]
        errors = []
        for step in range(BAIRD_STEPS + 1):
            if step in kept:
                w = x[:8]
                backup = plain.phi @ (w - plain.project(plain.backup(w)))
                errors.append(float(np.sqrt(plain.weights @ backup**2)))
            if name == "TD":
                norms.append(float(np.linalg.norm(x)))
            x = x - alpha * G @ x
        series[name] = errors
    return [
        Event(
            kind="evaluation", step=BAIRD_STEPS, num_samples=0,
            metrics={"rate/measured": norms[-1] / norms[-2], "limit/step": linear.max_step_size(plain.A),
                     **{f"last/{n}": s[-1] for n, s in series.items()},
                     **{f"first/{n}": s[0] for n, s in series.items()}},
            data={"steps": kept.tolist(), "series": series, "alphas": {n: a for n, (_, a) in moves.items()}},
        )
    ]  # fmt: skip


def pair_events() -> list[Event]:
    """The factor that a learner's own updates put on w, for every discount."""
    gammas = np.linspace(0.0, 1.0, 21)
    measured = []
    for gamma in gammas:
        learner = linear.TDLinear(
            Table(np.array([[1.0], [2.0]])), gamma=float(gamma), alpha=PAIR_ALPHA
        )
        learner.weights[:] = 1.0
        num = 100
        learner.update(
            np.zeros(num, int), None, np.zeros(num), np.ones(num, int), np.zeros(num, bool), np.zeros(num, bool)
        )  # fmt: skip
        measured.append(float(learner.weights[0] ** (1 / num)))
    predicted = (1 + PAIR_ALPHA * (2 * gammas - 1)).tolist()
    worst = max(abs(a - b) for a, b in zip(measured, predicted, strict=True))
    return [
        Event(
            kind="evaluation", step=1, num_samples=2100, metrics={"pair/worst": worst},
            data={"gammas": gammas.round(3).tolist(), "measured": measured, "predicted": predicted},
        )
    ]  # fmt: skip
