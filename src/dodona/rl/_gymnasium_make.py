"""Gymnasium's and EnvPool's environments by their ids.

Not here: what is made of them (gymnasium_env.py).

Source: Gymnasium 1.x (Farama Foundation); Weng et al. 2022, arXiv:2206.10558 (EnvPool).
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from dodona.errors import InputError, MissingDependencyError, nearest
from dodona.rl._gymnasium_rows import CartPoleRows
from dodona.rl.gymnasium_env import GymnasiumEnv

CARTPOLE = ("CartPole-v0", "CartPole-v1")
MANY = 8  # rows from which CartPole's vector version is faster than single ones


def from_id(
    env_id: str,
    num_envs: int,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    max_episode_steps: int | None = None,
) -> GymnasiumEnv:
    """As make_env(backend="gymnasium")."""
    if env_id in CARTPOLE and num_envs >= MANY:
        limit = max_episode_steps or gymnasium.spec(env_id).max_episode_steps
        source: Any = CartPoleRows(num_envs, max_episode_steps=limit)
        return GymnasiumEnv(source, seed=seed, device=device, id=env_id)

    def make() -> Any:
        # its checker looks for what is checked here, at every step and not at the first only
        return gymnasium.make(env_id, max_episode_steps=max_episode_steps, disable_env_checker=True)

    try:
        return GymnasiumEnv([make] * num_envs, seed=seed, device=device, id=env_id)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise InputError(f"the environment '{env_id}' can not be made: {error}") from None
    except gymnasium.error.Error as error:
        hint = nearest(env_id, gymnasium.registry)
        hint = hint if hint.startswith("Did") else "gymnasium.pprint_registry() lists all."
        raise InputError(
            f"Gymnasium has no environment '{env_id}' ({type(error).__name__}). {hint}"
        ) from None


def from_envpool(
    env_id: str,
    num_envs: int,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    max_episode_steps: int | None = None,
) -> GymnasiumEnv:
    """As make_env(backend="envpool")."""
    try:
        package = import_module("envpool")
    except ImportError:
        raise MissingDependencyError(
            "backend='envpool' needs the package envpool, which is not installed. Run: pip install envpool, "
            "or use backend='gymnasium'."
        ) from None
    if env_id not in package.list_all_envs():
        raise InputError(
            f"EnvPool has no environment '{env_id}'. {nearest(env_id, package.list_all_envs())}"
        )
    options = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}

    def make(seed: int) -> Any:
        return package.make_gymnasium(env_id, num_envs=num_envs, seed=seed % 2**31, **options)

    return GymnasiumEnv(_Pool(make, seed), seed=seed, device=device, id=env_id)


class _Pool:
    """An EnvPool takes its seed when it is made, so another seed is another pool."""

    def __init__(self, make: Callable[[int], Any], seed: int):
        self._make, self._pool, self._used = make, make(seed), False
        self._seed = seed
        self.num_envs: int = self._pool.config["num_envs"]
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = self._pool.observation_space
        self.single_action_space = self._pool.action_space
        self.max_episode_steps = self._pool.config.get("max_episode_steps")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None and (self._used or seed != self._seed):
            self._pool, self._seed = self._make(seed), seed
        self._used = True
        return self._pool.reset()

    def step(self, actions: np.ndarray) -> tuple:
        return self._pool.step(actions)

    def close(self) -> None:
        self._pool.close()
