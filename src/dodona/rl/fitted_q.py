"""Fitted Q iteration: regress r + c max_a q(s', a) on (s, a), again and again, on fixed data.

    q_{k+1} = fit( (s, a) -> r + c max_a' q_k(s', a') )

Any regressor serves. One that reproduces the mean of each pair makes this value iteration on the
empirical model; averagers (aggregation, nearest neighbours, trees) can not diverge, others can.

Not here: a network that is fitted by steps of a gradient, which is DQN.

Source: Ernst, Geurts & Wehenkel 2005; Gordon 1995 (averagers).
"""

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Shaped

from dodona.core.inputs import check_count, check_range
from dodona.core.shapes import FloatArray
from dodona.errors import NonFiniteError
from dodona.rl.features import Features
from dodona.rl.transitions import transitions


class Regressor(Protocol):
    """What scikit-learn's regressors offer too."""

    def fit(self, x: Any, y: Any) -> Any: ...
    def predict(self, x: Any) -> Any: ...


class LeastSquares:
    """Linear regression on features, of least norm where it is not unique, or with a ridge.

    Args: features: phi.  ridge: >= 0, added to Phi^T Phi.
    Source: Gauss.  Oracle: numpy.linalg.lstsq.  Cost: O(N m^2) the first time, O(N m) with the same x again.
    """

    def __init__(self, features: Features, *, ridge: float = 0.0):
        check_range("[0, inf)", ridge=ridge)
        self.features, self.ridge = features, ridge
        self.weights = np.zeros(features.num_features)
        # of the x that was fitted, and of the x that was asked about, last: the next is often the same
        self._seen: tuple[Any, FloatArray] | None = None
        self._asked: tuple[Any, FloatArray] | None = None

    def fit(self, x: Shaped[np.ndarray, "N ..."], y: Float[np.ndarray, "N"]) -> "LeastSquares":
        """w with the least sum of (phi(x) . w - y)^2 + ridge |w|^2."""
        if self._seen is None or self._seen[0] is not x:
            phi = self.features.transform(x)
            if self.ridge:
                gram = phi.T @ phi + self.ridge * np.eye(phi.shape[1])
                self._seen = x, np.linalg.solve(gram, phi.T)
            else:
                self._seen = x, np.linalg.pinv(phi)
        self.weights = self._seen[1] @ y
        return self

    def predict(self, x: Shaped[np.ndarray, "N ..."]) -> Float[np.ndarray, "N"]:
        """phi(x) . w."""
        if self._asked is None or self._asked[0] is not x:
            self._asked = x, self.features.transform(x)
        return self._asked[1] @ self.weights


@dataclass(frozen=True, kw_only=True)
class FittedQReport:
    """iterations done; converged: the last change was at most tol; changes: largest change of a target, each."""

    iterations: int
    converged: bool
    changes: tuple[float, ...]


class FittedQ:
    """Fitted Q iteration with one regressor per action.

    Args:
        make_regressor: called once per action: ``lambda: LeastSquares(features)``, or a class of
            scikit-learn.
        num_actions: A.  gamma: discount in [0, 1].
    Source: Ernst et al. 2005.  Oracle: oracles.empirical.empirical_mdp with one-hot features.
    Cost: A fits and predictions per iteration.
    """

    def __init__(self, make_regressor: Any, num_actions: int, *, gamma: float):
        check_range("[0, 1]", "0.9 to 0.99 are usual.", gamma=gamma)
        check_count(num_actions=num_actions)
        self.regressors: list[Regressor] = [make_regressor() for _ in range(num_actions)]
        self.num_actions, self.gamma = num_actions, float(gamma)
        self._known = [False] * num_actions

    def q(self, x: Shaped[np.ndarray, "B ..."]) -> Float[np.ndarray, "B A"]:
        """What the regressors say; an action without any data is worth 0."""
        return np.stack(
            [
                np.asarray(self.regressors[a].predict(x), dtype=float) if known else np.zeros(len(x))
                for a, known in enumerate(self._known)
            ],
            axis=1,
        )  # fmt: skip

    def learn(self, source: Any, *, num_iterations: int = 500, tol: float = 1e-6) -> FittedQReport:
        """Iterate on fixed data, from q = 0.

        Args:
            source: a Batch or (s, a, r, s2, terminated[, truncated]).
            num_iterations: at most.  tol: stops when no target moves by more, reward units.
        Returns: FittedQReport.  Warns: not converged.
        Raises: TypeError, InputError: actions.  NonFiniteError: targets diverged.
        """
        check_count(num_iterations=num_iterations)
        check_range("(0, inf)", tol=tol)
        rows = transitions(source)
        actions = rows.action_numbers(self.num_actions)
        discounts = np.where(rows.terminated, 0.0, self.gamma)
        mine = [actions == a for a in range(self.num_actions)]
        self._known = [bool(rows_of.any()) for rows_of in mine]
        # the same object every time, so that a regressor can keep what it has factorised
        inputs = [rows.states[rows_of] for rows_of in mine]
        targets, changes = rows.rewards, []
        for _ in range(num_iterations):
            for a, regressor in enumerate(self.regressors):
                if self._known[a]:
                    regressor.fit(inputs[a], targets[mine[a]])
            best = self.q(rows.next_states)[:, self._known].max(axis=1)
            new = rows.rewards + discounts * best
            if not np.isfinite(new).all():
                raise NonFiniteError(
                    f"fitted Q iteration diverged after {len(changes)} iterations. Take a regressor that "
                    "averages (aggregation, nearest neighbours, trees), or a ridge."
                )
            changes.append(float(np.abs(new - targets).max()))
            targets = new
            if changes[-1] <= tol:
                return FittedQReport(
                    iterations=len(changes), converged=True, changes=tuple(changes)
                )
        warnings.warn(
            f"fitted Q iteration still moves by {changes[-1]:.2g} after {num_iterations} iterations. Take "
            "more, or a regressor that averages.",
            stacklevel=2,
        )
        return FittedQReport(iterations=len(changes), converged=False, changes=tuple(changes))
