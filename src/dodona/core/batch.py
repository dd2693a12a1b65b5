"""Batch: the one record between whatever collects experience and whatever learns from it.

Environments, token engines and image loaders all fill it; every objective reads it. Rows come first:
[B, T] for sequences, [B] for one-step problems, [B, K] for joints. What does not count (reset rows,
pads, prompt columns) has mask 0, and masked means removed.
A record, not a buffer: nothing here grows or changes in place, and memory may be laid out any way
(a time-major rollout is a transposed view).

Source: ours.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dodona.core.inputs import (
    as_numpy,
    check_count,
    check_detached,
    check_finite,
    check_mask,
    check_range,
)
from dodona.core.protocols import EMPTY
from dodona.core.reductions import masked_sum
from dodona.errors import InputError, ShapeError

PROMPT = "prompt"  # entries of obs whose name begins so belong to the row, not to its steps
FLAGS = ("terminated", "truncated")
CONSTANTS = (
    "logp_old", "logp_ref", "rewards", "values", "next_values", "advantages", "returns",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Rows of experience. A field that is None is not there.

    obs: [B, T, ...] observations, or [B, C, H, W] images, or a mapping of such. Prompts go into a
        mapping, under names that begin with "prompt": {"prompt": ids [B, P], "prompt_mask": [B, P]}.
        A tensor whose first sizes are those of the mask has one entry per step; others, and
        prompts, one per row.
    actions: [B, T, ...] actions or token ids, [B, K, D] keypoints; raw samples, before any clipping.
    mask: [B, T], bool or float, 1 = counts.
    logp_old: [B, T] log-probability under the policy that acted, nats.
    logp_ref: [B, T] under the reference policy, nats.
    rewards: [B, T]; an outcome reward sits on the last counted column.
    reward_mask: [B, T] where a reward was given (process rewards); None: on the last counted column.
    terminated: [B, T] bool, no future; the end of an answer too.
    truncated: [B, T] bool, cut from outside: there was a future. terminated wins.
    next_obs: [B, T, ...] the true successor, before any reset.
    values: [B, T] v(obs) by the critic that was there at collection.
    next_values: [B, T] v(next_obs), likewise.
    group: [B] int64, rows with one number share a prompt or a start state.
    advantages: [B, T] written by an objective's prepare().
    returns: [B, T] value targets, written by prepare().
    version: [B, T] int32, the version of the policy that took each action.
    info: texts, items, scores; no objective reads it. A list, tuple, array or tensor holds one item
        per row, anything else is about the whole batch.
    """

    obs: Tensor | Mapping[str, Tensor]
    actions: Tensor
    mask: Tensor
    logp_old: Tensor | None = None
    logp_ref: Tensor | None = None
    rewards: Tensor | None = None
    reward_mask: Tensor | None = None
    terminated: Tensor | None = None
    truncated: Tensor | None = None
    next_obs: Tensor | Mapping[str, Tensor] | None = None
    values: Tensor | None = None
    next_values: Tensor | None = None
    group: Tensor | None = None
    advantages: Tensor | None = None
    returns: Tensor | None = None
    version: Tensor | None = None
    info: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    def __len__(self) -> int:
        """B, the number of rows."""
        return len(self.mask)

    def total_rewards(self) -> Float[Tensor, "B"]:
        """[B] the sum of each row's counted rewards, undiscounted; 0 for a row without any.

        Raises: InputError: no rewards.  Oracle: oracles.statistics.masked_sum.
        """
        if self.rewards is None:
            raise InputError("this batch has no rewards to add up. Fill the field rewards first.")
        given = self.mask != 0
        if self.reward_mask is not None:
            given = given & (self.reward_mask != 0)
        if given.ndim == 1:
            given = given[:, None]
        return masked_sum(self.rewards.reshape(given.shape), given, dim=1)

    def select(self, rows: Tensor | np.ndarray | slice | int | Sequence[int]) -> "Batch":
        """Some rows, in the order asked for.

        Args:
            rows: indices, a bool for every row, one index, or a slice (which makes views).
        Raises: IndexError: no such row.
        """
        if isinstance(rows, slice):
            return self._with(lambda x: x[rows], lambda x: x[rows])
        index = as_numpy(rows)
        index = index if index.size else index.astype(np.int64)  # an empty list has no type
        return self._rows(torch.from_numpy(np.arange(len(self))[index].reshape(-1)))

    @staticmethod
    def cat(batches: Sequence["Batch"]) -> "Batch":
        """All rows of several batches; shorter ones are padded, prompts too.

        Raises:
            InputError: no batch; a field that some have and some have not; info about the whole
                batch that differs.
            ShapeError: sizes that padding can not make equal.
        """
        batches = list(batches)
        if not batches:
            raise InputError("cat got no batch, at least one is expected.")
        if all(b.mask.ndim == 2 for b in batches):
            width = max(b.mask.shape[1] for b in batches)
            batches = [b.pad_to(width) for b in batches]
        return Batch(
            **{f.name: _join(f.name, [getattr(b, f.name) for b in batches]) for f in fields(Batch)}
        )

    def flatten(self) -> "Batch":
        """Every counted step as a row of its own: [number of counted] instead of [B, T].

        Row order is kept. What belongs to a row (group, prompts, info) is repeated for its steps; a
        float mask keeps its weights.
        """
        counted = self.mask != 0
        if len(self) and counted.all():
            steps = counted[0].numel()
            rows = torch.arange(len(self)).repeat_interleave(steps)
            axes = counted.ndim - 1
            return self._with(lambda x: x.flatten(0, axes), lambda x: _take(x, rows))
        rows = counted.nonzero()[:, 0]
        return self._with(lambda x: x[counted], lambda x: _take(x, rows))

    def only(self, *names: str) -> "Batch":
        """The batch without its other fields; obs, actions and mask always stay, info goes.

        Source: ours.  Cost: none.
        """
        kept = {"obs", "actions", "mask", *names}
        return Batch(**{f.name: getattr(self, f.name) for f in fields(self) if f.name in kept})

    def minibatches(
        self, num: int, *, rng: np.random.Generator | torch.Generator
    ) -> Iterator["Batch"]:
        """The rows in random order, cut into ``num`` batches whose sizes differ by one at most.

        Every row comes exactly once. For minibatches of steps: ``batch.flatten().minibatches(...)``.
        Raises: InputError: num outside [1, B].
        """
        check_count(num=num)
        if num > len(self):
            raise InputError(
                f"num={num} minibatches of {len(self)} rows would leave some empty. Use at most "
                f"{len(self)}, or batch.flatten() for minibatches of steps."
            )
        if isinstance(rng, torch.Generator):
            order = torch.randperm(len(self), generator=rng, device=rng.device)
        else:
            order = torch.from_numpy(rng.permutation(len(self)))
        for rows in torch.tensor_split(order, num):
            yield self._rows(rows)

    def pad_to(self, width: int) -> "Batch":
        """Rows of length T = width: zeros and mask 0 behind what is there.

        Raises: InputError: rows are longer already.  ShapeError: a batch without steps.
        """
        if self.mask.ndim != 2:
            raise ShapeError(
                f"mask has shape {tuple(self.mask.shape)}: only [B, T] has steps to pad."
            )
        missing = width - self.mask.shape[1]
        if missing < 0:
            raise InputError(
                f"rows have length {self.mask.shape[1]} and do not fit into {width}. Cut where they "
                "are made: what is dropped here would be dropped silently."
            )
        return self._with(lambda x: _pad(x, missing), lambda x: x) if missing else self

    def to(self, device: torch.device | str) -> "Batch":
        """Every tensor on that device, those in info too."""

        def move(x: Any) -> Any:
            return x.to(device) if isinstance(x, Tensor) else x

        return self._with(move, move)

    def replace(self, **changes: Any) -> "Batch":
        """The same batch with other fields.  Raises: TypeError: no such field."""
        return replace(self, **changes)

    def validate(self) -> "Batch":
        """Itself, if every field is what it says; for the end of a collector and the start of a trainer.

        Raises:
            ShapeError: names both shapes.
            TypeError: dtypes: masks bool or float, flags bool, group int64, version int32; or a
                field that requires grad.
            NonFiniteError: NaN or infinity where the mask counts, in a field of numbers.
            InputError: a negative mask, a reward where nothing counts, fields on several devices.
        Cost: reads every number once.
        """
        if self.mask.ndim not in (1, 2):
            raise ShapeError(f"mask has shape {tuple(self.mask.shape)}, expected [B, T] or [B].")
        check_mask(self.mask, self.mask)
        check_range("[0, inf)", "1 counts, 0 does not.", mask=self.mask.float())
        check_detached(**{name: getattr(self, name) for name in CONSTANTS})
        for name, x in self._tensors():
            self._check_shape(name, x)
            if x.device != self.mask.device:
                raise InputError(
                    f"{name} is on {x.device} and mask is on {self.mask.device}: one device is "
                    "expected. Use batch.to(device)."
                )
        for name in FLAGS:
            _check_dtype(name, getattr(self, name), torch.bool)
        _check_dtype("group", self.group, torch.int64)
        _check_dtype("version", self.version, torch.int32)
        counted = self.mask != 0
        for name in CONSTANTS:
            x = getattr(self, name)
            check_finite(**{name: x if x is None else torch.where(counted, x, 0.0)})
        if self.reward_mask is not None:
            check_mask(self.reward_mask, self.mask, name="reward_mask")
            _check_inside("reward_mask", (self.reward_mask != 0) & ~counted)
        for name, x in self.info.items():
            if _per_row(x) and len(x) != len(self):
                raise ShapeError(
                    f"info['{name}'] has {len(x)} items for {len(self)} rows: one per row is expected. "
                    "Wrap what is about the whole batch, in a dictionary for instance."
                )
        return self

    def _tensors(self) -> Iterator[tuple[str, Any]]:
        """(name, tensor) of all that is there, entries of mappings as obs['name']."""
        for f in fields(self):
            x = getattr(self, f.name)
            if isinstance(x, Mapping) and f.name != "info":
                yield from ((f"{f.name}['{key}']", entry) for key, entry in x.items())
            elif x is not None and f.name != "info":
                yield f.name, x

    def _check_shape(self, name: str, x: Tensor) -> None:
        shape, steps = tuple(x.shape), tuple(self.mask.shape)
        if name.startswith("obs") or name == "group":
            expected = steps[:1]
        else:
            expected = steps
        exact = name in (*CONSTANTS, *FLAGS, "group", "reward_mask", "version")
        if shape[: len(expected)] != expected or (exact and len(shape) != len(expected)):
            letters = "[B]" if len(expected) == 1 else "[B, T]"
            raise ShapeError(
                f"{name} has shape {shape} and mask has shape {steps}: "
                f"{letters} = {expected}{'' if exact else ' and more axes'} is expected."
            )

    def _rows(self, rows: Tensor) -> "Batch":
        rows = rows.to(self.mask.device)  # once, not once per field
        # four times faster than x[rows]
        return self._with(lambda x: x.index_select(0, rows), lambda x: _take(x, rows))

    def _with(self, per_step: Callable[[Tensor], Tensor], per_row: Callable[[Any], Any]) -> "Batch":
        """Every field through one of two functions: what has an entry per step, what has one per row."""

        def change(name: str, x: Any) -> Any:
            if x is None:
                return None
            if name == "info":
                return {k: per_row(v) if _per_row(v) else v for k, v in x.items()}
            if isinstance(x, Mapping):
                return {k: change(k, v) for k, v in x.items()}
            follows = x.shape[: self.mask.ndim] == self.mask.shape and not name.startswith(PROMPT)
            return per_step(x) if follows else per_row(x)

        return replace(
            self, **{f.name: change(f.name, getattr(self, f.name)) for f in fields(self)}
        )


