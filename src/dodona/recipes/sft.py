"""A small language model learns a text symbol by symbol, and is measured in perplexity beside counting.

    dodona run sft --data FILE      any text, or a folder with input.txt
    dodona run sft                  a text whose perplexity can not fall below a known number

The last tenth of the text is held out. Beside the model stand n-gram counts of the same training text: a model that
does not beat them has learned nothing that counting would not give. Without a text of yours the model learns shuffled
digits, whose entropy is known: there the best possible perplexity is on the chart.

Source: Radford et al. 2018, "Improving language understanding by generative pre-training"; Jelinek et al. 1977
(perplexity); Witten & Bell 1991 (how counts of different lengths are mixed).
"""

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.schedules import cosine
from dodona.core.trainer import Arms
from dodona.errors import ConfigError, DataError
from dodona.figures.curves import curves
from dodona.figures.style import GRID, INK, styled
from dodona.language import CharTokenizer, forced, generate, score_tokens
from dodona.language.sft import SFTConfig, sft_trainer
from dodona.policies import TransformerPolicy

ORDERS = (1, 2, 3, 5)  # n of the counts that stand beside
DIGITS = "0123456789"
WORD = len(DIGITS) + 1  # and a stop
TEXT_SEED = 9
TIMES, LEAST = 8, 2000  # how often a word comes again in a run, at most; words there are at least
SPOKEN = 160  # symbols of the sample in the report


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which text, how long."""

    data: str | None = None
    """a text file, or a folder with input.txt; none: shuffled digits, whose entropy is known"""
    num_updates: int = 400
    """optimizer steps"""
    batch_size: int = 64
    """pieces of text of a step"""
    window: int = 96
    """symbols of a piece"""
    lr: float = 3e-3
    """learning rate at its highest; it falls to a tenth"""
    width: int = 96
    """of the model, numbers per position"""
    num_layers: int = 3
    """of the model"""
    num_eval: int = 200
    """held-out pieces of an evaluation"""
    num_evaluations: int = 10
    """over the run"""
    seed: int = 0
    """of the weights and the order"""

    def __post_init__(self) -> None:
        for name in ("num_updates", "batch_size", "num_layers", "num_eval", "num_evaluations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.window < 20:
            raise ConfigError(f"window must be at least 20, got {self.window}.")
        if self.width < 6 or self.width % 6:
            raise ConfigError(f"width must be a multiple of 6, got {self.width}: three heads share it.")  # fmt: skip


PRESETS: Mapping[str, Config] = {
    "quick": Config(num_updates=80, width=48, num_layers=2, num_eval=50, num_evaluations=4),
    "laptop": Config(),
    "paper": Config(num_updates=10_000, width=384, num_layers=6, window=256, num_eval=400),
}


class Text(NamedTuple):
    """Pieces to learn from and held-out ones, the counts of the former, and the least possible nats a symbol, if known."""

    train: list[str]
    held_out: list[str]
    counted: dict[str, float]
    floor: float | None


def build(config: Config) -> Trainer:
    """One run; the text is read before it begins."""
    text = _text(config)
    return Arms({"all": functools.partial(_run, config, text)}, seeds=(config.seed,))


def _run(config: Config, text: Text, seed: int) -> Trainer:
    tokenizer = CharTokenizer("".join(sorted(set("".join((*text.train, *text.held_out))))))
    policy = TransformerPolicy(
        len(tokenizer), size=(config.width, config.num_layers, 3), context=max(config.window, SPOKEN) + 2, seed=seed
    )  # fmt: skip
    settings = SFTConfig(
        num_updates=config.num_updates, batch_size=config.batch_size, max_tokens=config.window + 2,
        lr=cosine(config.lr, 0.1 * config.lr, config.num_updates, num_warmup=config.num_updates // 20),
    )  # fmt: skip
    trainer = sft_trainer(
        policy, text.train, settings, tokenizer=tokenizer, seed=seed, evaluate=_Perplexity(text, tokenizer),
        evaluate_every=max(1, config.num_updates // config.num_evaluations),
    )  # fmt: skip
    return _Speaking(trainer, tokenizer)


class _Perplexity:
    """exp of the mean nats of a held-out symbol; the end of a piece is no symbol of the text."""

    def __init__(self, text: Text, tokenizer: CharTokenizer):
        self.rows = [forced([tokenizer.bos_id], tokenizer.encode(piece), i) for i, piece in enumerate(text.held_out)]  # fmt: skip
        self.beside = {f"perplexity/{name}": math.exp(x) for name, x in text.counted.items()}
        if text.floor is not None:
            self.beside["perplexity/least possible"] = math.exp(text.floor)

    def __call__(self, policy: Any) -> dict[str, float]:
        total = float(score_tokens(policy, self.rows).double().sum())
        nats = -total / sum(len(r.token_ids) for r in self.rows)
        return {"perplexity/model": math.exp(nats), "bits/model": nats / math.log(2)} | self.beside


class _Speaking:
    """The trainer, whose evaluations also carry a sample."""

    def __init__(self, trainer: Any, tokenizer: CharTokenizer):
        self.trainer, self.tokenizer = trainer, tokenizer

    def __iter__(self) -> Iterator[Event]:
        for event in self.trainer:
            if event.kind == "evaluation":
                # pieces were cut anywhere, so an end in the middle means nothing: it is spoken past
                (said,) = generate(
                    self.trainer.model, [[self.tokenizer.bos_id]], max_new_tokens=SPOKEN, seed=0,
                    eos_id=self.tokenizer.pad_id, tokenizer=self.tokenizer,
                )  # fmt: skip
                event = replace(event, data={**event.data, "said": said.text})
            yield event

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state)


# ---------------------------------------------------------------------- texts
def _text(config: Config) -> Text:
    window = config.window
    if config.data is None:
        window -= window % WORD
        text, floor = _digits(config, window)
    else:
        text, floor = _read(config.data), None
    cut = len(text) - len(text) // 10
    pieces = [_pieces(part, window) for part in (text[:cut], text[cut:])]
    if len(pieces[0]) < config.batch_size or not pieces[1]:
        raise DataError(
            f"the text has {len(text)} symbols, {len(pieces[0])} pieces of {window} to learn from and "
            f"{len(pieces[1])} held out: too few for batch_size={config.batch_size}. Give a longer text, or a smaller "
            "window or batch."
        )
    order = np.random.default_rng(0).permutation(len(pieces[1]))[: config.num_eval]
    held = [pieces[1][i] for i in order]
    symbols = len(set(text))
    counted = {f"{n}-gram counts": _counted_nats(text[:cut], held, n, symbols) for n in ORDERS}
    return Text(pieces[0], held, counted, floor)


def _read(data: str) -> str:
    path = Path(data)
    path = path / "input.txt" if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"there is no file {path}. Give --data FILE, any text in UTF-8, or a folder with input.txt.")  # fmt: skip
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: {error}.") from None


def _digits(config: Config, window: int) -> tuple[str, float]:
    """(ten digits in random order, a stop, and again; the entropy of a symbol where pieces are whole words)."""
    rng = np.random.default_rng(TEXT_SEED)
    seen = config.num_updates * config.batch_size * window // WORD
    words = max(seen // TIMES, LEAST) // 10 * 10  # so that the last tenth begins with a word
    text = "".join("".join(rng.permutation(list(DIGITS))) + "." for _ in range(words))
    return text, float(np.sum(np.log(np.arange(1, 11))) / WORD)


def _pieces(text: str, window: int) -> list[str]:
    """Consecutive pieces of one length; what is left over is dropped."""
    return [text[i : i + window] for i in range(0, len(text) - window + 1, window)]


def _counted_nats(text: str, held: Sequence[str], n: int, symbols: int) -> float:
    """Mean nats of a held-out symbol by counts of up to n symbols, each order mixed with the one below.

    p_n(c | h) = (count(h c) + distinct(h) p_{n-1}(c | h')) / (count(h) + distinct(h)), p_0 = 1 / symbols.
    """
    after: list[defaultdict[str, Counter[str]]] = [defaultdict(Counter) for _ in range(n)]
    for k in range(n):
        table = after[k]
        for i in range(k, len(text)):
            table[text[i - k : i]][text[i]] += 1
    totals = [{h: sum(c.values()) for h, c in table.items()} for table in after]
    nats, count = 0.0, 0
    for piece in held:
        for i, symbol in enumerate(piece):
            p = 1.0 / symbols
            for k in range(min(n, i + 1)):
                history = piece[i - k : i]
                found = after[k].get(history)
                if found is None:
                    break
                p = (found[symbol] + len(found) * p) / (totals[k][history] + len(found))
            nats, count = nats - math.log(p), count + 1
    return nats / count


# ---------------------------------------------------------------------- judging
def judge(events: Sequence[Event]) -> list[Row]:
    """Below the counts; near the least possible, where that is known."""
    last = next((e.metrics for e in reversed(events) if e.kind == "evaluation"), None)
    if last is None:
        return []
    got = last["perplexity/model"]
    rows = []
    least = last.get("perplexity/least possible")
    if least is not None:
        rows.append(_row("perplexity of a held-out symbol", got, f"<= {1.05 * least:.4g}: 5 % above the least possible, {least:.4g}", got <= 1.05 * least))  # fmt: skip
        rows.append(_row("how far below the least possible", least - got, "<= 0.05: sampling of the held-out text", least - got <= 0.05))  # fmt: skip
    counts = last["perplexity/3-gram counts"]
    rows.append(_row("perplexity of a held-out symbol, against counting", got, f"< {counts:.4g}: 3-gram counts", got < counts))  # fmt: skip
    return rows


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """Perplexity over the run with the counts beside, and what the model says."""
    seen = [e for e in events if e.kind == "evaluation"]
    if not seen:
        return {}
    last = seen[-1]
    lines = {
        name.removeprefix("perplexity/"): x
        for name, x in last.metrics.items()
        if name.startswith("perplexity/") and name != "perplexity/model"
    }
    best = min((x, name) for name, x in lines.items() if name.endswith("counts"))
    got = last.metrics["perplexity/model"]
    word = "below" if got < best[0] else "not yet below"
    over = curves(
        {"model": ([e.step for e in seen], [e.metrics["perplexity/model"] for e in seen])}, lines=lines,
        x="updates", y="perplexity of a held-out symbol", log_y=True,
        title=f"Perplexity {got:.3g} after {last.step} updates, {word} the best counts ({best[1]}: {best[0]:.3g})",
    )  # fmt: skip
    return {"perplexity": over, "sample": _sample(seen)}


def _sample(seen: Sequence[Event]) -> go.Figure:
    """What the model says early and late, by the same random numbers."""
    shown = [seen[0], seen[len(seen) // 2], seen[-1]] if len(seen) > 2 else list(seen)
    figure = go.Figure(
        go.Table(
            header={"values": ["updates", "perplexity", "text"], "align": "left", "fill_color": GRID, "font": {"color": INK}},
            cells={
                "values": [[e.step for e in shown], [f"{e.metrics['perplexity/model']:.2f}" for e in shown], [e.data["said"].replace("\n", "<br>") for e in shown]],
                "align": "left", "fill_color": "rgba(0,0,0,0)", "font": {"color": INK, "family": "monospace"},
            },
            columnwidth=[1, 1, 8],
        )
    )  # fmt: skip
    lines = sum(e.data["said"].count("\n") + 2 for e in shown)
    return styled(figure, title="What the model says, early and late", height=20 * lines + 150)


def _row(name: str, measured: float, expected: str, good: bool) -> Row:
    return Row(name=name, measured=float(f"{measured:.4g}"), expected=expected, verdict="pass" if good else "miss")  # fmt: skip
