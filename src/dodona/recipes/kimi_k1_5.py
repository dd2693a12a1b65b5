"""Mirror descent comes close to GRPO at equal tokens, and what it writes at length it can be taught to write short.

    dodona run kimi-k1.5                     one seed: against GRPO, length control, four ways from long to short
    dodona run kimi-k1.5 --preset paper      three seeds, and ReST, another log Z, samplers and partial rollouts

Plans through small grids, learnt from demonstrations full of detours. Everything is measured on grids that were
never trained on, by answers drawn from the policy.

Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.3 and 2.4. Its tau, its weight of the length reward and how its
success rates forget are not printed: those here are ours.
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from torch import nn

from dodona.core.fit_trainer import FitTrainer
from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.schedules import cosine, linear
from dodona.core.trainer import Arms
from dodona.errors import ConfigError
from dodona.figures.curves import curves
from dodona.figures.style import COLOURS, styled
from dodona.language import (
    CurriculumSampler,
    DPOConfig,
    GRPOConfig,
    KimiConfig,
    PartialRolloutBuffer,
    PrioritizedSampler,
    SFTConfig,
    TorchEngine,
    curate_prompts,
    dpo_trainer,
    estimate_pass_rates,
    graded_samples,
    grpo_trainer,
    kimi_trainer,
    length_dpo_pairs,
    merge_models,
    sft_trainer,
    shortest_correct,
    writer,
)
from dodona.language.sft import SFTBatches, sft_loss
from dodona.objectives import kimi, rloo
from dodona.policies import TransformerPolicy
from dodona.recipes._kimi_course import Course, Grids, Measured, Policies

SIZE = (48, 2, 4)
MAX_MOVES = 16
RACE = ("GRPO", "Kimi")
KEPT = "Kimi, moments kept"
MORE = ("ReST", "Kimi, log mean exp", "Kimi, prioritised", "Kimi, curriculum", "Kimi, partial")
SHORT = ("merging", "shortest rejection", "DPO", "length RL")
NUM_EVALUATIONS = 10
CLOSE = 0.05  # of pass rates, some two standard errors of a difference of evaluations


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long every leg is, and the numbers of Kimi k1.5, those that are ours among them."""

    legs: Literal["main", "all"] = "main"
    """all: also ReST, log mean exp for tau log Z, two samplers and partial rollouts"""
    num_seeds: int = 1
    """independent courses"""
    num_sft: int = 900
    """updates on demonstrations with detours"""
    num_updates: int = 100
    """iterations of every leg of the race"""
    num_prompts: int = 32
    """of an iteration"""
    group_size: int = 8
    """answers to each"""
    tau: float = 0.2
    """price of a nat of KL to the last iteration, reward units (ours)"""
    length_weight: float = 0.5
    """of the length reward, which is at most half of it (ours)"""
    num_short: int = 50
    """iterations of the second phase, with the length reward"""
    num_samples: int = 8
    """answers per prompt for rejection sampling and pairs"""
    lr: float = 6e-4
    """of mirror descent at the start of a leg; it falls to a tenth (ours: with tau the best of nine tried on seed 0)"""
    lr_grpo: float = 1e-3
    """of GRPO, likewise (ours: the better of two)"""
    num_eval_samples: int = 4
    """answers per unseen grid in an evaluation"""
    num_unseen: int = 320
    """unseen grids of an evaluation"""
    num_grids: int = 6000
    """grids that are drawn, before those that come twice are dropped and a seventh is kept apart"""
    seed: int = 0
    """the first seed"""

    def __post_init__(self) -> None:
        least = {
            "num_seeds": 1, "num_sft": 1, "num_updates": 2, "num_prompts": 4, "group_size": 2, "num_short": 1,
            "num_samples": 2, "num_eval_samples": 1, "num_unseen": 2, "num_grids": 200,
            "seed": 0,
        }  # fmt: skip
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} must be at least {minimum}, got {getattr(self, name)}.")
        for name in ("tau", "lr", "lr_grpo", "length_weight"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(
        num_sft=40, num_updates=4, num_prompts=4, group_size=4, num_short=2, num_samples=4, num_unseen=20,
        num_eval_samples=2, num_grids=600,
    ),
    "laptop": Config(),
    "paper": Config(legs="all", num_seeds=3, num_updates=200, num_short=100),
}  # fmt: skip