def _per_row(x: Any) -> bool:
    return isinstance(x, (list, tuple, np.ndarray, Tensor))


def _take(x: Any, rows: Tensor) -> Any:
    """Rows of a tensor, an array, a list or a tuple."""
    if isinstance(x, Tensor):
        return x[rows.to(x.device)]
    if isinstance(x, np.ndarray):
        return x[rows.numpy(force=True)]
    return type(x)(x[i] for i in rows.tolist())


def _pad(x: Tensor, missing: int) -> Tensor:
    """Zeros behind the second axis."""
    return torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], dim=1)


def _join(name: str, parts: list[Any]) -> Any:
    """One field of several batches, one below the other."""
    absent = [x is None for x in parts]
    if all(absent):
        return None
    if any(absent):
        raise InputError(
            f"{name} is there in batch {absent.index(False)} and missing in batch "
            f"{absent.index(True)}. Fill it in all of them, or in none."
        )
    if not isinstance(parts[0], Mapping):
        return _join_tensors(name, parts)
    known = set().union(*parts)
    for i, x in enumerate(parts):
        if known - set(x):
            raise InputError(
                f"{name} of batch {i} lacks the entries {sorted(known - set(x))} that others have. "
                "Give every batch the same."
            )
    join = _join_info if name == "info" else _join_tensors
    return {key: join(key, [x[key] for x in parts]) for key in parts[0]}


