"""Many environments stepped at once: what a step is, what an environment must do, and how to make one.

    env = make_env("CartPole-v1", num_envs=64, seed=0)
    obs = env.reset()
    step = env.step(torch.randint(2, (64,)))

One record for all: ``next_obs`` is the true successor, before any reset, so that nobody has to know how
and when an environment begins anew. terminated: no future, its value is 0. truncated: cut from outside,
the future exists and is worth v(next_obs). Both: terminated wins.

Not here: the environments (native/, gymnasium_env.py, _mdp_env.py), playing them (rollout.py), whether one keeps
its promises (env_check.py).

Source: Gymnasium API 1.x (Farama Foundation); Pardo et al. 2018, arXiv:1712.00378 (time limits).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from dodona.core.inputs import check_choice, check_count
from dodona.errors import InputError, NonFiniteError, ShapeError, nearest
from dodona.mdp.model import MDP

BACKENDS = ("auto", "native", "gymnasium", "envpool")
_OF_THE_HOUSE = {
    "native_env:NativeEnv": (
        "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1", "Acrobot-v1",
    ),
    "finite_worlds:WorldEnv": (
        "CliffWalking-v1", "FrozenLake-v1", "FrozenLake8x8-v1", "GridWorld-v0", "Catch-v0", "DeepSea-v0",
        "Bandit-v0", "ContextualBandit-v0", "Tokens-v0",
    ),
    "lqr_env:lqr_env": ("LQR-v0",),
}  # fmt: skip
NATIVE: Mapping[str, str] = {
    env_id: f"dodona.rl.native.{place}" for place, ids in _OF_THE_HOUSE.items() for env_id in ids
}
"""Environments of the house: id -> "module:factory"; factory(id, num_envs, *, seed, device, max_episode_steps)."""


@dataclass(frozen=True, eq=False)
class Step:
    """What one call of ``Env.step`` gives, [B] = num_envs in front; tensors of its own every time.

    obs: [B, ...] what to act on next; where an episode ended, the first observation of the next one,
        or, in environments that reset one call later, still the last one.
    next_obs: [B, ...] the true successor, before any reset.
    rewards: [B] float32, reward units of the environment.
    terminated: [B] bool, no future.
    truncated: [B] bool, cut from outside: there was a future. terminated wins.
    mask: [B] bool, False = a row that only resets. Never train on it, never count it.
    """

    obs: Shaped[Tensor, "B ..."]
    next_obs: Shaped[Tensor, "B ..."]
    rewards: Float[Tensor, "B"]
    terminated: Bool[Tensor, "B"]
    truncated: Bool[Tensor, "B"]
    mask: Bool[Tensor, "B"]

    @property
    def cut(self) -> Bool[Tensor, "B"]:
        """[B] where an episode ended, for either reason; never a row that only resets."""
        return (self.terminated | self.truncated) & self.mask


@runtime_checkable
class Env(Protocol):
    """num_envs copies of one environment; an episode that ends is followed by a new one by itself.

    id: for messages and reports.
    obs_shape, obs_dtype: of one observation: () and int64 for numbered states.
    num_states: observations are 0..num_states-1, or None.
    num_actions: actions are int64 [B] in 0..num_actions-1, or None.
    action_dim, action_low, action_high: actions are float32 [B, action_dim] within the bounds, or None.
    max_episode_steps: the time limit, None where there is none or it is not known.
    device: where observations and rewards are.
    """

    id: str
    num_envs: int
    obs_shape: tuple[int, ...]
    obs_dtype: torch.dtype
    num_states: int | None
    num_actions: int | None
    action_dim: int | None
    action_low: Tensor | None
    action_high: Tensor | None
    max_episode_steps: int | None
    device: torch.device

    def reset(self, *, seed: int | None = None) -> Tensor:
        """[B, ...] the first observations. With a seed everything begins anew, else new episodes do."""
        ...

    def step(self, actions: Tensor) -> Step: ...

    def state_dict(self) -> dict[str, Any]:
        """All that a continuation needs, in the middle of an episode too, or an InputError that says why not."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class GroupedEnv(Env, Protocol):
    """An environment whose rows can share a start state: what groups of episodes need."""

    def reset_groups(self, group_size: int, *, seed: int | None = None) -> Tensor:
        """As reset, but rows g * group_size .. (g + 1) * group_size - 1 begin in one state."""
        ...


