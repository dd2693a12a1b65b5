"""The linear-quadratic regulator: a continuous control problem whose every number is a matrix equation.

    x' = A x + B u + w,  E[w w^T] = W,   cost sum_t gamma^t (x^T Q x + u^T R u),   E[x_0 x_0^T] = X0,   u = -K x

Costs, not rewards: less is better. It is the truth for deterministic and Gaussian policy gradients.
Source: Fazel et al. 2018, arXiv:1801.05039; Silver et al. 2014 (deterministic gradient); Bertsekas,
Dynamic Programming and Optimal Control, vol. 1, sec. 3.1. Not here: sampling, learning, networks.
"""

from collections import namedtuple

import numpy as np
from scipy.linalg import solve_discrete_are, solve_discrete_lyapunov

from dodona.oracles.arrays import ArrayLike

QuadraticQ = namedtuple("QuadraticQ", ("H", "constant"))
"""q(x, u) = [x; u]^T H [x; u] + constant."""


class LQR:
    """One regulator problem.

    Args:
        A: [n, n].  B: [n, m].  Q: [n, n] symmetric, no negative eigenvalue.  R: [m, m] symmetric, positive.
        W: [n, n] covariance of the noise.  X0: [n, n] second moment of the first state.
        gamma: discount in (0, 1).
    Raises: ValueError: shapes; not symmetric; R not positive definite; Q, W or X0 with a negative eigenvalue.
    Source: see the module.

    >>> one = np.eye(1)
    >>> problem = LQR(one, one, one, one, 0 * one, one, gamma=0.9)
    >>> problem.optimal_gain().round(8)
    array([[0.58840335]])
    """

    def __init__(
        self, A: ArrayLike, B: ArrayLike, Q: ArrayLike, R: ArrayLike, W: ArrayLike, X0: ArrayLike,
        gamma: float,
    ):  # fmt: skip
        self.A, self.B, self.Q, self.R, self.W, self.X0 = (
            np.array(x, dtype=float) for x in (A, B, Q, R, W, X0)
        )
        self.gamma = float(gamma)
        if self.B.ndim != 2 or not 0.0 < self.gamma < 1.0:
            raise ValueError(f"B {self.B.shape}, gamma {gamma}: expected [n, m], and gamma in (0, 1).")  # fmt: skip
        n, m = self.B.shape
        sizes = {"A": n, "Q": n, "R": m, "W": n, "X0": n}
        for name, size in sizes.items():
            x = getattr(self, name)
            if x.shape != (size, size):
                raise ValueError(f"{name} has shape {x.shape}, expected {(size, size)} beside B {(n, m)}.")  # fmt: skip
            if name == "A":
                continue
            if not np.allclose(x, x.T, atol=1e-12 * (1 + np.abs(x).max())):
                raise ValueError(f"{name} must be symmetric, got {x.tolist()}.")
            least = float(np.linalg.eigvalsh(x).min())
            if least < -1e-12 or (name == "R" and least <= 0):
                raise ValueError(
                    f"{name} must be positive {'definite' if name == 'R' else 'semidefinite'}, its least "
                    f"eigenvalue is {least:.3g}."
                )

    def optimal_gain(self) -> np.ndarray:
        """[m, n] the K of least cost, for every X0 and W: K = (R + g B^T P B)^-1 g B^T P A, P by Riccati.

        Independent of: descent, Lyapunov equations.  Source: Riccati with (sqrt(g) A, sqrt(g) B).
        """
        P, g = self.optimal_values(), self.gamma
        return np.linalg.solve(self.R + g * self.B.T @ P @ self.B, g * self.B.T @ P @ self.A)

    def optimal_values(self) -> np.ndarray:
        """[n, n] P of the least cost to go, x^T P x + gamma / (1 - gamma) tr(P W)."""
        root = self.gamma**0.5
        return solve_discrete_are(root * self.A, root * self.B, self.Q, self.R)

    def values(self, K: ArrayLike) -> np.ndarray:
        """[n, n] P_K of u = -K x: P = Q + K^T R K + g (A - B K)^T P (A - B K).

        Raises: ValueError: shape; a K whose discounted cost is infinite, with its spectral radius.
        """
        K, root = self._checked(K), self.gamma**0.5
        return solve_discrete_lyapunov(root * (self.A - self.B @ K).T, self.Q + K.T @ self.R @ K)

    def cost(self, K: ArrayLike, sigma: float = 0.0) -> float:
        """tr(P_K X0) + g / (1 - g) tr(P_K W); u = -K x + sigma e, e ~ N(0, I), acts as noise and costs itself.

        Raises: as values.
        """
        P, ahead = self.values(K), 1.0 / (1.0 - self.gamma)
        noise = self._noise(sigma)
        running = self.gamma * np.trace(P @ noise) + sigma**2 * np.trace(self.R)
        return float(np.trace(P @ self.X0) + ahead * running)

    def state_moment(self, K: ArrayLike, sigma: float = 0.0) -> np.ndarray:
        """[n, n] S = sum_t g^t E[x_t x_t^T] = X0 + g / (1 - g) W + g (A - B K) S (A - B K)^T.  Raises: as values."""
        K, g = self._checked(K), self.gamma
        noise = g / (1.0 - g) * self._noise(sigma)
        return solve_discrete_lyapunov(g**0.5 * (self.A - self.B @ K), self.X0 + noise)

    def gradient(self, K: ArrayLike) -> np.ndarray:
        """[m, n] of the cost: 2 [(R + g B^T P_K B) K - g B^T P_K A] S_K.

        Independent of: q and the chain rule through the action (``deterministic_gradient``), differences.
        Source: Fazel et al. 2018, lemma 1, with a discount and noise.  Raises: as values.
        """
        return self.gaussian_gradient(K, 0.0)

    def gaussian_gradient(self, K: ArrayLike, sigma: float) -> np.ndarray:
        """[m, n] of the cost of u = -K x + sigma e: W becomes W + sigma^2 B B^T.

        It differs from ``gradient`` by exactly sigma^2 times a constant: the deterministic gradient is its limit.
        Raises: as values.
        """
        K, P, g = self._checked(K), self.values(K), self.gamma
        inner = (self.R + g * self.B.T @ P @ self.B) @ K - g * self.B.T @ P @ self.A
        return 2.0 * inner @ self.state_moment(K, sigma)

    def q(self, K: ArrayLike) -> QuadraticQ:
        """Cost of u now and -K x after it: H = diag(Q, R) + g [A B]^T P_K [A B], constant g / (1 - g) tr(P_K W).

        Raises: as values.
        """
        P, g = self.values(K), self.gamma
        both = np.hstack([self.A, self.B])
        now = np.block([
            [self.Q, np.zeros_like(self.B)], [np.zeros_like(self.B.T), self.R]
        ])  # fmt: skip
        constant = g / (1.0 - g) * np.trace(P @ self.W)
        return QuadraticQ(now + g * both.T @ P @ both, float(constant))

    def deterministic_gradient(self, K: ArrayLike) -> np.ndarray:
        """[m, n] E[sum_t g^t grad_K mu(x) grad_u q(x, u)] at u = mu(x) = -K x: the theorem, spelled out.

        Independent of: lemma 1.  Source: Silver et al. 2014, eq. 9.  Raises: as values.
        """
        K, n = self._checked(K), len(self.A)
        H = self.q(K).H
        # grad_u q = 2 (H_ux x + H_uu u), and d(-K x) / dK brings -x
        slope = 2.0 * (H[n:, :n] - H[n:, n:] @ K)
        return -slope @ self.state_moment(K)

    def spectral_radius(self, K: ArrayLike) -> float:
        """Of sqrt(gamma) (A - B K); the cost is finite below 1."""
        closed = self.A - self.B @ self._shaped(K)
        return float(self.gamma**0.5 * np.abs(np.linalg.eigvals(closed)).max())

    # ------------------------------------------------------------------ private
    def _shaped(self, K: ArrayLike) -> np.ndarray:
        K, expected = np.asarray(K, dtype=float), self.B.T.shape
        if K.shape != expected:
            raise ValueError(f"K has shape {K.shape}, expected [m, n] = {expected}, for u = -K x.")
        return K

    def _checked(self, K: ArrayLike) -> np.ndarray:
        radius = self.spectral_radius(K)
        if not radius < 1.0:
            raise ValueError(
                f"the cost of this K is infinite: the spectral radius of sqrt(gamma) (A - B K) is {radius:.6g}, "
                "and must be below 1. Start from a K that is stable, or discount more."
            )
        return self._shaped(K)

    def _noise(self, sigma: float) -> np.ndarray:
        return self.W + sigma**2 * self.B @ self.B.T


def lqr2() -> LQR:
    """A cart pushed along a line, position and speed: A = [[1, .1], [0, 1]], B = (0, .1), gamma .99.

    Facts: K* = (2.42459864, 3.48542999), cost 35.51543895; at K = (1, 1) cost 52.78338473.
    Source: card actor-critic, sec. 4; the numbers re-derived.
    """
    return LQR(
        [[1.0, 0.1], [0.0, 1.0]], [[0.0], [0.1]], np.eye(2), [[0.1]], 0.01 * np.eye(2), np.eye(2), 0.99
    )  # fmt: skip
