"""Gymnasium's spaces as tensors: how observations come in, how actions go out.

Discrete observations become numbers from 0 (int64), MultiDiscrete ones int64 vectors, uint8 images stay as
they are, everything else becomes float32.

Not here: environments (gymnasium_env.py); numbering of composite spaces for tables (tabular_env.py).

Source: Gymnasium's spaces (Farama Foundation).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona.errors import InputError, ShapeError


@dataclass(frozen=True, eq=False)
class Observations:
    """One observation space: shape, dtype, and num_states where observations are numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    num_states: int | None
    first: int  # the number of the first state in the space

    def array(self, raw: Any, num_envs: int, name: str) -> np.ndarray:
        """[B, ...] an array of its own.  Raises: ShapeError."""
        raw = np.asarray(raw)
        if raw.shape != (num_envs, *self.shape):
            raise ShapeError(
                f"observations of {name} have shape {raw.shape}, expected {(num_envs, *self.shape)} by its "
                "observation space. Mend the environment, or its space."
            )
        array = np.array(raw, dtype=NUMPY[self.dtype], order="C")
        return array - self.first if self.first else array


@dataclass(frozen=True, eq=False)
class Actions:
    """One action space: num_actions, or action_dim with its bounds."""

    num_actions: int | None
    action_dim: int | None
    low: Tensor | None
    high: Tensor | None
    first: int  # the number of the first action in the space
    shape: tuple[int, ...]
    dtype: Any

    def array(self, actions: np.ndarray) -> np.ndarray:
        """[B, ...] as the environment wants them."""
        if self.num_actions is not None:
            return actions + self.first if self.first else actions
        return actions.reshape(len(actions), *self.shape).astype(self.dtype, copy=False)

    def idle(self, num_envs: int) -> np.ndarray:
        """[B, ...] some action that is allowed."""
        if self.num_actions is not None:
            return np.full(num_envs, self.first)
        zero = torch.zeros(self.action_dim).clamp(self.low, self.high).numpy()
        return self.array(np.tile(zero, (num_envs, 1)))


NUMPY = {torch.int64: np.int64, torch.uint8: np.uint8, torch.float32: np.float32}


def observations(space: Any, name: str) -> Observations:
    """Raises: InputError: Dict, Tuple and other spaces that are no array.

    Source: see the module.  Oracle: the space's own sample.  Cost: O(1).
    """
    kind = type(space).__name__
    if kind == "Discrete":
        return Observations((), torch.int64, int(space.n), int(space.start))
    if kind == "MultiDiscrete":
        return Observations(space.shape, torch.int64, None, 0)
    if kind == "Box" and space.dtype == np.uint8:
        return Observations(space.shape, torch.uint8, None, 0)
    if kind in ("Box", "MultiBinary"):
        return Observations(space.shape, torch.float32, None, 0)
    raise InputError(
        f"observations of {name} are {space}; expected Box, Discrete, MultiDiscrete or MultiBinary. Wrap "
        "the environment with gymnasium.wrappers.FlattenObservation; for tables, rl.TabularEnv numbers them."
    )


def actions(space: Any, name: str) -> Actions:
    """Raises: InputError: anything but Discrete and Box.

    Source: see the module.  Oracle: the space's own contains.  Cost: O(1).
    """
    kind = type(space).__name__
    if kind == "Discrete":
        return Actions(int(space.n), None, None, None, int(space.start), (), np.int64)
    if kind == "Box":
        low, high = (
            torch.from_numpy(np.array(x, dtype=np.float32).reshape(-1))
            for x in (space.low, space.high)
        )
        return Actions(None, len(low), low, high, 0, space.shape, space.dtype)
    raise InputError(
        f"actions of {name} are {space}; expected Discrete or Box. Number the combinations with a "
        "gymnasium.ActionWrapper, so that they are Discrete."
    )
