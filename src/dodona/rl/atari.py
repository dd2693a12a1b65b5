"""What Atari games go through before an agent sees them, one wrapper per habit, and all of them at once.

    env = GymnasiumEnv([lambda: wrap_atari(gymnasium.make("ALE/Pong-v5", frameskip=1))] * 8, seed=0)

Outermost last: 1 to 30 idle frames at a start; every action four times, the maximum of the last two frames;
a lost life ends the episode, not the game; FIRE where a game waits for it; 84 x 84 grey; the sign of the
reward; four frames as channels. They read Gymnasium's interface, ``unwrapped.ale.lives()`` and
``unwrapped.get_action_meanings()``, and need neither OpenCV nor the games themselves.

What is trained on is not what is reported: for scores in points, a second environment with episodic_life and
sign_rewards off.

Source: Mnih et al. 2015, Nature 518:529, "Methods"; Machado et al. 2018, arXiv:1709.06009; Huang et al. 2022,
"The 37 implementation details of PPO", Atari details 1 to 7. Not here: the network (policies.cnn).
"""

from collections import deque
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import FrameStackObservation
from jaxtyping import UInt8

from dodona.core.inputs import check_count
from dodona.errors import InputError

__all__ = ["wrap_atari"]

GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601 luma
NOOP = 0
Stepped = tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]


def wrap_atari(
    env: gymnasium.Env,
    *,
    noop_max: int = 30,
    skip: int = 4,
    episodic_life: bool = True,
    fire_reset: bool = True,
    size: int | None = 84,
    sign_rewards: bool = True,
    stack: int = 4,
) -> gymnasium.Env:
    """One game with the habits of the Atari agents.

    Args:
        env: one that does not skip frames itself (frameskip=1).
        noop_max: most idle frames at a start, at least one; 0: none.
        skip: frames per action; the last two are merged by their maximum. 1: every frame is seen.
        episodic_life: a lost life terminates.
        fire_reset: FIRE is pressed at every start, in games that have it.
        size: side of the grey image, pixels; None: frames stay as they are.
        sign_rewards: -1, 0 or 1 for rewards.
        stack: frames in an observation, [stack, ...]; at a start the first is repeated.
    Returns: an environment with observations uint8 [stack, size, size].
    Raises: InputError: a count; frames that are skipped already; no images; idle frames without NOOP.
    Source: see the module.
    Oracle: a scripted game, frame by frame (tests/rl/test_atari.py).
    Cost: some 150 microseconds per step beyond the game's own, most of it the image.
    """
    check_count(0, noop_max=noop_max)
    check_count(skip=skip, size=size, stack=stack)
    skipped = getattr(env.unwrapped, "_frameskip", 1)
    if skip > 1 and skipped != 1:
        raise InputError(
            f"this game skips frames by itself (frameskip {skipped}), and skip={skip} would skip "
            "again. Make it with frameskip=1."
        )
    if noop_max:
        env = NoopReset(env, noop_max)
    if skip > 1:
        env = MaxAndSkip(env, skip)
    if episodic_life:
        env = EpisodicLife(env)
    if fire_reset and "FIRE" in _meanings(env):
        env = FireReset(env)
    if size is not None:
        env = GreySquare(env, size)
    if sign_rewards:
        env = SignReward(env)
    return FrameStackObservation(env, stack)


class NoopReset(gymnasium.Wrapper):
    """Between 1 and ``most`` idle frames after every reset, so that starts differ.

    Source: Mnih et al. 2015.  Oracle: a scripted game (tests).
    """

    def __init__(self, env: gymnasium.Env, most: int = 30):
        super().__init__(env)
        if _meanings(env)[NOOP] != "NOOP":
            raise InputError(
                f"action 0 of this game is {_meanings(env)[NOOP]}, and idle frames need NOOP there. Use "
                "noop_max=0."
            )
        self.most = most

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict]:
        obs, info = self.env.reset(seed=seed, options=options)
        # the game's own generator: its seed decides this too
        for _ in range(int(self.unwrapped.np_random.integers(1, self.most + 1))):
            obs, _, terminated, truncated, info = self.env.step(NOOP)
            if terminated or truncated:
                obs, info = self.env.reset(options=options)
        return obs, info