def make_env(
    env_id: str,
    num_envs: int,
    *,
    seed: int,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    max_episode_steps: int | None = None,
) -> Env:
    """num_envs copies of a known environment.

    Args:
        env_id: "CartPole-v1" and the like; Gymnasium's form "module:Name-v0" imports the module first.
        num_envs: at least 1.
        seed: a whole number >= 0. What copy n does depends on (seed, n) and its actions, not on num_envs
            (Gymnasium's CartPole for many agrees with single ones to rounding; EnvPool has its own way
            with seeds; two backends draw different numbers).
        backend: "native" = the tasks of NATIVE, compiled: classic control by Gymnasium's equations, finite
            worlds (Gymnasium's and bsuite's among them), a regulator; "gymnasium"; "envpool"; "auto" = native
            where there is one, else Gymnasium.
        device: where observations and rewards are wanted.
        max_episode_steps: episodes are truncated there; None: the environment's own limit.
    Raises:
        InputError: unknown id (the nearest is named), spaces that no policy here can use, backend.
        MissingDependencyError: envpool, or what the environment itself needs.
    Source: see the module.
    Oracle: the environment itself, stepped alone (tests/rl/test_gymnasium_env.py, test_native.py, native/).
    Cost: native some 50 ns per row; else of the environment, and the adaptor adds some 30 microseconds per call.
    """
    check_count(num_envs=num_envs, max_episode_steps=max_episode_steps)
    check_count(0, seed=seed)
    check_choice(BACKENDS, backend=backend)
    if backend == "native" and env_id not in NATIVE:
        raise InputError(
            f"'{env_id}' is no native environment. {nearest(env_id, NATIVE)} Use backend='auto' or 'gymnasium'."
        )
    options = {"seed": seed, "device": device, "max_episode_steps": max_episode_steps}
    if backend in ("auto", "native") and env_id in NATIVE:
        module, factory = NATIVE[env_id].split(":")
        return getattr(import_module(module), factory)(env_id, num_envs, **options)
    from dodona.rl import _gymnasium_make

    if backend == "envpool":
        return _gymnasium_make.from_envpool(env_id, num_envs, **options)
    return _gymnasium_make.from_id(env_id, num_envs, **options)


def mdp_env(
    mdp: MDP,
    num_envs: int,
    *,
    seed: int,
    max_episode_steps: int | None = None,
    first_env: int = 0,
    device: torch.device | str = "cpu",
) -> GroupedEnv:
    """num_envs copies of a finite MDP; observations are state numbers, int64 [B].

        env = mdp_env(worlds.book_grid(), num_envs=256, seed=0, max_episode_steps=100)

    What row n does depends on (seed, n) and its actions only. A transition terminates where it enters a
    terminal state or has discount 0. The first state is drawn from the model's start distribution, or
    evenly among the live states without one.

    Args:
        num_envs: at least 1.
        seed: a whole number >= 0.
        max_episode_steps: episodes are truncated there; None: never.
        first_env: the number of row 0: the r-th of several processes takes r * num_envs, and all
            together are the same as one with all rows.
        device: where observations and rewards are wanted; the steps are taken on the host.
    Returns:
        An Env without wasted rows, with reset_groups, and ``feasible`` [S, A] bool, the actions of each state.
    Raises:
        InputError: counts, no live start state, transitions with discounts of their own (a learner knows
            one gamma, and 0 at an end).
    Source: see the module.
    Oracle: the model's own probabilities; the ring's closed forms (tests/rl/test_mdp_env.py).
    Cost: O(nnz) once; per step and row some 30 ns, and 20 microseconds per call.
    """
    from dodona.rl._mdp_env import MDPEnv

    return MDPEnv(
        mdp, num_envs, seed=seed, max_episode_steps=max_episode_steps, first_env=first_env, device=device
    )  # fmt: skip


def check_groups(env: Any, group_size: int) -> None:
    """The rows of an environment that counts them from first_env on fall into whole groups.

    Raises: InputError: group_size < 1; num_envs or first_env is no multiple of it.
    Source: ours.  Oracle: by hand.  Cost: O(1).
    """
    check_count(group_size=group_size)
    if env.num_envs % group_size or env.first_env % group_size:
        raise InputError(
            f"{env.num_envs} rows from row {env.first_env} on are no groups of {group_size}. Use multiples."
        )


def checked_actions(env: Env, actions: Any) -> np.ndarray:
    """The actions as a NumPy array on the host: int64 [B], or float32 [B, action_dim].

    Raises: TypeError: no tensor, another dtype.  ShapeError.  InputError: outside the bounds (the
    environment's index is named).  NonFiniteError.
    Source: ours.  Oracle: the space's own ``contains``.  Cost: O(B), waits for the device.
    """
    discrete = env.num_actions is not None
    dtype = torch.int64 if discrete else torch.float32
    if not isinstance(actions, Tensor) or actions.dtype != dtype:
        got = actions.dtype if isinstance(actions, Tensor) else type(actions).__name__
        raise TypeError(
            f"actions of {env.id} must be a tensor of {dtype}, got {got}. Use torch.as_tensor(actions, "
            f"dtype={dtype})."
        )
    expected = (env.num_envs,) if discrete else (env.num_envs, env.action_dim)
    if tuple(actions.shape) != expected:
        raise ShapeError(
            f"actions of {env.id} have shape {tuple(actions.shape)}, expected {expected}: one for each of "
            f"{env.num_envs} environments."
        )
    array = actions.detach().numpy(force=True)
    if discrete:
        if array.min() < 0 or array.max() >= env.num_actions:
            n = int(np.argmax((array < 0) | (array >= env.num_actions)))
            raise InputError(
                f"the action of environment {n} is {array[n]}, those of {env.id} are 0..{env.num_actions - 1}."
            )
        return array
    low, high = env.action_low.numpy(force=True), env.action_high.numpy(force=True)
    good = (array >= low) & (array <= high) & np.isfinite(array)
    if not good.all():
        n, i = (int(x) for x in np.argwhere(~good)[0])
        if not np.isfinite(array[n, i]):
            raise NonFiniteError(
                f"action[{i}] of environment {n} is {array[n, i]}. Look at the policy that made it."
            )
        raise InputError(
            f"action[{i}] of environment {n} is {array[n, i]:g}, expected within [{low[i]:g}, {high[i]:g}]. "
            "Clip what the policy sampled: actions.clamp(env.action_low, env.action_high)."
        )
    return array
