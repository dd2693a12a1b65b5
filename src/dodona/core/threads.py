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
from contextvars import ContextVar
from functools import cache
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import nn

SMALL = 10_000_000  # weights times rows of a pass, below which the barriers of threads cost more than they save
WORTH = 4  # blocks from which on another thread is asked

T = TypeVar("T")
_outside: ContextVar[int] = ContextVar("threads outside of few_threads", default=0)


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
    mark = _outside.set(allowed_threads())
    # even where it says 1 already: another user of OpenMP may have told OpenMP so, and not MKL
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _outside.reset(mark)


def allowed_threads() -> int:
    """How many threads torch has, or had before few_threads took them away.

    Source: ours.  Oracle: torch.get_num_threads (tests).
    """
    return _outside.get() or torch.get_num_threads()


def num_weights(*modules: Any) -> int:
    """How many weights of these torch's own threads would work on; what is no module has none.

    A part with ``own_threads`` is left out: it works in blocks, and torch's threads, which go on spinning for a while
    after every operation, would take the cores from it.

    Source: ours.  Oracle: by hand (tests).
    """
    found = (m for m in modules if isinstance(m, nn.Module))
    return sum(_counted(m) for m in found)


def _counted(module: nn.Module) -> int:
    if getattr(module, "own_threads", False):
        return 0
    own = sum(p.numel() for p in module.parameters(recurse=False))
    return own + sum(_counted(child) for child in module.children())


def in_blocks(work: Callable[[int, int, int], T], num_rows: int, *, block: int) -> list[T]:
    """[work(block, begin, end)] for consecutive parts of the rows, one part per thread that torch has, few_threads or not.

    work walks its part in blocks and must be able to run beside itself; inside, torch has one thread.

    Args: num_rows: at least 0.  block: rows that fit into a core's cache.
    Returns: what every part gave, in the order of rows: their number depends on num_rows and on
        allowed_threads() only, so that sums over them repeat to the bit.
    Source: ours.  Oracle: one part (tests).  Cost: 0.1 ms for each part beyond the first.
    """
    num_parts = min(allowed_threads(), num_rows // (WORTH * block // 2))
    if num_parts <= 1:
        return [work(block, 0, num_rows)]
    bounds = [num_rows * i // num_parts for i in range(num_parts + 1)]
    pool = _pool(num_parts)
    with few_threads(
        0
    ):  # one number for the whole process is MKL's, and its threads would fight with these
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
