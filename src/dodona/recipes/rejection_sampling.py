"""Rejection turns one policy into another exactly, and how often it must try is known beforehand.

Tilted policies pi_ref exp(r / tau) by rejection from pi_ref: the acceptance is E_ref exp((r - r_max) /
tau) and falls to the pass rate of a 0/1 reward as tau goes to 0. Speculative tokens: 1 - TV of the
drafts are kept. Every law and every acceptance stands against its enumeration.

Source: Liu et al., arXiv:2309.06657; Leviathan et al., arXiv:2211.17192.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.algorithms.disc import speculative_sample, tilted_sample
from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms, Prepared
from dodona.errors import ConfigError
from dodona.figures.prediction import prediction
from dodona.oracles import sampling as oracle
from dodona.recipes.disc_sampling import counted, share, share_error, worst_acceptance

LEVEL = 1e-6
DICE = np.array(list(np.ndindex(6, 6, 6))) + 1  # the answers of the toy policy: three dice
PASS_MARK = 14  # eyes; 35 of 216 throws reach it
TARGET_LOGITS = np.array([2.0, 1.4, 1.0, 0.3, 0.0, -0.2, -0.8, -1.5])


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many samples, at which temperatures."""

    num_samples: int = 20_000
    """samples at every temperature, at least 1000"""
    taus: tuple[float, ...] = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)
    """temperatures of the tilted policy, reward units, > 0; comma-separated"""
    temperatures: tuple[float, ...] = (0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)
    """temperatures of the draft, > 0; the target has 1; comma-separated"""
    seed: int = 0
    """seed of every stream"""

    def __post_init__(self) -> None:
        if self.num_samples < 1000:
            raise ConfigError(f"num_samples must be at least 1000, got {self.num_samples}.")
        for name in ("taus", "temperatures"):
            got = getattr(self, name)
            if not got or not all(0 < t < float("inf") for t in got):
                raise ConfigError(f"{name} must be finite numbers > 0, at least one, got {got}.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_samples=5000, taus=(0.1, 0.5, 2.5), temperatures=(0.5, 1.0, 2.0)),
    "laptop": Config(),
    "paper": Config(num_samples=1_000_000),
}


def build(config: Config) -> Trainer:
    """Tilted policies over tau, then drafts over their temperature."""
    return Arms(
        {
            "tilted": lambda seed: Prepared(lambda: _tilted(config, seed)),
            "speculative": lambda seed: Prepared(lambda: _speculative(config, seed)),
        },
        seeds=(config.seed,),
    )


def judge(events: Sequence[Event]) -> list[Row]:
    """Predicted acceptances, and laws that a chi-square test of level 1e-6 can not tell apart."""
    rows = []
    for arm, what, law in (
        ("tilted", "acceptance of tilted policies, tau", "tilted policies: least p-value of the sum of eyes"),
        ("speculative", "drafts kept, temperature", "speculative tokens: least p-value of the target's law"),
    ):  # fmt: skip
        run = _of(events, arm)
        rows += worst_acceptance(run, what)
        if run:
            least = min(e.metrics["law/p"] for e in run)
            verdict: Any = "pass" if least >= LEVEL else "miss"
            rows.append(Row(name=law, measured=least, expected=">= 1e-6", verdict=verdict))
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Acceptance over temperature, measured on predicted, for both."""
    draw = {"tilted": _tilted_picture, "speculative": _speculative_picture}
    return {arm: draw[arm](_of(events, arm)) for arm in draw if _of(events, arm)}


# ---------------------------------------------------------------------- experiments
def _tilted(config: Config, seed: int) -> list[Event]:
    """pi* = pi_ref exp(r / tau) of three dice with a 0/1 reward, over tau."""
    rng, events = np.random.default_rng([seed, 0]), []
    eyes = DICE.sum(axis=1)
    for step, tau in enumerate(config.taus, start=1):
        law, acceptance = oracle.tilted_law([1 / 216] * 216, _passes(DICE).tolist(), tau)
        throws, stats = tilted_sample(
            config.num_samples, _passes, propose=lambda m, rng: rng.integers(1, 7, (m, 3)), tau=tau, max_reward=1.0,
            max_trials=100 * config.num_samples, rng=rng,
        )  # fmt: skip
        counts = np.bincount(throws.sum(axis=1), minlength=19)[3:]
        expected = np.bincount(eyes, weights=law, minlength=19)[3:]
        metrics = counted(tau, stats, acceptance) | {"law/p": _law_p(counts, expected)}
        events.append(Event(kind="update", step=step, num_samples=stats.trials, metrics=metrics))
    return events


def _passes(y: np.ndarray) -> np.ndarray:
    return (y.sum(axis=1) >= PASS_MARK).astype(float)


def _tilted_acceptance(tau: float) -> float:
    return oracle.tilted_law([1 / 216] * 216, _passes(DICE).tolist(), tau)[1]


def _speculative(config: Config, seed: int) -> list[Event]:
    """A draft that is the target at another temperature."""
    rng, events = np.random.default_rng([seed, 1]), []
    n, target = config.num_samples, _softmax(1.0)
    for step, temperature in enumerate(config.temperatures, start=1):
        draft = _softmax(temperature)
        tokens, kept = speculative_sample(
            np.tile(draft, (n, 1)), np.tile(target, (n, 1)), rng.choice(len(draft), n, p=draft), rng=rng
        )  # fmt: skip
        counts = np.bincount(tokens, minlength=len(target))
        metrics = {"place": temperature, "trials": float(n), "accepted": float(kept.sum()),
                   "acceptance/expected": _kept_share(temperature), "law/p": _law_p(counts, target)}  # fmt: skip
        events.append(Event(kind="update", step=step, num_samples=n, metrics=metrics))
    return events


def _kept_share(temperature: float) -> float:
    """1 - TV(draft, target)."""
    return 1 - 0.5 * float(np.abs(_softmax(temperature) - _softmax(1.0)).sum())


def _softmax(temperature: float) -> np.ndarray:
    weights = np.exp((TARGET_LOGITS - TARGET_LOGITS.max()) / temperature)
    return weights / weights.sum()


def _law_p(counts: np.ndarray, law: np.ndarray) -> float:
    """Chi-square with the cells expected fewer than five times made into one."""
    common = law * counts.sum() >= 5
    merged = np.append(counts[common], counts[~common].sum())
    expected = np.append(law[common], law[~common].sum())
    return oracle.counts_p(merged[expected > 0], expected[expected > 0])


# ---------------------------------------------------------------------- pictures
def _tilted_picture(run: Sequence[Event]) -> go.Figure:
    return _policy_picture(
        run, _tilted_acceptance, title="Three dice, 14 eyes pass: acceptance falls to the pass rate as tau goes to 0",
        x="temperature tau (reward units)", y="acceptance", lines={"pass rate 35/216": 35 / 216},
    )  # fmt: skip


def _speculative_picture(run: Sequence[Event]) -> go.Figure:
    return _policy_picture(
        run, _kept_share, title="Speculative decoding keeps 1 - TV(draft, target) of the drafts",
        x="temperature of the draft (the target has 1)", y="share of drafts kept",
    )  # fmt: skip


def _policy_picture(
    run: Sequence[Event], expected: Callable[[float], float], **words: Any
) -> go.Figure:
    places = [e.metrics["place"] for e in run]
    smooth = np.geomspace(min(places), max(places), 80).tolist()
    return prediction(
        places, [share(e) for e in run], [share_error(e) for e in run],
        (smooth, [expected(s) for s in smooth]), log_x=True, **words,
    )  # fmt: skip


def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]
