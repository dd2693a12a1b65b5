"""More from the same steps: experience replay, Dyna-Q, prioritised Dyna; all of them are Q-learning between.

    ReplayQLearning    learns again from transitions that it kept
    DynaQ              keeps counts instead: a model, from which it draws transitions
    PrioritizedDyna    takes from that model expectations, the largest error first

Reward arrives once and its news must travel: one step of Q-learning moves it by one state, ten updates from
memory by up to ten. In a model that changes, all three hold on to what was.

Not here: planning in a model that is given (mdp), replay for networks (replay.py).
Source: Lin 1992; Sutton 1990; Sutton & Barto 2018, ch. 8; of each class, its docstring.
"""

import numpy as np
from jaxtyping import Shaped

from dodona.core.inputs import check_count, check_range
from dodona.core.schedules import Schedule
from dodona.rl import _td_updates as updates
from dodona.rl.td import QLearning

LEAST_ROOM, PER_PAIR = (
    1024,
    8,
)  # outcomes that a model has room for where nobody says how many there are
KEPT = ("past_reward", "past", "heads", "backs", "known", "queue", "where", "key")


class _Remembering(QLearning):
    """What they share: what was remembered goes along when learning goes on elsewhere."""

    def begin(self, memory: updates.Memory) -> None:
        super().begin(memory)
        mine, counts = self.memory, [updates.FILLED, updates.HEAD, updates.KNOWN, updates.QUEUED]
        memory.count[:, counts] = mine.count[:, counts]
        for name in KEPT:
            old, new = getattr(mine, name), getattr(memory, name)
            new[:, : old.shape[1]] = old[:, : new.shape[1]]


class ReplayQLearning(_Remembering):
    """Q-learning that after every step learns again from some of the last transitions, drawn evenly.

    Off-policy by nature: a transition is true whoever made it, so old ones stay valid.

    Args:
        num_replays: updates from memory per step; 0 is Q-learning.
        capacity: how many transitions are kept.
        Others: see learner.Learner.
    Source: Lin 1992; Zhao 2025, ch. 7 and 8 (questions).
    Oracle: oracles.learning_from_memory.remembering, oracles.mdp.optimal_lp.
    Cost: 1 + num_replays updates per step; capacity * 7 numbers per run.
    """

    method = updates.REPLAY

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float, alpha: float | Schedule = 0.1,
        initial: float | Shaped[np.ndarray, "..."] = 0.0, num_replays: int = 8, capacity: int = 10_000,
    ):  # fmt: skip
        check_count(0, num_replays=num_replays)
        check_count(capacity=capacity)
        self.num_plans, self.capacity = num_replays, capacity
        super().__init__(num_states, num_actions, gamma=gamma, alpha=alpha, initial=initial)

    def room(self, *, outcomes: int | None = None, num_steps: int | None = None) -> int:
        return self.capacity


class DynaQ(_Remembering):
    """Q-learning and, after every step, num_plans updates from transitions that a learnt model draws.

    The model is the counts of every outcome (s, a, s', ended) and its mean reward. A pair is drawn evenly
    among those tried, its outcome by the counts.

    Args:
        num_plans: updates from the model per step; 0 is Q-learning.
        max_outcomes: room for distinct outcomes; None: as many as the source has, else 8 per pair.
        Others: see learner.Learner.
    Raises: SamplingError: more outcomes than there is room for.
    Source: Sutton 1990; Sutton & Barto 2018, sec. 8.2 (there for deterministic models).
    Oracle: oracles.learning_from_memory.remembering, oracles.mdp.optimal_lp.
    Cost: 1 + num_plans updates per step, and a walk over the outcomes of each pair drawn.
    """

    method = updates.DYNA

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float, alpha: float | Schedule = 0.1,
        initial: float | Shaped[np.ndarray, "..."] = 0.0, num_plans: int = 5, max_outcomes: int | None = None,
    ):  # fmt: skip
        check_count(0, num_plans=num_plans)
        check_count(max_outcomes=max_outcomes)
        self.num_plans, self.max_outcomes = num_plans, max_outcomes
        super().__init__(num_states, num_actions, gamma=gamma, alpha=alpha, initial=initial)

    @property
    def no_room(self) -> str:
        return (
            f"{type(self).__name__} met more distinct outcomes (s, a, s') than it has room for "
            f"({self.memory.past.shape[1] - 1}). Give max_outcomes."
        )

    def room(self, *, outcomes: int | None = None, num_steps: int | None = None) -> int:
        known = self.memory.count[0, updates.FILLED] if hasattr(self, "memory") else 0
        if self.max_outcomes is not None:
            wanted = self.max_outcomes
        elif outcomes is not None:
            wanted = outcomes + int(known)
        else:
            wanted = max(LEAST_ROOM, PER_PAIR * self.num_states * self.num_actions)
        return 1 + max(wanted, int(known))  # row 0 is nobody's


class PrioritizedDyna(DynaQ):
    """Dyna with prioritised sweeping: of all pairs the one whose model says it is furthest off moves first.

    A pair moves towards its expectation in the model, sum_s' p (r + gamma max_a q(s', a)); then the pairs that
    lead into its state are looked at. The step itself updates the model only.

    Args:
        alpha: 1 sets a pair to its expectation, in which there is no noise left to average.
        num_plans: updates per step, at most.
        least: errors up to here do not enter the queue, in the unit of returns. 1e-4 is the book's.
        Others: see DynaQ.
    Raises: as DynaQ.
    Source: Moore & Atkeson 1993; Peng & Williams 1993; Sutton & Barto 2018, sec. 8.4.
    Oracle: oracles.learning_from_memory.remembering, oracles.empirical.empirical_mdp.
    Cost: per update the outcomes of every pair that leads into the state.
    """

    method = updates.PRIORITIZED

    def __init__(
        self, num_states: int, num_actions: int, *, gamma: float, alpha: float | Schedule = 1.0,
        initial: float | Shaped[np.ndarray, "..."] = 0.0, num_plans: int = 5, least: float = 1e-4,
        max_outcomes: int | None = None,
    ):  # fmt: skip
        check_range("[0, inf)", "1e-4 is usual; 0 queues every change.", least=least)
        self.least = least
        super().__init__(
            num_states, num_actions, gamma=gamma, alpha=alpha, initial=initial, num_plans=num_plans,
            max_outcomes=max_outcomes,
        )  # fmt: skip


__all__ = ["DynaQ", "PrioritizedDyna", "ReplayQLearning"]