def build(config: Config) -> Trainer:
    """One course after another, a seed each."""
    seeds = tuple(range(config.seed, config.seed + config.num_seeds))
    return Arms({"course": functools.partial(_course, config)}, seeds=seeds)


def _course(config: Config, seed: int) -> Course:
    grids = Grids(3, MAX_MOVES, num_grids=config.num_grids, num_unseen=config.num_unseen, seed=seed)
    legs = _Legs(config, grids, seed)
    chosen: list[tuple[str, Callable[[Policies], Trainer]]] = [
        ("SFT", legs.sft), ("GRPO", legs.grpo), ("Kimi", functools.partial(legs.kimi, {})),
        (KEPT, functools.partial(legs.kimi, {"reset": False})),
    ]  # fmt: skip
    if config.legs == "all":
        chosen += [(name, functools.partial(legs.variant, name)) for name in MORE]
    chosen += [
        ("Kimi, length", functools.partial(legs.kimi, {"length_weight": config.length_weight})),
        ("short SFT", legs.short), ("merging", legs.merged), ("shortest rejection", legs.rejection),
        ("DPO", legs.dpo), ("length RL", legs.length_rl),
    ]  # fmt: skip
    return Course(chosen, legs.blank)


class _Legs:
    """The trainers of a course."""

    def __init__(self, config: Config, grids: Grids, seed: int):
        self.config, self.grids, self.seed = config, grids, seed
        self.shared: dict[str, Any] = {
            "tokenizer": grids.tokenizer, "items": grids.train, "group_size": config.group_size, "seed": seed,
        }  # fmt: skip

    def evaluate(self, policies: Policies) -> Callable[[nn.Module], dict[str, float]]:
        """Against the policy that all legs began with, once it is there."""
        return self.grids.evaluation(
            self.config.num_eval_samples, seed=10_000 + self.seed, reference=policies.get("SFT")
        )

    def blank(self) -> nn.Module:
        vocab, context = len(self.grids.tokenizer), self.grids.context
        return TransformerPolicy(vocab, size=SIZE, context=context, seed=self.seed)

    def sft(self, policies: Policies) -> Trainer:
        num = self.config.num_sft
        settings = SFTConfig(num_updates=num, lr=cosine(5e-3, 2e-4, num))
        texts = self.grids.detours(8, 3, seed=self.seed)
        return sft_trainer(
            self.blank(), texts, settings, tokenizer=self.grids.tokenizer, seed=self.seed,
            evaluate=self.evaluate(policies), evaluate_every=num,
        )  # fmt: skip

    def grpo(self, policies: Policies) -> Trainer:
        config = self.config
        settings = GRPOConfig(
            num_updates=config.num_updates, num_prompts=config.num_prompts,
            lr=linear(config.lr_grpo, config.lr_grpo / 10, config.num_updates),
            max_new_tokens=self.grids.max_new_tokens,
        )  # fmt: skip
        return grpo_trainer(
            copy.deepcopy(policies["SFT"]), self.grids.task, config=settings,
            evaluate=self.evaluate(policies), evaluate_every=self._every(config.num_updates), **self.shared,
        )  # fmt: skip

    def kimi(self, options: Mapping[str, Any], policies: Policies) -> Trainer:
        return self._mirror(policies, "SFT", self.config.num_updates, self.grids.max_new_tokens, **options)  # fmt: skip

    def variant(self, name: str, policies: Policies) -> Trainer:
        options: dict[str, Any] = {}
        if name == "ReST":
            # right answers made likelier, wrong ones left alone
            options["objective"] = rloo(baseline="none", kl="none", kl_coef=0.0)
        elif name == "Kimi, log mean exp":
            options["objective"] = kimi(self.config.tau, log_z="logmeanexp")
        elif name == "Kimi, prioritised":
            options["sampler"] = PrioritizedSampler(len(self.grids.train))
        elif name == "Kimi, partial":
            options["partial"] = PartialRolloutBuffer(4, max_staleness=8)
        else:
            options |= self._by_difficulty(policies["SFT"])
        return self.kimi(options, policies)

    def short(self, policies: Policies) -> Trainer:
        """Taught the shortest plans from where the long model began: what it is merged with."""
        num = max(1, self.config.num_sft // 10)
        return sft_trainer(
            copy.deepcopy(policies["SFT"]), self.grids.shortest_plans(),
            SFTConfig(num_updates=num, lr=cosine(1e-3, 1e-4, num)), tokenizer=self.grids.tokenizer,
            seed=self.seed, evaluate=self.evaluate(policies), evaluate_every=num,
        )  # fmt: skip

    def merged(self, policies: Policies) -> Trainer:
        return Measured(
            merge_models(policies["Kimi"], policies["short SFT"]), self.evaluate(policies)
        )

    def rejection(self, policies: Policies) -> Trainer:
        chosen = shortest_correct(self._samples(policies["Kimi"]))
        num, size = self.config.num_short, min(128, len(chosen))
        return FitTrainer(
            copy.deepcopy(policies["Kimi"]), SFTBatches(chosen, size, seed=self.seed), sft_loss,
            lr=cosine(5e-4, 5e-5, num), num_updates=num, optimizer="adamw", seed=self.seed,
            evaluate=self.evaluate(policies), evaluate_every=num,
        )  # fmt: skip

    def dpo(self, policies: Policies) -> Trainer:
        pairs = length_dpo_pairs(self._samples(policies["Kimi"])).pairs
        num = self.config.num_short
        settings = DPOConfig(
            num_updates=num,
            batch_size=max(1, min(64, len(pairs))),
            beta=1.0,
            lr=cosine(2e-4, 2e-5, num),
        )
        return dpo_trainer(
            copy.deepcopy(policies["Kimi"]), pairs, settings, seed=self.seed, evaluate=self.evaluate(policies),
            evaluate_every=num,
        )  # fmt: skip

    def length_rl(self, policies: Policies) -> Trainer:
        """The length reward from the first iteration, half of the tokens."""
        return self._mirror(
            policies, "Kimi", self.config.num_short, self.grids.max_new_tokens // 2,
            length_weight=self.config.length_weight, length_warmup=0,
        )  # fmt: skip

    def _mirror(
        self, policies: Policies, start: str, num_updates: int, max_new_tokens: int, *,
        reset: bool = True, **options: Any,
    ) -> Trainer:  # fmt: skip
        config = self.config
        given = self.shared | ({} if "objective" in options else {"tau": config.tau}) | options
        settings = KimiConfig(
            num_updates=num_updates, num_prompts=config.num_prompts, max_new_tokens=max_new_tokens,
            lr=linear(config.lr, config.lr / 10, num_updates), minibatches=2, reset_optimizer=reset,
        )  # fmt: skip
        return kimi_trainer(
            copy.deepcopy(policies[start]), self.grids.task, config=settings,
            evaluate=self.evaluate(policies), evaluate_every=self._every(num_updates), **given,
        )  # fmt: skip

    def _samples(self, policy: nn.Module) -> Any:
        engine = TorchEngine(policy, tokenizer=self.grids.tokenizer)
        return graded_samples(
            engine, self.grids.task, self.grids.train, tokenizer=self.grids.tokenizer,
            num_samples=self.config.num_samples, max_new_tokens=self.grids.max_new_tokens, seed=20_000 + self.seed,
        )  # fmt: skip

    def _by_difficulty(self, policy: nn.Module) -> dict[str, Any]:
        """All levels first, then the hard ones, as the report's ablation has it."""
        write = writer(
            TorchEngine(policy, tokenizer=self.grids.tokenizer), tokenizer=self.grids.tokenizer,
            max_new_tokens=self.grids.max_new_tokens, seed=30_000 + self.seed,
        )  # fmt: skip
        rates = estimate_pass_rates(write, self.grids.task, self.grids.train)
        kept = curate_prompts(
            self.grids.train,
            rates,
            hopeless=-1.0,
            balance=False,
            rng=np.random.default_rng(self.seed),
        )
        levels = sorted(set(kept.levels.tolist()))
        schedule = {0: levels, self.config.num_updates // 2: levels[-2:]}
        return {"items": kept.items, "sampler": CurriculumSampler(kept.levels, schedule)}

    @staticmethod
    def _every(num_updates: int) -> int:
        return max(1, num_updates // NUM_EVALUATIONS)


# ---------------------------------------------------------------------- judging
def judge(events: Sequence[Event]) -> list[Row]:
    """Kimi against GRPO where both have used as many tokens, the length reward, and the four ways to be short."""
    rows: list[tuple[str, float, str, bool]] = []
    begun = _last(events, "SFT", "unseen/pass")
    if begun is None:
        return []
    raced = {name: _at_equal_tokens(events, name) for name in (*RACE, KEPT)}
    here, there, kept = (raced[name] for name in ("Kimi", "GRPO", KEPT))
    if here is not None and there is not None:
        rows.append((f"pass rate of Kimi at equal tokens (GRPO: {there:.3f})", here, f">= {there - CLOSE:.3f}, GRPO's within {CLOSE:g}", here >= there - CLOSE))  # fmt: skip
        rows.append((f"pass rate of Kimi (its demonstrations: {begun:.3f})", here, f">= {begun + 0.08:.3f}", here >= begun + 0.08))  # fmt: skip
    if here is not None and kept is not None:
        rows.append((f"pass rate where the optimizer is not reset at every iteration (Kimi, as in the report: {here:.3f})", kept, f">= {here:.3f}: Adam's first steps have the size of lr whatever the gradient", kept >= here))  # fmt: skip
    rest = _last(events, "ReST", "unseen/pass")
    end = _last(events, "Kimi", "unseen/pass")
    if rest is not None and end is not None:
        rows.append((f"pass rate of Kimi (ReST, which never hears of wrong answers: {rest:.3f})", end, f">= {rest:.3f}", end >= rest))  # fmt: skip
    rows += _judge_length(events) + _judge_short(events)
    return [
        Row(name=name, measured=round(got, 4), expected=expected, verdict="pass" if good else "miss")
        for name, got, expected, good in rows
    ]  # fmt: skip


def _judge_length(events: Sequence[Event]) -> list[tuple[str, float, str, bool]]:
    found = [
        (_last(events, name, "unseen/tokens_right"), _last(events, name, "unseen/pass"))
        for name in ("Kimi", "Kimi, length")
    ]
    if any(x is None for pair in found for x in pair):
        return []
    (plain, rate), (short, kept) = found
    return [
        (f"tokens of a right answer with the length reward (without: {plain:.2f})", short, f"<= {0.8 * plain:.2f}, a fifth less", short <= 0.8 * plain),
        (f"pass rate with the length reward (without: {rate:.3f})", kept, f">= {rate - CLOSE:.3f}", kept >= rate - CLOSE),
    ]  # fmt: skip


def _judge_short(events: Sequence[Event]) -> list[tuple[str, float, str, bool]]:
    names = ("Kimi", *SHORT)
    tokens = {name: _last(events, name, "unseen/tokens") for name in names}
    rates = {name: _last(events, name, "unseen/pass") for name in names}
    if any(x is None for x in (*tokens.values(), *rates.values())):
        return []
    long, rate = tokens["Kimi"], rates["Kimi"]
    rows = [
        (f"length RL: tokens of an answer against the long model's ({long:.2f})", tokens["length RL"] / long, "<= 0.65, 35 % less", tokens["length RL"] <= 0.65 * long),
        (f"length RL: pass rate (long model: {rate:.3f})", rates["length RL"], f">= {rate - 0.02:.3f}, two points less", rates["length RL"] >= rate - 0.02),
    ]  # fmt: skip
    for name in SHORT[:-1]:
        rows.append((f"{name}: tokens of an answer against the long model's, pass rate {rates[name]:.3f}", tokens[name] / long, "< 1", tokens[name] < long))  # fmt: skip
    worth = {name: rates[name] / tokens[name] for name in SHORT}
    best = max(worth, key=lambda name: worth[name])
    others = max(x for name, x in worth.items() if name != "length RL")
    rows.append((f"pass rate per token of length RL (best of the four: {best})", worth["length RL"], f">= {others:.4f}, of the others", best == "length RL"))  # fmt: skip
    return rows


def _of(events: Sequence[Event], leg: str, metric: str, kind: str = "evaluation") -> dict[int, list[Event]]:  # fmt: skip
    """seed -> events of a leg with a metric."""
    found: dict[int, list[Event]] = {}
    for event in events:
        if event.kind == kind and event.data.get("leg") == leg and metric in event.metrics:
            found.setdefault(event.data["seed"], []).append(event)
    return found


def _last(events: Sequence[Event], leg: str, metric: str) -> float | None:
    """The mean over seeds of the last evaluation; None before there is one."""
    runs = _of(events, leg, metric)
    return float(np.mean([run[-1].metrics[metric] for run in runs.values()])) if runs else None


def _at_equal_tokens(events: Sequence[Event], leg: str) -> float | None:
    """Mean over seeds of the pass rate where the thriftiest leg of the race ended.

    The last three evaluations before there are averaged: one alone moves by two points of luck.
    """
    runs = {name: _of(events, name, "unseen/pass") for name in {*RACE, leg}}
    seeds = set.intersection(*(set(x) for x in runs.values()))
    if not seeds:
        return None
    rates = []
    for seed in seeds:
        spent = min(run[seed][-1].num_samples for run in runs.values())
        before = [e.metrics["unseen/pass"] for e in runs[leg][seed] if e.num_samples <= spent]
        rates.append(np.mean(before[-3:] or [runs[leg][seed][0].metrics["unseen/pass"]]))
    return float(np.mean(rates))


# ---------------------------------------------------------------------- pictures
def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """The race over tokens, lengths of right answers over iterations, the four ways on one chart."""
    out: dict[str, go.Figure] = {}
    race = {name: _series(events, name, "unseen/pass") for name in (*RACE, KEPT, *MORE)}
    race = {name: series for name, series in race.items() if series[0]}
    if race:
        here, there = (_at_equal_tokens(events, name) for name in reversed(RACE))
        told = "" if here is None or there is None else f": Kimi {here:.2f}, GRPO {there:.2f}"
        out["race"] = curves(
            race, title=f"Pass rates at equal tokens{told}",
            x="tokens written and trained on", y="pass rate on unseen grids",
        )  # fmt: skip
    lengths = {
        label: _series(events, name, "answer/length_right", kind="update")
        for label, name in (("without", "Kimi"), ("with, after the warm-up", "Kimi, length"))
    }
    lengths = {label: _smooth(*series) for label, series in lengths.items() if series[0]}
    if lengths:
        plain, short = (_last(events, name, "unseen/tokens_right") for name in ("Kimi", "Kimi, length"))  # fmt: skip
        told = "" if plain is None or short is None else f": {plain:.1f} and {short:.1f} tokens at the end"  # fmt: skip
        out["length"] = curves(
            lengths, title=f"Right answers without and with the length reward{told}",
            x="tokens written and trained on", y="tokens of a right answer", lines=_shortest(events),
        )  # fmt: skip
    distance = {name: _series(events, name, "kl/start") for name in (*RACE, "Kimi, length")}
    distance = {name: ([0.0, *xs], [0.0, *ys]) for name, (xs, ys) in distance.items() if xs}
    if distance:
        plain, short = (_last(events, name, "kl/start") for name in ("Kimi", "Kimi, length"))
        told = "" if plain is None or short is None else f": {plain:.1f} nats, {short:.1f} with the length reward"  # fmt: skip
        out["distance"] = curves(
            distance, title=f"Every iteration pays for its own way only, and nothing holds the start{told}",
            x="tokens written and trained on", y="KL to the start, per answer (nats)",
        )  # fmt: skip
    chart = _long2short(events)
    return out if chart is None else out | {"long2short": chart}


def _series(events: Sequence[Event], leg: str, metric: str, *, kind: str = "evaluation") -> tuple[list[float], list[float]]:  # fmt: skip
    """(tokens, values), means over the seeds that have come as far as the first; SFT's end is where legs begin."""
    runs = list(_of(events, leg, metric, kind).values())
    runs = [run for run in runs if len(run) == len(runs[0])]
    if not runs:
        return [], []
    tokens = np.mean([[e.num_samples for e in run] for run in runs], axis=0).tolist()
    values = np.mean([[e.metrics[metric] for e in run] for run in runs], axis=0).tolist()
    begun = _last(events, "SFT", metric) if kind == "evaluation" else None
    return (tokens, values) if begun is None else ([0.0, *tokens], [begun, *values])


def _shortest(events: Sequence[Event]) -> dict[str, float]:
    """A line where shortest plans are."""
    tokens = _last(events, "SFT", "unseen/shortest")
    return {} if tokens is None else {"shortest plans, all grids": tokens}


def _smooth(xs: list[float], ys: list[float], width: int = 5) -> tuple[list[float], list[float]]:
    """Means of consecutive values."""
    cut = len(ys) // width * width
    if cut == 0:
        return xs, ys
    return tuple(np.reshape(z[:cut], (-1, width)).mean(axis=1).tolist() for z in (xs, ys))


def _long2short(events: Sequence[Event]) -> go.Figure | None:
    points = {
        label: (_last(events, name, "unseen/tokens"), _last(events, name, "unseen/pass"), _last(events, name, "unseen/pass_se"))
        for label, name in (("long model", "Kimi"), ("SFT on shortest plans", "short SFT"), *((s, s) for s in SHORT))
    }  # fmt: skip
    points = {label: p for label, p in points.items() if None not in p}
    if not points:
        return None
    figure = go.Figure()
    for i, (label, (tokens, rate, error)) in enumerate(points.items()):
        figure.add_scatter(
            x=[tokens], y=[rate], error_y={"array": [2 * error], "color": COLOURS[i]}, name=label,
            mode="markers+text", text=[f" {label}"], textposition="middle right", showlegend=False,
            marker={"size": 11, "color": COLOURS[i], "symbol": "diamond" if label == "long model" else "circle"},
        )  # fmt: skip
    shortened = {label: p for label, p in points.items() if label in SHORT}
    title = "From long to short"
    if shortened:
        best = max(shortened, key=lambda label: shortened[label][1] / shortened[label][0])
        title = f"{best[0].upper()}{best[1:]} passes most per token (bars: two standard errors)"
    styled(figure, title=title, x="tokens of an answer", y="pass rate on unseen grids")
    tokens = [p[0] for p in points.values()]
    room = 0.2 * (max(tokens) - min(tokens)) + 0.1  # for the words behind the last point
    return figure.update_xaxes(range=[min(tokens) - 0.2 * room, max(tokens) + room])
