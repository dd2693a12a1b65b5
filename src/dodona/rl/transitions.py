"""One-step experience as NumPy columns: from a Batch, from a tuple, or from a walk through a model.

Not here: learning from it (linear_base.py, lstd.py, fitted_q.py).

Source: ours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from dodona.core.inputs import as_numpy, check_count, check_finite, check_range
from dodona.core.rng import Streams
from dodona.core.shapes import BoolArray, FloatArray, IntArray
from dodona.errors import InputError, ShapeError
from dodona.mdp.model import MDP
from dodona.rl._linear_kernels import record_walk
from dodona.rl.outcomes import action_outcomes, pair_outcomes, policy_table, start_outcomes

FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True, eq=False)
class Transitions:
    """One-step experience as arrays with N rows, in the order in which it came."""

    states: Shaped[np.ndarray, "N ..."]
    actions: Shaped[np.ndarray, "N ..."] | None
    rewards: FloatArray
    next_states: Shaped[np.ndarray, "N ..."]
    terminated: BoolArray
    truncated: BoolArray
    next_actions: Shaped[np.ndarray, "N ..."] | None = None

    def action_numbers(self, num_actions: int) -> IntArray:
        """[N] the actions, checked.  Raises: TypeError: not integers.  InputError: outside 0..A-1."""
        actions = np.asarray(self.actions)
        if actions.dtype.kind not in "iu":
            raise TypeError(f"actions must be integers, got dtype {actions.dtype}.")
        check_range(f"[0, {num_actions})", actions=actions)
        return actions.reshape(len(self.rewards)).astype(np.int64)

    def columns(self, take: slice) -> tuple:
        """Some rows, as ``update`` takes them."""
        every = (
            self.states, self.actions, self.rewards, self.next_states, self.terminated, self.truncated,
            self.next_actions,
        )  # fmt: skip
        return tuple(None if c is None else c[take] for c in every)


def transitions(source: Any) -> Transitions:
    """A Batch, or (s, a, r, s2, terminated[, truncated[, a2]]), as NumPy arrays; masked rows are dropped.

    Raises: ShapeError: columns of different lengths.  NonFiniteError: rewards.  InputError: none at all; a Batch
    without rewards, next_obs or terminated; another kind of source.
    Source: ours.  Oracle: its columns themselves.  Cost: O(N).
    """
    if hasattr(source, "next_obs"):
        missing = [f for f in ("rewards", "next_obs", "terminated") if getattr(source, f) is None]
        if missing:
            raise InputError(
                f"this batch has no {', '.join(missing)}. One-step learning needs them."
            )
        keep = as_numpy(source.mask).ravel() != 0
        lead = source.mask.ndim

        def column(x: Any) -> Any:
            x = as_numpy(x)
            return x.reshape(-1, *x.shape[lead:])[keep]

        truncated = source.terminated & False if source.truncated is None else source.truncated
        columns = [
            column(x)
            for x in (source.obs, source.actions, source.rewards, source.next_obs, source.terminated, truncated)
        ]  # fmt: skip
    elif isinstance(source, tuple) and len(source) in (5, 6, 7):
        columns = [None if x is None else as_numpy(x) for x in source]
    else:
        raise InputError(
            f"a source of transitions is a Batch or (s, a, r, s2, terminated[, truncated[, a2]]), got "
            f"{type(source).__name__}."
        )
    num = len(columns[2])
    if not num:
        raise InputError("there is no transition to learn from; at least one is needed.")
    if len(columns) == 5:
        columns.append(np.zeros(num, dtype=bool))
    wrong = {len(c) for c in columns if c is not None} - {num}
    if wrong:
        raise ShapeError(
            f"columns of transitions have {num} and {wrong.pop()} rows; all need the same."
        )
    rewards = np.asarray(columns[2], dtype=np.float64)
    check_finite(rewards=rewards)
    return Transitions(
        states=columns[0], actions=columns[1], rewards=rewards, next_states=columns[3],
        terminated=columns[4].astype(bool), truncated=columns[5].astype(bool),
        next_actions=columns[6] if len(columns) == 7 else None,
    )  # fmt: skip


def episode_limit(max_episode_steps: int | None) -> int:
    """The count after which an episode is cut; never, without one."""
    check_count(max_episode_steps=max_episode_steps)
    return FOREVER if max_episode_steps is None else int(max_episode_steps)


def sample_transitions(
    mdp: MDP,
    num_steps: int,
    *,
    seed: int = 0,
    policy: Shaped[np.ndarray, "..."] | None = None,
    max_episode_steps: int | None = None,
) -> Transitions:
    """A recorded walk through a model; states and actions are numbers, next_actions those taken next.

    Args:
        num_steps: transitions, at least 1.  policy: who acts, [S] or [S, A]; None: uniform.
        max_episode_steps: episodes are cut (truncated) there.
    Source: ours.  Oracle: the model's probabilities.  Cost: O(num_steps).
    """
    check_count(num_steps=num_steps)
    pair_of = np.full((mdp.num_states, mdp.num_actions), -1, dtype=np.int64)
    pair_of[mdp.pair_state, mdp.actions] = np.arange(mdp.num_pairs)
    numbers = np.zeros((4, num_steps), dtype=np.int64)
    rewards, flags = np.zeros(num_steps), np.zeros((2, num_steps), dtype=bool)
    words = np.array([Streams(seed).integer("transitions")], dtype=np.uint64)
    record_walk(
        pair_outcomes(mdp), start_outcomes(mdp), action_outcomes(mdp, policy_table(mdp, policy)), pair_of,
        episode_limit(max_episode_steps), words, numbers, rewards, flags,
    )  # fmt: skip
    states, actions, next_states, next_actions = numbers
    return Transitions(
        states=states, actions=actions, rewards=rewards, next_states=next_states, terminated=flags[0],
        truncated=flags[1], next_actions=next_actions,
    )  # fmt: skip
