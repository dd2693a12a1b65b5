"""A reward model on real comparisons is judged by questions that it has never seen, beside what is easy to know.

    dodona run reward-model --data DIR      DIR holds model_solutions.jsonl of GSM8K

A right and a wrong solution of one question are a pair. Whole questions are held out. Beside the model stand judges
that read nothing: which of four language models wrote the solution, ranked by how often each is right elsewhere, and
which solution is the shorter one. A small model that begins from nothing can not calculate: chance is a possible
outcome, and the report says so.

Source: Cobbe et al. 2021, arXiv:2110.14168 (questions and solutions, openai/grade-school-math); Ouyang et al. 2022,
arXiv:2203.02155 (the loss).
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.schedules import cosine
from dodona.core.trainer import Arms
from dodona.errors import ConfigError, DataError
from dodona.figures.curves import curves
from dodona.figures.forest import forest
from dodona.language import CharTokenizer
from dodona.language.reward_model import (
    RewardModel,
    RewardModelConfig,
    reward_model_trainer,
    tokenized_pairs,
)
from dodona.policies import TransformerPolicy

FILE = "model_solutions.jsonl"
NUM_RESAMPLES = 2000
NUM_KNOWN = 100  # training pairs of an evaluation
JUDGES = ("reward model", "which model wrote it", "the shorter one")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the comparisons are, and how long they are studied."""

    data: str | None = None
    """folder with model_solutions.jsonl of GSM8K, or the file"""
    num_updates: int = 180
    """optimizer steps"""
    batch_size: int = 16
    """pairs of a step"""
    lr: float = 1e-3
    """learning rate at its highest; it falls to a tenth"""
    lm_coef: float = 1.0
    """weight of the language-model loss on the right solution"""
    width: int = 64
    """of the model, numbers per position"""
    num_layers: int = 2
    """of the model"""
    with_question: bool = True
    """the question is read too"""
    max_tokens: int = 700
    """pairs with a longer question and solution are left out"""
    unseen: float = 0.25
    """share of the questions that are held out, in (0, 1)"""
    num_evaluations: int = 4
    """over the run"""
    seed: int = 0
    """of the split, the weights and the order"""

    def __post_init__(self) -> None:
        for name in ("num_updates", "batch_size", "num_layers", "num_evaluations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.unseen < 1:
            raise ConfigError(f"unseen must be in (0, 1), got {self.unseen}.")
        if self.width < 4 or self.width % 4:
            raise ConfigError(f"width must be a multiple of 4, got {self.width}.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_updates=40, with_question=False, max_tokens=400, num_evaluations=2),
    "laptop": Config(),
    "paper": Config(num_updates=2000, width=256, num_layers=6, batch_size=32),
}


class Pair(NamedTuple):
    """A question, a right and a wrong solution, and who wrote each."""

    question: str
    right: str
    wrong: str
    authors: tuple[str, str]


def build(config: Config) -> Trainer:
    """One run; the pairs are read before it begins."""
    train, held = _split(_read(config), config)
    return Arms({"all": functools.partial(_run, config, train, held)}, seeds=(config.seed,))


def _run(config: Config, train: list[Pair], held: list[Pair], seed: int) -> Trainer:
    symbols = {c for p in (*train, *held) for c in p.question + p.right + p.wrong}
    tokenizer = CharTokenizer("".join(sorted(symbols)))
    policy = TransformerPolicy(
        len(tokenizer), size=(config.width, config.num_layers, 2), context=config.max_tokens + 2, seed=seed
    )  # fmt: skip
    evaluate = _Accuracies(train, held, tokenizer, config.with_question)
    settings = RewardModelConfig(
        num_updates=config.num_updates, batch_size=config.batch_size, lm_coef=config.lm_coef,
        lr=cosine(config.lr, 0.1 * config.lr, config.num_updates, num_warmup=config.num_updates // 10),
        max_tokens=config.max_tokens + 2,
    )  # fmt: skip
    trainer = reward_model_trainer(
        RewardModel(policy), _texts(train, config.with_question), settings, tokenizer=tokenizer, seed=seed,
        evaluate=evaluate, evaluate_every=max(1, config.num_updates // config.num_evaluations),
    )  # fmt: skip
    return trainer


# ---------------------------------------------------------------------- data
def _read(config: Config) -> list[Pair]:
    """Every right solution of a question against every wrong one."""
    if config.data is None:
        raise DataError(
            f"reward-model needs real comparisons: give --data DIR, a folder with {FILE} of GSM8K "
            "(openai/grade-school-math, grade_school_math/data). Nothing is downloaded."
        )
    path = Path(config.data)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"there is no file {path}. Expected {FILE} of GSM8K, or the folder that holds it.")  # fmt: skip
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            told = {k: (v["solution"], v["is_correct"]) for k, v in row.items() if isinstance(v, dict)}  # fmt: skip
            question = row["question"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"line {number} of {path} is no row of model solutions ({type(error).__name__}: {error}). Expected "
                '"question" and, for each model, {"solution", "is_correct"}.'
            ) from None
        pairs += [
            Pair(question, right, wrong, (a, b))
            for a, (right, good) in told.items()
            for b, (wrong, other) in told.items()
            if good and not other and right and wrong
        ]
    kept = [p for p in pairs if max(len(p.right), len(p.wrong)) + len(p.question) * config.with_question < config.max_tokens]  # fmt: skip
    if len({p.question for p in kept}) < 8:
        raise DataError(
            f"{path} has {len(pairs)} pairs of a right and a wrong solution, {len(kept)} of at most "
            f"{config.max_tokens} tokens: too few questions to hold some out. Raise max_tokens."
        )
    return kept


def _split(pairs: list[Pair], config: Config) -> tuple[list[Pair], list[Pair]]:
    """Whole questions go to one side."""
    questions = list(dict.fromkeys(p.question for p in pairs))
    order = np.random.default_rng(config.seed).permutation(len(questions))
    held = {questions[i] for i in order[: max(1, round(config.unseen * len(questions)))]}
    sides = [p for p in pairs if p.question not in held], [p for p in pairs if p.question in held]
    if config.batch_size > len(sides[0]):
        raise ConfigError(
            f"batch_size must be at most {len(sides[0])}, the pairs there are to learn from, got {config.batch_size}."
        )
    return sides


def _texts(pairs: Sequence[Pair], with_question: bool) -> list[tuple[str, str, str]]:
    return [(p.question if with_question else "", p.right, p.wrong) for p in pairs]


class _Accuracies:
    """Accuracy on pairs of unseen questions and on known ones, with its interval, beside judges that read nothing.

    Intervals are over questions, whose pairs hang together: 2.5 and 97.5 % of resampled questions.
    """

    def __init__(self, train: list[Pair], held: list[Pair], tokenizer: Any, with_question: bool):
        known = [train[i] for i in np.random.default_rng(0).permutation(len(train))[:NUM_KNOWN]]
        self.rows = {name: tokenized_pairs(_texts(p, with_question), tokenizer) for name, p in (("held_out", held), ("known", known))}  # fmt: skip
        numbers = {q: i for i, q in enumerate(dict.fromkeys(p.question for p in held))}
        self.question = np.array([numbers[p.question] for p in held])
        draws = np.random.default_rng(0).integers(len(numbers), size=(NUM_RESAMPLES, len(numbers)))
        self.weights = np.stack([np.bincount(row, minlength=len(numbers)) for row in draws])
        skill = _skill(train)
        self.easy = {
            JUDGES[1]: np.array([_better(*(skill[a] for a in p.authors)) for p in held]),
            JUDGES[2]: np.array([_better(-len(p.right), -len(p.wrong)) for p in held]),
        }

    def __call__(self, model: RewardModel) -> dict[str, float]:
        told = {}
        for name, (right, wrong) in self.rows.items():
            d = model.score(right) - model.score(wrong)
            hits = (d > 0) + 0.5 * (d == 0)
            if name == "known":
                told["known"] = float(hits.mean())
            else:
                told |= self._with_interval(JUDGES[0], hits)
        for name, hits in self.easy.items():
            told |= self._with_interval(name, hits)
        return {f"accuracy/{name}": x for name, x in told.items()}

    def _with_interval(self, name: str, hits: np.ndarray) -> dict[str, float]:
        sums, counts = (np.bincount(self.question, weights=w) for w in (hits, np.ones(len(hits))))
        low, high = np.quantile(self.weights @ sums / (self.weights @ counts), [0.025, 0.975])
        return {name: float(hits.mean()), f"{name}/low": float(low), f"{name}/high": float(high)}


def _skill(pairs: Sequence[Pair]) -> dict[str, float]:
    """Author -> share of the training pairs it is in whose right solution it wrote."""
    wins: dict[str, list[float]] = {}
    for pair in pairs:
        for author, won in zip(pair.authors, (1.0, 0.0), strict=True):
            wins.setdefault(author, []).append(won)
    return {author: float(np.mean(won)) for author, won in wins.items()}


def _better(a: float, b: float) -> float:
    return 1.0 if a > b else 0.5 if a == b else 0.0


# ---------------------------------------------------------------------- judging
def judge(events: Sequence[Event]) -> list[Row]:
    """It has learned what it was shown; what that is worth elsewhere, against chance and against the author's name."""
    last = next((e.metrics for e in reversed(events) if e.kind == "evaluation"), None)
    if last is None:
        return []
    got, low, high = (last[f"accuracy/{JUDGES[0]}{end}"] for end in ("", "/low", "/high"))
    known, author = last["accuracy/known"], last[f"accuracy/{JUDGES[1]}"]
    finding = _finding(last)
    beats = "it beats" if got > author else "it does not beat"
    return [
        _row("pairs it has studied, ranked right", known, "> 0.5", known > 0.5),
        _row(f"pairs of unseen questions, ranked right (95 % over questions: {low:.3f} to {high:.3f}): {finding}", got, "not below 0.5, which is chance", high >= 0.5),
        _row(f"who knows only which model wrote it ({beats} that)", author, "> 0.5", author > 0.5),
    ]  # fmt: skip


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Accuracy over the run, and all judges at its end."""
    seen = [e for e in events if e.kind == "evaluation"]
    if not seen:
        return {}
    last = seen[-1].metrics
    steps = [e.step for e in seen]
    name = f"accuracy/{JUDGES[0]}"
    band = {"unseen questions": ([e.metrics[f"{name}/low"] for e in seen], [e.metrics[f"{name}/high"] for e in seen])}  # fmt: skip
    over = curves(
        {"unseen questions": (steps, [e.metrics[name] for e in seen]), "studied pairs": (steps, [e.metrics["accuracy/known"] for e in seen])},
        bands=band, lines={"chance": 0.5, JUDGES[1]: last[f"accuracy/{JUDGES[1]}"]}, x="updates",
        y="pairs ranked right (share)",
        title=f"Of studied pairs {last['accuracy/known']:.0%} are ranked right, of unseen questions' {last[name]:.0%}: {_finding(last)}",
    )  # fmt: skip
    effects = [
        (
            name,
            last[f"accuracy/{name}/low"],
            last[f"accuracy/{name}"],
            last[f"accuracy/{name}/high"],
        )
        for name in JUDGES
    ]
    best = max(effects, key=lambda e: e[2])
    judges = forest(
        effects, none=0.5, x="pairs of unseen questions ranked right (share, 95 % over questions)",
        title=f"Most pairs are ranked right by: {best[0]} ({best[2]:.0%})",
    )  # fmt: skip
    return {"accuracy": over, "judges": judges}


def _finding(last: Mapping[str, float]) -> str:
    low, high = (last[f"accuracy/{JUDGES[0]}{end}"] for end in ("/low", "/high"))
    return "better than chance" if low > 0.5 else "worse than chance" if high < 0.5 else "chance"


def _row(name: str, measured: float, expected: str, good: bool) -> Row:
    return Row(name=name, measured=float(f"{measured:.4g}"), expected=expected, verdict="pass" if good else "miss")  # fmt: skip
