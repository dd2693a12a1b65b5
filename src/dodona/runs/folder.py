"""The folder of a run: made once, never reused, holding everything needed to read or repeat it.

config.json also names the files that the configuration mentions, each with its SHA-256.

runs/<recipe>/<date-time>-<config hash>/
    config.json  command.txt  environment.json  events.jsonl
    checkpoints/ artifacts/   result.json       report.html
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dodona.errors import CheckpointError, DataError, InputError
from dodona.runs.config import config_hash

PACKAGES = ("dodona", "torch", "numpy", "scipy", "numba", "gymnasium", "plotly")


@dataclass(frozen=True)
class RunFolder:
    """A run's paths. ``create`` makes a new folder, ``open`` takes an existing one."""

    path: Path

    @classmethod
    def create(
        cls, recipe: str, config: Any, *, out: str | Path = "runs", command: str = ""
    ) -> "RunFolder":
        """A fresh folder with config.json, command.txt and environment.json.

        Raises: InputError: ``out`` can not be written.
        """
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{config_hash(recipe, config)}"
        attempt = 0
        while True:
            attempt += 1
            path = Path(out) / recipe / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir()
                (path / "checkpoints").mkdir()
                (path / "artifacts").mkdir()
                break
            except FileExistsError as error:
                if not path.is_dir():
                    raise InputError(f"{path} can not be made: {error}.") from None
            except OSError as error:
                raise InputError(
                    f"the output folder {Path(out)} can not be written: {error.strerror}. "
                    "Choose another with --out."
                ) from None
        folder = cls(path)
        values = dataclasses.asdict(config)
        record = {"recipe": recipe, "config": values, "inputs": _inputs(values)}
        folder.write("config.json", record)
        write_atomically(path / "command.txt", (command + "\n").encode())
        folder.write("environment.json", _environment())
        return folder

    @classmethod
    def open(cls, path: str | Path, *, out: str | Path = "runs") -> "RunFolder":
        """An existing run: its folder, its id (date-time-hash) under ``out``, or "latest" for the newest there.

        Raises: DataError: no such run.
        """
        if str(path) == "latest":
            runs = [p.parent for p in Path(out).glob("*/*/config.json")]
            if not runs:
                raise DataError(f"there is no run under {Path(out)}. Start one with: dodona run")
            return cls(max(runs, key=_age))
        if (Path(path) / "config.json").is_file():
            return cls(Path(path))
        named = [p.parent for p in Path(out).glob("*/*/config.json") if p.parent.name == str(path)]
        if named:
            return cls(named[0])
        raise DataError(
            f"{path} is not a run: it has no config.json. A run's folder looks like "
            "runs/<recipe>/<date-time>-<hash>; 'latest' takes the newest."
        )

    @property
    def recipe(self) -> str:
        """The recipe's name.  Raises: DataError: config.json is missing or damaged."""
        return self._setting("recipe", str)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, field by field.  Raises: DataError: as ``recipe``."""
        return self._setting("config", dict)

    @property
    def inputs(self) -> list[dict[str, str]]:
        """The files that the configuration names: field, file as given, path, sha256."""
        record = self.read("config.json")
        return record.get("inputs", []) if isinstance(record, dict) else []

    @property
    def artifacts(self) -> dict[str, Path]:
        """Artifact name -> file."""
        files = sorted((self.path / "artifacts").glob("[!.]*"))  # no half-written ones
        return {p.name.removesuffix(".npy"): p for p in files}

    def check_inputs(self) -> None:
        """Compare the files that the configuration names with what they were when the run began.

        Raises: CheckpointError: one has changed or is gone.
        """
        for known in self.inputs:
            field, file = known["field"], known["file"]
            try:
                found = _sha256(file)
            except OSError as error:
                raise CheckpointError(
                    f"{file}, which {field} names, can not be read: {error.strerror}. The run began "
                    f"with {known['path']}. Put it back, or resume from the folder where it began."
                ) from None
            if found != known["sha256"]:
                raise CheckpointError(
                    f"{file}, which {field} names, has changed since the run began (sha256 "
                    f"{found[:12]}, expected {known['sha256'][:12]}). Put the old file back, or "
                    "begin a new run with: dodona run"
                )

    def read(self, name: str) -> Any:
        """A JSON file of the run.  Raises: DataError: missing or damaged."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{self.path / name} can not be read: {error.strerror}.") from None
        except ValueError as error:
            raise DataError(f"{self.path / name} is damaged: {error}.") from None

    def write(self, name: str, data: Any) -> None:
        """Write a JSON file of the run, whole or not at all.  Raises: as write_atomically."""
        write_atomically(
            self.path / name, (json.dumps(data, indent=2, default=str) + "\n").encode()
        )

    def _setting(self, name: str, kind: type) -> Any:
        record = self.read("config.json")
        value = record.get(name) if isinstance(record, dict) else None
        if not isinstance(value, kind):
            raise DataError(
                f"{self.path / 'config.json'} is damaged: it has no '{name}'. Restore the file, or "
                "start again with: dodona run"
            )
        return value


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, sync, rename: a reader sees the old file or the new one, never half.

    Raises: InputError: the disk is full or the folder can not be written; nothing is left behind.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise InputError(
            f"{path} can not be written: {error.strerror or error}. Free some space or make the "
            "folder writable, then try again."
        ) from None


def _age(path: Path) -> tuple[str, int, int, str]:
    """Sorts run folders: by the second in their names, then by when config.json was written.

    Two of one tick of the file system's clock differ in the number behind the hash: -2 before -10.
    """
    return path.name[:15], (path / "config.json").stat().st_mtime_ns, len(path.name), path.name


def _inputs(config: Mapping[str, Any]) -> list[dict[str, str]]:
    """The files that a configuration names, with their hashes."""
    return [
        {"field": field, "file": file, "path": os.path.abspath(file), "sha256": _sha256(file)}
        for field, value in config.items()
        for file in (value if isinstance(value, (list, tuple)) else [value])
        if isinstance(file, str) and os.path.isfile(file)
    ]


def _sha256(file: str) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _environment() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": versions,
    }
