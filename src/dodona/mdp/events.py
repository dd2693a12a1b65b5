"""Rows made on the fly: two engines, one for NumPy functions and one for compiled ones.

Both answer the same questions (what happens under one event; one sweep over all rows or over the
chosen ones), and add up over events in the same order, so they agree to the last bit where the
functions do. Memory is a block of rows, whatever the size of the model.

Not here: what makes a model valid and what it proves (matrix_free.py).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np

from dodona.core.shapes import BoolArray, FloatArray, IntArray
from dodona.errors import InputError, ShapeError
from dodona.mdp import event_kernels
from dodona.mdp.rows import Extremes

BLOCK_ROWS = (
    1 << 15
)  # (state, action) rows a NumPy function is given at once: its temporaries stay in cache
THREAD_STATES = 256  # fewer states are swept before a thread is told about them


class Outcome(NamedTuple):
    """What one event does to B rows; ended and feasible are None where no row says so."""

    successors: IntArray
    rewards: FloatArray
    ended: BoolArray | None
    feasible: BoolArray | None
    probs: FloatArray | float


class NumpyEvents:
    """Rows by ``transition(states [B], actions [B], event)``, swept block by block.

    events: [E] probabilities, or a function of the same arguments that returns [B] of them.
    """

    def __init__(
        self, transition: Callable, events: FloatArray | Callable, num_events: int, num_actions: int
    ):
        self.transition, self.events = transition, events
        self.num_events, self.num_actions = num_events, num_actions

    def outcome(self, states: IntArray, actions: IntArray, event: int) -> Outcome:
        answer = self.transition(states, actions, event)
        successors, rewards, ended, feasible = (*answer[: answer_length(answer)], None, None)[:4]
        successors = _column("next state", successors, states, "iu")
        rewards = _column("reward", rewards, states, "iuf")
        if ended is not None:
            ended = _column("terminated", ended, states, "b")
        if feasible is not None:
            feasible = _column("feasible", feasible, states, "b")
            successors = np.where(feasible, successors, 0)
            rewards = np.where(feasible, rewards, 0.0)
        if callable(self.events):
            probs = _column("probability", self.events(states, actions, event), states, "iuf")
        else:
            probs = self.events[event]
        return Outcome(successors, rewards, ended, feasible, probs)

    def row_values(
        self, states: IntArray, actions: IntArray, values: FloatArray, gamma: float, pay: float
    ) -> FloatArray:
        """[B] pay E[reward] + gamma E[v of the successor]; -inf where infeasible."""
        reward, total = np.zeros(len(states)), np.zeros(len(states))
        feasible = None
        for event in range(self.num_events):
            result = self.outcome(states, actions, event)
            after = values[result.successors]
            if result.ended is not None:
                after = np.where(result.ended, 0.0, after)
            reward += result.probs * result.rewards
            total += result.probs * after
            feasible = result.feasible
        q = pay * reward + gamma * total
        return q if feasible is None else np.where(feasible, q, -np.inf)

    def optimality_sweep(
        self, gamma: float, terminal: BoolArray, values: FloatArray, out: FloatArray,
        choice: IntArray, keep: float,
    ) -> Extremes:  # fmt: skip
        extremes = (np.inf, -np.inf, 0.0)
        for block in self.blocks(len(out)):
            states = np.flatnonzero(~terminal[block]) + block.start
            if len(states) < block.stop - block.start:
                out[block] = 0.0
                choice[block][terminal[block]] = -1
                if not len(states):
                    continue
            q = self.row_values(*self.pairs(states), values, gamma, 1.0)
            q = q.reshape(len(states), self.num_actions)
            best, arg = q.max(axis=1), q.argmax(axis=1)
            chosen = states * self.num_actions + arg
            if keep >= 0.0:
                before = choice[states]
                row = np.arange(len(states))
                kept = q[row, np.where(before < 0, arg, before - states * self.num_actions)]
                stays = (before >= 0) & (kept >= best - keep)
                chosen = np.where(stays, before, chosen)
            choice[states], out[states] = chosen, best
            extremes = _widen(extremes, best, values[states])
        return extremes

    def policy_sweep(
        self, gamma: float, pay: float, choice: IntArray, values: FloatArray, out: FloatArray
    ) -> Extremes:
        extremes = (np.inf, -np.inf, 0.0)
        for block in self.blocks(len(out), rows_per_state=1):
            states = np.flatnonzero(choice[block] >= 0) + block.start
            if len(states) < block.stop - block.start:
                out[block] = 0.0
                if not len(states):
                    continue
            actions = choice[states] - states * self.num_actions
            q = self.row_values(states, actions, values, gamma, pay)
            out[states] = q
            extremes = _widen(extremes, q, values[states])
        return extremes

    def pairs(self, states: IntArray) -> tuple[IntArray, IntArray]:
        """(states, actions) of every action in every given state."""
        return np.repeat(states, self.num_actions), np.tile(
            np.arange(self.num_actions), len(states)
        )

    def blocks(self, num_states: int, rows_per_state: int | None = None) -> list[slice]:
        """Slices of states whose rows fit one call."""
        step = max(BLOCK_ROWS // (rows_per_state or self.num_actions), 1)
        return [slice(i, min(i + step, num_states)) for i in range(0, num_states, step)]


class CompiledEvents(NumpyEvents):
    """Rows by a compiled ``transition(s, a, e)`` of scalars, fused into the sweeps, in threads."""

    def __init__(
        self,
        transition: Callable,
        events: FloatArray | Callable,
        num_events: int,
        num_actions: int,
        *,
        example: int,
    ):
        """``example``: a live state, at which the function is asked for the form of its answer."""
        super().__init__(transition, events, num_events, num_actions)
        answer = transition(example, 0, 0)
        self.length = answer_length(answer)
        if not isinstance(answer[0], int):
            raise TypeError(
                f"transition must return the next state as an integer, got {answer[0]!r} for "
                f"(s, a, e) = ({example}, 0, 0). Wrap it in int(...)."
            )
        listed = not callable(events)
        self.functions = (
            event_kernels.full_outcome(transition, self.length),
            event_kernels.listed if listed else event_kernels.free_law(events),
            events if listed else np.ones(num_events),
        )
        self._threads: ThreadPoolExecutor | None = None

    def outcome(self, states: IntArray, actions: IntArray, event: int) -> Outcome:
        B = len(states)
        successors, rewards, probs = np.empty(B, dtype=np.int64), np.empty(B), np.empty(B)
        ended, feasible = np.empty(B, dtype=bool), np.empty(B, dtype=bool)
        event_kernels.outcomes(
            *self.functions, states, actions, event, successors, rewards, ended, feasible, probs
        )
        if self.length > 3:
            successors[~feasible], rewards[~feasible] = 0, 0.0
        return Outcome(
            successors,
            rewards,
            ended if self.length > 2 else None,
            feasible if self.length > 3 else None,
            probs,
        )

    def optimality_sweep(self, gamma, terminal, values, out, choice, keep) -> Extremes:
        settings = (self.num_actions, gamma, terminal, values, out, choice, keep)
        return self._in_threads(event_kernels.optimality_sweep, settings, len(out))

    def policy_sweep(self, gamma, pay, choice, values, out) -> Extremes:
        settings = (self.num_actions, gamma, pay, choice, values, out)
        return self._in_threads(event_kernels.policy_sweep, settings, len(out))

    def _in_threads(self, kernel: Callable, settings: tuple, num_states: int) -> Extremes:
        num_parts = min(4 * numba.get_num_threads(), num_states // THREAD_STATES)
        if num_parts < 2:
            return kernel(*self.functions, *settings, 0, num_states)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(numba.get_num_threads())
        edges = [i * num_states // num_parts for i in range(num_parts + 1)]
        parts = self._threads.map(
            lambda first, last: kernel(*self.functions, *settings, first, last), edges, edges[1:]
        )
        low, high, size = zip(*parts, strict=True)
        return min(low), max(high), max(size)


def stored_rows(engine: NumpyEvents, states: IntArray) -> tuple[np.ndarray, ...]:
    """The rows of some states, events of equal successor, reward and end merged.

    Returns:
        Of each feasible pair: state, action, expected reward, number of successors; of each
        successor in turn: state, probability, reward, whether the transition ends.
    """
    rows = engine.pairs(states)
    outcomes = [engine.outcome(*rows, e) for e in range(engine.num_events)]
    allowed = outcomes[0].feasible
    keep = np.arange(len(rows[0])) if allowed is None else np.flatnonzero(allowed)
    reward = np.zeros(len(keep))
    for outcome in outcomes:  # in the order of the sweep, so that both round alike
        reward += (outcome.probs * outcome.rewards)[keep]
    no = np.zeros(len(rows[0]), dtype=bool)
    owner = np.repeat(np.arange(len(keep)), engine.num_events)
    successor, ended, paid, probs = (
        np.stack([column[keep] for column in columns], axis=1).ravel()
        for columns in (
            [o.successors for o in outcomes],
            [no if o.ended is None else o.ended for o in outcomes],
            [o.rewards for o in outcomes],
            [np.broadcast_to(o.probs, no.shape) for o in outcomes],
        )
    )
    order = np.lexsort((paid, ended, successor, owner))
    order = order[probs[order] > 0]
    owner, successor, ended, paid, probs = (
        column[order] for column in (owner, successor, ended, paid, probs)
    )
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.any([np.diff(column) != 0 for column in (owner, successor, ended, paid)], axis=0)
    first = np.flatnonzero(new)
    return (
        rows[0][keep], rows[1][keep], reward, np.bincount(owner[first], minlength=len(keep)),
        successor[first], np.add.reduceat(probs, first), paid[first], ended[first],
    )  # fmt: skip


def answer_length(answer: Any) -> int:
    """How many parts a transition answered: next state, reward[, terminated[, feasible]]."""
    if not isinstance(answer, tuple) or not 2 <= len(answer) <= 4:
        got = f"{len(answer)} parts" if isinstance(answer, tuple) else type(answer).__name__
        raise InputError(
            f"transition must return (next state, reward[, terminated[, feasible]]), got {got}."
        )
    return len(answer)


def _column(name: str, column: Any, states: IntArray, kinds: str) -> np.ndarray:
    """One part of an answer as an array like ``states``; a single number stands for all rows."""
    column = np.asarray(column)
    if column.dtype.kind not in kinds:
        wanted = {"iu": "integers", "b": "booleans"}.get(kinds, "real numbers")
        raise TypeError(f"transition: {name} must hold {wanted}, got dtype {column.dtype}.")
    if column.shape not in ((), states.shape):
        raise ShapeError(
            f"transition: {name} has shape {column.shape} for {len(states)} states; expected "
            f"{states.shape}, one entry per (state, action)."
        )
    return np.broadcast_to(column, states.shape)


def _widen(extremes: Extremes, swept: FloatArray, values: FloatArray) -> Extremes:
    change = swept - values
    low, high, size = extremes
    return (
        min(low, float(change.min())),
        max(high, float(change.max())),
        max(size, float(np.abs(swept).max())),
    )
