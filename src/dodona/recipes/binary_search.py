"""One question per round cuts what can not hold the answer: exact trust-region steps, exact KL coefficients.

Both templates and the one pairing that never ends; the largest step that keeps a KL bound against
backtracking, on the 5x5 grid; the coefficient of a KL penalty for a given KL.

Source: Knuth, TAOCP vol. 3, 6.2.1; Schulman et al. 2015, arXiv:1502.05477, app. C (backtracking).
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.algorithms.binary_search import (
    NonMonotoneError,
    first_true,
    kl_coefficient,
    largest_feasible,
    last_true,
    tilted_kl,
)
from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms, Prepared
from dodona.errors import ConfigError, NoSolutionError
from dodona.figures.compose import panels, slider
from dodona.figures.curves import curves
from dodona.figures.intervals import intervals
from dodona.mdp import occupancy, policy_value, worlds
from dodona.mdp.bellman import policy_advantages

SHRINK, TRIES = 0.8, 10  # backtracking as in TRPO's own code and its followers
PATIENCE = 8  # rounds after which the endless pairing is stopped
SMALL_VARIANCE = 1e-14  # of the advantages: the policy has stopped learning below it


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long the searched array is, how far a step may go, which KL targets are solved."""

    size: int = 21
    """elements of the searched array, 2..40"""
    delta: float = 0.01
    """KL radius of a trust-region step, nats"""
    confidence: float = 4.0
    """logit of 'stay' in the first policy, the others are 0: how sure it is of the wrong action"""
    num_updates: int = 30
    """trust-region steps of each kind, fewer where nothing is left to learn"""
    gamma: float = 0.9
    """discount of the grid, in (0, 1)"""
    num_tokens: int = 64
    """answers of the table whose KL coefficients are solved, at least 16"""
    num_targets: int = 20
    """KL targets, evenly up to 2 nats (or .95 of the largest KL that any coefficient reaches), at least 2"""
    seed: int = 0
    """seed of the array and of the rewards"""

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 40:
            raise ConfigError(
                f"size must be in 2..40, got {self.size}. More does not fit a picture."
            )
        if not 0 < self.delta < math.inf:
            raise ConfigError(f"delta must be > 0, got {self.delta}. 0.01 nats is usual.")
        if not abs(self.confidence) <= 20:
            raise ConfigError(
                f"confidence must be in [-20, 20], got {self.confidence}. 4 is 93 % sure."
            )
        if not 0 < self.gamma < 1:
            raise ConfigError(f"gamma must be in (0, 1), got {self.gamma}. 0.9 is the book's.")
        for name, least in (("num_updates", 1), ("num_tokens", 16), ("num_targets", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_updates=10, num_targets=10),
    "laptop": Config(),
    "paper": Config(num_updates=200, num_tokens=4096, num_targets=400),
}


def build(config: Config) -> Trainer:
    """The three searches as pictures, the steps of both kinds, the coefficients."""
    return Arms(
        {
            "templates": lambda seed: Prepared(lambda: _template_events(config, seed)),
            "exact": functools.partial(_Steps, config, _exact_step),
            "backtracking": functools.partial(_Steps, config, _backtracked_step),
            "coefficient": lambda seed: Prepared(lambda: _coefficient_events(config, seed)),
        },
        seeds=(config.seed,),
    )


