"""Matching against plain Python, the built-in search, pyahocorasick and transformers' stop criteria.

One look-up in an automaton waits for the one before, so a single walk is bound by the latency of a load:
about two nanoseconds a symbol. Large texts are walked in several stretches at once, on every core; rows
say which form they time. ``find`` on str and bytes is the built-in one and can not be faster.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from _timing import absolute_row, in_turn, once, ratio_row

from dodona.algorithms import kmp
from dodona.algorithms._machine import BLOCK, Machine
from dodona.algorithms._machine_kernels import walk_rows

try:
    import ahocorasick
except ImportError:
    ahocorasick = None
try:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.generation.stopping_criteria import StopStringCriteria
except ImportError:
    StopStringCriteria = None

SIZE = 100_000_000  # bytes of the large text
NEEDLE = b"abcaababcaabcaababca"
STOPS = ["</s>", "\n\nQ:", "###"]
BATCH, STEPS, VOCABULARY = 256, 512, 150_000
MICRO = 1e-6


def run() -> list[dict[str, Any]]:
    """Every row of the topic."""
    rng = np.random.default_rng(0)
    text = rng.integers(97, 101, SIZE, dtype=np.uint8).tobytes()
    rows = [*_one_pattern(text), *_streams(text)]
    del text
    return [*rows, *_built_in(rng), *_words(rng), *_tokens(rng), *_batch(rng)]


def _one_pattern(text: bytes) -> list[dict[str, Any]]:
    part = text[:2_000_000]
    assert kmp.find_all(part, NEEDLE).tolist() == _plain_kmp(part, NEEDLE)
    plain, _ = once(lambda: _plain_kmp(part, NEEDLE))
    t = in_turn({"all": lambda: kmp.find_all(text, NEEDLE), "lane": _one_lane(text)}, rounds=3)
    ours, lane = (1e9 * t[name] / SIZE for name in ("all", "lane"))
    theirs = 1e9 * plain / len(part)
    name = "100 MB of bytes, one pattern"
    return [
        ratio_row(f"{name}, find_all", peer="KMP in plain Python", ours=ours, theirs=theirs, target=20.0, unit="ns a byte"),
        ratio_row(f"{name}, one walk on one core", peer="KMP in plain Python", ours=lane, theirs=theirs, target=20.0, unit="ns a byte"),
        absolute_row(f"{name}, find_all", ours=1e3 / ours, unit="MB/s", target=500.0, larger_is_better=True),
        absolute_row(f"{name}, one walk on one core", ours=1e3 / lane, unit="MB/s", target=300.0, larger_is_better=True),
    ]  # fmt: skip


def _streams(text: bytes) -> list[dict[str, Any]]:
    size = 1 << 22
    text = text[:size]
    stream = kmp.KMPStream(NEEDLE)

    def fed(chunk: int) -> Callable[[], Any]:
        pieces = [text[i : i + chunk] for i in range(0, size, chunk)]
        return lambda: [stream.feed(piece) for piece in pieces]

    matcher = kmp.StopMatcher(STOPS)
    t = in_turn(
        {
            "lane": _one_lane(text), "all": lambda: kmp.find_all(text, NEEDLE),
            "4 kB": fed(1 << 12), "64 kB": fed(1 << 16), "1 MB": fed(1 << 20),
            "byte": lambda: stream.feed(b"a"), "token": lambda: matcher.feed(" the"),
        }
    )  # fmt: skip
    rows = [
        ratio_row(f"KMPStream in chunks of {name}", peer="one-shot KMP, one walk", ours=t[name], theirs=t["lane"], target=1 / 1.3)
        for name in ("4 kB", "64 kB")
    ]  # fmt: skip
    return [
        *rows,
        ratio_row("KMPStream in chunks of 1 MB", peer="find_all, all cores", ours=t["1 MB"], theirs=t["all"], target=0.4),
        absolute_row("KMPStream.feed of one byte, a call", ours=t["byte"] / MICRO, unit="us", target=10.0),
        absolute_row("StopMatcher.feed of a word, a call", ours=t["token"] / MICRO, unit="us", target=12.0),
    ]  # fmt: skip


def _built_in(rng: np.random.Generator) -> list[dict[str, Any]]:
    easy = rng.integers(0, 256, 1 << 24, dtype=np.uint8).tobytes()
    periodic = rng.integers(97, 99, 1 << 24, dtype=np.uint8).tobytes()
    absent, needle = bytes(range(60, 80)), b"abaababaabaababaabab"
    t = in_turn(
        {
            "find": lambda: kmp.find(easy, absent), "bytes.find": lambda: easy.find(absent),
            "all easy": lambda: kmp.find_all(easy, absent), "count easy": lambda: easy.count(absent),
            "all periodic": lambda: kmp.find_all(periodic, needle), "count periodic": lambda: periodic.count(needle),
        }
    )  # fmt: skip
    return [
        ratio_row("find, absent needle, 16 MB", peer="bytes.find", ours=t["find"], theirs=t["bytes.find"], target=0.9),
        ratio_row("find_all, absent needle, 16 MB", peer="bytes.count", ours=t["all easy"], theirs=t["count easy"], target=0.1),
        ratio_row("find_all, two letters, 16 MB", peer="bytes.count", ours=t["all periodic"], theirs=t["count periodic"], target=2.0),
    ]  # fmt: skip


def _words(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Words in running text, as str."""
    rows = []
    for count, lexicon in ((1000, 20_000), (100_000, 400_000)):
        words = list({_word(rng) for _ in range(lexicon)})
        text = " ".join(words[i] for i in rng.integers(0, len(words), 600_000))
        patterns = words[:count]
        build, ours = once(lambda patterns=patterns: kmp.AhoCorasick(patterns))
        calls = {"ours": lambda ours=ours, text=text: ours.find_all(text)}
        peer_build = None
        if ahocorasick:
            peer_build, theirs = once(lambda patterns=patterns: _peer(patterns))
            assert [e + 1 for e, _ in theirs.iter(text)] == ours.find_all(text)[:, 2].tolist()
            calls["theirs"] = lambda theirs=theirs, text=text: list(theirs.iter(text))
        t = in_turn(calls, rounds=3)
        name = f"{count} words in {len(text) / 1e6:.0f} MB of text"
        rows += [
            ratio_row(f"{name}, search", peer="pyahocorasick", ours=t["ours"], theirs=t.get("theirs"), target=1.0),
            ratio_row(f"{name}, build", peer="pyahocorasick", ours=build, theirs=peer_build, target=0.5),
        ]  # fmt: skip
    return rows


