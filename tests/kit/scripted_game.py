"""A game of which every frame is known, with lives and buttons, for tests of what Atari games are wrapped in."""

from types import SimpleNamespace

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

H, W = 210, 160


class Game(gymnasium.Env):
    """``length`` frames; a life is lost at every frame in ``losses``. Frame t is t everywhere, but for a sprite
    that shows in odd frames only. Rewards are t / 10, negative for action 2. Everything is written down."""

    def __init__(
        self, length=40, losses=(), lives=3, meanings=("NOOP", "FIRE", "RIGHT"), shape=(H, W, 3)
    ):
        self.length, self.losses, self.first, self.shape = length, losses, lives, shape
        self.meanings = meanings
        self.observation_space = Box(0, 255, shape, np.uint8)
        self.action_space = Discrete(len(meanings))
        self.ale = SimpleNamespace(lives=lambda: self.left)
        self.log, self.seeds, self._frameskip = [], [], 1

    def get_action_meanings(self):
        return list(self.meanings)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.left = 0, self.first
        self.log.append("reset")
        self.seeds.append(seed)
        return self.frame(), {}

    def step(self, action):
        self.t += 1
        self.log.append(int(action))
        self.left -= self.t in self.losses
        over = self.t >= self.length or self.left == 0
        return self.frame(), (-1.0 if action == 2 else 1.0) * self.t / 10, over, False, {}

    def frame(self):
        frame = np.full(self.shape, self.t, np.uint8)
        if self.t % 2:
            frame[:10, :10] = 255
        return frame
