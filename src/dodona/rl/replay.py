"""Replay: a ring of past transitions, drawn from evenly or by priority, with returns of n steps.

    R = r_1 + gamma r_2 + ... + gamma^(k-1) r_k,    discount = gamma^k (1 - terminated),    k <= n

A row is stored when it is final: n rewards later, or where its episode ends. Termination takes the
future away; a time limit only shortens the sum, and the row still bootstraps from the true last
observation. Rows that merely reset an environment never enter.

Not here: what is learnt from the rows (dqn.py). Frames are stored twice, as obs and as next_obs.

Source: Lin 1992; Mnih et al. 2015; Schaul et al. 2016, arXiv:1511.05952 (priorities); Pardo et al.,
arXiv:1712.00378 (time limits).
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, Shaped
from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.inputs import as_numpy, check_count, check_finite, check_range
from dodona.errors import CheckpointError, InputError, ShapeError
from dodona.rl import _replay_kernels as kernels


class ReplayBuffer:
    """The last ``capacity`` transitions of any number of environments.

    Args:
        capacity: rows.
        gamma: discount in [0, 1]; it is part of what is stored.
        prioritized: draw row i with probability p_i^a / sum p^a; new rows get the largest priority so far.
        num_steps: n, rewards per row. 3 is Rainbow's.
        priority_exponent: a in [0, 1]; 0 draws evenly. 0.6, arXiv:1511.05952 table 3.
        priority_floor: added to every priority, so that none is never drawn again. 1e-6, there too.
    Memory is taken with the first rows, whose observations say shape and dtype.
    Raises: InputError: a count below 1, a number outside its range.
    Source: see the module.  Oracle: oracles.replay (lists, sums from the front).
    Cost: push O(n) per row (and log capacity by priority), sample O(1) per row (log capacity).
    """

    def __init__(
        self, capacity: int, *, gamma: float = 1.0, prioritized: bool = False, num_steps: int = 1,
        priority_exponent: float = 0.6, priority_floor: float = 1e-6,
    ):  # fmt: skip
        check_count(capacity=capacity, num_steps=num_steps)
        check_range("[0, 1]", gamma=gamma, priority_exponent=priority_exponent)
        check_range("(0, inf)", priority_floor=priority_floor)
        self.capacity, self.gamma, self.num_steps = int(capacity), float(gamma), int(num_steps)
        self.prioritized = prioritized
        self.priority_exponent, self.priority_floor = priority_exponent, priority_floor
        self.head = self.size = self.num_added = 0
        self.max_reward = 0.0  # the largest |r| of a single step: the scale of honest values
        self.max_priority = 1.0  # p^a of the row that mattered most
        self.tree = np.zeros(2 << (self.capacity - 1).bit_length()) if prioritized else None
        self.ring: kernels.Rows | None = None
        self.window: kernels.Window | None = None
        self._kinds: dict[str, tuple[tuple[int, ...], np.dtype]] = {}

    def __len__(self) -> int:
        """Rows that can be drawn."""
        return self.size

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; 0 before the first rows."""
        arrays = [*(self.ring or ()), *(self.window or ())]
        return sum(x.nbytes for x in arrays) + (0 if self.tree is None else self.tree.nbytes)

    def push(
        self,
        obs: Shaped[Tensor, "B ..."],
        actions: Shaped[Tensor, "B ..."],
        rewards: Float[Tensor, "B"],
        next_obs: Shaped[Tensor, "B ..."],
        terminated: Bool[Tensor, "B"],
        truncated: Bool[Tensor, "B"],
        mask: Bool[Tensor, "B"] | None = None,
    ) -> int:
        """One step of B environments, always the same B in the same order.

        Args:
            obs: what was acted on.  actions: what was done.  rewards: of this step.
            next_obs: the true successor, before any reset.
            terminated, truncated: as the environment said; terminated wins where both are set.
            mask: False for a row that only resets: it is left out.
        Returns: how many rows became final and entered the ring.
        Raises: ShapeError: sizes.  TypeError: another dtype than before, ``done`` that is not bool.
            InputError: another number of environments.  NonFiniteError: a reward.
        """
        host = [as_numpy(x) for x in (obs, actions, rewards, next_obs, terminated, truncated)]
        num = len(host[2])
        if self.ring is None:
            self._allocate(host[0], host[1], num)
        self._check(host, num)
        counted = np.ones(num, dtype=bool) if mask is None else as_numpy(mask)
        self._note_rewards(host[2], counted)
        steps = kernels.Steps(
            _bytes(host[0]), _bytes(host[1]), host[2].astype(np.float32, copy=False),
            _bytes(host[3]), host[4], host[5], counted,
        )  # fmt: skip
        return self._entered(kernels.push(self.ring, self.window, steps, self.head, self.gamma))

    def add(self, batch: Batch) -> int:
        """All steps of a Batch: [B, T] rows of B environments, or [B] one step of each.

        The windows of n steps that are still open at the end are closed as if a time limit had come:
        nobody says what follows.
        Returns: rows that entered.
        Raises: InputError: no rewards, next_obs or terminated.  Otherwise as ``push``.
        """
        missing = [f for f in ("rewards", "next_obs", "terminated") if getattr(batch, f) is None]
        if missing:
            raise InputError(f"this batch has no {', '.join(missing)}. Replay needs them.")
        truncated = batch.terminated & False if batch.truncated is None else batch.truncated
        columns = (
            batch.obs, batch.actions, batch.rewards, batch.next_obs, batch.terminated, truncated,
            batch.mask != 0,
        )  # fmt: skip
        if batch.mask.ndim == 1:
            return self.push(*columns) + self.cut()
        steps = range(batch.mask.shape[1])
        return sum(self.push(*(x[:, t] for x in columns)) for t in steps) + self.cut()

    def cut(self) -> int:
        """End every open window as a time limit would: call it when environments are reset by hand.

        The rows that wait become final with the rewards they have, and bootstrap from the last
        observation. Returns: rows that entered. With num_steps = 1 nothing ever waits.
        """
        if self.window is None or not self.window.count.any():
            return 0
        return self._entered(kernels.close(self.ring, self.window, self.head))

    def sample(self, n: int, *, rng: np.random.Generator, beta: float = 1.0) -> Batch:
        """n rows, with replacement; fresh tensors.

        Evenly, or by priority: one row from each of n equal parts of sum p^a, which leaves the
        probabilities as they are and takes noise away.

        Args:
            beta: how much of the bias the weights take back, in [0, 1]; 1 = all of it.
        Returns:
            Batch of [n] rows: obs, actions, rewards (the n-step sum), next_obs (k steps later),
            terminated, truncated; info["indices"] int64, info["discounts"] = gamma^k (1 - terminated),
            info["weights"] = (N P(i))^-beta / max over the n rows, all 1 without priorities.
        Raises: InputError: nothing to draw.
        Source: arXiv:1511.05952, algorithm 1.  Oracle: oracles.replay.importance_weights, frequencies.
        """
        check_count(n=n)
        if not self.size:
            raise InputError(
                "the replay buffer is empty. Add transitions first; a row enters num_steps = "
                f"{self.num_steps} steps later, or where its episode ends."
            )
        weights = torch.ones(n)
        if self.tree is None:
            indices = rng.integers(0, self.size, n)
        else:
            indices = np.empty(n, dtype=np.int64)
            kernels.draw_leaves(self.tree, rng.random(n), indices)
            share = self.tree[len(self.tree) // 2 + indices] / self.tree[1]
            scaled = (self.size * share) ** -beta
            weights = torch.from_numpy((scaled / scaled.max()).astype(np.float32))
        return self.rows(indices, weights)

    def rows(self, indices: Integer[np.ndarray, "n"], weights: Tensor | None = None) -> Batch:
        """These rows, as ``sample`` gives them; ``rows(np.arange(len(buffer)))`` is all of them.

        Raises: IndexError: no such row.
        """
        indices = np.ascontiguousarray(indices, dtype=np.int64)
        if self.ring is None or (
            len(indices) and not 0 <= indices.min() <= indices.max() < self.size
        ):
            raise IndexError(f"rows must be in 0..{self.size - 1}.")  # fmt: skip
        n = len(indices)
        obs, next_obs = (self._empty("obs", n) for _ in range(2))
        actions = self._empty("actions", n)
        rewards, discounts = torch.empty(n), torch.empty(n)
        terminated, truncated = (torch.empty(n, dtype=torch.bool) for _ in range(2))
        out = kernels.Rows(
            _bytes(obs.numpy()), _bytes(actions.numpy()), rewards.numpy(), _bytes(next_obs.numpy()),
            discounts.numpy(), terminated.numpy(), truncated.numpy(),
        )  # fmt: skip
        kernels.gather(self.ring, indices, out)
        return Batch(
            obs=obs, actions=actions, mask=torch.ones(n, dtype=torch.bool), rewards=rewards,
            terminated=terminated, truncated=truncated, next_obs=next_obs,
            info={
                "indices": torch.from_numpy(indices), "discounts": discounts,
                "weights": torch.ones(n) if weights is None else weights,
            },
        )  # fmt: skip

    def update_priorities(
        self, indices: Integer[Tensor, "n"], priorities: Float[Tensor, "n"]
    ) -> None:
        """p_i = |priorities_i| + floor, usually of temporal-difference errors; the last of equal indices counts.

        Raises: InputError: the buffer is not prioritized.  NonFiniteError: a priority.
            IndexError: no such row.
        """
        if self.tree is None:
            raise InputError("this buffer has no priorities. Make it with prioritized=True.")
        index, size = as_numpy(indices).astype(np.int64), as_numpy(priorities).astype(np.float64)
        check_finite(priorities=size)
        if len(index) and not 0 <= index.min() <= index.max() < self.size:
            raise IndexError(f"indices must be in 0..{self.size - 1}.")
        leaves = (np.abs(size) + self.priority_floor) ** self.priority_exponent
        kernels.set_leaves(self.tree, index, leaves)
        self.max_priority = max(self.max_priority, float(leaves.max(initial=0.0)))

    def priorities(self) -> Float[np.ndarray, "N"]:
        """[N] p^a of every row, unnormalised.  Raises: InputError: the buffer is not prioritized."""
        if self.tree is None:
            raise InputError("this buffer has no priorities. Make it with prioritized=True.")
        leaves = len(self.tree) // 2
        return self.tree[leaves : leaves + self.size].copy()

    def state_dict(self) -> dict[str, Any]:
        """Rows in use, open windows, priorities, places: what continues bit for bit."""
        state: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("capacity", "num_steps", "gamma", "head", "size", "num_added", "max_reward", "max_priority")
        }  # fmt: skip
        if self.ring is not None and self.window is not None:
            state["ring"] = {k: x[: self.size].copy() for k, x in self.ring._asdict().items()}
            state["window"] = {k: x.copy() for k, x in self.window._asdict().items()}
            state["kinds"] = {k: [list(shape), str(dtype)] for k, (shape, dtype) in self._kinds.items()}  # fmt: skip
        if self.tree is not None:
            state["priorities"] = self.priorities()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: another capacity, num_steps, gamma or prioritized."""
        mine = (self.capacity, self.num_steps, self.gamma, self.prioritized)
        saved = (*(state[k] for k in ("capacity", "num_steps", "gamma")), "priorities" in state)
        if mine != saved:
            raise CheckpointError(
                f"the state is of a buffer with (capacity, num_steps, gamma, prioritized) = {saved}, this "
                f"one has {mine}. Make one with the same options."
            )
        for name in ("head", "size", "num_added", "max_reward", "max_priority"):
            setattr(self, name, state[name])
        self.ring = self.window = None
        if "ring" in state:
            kinds = {k: (tuple(shape), np.dtype(d)) for k, (shape, d) in state["kinds"].items()}
            first = {k: np.empty((1, *shape), dtype) for k, (shape, dtype) in kinds.items()}
            self._allocate(first["obs"], first["actions"], len(state["window"]["count"]))
            for part, rows in ((self.ring, state["ring"]), (self.window, state["window"])):
                for name, array in part._asdict().items():
                    array[: len(rows[name])] = rows[name]
        if self.tree is not None:
            self.tree[:] = 0.0
            kernels.set_leaves(self.tree, np.arange(self.size), np.asarray(state["priorities"]))

    # ------------------------------------------------------------------ private
    def _entered(self, written: int) -> int:
        """Count rows that were written from ``head`` on, and give them the largest priority so far."""
        if self.tree is not None and written:
            kernels.fill_leaves(self.tree, self.head, written, self.capacity, self.max_priority)
        self.head = (self.head + written) % self.capacity
        self.size = min(self.size + written, self.capacity)
        self.num_added += written
        return written

    def _allocate(self, obs: np.ndarray, actions: np.ndarray, num_envs: int) -> None:
        """Arrays for rows of this kind; untouched memory costs nothing yet."""
        self._kinds = {"obs": (obs.shape[1:], obs.dtype), "actions": (actions.shape[1:], actions.dtype)}  # fmt: skip
        wide, narrow = _bytes(obs).shape[1], _bytes(actions).shape[1]
        N, B, n = self.capacity, num_envs, self.num_steps
        self.ring = kernels.Rows(
            obs=np.empty((N, wide), np.uint8), actions=np.empty((N, narrow), np.uint8),
            rewards=np.empty(N, np.float32), next_obs=np.empty((N, wide), np.uint8),
            discounts=np.empty(N, np.float32), terminated=np.empty(N, bool), truncated=np.empty(N, bool),
        )  # fmt: skip
        self.window = kernels.Window(
            obs=np.zeros((B, n, wide), np.uint8), actions=np.zeros((B, n, narrow), np.uint8),
            rewards=np.zeros((B, n)), discounts=np.zeros((B, n)), first=np.zeros(B, np.int64),
            count=np.zeros(B, np.int64), last_obs=np.zeros((B, wide), np.uint8),
        )  # fmt: skip

    def _check(self, host: list[np.ndarray], num: int) -> None:
        obs, actions, _, next_obs, terminated, truncated = host
        B = len(self.window.count)
        if num != B:
            raise InputError(
                f"push got {num} environments, before it was {B}: windows of steps follow each one. Use a "
                "buffer for each number of environments."
            )
        for name, x in (("obs", obs), ("next_obs", next_obs), ("actions", actions)):
            shape, dtype = self._kinds["actions" if name == "actions" else "obs"]
            if x.shape != (num, *shape):
                raise ShapeError(f"{name} has shape {x.shape}, expected {(num, *shape)}.")
            if x.dtype != dtype:
                raise TypeError(
                    f"{name} has dtype {x.dtype}, expected {dtype} as in the first rows."
                )
        for name, x in (("terminated", terminated), ("truncated", truncated)):
            if x.dtype != bool:
                raise TypeError(f"{name} must be bool, got {x.dtype}.")
            if x.shape != (num,):
                raise ShapeError(f"{name} has shape {x.shape}, expected {(num,)}.")

    def _note_rewards(self, rewards: np.ndarray, counted: np.ndarray) -> None:
        largest = float(np.abs(np.where(counted, rewards, 0.0)).max(initial=0.0))
        if not np.isfinite(largest):
            check_finite(rewards=np.where(counted, rewards, 0.0))
        self.max_reward = max(self.max_reward, largest)

    def _empty(self, kind: str, n: int) -> Tensor:
        shape, dtype = self._kinds[kind]
        return torch.from_numpy(np.empty((n, *shape), dtype))


def _bytes(x: np.ndarray) -> np.ndarray:
    """[N, bytes] view (a copy only where rows are not contiguous)."""
    return np.ascontiguousarray(x).reshape(len(x), -1).view(np.uint8)
