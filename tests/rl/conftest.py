"""An environment whose every episode is written down beforehand, for tests of what happens at its ends."""

from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

START = 1e6  # an observation that must never be taken for a successor


class Scripted(gymnasium.Env):
    """Episodes (length, kind), one after another; observation [episode, step], [episode, START] at a reset."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, script: Sequence[tuple[int, str]]):
        self.script, self.episode, self.t = script, -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.episode, START], dtype=np.float32), {}

    def step(self, action):
        length, kind = self.script[self.episode % len(self.script)]
        self.t += 1
        over = self.t >= length
        flags = (over and kind != "truncated", over and kind != "terminated")
        obs = np.array([self.episode, self.t], dtype=np.float32)
        return obs, 100.0 * self.episode + self.t + 0.5 * int(action), *flags, {}


@pytest.fixture
def scripted():
    return Scripted
