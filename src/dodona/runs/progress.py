"""One line of progress: redrawn on a terminal, printed every ten seconds elsewhere, never in the way."""

import contextlib
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dodona.core.protocols import Event

EVERY = 10.0  # seconds between lines where there is no terminal
STOPPING = "stopping after this update; Ctrl-C again stops at once"


class Progress:
    """Shows the newest event on standard error. ``quiet`` shows nothing."""

    def __init__(self, *, quiet: bool = False):
        self.console = Console(stderr=True, quiet=quiet)
        self.live = Live(console=self.console, refresh_per_second=8, transient=True)
        self.last = time.monotonic()
        self.newest = ""

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def show(self, event: Event) -> None:
        self.newest = self.line(event)
        if self.console.is_terminal:
            self.live.update(Text(self.newest, overflow="ellipsis", no_wrap=True))
        elif time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            print(self.newest, file=sys.stderr) if not self.console.quiet else None

    def stopping(self) -> None:
        """Say that Ctrl-C was heard. Runs in a signal handler: the live line is only exchanged."""
        if self.console.is_terminal:
            self.live.update(Text(f"{STOPPING}\n{self.newest}", overflow="ellipsis", no_wrap=True))
        elif not self.console.quiet:
            with contextlib.suppress(RuntimeError):  # the signal cut another line in two
                print(STOPPING, file=sys.stderr, flush=True)

    @staticmethod
    def line(event: Event) -> str:
        where = " ".join(str(event.data[k]) for k in ("stage", "arm") if k in event.data)
        numbers = "  ".join(f"{k} {v:.4g}" for k, v in list(event.metrics.items())[:4])
        return f"{event.seconds or 0:6.1f}s  {where}  step {event.step}  {numbers}".replace(
            "    step", "  step"
        )
