"""The linear-quadratic regulator as an Env: the continuous task whose every number is a matrix equation.

    x' = A x + B u + w,  w ~ N(0, W),   r = -(x^T Q x + u^T R u),   x_0 ~ N(0, X0)

    env = make_env("LQR-v0", num_envs=64, seed=0)
    env = LQREnv(Regulator(A=A, B=B, Q=Q, R=R, W=W, X0=X0), 64, seed=0)

No state ends an episode, the time limit cuts it. What row n does depends on (seed, n) and its actions only.

Not here: what is best (a Riccati equation, which the tests solve), other continuous tasks (native_env.py).

Source: Bertsekas, Dynamic Programming and Optimal Control, vol. 1, sec. 3.1; Recht 2019, arXiv:1806.09460 (as a
task for learners).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dodona.core.inputs import check_count, check_range
from dodona.core.rng import Streams
from dodona.errors import CheckpointError, InputError, NonFiniteError, ShapeError
from dodona.rl.environments import Step, check_groups, checked_actions
from dodona.rl.native import lqr_kernels as kernels

LIMIT = 100  # steps of an episode
SHAPES = {"A": "nn", "B": "nm", "Q": "nn", "R": "mm", "W": "nn", "X0": "nn"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Regulator:
    """One regulator problem; the defaults are a cart on a line, position and speed, which a force pushes.

    Raises: ShapeError: matrices that do not fit together.  NonFiniteError.  InputError: Q, R, W or X0 not
    symmetric, or with a negative eigenvalue.
    Source, Oracle: see the module; oracles.lqr.
    """

    A: Any = field(default_factory=lambda: np.array([[1.0, 0.1], [0.0, 1.0]]))
    """[n, n] what a state becomes by itself"""
    B: Any = field(default_factory=lambda: np.array([[0.0], [0.1]]))
    """[n, m] what an action adds"""
    Q: Any = field(default_factory=lambda: np.eye(2))
    """[n, n] cost of states"""
    R: Any = field(default_factory=lambda: np.array([[0.1]]))
    """[m, m] cost of actions"""
    W: Any = field(default_factory=lambda: 0.01 * np.eye(2))
    """[n, n] covariance of the noise"""
    X0: Any = field(default_factory=lambda: np.eye(2))
    """[n, n] covariance of the first state"""

    def __post_init__(self) -> None:
        if np.ndim(self.B) != 2:
            raise ShapeError(
                f"B has shape {np.shape(self.B)}, expected [n, m]: states and actions."
            )
        size = dict(zip("nm", self.B.shape, strict=True))
        for name, axes in SHAPES.items():
            matrix = np.array(getattr(self, name), dtype=np.float64)
            expected = tuple(size[x] for x in axes)
            if matrix.shape != expected:
                raise ShapeError(
                    f"{name} has shape {matrix.shape}, expected {expected} beside B {self.B.shape}."
                )
            if not np.isfinite(matrix).all():
                raise NonFiniteError(f"{name} is not finite: {matrix.tolist()}.")
            if name in ("Q", "R", "W", "X0"):
                _require_positive(name, matrix)
            object.__setattr__(self, name, matrix)


class LQREnv:
    """A regulator as an Env whose rows can share a start state.

    Args:
        problem: the regulator; None: the cart of Regulator().
        num_envs: at least 1.
        seed: a whole number >= 0.
        max_episode_steps: episodes are truncated there.
        first_env: the number of row 0: the r-th of several processes takes r * num_envs, and all
            together are the same as one with all rows.
        bound: actions beyond +-bound are refused; without one they are any finite numbers.
        device: where observations and rewards are wanted; the steps are taken on the host.
    Raises: InputError: counts, bound <= 0.
    Source: see the module.
    Oracle: the matrix products by hand; the returns of -K x by oracles.lqr (tests/rl/native/test_lqr_env.py).
    Cost: (n + m)^2 flops and 2 (n + 1) random numbers per step and row, and 25 microseconds per call.
    """

    num_states = num_actions = None
    obs_dtype = torch.float32

    def __init__(
        self,
        problem: Regulator | None,
        num_envs: int,
        *,
        seed: int,
        max_episode_steps: int | None = None,
        first_env: int = 0,
        bound: float = float("inf"),
        device: torch.device | str = "cpu",
    ):
        check_count(num_envs=num_envs, max_episode_steps=max_episode_steps)
        check_count(0, seed=seed, first_env=first_env)
        check_range("(0, inf]", "Leave it out for none.", bound=bound)
        self.id = "LQR-v0" if problem is None else "LQR"
        self.problem = problem = Regulator() if problem is None else problem
        self.num_envs, self.first_env, self.seed = num_envs, first_env, seed
        n, m = problem.B.shape
        self.obs_shape, self.action_dim = (n,), m
        self.device = torch.device(device)
        self.action_low = torch.full((m,), -float(bound), device=self.device)
        self.action_high = torch.full((m,), float(bound), device=self.device)
        self.max_episode_steps = max_episode_steps or LIMIT
        self._noise, self._first = _factor(problem.W), _factor(problem.X0)
        self._words = self._seeded(seed)
        self._states = np.zeros((num_envs, n))
        self._steps = np.full(num_envs, -1, dtype=np.int64)  # -1 before the first reset

    @property
    def states(self) -> Float[Tensor, "B n"]:
        """The states in double precision; what is done to them is not done to the environment."""
        return torch.from_numpy(self._states.copy()).to(self.device)

    def reset(self, *, seed: int | None = None) -> Float[Tensor, "B n"]:
        """[B, n] first observations. With a seed everything begins anew, else the random numbers go on."""
        return self._begin(seed, 1)

    def reset_groups(self, group_size: int, *, seed: int | None = None) -> Float[Tensor, "B n"]:
        """As reset, but rows g * group_size .. (g + 1) * group_size - 1 begin in one state.

        Raises: InputError: num_envs or first_env is no multiple of group_size.
        """
        check_groups(self, group_size)
        return self._begin(seed, group_size)

    def step(self, actions: Float[Tensor, "B m"]) -> Step:
        """One step of every row; none ever only resets.

        Raises: as checked_actions.  InputError: before the first reset.
        """
        if self._steps[0] < 0:
            raise InputError(f"{self.id} was stepped before its first reset. Call env.reset().")
        wanted = checked_actions(self, actions).astype(np.float64)
        B, n, p = self.num_envs, self.obs_shape[0], self.problem
        obs, successors = np.empty((B, n), dtype=np.float32), np.empty((B, n), dtype=np.float32)
        rewards, truncated = np.empty(B, dtype=np.float32), np.empty(B, dtype=bool)
        kernels.advance(
            p.A, p.B, p.Q, p.R, self._noise, self._first, self.max_episode_steps, self._words, self._states,
            self._steps, wanted, obs, successors, rewards, truncated,
        )  # fmt: skip
        columns = (obs, successors, rewards, np.zeros(B, dtype=bool), truncated, np.ones(B, dtype=bool))  # fmt: skip
        return Step(*(torch.from_numpy(x).to(self.device) for x in columns))

    def step_from(
        self, states: Float[Tensor, "N n"], actions: Float[Tensor, "N m"]
    ) -> tuple[Float[Tensor, "N n"], Float[Tensor, "N"]]:
        """(mean successors, rewards) of any states under any actions: no clock, no reset, no noise.

        Raises: ShapeError.  Source, Oracle: as the class.  Cost: of the products.
        """
        n, m = self.problem.B.shape
        if tuple(states.shape[1:]) != (n,) or tuple(actions.shape) != (len(states), m):
            raise ShapeError(
                f"states have shape {tuple(states.shape)} and actions {tuple(actions.shape)}, expected "
                f"(N, {n}) and (N, {m})."
            )
        x, u, p = states.double(), actions.double(), self.problem
        A, B, Q, R = (torch.from_numpy(M).to(x) for M in (p.A, p.B, p.Q, p.R))
        cost = torch.einsum("bi,ij,bj->b", x, Q, x) + torch.einsum("bi,ij,bj->b", u, R, u)
        return (x @ A.T + u @ B.T).to(states), (-cost).to(states)

    def state_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "words": self._words.copy(),
            "states": self._states.copy(),
            "steps": self._steps.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: states of another shape."""
        saved = np.array(state["states"], dtype=np.float64)
        if saved.shape != self._states.shape:
            raise CheckpointError(
                f"the checkpoint holds states {saved.shape}, this environment {self._states.shape}. "
                "Resume with the run's own config."
            )
        self.seed, self._states = int(state["seed"]), saved
        self._words = np.array(state["words"], dtype=np.uint64)
        self._steps = np.array(state["steps"], dtype=np.int64)

    def close(self) -> None:
        """Nothing to end."""

    def _begin(self, seed: int | None, group_size: int) -> Float[Tensor, "B n"]:
        check_count(0, seed=seed)
        if seed is not None:
            self.seed, self._words = seed, self._seeded(seed)
        kernels.begin(self._first, self._words, self._states, self._steps, group_size)
        return torch.from_numpy(self._states.astype(np.float32)).to(self.device)

    def _seeded(self, seed: int) -> np.ndarray:
        """[B] one word per row, drawn in order, so that row n has its word however many there are."""
        last = self.first_env + self.num_envs
        words = Streams(seed).numpy("lqr_env").integers(0, 2**64, last, dtype=np.uint64)
        return words[self.first_env :].copy()


def lqr_env(env_id: str, num_envs: int, **options: Any) -> LQREnv:
    """The cart of Regulator(), for make_env.  Raises, Source, Oracle, Cost: as LQREnv."""
    return LQREnv(None, num_envs, **options)


def _require_positive(name: str, matrix: Float[np.ndarray, "n n"]) -> None:
    slack = 1e-12 * (1.0 + np.abs(matrix).max())
    if np.abs(matrix - matrix.T).max() > slack:
        raise InputError(f"{name} must be symmetric, got {matrix.tolist()}.")
    least = float(np.linalg.eigvalsh(matrix).min())
    if least < -slack:
        raise InputError(
            f"{name} must have no negative eigenvalue, its least is {least:.3g}. Costs and covariances are "
            "not negative."
        )


def _factor(covariance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """F with F F^T = covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    values[values < 1e-12 * values.max()] = 0.0  # rounding, whose root would not be small
    return np.ascontiguousarray(vectors * np.sqrt(values))
