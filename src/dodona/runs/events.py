"""events.jsonl: one JSON line per event, the only truth of a run.

A line that a crash cut short is the last one and is dropped; a damaged line before it is an error.
"""

import hashlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dodona.core.protocols import Event
from dodona.errors import DataError
from dodona.runs.folder import RunFolder, write_atomically

LIMIT = 64 * 1024  # bytes of one line's data


def event_line(event: Event, *, seconds: float) -> bytes:
    """The JSON line of an event; NaN and infinities become null."""
    record = {
        "kind": event.kind,
        "step": event.step,
        "num_samples": event.num_samples,
        "metrics": {k: _number(v) for k, v in event.metrics.items()},
        "data": _plain(event.data),
        "seconds": round(seconds, 6),
    }
    size = len(json.dumps(record["data"]))
    if size > LIMIT:
        raise DataError(
            f"event data of step {event.step} has {size} bytes, at most {LIMIT} are allowed. "
            "Put arrays under data['artifacts']."
        )
    return (json.dumps(record, separators=(",", ":")) + "\n").encode()


def read_events(folder: RunFolder | Path | str) -> list[Event]:
    """All events of a run.

    Raises: DataError: no events.jsonl, or a damaged line (its number is named).
    """
    path = (folder.path if isinstance(folder, RunFolder) else Path(folder)) / "events.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} can not be read: {error.strerror}.") from None
    events = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn
        try:
            record = json.loads(line)
            events.append(
                Event(
                    kind=record["kind"],
                    step=int(record["step"]),
                    num_samples=int(record["num_samples"]),
                    metrics={
                        k: math.nan if v is None else float(v) for k, v in record["metrics"].items()
                    },
                    data=record["data"],
                    seconds=float(record["seconds"]),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}, line {number} is damaged ({error}). Cut the file there, or resume the run."
            ) from None
    return events


def store_artifacts(event: Event, folder: RunFolder) -> Mapping[str, Any]:
    """Write the event's arrays and bytes to artifacts/; returns its data with their names and hashes."""
    artifacts = event.data.get("artifacts")
    if not artifacts:
        return event.data
    stored = {}
    for name, content in artifacts.items():
        if isinstance(content, bytes):
            file, raw = name, content
        else:
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(content), allow_pickle=False)
            file, raw = f"{name}.npy", buffer.getvalue()
        write_atomically(folder.path / "artifacts" / file, raw)
        stored[name] = {"file": file, "sha256": hashlib.sha256(raw).hexdigest()}
    return {**event.data, "artifacts": stored}


def _number(value: Any) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
