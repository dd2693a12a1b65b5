"""A matcher that remembers one number: no symbol is read twice, and no symbol too many is held back.

Comparisons of the naive search and of Knuth-Morris-Pratt on their worst texts; a character source that
streams answers through a StopMatcher; a batch of token rows through a TokenStopTable, against decoding
and searching each row at each step.

Source: Knuth, Morris & Pratt, SIAM J. Comput. 6(2), 1977; Aho & Corasick, CACM 18(6), 1975.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.algorithms import kmp
from dodona.core.protocols import EMPTY, Event, Row, Trainer
from dodona.core.trainer import Arms, Prepared
from dodona.errors import ConfigError
from dodona.figures.automaton import automaton, sliding
from dodona.figures.curves import curves
from dodona.figures.style import COLOURS, INK, styled
from dodona.oracles import strings

STOPS = ("</s>", "\n\nQ:")
FIXED = max(map(len, STOPS)) - 1  # characters that a buffer of fixed length delays everything by
TIMED = 0.3  # seconds for which a contestant is called again and again
ORDER = 4  # characters of context of the source
# What the source imitates: answers with mark-up and blank lines, so that many things look like a stop
# and few are one.
SAMPLE = """Q: What is a border?
A: A prefix that is also a suffix.</s>

Q: What is a <b>period</b>?
A: A shift that maps a word to itself.

Q: Is a border shorter than its word?
A: Yes.

It is <i>proper</i>, so it is shorter.</s>

Q: Can a stop begin inside a stop?
A: It can.

Questions like this are why the <b>state</b> is kept.</s>

Q: What does the state count?
A: The symbols that still match.

</p>Quite so: </span>no more and no less.</s>

Q: What is held back?
A: A proper prefix of a stop.

Q: And what is shown?
A: All the rest, <b>at once</b>.</s>

