"""Statistics of a run and of many runs: running moments, and what to report over seeds and tasks.

A score table is [runs, tasks]; further axes (training steps, say) are kept, each on its own. Every
statistic here reduces the first two axes, so that a curve [runs, tasks, steps] gives a curve, and a
bootstrap evaluates thousands of resamples in one call. Scores of different tasks must be comparable
(normalised) before they are pooled.
Not here: statistics inside one batch that a gradient flows through (reductions.py).

Source: Agarwal et al. 2021, arXiv:2108.13264; Chan, Golub, LeVeque 1983 (merging moments).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from dodona.core.inputs import (
    as_numpy,
    check_count,
    check_finite,
    check_mask,
    check_range,
    dtype_kind,
    is_tensor,
    namespace,
)
from dodona.core.shapes import FloatArray
from dodona.errors import CheckpointError, InputError, ShapeError

BLOCK = 2**18  # numbers in a block of resamples: 2 MB, so that a block stays in cache
CUT = 0.25  # the share of scores that the interquartile mean drops at either end


class RunningMoments:
    """Mean and standard deviation of a stream, batch after batch, as if it had come at once.

    n = n_a + n_b,  mean = mean_a + d n_b / n,  M = M_a + M_b + d^2 n_a n_b / n,  d = mean_b - mean_a,
    std = sqrt(M / (n - 1)), in float64 on the host.

    Args:
        shape: the trailing axes that keep moments of their own, such as (obs_dim,); () pools all.

    Attributes:
        count: how many numbers (rows, with a shape) have been counted; a float mask adds its weights.

    >>> moments = RunningMoments()
    >>> moments.update(np.array([1.0, 2.0, 3.0])); moments.update(np.array([5.0, 7.0]))
    >>> moments.mean, round(moments.std, 7)
    (3.6, 2.4083189)

    Source: Chan, Golub, LeVeque 1983; Welford 1962 for batches of one.
    Oracle: oracles.statistics.moments (one pass over everything, in fractions).
    """

    def __init__(self, shape: tuple[int, ...] = ()):
        self.shape = tuple(shape)
        self.count = 0.0
        self._mean = np.zeros(self.shape)
        self._squares = np.zeros(self.shape)

    def update(self, x: Any, mask: Any = None) -> None:
        """Take in a batch: an array, a tensor or a number, [..., *shape].

        Args:
            mask: [...], 1 = counts; a float weighs as if the number came that often. What lies under
                it may be anything.
        Raises:
            ShapeError: x does not end with shape, or mask does not match the rest.
            TypeError: a mask of integers.  NonFiniteError: a counted number is NaN or infinite.
        Cost: O(size of x), one transfer of three results from the device.
        """
        x = x if is_tensor(x) else np.asarray(x)
        rows = tuple(x.shape)[: x.ndim - len(self.shape)]
        if tuple(x.shape) != rows + self.shape:
            raise ShapeError(
                f"x has shape {tuple(x.shape)}, expected it to end with {self.shape}, the shape "
                "these moments were made for."
            )
        if mask is None:
            check_finite(x=x)
        else:
            mask = mask if is_tensor(mask) else np.asarray(mask)
            check_mask(mask, x[(..., *[0] * len(self.shape))])
            keep = mask != 0
            check_finite(x=namespace(x).where(keep.reshape(rows + (1,) * len(self.shape)), x, 0))
            x, mask = x[keep], mask[keep]
        x = _float64(x).reshape(-1, *self.shape)
        if len(x):
            weighs = mask is not None and dtype_kind(mask) == "f"
            self._merge(*_moments(x, _float64(mask) if weighs else None))

    def merge(self, other: "RunningMoments") -> None:
        """Take in what another has counted: a rank, a worker.  Raises: ShapeError."""
        if other.shape != self.shape:
            raise ShapeError(
                f"moments of shape {other.shape} do not merge into shape {self.shape}."
            )
        if other.count:
            self._merge(other.count, other._mean, other._squares)

    @property
    def mean(self) -> Any:
        """A float, or a float64 array of shape.  Raises: InputError: nothing was counted."""
        self._require("mean", 0)
        return self._mean.copy() if self.shape else float(self._mean)

    @property
    def std(self) -> Any:
        """With n - 1; like mean.  Raises: InputError: not more than one was counted."""
        self._require("standard deviation", 1)
        std = np.sqrt(self._squares / (self.count - 1.0))
        return std if self.shape else float(std)

    def state_dict(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean": self._mean.copy(),
            "squares": self._squares.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: moments of another shape."""
        mean = np.array(state["mean"], dtype=np.float64)
        if mean.shape != self.shape:
            raise CheckpointError(
                f"the checkpoint holds moments of shape {mean.shape}, this run has {self.shape}. "
                "Resume with the run's own config."
            )
        self.count, self._mean = float(state["count"]), mean
        self._squares = np.array(state["squares"], dtype=np.float64)

    def _merge(self, count: float, mean: Any, squares: Any) -> None:
        total = self.count + count
        delta = mean - self._mean
        self._squares = self._squares + squares + delta**2 * (self.count * count / total)
        self._mean = self._mean + delta * (count / total)
        self.count = total

    def _require(self, what: str, more_than: int) -> None:
        if not self.count > more_than:
            raise InputError(
                f"a {what} needs more than {more_than} counted numbers, got {self.count:g}. Update "
                "first, or look at .count before you ask."
            )


