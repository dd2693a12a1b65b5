"""What goes into a recursion over time: checked, time first, of one type, and with what follows every row.

Source: ours. Not here: the recursions (_time_kernels.py), and the rule of what follows (returns.py).
"""

from functools import reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from dodona.core.inputs import (
    as_numpy,
    check_detached,
    check_finite,
    check_mask,
    check_range,
    check_shapes,
    dtype_kind,
    is_tensor,
    namespace,
)
from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.objectives._time_kernels import Rows, next_counted


class Lanes(NamedTuple):
    """``rows``, and ``values`` and ``log_ratio`` where given, as [T, L]; ``shape`` has time first.

    Tensors on the host are NumPy views in here: an operation of a few microseconds is not worth a wake-up
    of torch's threads.
    """

    rows: Rows
    values: Any
    log_ratio: Any
    shape: tuple[int, ...]
    time_dim: int
    tensor: bool

    def answer(self, found: Any) -> Any:
        """[T, L] -> the shape that the caller gave.

        Raises: NonFiniteError: a number is not finite; names the first that made it so.
        """
        if not bool(namespace(found).isfinite(found).all()):
            self._blame()
        answer = self._back(found)
        return torch.from_numpy(answer) if self.tensor and not is_tensor(answer) else answer

    def _back(self, x: Any) -> Any:
        x = x.reshape(self.shape)
        return x if self.time_dim == 0 else namespace(x).moveaxis(x, 0, self.time_dim)

    def _blame(self) -> None:
        rewards, after, terminated, _, counts = self.rows
        read = {
            "rewards": (rewards, counts),
            "values": (self.values, counts),
            "log_ratio": (self.log_ratio, counts),
            "the value after a row": (after, counts & ~terminated),
        }
        for name, (x, where) in read.items():
            if x is not None:
                check_finite(**{name: self._back(namespace(x).where(where, x, 0.0))})
        raise NonFiniteError(
            f"the sums must be finite, got more than {rewards.dtype} can hold out of finite numbers. "
            "Scale the rewards, or bound rho_max."
        )


def lanes(
    rewards: Any, terminated: Any, truncated: Any, values: Any = None, *, gamma: float, next_values: Any,
    mask: Any, time_dim: int, final_values: Any = 0.0, log_ratio: Any = None,
) -> Lanes:  # fmt: skip
    """Everything time first and side by side. Without values, ``final_values`` follow the last rows.

    Raises: see returns.discounted_returns.
    """
    check_range("[0, 1]", gamma=gamma)
    check_shapes(
        rewards=rewards, terminated=terminated, truncated=truncated, next_values=next_values,
        log_ratio=log_ratio,
    )  # fmt: skip
    check_detached(rewards=rewards, values=values, next_values=next_values, final_values=final_values,
                   log_ratio=log_ratio)  # fmt: skip
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if dtype_kind(flag) != "b":
            raise TypeError(
                f"{name} must be bool, got {flag.dtype}. Gymnasium's env.step returns both flags: obs, "
                "reward, terminated, truncated, info."
            )
    check_mask(mask, rewards)
    finals = None if isinstance(final_values, (int, float)) else final_values
    given = (rewards, terminated, truncated, values, next_values, mask, log_ratio, finals)
    tensor = namespace(*given) is not np
    if not -rewards.ndim <= time_dim < rewards.ndim:
        raise ShapeError(
            f"rewards has shape {tuple(rewards.shape)} and no axis {time_dim}: [T, ...] is expected for "
            "time_dim=0, [B, T] for time_dim=1."
        )
    if values is not None:
        _check_values(rewards, values, next_values, time_dim)
    if tensor and rewards.is_cpu:
        rewards, terminated, truncated = (as_numpy(x) for x in (rewards, terminated, truncated))
        values, next_values, mask, log_ratio = (
            None if x is None else as_numpy(x) for x in (values, next_values, mask, log_ratio)
        )
    xp = namespace(rewards)
    time_dim %= rewards.ndim
    shape = (rewards.shape[time_dim], *rewards.shape[:time_dim], *rewards.shape[time_dim + 1 :])
    dtype = _float_type(rewards, values, next_values, log_ratio)

    def flat(x: Any, dtype: Any = None) -> Any:
        if time_dim:
            x = xp.moveaxis(x, time_dim, 0)
        x = x.reshape(x.shape[0], prod(shape[1:]))
        if dtype is None:
            return x
        return x.to(dtype) if is_tensor(x) else x.astype(dtype, copy=False)

    terminated, truncated = flat(terminated), flat(truncated)
    counts = xp.ones_like(terminated) if mask is None else flat(mask != 0)
    values = None if values is None else flat(values, dtype)
    if next_values is not None:
        after = flat(next_values, dtype)
    elif values is not None:
        after, values = _shifted(values, terminated | truncated, counts), values[:-1]
    else:
        after = _finals(final_values, shape, flat(rewards, dtype))
    rows = Rows(flat(rewards, dtype), after, terminated, truncated, counts)
    if next_values is None:
        _check_cuts(rows, shape, reset_rows=values is not None)
    log_ratio = None if log_ratio is None else flat(log_ratio, dtype)
    return Lanes(rows, values, log_ratio, shape, time_dim, tensor)


