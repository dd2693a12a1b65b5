"""Seconds until CartPole stands, for everybody alike: now and then 20 greedy episodes with the clock stopped.

Reached when their mean is at or above 475, confirmed by 100 episodes; one that never arrives takes forever.
"""

import time
from collections.abc import Callable

import numpy as np

POLE, BAR = "CartPole-v1", 475.0


class Clock:
    """Seconds of training: stopped while the policy is judged."""

    def __init__(self) -> None:
        self.begun, self.judging = time.perf_counter(), 0.0

    def seconds(self) -> float:
        return time.perf_counter() - self.begun - self.judging

    def arrived(self, act: Callable[[np.ndarray], np.ndarray], number: int) -> bool:
        begun = time.perf_counter()
        good = mean_return(act, 20, number) >= BAR and mean_return(act, 100, number + 1) >= BAR
        self.judging += time.perf_counter() - begun
        return good


def mean_return(act: Callable[[np.ndarray], np.ndarray], num_episodes: int, seed: int) -> float:
    """Of episodes side by side in Gymnasium's own environment, each counted until its end."""
    import gymnasium

    envs = gymnasium.make_vec(POLE, num_episodes, vectorization_mode="vector_entry_point")
    obs, _ = envs.reset(seed=seed)
    returns, running = np.zeros(num_episodes), np.ones(num_episodes, dtype=bool)
    while running.any():
        obs, rewards, terminated, truncated, _ = envs.step(act(obs))
        returns += rewards * running
        running &= ~(terminated | truncated)
    return float(returns.mean())