"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The walk that is drawn, the length of the stream, the size of the batch."""

    text: str = "abacabadabacababacabaabacabac"
    """text of the drawn walk"""
    pattern: str = "abacaba"
    """pattern of the drawn walk, within a to d"""
    longest_text: int = 2000
    """symbols of the longest text a^n of the count, at least 100"""
    pattern_length: int = 30
    """symbols of its pattern a^(m-1) b, at least 2"""
    num_characters: int = 20_000
    """characters that are streamed, at least 1000"""
    num_sequences: int = 256
    """rows of the token batch"""
    num_steps: int = 512
    """tokens of each row"""
    vocab_size: int = 4000
    """tokens of the vocabulary, at least 300"""
    seed: int = 0
    """seed of the source"""

    def __post_init__(self) -> None:
        for name, least in (
            ("longest_text", 100), ("pattern_length", 2), ("num_characters", 1000),
            ("num_sequences", 1), ("num_steps", 1), ("vocab_size", 300),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if self.pattern_length > self.longest_text:
            raise ConfigError(
                f"pattern_length {self.pattern_length} is above longest_text {self.longest_text}: it can not occur."
            )
        for name in ("text", "pattern"):
            value = getattr(self, name)
            if not value or not set(value) <= set("abcd"):
                raise ConfigError(f"{name} must be a word over a, b, c, d, got {value!r}.")


PRESETS: Mapping[str, Config] = {
    "quick": Config(longest_text=500, num_characters=3000, num_sequences=64, num_steps=128, vocab_size=1000),
    "laptop": Config(),
    "paper": Config(longest_text=10_000, num_characters=200_000, vocab_size=150_000),
}  # fmt: skip


def build(config: Config) -> Trainer:
    """The walk and its counts, then the stream, then the batch."""
    return Arms(
        {
            "walk": lambda seed: Prepared(lambda: _walk_events(config)),
            "stream": lambda seed: _Stream(config, seed),
            "batch": lambda seed: Prepared(lambda: [_batch_event(config, seed)]),
        },
        seeds=(config.seed,),
    )


class Source:
    """Characters with the frequencies of a sample, given the last few of them."""

    def __init__(self, seed: int):
        ring = SAMPLE + SAMPLE[:ORDER]  # every context has a successor
        self.followers: dict[str, list[str]] = {}
        for i in range(len(SAMPLE)):
            self.followers.setdefault(ring[i : i + ORDER], []).append(ring[i + ORDER])
        self.rng = np.random.default_rng(seed)
        self.context = SAMPLE[-ORDER:]

    def draw(self) -> str:
        options = self.followers[self.context]
        character = options[int(self.rng.integers(len(options)))]
        self.context = self.context[1:] + character
        return character


class _Stream:
    """One character at a time through a StopMatcher; one event per answer.

    Counts how many characters wait behind each one, and checks every step against brute force.
    """

    def __init__(self, config: Config, seed: int):
        self.config, self.source = config, Source(seed)
        self.read, self.answers = 0, 0

    def __iter__(self) -> Iterator[Event]:
        while self.read < self.config.num_characters:
            yield self._answer()

    def _answer(self) -> Event:
        matcher, text, shown = kmp.StopMatcher(STOPS), "", ""
        waits: list[int] = []
        wrong = 0
        while not matcher.stopped:
            text += self.source.draw()
            event = matcher.feed(text[-1])
            shown += event.text
            waits.append(len(matcher.held))
            tail = text[-2 * FIXED :]
            stop, held = strings.first_stop(tail, STOPS), strings.held(tail, STOPS)
            if stop is None:
                wrong += event.stopped or shown != text[: len(text) - held]
            else:
                start = len(text) - len(STOPS[stop[0]])
                wrong += event[2:] != (stop[0], start, len(text)) or shown != text[:start]
        self.read, self.answers = self.read + len(text), self.answers + 1
        fixed = sum(min(i, FIXED) for i in range(1, len(text) + 1))  # fills up first
        picture = {"text": text, "waits": waits} if 60 <= len(text) <= 110 else {}
        return Event(
            kind="update",
            step=self.answers,
            num_samples=self.read,
            metrics={
                "held/exact": sum(waits) / len(text), "held/fixed": fixed / len(text),
                "held/free": waits.count(0) / len(text), "errors/steps": float(wrong),
                "answer/length": float(len(text)),
            },
            data={"which": event.which, **picture},
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Between two answers nothing has been read of the next one."""
        return {
            "rng": self.source.rng.bit_generator.state,
            "context": self.source.context,
            "counts": [self.read, self.answers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.source.rng.bit_generator.state = state["rng"]
        self.source.context = state["context"]
        self.read, self.answers = state["counts"]


def judge(events: Sequence[Event]) -> list[Row]:
    """Bounds of the theory, exactness of the stream, agreement and speed of the batch."""
    rows: list[tuple[str, float | str, str, bool]] = []
    for event in _of(events, "walk"):
        m = event.metrics
        if "text" in event.data:
            wrong = m["walk/differences"]
            rows.append(
                ("positions where automaton, trace and naive search differ", wrong, "0", wrong == 0)
            )
        elif event.data["longest"]:
            n, size = round(m["text/length"]), round(m["pattern/length"])
            fast, slow, full = m["comparisons/kmp"], m["comparisons/naive"], (n - size + 1) * size
            rows += [
                (f"comparisons of KMP, a^{n} against a^{size - 1} b", fast, f"<= 2 n - 1 = {2 * n - 1}", fast <= 2 * n - 1),
                ("comparisons of the naive search on the same", slow, f"(n - m + 1) m = {full}", slow == full),
            ]  # fmt: skip
    stream = _of(events, "stream")
    if stream:
        wrong = sum(e.metrics["errors/steps"] for e in stream)
        exact, fixed, free = (
            _average(stream, f"held/{kind}") for kind in ("exact", "fixed", "free")
        )
        rows += [
            (f"steps of {stream[-1].num_samples} where the stream differs from brute force", wrong,
             "0: earliest end, nothing held back but a beginning of a stop", wrong == 0),
            (f"characters that wait, on average (fixed buffer: {fixed:.2f})", exact,
             f"<= {fixed / 4:.2f}, a quarter of the fixed buffer", exact <= fixed / 4),
            ("characters behind which nothing waits", f"{free:.1%}", ">= 80 %; a fixed buffer: none", free >= 0.8),
        ]  # fmt: skip
    for event in _of(events, "batch"):
        m, size = event.metrics, event.data["rows"]
        wrong, seconds = m["batch/differences"], m["seconds/build"]
        ratio = m["speed/table"] / m["speed/find"]
        rows += [
            (f"rows of {size} whose stop differs from decode-and-find", wrong, "0", wrong == 0),
            ("tokens per second of the table over decode-and-find", ratio, ">= 20 times", ratio >= 20),
            (f"seconds to build the table, {event.data['vocabulary']} tokens x {event.data['states']} states", seconds,
             "<= 2, less than a first call with new stops in transformers (PR #40520)", seconds <= 2),
        ]  # fmt: skip
    return [
        Row(name=name, measured=got, expected=expected, verdict="pass" if good else "miss")
        for name, got, expected, good in rows
    ]


def figures(events: Sequence[Event], artifacts: Mapping[str, Path] = EMPTY) -> dict[str, go.Figure]:
    """The walk, the slide, the counts, one streamed answer, the speed of the batch."""
    out = {}
    walk = _of(events, "walk")
    drawn = [e for e in walk if "text" in e.data]
    for event in drawn:
        out |= _walk_figures(event.data)
    counts = [e.metrics for e in walk if "text/length" in e.metrics]
    if counts:
        n = [c["text/length"] for c in counts]
        m = round(counts[0]["pattern/length"])
        last = counts[-1]
        out["comparisons"] = curves(
            {
                "naive search": (n, [c["comparisons/naive"] for c in counts]),
                "KMP": (n, [c["comparisons/kmp"] for c in counts]),
                "bound 2n - 1": (n, [2 * k - 1 for k in n]),
            },
            title=f"On a<sup>n</sup> against a<sup>{m - 1}</sup>b the naive search compares "
            f"{last['comparisons/naive'] / last['comparisons/kmp']:.0f} times as often",
            x="symbols of the text n", y="comparisons", log_x=True, log_y=True,
        )  # fmt: skip
    stream = _of(events, "stream")
    pictured = [e for e in stream if "waits" in e.data]
    if pictured:
        # the answer with the most false alarms shows best what is held and let go again
        shown = max(pictured, key=lambda e: sum(w > 0 for w in e.data["waits"]))
        out["stream"] = _stream_figure(shown.data["text"], shown.data["waits"])
    for event in _of(events, "batch"):
        out["batch"] = _batch_figure(event)
    return out


# ---------------------------------------------------------------------- the walk
def _walk_events(config: Config) -> list[Event]:
    t, p = config.text, config.pattern
    table, trace = kmp.automaton(p, "abcd"), kmp.trace_search(t, p)
    states, state = [], 0
    for c in t:
        state = int(table[state, ord(c) - ord("a")])
        states.append(state)
    starts = strings.occurrences(t, p)
    wrong = sum(a != b for a, b in zip(states, trace.states, strict=True))
    wrong += list(trace.starts) != starts or kmp.find_all(t, p).tolist() != starts
    events = [
        Event(
            kind="evaluation",
            step=0,
            num_samples=len(t),
            metrics={"walk/differences": float(wrong), "walk/comparisons": float(len(trace.comparisons))},
            data={"text": t, "pattern": p, "comparisons": [[c.i, c.k, int(c.equal)] for c in trace.comparisons]},
        )
    ]  # fmt: skip
    lengths = np.geomspace(config.pattern_length, config.longest_text, 8).round().astype(int)
    p = "a" * (config.pattern_length - 1) + "b"
    for step, n in enumerate(np.unique(lengths).tolist(), start=1):
        events.append(
            Event(
                kind="evaluation",
                step=step,
                num_samples=n,
                metrics={
                    "text/length": float(n), "pattern/length": float(len(p)),
                    "comparisons/kmp": float(len(kmp.trace_search("a" * n, p).comparisons)),
                    "comparisons/naive": float(len(kmp.trace_search("a" * n, p, failure="none").comparisons)),
                },
                data={"longest": n == config.longest_text},
            )
        )  # fmt: skip
    return events


def _walk_figures(data: Mapping[str, Any]) -> dict[str, go.Figure]:
    t, p, comparisons = data["text"], data["pattern"], data["comparisons"]
    starts = [str(i - len(p) + 1) for i, k, equal in comparisons if equal and k == len(p) - 1]
    found = f"One look-up per symbol: '{p}' is found at {', '.join(starts) or 'no position'}"
    known = f"{len(comparisons)} comparisons for {len(t)} symbols: a border is never compared again"
    columns = [ord(c) - ord("a") for c in t]
    return {
        "walk": automaton(kmp.automaton(p, "abcd"), columns, alphabet="abcd", title=found),
        "sliding": sliding(t, p, comparisons, title=known),
    }


# ---------------------------------------------------------------------- the stream
def _stream_figure(text: str, waits: Sequence[int]) -> go.Figure:
    free = sum(w == 0 for w in waits) / len(waits)
    x = list(range(len(text)))
    figure = go.Figure()
    figure.add_bar(
        x=x, y=list(waits), name="held back: a beginning of a stop", marker={"color": COLOURS[0]},
        customdata=[repr(c) for c in text], hovertemplate="behind %{customdata}: %{y} wait<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=[min(i + 1, FIXED) for i in x], name="fixed buffer of max|stop| - 1", mode="lines",
        line={"color": COLOURS[5], "width": 2, "dash": "dash", "shape": "hvh"},
    )  # fmt: skip
    styled(
        figure,
        title=f"Nothing waits behind {free:.0%} of these characters; a fixed buffer always waits",
        y="characters held back",
        height=360,
    )
    figure.update_xaxes(
        tickvals=x, ticktext=[{"\n": "⏎", " ": ""}.get(c, c) for c in text], tickangle=0,
        tickfont={"size": 10}, showgrid=False, title="the answer, character by character (⏎: new line)",
    )  # fmt: skip
    figure.update_yaxes(dtick=1, range=[0, FIXED + 0.6])
    figure.update_layout(
        bargap=0.1,
        margin={"t": 90},
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
    )
    return figure


# ---------------------------------------------------------------------- the batch
def _batch_event(config: Config, seed: int) -> Event:
    vocabulary, tokens_BT = _token_rows(config, seed)
    built, table = _timed(lambda: kmp.TokenStopTable(STOPS, vocabulary))
    columns = np.ascontiguousarray(tokens_BT.T)
    stops = [s.encode() for s in STOPS]
    by_table, (step, hit) = _timed(lambda: _stop_by_table(table, columns))
    by_find, ends_by_find = _timed(lambda: _stop_by_find(stops, vocabulary, columns))
    # the table says how far into its token a stop reaches; decoding says where the token begins
    lengths = np.array([len(piece) for piece in vocabulary])
    begins = np.cumsum(lengths[tokens_BT], axis=1) - lengths[tokens_BT]
    rows = np.arange(len(step))
    ends = np.where(step >= 0, begins[rows, step] + hit, -1)
    differences = int(np.count_nonzero(ends != ends_by_find))
    return Event(
        kind="evaluation",
        step=1,
        num_samples=tokens_BT.size,
        metrics={
            "batch/differences": float(differences), "batch/stopped": float(np.mean(step >= 0)),
            "speed/table": tokens_BT.size / by_table, "speed/find": tokens_BT.size / by_find,
            "seconds/build": built,
        },
        data={
            "rows": f"{config.num_sequences} x {config.num_steps} tokens",
            "vocabulary": len(vocabulary),
            "states": table.num_states,
        },
    )  # fmt: skip


def _token_rows(config: Config, seed: int) -> tuple[list[bytes], np.ndarray]:
    """A vocabulary of frequent pieces of the source's text, and rows [B, T] of that text in tokens.

    Each row has one stop, spelt in tokens of one byte, somewhere in its second half.
    """
    source = Source(seed)
    text = "".join(source.draw() for _ in range(20_000))
    while any(stop in text for stop in STOPS):  # to cut one out may join another
        for stop in STOPS:
            text = text.replace(stop, " ")
    sample = text.encode()
    pieces = Counter(sample[i : i + n] for n in range(2, 9) for i in range(len(sample) - n))
    vocabulary = [bytes([c]) for c in range(256)]
    frequent = sorted(pieces, key=lambda piece: -pieces[piece] * len(piece))
    vocabulary += frequent[: config.vocab_size - len(vocabulary)]
    rng = np.random.default_rng(seed)
    while len(vocabulary) < config.vocab_size:  # pieces that never occur make the table as large
        vocabulary.append(rng.integers(0, 256, int(rng.integers(3, 12)), dtype=np.uint8).tobytes())
    # a greedy tokenizer is a search for the leftmost, longest pieces
    found = kmp.AhoCorasick(vocabulary, kind="leftmost_longest").find_all(sample)[:, 0]
    begins = rng.integers(0, len(found), size=config.num_sequences)
    places = (begins[:, None] + np.arange(config.num_steps)) % len(found)
    tokens_BT = found[places]
    for row in tokens_BT:
        stop = list(STOPS[int(rng.integers(len(STOPS)))].encode())[: len(row)]
        begin = int(rng.integers(len(row) // 2, len(row) - len(stop) + 1))
        row[begin : begin + len(stop)] = stop
    return vocabulary, tokens_BT


def _stop_by_table(table: kmp.TokenStopTable, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(step [B] at which each row stops or -1, bytes of that token up to the stop [B])."""
    state = table.start(columns.shape[1])
    step = np.full(columns.shape[1], -1)
    inside = np.zeros(columns.shape[1], dtype=np.int64)
    for t, tokens in enumerate(columns):
        state, hit = table.step(state, tokens)
        new = hit >= 0
        if new.any():
            step[new], inside[new] = t, hit[new]
    return step, inside


def _stop_by_find(
    stops: Sequence[bytes], vocabulary: Sequence[bytes], columns: np.ndarray
) -> np.ndarray:
    """[B] end of the first stop in bytes, -1 for none: each row is decoded and its tail searched."""
    longest = max(map(len, stops))
    texts = [bytearray() for _ in range(columns.shape[1])]
    ends = [-1] * columns.shape[1]
    for tokens in columns.tolist():
        for b, token in enumerate(tokens):
            text = texts[b]
            begin = max(0, len(text) - longest + 1)
            text += vocabulary[token]
            if ends[b] >= 0:
                continue
            for stop in stops:
                at = text.find(stop, begin)
                if at >= 0 and (ends[b] < 0 or at + len(stop) < ends[b]):
                    ends[b] = at + len(stop)
    return np.array(ends)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds of the fastest call, result): what others do on the machine is no part of it."""
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < TIMED:
        begun = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - begun)
    return min(seconds), result


def _batch_figure(event: Event) -> go.Figure:
    speeds = {
        "decode and find, row by row": event.metrics["speed/find"],
        "TokenStopTable, one gather": event.metrics["speed/table"],
    }
    figure = go.Figure(
        go.Bar(
            x=list(speeds.values()), y=list(speeds), orientation="h",
            marker={"color": [COLOURS[5], COLOURS[0]]}, text=[f"{s / 1e6:.3g} M" for s in speeds.values()],
            textposition="auto", hoverinfo="skip",
        )
    )  # fmt: skip
    ratio = speeds["TokenStopTable, one gather"] / speeds["decode and find, row by row"]
    title = f"{event.data['rows']}: by table {ratio:.0f} times as fast as decode and find"
    styled(figure, title=title, x="tokens per second", height=240)
    figure.update_yaxes(tickfont={"color": INK})
    figure.update_layout(margin={"l": 200})
    return figure


# ---------------------------------------------------------------------- private
def _of(events: Sequence[Event], arm: str) -> list[Event]:
    return [e for e in events if e.data.get("arm") == arm]


def _average(stream: Sequence[Event], metric: str) -> float:
    """Per character, over answers of different length."""
    lengths = [e.metrics["answer/length"] for e in stream]
    return float(np.average([e.metrics[metric] for e in stream], weights=lengths))