class MaxAndSkip(gymnasium.Wrapper):
    """The action ``skip`` times: rewards add up, and what is seen is the maximum of the last two frames.

    Sprites that are drawn in every second frame only would else be missed.
    Source: Mnih et al. 2015.  Oracle: a scripted game (tests).
    """

    def __init__(self, env: gymnasium.Env, skip: int = 4):
        super().__init__(env)
        self.skip = skip

    def step(self, action: Any) -> Stepped:
        total, frames = 0.0, deque(maxlen=2)
        terminated, truncated, info = False, False, {}
        for _ in range(self.skip):
            obs, reward, terminated, truncated, info = self.env.step(action)
            frames.append(obs)
            total += float(reward)
            if terminated or truncated:
                break
        return np.maximum(frames[0], frames[-1]), total, terminated, truncated, info


class EpisodicLife(gymnasium.Wrapper):
    """A lost life terminates; the reset after it goes on with the same game, one idle frame later.

    Only after the last life, or in mid-life where somebody wants to begin anew, is the game itself reset. So
    an episode may depend on more than its seed, and a run on such an environment can not be resumed in mid-game.

    Source: Mnih et al. 2015; against it Machado et al. 2018, sec. 4.1.  Oracle: a scripted game (tests).
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self.lives, self.goes_on = 0, False

    def step(self, action: Any) -> Stepped:
        obs, reward, terminated, truncated, info = self.env.step(action)
        lives = int(self.unwrapped.ale.lives())  # type: ignore[attr-defined]
        # some games show 0 lives for a while before they are over
        self.goes_on = 0 < lives < self.lives and not (terminated or truncated)
        self.lives = lives
        return obs, reward, terminated or self.goes_on, truncated, info

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict]:
        over = not self.goes_on
        if self.goes_on:
            obs, _, terminated, truncated, info = self.env.step(NOOP)
            over = terminated or truncated
        if over:
            obs, info = self.env.reset(seed=seed, options=options)
        self.lives, self.goes_on = int(self.unwrapped.ale.lives()), False  # type: ignore[attr-defined]
        return obs, info


class FireReset(gymnasium.Wrapper):
    """FIRE once after every reset: some games wait for it for ever.

    Source: OpenAI Baselines, atari_wrappers.  Oracle: a scripted game (tests).
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self.fire = _meanings(env).index("FIRE")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict]:
        self.env.reset(seed=seed, options=options)
        obs, _, terminated, truncated, info = self.env.step(self.fire)
        if terminated or truncated:
            obs, info = self.env.reset(options=options)
        return obs, info


class GreySquare(gymnasium.ObservationWrapper):
    """Frames [H, W, 3] or [H, W] -> uint8 [size, size]: grey, then the mean over the area of each new pixel.

    Source: Mnih et al. 2015 (84); area averages as in the agents' own code.
    Oracle: every pixel by its definition (tests).
    """

    def __init__(self, env: gymnasium.Env, size: int = 84):
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
            raise InputError(
                f"observations are {space}, expected frames of bytes, [H, W, 3] or [H, W]. Use size=None for "
                "an environment without images."
            )
        self.observation_space = Box(0, 255, (size, size), np.uint8)
        self.rows, self.columns = shares(space.shape[0], size), shares(space.shape[1], size).T

    def observation(self, observation: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "S S"]:
        grey = observation.astype(np.float32)
        if grey.ndim == 3:
            grey = np.rint(grey @ GREY)
        # half a unit up, then down: the nearest byte
        return (self.rows @ grey @ self.columns + 0.5).astype(np.uint8)


class SignReward(gymnasium.RewardWrapper):
    """-1, 0 or 1: one learning rate for games of all scores.  Source: Mnih et al. 2015.  Oracle: tests."""

    def reward(self, reward: SupportsFloat) -> float:
        return float(np.sign(float(reward)))


def shares(old: int, new: int) -> np.ndarray:
    """[new, old] float32: how much of each old pixel lies under each new one; rows sum to 1.

    Source: definition of an area average.  Oracle: by hand (tests).
    """
    width = old / new
    begin = np.arange(new)[:, None] * width
    pixel = np.arange(old)[None, :]
    covered = np.minimum(begin + width, pixel + 1.0) - np.maximum(begin, pixel)
    return (np.clip(covered, 0.0, None) / width).astype(np.float32)


def _meanings(env: gymnasium.Env) -> list[str]:
    found = getattr(env.unwrapped, "get_action_meanings", None)
    return list(found()) if found is not None else [""]
