"""Walk a trainer: write its events, checkpoint it, show progress, stop in good order.

A run may be killed at any moment: the folder then holds a checkpoint and the events up to it, and
driving it again continues bit for bit. Events after the checkpoint are cut, because they will be
made again.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from dodona.core.protocols import Event, Trainer
from dodona.errors import CheckpointError
from dodona.runs.checkpoint import load_checkpoint, save_checkpoint
from dodona.runs.events import event_line, read_events, store_artifacts
from dodona.runs.folder import RunFolder
from dodona.runs.guards import FiniteGuard


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a deadline: the checkpoint is written; ``folder`` can be resumed."""

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
) -> list[Event]:
    """Run a trainer to its end, or continue it from the run's newest checkpoint.

    Args:
        recipe: its name, for the start event.
        trackers: called with every event, after it was written.
        deadline: seconds after which the run stops in good order, as Ctrl-C does.
        checkpoint_seconds: between checkpoints; one is also written before the first update and
            at the end.
    Returns: all events of the run, as read_events gives them.
    Raises:
        Interrupted: Ctrl-C or the deadline, after a checkpoint.
        NonFiniteError: the finite guard stopped the run.
        CheckpointError: the checkpoint could not be written or read.
    """
    path = run.path / "events.jsonl"
    saved = load_checkpoint(run)
    if saved is None and path.exists() and path.stat().st_size:
        # killed before the first checkpoint was complete: nothing was computed that must be kept
        path.write_bytes(b"")
    offset = saved["events_bytes"] if saved else 0
    before = saved["seconds"] if saved else 0.0
    if saved:
        trainer.load_state_dict(saved["trainer"])
        if path.stat().st_size < offset:
            raise CheckpointError(
                f"{path} is shorter than its checkpoint says ({path.stat().st_size} < {offset} "
                "bytes). Restore the file, or start again with: dodona run"
            )
    begun = time.monotonic()
    guard = FiniteGuard()
    with open(path, "ab") as file:
        file.truncate(offset)
        file.seek(offset)
        number = saved["events"] if saved else 0

        def seconds() -> float:
            return before + time.monotonic() - begun

        def write(event: Event) -> Event:
            nonlocal number
            event = dataclasses.replace(event, data=store_artifacts(event, run), seconds=seconds())
            file.write(event_line(event, seconds=event.seconds))
            file.flush()
            number += 1
            for listener in (*trackers, *([progress] if progress else [])):
                listener(event)
            return event

        def checkpoint(done: bool = False) -> None:
            os.fsync(file.fileno())
            state: dict[str, Any] = {
                "trainer": trainer.state_dict(),
                "events": number,
                "events_bytes": file.tell(),
                "seconds": seconds(),
                "done": done,
            }
            save_checkpoint(run, state, step=2 * number + done)

        if saved is None:
            data = {"recipe": recipe, "config": run.read("config.json")["config"]}
            write(Event(kind="start", step=0, num_samples=0, metrics={}, data=data))
            checkpoint()
        last_saved, last = time.monotonic(), Event(kind="end", step=0, num_samples=0, metrics={})
        if not (saved and saved["done"]):
            try:
                for event in trainer:
                    last = write(event)
                    guard(last)
                    if deadline is not None and seconds() > deadline:
                        raise KeyboardInterrupt
                    if time.monotonic() - last_saved >= checkpoint_seconds:
                        checkpoint()
                        last_saved = time.monotonic()
            except KeyboardInterrupt:
                checkpoint()
                raise Interrupted(run) from None
            metrics = {k: v for k, v in last.metrics.items() if not math.isnan(v)}
            write(Event(kind="end", step=last.step, num_samples=last.num_samples, metrics=metrics))
            checkpoint(done=True)
    return read_events(run)