def _check_values(rewards: Any, values: Any, next_values: Any, time_dim: int) -> None:
    expected = list(rewards.shape)
    expected[time_dim] += next_values is None
    if tuple(values.shape) != tuple(expected):
        advice = (
            "T+1 rows, v(s_0) .. v(s_T). With T rows, give next_values as well."
            if next_values is None
            else "T rows, because next_values has what follows. Leave the last row out."
        )
        raise ShapeError(
            f"values has shape {tuple(values.shape)} and rewards has shape {tuple(rewards.shape)}: "
            f"{tuple(expected)} is expected, {advice}"
        )


def _float_type(*arrays: Any) -> Any:
    """The widest floating type given, at least float32; float64 where all are integers."""
    floats = [x.dtype for x in arrays if x is not None and dtype_kind(x) == "f"]
    if not is_tensor(arrays[0]):
        return np.result_type(np.float32, *floats) if floats else np.dtype(np.float64)
    return reduce(torch.promote_types, floats, torch.float32 if floats else torch.float64)


def _shifted(values: Any, cut: Any, counts: Any) -> Any:
    """[T+1, L] -> [T, L] v of what follows: the next row that counts, but just the next after a cut."""
    after = values[1:]
    gap = counts[:-1] & ~counts[1:] & ~cut[:-1]
    if not bool(gap.any()):
        return after
    following = next_counted(counts)  # T, the value after all rows, where none counts
    if is_tensor(values):
        ahead = values.gather(0, following)
    else:
        ahead = np.take_along_axis(values, following, axis=0)
    return namespace(values).where(cut, after, ahead)


def _finals(final_values: Any, shape: tuple[int, ...], like: Any) -> Any:
    """[T, L] filled with one number, or with one per lane."""
    if isinstance(final_values, (int, float)):
        check_finite(final_values=final_values)
        return namespace(like).full_like(like, final_values)
    if tuple(final_values.shape) != shape[1:]:
        raise ShapeError(
            f"final_values has shape {tuple(final_values.shape)}, expected {shape[1:]}: one value per lane, "
            "the shape of rewards without time; or one number for all."
        )
    row = final_values if is_tensor(like) else as_numpy(final_values).astype(like.dtype)
    return row.reshape(1, -1) + namespace(like).zeros_like(like)


def _check_cuts(rows: Rows, shape: tuple[int, ...], *, reset_rows: bool) -> None:
    """What follows a truncated row is known: it is the last, or stands in the reset row below it."""
    if not bool(rows.truncated.any()):
        return
    unknown = rows.truncated & ~rows.terminated & rows.counts
    if reset_rows:
        unknown = unknown[:-1] & rows.counts[1:]
    else:
        unknown = unknown & (next_counted(rows.counts) != len(unknown))
    if bool(unknown.any()):
        t, lane = (int(x[0]) for x in np.nonzero(as_numpy(unknown)))
        where = "" if len(shape) == 1 else f", lane {lane}"
        raise InputError(
            f"row {t}{where} is truncated and another counted row follows it, so the value of its true "
            "successor is unknown: the row below may belong to the next episode. Give next_values, v of "
            "the observation before the reset, for every row."
        )
