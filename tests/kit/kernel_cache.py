"""One cache of compiled kernels for all workers of a test run: saving and loading exclude each other.

Numba writes the index of a kernel before the kernel itself. Between the two, another process would
find a kernel of before the last edit, or one of other types, under the name that it looks for.
"""

import fcntl
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba.core.caching import IndexDataCacheFile


def share(lock: Path) -> None:
    """Let this process read and write Numba's cache only while it holds the lock file."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    for name in ("load", "save"):
        setattr(IndexDataCacheFile, name, _alone(getattr(IndexDataCacheFile, name), lock))


def _alone(method: Callable[..., Any], lock: Path) -> Callable[..., Any]:
    @functools.wraps(method)
    def alone(*args: Any) -> Any:
        with open(lock, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # closing the file lets it go
            return method(*args)

    return alone