def _tokens(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Token patterns in token rows; the peer takes tuples."""
    size = 2_000_000
    tokens = rng.integers(0, 50_000, size)
    places = rng.integers(0, size - 12, 1000)
    patterns = [tokens[i : i + n] for i, n in zip(places, rng.integers(2, 12, 1000), strict=True)]
    ours = kmp.AhoCorasick(patterns)
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours.find_all(tokens),
        "single": lambda: kmp.find_all(tokens, patterns[0]),
    }
    if ahocorasick:
        sequence = tuple(tokens.tolist())
        theirs = _peer([tuple(p.tolist()) for p in patterns], sequences=True)
        calls["theirs"] = lambda: list(theirs.iter(sequence))
        assert len(calls["theirs"]()) == len(ours.find_all(tokens))
    t = in_turn(calls, rounds=3)
    return [
        ratio_row("1000 token patterns in 2M tokens", peer="pyahocorasick", ours=t["ours"], theirs=t.get("theirs"), target=1.5),
        absolute_row("one token pattern in 2M tokens", ours=size / t["single"] / 1e6, unit="M tokens/s", target=100.0, larger_is_better=True),
    ]  # fmt: skip


def _batch(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Several stops over a batch of token rows; no row stops, so every step is paid in full."""
    letters = np.frombuffer(b"etaoin shrdlucm<>/\n.", dtype=np.uint8)
    vocabulary = [bytes([c]) for c in range(256)]
    known = set(vocabulary)
    while len(vocabulary) < VOCABULARY:
        piece = rng.choice(letters, rng.integers(2, 12)).tobytes()
        if piece not in known:
            known.add(piece)
            vocabulary.append(piece)
    columns = rng.integers(256, VOCABULARY, (STEPS, BATCH))
    kmp.TokenStopTable(STOPS, vocabulary[:300])
    build, table = once(lambda: kmp.TokenStopTable(STOPS, vocabulary))
    stops = [s.encode() for s in STOPS]
    detector = kmp.RepeatDetector()
    calls: dict[str, Callable[[], Any]] = {
        "table": lambda: _by_table(table, columns),
        "find": lambda: _by_find(stops, vocabulary, columns),
        "repeats": lambda: detector.step(columns[0]),
    }
    first_call = None
    if StopStringCriteria:
        first_call, criteria = once(lambda: StopStringCriteria(_tokenizer(vocabulary), STOPS))
        calls["criteria"] = _criteria_step(criteria, columns)
    t = in_turn(calls, rounds=3)
    step = t["table"] / STEPS
    return [
        ratio_row(f"{len(STOPS)} stops, {BATCH} x {STEPS} tokens", peer="decode and find", ours=t["table"], theirs=t["find"], target=20.0),
        ratio_row(f"{len(STOPS)} stops, one step of {BATCH} rows", peer="transformers StopStringCriteria", ours=step, theirs=t.get("criteria"), target=20.0),
        ratio_row(f"{len(STOPS)} new stops, {VOCABULARY} tokens", peer="transformers StopStringCriteria", ours=build, theirs=first_call, target=6.0),
        absolute_row(f"TokenStopTable of {VOCABULARY} tokens, {table.num_states} states", ours=build, unit="s", target=0.3),
        absolute_row(f"TokenStopTable.step of {BATCH} rows", ours=step / MICRO, unit="us", target=20.0),
        absolute_row(f"RepeatDetector.step of {BATCH} rows", ours=t["repeats"] / MICRO, unit="us", target=20.0),
    ]  # fmt: skip


# ---------------------------------------------------------------------- contestants
def _plain_kmp(t: bytes, p: bytes) -> list[int]:
    pi = kmp.prefix_function(p).tolist()
    m, k, found = len(p), 0, []
    for i, c in enumerate(t):
        while k and p[k] != c:
            k = pi[k - 1]
        if p[k] == c:
            k += 1
            if k == m:
                found.append(i - m + 1)
                k = pi[k - 1]
    return found


def _one_lane(text: bytes) -> Callable[[], int]:
    """The automaton of KMP from the first byte to the last, one look-up after the other."""
    machine = Machine.of([NEEDLE])
    a, codes = machine.alphabet, machine.codes(text)
    ends, states = np.empty(BLOCK, dtype=np.int64), np.empty(BLOCK, dtype=np.int32)

    def walk() -> int:
        total, state = 0, 0
        for at in range(0, len(codes), BLOCK):
            piece = codes[at : at + BLOCK]
            # no lane is as long as this reach asks for, so there is one
            count, state, _ = walk_rows(piece, a.low, a.classes, machine.rows, a.size, state, BLOCK, False, ends, states)  # fmt: skip
            total += count
        return total

    return walk


def _by_table(table: kmp.TokenStopTable, columns: np.ndarray) -> int:
    state, stopped = table.start(BATCH), 0
    for tokens in columns:
        state, hit = table.step(state, tokens)
        stopped += int((hit >= 0).any())
    return stopped


def _by_find(stops: list[bytes], vocabulary: list[bytes], columns: np.ndarray) -> int:
    longest, stopped = max(map(len, stops)), 0
    texts = [bytearray() for _ in range(BATCH)]
    for tokens in columns.tolist():
        for text, token in zip(texts, tokens, strict=True):
            begin = max(0, len(text) - longest + 1)
            text += vocabulary[token]
            for stop in stops:
                stopped += text.find(stop, begin) >= 0
    return stopped


def _peer(patterns: list[Any], *, sequences: bool = False) -> Any:
    machine = (
        ahocorasick.Automaton(ahocorasick.STORE_ANY, ahocorasick.KEY_SEQUENCE)
        if sequences
        else ahocorasick.Automaton()
    )
    for i, pattern in enumerate(patterns):
        machine.add_word(pattern, i)
    machine.make_automaton()
    return machine


def _word(rng: np.random.Generator) -> str:
    return rng.integers(97, 123, rng.integers(4, 11), dtype=np.uint8).tobytes().decode()


def _tokenizer(vocabulary: list[bytes]) -> Any:
    """A byte-level tokenizer of exactly this vocabulary."""
    spelt = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in spelt}
    letters |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in letters)}
    names = {"".join(letters[b] for b in piece): i for i, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=names, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _criteria_step(criteria: Any, columns: np.ndarray) -> Callable[[], Any]:
    import torch

    ids = torch.from_numpy(np.ascontiguousarray(columns[:64].T))
    return lambda: criteria(ids, None)
