"""The classic control tasks as an Env: all rows stepped by one compiled loop.

    env = make_env("CartPole-v1", num_envs=64, seed=0)
    state, rewards, terminated = env.step_from(env.states, actions)     # the dynamics alone, pure

What row n does depends on (seed, n) and its actions only: not on how many rows there are, on threads, or on
where a run was cut and resumed, bit for bit. Each task has its own time limit; who ends begins anew in the
same step, and the true successor is in ``next_obs``.

Not here: the dynamics (classic_kernels.py), playing a network without a call per step (fused_rollout.py).

Source: Gymnasium 1.x, envs/classic_control (Farama Foundation); Steele, Lea & Flood 2014 (SplitMix64).
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from dodona.core.inputs import check_choice, check_count
from dodona.core.rng import Streams
from dodona.errors import CheckpointError, InputError, ShapeError
from dodona.rl.environments import Step, check_groups, checked_actions
from dodona.rl.native import classic_kernels as kernels

THREADED = 1 << 15  # rows from which threads pay


@dataclass(frozen=True, kw_only=True)
class Task:
    """One of the five.

    number: in classic_kernels.  state_dim, obs_dim: D and what is seen of it.
    num_actions: 0.., or None where actions are numbers in [-bound, bound].
    limit: steps of an episode.
    """

    number: int
    state_dim: int
    obs_dim: int
    num_actions: int | None = None
    bound: float | None = None
    limit: int


TASKS: Mapping[str, Task] = {
    "CartPole-v1": Task(number=kernels.CART_POLE, state_dim=4, obs_dim=4, num_actions=2, limit=500),
    "MountainCar-v0": Task(number=kernels.MOUNTAIN_CAR, state_dim=2, obs_dim=2, num_actions=3, limit=200),
    "MountainCarContinuous-v0": Task(
        number=kernels.MOUNTAIN_CAR_CONTINUOUS, state_dim=2, obs_dim=2, bound=1.0, limit=999
    ),
    "Pendulum-v1": Task(number=kernels.PENDULUM, state_dim=2, obs_dim=3, bound=2.0, limit=200),
    "Acrobot-v1": Task(number=kernels.ACROBOT, state_dim=4, obs_dim=6, num_actions=3, limit=500),
}  # fmt: skip


class NativeEnv:
    """A classic control task as an Env whose rows can share a start state.

    Args:
        env_id: a key of TASKS.
        num_envs: at least 1.
        seed: a whole number >= 0.
        max_episode_steps: episodes are truncated there; None: the task's own limit.
        first_env: the number of row 0: the r-th of several processes takes r * num_envs, and all
            together are the same as one with all rows.
        num_threads: at most so many, and only for many rows; None: one per core.
        device: where observations and rewards are wanted; the steps are taken on the host.
    Raises:
        InputError: an unknown id, counts.
    Source: see the module.
    Oracle: Gymnasium's own environments, step by step and by the law of episodes (tests/rl/test_native.py).
    Cost: some 40 ns per step and row (Acrobot 150), and 25 microseconds per call.
    """

    num_states = None
    obs_dtype = torch.float32

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        seed: int,
        max_episode_steps: int | None = None,
        first_env: int = 0,
        num_threads: int | None = None,
        device: torch.device | str = "cpu",
    ):
        check_choice(TASKS, env_id=env_id)
        check_count(num_envs=num_envs, max_episode_steps=max_episode_steps, num_threads=num_threads)
        check_count(0, seed=seed, first_env=first_env)
        self.task = task = TASKS[env_id]
        self.id, self.num_envs, self.first_env, self.seed = env_id, num_envs, first_env, seed
        self.obs_shape = (task.obs_dim,)
        self.num_actions = task.num_actions
        self.device = torch.device(device)
        bounded = task.bound is not None
        self.action_dim = 1 if bounded else None
        self.action_low = torch.full((1,), -task.bound, device=self.device) if bounded else None
        self.action_high = torch.full((1,), task.bound, device=self.device) if bounded else None
        self.max_episode_steps = max_episode_steps or task.limit
        self.num_threads = num_threads or os.cpu_count() or 1
        self.words = self._seeded(seed)
        self.coordinates = np.zeros((4, num_envs), dtype=np.float64)
        self.steps = np.full(num_envs, -1, dtype=np.int64)  # -1 before the first reset

    @property
    def states(self) -> Float[Tensor, "B D"]:
        """The states behind the observations; what is done to them is not done to the environment."""
        return torch.from_numpy(self.coordinates[: self.task.state_dim].T.copy()).to(self.device)

    def reset(self, *, seed: int | None = None) -> Float[Tensor, "B d"]:
        """[B, d] first observations. With a seed everything begins anew, else the random numbers go on."""
        return self._begin(seed, 1)

    def reset_groups(self, group_size: int, *, seed: int | None = None) -> Float[Tensor, "B d"]:
        """As reset, but rows g * group_size .. (g + 1) * group_size - 1 begin in one state.

        Raises: InputError: num_envs or first_env is no multiple of group_size.
        """
        check_groups(self, group_size)
        return self._begin(seed, group_size)

    def step(self, actions: Shaped[Tensor, "B ..."]) -> Step:
        """One step of every row; none ever only resets.

        Raises: as checked_actions.  InputError: before the first reset.
        """
        self.require_begun()
        wanted = checked_actions(self, actions).reshape(-1).astype(np.float64)
        B, d = self.num_envs, self.task.obs_dim
        obs, successors = np.empty((B, d), dtype=np.float32), np.empty((B, d), dtype=np.float32)
        rewards, flags = np.empty(B, dtype=np.float32), np.empty((2, B), dtype=bool)
        spread(
            lambda first, last: kernels.advance(
                first, last, self.task.number, self.max_episode_steps, self.words, self.coordinates, self.steps,
                wanted, obs, successors, rewards, flags,
            ),
            B, self.num_threads if B >= THREADED else 1,
        )  # fmt: skip
        columns = (obs, successors, rewards, flags[0], flags[1], np.ones(B, dtype=bool))
        return Step(*(torch.from_numpy(x).to(self.device) for x in columns))

    def step_from(
        self, states: Float[Tensor, "N D"], actions: Shaped[Tensor, "..."]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"], Bool[Tensor, "N"]]:
        """(successors, rewards, terminated) of any states under any actions: no clock, no reset, no chance.

        Args:
            states: N of them, as in ``states``; not changed.
            actions: [N] numbers of actions, or [N, 1]; beyond the bounds the task clips them itself.
        Returns:
            Rounded to float32 for float32 states; the arithmetic is in float64.
        Raises: ShapeError: states of another width, another number of actions.
        Source, Oracle: as the class.  Cost: of the steps.
        """
        D = self.task.state_dim
        if states.shape[1] != D or actions.numel() != len(states):
            raise ShapeError(
                f"states have shape {tuple(states.shape)} and actions {tuple(actions.shape)}, {self.id} "
                f"expects (N, {D}) and one action for each of N."
            )
        before = states.detach().numpy(force=True).astype(np.float64)
        after, rewards = np.empty_like(before), np.empty(len(before))
        terminated = np.empty(len(before), dtype=bool)
        flat = actions.detach().numpy(force=True).reshape(-1).astype(np.float64)
        kernels.jump(self.task.number, before, flat, after, rewards, terminated)
        successors, earned = (torch.from_numpy(x).to(states) for x in (after, rewards))
        return successors, earned, torch.from_numpy(terminated).to(states.device)

    def observe(self, states: Float[Tensor, "N D"]) -> Float[Tensor, "N d"]:
        """What is seen of states.  Oracle: the task's own observation.  Cost: O(N)."""
        obs = np.empty((len(states), self.task.obs_dim), dtype=np.float32)
        kernels.observe_all(
            self.task.number, states.detach().numpy(force=True).astype(np.float64), obs
        )
        return torch.from_numpy(obs).to(states.device)

    def state_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "seed": self.seed,
            "words": self.words.copy(),
            "state": self.coordinates.copy(),
            "steps": self.steps.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: another task or number of rows."""
        saved = np.asarray(state["state"])
        there, here = (
            f"{saved.shape[-1]} rows of {state['id']}",
            f"{self.num_envs} rows of {self.id}",
        )
        if there != here:
            raise CheckpointError(
                f"the checkpoint holds {there}, this environment {here}. Resume with the run's own config."
            )
        self.seed = int(state["seed"])
        self.words = np.array(state["words"], dtype=np.uint64)
        self.coordinates, self.steps = saved.copy(), np.array(state["steps"], dtype=np.int64)

    def close(self) -> None:
        """Nothing to end."""

    def require_begun(self) -> None:
        if self.steps[0] < 0:
            raise InputError(f"{self.id} was stepped before its first reset. Call env.reset().")

    def _begin(self, seed: int | None, group_size: int) -> Float[Tensor, "B d"]:
        check_count(0, seed=seed)
        if seed is not None:
            self.seed, self.words = seed, self._seeded(seed)
        obs = np.empty((self.num_envs, self.task.obs_dim), dtype=np.float32)
        kernels.begin(self.task.number, self.words, self.coordinates, self.steps, group_size, obs)
        return torch.from_numpy(obs).to(self.device)

    def _seeded(self, seed: int) -> np.ndarray:
        """[B] one word per row, drawn in order, so that row n has its word however many there are."""
        last = self.first_env + self.num_envs
        words = Streams(seed).numpy("native_env").integers(0, 2**64, last, dtype=np.uint64)
        return words[self.first_env :].copy()


def spread(loop: Any, num_rows: int, num_threads: int) -> None:
    """loop(first, last) over all rows, in threads; the loop must release the lock."""
    num_threads = min(num_threads, num_rows)
    if num_threads == 1:
        return loop(0, num_rows)
    bounds = np.linspace(0, num_rows, num_threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(loop, bounds[:-1], bounds[1:]))
