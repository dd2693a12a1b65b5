"""A model from a NumPy archive: dense P [S, A, S], or the rows of a sparse one, and R.

Not here: text and Parquet tables (tables.py); arrays in memory (dense.py, matrices.py).
Source: the .npz format of NumPy; the row storage of scipy.sparse.csr_array.
"""

import os
from typing import Any

import numpy as np

from dodona.errors import DataError, InputError
from dodona.mdp.formats.dense import real_array, terminal_mask
from dodona.mdp.model import MDP

SPARSE = ("data", "indices", "indptr", "num_actions")


def mdp_from_npz(path: str | os.PathLike, *, gamma: float | None = None) -> MDP:
    """An MDP from .npz: P [S, A, S], or data, indices, indptr, num_actions (rows s * A + a), and R.

    Optional keys: gamma, terminal, start. gamma= wins over the file's.

    Args:
        path: the archive, written by numpy.savez; arrays that need pickles are refused.
        gamma: discount in [0, 1]; needed where the file holds none.
    Raises:
        DataError: an unreadable file, a missing key, or one that does not fit; file and key are named.
        InputError: no gamma.  MDPError, ShapeError: as MDP.from_dense.
    Source: see the module.  Oracle: MDP.from_dense on the same numbers.  Cost: O(size of the file).
    """
    data = _load(path)
    if gamma is None and "gamma" in data:
        gamma = float(_number(data, "gamma", "biuf", path))
    if gamma is None:
        raise InputError(f"{path} has no key 'gamma': pass gamma, for instance gamma=0.95.")
    missing = {"R"} - set(data)
    if "P" not in data:
        missing |= set(SPARSE) - set(data)
    if missing:
        raise DataError(
            f"{path} lacks {', '.join(sorted(missing))}. Expected P and R, or {', '.join(SPARSE)} "
            f"and R; got {', '.join(sorted(data)) or 'nothing'}."
        )
    if "P" in data:
        return MDP.from_dense(
            data["P"], data["R"], gamma=gamma, layout="sas", terminal=data.get("terminal"),
            start=data.get("start"),
        )  # fmt: skip
    return _from_rows(data, gamma, path)


# ---------------------------------------------------------------------- private
def _load(path: str | os.PathLike) -> dict[str, np.ndarray]:
    try:
        # opened here: np.load leaves a damaged file open
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it holds one array without a name, as .npy does; use numpy.savez")
            return dict(file)
    except Exception as error:  # zipfile, zlib, struct and NumPy raise a dozen kinds on damage
        raise DataError(
            f"{path} can not be read as .npz without pickles: {error or type(error).__name__}."
        ) from None


def _from_rows(data: dict[str, np.ndarray], gamma: float, path: str | os.PathLike) -> MDP:
    A = int(_number(data, "num_actions", "iu", path))
    if A < 1:
        raise DataError(f"{path}, key 'num_actions' is {A}; at least 1 is expected.")
    indptr, indices = (_column(data, key, "iu", path) for key in ("indptr", "indices"))
    probs = _column(data, "data", "biuf", path)
    L, nnz = len(indptr) - 1, len(indices)
    if L < 1 or L % A:
        raise DataError(
            f"{path}, key 'indptr' has {L + 1} entries; expected S * num_actions + 1, "
            f"one row for each of S states and {A} actions."
        )
    counts = np.diff(indptr.astype(np.int64))
    if indptr[0] != 0 or indptr[-1] != nnz or counts.min() < 0:
        raise DataError(
            f"{path}, key 'indptr' must rise from 0 to {nnz}, the length of 'indices', "
            f"got {indptr[0]}..{indptr[-1]}."
        )
    if len(probs) != nnz:
        raise DataError(
            f"{path}, key 'data' has {len(probs)} entries, expected {nnz} as 'indices' has."
        )
    S, R = L // A, data["R"]
    if R.shape not in ((S, A), (L,)) or R.dtype.kind not in "biuf":
        raise DataError(
            f"{path}, key 'R' has shape {R.shape} and dtype {R.dtype}; expected r(s, a), real "
            f"numbers of shape [S, A] = {(S, A)} or [S A] = {(L,)}."
        )
    terminal = terminal_mask(data.get("terminal"), S)
    keep = (counts > 0) & ~np.repeat(terminal, A)  # an empty row is an infeasible action
    entries = np.repeat(keep, counts)
    pair = np.flatnonzero(keep)
    return MDP.from_pairs(
        pair_state=pair // A,
        pair_action=pair % A,
        indptr=np.concatenate([[0], np.cumsum(counts[keep])]),
        indices=indices[entries],
        probs=real_array(probs[entries], "data"),
        rewards=R.astype(np.float64).reshape(-1)[pair],
        num_states=S,
        gamma=gamma,
        terminal=terminal,
        start=data.get("start"),
        num_actions=A,
    )


def _number(data: dict[str, np.ndarray], key: str, kinds: str, path: str | os.PathLike) -> Any:
    array = data[key]
    if array.size != 1 or array.dtype.kind not in kinds:
        raise DataError(
            f"{path}, key '{key}' has shape {array.shape} and dtype {array.dtype}; "
            f"one {'number' if 'f' in kinds else 'integer'} is expected."
        )
    return array.item()


def _column(
    data: dict[str, np.ndarray], key: str, kinds: str, path: str | os.PathLike
) -> np.ndarray:
    array = data[key]
    if array.ndim != 1 or array.dtype.kind not in kinds:
        raise DataError(
            f"{path}, key '{key}' has shape {array.shape} and dtype {array.dtype}; expected one row "
            f"of {'real numbers' if 'f' in kinds else 'integers'}."
        )
    return array