def iqm(scores: Shaped[Any, "..."]) -> Any:
    """Interquartile mean: the mean of the middle half of all runs of all tasks.

    The floor(n / 4) lowest and highest of the n = runs * tasks scores are left out.

    Args:
        scores: [runs, tasks, ...].
    Returns: a float, or an array of the further axes; units of the scores.
    Raises: ShapeError: fewer than two axes, or no run.  NonFiniteError.
    Source: Agarwal et al. 2021, sec. 4.3.
    Oracle: oracles.statistics.iqm; scipy.stats.trim_mean.  Cost: O(n log n) per further entry.

    >>> iqm(np.array([[0.0, 1.0], [2.0, 99.0]]))
    1.5
    """
    scores = _scores(scores)
    pooled = scores.reshape(-1, *scores.shape[2:])
    cut = int(CUT * len(pooled))
    return _plain(np.sort(pooled, axis=0)[cut : len(pooled) - cut].mean(axis=0))


def optimality_gap(scores: Shaped[Any, "..."], *, target: float = 1.0) -> Any:
    """How far runs fall short of the target on average; what exceeds it does not make up for others.

    mean of max(target - score, 0).

    Args:
        target: the score that counts as solved, units of the scores; 1 for normalised ones.
    Returns, Raises: as iqm.
    Source: Agarwal et al. 2021, sec. 4.3.  Oracle: oracles.statistics.optimality_gap.  Cost: O(size).
    """
    return _plain(np.maximum(target - _scores(scores), 0.0).mean(axis=(0, 1)))


def performance_profile(
    scores: Shaped[Any, "..."], thresholds: Shaped[Any, "..."] | list[float]
) -> Float[np.ndarray, "... levels"]:
    """The share of runs whose score exceeds each threshold: a curve from 1 down to 0.

    F(t) = mean of 1[score > t].

    Args:
        thresholds: [levels], units of the scores.
    Returns: [..., levels], the further axes of scores first.
    Raises: as iqm.
    Source: Agarwal et al. 2021, sec. 4.2 (score distribution).
    Oracle: oracles.statistics.performance_profile.  Cost: O(size * levels).
    """
    scores, levels = _scores(scores), np.asarray(as_numpy(thresholds), dtype=np.float64)
    if levels.ndim != 1 or not len(levels):
        raise ShapeError(f"thresholds have shape {levels.shape}, expected [levels], one at least.")
    check_finite(thresholds=levels)
    return np.stack([(scores > level).mean(axis=(0, 1)) for level in levels], axis=-1)


def probability_of_improvement(x: Shaped[Any, "..."], y: Shaped[Any, "..."]) -> Any:
    """How likely a run of X beats a run of Y, on a task drawn at random. A tie counts half.

    mean over tasks of mean over pairs of 1[x > y] + 1[x = y] / 2  (Mann-Whitney's U / (n_x n_y)).

    Args:
        x, y: the scores of two methods; runs may differ in number, tasks may not.
    Returns: in [0, 1], a float or an array of the further axes; 1/2 is no difference.
    Raises: ShapeError: tasks or further axes differ, else as iqm.  NonFiniteError.
    Source: Agarwal et al. 2021, sec. 4.3; Mann & Whitney 1947.
    Oracle: oracles.statistics.probability_of_improvement.  Cost: O(runs_x * size of y).
    """
    x, y = _scores(x, "x"), _scores(y, "y")
    if x.shape[1:] != y.shape[1:]:
        raise ShapeError(
            f"x has shape {x.shape} and y has shape {y.shape}: both are [runs, tasks, ...] and may "
            "differ in runs only. Compare on the tasks that both were run on."
        )
    total = np.zeros(x.shape[1:])
    for run in x:
        total += (run > y).mean(axis=0) + 0.5 * (run == y).mean(axis=0)
    return _plain((total / len(x)).mean(axis=0))


