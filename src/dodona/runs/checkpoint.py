"""Checkpoints that are there completely or not at all, and are checked byte for byte when read.

Protocol: write into ``step-N.tmp-<random>``, sync every file, the manifest (sizes, SHA-256) last,
sync the folder, rename to ``step-N``, sync the parent. Loading takes the newest whose manifest
verifies; a damaged one is moved aside as ``step-N.corrupt-<time>``, never deleted, and never taken
for a fresh start. Arrays go to safetensors, the rest of the state to JSON; nothing is unpickled.
"""

import hashlib
import json
import math
import os
import secrets
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from dodona.errors import CheckpointError
from dodona.runs.folder import RunFolder

KEEP = 2


class CheckpointWarning(RuntimeWarning):
    """A damaged checkpoint was moved aside and an older one is used."""


def save_checkpoint(folder: RunFolder, state: dict[str, Any], *, step: int) -> Path:
    """Write a checkpoint and keep the last two.

    Args:
        state: nested dicts with string keys, lists, numbers, strings, None, NumPy arrays, tensors.
        step: its number; a later one must be larger.
    Raises:
        CheckpointError: the disk is full or the folder can not be written; the checkpoint before
            stands untouched.
    """
    parent = folder.path / "checkpoints"
    final = parent / f"step-{step:010d}"
    beside = parent / f"{final.name}.tmp-{secrets.token_hex(4)}"
    try:
        arrays: dict[str, np.ndarray] = {}
        tree = json.dumps(_flatten(state, "", arrays)).encode()
        for left in parent.glob("step-*.tmp-*"):  # by a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        beside.mkdir()
        files = {"state.json": tree, "arrays.safetensors": save_arrays(arrays)}
        manifest = {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        }
        for name, data in files.items():
            _write(beside / name, data)
        _write(beside / "manifest.json", json.dumps({"step": step, "files": manifest}).encode())
        _sync(beside)
        if final.exists():
            shutil.rmtree(final)
        os.rename(beside, final)
        _sync(parent)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint {final} could not be written: {error.strerror or error}. The one before stands. "
            "Free some space or make the folder writable, then: dodona resume"
        ) from None
    for old in _complete(parent)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(folder: RunFolder) -> dict[str, Any] | None:
    """The newest checkpoint that verifies, or None where none was ever written.

    Raises: CheckpointError: there are checkpoints and all are damaged.
    Warns: CheckpointWarning for each damaged one, with where it was moved.
    """
    parent = folder.path / "checkpoints"
    damaged = 0
    for path in reversed(_complete(parent)):
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            aside = path.with_name(f"{path.name}.corrupt-{int(time.time())}")
            os.rename(path, aside)
            damaged += 1
            warnings.warn(
                f"checkpoint {path.name} is damaged ({error}); it was moved to {aside.name} and the "
                "one before is used.",
                CheckpointWarning,
                stacklevel=2,
            )
    if damaged or any(parent.glob("*.corrupt-*")):
        raise CheckpointError(
            f"every checkpoint in {parent} is damaged; they were moved aside, none was deleted. "
            "Restore one from a backup, or start again with: dodona run"
        )
    return None


def _complete(parent: Path) -> list[Path]:
    return sorted(p for p in parent.glob("step-*") if p.name[5:].isdigit())


def _read(path: Path) -> dict[str, Any]:
    manifest = json.loads((path / "manifest.json").read_bytes())
    contents = {}
    for name in ("state.json", "arrays.safetensors"):
        data = (path / name).read_bytes()
        said = manifest["files"][name]
        if len(data) != said["size"] or hashlib.sha256(data).hexdigest() != said["sha256"]:
            raise ValueError(f"{name} does not match its manifest")
        contents[name] = data
    if path.name != f"step-{manifest['step']:010d}":
        raise ValueError("the manifest belongs to another step")
    return _restore(json.loads(contents["state.json"]), load_arrays(contents["arrays.safetensors"]))


def _flatten(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The JSON tree of a state; arrays are replaced by references and collected."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.dtype == torch.bfloat16:
            arrays[name] = value.detach().cpu().contiguous().view(torch.int16).numpy()
            return {"$tensor": name, "dtype": "bfloat16", "shape": list(value.shape)}
        arrays[name] = np.ascontiguousarray(value.detach().cpu().numpy())
        return {"$tensor": name, "shape": list(value.shape)}
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value)
        return {"$array": name, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        if any(not isinstance(k, str) or k.startswith("$") for k in value):
            raise TypeError(f"state keys must be strings that do not begin with '$', at '{name}'")
        return {k: _flatten(v, f"{name}/{k}", arrays) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_flatten(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a state can not hold {type(value).__name__}, at '{name}'")


def _restore(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(tree, list):
        return [_restore(v, arrays) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if "$array" in tree:
        return arrays[tree["$array"]].reshape(tree["shape"])
    if "$float" in tree:
        return float(tree["$float"])
    if "$tensor" in tree:
        import torch

        # a number comes back from safetensors as one of length one
        tensor = torch.from_numpy(np.array(arrays[tree["$tensor"]]).reshape(tree["shape"]))
        return tensor.view(torch.bfloat16) if tree.get("dtype") == "bfloat16" else tensor
    return {k: _restore(v, arrays) for k, v in tree.items()}


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
