"""What rebuilding a tree costs: seconds and bytes against size, and where a recursive builder ends.

Seconds differ from run to run; which trees are built does not. Part of the recipe tree-traversals.
"""

import math
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dodona.algorithms import trees
from dodona.algorithms.binary_search import last_true
from dodona.core.protocols import Event
from dodona.figures.curves import curves

SHAPES = ("random", "path", "complete")
ALONE = "recursion, complete"
RECURSIVE_LARGEST = (
    131_071  # nodes of the largest complete tree that the recursive builder is given
)
SMALLEST = 1000
SLOPE = 1.5  # largest exponent of time in size: 1 is linear, caches add some, 2 is quadratic
BYTES = 22.0  # a node beyond the input: links 8, labels 8, stack 4, and bits of what is looked up
LIMIT = 1000  # frames that CPython allows unless told otherwise

Finding = tuple[str, float | str, str, bool]
"""A row of the judge: name, measured, expected, whether it came out."""


class Clock:
    """One rebuild, size after size: three shapes, then the recursion on complete trees."""

    def __init__(self, largest: int, seed: int):
        sizes = [10**e for e in range(3, 12) if 10**e < largest] + [largest]
        complete = [2**d - 1 for d in range(10, 18) if 2**d - 1 <= min(largest, RECURSIVE_LARGEST)]
        self.jobs = [(shape, n) for shape in SHAPES for n in sizes]
        self.jobs += [(ALONE, n) for n in complete]
        self.seed, self.done = seed, 0

    def __iter__(self) -> Iterator[Event]:
        trees.from_pre_in(range(3), range(3))  # compiled before the clock runs
        while self.done < len(self.jobs):
            shape, n = self.jobs[self.done]
            pre, ino = _traversals(shape, n, np.random.default_rng([self.seed, 2, n]))
            same = True
            if shape == ALONE:
                seconds, peak = _cost(lambda pre=pre, ino=ino: build_recursively(pre, ino))
            else:
                seconds, peak = _cost(lambda pre=pre, ino=ino: trees.from_pre_in(pre, ino))
                same = np.array_equal(trees.inorder(trees.from_pre_in(pre, ino)), ino)
            self.done += 1
            yield Event(
                kind="evaluation",
                step=self.done,
                num_samples=n,
                metrics={"seconds/build": seconds, "bytes/peak": peak, "rebuilt/same": float(same)},
                data={"shape": shape},
            )

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = state["done"]


def build_recursively(pre: Sequence[int], ino: Sequence[int]) -> Any:
    """What solutions of LeetCode 105 do: positions by dictionary, one call per node."""
    place = {label: i for i, label in enumerate(ino)}
    source = iter(pre)

    def build_part(first: int, last: int) -> Any:
        if first > last:
            return None
        label = next(source)
        left = build_part(first, place[label] - 1)
        return {"label": label, "left": left, "right": build_part(place[label] + 1, last)}

    return build_part(0, len(ino) - 1)


def longest_recursive_path() -> Event:
    """The longest path that the recursive builder can do, by bisection."""

    def works(n: int) -> bool:
        try:
            build_recursively(range(n), range(n - 1, -1, -1))
        except RecursionError:
            return False
        return True

    found: list[int] = []
    # a thread begins with an empty stack, so that the answer does not depend on who calls
    search = threading.Thread(
        target=lambda: found.append(int(last_true(works, 1, 2 * sys.getrecursionlimit())))
    )
    search.start()
    search.join()
    return Event(
        kind="evaluation", step=1, num_samples=found[0], metrics={"longest": float(found[0])}
    )


def recursion_findings(events: Sequence[Event]) -> list[Finding]:
    """The end of the recursive builder against CPython's limit."""
    return [
        ("longest path that the recursive builder can do", e.metrics["longest"],
         f"< {LIMIT}, CPython's limit; here a path of any length", e.metrics["longest"] < LIMIT)
        for e in events
    ]  # fmt: skip


