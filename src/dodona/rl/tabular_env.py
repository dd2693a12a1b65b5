"""A Gymnasium environment with discrete spaces, its observations numbered; with or without a table of its own.

    env = TabularEnv("Blackjack-v1")
    QLearning(env.num_states, env.num_actions, gamma=1.0).learn(env, num_steps=500_000, seed=0)

Observations of Discrete, MultiDiscrete, MultiBinary, Tuple and Dict spaces become one number each, in
mixed radix, last part fastest. The environment is stepped as it is, wrappers included; where it has a table and
nothing else matters, MDP.from_gymnasium learns a hundred times faster.

Not here: vector environments and observations made of real numbers.
Source: Gymnasium's spaces.
"""

from typing import Any

import numpy as np

from dodona.errors import InputError
from dodona.mdp.formats.gymnasium_table import open_environment

MANY = 10**8  # states; a table of them is no longer a table


class TabularEnv:
    """One environment as states 0..num_states-1 and actions 0..num_actions-1.

    Args: env: a gymnasium.Env, or an id such as "Taxi-v4".
    Raises: InputError: a space that is not finite (what to do is named), or a vector environment.
    Source: see the module.  Oracle: MDP.from_gymnasium where there is a table.

    >>> TabularEnv("Blackjack-v1").num_states
    704
    """

    def __init__(self, env: Any):
        self.env = open_environment(env) if isinstance(env, str) else env
        if hasattr(self.env, "num_envs"):
            raise InputError(
                f"a vector environment of {self.env.num_envs} was given; tabular learners step one. Pass the "
                "single environment, or learn from an MDP with num_runs."
            )
        name = getattr(getattr(self.env, "spec", None), "id", type(self.env).__name__)
        self.sizes = _sizes(self.env.observation_space, f"observations of {name}")
        self.num_states = int(np.prod(self.sizes, dtype=object))
        if self.num_states > MANY:
            raise InputError(
                f"{name} has {self.num_states:.3g} states, more than a table can hold ({MANY})."
            )
        space = self.env.action_space
        if type(space).__name__ != "Discrete":
            raise InputError(
                f"actions of {name} are {space}; tabular learners choose among Discrete(n). For others use "
                "rl.ppo or rl.actor_critic."
            )
        self.num_actions, self._first_action = int(space.n), int(space.start)
        space = self.env.observation_space
        self._first_state = int(space.start) if type(space).__name__ == "Discrete" else None
        self._step = self.env.step

    @property
    def plain(self) -> Any:
        """``env.step`` itself, where states and actions are numbers from 0 on as they are; else None."""
        return self._step if self._first_state == 0 and self._first_action == 0 else None

    def reset(self, *, seed: int | None = None) -> int:
        """Begin an episode; the number of its first state."""
        return self.number(self.env.reset(seed=seed)[0])

    def step(self, action: int) -> tuple[int, float, bool, bool]:
        """(next state, reward, terminated, truncated); after either flag the caller resets."""
        found = self._step(self._first_action + action)
        try:
            state, reward, terminated, truncated, _ = found
        except ValueError:
            raise InputError(
                f"env.step returned {len(found)} values, expected obs, reward, terminated, truncated, info. "
                "An old Gym environment merges the flags into 'done'; wrap it with Gymnasium's API."
            ) from None
        if self._first_state is None:
            state = self.number(state)
        elif self._first_state:
            state -= self._first_state
        return int(state), float(reward), bool(terminated), bool(truncated)

    def number(self, observation: Any) -> int:
        """The state of an observation."""
        total = 0
        for part, size in zip(
            _parts(self.env.observation_space, observation), self.sizes, strict=True
        ):
            total = total * size + part
        return total


def _sizes(space: Any, where: str) -> list[int]:
    kind = type(space).__name__
    if kind == "Discrete":
        return [int(space.n)]
    if kind == "MultiDiscrete":
        return [int(n) for n in np.ravel(space.nvec)]
    if kind == "MultiBinary":
        return [2] * int(np.prod(space.shape))
    if kind == "Tuple":
        return [n for part in space.spaces for n in _sizes(part, where)]
    if kind == "Dict":
        return [n for part in space.spaces.values() for n in _sizes(part, where)]
    raise InputError(
        f"{where} are {space}, which no table can number: tabular learners need Discrete, MultiDiscrete or "
        "a Tuple of such. Discretise them with a gymnasium ObservationWrapper, or learn with features."
    )


def _parts(space: Any, observation: Any) -> list[int]:
    kind = type(space).__name__
    if kind == "Discrete":
        return [int(observation) - int(space.start)]
    if kind == "MultiDiscrete":
        return [int(x) for x in np.ravel(observation) - np.ravel(space.start)]
    if kind == "MultiBinary":
        return [int(x) for x in np.ravel(observation)]
    if kind == "Tuple":
        return [
            n for part, x in zip(space.spaces, observation, strict=True) for n in _parts(part, x)
        ]
    return [n for key, part in space.spaces.items() for n in _parts(part, observation[key])]
