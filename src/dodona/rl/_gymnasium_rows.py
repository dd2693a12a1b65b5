"""Vector environments that reset exactly the rows they are told to, each episode from a seed of its own.

Two of them: single Gymnasium environments stepped one after another, and CartPole's NumPy version. Both
speak Gymnasium's vector interface in its mode DISABLED, and waste no row on a reset. Because an episode
begins from a seed, it can be told again: that is how gymnasium_env.py saves an environment in mid-episode.

Not here: tensors, checks and the record of a step (gymnasium_env.py).

Source: Gymnasium 1.x, vector environments and AutoresetMode (Farama Foundation).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode

from dodona.core.rng import counter_uniform
from dodona.errors import InputError

SEEDS = 2**31  # what every environment accepts; NumPy takes more, C++ simulators do not
NOISE = 1  # the stream of a row whose start came from another row's seed


def episode_seeds(seed: int, rows: np.ndarray, episodes: np.ndarray, *keys: int) -> list[int]:
    """The seed of an episode: a function of the seed of all, its row, and how many the row had before.

    Source: core.rng.  Oracle: core.rng.counter_uniform.  Cost: O(rows).
    """
    return (counter_uniform(seed, rows, episodes, *keys) * SEEDS).astype(np.int64).tolist()


class SingleRows:
    """Single environments as one; row n is factories[n]()."""

    def __init__(self, factories: Sequence[Callable[[], Any]]):
        self.envs = [make() for make in factories]
        self.num_envs = len(self.envs)
        if len({id(env) for env in self.envs}) < max(self.num_envs, 1):
            raise InputError(
                f"{self.num_envs} factories made {len({id(env) for env in self.envs})} environments; each must "
                "make its own, and there must be one at least. Write [lambda: gymnasium.make(...)] * num_envs."
            )
        first = self.envs[0]
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.spec = getattr(first, "spec", None)
        self.single_observation_space = first.observation_space
        self.single_action_space = first.action_space
        for n, env in enumerate(self.envs):
            for name in ("observation_space", "action_space"):
                if getattr(env, name) != getattr(first, name):
                    raise InputError(
                        f"environment {n} has {name} {getattr(env, name)}, environment 0 has "
                        f"{getattr(first, name)}: one batch needs one space."
                    )
        space = self.single_observation_space
        shape = space.shape or ()  # composite spaces have none; the adaptor refuses them
        self._obs = np.zeros((self.num_envs, *shape), dtype=space.dtype)

    def reset(
        self, *, seed: list[int], options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the rows of options["reset_mask"] (all without one) from their seeds."""
        mask = None if options is None else options["reset_mask"]
        for n in range(self.num_envs) if mask is None else np.flatnonzero(mask):
            self._obs[n] = self.envs[n].reset(seed=seed[n])[0]
        return self._obs, {}

    def step(self, actions: np.ndarray) -> tuple:
        rewards = np.empty(self.num_envs)
        terminated = np.empty(self.num_envs, dtype=bool)
        truncated = np.empty(self.num_envs, dtype=bool)
        for n, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            found = env.step(action)
            if len(found) != 5:
                return found  # the adaptor says what is wrong with it
            self._obs[n], rewards[n], terminated[n], truncated[n], _ = found
        return self._obs, rewards, terminated, truncated, {}

    def reseed_noise(self, seeds: list[int], rows: np.ndarray) -> None:
        """Go on from here with other random numbers: for rows that began from another row's seed."""
        for n in rows:
            self.envs[n].unwrapped.np_random = np.random.Generator(np.random.PCG64(seeds[n]))

    def close(self) -> None:
        for env in self.envs:
            env.close()


class CartPoleRows(CartPoleVectorEnv):
    """CartPole's vector version with resets by mask; starts are those of the single environment.

    Its own reset costs a row after every episode and draws for all rows from one stream.
    """

    metadata = {**CartPoleVectorEnv.metadata, "autoreset_mode": AutoresetMode.DISABLED}

    def reset(
        self, *, seed: list[int], options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the rows of options["reset_mask"] (all without one) from their seeds."""
        if self.state is None or options is None:
            super().reset(seed=0)
        rows = range(self.num_envs) if options is None else np.flatnonzero(options["reset_mask"])
        for n in rows:
            draw = np.random.Generator(np.random.PCG64(seed[n]))
            self.state[:, n] = draw.uniform(low=self.low, high=self.high, size=4)
            self.steps[n] = 0
            self.prev_done[n] = False
        return self.state.T.astype(np.float32), {}

    def reseed_noise(self, seeds: list[int], rows: np.ndarray) -> None:
        """Nothing to do: its steps are not random."""
