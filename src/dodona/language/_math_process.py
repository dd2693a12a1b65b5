"""A process for symbolic equality that can be ended at any time: no alarm, no thread left behind.

A signal would work in the main thread alone and could not interrupt big integers; a process can always be
killed. It is started when first needed, and started again after it was killed.

Source: ours.
Not here: what runs inside (_math_child.py).
"""

import json
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from dodona.core.inputs import check_range
from dodona.errors import MissingDependencyError
from dodona.language._math_reader import Node

CHILD = Path(__file__).with_name("_math_child.py")
START_SECONDS = 60.0  # to import SymPy, on a busy machine; not counted as time of a question


class SymbolicProcess:
    """Asks SymPy whether two trees are equal, each question under a hard limit of wall-clock time.

    Waiting for another thread's question, and starting, do not count as time of a question.

    Args: time_limit: seconds of one question.
    Raises: InputError: time_limit <= 0.
    Source: ours.  Oracle: tables of pairs; a question that never ends.
    Cost: 0.5 s to start; then milliseconds a question.

    Use as a context, or call close().
    """

    def __init__(self, *, time_limit: float = 2.0):
        self._child: subprocess.Popen[bytes] | None = None
        check_range("(0, inf)", time_limit=time_limit)
        self.time_limit = time_limit
        self._lock = threading.Lock()

    def equal(self, left: Node, right: Node) -> bool | None:
        """True or False where it is decided; None where it is not, in time or at all.

        Raises: MissingDependencyError: SymPy is not installed.
        """
        with self._lock:
            child = self._started()
            assert child.stdin is not None
            try:
                child.stdin.write(json.dumps([left, right]).encode() + b"\n")
                child.stdin.flush()
            except BrokenPipeError:  # it died between two questions
                self._end()
                return None
            line = self._line(child, self.time_limit)
            if line is None:
                self._end()
                return None
            return json.loads(line)

    def close(self) -> None:
        """End the process; the next question would start another."""
        with self._lock:
            self._end()

    def __enter__(self) -> "SymbolicProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:  # fmt: skip
        self.close()

    def __del__(self) -> None:
        self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._end()
            self._child = subprocess.Popen(
                [sys.executable, "-I", str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )  # fmt: skip
            if self._line(self._child, START_SECONDS) != b"ready\n":
                self._end()
                raise MissingDependencyError(
                    "symbolic equality needs SymPy, which could not be started. Install it: pip install sympy."
                )
        return self._child

    def _line(self, child: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """The next line of the child; None when it ends or the time is over."""
        assert child.stdout is not None
        received, deadline = b"", time.monotonic() + seconds
        with selectors.DefaultSelector() as waiting:
            waiting.register(child.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not waiting.select(max(deadline - time.monotonic(), 0.0)):
                    return None
                part = child.stdout.read1(4096)  # type: ignore[attr-defined]
                if not part:
                    return None
                received += part
        return received

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # what was not read is lost with the child
                    pass
