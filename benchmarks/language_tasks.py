"""Around the model: stops told token by token, countdown made and judged, numbers compared.

Peers are what training loops do (decode and search), Reasoning Gym's countdown, which makes an expression with
SymPy and reads answers with it, and Math-Verify. The reverse Polish countdown here is another task than the
infix one of Reasoning Gym: answers have no brackets and all of them stand in a table, which is where a factor of
100 is asked for. The infix one of here, which draws and reads expressions too, stands beside it.
"""

from typing import Any

import numpy as np
from _timing import absolute_row, in_turn, ratio_row

from dodona.algorithms.stopping import TokenStopTable
from dodona.errors import InputError
from dodona.language import CharTokenizer, math_equal
from dodona.language.sandbox import CodeTest, run_sandboxed
from dodona.language.tasks import Countdown, CountdownRPN, TreeRebuild

try:
    import reasoning_gym
except ImportError:
    reasoning_gym = None
try:
    from math_verify import parse, verify
except ImportError:
    verify = None

BATCH, STEPS = 512, 256  # answers that are written at one time, and their tokens
STOPS = ("\nQ:", "</s>", "###")
LETTERS = "etaoinshrdlucmfwyp Q:\n</s>#."
COUNT, PEER_COUNT = 500, 20  # items of a call, ours and theirs
MICRO = 1e-6
PAIRS = (
    ("1,234.50", "1234.5"), ("72", "72"), ("-3/4", "-0.75"), ("18.0", "18"), ("0.3333333", "1/3"),
    ("$1,000", "1000"), ("17", "18"), ("3.14", "3.15"), ("2/3", "3/2"), ("1000000", "100000"),
)  # fmt: skip


def run() -> list[dict[str, Any]]:
    """Every row of the topic."""
    return [*_stops(), *_countdown(), *_numbers(), *_code()]


def _stops() -> list[dict[str, Any]]:
    """No answer stops, so that every step is paid in full."""
    letters = "".join(dict.fromkeys(LETTERS))
    vocabulary = CharTokenizer(letters).vocab_bytes
    harmless = [i for i, piece in enumerate(vocabulary) if piece and piece not in b"Q:\n</s>#"]
    columns = np.random.default_rng(0).choice(harmless, (STEPS, BATCH))
    table = TokenStopTable(STOPS, vocabulary)
    t = in_turn(
        {
            "table": lambda: _by_table(table, columns),
            "tail": lambda: _by_find(vocabulary, columns, whole=False),
            "whole": lambda: _by_find(vocabulary, columns, whole=True),
        },
        rounds=3,
    )
    name = f"{len(STOPS)} stops, {BATCH} answers of {STEPS} tokens"
    return [
        ratio_row(name, peer="decode a token, find in the tail", ours=t["table"], theirs=t["tail"], target=20.0),
        ratio_row(name, peer="decode the answer, find in it", ours=t["table"], theirs=t["whole"], target=20.0),
        absolute_row(f"stop table, a step of {BATCH} answers", ours=t["table"] / STEPS / MICRO, unit="us", target=20.0),
    ]  # fmt: skip


def _countdown() -> list[dict[str, Any]]:
    peer = _their_countdown()
    rows = []
    for name, task, target in (
        ("countdown_rpn, 4 numbers", CountdownRPN(4), 100.0),
        ("countdown, 4 numbers, infix", Countdown(4), 10.0),
    ):
        items = task.generate_many(COUNT, seed=0)
        right = [item.answer for item in items]
        calls = {
            "made": lambda task=task: task.generate_many(COUNT, seed=1),
            "judged": lambda task=task, items=items, right=right: _judged(task, items, right),
            **peer,
        }
        t = in_turn(calls, rounds=3)
        theirs = t.get("their made"), t.get("their judged")
        both = None if None in theirs else sum(theirs) / PEER_COUNT
        ours = (t["made"] + t["judged"]) / COUNT
        rows += [
            ratio_row(f"{name}: one item made and one answer judged", peer="reasoning-gym countdown", ours=ours, theirs=both, target=target),
            absolute_row(f"{name}: made", ours=t["made"] / COUNT / MICRO, unit="us"),
            absolute_row(f"{name}: judged", ours=t["judged"] / COUNT / MICRO, unit="us"),
        ]  # fmt: skip
    task = TreeRebuild()
    items = task.generate_many(COUNT, seed=0)
    answers = [item.answer for item in items]
    t = in_turn(
        {
            "made": lambda: task.generate_many(COUNT, seed=1),
            "judged": lambda: _judged(task, items, answers),
        }
    )
    rows.append(
        absolute_row("tree_rebuild, 4 nodes: made and judged", ours=(t["made"] + t["judged"]) / COUNT / MICRO, unit="us", target=50.0)
    )  # fmt: skip
    return rows


