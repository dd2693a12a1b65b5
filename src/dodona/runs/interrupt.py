"""Ctrl-C in two steps: the first is a wish, the second an order.

A signal lands between any two bytecodes, also in the middle of an update, where a trainer's state
is neither the old nor the new one. So the first is remembered until the update is whole.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def patient_interrupt(notice: Callable[[], None] | None = None) -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C; gives a function that says whether it came.

    Args: notice: called when it comes, inside the signal handler.
    The second raises KeyboardInterrupt at once. The handler before comes back at the end. Outside
    the main thread, and where SIGINT is ignored (nohup), nothing is changed.
    """
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        if notice is not None:
            notice()

    main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGINT) if main else None
    if previous in (None, signal.SIG_IGN):  # None: set from C, so it could not be put back
        yield lambda: False
        return
    signal.signal(signal.SIGINT, on_signal)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)