def clock_findings(events: Sequence[Event]) -> list[Finding]:
    """Exponents of time in size, trees that came back, and bytes of the largest."""
    rows: list[Finding] = []
    ours = [e for e in events if e.data["shape"] != ALONE]
    for shape in SHAPES:
        run = [e for e in ours if e.data["shape"] == shape and e.num_samples >= 10 * SMALLEST]
        if len(run) < 2:
            continue
        first, last = run[0], run[-1]
        ratio = last.metrics["seconds/build"] / first.metrics["seconds/build"]
        slope = math.log(ratio) / math.log(last.num_samples / first.num_samples)
        ns = 1e9 * last.metrics["seconds/build"] / last.num_samples
        rows.append(
            (f"{shape}, {first.num_samples} to {last.num_samples} nodes ({ns:.3g} ns a node at the end): "
             "exponent of time in size", slope, f"<= {SLOPE}; 1 is linear, caches add some, 2 is quadratic",
             slope <= SLOPE)
        )  # fmt: skip
    if ours:
        wrong = sum(e.metrics["rebuilt/same"] != 1.0 for e in ours)
        largest = max(e.num_samples for e in ours)
        peak = max(e.metrics["bytes/peak"] for e in ours if e.num_samples == largest) / largest
        rows += [
            (f"trees of {len(ours)} whose inorder is not the one that was given", float(wrong), "0", wrong == 0),
            (f"bytes a node beyond the input, {largest} nodes", peak,
             f"<= {BYTES:.0f}: links 8, labels 8, stack 4", peak <= BYTES),
        ]  # fmt: skip
    return rows


def clock_figures(events: Sequence[Event]) -> dict[str, go.Figure]:
    """Seconds and bytes against nodes."""
    if not events:
        return {}
    seconds, peaks = (_series(events, name) for name in ("seconds/build", "bytes/peak"))
    largest = max(e.num_samples for e in events)
    last = {shape: values[-1] / sizes[-1] for shape, (sizes, values) in peaks.items()}
    ours = max(value for shape, value in last.items() if shape != ALONE)
    titles = {"time": f"Time grows with the size, and nothing recurs: {largest} nodes", "memory": f"{ours:.0f} bytes a node"}  # fmt: skip
    if ALONE in seconds:
        sizes, taken = seconds[ALONE]
        at_that_size = math.exp(np.interp(math.log(sizes[-1]), *(np.log(x) for x in seconds["complete"])))  # fmt: skip
        titles["time"] = f"Linear, and {taken[-1] / at_that_size:.0f} times as fast as the recursion where that gets through"  # fmt: skip
        titles["memory"] += f", where a dictionary per node takes {last[ALONE]:.0f}"
    # every shape takes the same memory: one line for all of them
    peaks = {ALONE if shape == ALONE else "arrays, every shape": line for shape, line in peaks.items()}  # fmt: skip
    out = {}
    for name, series, unit in (
        ("time", seconds, "seconds for one tree"),
        ("memory", peaks, "largest memory beyond the input (bytes)"),
    ):
        out[name] = curves(series, title=titles[name], x="nodes", y=unit, log_x=True, log_y=True)
        out[name].update_xaxes(dtick=1).update_yaxes(dtick=1)
    return out


# ---------------------------------------------------------------------- private
def _series(events: Sequence[Event], name: str) -> dict[str, tuple[list[float], list[float]]]:
    series: dict[str, tuple[list[float], list[float]]] = {}
    for event in events:
        sizes, values = series.setdefault(event.data["shape"], ([], []))
        sizes.append(float(event.num_samples))
        values.append(event.metrics[name])
    return series


def _traversals(shape: str, n: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """(preorder, inorder); labels are shuffled where the shape is random, else numbered in preorder."""
    if shape == "path":
        return np.arange(n), np.arange(n)[::-1].copy()
    if shape == "random":
        tree = trees.random_tree(n, rng=rng, labels=rng.permutation(n))
        return trees.preorder(tree), trees.inorder(tree)
    v = np.arange(n)
    heap = [np.where(2 * v + side < n, 2 * v + side, -1) for side in (1, 2)]
    tree = trees.Tree.from_links(*heap, v)
    pair = v, trees.inorder_nodes(tree).astype(v.dtype)
    return pair if shape == "complete" else tuple(labels.tolist() for labels in pair)


def _cost(call: Callable[[], Any], *, least: float = 0.02) -> tuple[float, float]:
    """(seconds, bytes) of a call: the fastest of three rounds of at least ``least`` seconds; the peak."""
    begun = time.perf_counter()
    call()
    calls = max(1, round(least / max(time.perf_counter() - begun, 1e-7)))
    rounds = []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - begun) / calls)
    tracemalloc.start()
    try:
        call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return min(rounds), float(peak)
