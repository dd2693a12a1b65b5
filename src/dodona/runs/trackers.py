"""Trackers mirror the numbers of a run's events into TensorBoard or Weights & Biases, while it runs.

    with tracking("tensorboard", run) as track:
        drive(recipe, trainer, run, trackers=[track])

events.jsonl stays the truth; a tracker only reads. Every arm and seed is a curve of its own, over environment
steps, tokens or sweeps (``num_samples``). The packages are loaded when they are asked for.

Not here: settings of the services themselves; wandb reads its own environment variables (WANDB_MODE=offline).

Source: tensorboard (event files), wandb (init, log, finish).
"""

import contextlib
import math
import os
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Protocol

from dodona.core.protocols import Event
from dodona.errors import ConfigError, MissingDependencyError, nearest
from dodona.runs.folder import RunFolder

PROJECT = "dodona"  # where wandb puts runs; WANDB_PROJECT says otherwise


class Curve(Protocol):
    """Where one arm and seed is written to."""

    def log(self, numbers: dict[str, float], step: int) -> None: ...
    def close(self) -> None: ...


@contextlib.contextmanager
def tracking(name: str, run: RunFolder) -> Iterator[Callable[[Event], None]]:
    """A listener for drive's trackers; what it has opened is closed at the end, however that comes.

    Args: name: "tensorboard" (files in the run's folder) or "wandb".
    Raises: ConfigError: another name.  MissingDependencyError: its package is not installed.
    Source: see the module.  Oracle: the events (tests/runs/test_trackers.py).  Cost: some 10 microseconds a number.
    """
    package = require_tracker(name)
    curves: dict[str, Curve] = {}

    def track(event: Event) -> None:
        numbers = {k: float(v) for k, v in event.metrics.items() if math.isfinite(v)}
        if event.kind in ("start", "end") or not numbers:
            return  # the end repeats the numbers of the last event
        place = _place(event)
        if place not in curves:
            if name == "wandb":
                for curve in curves.values():
                    curve.close()  # its runs are written one after another, as the arms come
                curves.clear()
            curves[place] = OPEN[name](package, run, place, event)
        curves[place].log(numbers, event.num_samples)

    try:
        yield track
    finally:
        for curve in curves.values():
            curve.close()


def require_tracker(name: str) -> Any:
    """The package of a tracker, imported: before a run begins, so that it can not fail for want of it.

    Raises: ConfigError, MissingDependencyError: as tracking.
    Source: ours.  Oracle: by hand (tests).  Cost: the package's import, seconds.
    """
    if name not in OPEN:
        raise ConfigError(f"unknown tracker '{name}'. {nearest(name, OPEN)}")
    module = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}[name]
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"tracker '{name}' needs a package that is not installed ({error}). Run: pip install 'dodona[track]', "
            f"or: pip install {name}"
        ) from None


# ---------------------------------------------------------------------- private
def _place(event: Event) -> str:
    """stage, arm and seed as a path of file names; "run" where there are none."""
    parts = [str(event.data[k]) for k in ("stage", "arm") if k in event.data]
    parts += [f"seed-{event.data['seed']}"] if "seed" in event.data else []
    return "/".join(re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip(".") for part in parts) or "run"


class _Board:
    """An event file of TensorBoard below the run's folder."""

    def __init__(self, package: Any, run: RunFolder, place: str, event: Event):
        folder = run.path / "tensorboard" / place
        # a resumed run makes events again: what was written of them is marked as void
        again = event.num_samples if folder.exists() else None
        self.writer = package.SummaryWriter(str(folder), purge_step=again)

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    """A run of wandb, in the group of the run's folder; resumed by its name."""

    def __init__(self, package: Any, run: RunFolder, place: str, event: Event):
        group = run.path.name
        self.run = package.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), group=group, name=f"{group}/{place}",
            id=re.sub(r"[^A-Za-z0-9_-]", "-", f"{group}-{place}"),
            config={**run.config, "recipe": run.recipe, "place": place}, dir=str(run.path), resume="allow",
        )  # fmt: skip

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.run.log(numbers, step=step)

    def close(self) -> None:
        self.run.finish()


OPEN: dict[str, Callable[[Any, RunFolder, str, Event], Curve]] = {
    "tensorboard": _Board,
    "wandb": _Wandb,
}
"""Tracker -> what opens a curve."""
