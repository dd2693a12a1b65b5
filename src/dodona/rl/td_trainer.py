"""The trainer of tabular learners: one event per record, everything in its state, a History at the end.

Source: ours; the protocol is core.protocols.Trainer.  Not here: rules and sources.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from dodona.core.protocols import Event
from dodona.core.schedules import Schedule, constant
from dodona.core.shapes import FloatArray
from dodona.errors import ShapeError
from dodona.rl import _td_updates as updates
from dodona.rl._td_kernels import Walk
from dodona.rl.history import History
from dodona.rl.learner import Learner, Play, state_values
from dodona.rl.players import player

RECORDS = 100  # of a run, where nobody says otherwise
COLUMNS = (
    "step", "episodes", "episode_return", "episode_length", "reward", "rmse",
)  # fmt: skip


class TDTrainer:
    """Plays a source, record after record; run 0 is the learner's own table.

    Args: learner: its table is continued.  source: see players.player.  play: options.
    Events: kind "update", step = records, num_samples = steps of all runs; metrics are means over runs:
    episode/return, episode/length (where an episode ended), reward/step, error/rmse (with a truth), reward/gain (where it is learnt).
    """

    def __init__(self, learner: Learner, source: Any, play: Play):
        self.learner, self.play = learner, play
        self.player = player(learner, source, play)
        K = self.player.num_runs
        learner.feasible = self.player.feasible._replace(cumulative=np.zeros(0))
        self.rule = learner.rule(fixed=len(self.player.feasible.cumulative) > 0)
        self.memory = learner.new_memory(
            K, room=learner.room(outcomes=self.player.outcomes, num_steps=play.num_steps)
        )
        learner.begin(self.memory)
        self.memory.words[:] = self.player.words
        if self.player.mask is not None:
            self._prepare(self.player.mask, self.player.live)
        self.truth = self._truth(play.truth)
        self.epsilon = (
            play.epsilon if isinstance(play.epsilon, Schedule) else constant(play.epsilon)
        )
        whole = [np.zeros(K, dtype=np.int64) for _ in range(6)]
        state, length, ended, lengths, steps, episodes = whole
        state -= 1
        total, returns, rewards = (np.zeros(K) for _ in range(3))
        self.runs = Walk(
            state=state, action=state.copy(), length=length, total=total, ended=ended, returns=returns,
            lengths=lengths, rewards=rewards, steps=steps, episodes=episodes,
        )  # fmt: skip
        self.every = play.record_every or max(1, play.length // RECORDS)
        self.done = 0
        self.columns: dict[str, list[FloatArray]] = {name: [] for name in COLUMNS}
        self._keep()

    def __iter__(self) -> Iterator[Event]:
        while self.done < self.play.length:
            size = min(self.every, self.play.length - self.done)
            self._advance(size)
            self.learner.settle(self.memory)
            self.done += size
            self._record()
            self._keep()
            yield self._event()

    @property
    def tables(self) -> Float[np.ndarray, "K ..."]:
        """[K, S] or [K, S, A] of all runs; the mean of the two of double Q-learning."""
        return self.learner.estimates(self.memory)

    def history(self) -> History:
        """The records so far."""
        R, K = len(self.columns["step"]), self.player.num_runs
        column = {
            name: np.array(self.columns[name]).reshape(R, K).T.copy()
            for name in COLUMNS
        }  # fmt: skip
        return History(
            step=column["step"].mean(axis=0),
            episodes=column["episodes"].astype(np.int64),
            tables=self.tables,
            **{name: column[name] for name in COLUMNS[2:]},
        )

    def state_dict(self) -> dict[str, Any]:
        """Tables, traces, windows, random words, records, and where the source stands if it can be saved.

        A single Gymnasium environment can not: a continued run begins with a new episode.
        """
        state = {"memory": _copied(self.memory), "runs": _copied(self.runs), "done": self.done,
                 "columns": {name: np.array(x) for name, x in self.columns.items()}}  # fmt: skip
        if hasattr(self.player, "state_dict"):
            state["source"] = self.player.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, saved in ((self.memory, state["memory"]), (self.runs, state["runs"])):
            for name, array in part._asdict().items():
                array[...] = saved[name]
        self.done = state["done"]
        self.columns = {name: list(np.asarray(x)) for name, x in state["columns"].items()}
        if hasattr(self.player, "load_state_dict"):
            self.player.load_state_dict(state["source"])
        self._keep()

    # ------------------------------------------------------------------ private
    def _advance(self, size: int) -> None:
        """size more steps or episodes; schedules are evaluated at each of them."""
        parts = (self.learner.alpha, self.epsilon)
        if self.play.num_steps is not None:
            counts = np.arange(self.done, self.done + size)
            alpha, epsilon = (_numbers(x, counts) for x in parts)
            self._play(size, -1, alpha, epsilon)
            return
        changing = any(x.name not in ("constant", "inverse_visits") for x in parts)
        for begin in range(self.done, self.done + size, 1 if changing else size):
            alpha, epsilon = (_numbers(x, np.array([begin])) for x in parts)
            self._play(-1, begin + (1 if changing else size), alpha, epsilon)

    def _play(self, num_steps: int, until: int, alpha: FloatArray, epsilon: FloatArray) -> None:
        self.player.play(
            self.rule, self.memory, self.runs, num_steps=num_steps, until_episodes=until, alpha=alpha,
            epsilon=epsilon,
        )  # fmt: skip

    def _record(self) -> None:
        runs = self.runs
        taken = runs.steps - (self.columns["step"][-1] if self.columns["step"] else 0)
        some = np.maximum(runs.ended, 1)
        row = {
            "step": runs.steps.astype(float),
            "episodes": runs.episodes.astype(float),
            "episode_return": np.where(runs.ended > 0, runs.returns / some, np.nan),
            "episode_length": np.where(runs.ended > 0, runs.lengths / some, np.nan),
            "reward": runs.rewards / np.maximum(taken, 1),
            "rmse": self._rmse(),
        }
        for name, values in row.items():
            self.columns[name].append(values)
        for tally in (runs.ended, runs.returns, runs.lengths, runs.rewards):
            tally[:] = 0

    def _event(self) -> Event:
        names = {"episode/return": "episode_return", "episode/length": "episode_length",
                 "reward/step": "reward", "error/rmse": "rmse"}  # fmt: skip
        metrics = {}
        for name, column in names.items():
            last = self.columns[column][-1]
            counted = last[np.isfinite(last)]
            if len(counted):
                metrics[name] = float(counted.mean())
        if self.learner.continuing:
            metrics["reward/gain"] = float(self.memory.gain.mean())
        return Event(
            kind="update",
            step=len(self.columns["step"]),
            num_samples=int(self.runs.steps.sum()),
            metrics=metrics,
            data={"num_runs": self.player.num_runs},
        )

    def _keep(self) -> None:
        """Run 0 is the learner's own: its table, what waits in its window, its random word."""
        learner = self.learner
        if learner.memory.past.shape[1] != self.memory.past.shape[1]:
            learner.memory = updates.Memory(*(x[:1].copy() for x in self.memory))
        for mine, theirs in zip(learner.memory, self.memory, strict=True):
            mine[0] = theirs[0]

    def _prepare(self, mask: np.ndarray, live: np.ndarray) -> None:
        tables = self.learner.shaped(self.memory.tables)
        tables[:, :, ~live] = 0.0  # nothing follows the end
        if not self.learner.of_states:
            tables[:, :, ~mask] = -np.inf

    def _truth(self, truth: Any) -> FloatArray | None:
        if truth is None:
            return None
        truth = np.asarray(truth, dtype=float)
        S, A = self.learner.num_states, self.learner.num_actions
        if truth.shape != (S,) and (self.learner.of_states or truth.shape != (S, A)):
            raise ShapeError(
                f"truth has shape {truth.shape}, expected [S] = ({S},)"
                + ("." if self.learner.of_states else f" or [S, A] = ({S}, {A}).")
            )
        return truth

    def _rmse(self) -> FloatArray:
        K = self.player.num_runs
        if self.truth is None:
            return np.full(K, np.nan)
        tables = self.tables
        if tables.ndim > self.truth.ndim + 1:
            tables = np.stack([state_values(q) for q in tables])
        counted = np.isfinite(self.truth)
        if self.player.live is not None:
            counted &= self.player.live if self.truth.ndim == 1 else self.player.live[:, None]
        distance = (tables - self.truth)[:, counted]
        return np.sqrt((distance**2).mean(axis=1))


def _numbers(schedule: Schedule, counts: np.ndarray) -> FloatArray:
    """The schedule at these counts; one number where it never changes (or is read off the visits)."""
    if schedule.name in ("constant", "inverse_visits"):
        return np.array([schedule.parameters[0]], dtype=float)
    return np.asarray(schedule(counts), dtype=float)


def _copied(record: Any) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in record._asdict().items()}
