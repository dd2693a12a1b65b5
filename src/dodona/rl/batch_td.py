"""What a finite record says of the values of states: batch TD and batch Monte Carlo, without a step size.

TD or Monte Carlo that sees the same record again and again, with small steps, comes to rest where its mean
update is 0. Both rest where

    v(s) = mean over the visits of s of [ R + c v(s'') ],

R the rewards up to s'', c its discount, 0 where the episode ended. They differ in s'':

    BatchTD   one step (or n) on: the values of the maximum-likelihood model of the record (certainty equivalence)
    BatchMC   the end: the mean of the returns, which has the least squared error on the record itself

TD's answer is the better guess of what comes next; they agree where the record is long. A state that was never
left keeps its first value. The record is kept whole, and the equations are solved whenever somebody looks.

Not here: steps (td.py), features (lstd.py: LSTD on OneHot features is BatchTD).
Source: Sutton 1988; Sutton & Barto 2018, sec. 6.3.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import sparse
from scipy.sparse.linalg import splu

from dodona.core.inputs import check_choice, check_count
from dodona.core.shapes import BoolArray, FloatArray, IntArray
from dodona.errors import InputError
from dodona.objectives.targets import td_target
from dodona.rl import _td_updates as updates
from dodona.rl._td_planning import COUNT, ENDED, PAIR, STATE
from dodona.rl.learner import Learner

LONGEST_RECORD = 10_000  # transitions that a run keeps where nobody says how many come


class _Batch(Learner):
    """What they share: a record, and its equations."""

    method, expectation, of_states = updates.RECORD, updates.STATE, True
    num_steps = 1

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float,
        initial: float | Shaped[np.ndarray, "..."] = 0.0, longest_record: int | None = None,
    ):  # fmt: skip
        check_count(longest_record=longest_record)
        self.longest_record = longest_record
        super().__init__(num_states, num_actions, gamma=gamma, alpha=1.0, initial=initial)

    @property
    def no_room(self) -> str:
        return (
            f"the record of {type(self).__name__} is full ({self.memory.past.shape[1]} transitions). Give "
            "longest_record, or count num_steps instead of num_episodes."
        )

    def room(self, *, outcomes: int | None = None, num_steps: int | None = None) -> int:
        kept = int(self.memory.count[0, updates.FILLED]) if hasattr(self, "memory") else 0
        return max(kept, self.longest_record or kept + (num_steps or LONGEST_RECORD))

    def begin(self, memory: updates.Memory) -> None:
        super().begin(memory)
        n = int(self.memory.count[0, updates.FILLED])
        memory.past[:, :n], memory.past_reward[:, :n] = self.memory.past[:, :n], self.memory.past_reward[:, :n]  # fmt: skip
        memory.count[:, updates.FILLED] = n

    def settle(self, memory: updates.Memory) -> None:
        super().settle(memory)
        for k in range(len(memory.count)):
            n = int(memory.count[k, updates.FILLED])
            past, rewards = memory.past[k, :n], memory.past_reward[k, :n]
            ended, cut = past[:, ENDED] != 0, past[:, COUNT] != 0
            rows, totals, discounts, after = self._looks_ahead(past, rewards, ended, cut)
            memory.tables[k, 0], memory.visits[k, 0] = rest(
                past[rows, PAIR], totals, discounts, after, memory.tables[k, 0]
            )

    def _looks_ahead(
        self, past: IntArray, rewards: FloatArray, ended: BoolArray, cut: BoolArray
    ) -> Any:
        return look_ahead(past, rewards, ended, cut, self.gamma, num_steps=self.num_steps)

    def target(
        self, rewards: Float[np.ndarray, "B"], discounts: Float[np.ndarray, "B"],
        next_states: Int[np.ndarray, "B"], next_actions: Int[np.ndarray, "B"] | None = None,
        *, epsilon: float = 0.1,
    ) -> Float[np.ndarray, "B"]:  # fmt: skip
        """r + c v(s')."""
        return td_target(rewards, discounts, self.values[next_states])


class BatchTD(_Batch):
    """The values that TD(0), or n-step TD, comes to rest at on a record: those of its most likely model (n = 1).

    Args:
        num_states, num_actions, gamma, initial: see learner.Learner.
        num_steps: rewards before a value is asked for, n >= 1.
        longest_record: room for transitions per run; None: num_steps of learn, else 10 000.
    Raises: InputError: gamma is 1 and some state of the record never comes to an end in it.
        SamplingError: more transitions than there is room for.
    Source: Sutton & Barto 2018, sec. 6.3.
    Oracle: oracles.mdp.empirical_mdp and policy_value; oracles.learning_from_memory.at_rest.
    Cost: one sparse LU of the states met, whenever a record or an update is looked at.
    """

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float,
        initial: float | Shaped[np.ndarray, "..."] = 0.0, num_steps: int = 1, longest_record: int | None = None,
    ):  # fmt: skip
        check_count(num_steps=num_steps)
        self.num_steps = num_steps
        super().__init__(
            num_states, num_actions, gamma=gamma, initial=initial, longest_record=longest_record
        )


