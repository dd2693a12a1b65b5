"""What linear learners share: features and weights, walks through a model, records, a trainer.

Not here: any rule of learning (linear_td.py, gradient_td.py, linear_control.py, lstd.py).

Source: Sutton & Barto 2018, ch. 9; Zhao 2025, ch. 8.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from dodona.core.inputs import check_count, check_finite, check_range
from dodona.core.protocols import Event
from dodona.core.rng import Streams
from dodona.core.schedules import Schedule, constant
from dodona.core.shapes import BoolArray, FloatArray, IntArray
from dodona.errors import InputError, MDPError, NonFiniteError, ShapeError
from dodona.mdp.bellman import policy_value
from dodona.mdp.model import MDP
from dodona.rl.features import Aggregation, Features
from dodona.rl.transitions import transitions
from dodona.rl.value_objectives import (
    LinearSystem,
    linear_system,
    max_step_size,
    on_policy_distribution,
)

EXAMINED = 500  # features up to which a model is asked whether the step size is stable


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightHistory:
    """Weights along learning: steps [N] done so far, weights [R, N, ...] of every run."""

    steps: IntArray
    weights: FloatArray

    def values(self, phi: Float[np.ndarray, "S m"]) -> Float[np.ndarray, "R N ..."]:
        """phi . w of every record: [R, N, S], or [R, N, S, A] of action values."""
        return np.moveaxis(self.weights @ phi.T, -1, 2)


class LinearLearner(ABC):
    """v(s) = phi(s) . w, or q(s, a) = phi(s) . w_a: a rule, its step size and its weights.

    Args:
        features: what is seen of a state; ``features.step_scale()`` scales the step per feature.
        gamma: discount in [0, 1].
        alpha: step size > 0, a number or a Schedule of finished steps.
    Attributes:
        weights: [m], or [A, m] for action values.
    Raises: InputError: gamma or alpha outside their range.
    """

    def __init__(self, features: Features, *, gamma: float, alpha: float | Schedule):
        check_range("[0, 1]", "0.9 to 0.99 are usual.", gamma=gamma)
        if not isinstance(alpha, Schedule):
            check_range("(0, inf)", "At step size 0 nothing is learnt.", alpha=alpha)
            alpha = constant(float(alpha))
        self.features, self.gamma, self.alpha = features, float(gamma), alpha
        self.scale = np.ascontiguousarray(features.step_scale(), dtype=np.float64)
        self.weights: FloatArray = self.first_weights()
        self.num_updates = 0

    def first_weights(self) -> FloatArray:
        """Zeros, of the shape of ``weights``."""
        return np.zeros(self.features.num_features)

    def values(self, x: Shaped[np.ndarray, "B ..."]) -> Float[np.ndarray, "B"]:
        """phi(x) . w."""
        index, value = self.features.sparse(np.asarray(x))
        return (self.weights[index] * value).sum(axis=1)

    @abstractmethod
    def walk(self, mdp: MDP, **options: Any) -> "Walk":
        """The state of ``num_runs`` runs in a model, ready to advance."""

    def learn(
        self, source: Any, *, num_steps: int, num_runs: int = 1, seed: int = 0, num_records: int = 1, **options: Any
    ) -> WeightHistory:  # fmt: skip
        """Learn from a model, or from recorded transitions over and over.

        Every run begins at ``weights``; a single one leaves them where it ended, several leave them
        as they are.

        Args:
            source: MDP; or a Batch or (s, a, r, s2, terminated[, truncated[, a2]]), in order.
            num_steps: of each run, at least 1.
            num_runs: independent runs, at once.
            seed: run k depends on seed and k alone.
            num_records: weights are kept so many times, evenly, the last at the end; the first
                record is step 0 as well.
            options: of the walk: policy, behaviour, epsilon, max_episode_steps, start_weights.
        Returns: WeightHistory with num_records + 1 records.
        Raises:
            InputError: a gamma that is not the model's; counts; a source of another kind.
            NonFiniteError: the weights diverged; names the step.
        """
        check_count(num_steps=num_steps, num_runs=num_runs, num_records=num_records)
        num_records = min(num_records, num_steps)
        steps = np.linspace(0, num_steps, num_records + 1).round().astype(np.int64)
        if not isinstance(source, MDP):
            return self._learn_from_rows(source, steps, num_runs, options)
        walk = self.walk(source, num_runs=num_runs, seed=seed, **options)
        kept = [walk.weights.copy()]
        for before, now in zip(steps, steps[1:], strict=False):
            walk.advance(int(now - before))
            kept.append(walk.weights.copy())
        if num_runs == 1:
            self.weights = walk.weights[0].copy()
            self.num_updates += num_steps
        return WeightHistory(steps=steps, weights=np.stack(kept, axis=1))

    def trainer(
        self, source: MDP, *, num_steps: int, num_runs: int = 1, seed: int = 0, num_events: int = 20, **options: Any
    ) -> "LinearTrainer":  # fmt: skip
        """``learn`` as an iterator of events with a state, for a recipe; options as of ``learn``."""
        return LinearTrainer(
            self, lambda: self.walk(source, num_runs=num_runs, seed=seed, **options), num_steps, num_events
        )  # fmt: skip

    def _learn_from_rows(self, source, steps, num_runs, options) -> WeightHistory:
        if num_runs != 1 or options:
            raise InputError(
                "recorded transitions are played in their order: num_runs is 1 and there are no options "
                f"of a walk, got num_runs={num_runs} and {sorted(options)}."
            )
        rows = transitions(source)
        num = len(rows.rewards)
        kept = [self.weights.copy()]
        at = 0
        for before, now in zip(steps, steps[1:], strict=False):
            left = int(now - before)
            while left:
                take = slice(at, min(at + left, num))
                self.update(*rows.columns(take))
                left -= take.stop - at
                at = take.stop % num
            kept.append(self.weights.copy())
        return WeightHistory(steps=steps, weights=np.stack(kept)[None])

    @abstractmethod
    def update(self, s, a, r, s2, terminated, truncated, a2=None) -> None:
        """Learn from transitions [B], one after another in their order."""

    # ------------------------------------------------------------------ for subclasses
    def rows(self, x: Shaped[np.ndarray, "..."] | list) -> tuple[IntArray, FloatArray]:
        """(index, value) [B, n] as the kernels take them."""
        index, value = self.features.sparse(np.asarray(x))
        return np.ascontiguousarray(index, np.int64), np.ascontiguousarray(value, np.float64)

    def discounts(self, terminated: BoolArray) -> FloatArray:
        """c = gamma (1 - terminated): a time limit is no end."""
        return np.where(terminated, 0.0, self.gamma)

    def step_sizes(self, num: int) -> FloatArray:
        """alpha of the next ``num`` steps."""
        return np.broadcast_to(self.alpha(np.arange(num) + self.num_updates), num).astype(float)

    def require_gamma(self, mdp: MDP) -> None:
        if mdp.discounts is None and mdp.gamma != self.gamma:
            raise InputError(
                f"the learner has gamma {self.gamma:g}, the model {mdp.gamma:g}. Make them one, for "
                f"instance with mdp.replace(gamma={self.gamma:g})."
            )

    def warn_if_unstable(
        self, mdp: MDP, target: FloatArray, behaviour: FloatArray | None, rule: str
    ) -> None:
        """One warning where expected updates diverge: off-policy, or by too large a step."""
        tabular = isinstance(self.features, Aggregation)
        if self.features.num_features > EXAMINED or (behaviour is None and tabular):
            return
        system = _expected(mdp, target, behaviour, self.features)
        if system is None:
            return
        limit = max_step_size(system.A, step_scale=self.scale)
        if behaviour is not None and not tabular:
            verdict = (
                "here expected updates diverge with every step size"
                if limit == 0
                else f"here expected updates converge for alpha < {limit:.4g}"
            )
            warnings.warn(
                f"off-policy, function approximation and bootstrapping together are the deadly triad: "
                f"{rule} may diverge; {verdict}. GradientTD(kind='tdc') converges.",
                stacklevel=4,
            )
        elif self.alpha(0) >= limit:
            warnings.warn(
                f"alpha = {self.alpha(0):g} is above the stability limit {limit:.4g} of this model and "
                "these features: expected updates diverge. Take half of the limit or less.",
                stacklevel=4,
            )


class Walk:
    """Runs of one learner in one model: everything that changes is an array of ``state``.

    advance_by(state, counts) moves the arrays by len(counts) steps, each with its number since the
    learner began; ``state`` holds at least "weights" and "words". make_errors gives the function from
    weights to the error of each run, or None; it is asked for only where errors are wanted.
    """

    def __init__(
        self,
        learner: LinearLearner,
        state: dict[str, np.ndarray],
        advance_by: Callable[[dict[str, np.ndarray], IntArray], None],
        make_errors: Callable[[], Callable | None] = lambda: None,
    ):
        self.learner, self.state, self.num_steps = learner, state, 0
        self._advance_by, self._make_errors = advance_by, make_errors

    @cached_property
    def errors(self) -> Callable | None:
        """weights [R, m] -> [R] mean squared error to the truth, where there is one."""
        return self._make_errors()

    @property
    def weights(self) -> FloatArray:
        """[R, m] or [R, A, m]."""
        return self.state["weights"]

    def advance(self, num_steps: int) -> None:
        """So many steps of every run.  Raises: NonFiniteError: a run's weights left the real numbers."""
        if num_steps:
            first = self.learner.num_updates + self.num_steps
            self._advance_by(self.state, np.arange(first, first + num_steps))
            self.num_steps += num_steps
        good = np.isfinite(self.weights).reshape(len(self.weights), -1).all(axis=1)
        if not good.all():
            raise NonFiniteError(
                f"the weights of run {int(np.argmin(good))} diverged within {self.num_steps} steps. Take a "
                "smaller alpha; off-policy, GradientTD(kind='tdc')."
            )

    def state_dict(self) -> dict[str, Any]:
        # random words as text: checkpoints know no unsigned 64-bit integers
        arrays = {k: v.copy() for k, v in self.state.items() if k != "words"}
        return {
            **arrays,
            "words": [str(w) for w in self.state["words"]],
            "num_steps": self.num_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, array in self.state.items():
            if name == "words":
                array[:] = [int(w) for w in state["words"]]
            else:
                array[...] = state[name]
        self.num_steps = int(state["num_steps"])


class LinearTrainer:
    """A walk as a trainer: one event per stretch, with the error of every run where the truth is known."""

    def __init__(
        self, learner: LinearLearner, make: Callable[[], Walk], num_steps: int, num_events: int
    ):
        check_count(num_steps=num_steps, num_events=num_events)
        self.learner, self._make, self._walk = learner, make, None
        self.goals = np.linspace(0, num_steps, num_events + 1).round().astype(int).tolist()
        self.position = 0

    @property
    def walk(self) -> Walk:
        if self._walk is None:
            self._walk = self._make()
        return self._walk

    def __iter__(self) -> Iterator[Event]:
        while self.position < len(self.goals):
            self.walk.advance(self.goals[self.position] - self.walk.num_steps)
            self.position += 1
            yield self._event()
        if len(self.walk.weights) == 1:
            self.learner.weights = self.walk.weights[0].copy()

    def _event(self) -> Event:
        weights = self.walk.weights
        metrics = {
            "weights/norm": float(
                np.sqrt((weights**2).reshape(len(weights), -1).sum(axis=1).mean())
            )
        }
        if self.walk.errors is not None:
            squares = self.walk.errors(weights)
            metrics["value/rmse"] = float(np.sqrt(squares.mean()))
            metrics["value/mse"] = float(squares.mean())
            if len(squares) > 1:
                metrics["value/mse_stderr"] = float(squares.std(ddof=1) / np.sqrt(len(squares)))
        steps = self.walk.num_steps
        return Event(kind="update", step=steps, num_samples=steps * len(weights), metrics=metrics)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "walk": self.walk.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = int(state["position"])
        self.walk.load_state_dict(state["walk"])


def start_runs(
    learner: LinearLearner, num_runs: int, seed: int, start_weights: FloatArray | None
) -> dict[str, np.ndarray]:
    """weights, words, at, age of runs that have not begun.

    Args: start_weights: of the shape of ``weights``, or one such per run; None: the learner's own.
    Raises: ShapeError: start_weights.
    Source: ours.  Oracle: a run alone equals the run among others.  Cost: O(runs).
    """
    check_count(num_runs=num_runs)
    first = learner.weights if start_weights is None else np.asarray(start_weights, dtype=float)
    shape = (num_runs, *learner.weights.shape)
    if first.shape not in (shape, shape[1:]):
        raise ShapeError(f"start_weights has shape {first.shape}, expected {shape[1:]} or {shape}.")
    check_finite(start_weights=first)
    streams = Streams(seed)
    return {
        "weights": np.broadcast_to(first, shape).copy(),
        "words": np.array([streams.integer(f"run/{k}") for k in range(num_runs)], dtype=np.uint64),
        "at": np.full(num_runs, -1, dtype=np.int64),
        "age": np.zeros(num_runs, dtype=np.int64),
    }


def value_errors(mdp: MDP, policy: FloatArray, phi: FloatArray) -> Callable | None:
    """weights [R, m] -> [R] mean squared error to v_pi, states weighted as the policy meets them.

    None where there is no such truth: no share of time, or no finite value.
    Source: Sutton & Barto 2018, sec. 9.2.  Oracle: oracles.projection.value_objectives.
    Cost: one policy evaluation.
    """
    try:
        share, truth = on_policy_distribution(mdp, policy), policy_value(mdp, policy).values
    except MDPError:
        return None
    return lambda weights: (weights @ phi.T - truth) ** 2 @ share


# ---------------------------------------------------------------------- private
def _expected(
    mdp: MDP, target: FloatArray, behaviour: FloatArray | None, features: Features
) -> LinearSystem | None:
    """A and b of expected updates, or None where the model has no share of time."""
    try:
        share = on_policy_distribution(mdp, target if behaviour is None else behaviour)
    except MDPError:
        return None
    return linear_system(mdp, target, features, d=share)
