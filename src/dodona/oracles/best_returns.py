"""The best possible return of two classic control tasks, by dynamic programming over a fine grid.

    V_H = 0,   V_t(x) = max_a [ r(x, a) + V_{t+1}(x') ],   V between grid points bilinear, 0 after the end

Then whoever looks one step ahead by these values plays the true dynamics from the published starts: the mean is
the return of an actual policy, so it bounds what is possible from below, and learners from above as far as the
grid is fine. It knows the time left, which no learner does. A yardstick for tasks that have none: Pendulum-v1 has no threshold.

Source: Bellman 1957; Davies 1997, NIPS 9 (values between grid points); Gymnasium 1.x, envs/classic_control (dynamics,
starts, limits).  Not here: learners, their networks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Step = Callable[
    [np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
]
"""(position, speed, action) -> (position, speed, reward, ended), arrays throughout."""


@dataclass(frozen=True)
class BestReturn:
    """What is possible.

    mean, standard_error: of the returns of num_episodes episodes.
    predicted: what the grid's own values promise for the same starts; the gap is the error of the grid.
    """

    mean: float
    standard_error: float
    predicted: float
    num_episodes: int


def pendulum(
    num_angles: int = 401, num_speeds: int = 401, num_torques: int = 41, *, num_episodes: int = 10_000, seed: int = 0
) -> BestReturn:  # fmt: skip
    """Pendulum-v1: 200 steps, starts (angle, speed) even in [-pi, pi] x [-1, 1].

    As it stands: -137.86, standard error .74 (of the starts), predicted -137.99.

    Args: num_angles, num_speeds: points of the grid, around the circle and over [-8, 8].  num_torques: over
        [-2, 2], an odd number has 0 among them.
    Raises: ValueError: fewer than 3 points or torques.
    Source: see the module.  Independent of: learners, compiled kernels; the dynamics are written anew.
    Cost: 200 num_angles num_speeds num_torques interpolations, and as many values in memory as grid points
        times 200 in single precision.
    """
    angles = np.linspace(-np.pi, np.pi, num_angles)  # both ends, which are one
    speeds, torques = np.linspace(-8.0, 8.0, num_speeds), np.linspace(-2.0, 2.0, num_torques)
    rng = np.random.default_rng(seed)
    starts = rng.uniform(-np.pi, np.pi, num_episodes), rng.uniform(-1.0, 1.0, num_episodes)
    return _best(_swing, angles, speeds, torques, 200, starts)


def mountain_car(
    num_positions: int = 601, num_speeds: int = 601, *, num_episodes: int = 10_000, seed: int = 0
) -> BestReturn:
    """MountainCar-v0: at most 200 steps of -1, starts even in [-.6, -.4], at rest.

    As it stands: -97.68, standard error .07, predicted -97.88.

    Args: num_positions, num_speeds: points of the grid over [-1.2, .6] and [-.07, .07].
    Raises, Source, Independent of, Cost: as pendulum, with three actions.
    """
    positions, speeds = np.linspace(-1.2, 0.6, num_positions), np.linspace(-0.07, 0.07, num_speeds)
    starts = np.random.default_rng(seed).uniform(-0.6, -0.4, num_episodes), np.zeros(num_episodes)
    return _best(_climb, positions, speeds, np.array([-1.0, 0.0, 1.0]), 200, starts)


# ---------------------------------------------------------------------- private
def _swing(
    theta: np.ndarray, omega: np.ndarray, torque: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Angles in [-pi, pi]; the cost is of the state that was left."""
    reward = -(theta**2 + 0.1 * omega**2 + 0.001 * torque**2)
    omega = np.clip(omega + (15.0 * np.sin(theta) + 3.0 * torque) * 0.05, -8.0, 8.0)
    theta = np.mod(theta + 0.05 * omega + np.pi, 2 * np.pi) - np.pi
    return theta, omega, reward, np.zeros(theta.shape, dtype=bool)


def _climb(
    position: np.ndarray, speed: np.ndarray, push: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    speed = np.clip(speed + 0.001 * push - 0.0025 * np.cos(3 * position), -0.07, 0.07)
    position = np.clip(position + speed, -1.2, 0.6)
    speed = np.where((position == -1.2) & (speed < 0), 0.0, speed)
    return position, speed, np.full(position.shape, -1.0), (position >= 0.5) & (speed >= 0)


class _Between:
    """Where points lie on a grid: four corners and their weights."""

    def __init__(
        self, xs: np.ndarray, ys: np.ndarray, x: np.ndarray, y: np.ndarray, live: np.ndarray
    ):
        place = []
        for grid, at in ((xs, x), (ys, y)):
            share = (at - grid[0]) / (grid[1] - grid[0])
            below = np.clip(share.astype(np.int64), 0, len(grid) - 2)
            place.append((below, share - below))
        (i, a), (j, b) = place
        self.at = (i * len(ys) + j).astype(np.int32)
        self.width, self.live = len(ys), live.astype(np.float32)
        self.right, self.up = a.astype(np.float32), b.astype(np.float32)

    def values(self, flat: np.ndarray) -> np.ndarray:
        low = flat[self.at] + self.up * (flat[self.at + 1] - flat[self.at])
        above = self.at + self.width
        high = flat[above] + self.up * (flat[above + 1] - flat[above])
        return self.live * (low + self.right * (high - low))


def _best(
    step: Step, xs: np.ndarray, ys: np.ndarray, actions: np.ndarray, horizon: int,
    starts: tuple[np.ndarray, np.ndarray],
) -> BestReturn:  # fmt: skip
    if min(len(xs), len(ys), len(actions)) < 3:
        raise ValueError(f"the grid is {len(xs)} x {len(ys)} with {len(actions)} actions, expected 3 of each or more.")  # fmt: skip
    x, y = (g.ravel() for g in np.meshgrid(xs, ys, indexing="ij"))
    ahead = []
    for action in actions:
        *successor, reward, ended = step(x, y, float(action))
        ahead.append((_Between(xs, ys, *successor, ~ended), reward.astype(np.float32)))
    values = np.zeros((horizon + 1, len(x)), dtype=np.float32)
    for t in reversed(range(horizon)):
        best = values[t]
        best[:] = -np.inf
        for between, reward in ahead:
            np.maximum(best, reward + between.values(values[t + 1]), out=best)
    x, y = starts
    live = np.ones(len(x), dtype=bool)
    predicted = _Between(xs, ys, x, y, live).values(values[0]).mean()
    returns = np.zeros(len(x))
    for t in range(horizon):
        tried = [step(x, y, float(action)) for action in actions]
        worth = [r + _Between(xs, ys, a, b, ~over).values(values[t + 1]) for a, b, r, over in tried]
        choice, every = np.argmax(worth, axis=0), np.arange(len(x))
        x, y, reward, ended = (
            np.array(column)[choice, every] for column in zip(*tried, strict=True)
        )
        returns += np.where(live, reward, 0.0)
        live &= ~ended
    return BestReturn(
        float(returns.mean()), float(returns.std(ddof=1) / len(x) ** 0.5), float(predicted), len(x)
    )