class BatchMC(_Batch):
    """The mean return of each state on a record; an episode that is still going does not count yet.

    Where a time limit cut an episode, its last state's value stands for what would have followed.

    Args:
        visits: "every", or the "first" visit of a state in an episode.
        Others: see BatchTD.
    Raises: as BatchTD.
    Source: Sutton & Barto 2018, sec. 5.1 and 6.3.
    Oracle: oracles.learning_from_memory.at_rest.
    """

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float,
        initial: float | Shaped[np.ndarray, "..."] = 0.0, visits: Literal["every", "first"] = "every",
        longest_record: int | None = None,
    ):  # fmt: skip
        check_choice(("every", "first"), visits=visits)
        self.first_visit_only = visits == "first"
        super().__init__(
            num_states, num_actions, gamma=gamma, initial=initial, longest_record=longest_record
        )

    def _looks_ahead(
        self, past: IntArray, rewards: FloatArray, ended: BoolArray, cut: BoolArray
    ) -> Any:
        whole = int(np.flatnonzero(cut)[-1]) + 1 if cut.any() else 0
        past, rewards, ended, cut = past[:whole], rewards[:whole], ended[:whole], cut[:whole]
        rows, *ahead = look_ahead(past, rewards, ended, cut, self.gamma, num_steps=whole)
        if not self.first_visit_only:
            return rows, *ahead
        episode = np.cumsum(cut) - cut
        first = np.unique(np.stack([episode, past[:, PAIR]]), axis=1, return_index=True)[1]
        return rows[first], *(x[first] for x in ahead)


def look_ahead(
    past: Int[np.ndarray, "N columns"], rewards: Float[np.ndarray, "N"], ended: Shaped[np.ndarray, "N"],
    cut: Shaped[np.ndarray, "N"], gamma: float, *, num_steps: int,
) -> tuple[IntArray, FloatArray, FloatArray, IntArray]:  # fmt: skip
    """(row, R, c, s'') of every transition: rewards of up to num_steps steps, then c v(s'').

    Doubling: what 2^k steps see is put together of two halves, so that a Monte Carlo return over T steps
    takes log T passes.
    Source: ours.  Oracle: oracles.learning_from_memory.at_rest.  Cost: O(N log n).
    """
    N = len(rewards)
    rows = np.arange(N)
    last = np.zeros(N, dtype=np.int64)  # last row of the row's episode
    if N:
        ends = np.flatnonzero(cut | (rows == N - 1))
        last = ends[np.searchsorted(ends, rows)]
    # of blocks of 2^k rows: sum of rewards, discount and reach
    block, factor, size = rewards.astype(float).copy(), gamma, 1
    totals, reach, gone = np.zeros(N), rows.copy(), np.ones(N)
    left = np.minimum(num_steps, last - rows + 1)
    while N and size <= left.max():
        use = (left & size) != 0
        at = reach[use]
        totals[use] += gone[use] * block[at]
        gone[use] *= factor
        reach[use] += size
        block[: N - size] += factor * block[size:]
        factor, size = factor * factor, 2 * size
    end = np.maximum(reach - 1, 0)
    return rows, totals, np.where(ended[end], 0.0, gone), past[end, STATE]


def rest(
    states: Int[np.ndarray, "N"], totals: Float[np.ndarray, "N"], discounts: Float[np.ndarray, "N"],
    after: Int[np.ndarray, "N"], first: Float[np.ndarray, "S"],
) -> tuple[FloatArray, IntArray]:  # fmt: skip
    """(values [S], visits [S]) with v(s) = mean over its rows of totals + discounts v(after).

    first: values of the states without a row.
    Raises: InputError: no row leads out of some states, and nothing is discounted.
    Source: ours.  Oracle: oracles.learning_from_memory.at_rest.  Cost: one sparse LU.
    """
    S = len(first)
    visits = np.bincount(states, minlength=S)
    met = visits > 0
    values = first.copy()
    if not met.any():
        return values, visits
    _require_end(states, discounts, after, met)
    place = np.cumsum(met) - 1
    n = int(met.sum())
    inner = met[after] & (discounts != 0)
    right = np.bincount(
        place[states], totals + np.where(inner, 0.0, discounts * first[after]), minlength=n
    )
    matrix = sparse.diags_array(visits[met].astype(float)) - sparse.coo_array(
        (discounts[inner], (place[states[inner]], place[after[inner]])), shape=(n, n)
    )
    values[met] = splu(sparse.csc_array(matrix)).solve(right)
    return values, visits


def _require_end(states: IntArray, discounts: FloatArray, after: IntArray, met: BoolArray) -> None:
    """From every state some row leads to where less than everything counts, or nothing is known."""
    leads_out = np.zeros(len(met), dtype=bool)
    leads_out[states[(discounts < 1) | ~met[after]]] = True
    while True:
        found = leads_out.copy()
        found[states[leads_out[after]]] = True
        if (found == leads_out).all():
            break
        leads_out = found
    stuck = met & ~leads_out
    if stuck.any():
        raise InputError(
            f"gamma is 1 and from state {int(np.argmax(stuck))} no recorded path comes to an end, so its value "
            "is not finite. Record whole episodes, or use gamma < 1."
        )


__all__ = ["BatchMC", "BatchTD"]