def _their_countdown() -> dict[str, Any]:
    """Reasoning Gym on four numbers 1..99 and targets 10..99, as ours; nothing where it is not installed."""
    if reasoning_gym is None:
        return {}
    options = {
        "min_numbers": 4, "max_numbers": 4, "min_value": 1, "max_value": 99, "min_target": 10, "max_target": 99,
    }  # fmt: skip
    data = reasoning_gym.create_dataset("countdown", size=PEER_COUNT, seed=0, **options)
    entries = [data[i] for i in range(PEER_COUNT)]
    return {
        "their made": lambda: [data[i] for i in range(PEER_COUNT)],
        "their judged": lambda: [
            data.score_answer(e["metadata"]["expression"], e) for e in entries
        ],  # fmt: skip
    }


def _numbers() -> list[dict[str, Any]]:
    calls = {"ours": lambda: [math_equal(*pair).value == 1.0 for pair in PAIRS]}
    if verify is not None:
        calls["theirs"] = lambda: [_their_verdict(*pair) for pair in PAIRS]
        assert calls["theirs"]() == calls["ours"](), "both call the same pairs equal"
    t = in_turn(calls, rounds=3)
    return [
        ratio_row(f"{len(PAIRS)} pairs of numbers compared", peer="math-verify", ours=t["ours"], theirs=t.get("theirs"), target=50.0),
        absolute_row("a pair of numbers compared", ours=t["ours"] / len(PAIRS) / MICRO, unit="us", target=50.0),
    ]  # fmt: skip


def _their_verdict(answer: str, gold: str) -> bool:
    """Between dollars, as its documentation writes numbers."""
    return verify(*(parse(f"${text.strip('$')}$") for text in (gold, answer)))


def _code() -> list[dict[str, Any]]:
    """A correct program with ten calls, from the text to the verdict, at the levels that the machine grants."""
    code = "def f(n): return n * n"
    tests = [CodeTest(function="f", args=(n,), expected=n * n) for n in range(10)]
    rows = []
    for level in ("process", "sandbox"):
        name = f"a program and ten calls, isolation {level}"
        try:
            t = in_turn({name: lambda level=level: run_sandboxed(code, tests, isolation=level)}, rounds=3)  # fmt: skip
        except InputError:  # not granted
            continue
        rows.append(absolute_row(name, ours=t[name] * 1e3, unit="ms"))
    return rows


# ---------------------------------------------------------------------- contestants
def _by_table(table: TokenStopTable, columns: np.ndarray) -> int:
    state, stopped = table.start(BATCH), 0
    for tokens in columns:
        state, hit = table.step(state, tokens)
        stopped += int((hit >= 0).any())
    return stopped


def _by_find(vocabulary: Any, columns: np.ndarray, *, whole: bool) -> int:
    """After every token: its bytes behind the answer, and every stop looked for."""
    stops = [stop.encode() for stop in STOPS]
    longest, stopped = max(map(len, stops)), 0
    answers: list[Any] = [bytearray() for _ in range(BATCH)]
    read: list[list[int]] = [[] for _ in range(BATCH)]
    for tokens in columns.tolist():
        for row, token in enumerate(tokens):
            begin = 0
            if whole:
                read[row].append(token)
                text = b"".join([vocabulary[t] for t in read[row]])
            else:
                text = answers[row]
                begin = max(0, len(text) - longest + 1)
                text += vocabulary[token]
            for stop in stops:
                stopped += text.find(stop, begin) >= 0
    return stopped


def _judged(task: Any, items: list[Any], answers: list[str]) -> float:
    return sum(task.verify(item, x).value for item, x in zip(items, answers, strict=True))


if __name__ == "__main__":
    for row in run():
        print(row)
