"""The folder of a run: made once, never reused, holding everything needed to read or repeat it.

runs/<recipe>/<date-time>-<config hash>/
    config.json  command.txt  environment.json  events.jsonl
    checkpoints/ artifacts/   result.json       report.html
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dodona.errors import DataError, InputError
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
        for attempt in range(1000):
            path = Path(out) / recipe / (stem if attempt == 0 else f"{stem}-{attempt + 1}")
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
        folder.write("config.json", {"recipe": recipe, "config": dataclasses.asdict(config)})
        write_atomically(path / "command.txt", (command + "\n").encode())
        folder.write("environment.json", _environment())
        return folder

    @classmethod
    def open(cls, path: str | Path, *, out: str | Path = "runs") -> "RunFolder":
        """An existing run: its folder, or "latest" for the newest under ``out``.

        Raises: DataError: no such run.
        """
        if str(path) == "latest":
            runs = sorted(Path(out).glob("*/*/config.json"), key=lambda p: p.parent.name[:15])
            if not runs:
                raise DataError(f"there is no run under {Path(out)}. Start one with: dodona run")
            return cls(runs[-1].parent)
        if not (Path(path) / "config.json").is_file():
            raise DataError(
                f"{path} is not a run: it has no config.json. A run's folder looks like "
                "runs/<recipe>/<date-time>-<hash>; 'latest' takes the newest."
            )
        return cls(Path(path))

    @property
    def recipe(self) -> str:
        return self.read("config.json")["recipe"]

    @property
    def artifacts(self) -> dict[str, Path]:
        """Artifact name -> file."""
        return {p.name.removesuffix(".npy"): p for p in sorted((self.path / "artifacts").glob("*"))}

    def read(self, name: str) -> Any:
        """A JSON file of the run.  Raises: DataError: missing or damaged."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path / name} can not be read: {error}.") from None

    def write(self, name: str, data: Any) -> None:
        """Write a JSON file of the run, whole or not at all."""
        write_atomically(
            self.path / name, (json.dumps(data, indent=2, default=str) + "\n").encode()
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, sync, rename: a reader sees the old file or the new one, never half."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


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
