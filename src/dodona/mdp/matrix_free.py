"""Models too large to store: rows made on the fly from a transition function and its events.

q(s, a) = sum_e p(e|s, a) [ r(s, a, e) + gamma v(s'(s, a, e)) ], where s' and r are functions and
e = 0..E-1 numbers what may happen (a demand, a fault, a gust). Neither P nor q is ever built: what
grows with the model is one array of values, one of choices and one of terminal flags. Planners and
``certify`` work as on an MDP, and their brackets hold for the numbers that the functions return.

Not here: methods that walk over stored rows (Gauss-Seidel, LU, topological order, ...); ``to_mdp``
stores the rows for them.

Source: Puterman 1994, ch. 6; the division into action, event and transition is that of mdpax
(Farrington et al. 2023, arXiv:2303.10672).
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from numba.extending import is_jitted

from dodona.core.shapes import BoolArray, FloatArray, IntArray
from dodona.errors import InputError, MDPError, ShapeError
from dodona.mdp.certificate import UNIT
from dodona.mdp.events import CompiledEvents, NumpyEvents, Outcome, stored_rows
from dodona.mdp.formats.dense import terminal_mask
from dodona.mdp.model import DENSE_LIMIT, MDP, Labels
from dodona.mdp.rows import Extremes, Model

ROW_SUM = 1e-9  # how far the event probabilities of a pair may miss one, times sqrt(E)
METHODS = frozenset(
    ("auto", "value-iteration", "anderson", "truncated", "policy-iteration", "inexact")
)
STORED = ("sa_indptr", "actions", "indptr", "indices", "probs", "rewards", "weights", "pair_state")
# of stored_rows: successor, probability, reward, discount, and their sorting
BYTES_PER_OUTCOME = 49
# what one pass over all rows tells
FACTS = ("num_pairs", "mass", "reward_bound", "policy_share", "ends")


class MatrixFree(Model):
    """An MDP given by functions, validated by one pass when it is made, or when it is first used.

    >>> def walk(states, actions, event):  # on a ring of 5, pays 1 for reaching state 0
    ...     to = (states + (2 * actions - 1) * (1 - event)) % 5
    ...     return to, (to == 0).astype(float)
    >>> from dodona.mdp import solve
    >>> solve(MatrixFree(walk, [0.9, 0.1], 5, 2, gamma=0.9)).policy.tolist()
    [0, 0, 0, 1, 1]

    Args:
        transition: deterministic and total: it is asked for every action in every live state, and
            what it says about an infeasible pair is ignored. One of
            - a NumPy function (states [B], actions [B], event) -> (next states [B], rewards [B]),
              of int64 arrays and the number of an event, called in blocks;
            - a function (s, a, e) -> (next state, reward) of integers, compiled with
              ``numba.njit`` and fused into the parallel sweeps: the fast path.
            Either may also return ``terminated`` (True: nothing follows, the next state's value is
            not added) and, after it, ``feasible`` (True: the action may be taken; the same for
            every event).
        events: [E] probabilities of the events, or a function of the arguments of ``transition``
            that returns the probability, compiled if that is. Then num_events is needed.
        num_states, num_actions: states are 0..num_states-1, actions 0..num_actions-1.
        gamma: discount in [0, 1]; 1 only where every pair ends with some probability.
        terminal: [S] bool, or the numbers of states where nothing follows. Default: none.
        labels: names and grid shape for tables and pictures.
        num_events: number of events, where ``events`` is a function.
        validate: False puts that pass off until a planner needs it; ``shard`` then looks at its own
            rows only, so that no process walks over the whole model.
    Raises:
        MDPError: the first offending state, action and event, what was got and what is expected.
        InputError, ShapeError, TypeError: answers of another form than the above.
    Source: see the module.
    Oracle: to_mdp, and through it every oracle of an MDP.
    Cost: one sweep to make it; a sweep calls the functions S A E times.
    """

    start = None
    methods = METHODS
    advice = "it has no stored rows. Store them with .to_mdp() if they fit."

    def __init__(
        self,
        transition: Callable[..., Any],
        events: Shaped[np.ndarray, "E"] | list | tuple | Callable[..., Any],
        num_states: int,
        num_actions: int,
        *,
        gamma: float,
        terminal: Shaped[np.ndarray, "..."] | Iterable[int] | None = None,
        labels: Labels | None = None,
        num_events: int | None = None,
        validate: bool = True,
    ):
        if num_states < 1 or num_actions < 1:
            raise MDPError(
                f"num_states and num_actions must be >= 1, got {num_states} and {num_actions}."
            )
        if not 0.0 <= gamma <= 1.0:
            raise MDPError(f"gamma must be in [0, 1], got {gamma}. 0.9 to 0.999 is usual.")
        self.num_states, self.num_actions, self.gamma = num_states, num_actions, float(gamma)
        self.terminal, self.labels = terminal_mask(terminal, num_states), labels
        events = events if callable(events) else _probabilities(events)
        self.num_events = _number_of_events(events, num_events)
        # E products and E - 1 sums of rewards, the same of values, the discount, the last sum
        self.num_roundings = self.num_events + 4
        self._rows = self._engine(transition, events)
        if validate:
            self._audit()

    # ------------------------------------------------------------------ what planners ask
    def optimality_sweep(self, values, out, choice, keep) -> Extremes:
        return self._rows.optimality_sweep(self.gamma, self.terminal, values, out, choice, keep)

    def policy_sweep(self, choice, values, out) -> Extremes:
        return self._rows.policy_sweep(self.gamma, 1.0, choice, values, out)

    def policy_product(self, choice, values, out) -> None:
        self._rows.policy_sweep(self.gamma, 0.0, choice, values, out)

    def policy_rewards(self, choice) -> FloatArray:
        out = np.zeros(self.num_states)
        self._rows.policy_sweep(0.0, 1.0, choice, np.zeros(self.num_states), out)
        return out

    def pair_actions(self, choice) -> IntArray:
        return np.where(choice >= 0, choice % self.num_actions, -1)

    def pairs_of(
        self, states: Int[np.ndarray, "B"], actions: Int[np.ndarray, "B"]
    ) -> Int[np.ndarray, "B"]:
        """Number s A + a of each (state, action); MDPError names the first infeasible one."""
        states, actions = np.asarray(states, dtype=np.int64), np.asarray(actions, dtype=np.int64)
        bad = (actions < 0) | (actions >= self.num_actions)
        feasible = self._rows.outcome(states, np.where(bad, 0, actions), 0).feasible
        if feasible is not None:
            bad = bad | ~feasible
        if bad.any():
            i = int(np.argmax(bad))
            s, a = int(states[i]), int(actions[i])
            raise MDPError(
                f"action {a} is infeasible in state {s}. Feasible there: {self.feasible(s)}.",
                state=s,
                action=a,
            )
        return states * self.num_actions + actions

    def q_table(self, values: Float[np.ndarray, "S"]) -> Float[np.ndarray, "S A"]:
        """Action values, -inf where infeasible; this is the one view that costs O(S A) memory."""
        out = np.full((self.num_states, self.num_actions), -np.inf)
        for states in self._live_blocks():
            out[states] = self._block_q(states, values)
        return out

    def others_below(self, choice, values, bound) -> bool:
        for states in self._live_blocks():
            q = self._block_q(states, values)
            q[np.arange(len(states)), choice[states] % self.num_actions] = -np.inf
            if not np.all(q < bound[states, None]):
                return False
        return True

    @property
    def discounted(self) -> bool:
        return self.gamma < 1.0 or self.ends

    # ------------------------------------------------------------------ views
    def feasible(self, state: int) -> list[int]:
        """The actions that may be taken in a state."""
        if self.terminal[state]:
            return []
        flags = self._rows.outcome(*self._rows.pairs(np.array([state])), 0).feasible
        return list(range(self.num_actions)) if flags is None else np.flatnonzero(flags).tolist()

    def to_mdp(self) -> MDP:
        """The same model with stored rows; events of equal successor, reward and end are merged.

        Raises: MDPError: the rows would need more than 4 GiB.
        Oracle: sweeps of both agree to rounding.  Cost: O(S A E) time and memory.
        """
        rows = self.stored_rows(0, self.num_states)
        ended = rows.pop("ended")
        return MDP.from_pairs(
            **rows,
            num_states=self.num_states,
            gamma=self.gamma,
            discounts=np.where(ended, 0.0, self.gamma) if self.ends else None,
            terminal=self.terminal,
            labels=self.labels,
            num_actions=self.num_actions,
        )

    def stored_rows(self, first: int, last: int) -> dict[str, np.ndarray]:
        """The rows of the states first..last-1, checked, in the form of ``MDP.from_pairs``.

        Returns: pair_state, pair_action, indptr, indices, probs, rewards, transition_rewards, and
            ``ended``, which transitions nothing follows; states are numbered as in the model.
        Raises: MDPError: rows that are wrong, or that would need more than 4 GiB.
        Oracle: sweeps of both agree to rounding.
        Cost: O(A E) time and memory per state, of these states only.
        """
        pairs = (last - first) * self.num_actions
        size = BYTES_PER_OUTCOME * pairs * self.num_events
        if size > DENSE_LIMIT:
            raise MDPError(
                f"the rows of {last - first} states need about {size / 2**30:.1f} GiB (pairs={pairs}, "
                f"events={self.num_events}). Plan without them ({', '.join(sorted(METHODS))}), or give "
                "each of several processes fewer: shard(model, rank, num_ranks)."
            )
        blocks = list(self._live_blocks(first, last)) or [np.empty(0, dtype=np.int64)]
        for states in blocks:
            self._audit_block(states)
        state, action, reward, count, successor, probs, paid, ended = (
            np.concatenate(column)
            for column in zip(*(stored_rows(self._rows, b) for b in blocks), strict=True)
        )
        return {
            "pair_state": state, "pair_action": action,
            "indptr": np.concatenate([[0], np.cumsum(count)]),
            "indices": successor, "probs": probs, "rewards": reward, "transition_rewards": paid,
            "ended": ended,
        }  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        if name in FACTS:
            self._audit()
            return self.__dict__[name]
        if name in STORED:
            raise AttributeError(
                f"a MatrixFree model stores no rows, so it has no '{name}'. Use .to_mdp()."
            )
        raise AttributeError(f"'MatrixFree' object has no attribute '{name}'")

    # ------------------------------------------------------------------ private
    def _engine(self, transition: Callable, events: FloatArray | Callable) -> NumpyEvents:
        compiled = is_jitted(transition)
        if callable(events) and is_jitted(events) != compiled:
            raise TypeError(
                "transition and events must both be NumPy functions or both compiled with "
                "numba.njit: the first take arrays, the second take integers."
            )
        settings = (transition, events, self.num_events, self.num_actions)
        live = int(np.argmin(self.terminal))  # the first one, found without touching the others
        if compiled and not self.terminal[live]:
            return CompiledEvents(*settings, example=live)
        return NumpyEvents(*settings)

    def _live_blocks(self, first: int = 0, last: int | None = None) -> Iterable[IntArray]:
        start, stop = first, self.num_states if last is None else last
        for block in self._rows.blocks(stop - start):
            low, high = start + block.start, start + block.stop
            states = np.flatnonzero(~self.terminal[low:high]) + low
            if len(states):
                yield states

    def _block_q(self, states: IntArray, values: FloatArray) -> Float[np.ndarray, "B A"]:
        q = self._rows.row_values(*self._rows.pairs(states), values, self.gamma, 1.0)
        return q.reshape(len(states), self.num_actions)

    def _audit(self) -> None:
        """One pass over everything: what the certificate needs, and the first thing that is wrong."""
        low, high, bound, pairs, ends = np.inf, 0.0, 0.0, 0, False
        for states in self._live_blocks():
            least, most, largest, feasible, ended = self._audit_block(states)
            low, high, bound = min(low, least), max(high, most), max(bound, largest)
            pairs, ends = pairs + feasible, ends or ended
        self.num_pairs, self.ends = pairs, ends
        self.mass = (self.gamma * float(min(low, high)), self.gamma * float(high))
        self.reward_bound = float(bound) * (1.0 + 2 * self.num_events * UNIT)
        self.policy_share = int(np.count_nonzero(~self.terminal)) / max(pairs, 1)

    def _audit_block(self, states: IntArray) -> tuple[float, float, float, int, bool]:
        """(least mass kept, most, bound on |reward|, feasible pairs, whether any ends) of live states."""
        if not len(states):
            return np.inf, 0.0, 0.0, 0, False
        rows, ends = self._rows.pairs(states), False
        kept, total, paid = (np.zeros(len(rows[0])) for _ in range(3))
        allowed: BoolArray | None = None
        for event in range(self.num_events):
            outcome = self._rows.outcome(*rows, event)
            here = np.ones(len(kept), dtype=bool) if outcome.feasible is None else outcome.feasible
            if allowed is None:
                allowed = here
            self._check(rows, event, outcome, here, allowed)
            alive = ~self.terminal[outcome.successors]
            if outcome.ended is not None:
                alive &= ~outcome.ended
                ends = ends or bool(np.any(outcome.ended & here))
            kept += np.where(alive, outcome.probs, 0.0)
            total += outcome.probs
            paid += outcome.probs * np.abs(outcome.rewards)
        self._check_rows(rows, total, allowed)
        kept, paid = kept[allowed], paid[allowed]
        return kept.min(), kept.max(), paid.max(), int(allowed.sum()), ends

    def _check(
        self, rows: tuple[IntArray, IntArray], event: int, outcome: Outcome, here: BoolArray,
        allowed: BoolArray,
    ) -> None:  # fmt: skip
        to, probs = outcome.successors, outcome.probs
        for wrong, got, text in (
            (here != allowed, here, "feasible differs from that of event 0; it may depend on state "
             "and action only"),
            (here & ((to < 0) | (to >= self.num_states)), to,
             f"the next state is out of range 0..{self.num_states - 1}, also where terminated is True"),
            (here & ~np.isfinite(outcome.rewards), outcome.rewards, "the reward must be finite. An "
             "action that must not be taken is infeasible, not paid -inf"),
            (here & ~((probs >= 0) & (probs <= 1)), np.broadcast_to(probs, here.shape),
             "the probability must be in [0, 1]"),
        ):  # fmt: skip
            if wrong.any():
                i = int(np.argmax(wrong))
                s, a = int(rows[0][i]), int(rows[1][i])
                raise MDPError(
                    f"state {s}, action {a}, event {event}: {text}. Got {got[i]}.",
                    state=s,
                    action=a,
                )

    def _check_rows(
        self, rows: tuple[IntArray, IntArray], total: FloatArray, allowed: BoolArray
    ) -> None:
        tolerance = ROW_SUM * self.num_events**0.5
        wrong = allowed & ~(np.abs(total - 1.0) <= tolerance)
        if wrong.any():
            i = int(np.argmax(wrong))
            s, a = int(rows[0][i]), int(rows[1][i])
            raise MDPError(
                f"state {s}, action {a}: the event probabilities sum to {float(total[i])!r}, expected 1 "
                f"within {tolerance:.1e}.",
                state=s,
                action=a,
            )
        idle = ~allowed.reshape(-1, self.num_actions).any(axis=1)
        if idle.any():
            s = int(rows[0][int(np.argmax(idle)) * self.num_actions])
            raise MDPError(
                f"state {s} has no feasible action and is not terminal. Give it an action, or mark "
                "it in `terminal`.",
                state=s,
            )


def _probabilities(events: Any) -> FloatArray:
    probs = np.ascontiguousarray(events, dtype=np.float64)
    if probs.ndim != 1 or not len(probs):
        raise ShapeError(
            f"events has shape {probs.shape}, expected [E]: one probability per event."
        )
    return probs


def _number_of_events(events: FloatArray | Callable, num_events: int | None) -> int:
    if not callable(events):
        if num_events not in (None, len(events)):
            raise InputError(
                f"num_events is {num_events} and events lists {len(events)}. Leave num_events out."
            )
        return len(events)
    if num_events is None or num_events < 1:
        raise InputError(
            f"num_events must be >= 1 where events is a function, got {num_events}: how many "
            "outcomes can an action have?"
        )
    return num_events