def judge(events: Sequence[Event]) -> list[Row]:
    """Questions against ceil(log2 k), steps against delta, coefficients against their targets."""
    rows = []
    for event in _of(events, "templates"):
        rows += _template_rows(event)
    exact, tried = _of(events, "exact"), _of(events, "backtracking")
    if exact:
        worst = max((e.metrics["kl/share"] for e in exact), key=lambda share: abs(share - 1.0))
        rows.append(_row(
            f"exact step: KL / delta, the furthest from 1 of {len(exact)} updates",
            worst, "1 to 1e-9, and never above", 1.0 - 1e-9 <= worst <= 1.0,
        ))  # fmt: skip
    if tried:
        shares = [e.metrics["kl/share"] for e in tried]
        rows.append(_row(
            f"backtracking: largest KL / delta of {len(tried)} updates",
            max(shares), "<= 1", max(shares) <= 1.0,
        ))  # fmt: skip
        shrunk = [e.metrics["kl/share"] for e in tried if 1 < e.metrics["step/calls"] < TRIES]
        if shrunk:
            rows.append(_row(
                f"backtracking: mean KL / delta of the {len(shrunk)} updates that shrank the step",
                float(np.mean(shrunk)), "in (0.64, 1): one factor 0.8 is 0.64 on a quadratic KL", SHRINK**2 < float(np.mean(shrunk)) < 1.0,
            ))  # fmt: skip
    if exact and tried:
        pairs = [
            (e.metrics["value/start"], t.metrics["value/start"]) for e, t in zip(exact, tried, strict=False)
        ]  # fmt: skip
        gain = float(np.mean([e - t for e, t in pairs]))
        rows.append(_row(
            f"value of the exact steps less that of backtracking, mean of {len(pairs)} updates (reward units)",
            gain, "> 0: more of the radius is used", gain > 0,
        ))  # fmt: skip
    for event in _of(events, "coefficient"):
        rows += _coefficient_rows(event)
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Intervals of the three searches, one of them round by round, KL per step, value, coefficients."""
    out: dict[str, go.Figure] = {}
    for event in _of(events, "templates"):
        searches = event.data["searches"]
        x = "position in the array"
        out["templates"] = panels(
            {
                s["caption"]: intervals(
                    s["steps"],
                    ends=tuple(s["ends"]),
                    answer=s["answer"],
                    title="",
                    x=x,
                    legend=s is searches[0],
                )
                for s in searches
            },
            title="Two templates end at one place; the mixed pairing stands still for ever",
            columns=3,
        ).update_layout(legend={"orientation": "h", "y": -0.1, "yanchor": "top", "x": 0})
        first = searches[0]
        picture = functools.partial(
            intervals,
            first["steps"],
            ends=tuple(first["ends"]),
            answer=first["answer"],
            title="",
            x=x,
            notes=first["notes"],
        )
        rounds = len(first["steps"])
        out["rounds"] = slider(
            {**{f"round {k}": picture(shown=k) for k in range(1, rounds + 1)}, "answer": picture()},
            title=f"Each answer excludes half: {first['ends'][1] + 1} possible answers, {rounds} questions",
            prefix="up to ",
        )  # fmt: skip
    arms = {name: _of(events, name) for name in ("exact", "backtracking")}
    if all(arms.values()):
        shares = {
            name: ([e.step for e in run], [e.metrics["kl/share"] for e in run]) for name, run in arms.items()
        }  # fmt: skip
        mean = float(np.mean(shares["backtracking"][1]))
        out["radius"] = curves(
            shares,
            title=f"The exact step uses all of the trust region, backtracking {mean:.0%} of it on average",
            x="update", y="KL of the step / delta", lines={"0.8^2": SHRINK**2},
        )  # fmt: skip
        out["value"] = curves(
            {name: ([e.step for e in run], [e.metrics["value/start"] for e in run]) for name, run in arms.items()},
            title="Same direction, same radius: the exact steps are ahead",
            x="update", y="mean value of the states (reward units)",
        )  # fmt: skip
    for event in _of(events, "coefficient"):
        targets, d = event.data["targets"], event.data
        out["coefficient"] = curves(
            {"tau": (targets, d["tau"])},
            title="Every KL target has one coefficient, and a small one needs a large tau",
            x="KL target (nats)", y="tau (reward units per nat)", log_y=True,
        )  # fmt: skip
        out["reward"] = curves(
            {"mean reward": (targets, d["reward"])}, title="Reward grows ever more slowly with the KL that is spent",
            x="KL target (nats)", y="mean reward (reward units)", lines={"best answer": d["best"], "reference": d["reward_ref"]},
        )  # fmt: skip
    return out


# ---------------------------------------------------------------------- the templates
def _template_events(config: Config, seed: int) -> list[Event]:
    rng = np.random.default_rng(seed)
    a = np.sort(rng.integers(0, 100, config.size)).tolist()
    n, patience = len(a), PATIENCE + config.size.bit_length()
    # the mixed pairing ends by luck for some x; it never does where a whole array is below x
    x = next(
        x
        for x in [*a[2 * n // 3 :], *a[: 2 * n // 3], a[-1] + 1]
        if len(endless_pairing(lambda i, x=x: a[i] < x, 0, n, patience=patience)) == patience
    )
    lower = first_true(lambda i: a[i] >= x, 0, n, check="none", return_info=True)
    upper = last_true(lambda i: a[i] < x, 0, n, check="none", return_info=True)
    stuck = endless_pairing(lambda i: a[i] < x, 0, n, patience=patience)
    witness = None
    counts = [
        max(find(step(k), 0, n, check="none", return_info=True).evaluations for k in range(n + 1))
        for find, step in ((first_true, _rises), (last_true, _falls))
    ]
    try:
        first_true(lambda i: i % 2 == 0, 0, n + n % 2)
    except NonMonotoneError as error:
        witness = list(error.witness)
    notes = [
        f"a[{s.mid}] = {a[s.mid]} >= {x}: {f'yes, right = {s.mid}' if s.holds else f'no, left = {s.mid + 1}'}"
        for s in lower.trace
    ]
    searches = [
        {"caption": "L: lower mid, right = mid", "steps": lower.trace, "ends": [0, n], "answer": lower.value,
         "notes": notes},
        {"caption": "U: upper mid, left = mid", "steps": upper.trace, "ends": [-1, n - 1], "answer": upper.value,
         "notes": []},
        {"caption": "mixed: lower mid, left = mid", "steps": stuck, "ends": [-1, n - 1], "answer": None, "notes": []},
    ]  # fmt: skip
    last = stuck[-1]
    return [
        Event(
            kind="evaluation",
            step=1,
            num_samples=n,
            metrics={
                "questions/lower": float(counts[0]),
                "questions/upper": float(counts[1]),
                "questions/stuck": float(sum((s[0], s[2]) == (last[0], last[2]) for s in stuck)),
                "stuck/left": float(last[0]),
                "stuck/right": float(last[2]),
                "answer/gap": float(lower.value - upper.value),
            },
            data={"array": a, "x": x, "witness": witness,
                  "searches": [{**s, "steps": [list(step) for step in s["steps"]]} for s in searches]},
        )
    ]  # fmt: skip


def endless_pairing(
    predicate: Any, lo: int, hi: int, *, patience: int
) -> list[tuple[int, int, int, bool]]:
    """Rounds of the wrong pairing (lower mid, left = mid) until it ends or patience does.

    Looks for the last True, as template U; where mid would be lo - 1 the answer is taken as yes.
    """
    left, right = lo - 1, hi - 1
    steps = []
    while left < right and len(steps) < patience:
        mid = left + (right - left) // 2
        holds = mid < lo or bool(predicate(mid))
        steps.append((left, mid, right, holds))
        if holds:
            left = mid
        else:
            right = mid - 1
    return steps


def _rises(k: int) -> Any:
    return lambda i: i >= k


def _falls(k: int) -> Any:
    return lambda i: i < k


def _template_rows(event: Event) -> list[Row]:
    n, m = event.num_samples, event.metrics
    bound = n.bit_length()  # ceil(log2(n + 1))
    rows = [
        _row(
            f"template {name}: most questions for any of {n + 1} answers",
            m[f"questions/{key}"],
            f"{bound} = ceil(log2 {n + 1})",
            m[f"questions/{key}"] == bound,
        )
        for name, key in (("L", "lower"), ("U", "upper"))
    ]
    rows.append(_row(
        "first element >= x less last element < x",
        m["answer/gap"], "1: the two templates find one boundary from both sides", m["answer/gap"] == 1,
    ))  # fmt: skip
    width = m["stuck/right"] - m["stuck/left"]
    rows.append(_row(
        f"lower mid with left = mid: rounds at [{m['stuck/left']:.0f}, {m['stuck/right']:.0f}] before the counter stopped it",
        m["questions/stuck"], f"{PATIENCE} or more: nothing shrinks once right = left + 1", width == 1 and m["questions/stuck"] >= PATIENCE,
    ))  # fmt: skip
    witness = event.data["witness"]
    rows.append(_row(
        "witness against the predicate 'i is even'",
        str(None if witness is None else tuple(witness)), f"(0, {n + n % 2 - 1}): yes at the first, no at the last", witness == [0, n + n % 2 - 1],
    ))  # fmt: skip
    return rows


# ---------------------------------------------------------------------- the trust region
class _Steps:
    """Natural-gradient steps of a softmax table, each as long as the KL bound allows.

    The natural gradient of a softmax table is its advantages (Kakade 2001). Along it
    KL(pi || pi_a) = log E_pi[exp(a A)] - a E_pi[A] per state, convex in the step a with minimum 0 at 0;
    states are weighted by the discounted share of time spent in them.
    """

    def __init__(self, config: Config, rule: Any, seed: int):
        self.config, self.rule = config, rule
        self.mdp = worlds.book_grid(gamma=config.gamma)
        self.logits = np.zeros((self.mdp.num_states, self.mdp.num_actions))
        self.logits[:, worlds.GRID_ACTIONS.index("stay")] = config.confidence
        self.step, self.calls = 0, 0

    def __iter__(self) -> Iterator[Event]:
        start = np.full(self.mdp.num_states, 1.0 / self.mdp.num_states)
        while self.step < self.config.num_updates:
            pi = _softmax(self.logits)
            weights = occupancy(self.mdp, pi, start=start)
            direction = policy_advantages(self.mdp, pi)
            mean = (pi * direction).sum(axis=1, keepdims=True)
            variance = float(weights @ (pi * (direction - mean) ** 2).sum(axis=1))
            if variance < SMALL_VARIANCE:
                return
            kl = functools.partial(_kl_along, pi, direction, weights)
            guess = math.sqrt(
                2.0 * self.config.delta / variance
            )  # where the quadratic model says delta
            length, calls = self.rule(kl, guess, self.config.delta)
            after = _softmax(self.logits + length * direction)
            surrogate = float(weights @ ((after - pi) * direction).sum(axis=1))
            reached = kl(length)
            if (
                reached <= self.config.delta and surrogate > 0
            ):  # else the parameters stay as they were
                self.logits = self.logits + length * direction
                self.logits -= self.logits.max(axis=1, keepdims=True)
            self.step, self.calls = self.step + 1, self.calls + calls
            value = float(start @ policy_value(self.mdp, _softmax(self.logits)).values)
            yield Event(
                kind="update",
                step=self.step,
                num_samples=self.calls,
                metrics={"kl/step": reached, "kl/share": reached / self.config.delta, "step/length": length,
                         "step/calls": float(calls), "surrogate/gain": surrogate, "value/start": value},
            )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {"logits": self.logits.copy(), "step": self.step, "calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.logits, self.step, self.calls = (
            np.array(state["logits"]),
            state["step"],
            state["calls"],
        )


def _exact_step(kl: Any, guess: float, delta: float) -> tuple[float, int]:
    found = largest_feasible(lambda a: kl(a) <= delta, guess, limit=1e9 * guess)
    return found.value, found.evaluations


def _backtracked_step(kl: Any, guess: float, delta: float) -> tuple[float, int]:
    """The first of guess, 0.8 guess, ... within the bound; 0 where ten are not."""
    for tried in range(TRIES):
        length = guess * SHRINK**tried
        if kl(length) <= delta:
            return length, tried + 1
    return 0.0, TRIES


def _kl_along(pi: np.ndarray, direction: np.ndarray, weights: np.ndarray, a: float) -> float:
    top = direction.max(axis=1, keepdims=True)
    shifted = a * (direction - top)
    log_total = np.log((pi * np.exp(shifted)).sum(axis=1))
    return float(weights @ (log_total - (pi * shifted).sum(axis=1)))


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


# ---------------------------------------------------------------------- the coefficient
def _coefficient_events(config: Config, seed: int) -> list[Event]:
    rng = np.random.default_rng(seed)
    logits, rewards = rng.normal(size=config.num_tokens), rng.normal(size=config.num_tokens)
    logp = logits - np.log(np.exp(logits).sum())
    limit = kl_coefficient(logp, rewards, 0.0).limit
    targets = np.arange(1, config.num_targets + 1) / config.num_targets * min(2.0, 0.95 * limit)
    many = (config.num_targets, config.num_tokens)
    table = np.broadcast_to(logp, many), np.broadcast_to(rewards, many)
    found = kl_coefficient(*table, targets)
    b = np.asarray(found.inverse_tau)
    small = 1e-4 * b
    below, above = (tilted_kl(*table, b + shift) for shift in (-small, small))
    pi = np.exp(logp + b[:, None] * rewards)
    pi /= pi.sum(axis=1, keepdims=True)
    mean = (pi * rewards).sum(axis=1)
    slope = b * ((pi * rewards**2).sum(axis=1) - mean**2)
    try:
        kl_coefficient(logp, rewards, 1.001 * limit)
        refused = 0.0
    except NoSolutionError:
        refused = 1.0
    return [
        Event(
            kind="evaluation",
            step=1,
            num_samples=config.num_targets,
            metrics={
                "kl/error": float(np.abs(np.asarray(found.kl) - targets).max()),
                "slope/error": float(np.abs((above - below) / (2 * small) / slope - 1.0).max()),
                "limit/nats": limit,
                "limit/refused": refused,
            },
            data={"targets": targets.tolist(), "tau": np.asarray(found.tau).tolist(), "reward": mean.tolist(),
                  "reward_ref": float(np.exp(logp) @ rewards), "best": float(rewards.max())},
        )
    ]  # fmt: skip


def _coefficient_rows(event: Event) -> list[Row]:
    m, targets = event.metrics, event.data["targets"]
    return [
        _row(
            f"KL coefficient: largest |KL - target| of {len(targets)} targets, {targets[0]:g}..{targets[-1]:g} nats",
            m["kl/error"], "<= 1e-12", m["kl/error"] <= 1e-12,
        ),
        _row(
            "d KL / d(1/tau) by differences against Var[r] / tau, relative",
            m["slope/error"], "<= 1e-6", m["slope/error"] <= 1e-6,
        ),
        _row(
            f"a target beyond the limit {m['limit/nats']:.4f} = -log pi_ref(best) is refused",
            "yes" if m["limit/refused"] else "no", "yes", m["limit/refused"] == 1.0,
        ),
    ]  # fmt: skip


# ---------------------------------------------------------------------- private
def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]


def _row(name: str, measured: float | str, expected: str, good: bool) -> Row:
    return Row(name=name, measured=measured, expected=expected, verdict="pass" if good else "miss")
