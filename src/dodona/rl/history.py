"""What learning left behind: curves over the records, one row per run, with their mean and standard error.

Source: ours.  Not here: statistics over tasks (core/statistics.py).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dodona.core.inputs import check_choice
from dodona.errors import InputError

CURVES = ("episode_return", "episode_length", "reward", "rmse")


@dataclass(frozen=True, kw_only=True)
class History:
    """Records 1..R of K runs.

    step: [R] steps of a run at each record; the mean over runs where episodes were counted.
    episodes: [K, R] episodes that had ended.
    episode_return, episode_length: [K, R] mean over the episodes that ended since the record before, in
        reward units (undiscounted) and steps; NaN where none did.
    reward: [K, R] mean reward per step since the record before.
    rmse: [K, R] root mean square distance to ``truth`` over live states; NaN without one.
    tables: [K, S] or [K, S, A] at the end, -inf where infeasible.
    """

    step: Float[np.ndarray, "R"]
    episodes: Int[np.ndarray, "K R"]
    episode_return: Float[np.ndarray, "K R"]
    episode_length: Float[np.ndarray, "K R"]
    reward: Float[np.ndarray, "K R"]
    rmse: Float[np.ndarray, "K R"]
    tables: Float[np.ndarray, "K ..."]

    def mean(self, curve: str) -> Float[np.ndarray, "R"]:
        """Mean over runs of one curve, NaN left out.  Raises: InputError: no such curve."""
        check_choice(CURVES, curve=curve)
        x = getattr(self, curve)
        counted = np.isfinite(x)
        total = np.where(counted, x, 0.0).sum(axis=0)
        return np.where(counted.any(axis=0), total / np.maximum(counted.sum(axis=0), 1), np.nan)

    def standard_error(self, curve: str) -> Float[np.ndarray, "R"]:
        """Standard error of that mean.  Raises: InputError: no such curve, or a single run."""
        check_choice(CURVES, curve=curve)
        x = getattr(self, curve)
        if len(x) < 2:
            raise InputError(
                "one run says nothing of the spread between runs. Learn with num_runs=2 or more."
            )
        counted = np.isfinite(x)
        count = counted.sum(axis=0)
        square = np.where(counted, x - self.mean(curve), 0.0) ** 2
        few = np.where(count > 1, count, 2)
        return np.where(count > 1, np.sqrt(square.sum(axis=0) / (few - 1) / few), np.nan)