def _join_tensors(name: str, parts: list[Tensor]) -> Tensor:
    if name.startswith(PROMPT):
        width = max(x.shape[1] for x in parts)
        parts = [_pad(x, width - x.shape[1]) for x in parts]
    if any(x.shape[1:] != parts[0].shape[1:] for x in parts):
        shapes = " and ".join(str(tuple(shape)) for shape in dict.fromkeys(x.shape for x in parts))
        raise ShapeError(
            f"{name} has shapes {shapes}: only the first axis may differ. Prompts are padded when they "
            "stand in a mapping, under a name that begins with 'prompt'."
        )
    return torch.cat(parts)


def _join_info(key: str, parts: list[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    if isinstance(parts[0], (list, tuple)):
        return type(parts[0])(item for x in parts for item in x)
    if any(x != parts[0] for x in parts):
        raise InputError(
            f"info['{key}'] is about the whole batch and differs: {parts[0]!r} and others. Drop it, or "
            "give a list with one item per row."
        )
    return parts[0]


def _check_dtype(name: str, x: Tensor | None, dtype: torch.dtype) -> None:
    if x is not None and x.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {x.dtype}. Use {name}.to({dtype}).")


def _check_inside(name: str, outside: Tensor) -> None:
    if outside.any():
        index = tuple(outside.nonzero()[0].tolist())
        raise InputError(
            f"{name} marks a reward at {index}, where the mask counts nothing: it would be lost. Put it "
            "on a counted column."
        )
