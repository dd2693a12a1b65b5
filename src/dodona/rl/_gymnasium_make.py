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
NAMESPACES = {"ALE": "ale_py"}
"""Namespace of ids -> the package that registers them when it is imported."""
INSTALLS = {
    "box2d": "pip install 'gymnasium[box2d]'",
    "mujoco-py": "pip install gymnasium-robotics",
    "gymnasium-robotics": "pip install gymnasium-robotics",
    "mujoco": "pip install 'gymnasium[mujoco]'",
    "ale_py": "pip install 'gymnasium[atari]'",
    "pygame": "pip install 'gymnasium[classic-control]'",
}
"""Word in an error -> what installs what it misses; the first that fits."""
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

    namespace = env_id.rpartition(":")[2].partition("/")[0]
    if namespace in NAMESPACES and not any(
        x.startswith(f"{namespace}/") for x in gymnasium.registry
    ):
        _register(env_id, NAMESPACES[namespace])
    try:
        return GymnasiumEnv([make] * num_envs, seed=seed, device=device, id=env_id)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise MissingDependencyError(_missing(env_id, error)) from None
    except gymnasium.error.Error as error:
        hint = nearest(env_id, gymnasium.registry)
        hint = hint if hint.startswith("Did") else "gymnasium.pprint_registry() lists all."
        raise InputError(
            f"Gymnasium has no environment '{env_id}' ({type(error).__name__}). {hint}"
        ) from None


def _register(env_id: str, package: str) -> None:
    """Import the package that registers a namespace of ids."""
    try:
        gymnasium.register_envs(import_module(package))
    except ImportError as error:
        raise MissingDependencyError(_missing(env_id, error)) from None


def _missing(env_id: str, error: Exception) -> str:
    """What to install; Gymnasium says so itself for most."""
    said = " ".join(str(error).split()).rstrip(".")
    fits = (line for name, line in INSTALLS.items() if name.lower() in said.lower())
    line = None if "pip install" in said else next(fits, None)
    return f"the environment '{env_id}' can not be made: {said}." + (
        f" Run: {line}" if line else ""
    )


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
