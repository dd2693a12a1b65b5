"""Noise on top of a deterministic action, so that something new is tried.

    gaussian   e ~ N(0, std^2), fresh at every step
    ou         dx = - theta x dt + std dW, 0 where an episode begins: neighbours in time push the same way

In units of half the range of the actions. The Ornstein-Uhlenbeck process is stepped by its exact law,
x' = k x + std sqrt((1 - k^2) / (2 theta)) n with k = exp(-theta dt), so that ``dt`` is only how finely it is
looked at: its deviation in the long run is std / sqrt(2 theta), and it forgets in 1 / (theta dt) steps.

Source: Uhlenbeck & Ornstein 1930; Lillicrap et al., arXiv:1509.02971, sec. 7; Fujimoto et al., arXiv:1802.09477.
Not here: noise in the targets (ddpg.py).
"""

import math
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from dodona.core.inputs import check_choice, check_count, check_range

NoiseKind = Literal["gaussian", "ou", "none"]
NOISES = ("gaussian", "ou", "none")


class ActionNoise:
    """The noise of num_envs rows of environments.

    Args:
        kind: "gaussian" (TD3), "ou" (DDPG), "none".
        std: in [0, 2], units of half the range; more than the whole range is no exploration.
        theta: pull to 0 per unit of time, > 0; 0.15 in DDPG.
        dt: time of a step, > 0.
    Raises: InputError: out of range.
    Source: see the module.  Oracle: the process's covariance, std^2 k^|i-j| / (2 theta) (tests).
    Cost: O(num_envs action_dim) per step.
    """

    def __init__(
        self, num_envs: int, action_dim: int, *, kind: NoiseKind = "gaussian", std: float = 0.1,
        theta: float = 0.15, dt: float = 0.01,
    ):  # fmt: skip
        check_choice(NOISES, kind=kind)
        check_count(num_envs=num_envs, action_dim=action_dim)
        check_range("[0, 2]", "It is in units of half the range of the actions.", std=std)
        check_range("(0, inf)", theta=theta, dt=dt)
        self.kind, self.std = kind, float(std)
        self.keep = math.exp(-theta * dt)
        self.kick = std * math.sqrt((1.0 - self.keep**2) / (2.0 * theta))
        self.x = np.zeros((num_envs, action_dim))

    def draw(self, rng: np.random.Generator) -> Float[np.ndarray, "B A"]:
        """The noise of the next step."""
        if self.kind == "none":
            return np.zeros_like(self.x)
        fresh = rng.standard_normal(self.x.shape)
        if self.kind == "gaussian":
            return self.std * fresh
        self.x = self.keep * self.x + self.kick * fresh
        return self.x.copy()

    def restart(self, ended: Bool[np.ndarray, "B"]) -> None:
        """Forget the past of these rows: their episodes are over."""
        self.x[ended] = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.x = np.array(state["x"])
