"""Walk a trainer: write its events, checkpoint it, show progress, stop in good order.

A run may be killed at any moment: the folder then holds a checkpoint and the events up to it, and
driving it again continues bit for bit. Events after the checkpoint are cut, because they will be
made again. A checkpoint is only ever taken between two updates: inside one, a trainer's state is
neither the old nor the new one.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from dodona.core.protocols import Event, Trainer
from dodona.errors import CheckpointError
from dodona.runs.checkpoint import load_checkpoint, save_checkpoint
from dodona.runs.events import event_line, read_events, store_artifacts
from dodona.runs.folder import RunFolder
from dodona.runs.guards import FiniteGuard
from dodona.runs.interrupt import patient_interrupt
from dodona.runs.lock import sole_writer


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a deadline: the last checkpoint is good; ``folder`` can be resumed."""

    def __init__(self, folder: RunFolder):
        super().__init__(f"stopped; continue with: dodona resume {folder.path}")
        self.folder = folder


def drive(
    recipe: str,
    trainer: Trainer,
    run: RunFolder,
    *,
    trackers: Sequence[Callable[[Event], None]] = (),
    deadline: float | None = None,
    checkpoint_seconds: float = 30.0,
    progress: Callable[[Event], None] | None = None,
    stopping: Callable[[], None] | None = None,
) -> list[Event]:
    """Run a trainer to its end, or continue it from the run's newest checkpoint.

    The first Ctrl-C waits for the update in progress, then checkpoints and stops. The second stops
    at once and saves nothing: the last checkpoint stands. Both only in the main thread.

    Args:
        recipe: its name, for the start event.
        trackers: called with every event, after it was written.
        deadline: seconds after which the run stops in good order, as the first Ctrl-C does.
        checkpoint_seconds: between checkpoints; one is also written before the first update and
            at the end.
        progress: called with every event, after the trackers.
        stopping: called at the first Ctrl-C, inside the signal handler.
    Returns: all events of the run, as read_events gives them.
    Raises:
        Interrupted: Ctrl-C, the deadline, or a KeyboardInterrupt of the trainer's own.
        NonFiniteError: the finite guard stopped the run.
        CheckpointError: another process writes this run, a checkpoint or the events can not be
            written or read, or an input file has changed since the run began.
    """
    listeners = (*trackers, *([progress] if progress else []))
    guard = FiniteGuard()
    try:
        with (
            sole_writer(run),
            patient_interrupt(stopping) as asked,
            _Record(run, trainer, listeners) as record,
        ):
            if record.number == 0:
                data = {"recipe": recipe, "config": run.config}
                record.write(Event(kind="start", step=0, num_samples=0, metrics={}, data=data))
                record.checkpoint()
            if not record.done:
                for event in trainer:
                    guard(record.write(event))
                    if asked() or (deadline is not None and record.seconds() > deadline):
                        record.checkpoint()
                        raise Interrupted(run)
                    if time.monotonic() - record.saved_at >= checkpoint_seconds:
                        record.checkpoint()
                record.finish()
            if asked():  # after the last update: what follows, judge and report, can wait
                raise Interrupted(run)
    except KeyboardInterrupt:
        # Saves nothing: unless it comes from above, it may have cut an update in two.
        raise Interrupted(run) from None
    return read_events(run)


class _Record:
    """The events file of a run, open at the place where its checkpoint stands.

    ``number`` events are written, ``last`` is the newest, ``done`` says that the end is among them.
    """

    def __init__(
        self, run: RunFolder, trainer: Trainer, listeners: Sequence[Callable[[Event], None]]
    ):
        self.run, self.trainer, self.listeners = run, trainer, listeners
        self.path = run.path / "events.jsonl"
        if self.path.exists():  # the run began before: its inputs must still be the same
            run.check_inputs()
        saved = load_checkpoint(run) or {"events": 0, "events_bytes": 0, "seconds": 0.0}
        self._check_length(saved["events_bytes"])
        self.number, self.before = saved["events"], saved["seconds"]
        self.done = saved.get("done", False)
        if self.number:
            trainer.load_state_dict(saved["trainer"])
        try:
            with open(self.path, "ab") as file:
                file.truncate(saved["events_bytes"])
            self.last = read_events(run)[-1] if self.number else None
            # no buffer: on a full disk it would be written again, and fail again, when it closes
            self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise self._unwritten(error) from None
        self.begun = self.saved_at = time.monotonic()

    def __enter__(self) -> "_Record":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.begun

    def write(self, event: Event) -> Event:
        data, seconds = store_artifacts(event, self.run), self.seconds()
        event = dataclasses.replace(event, data=data, seconds=seconds)
        left = memoryview(event_line(event, seconds=seconds))
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            raise self._unwritten(error) from None
        self.number, self.last = self.number + 1, event
        for listener in self.listeners:
            listener(event)
        return event

    def checkpoint(self, *, done: bool = False) -> None:
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            raise self._unwritten(error) from None
        state: dict[str, Any] = {
            "trainer": self.trainer.state_dict(),
            "events": self.number,
            "events_bytes": self.file.tell(),
            "seconds": self.seconds(),
            "done": done,
        }
        save_checkpoint(self.run, state, step=2 * self.number + done)
        self.saved_at = time.monotonic()

    def finish(self) -> None:
        """The end event, with the finite numbers of the last one, and the last checkpoint."""
        last = self.last
        metrics = {k: v for k, v in last.metrics.items() if math.isfinite(v)}
        self.write(Event(kind="end", step=last.step, num_samples=last.num_samples, metrics=metrics))
        self.checkpoint(done=True)

    def _check_length(self, expected: int) -> None:
        text = self.path.read_bytes() if self.path.is_file() else b""
        if len(text) < expected:
            what = "is shorter than its checkpoint says" if text else "is gone or empty"
            raise CheckpointError(
                f"{self.path} {what} ({len(text)} < {expected} bytes). Restore the file, or start "
                "again with: dodona run"
            )
        # a run killed before its first checkpoint has written its start event and nothing else
        if not expected and text.count(b"\n") > 1:
            raise CheckpointError(
                f"{self.path} holds events and there is no checkpoint to continue from. Restore "
                f"{self.run.path / 'checkpoints'}, or start again with: dodona run"
            )

    def _unwritten(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self.path} can not be written: {error.strerror}. The last checkpoint stands. Free "
            "some space or make the folder writable, then: dodona resume"
        )
