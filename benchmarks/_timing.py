"""Timing of dodona and a peer in turn, in one process, and the rows that ``dodona bench`` prints.

Absolute times move by up to a factor of two from run to run on a shared machine; taken in turn, both
sides meet the same weather, so the ratio holds. A row's ``limit`` is the share of the bound that
binds (memory bandwidth, raw random numbers, ...), where one is known.
"""

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def in_turn(
    contestants: Mapping[str, Callable[[], Any]], *, rounds: int = 5, seconds: float = 0.2
) -> dict[str, float]:
    """Median seconds of one call of each contestant.

    Every round times each contestant once, for about ``seconds`` (as many calls as fit, at least
    one). The first call of each is not counted: it compiles and fills caches.
    """
    calls = {}
    for name, call in contestants.items():
        call()
        begun = time.perf_counter()
        call()
        calls[name] = max(1, int(seconds / max(time.perf_counter() - begun, 1e-9)))
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in contestants.items():
                begun = time.perf_counter()
                for _ in range(calls[name]):
                    call()
                taken[name].append((time.perf_counter() - begun) / calls[name])
    finally:
        gc.enable()
    return {name: float(np.median(times)) for name, times in taken.items()}


def once(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result) of a call too long to repeat; warm it up on a small case first."""
    gc.collect()
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def ratio_row(
    name: str,
    *,
    peer: str,
    ours: float,
    theirs: float | None,
    target: float,
    unit: str = "s",
    limit: float | None = None,
) -> dict[str, Any]:
    """How many times faster dodona is; ``theirs`` None: the peer is not installed.

    ours, theirs: seconds (smaller is better) unless ``unit`` ends in "/s" (larger is better).
    """
    ratio = None
    if theirs is not None:
        ratio = ours / theirs if unit.endswith("/s") else theirs / ours
    return {
        "name": name,
        "kind": "ratio",
        "peer": peer,
        "unit": unit,
        "ours": ours,
        "theirs": theirs,
        "ratio": ratio,
        "target": target,
        "reached": None if ratio is None else ratio >= target,
        "limit": limit,
    }


def absolute_row(
    name: str,
    *,
    ours: float,
    unit: str,
    target: float | None = None,
    larger_is_better: bool = False,
    limit: float | None = None,
) -> dict[str, Any]:
    """A figure without a peer, and the bound that it must keep."""
    reached = None
    if target is not None:
        reached = ours >= target if larger_is_better else ours <= target
    return {
        "name": name,
        "kind": "absolute",
        "peer": None,
        "unit": unit,
        "ours": ours,
        "theirs": None,
        "ratio": None,
        "target": target,
        "reached": reached,
        "limit": limit,
    }
