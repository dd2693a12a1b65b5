"""Threads where they pay: none for small operations, blocks of rows for large ones.

    with few_threads(num_weights(policy) * rows): ...    torch on one thread, if that is little
    in_blocks(work, num_rows, block=1024)                parts of the rows at the same time

torch gives every operation to all its threads, which then wait for each other. For operations of microseconds
the waiting is most of the time, and on a busy machine ten times the work; a chain of operations on a block of
rows that fits into a core's cache needs no waiting at all.

Source: ours.  Not here: processes (distributed.py).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import nn

SMALL = 10_000_000  # weights times rows of a pass, below which the barriers of threads cost more than they save
WORTH = 4  # blocks from which on another thread is asked

T = TypeVar("T")


@contextmanager
def few_threads(size: int) -> Iterator[None]:
    """One thread for operations on ``size`` weights times rows, if that is little; what was set comes back.

    Args: size: at least SMALL changes nothing.
    Source: ours.  Oracle: torch.get_num_threads (tests).  Cost: a microsecond.
    """
    if size >= SMALL:
        yield
        return
    before = torch.get_num_threads()
    # even where it says 1 already: another user of OpenMP may have told OpenMP so, and not MKL
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def num_weights(*modules: Any) -> int:
    """How many numbers the parameters of these hold; what is no module has none.

    Source: ours.  Oracle: by hand (tests).
    """
    found = (m for m in modules if isinstance(m, nn.Module))
    return sum(p.numel() for m in found for p in m.parameters())


def in_blocks(work: Callable[[int, int, int], T], num_rows: int, *, block: int) -> list[T]:
    """[work(block, begin, end)] for consecutive parts of the rows, one part per thread of torch.

    work walks its part in blocks and must be able to run beside itself; inside, torch has one thread.

    Args: num_rows: at least 0.  block: rows that fit into a core's cache.
    Returns: what every part gave, in the order of rows: their number depends on num_rows and on
        torch.get_num_threads() only, so that sums over them repeat to the bit.
    Source: ours.  Oracle: one part (tests).  Cost: 0.1 ms for each part beyond the first.
    """
    num_parts = min(torch.get_num_threads(), num_rows // (WORTH * block // 2))
    if num_parts <= 1:
        return [work(block, 0, num_rows)]
    bounds = [num_rows * i // num_parts for i in range(num_parts + 1)]
    pool = _pool(num_parts)
    return list(pool.map(lambda i: work(block, bounds[i], bounds[i + 1]), range(num_parts)))


@cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Threads that stay, each with one thread of torch's for itself."""
    before, together = torch.get_num_threads(), Barrier(num_threads)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # at its first question a thread takes over what was set last anywhere

    pool = ThreadPoolExecutor(num_threads, "dodona", initializer=begin)
    list(pool.map(lambda _: together.wait(), range(num_threads)))  # all of them exist now
    torch.set_num_threads(before)
    return pool