def bootstrap_interval(
    scores: Any,
    statistic: Callable[..., Any],
    *,
    num_samples: int = 50_000,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> tuple[Any, Any]:
    """A confidence interval of a statistic: runs are drawn again with replacement, task by task.

    The percentiles (1 -+ confidence) / 2 of the statistic over stratified resamples. A run keeps its
    further axes together, so the interval of a curve is pointwise.

    Args:
        scores: [runs, tasks, ...], or a tuple of such tables for a statistic of several
            (probability_of_improvement), which are resampled independently.
        statistic: reduces the first two axes of each table and keeps the others, as all statistics
            here do; it is called with resamples side by side, [runs, tasks, resamples, ...]. A mean
            is ``lambda s: s.mean(axis=(0, 1))``; options go in by ``functools.partial``.
        num_samples: resamples; 50 000 is what the source uses.
        confidence: in (0, 1).
        rng: draws one index in [0, runs) per resample, run and task, in this order, table by table.
    Returns:
        (low, high), each of the shape of the statistic.
    Raises:
        ShapeError: a table with fewer than two axes, or a statistic that does not keep the others.
        InputError: a single run (which says nothing of the spread), confidence, num_samples.
    Source: Agarwal et al. 2021, sec. 4.1; Efron 1987 (percentile method).
    Oracle: oracles.statistics.bootstrap_interval (loops on the same indices).
    Cost: num_samples times the statistic, in blocks of 2 MB.
    """
    check_count(num_samples=num_samples)
    check_range("(0, 1)", "0.95 is usual.", confidence=confidence)
    tables = scores if isinstance(scores, tuple) else (scores,)
    tables = tuple(_scores(table) for table in tables)
    for table in tables:
        if len(table) < 2:
            raise InputError(
                f"scores have shape {table.shape}: one run says nothing of the spread between runs. "
                "Run more seeds, at least 2."
            )
    _require_kept(tables, statistic)
    block = max(1, BLOCK // max(table.size for table in tables))
    found = []
    for begin in range(0, num_samples, block):
        size = min(block, num_samples - begin)
        found.append(statistic(*(_resample(table, size, rng) for table in tables)))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.concatenate(found), [tail, 1.0 - tail], axis=0)
    return _plain(low), _plain(high)


def _resample(table: FloatArray, size: int, rng: np.random.Generator) -> FloatArray:
    """[runs, tasks, size, ...]: each task's runs drawn again, with replacement."""
    runs, tasks = table.shape[:2]
    rows = rng.integers(runs, size=(size, runs, tasks)).transpose(1, 2, 0)
    return table[rows, np.arange(tasks)[:, None]]


def _require_kept(tables: tuple[FloatArray, ...], statistic: Callable[..., Any]) -> None:
    """Copies side by side must give the statistic of the tables, once per copy."""
    sizes = {size for table in tables for size in table.shape}
    copies = next(k for k in range(2, 3 + len(sizes)) if k not in sizes)  # no other axis has it
    side_by_side = [np.repeat(table[:, :, None], copies, axis=2) for table in tables]
    got, alone = np.asarray(statistic(*side_by_side)), np.asarray(statistic(*tables))
    expected = np.broadcast_to(alone, (copies, *alone.shape))
    if got.shape != expected.shape or not np.allclose(got, expected, rtol=1e-9, atol=1e-12):
        raise ShapeError(
            f"statistic turns scores of shape {side_by_side[0].shape} into {got.shape}, expected "
            f"{expected.shape}: it must reduce the first two axes and keep the others. Write "
            "lambda s: s.mean(axis=(0, 1)) where you have np.mean."
        )


def _moments(x: Any, weights: Any) -> tuple[float, Any, Any]:
    """(count, mean, sum of squared deviations) of the rows of x, in two passes after a shift.

    The shift by the first row makes a constant stream exactly constant: no spread from rounding.
    """
    shift = x[0]
    x = x - shift
    if weights is None:
        count = float(len(x))
        mean = x.sum(0) / count
        squares = ((x - mean) ** 2).sum(0)
    else:
        count = float(weights.sum())
        weights = weights.reshape(-1, *[1] * (x.ndim - 1))
        mean = (weights * x).sum(0) / count
        squares = (weights * (x - mean) ** 2).sum(0)
    return count, as_numpy(shift + mean), as_numpy(squares)


def _float64(x: Any) -> Any:
    return x.detach().double() if is_tensor(x) else np.asarray(x, dtype=np.float64)


def _scores(scores: Any, name: str = "scores") -> FloatArray:
    """A float64 table with runs and tasks, all finite."""
    scores = np.asarray(as_numpy(scores), dtype=np.float64)
    if scores.ndim < 2 or not scores.shape[0] or not scores.shape[1]:
        raise ShapeError(
            f"{name} has shape {scores.shape}, expected [runs, tasks] with at least one of each. "
            "For a single task write scores[:, None]."
        )
    check_finite(**{name: scores})
    return scores


def _plain(x: Any) -> Any:
    """A float where nothing is left to index."""
    return x if np.ndim(x) else float(x)
