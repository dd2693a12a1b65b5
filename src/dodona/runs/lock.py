"""One writer per run: a lock on the folder that ends with the process that holds it.

Source: flock(2). The kernel drops the lock when its holder ends, however it ends, so a killed run
never has to be unlocked by hand. Not for readers: they need no lock. Where there is no flock
(Windows, some network file systems) runs are not guarded.
"""

import contextlib
import os
from collections.abc import Iterator

from dodona.errors import CheckpointError
from dodona.runs.folder import RunFolder

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

NAME = ".lock"


@contextlib.contextmanager
def sole_writer(run: RunFolder) -> Iterator[None]:
    """Hold the run for writing.

    Raises: CheckpointError: somebody else holds it (who is named), or the folder can not be written.
    """
    if fcntl is None:
        yield
        return
    path = run.path / NAME
    try:
        file = open(path, "a+", encoding="ascii")  # noqa: SIM115 - closed below, once it is locked
    except OSError as error:
        raise CheckpointError(
            f"run {run.path} can not be written: {error.strerror}. Make the folder writable first."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise CheckpointError(
                f"run {run.path} is being written by {_holder(file.read())}. Wait for it to end or "
                "stop it, then: dodona resume; or begin a run of its own with: dodona run"
            ) from None
        except OSError:  # a file system without locks is no reason not to run
            pass
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield  # the file stays: to delete it would let a third process lock a new one beside it


def _holder(pid: str) -> str:
    if pid == str(os.getpid()):
        return "another call in this process"
    return f"another process (pid {pid or 'not known yet'})"
