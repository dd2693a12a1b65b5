"""Models from a function and from samples: both become one table of transitions, and that a model.

The table settles what ends: a transition that terminates, into a state that may live on elsewhere.

Not here: arrays (dense.py, matrices.py), files (tables.py), Gymnasium (gymnasium_table.py).
Source: Sutton & Barto 2018, sec. 6.3 (the model that a batch of samples makes most likely); White 2017,
arXiv:1609.01995 (per-transition discounts).
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from dodona.errors import MDPError, ShapeError
from dodona.mdp.formats.dense import real_array, terminal_mask
from dodona.mdp.model import MDP, Labels


def mdp_from_function(
    step: Callable[[int, int], Iterable | None],
    num_states: int,
    num_actions: int,
    *,
    gamma: float,
    terminal: Any | None = None,
    start: Float[np.ndarray, "S"] | None = None,
    labels: Labels | None = None,
) -> MDP:
    """A model from a function: step(s, a) -> iterable of (probability, next state, reward[, terminated]).

    None, or nothing, means that the action is infeasible. ``terminated`` ends the episode there,
    whatever the next state could do. A state is terminal if ``terminal`` says so, or if only
    terminated transitions lead to it and it can do nothing, or nothing but stay for nothing.

    Args:
        step: called once per state and action, states that ``terminal`` names left out.
        terminal: [S] bool or state numbers.
    Raises:
        MDPError: an outcome of another form, a row that is no distribution, a state without an
            action that is not terminal; state and action are named.
    Source: the table env.P of Gymnasium's toy texts has this form.
    Oracle: MDP.from_dense on the same numbers.  Cost: S A calls of step.

    >>> mdp = mdp_from_function(lambda s, a: [(1.0, 1, 5.0, True)] if s == 0 else None, 2, 1, gamma=0.9)
    >>> mdp.terminal
    array([False,  True])
    """
    ends = terminal_mask(terminal, num_states)
    table: list[tuple] = []
    for s in np.flatnonzero(~ends).tolist():
        for a in range(num_actions):
            table += outcomes(step(s, a), s, a, num_states)
    if not table and not ends.all():
        raise MDPError(
            "step gave no outcome for any state and action. Expected an iterable of "
            "(probability, next state, reward[, terminated])."
        )
    state, action, successor, prob, reward, ended = (
        np.array([row[i] for row in table], dtype=dtype)
        for i, dtype in enumerate((np.int64, np.int64, np.int64, float, float, bool))
    )
    idle = ends | _only_ends(state, successor, reward, ended, num_states)
    return mdp_from_transitions(
        state, action, successor, prob, reward, ended, num_states=num_states,
        num_actions=num_actions, gamma=gamma, terminal=idle, start=start, labels=labels,
    )  # fmt: skip


def mdp_from_samples(
    batch: Any,
    *,
    gamma: float,
    num_states: int | None = None,
    num_actions: int | None = None,
    unseen: Literal["error", "end"] = "error",
    start: Float[np.ndarray, "S"] | None = None,
    labels: Labels | None = None,
) -> MDP:
    """The empirical MDP: p(s'|s, a) = counts / total, r(s, a) = the mean reward seen.

    Its values are what batch TD, LSTD, fitted Q and offline Q-learning converge to on this data.
    Actions never taken are infeasible, states never seen are terminal. A truncated transition
    lives on: only ``terminated`` ends.

    Args:
        batch: (states, actions, rewards, next states, terminated), arrays of one shape; or a record
            with the fields obs, actions, rewards, next_obs, terminated, mask (core.batch.Batch) whose
            observations are state numbers.
        num_states, num_actions: default: the largest number seen + 1.
        unseen: a state that was entered, by a transition that lives on, and never left: "error"
            names it, "end" gives it value 0.
    Raises:
        ShapeError: columns of different shapes.  TypeError: states or actions that are no integers.
        MDPError: no transition, numbers out of range, rewards not finite, an unseen state.
    Source: Sutton & Barto 2018, sec. 6.3 (certainty equivalence).
    Oracle: oracles.empirical.empirical_mdp; S&B example 6.4.  Cost: O(N log N).

    >>> batch = ([0, 0], [0, 0], [1.0, 2.0], [1, 0], [True, False])
    >>> mdp_from_samples(batch, gamma=0.5).rewards
    array([1.5])
    """
    state, action, reward, successor, ended = _columns(batch)
    S = _count(np.concatenate([state, successor]), num_states, "state")
    A = _count(action, num_actions, "action")
    left = np.bincount(state, minlength=S) > 0
    entered = np.bincount(successor[~ended], minlength=S) > 0
    lost = entered & ~left
    if lost.any() and unseen != "end":
        s = int(np.argmax(lost))
        raise MDPError(
            f"state {s} is entered and never left in the batch, so nothing is known of it "
            f"({int(lost.sum())} such states). Collect more, mark its transitions terminated if the "
            "episode ends there, or pass unseen='end' to give it value 0.",
            state=s,
        )
    unique, which, counts = np.unique(
        np.stack([state, action, successor, ended]), axis=1, return_inverse=True, return_counts=True
    )
    which = which.ravel()
    pair = unique[0] * A + unique[1]
    total = np.bincount(state * A + action, minlength=S * A)
    return mdp_from_transitions(
        *unique[:3],
        counts / total[pair],
        np.bincount(which, weights=reward) / counts,
        unique[3].astype(bool),
        num_states=S,
        num_actions=A,
        gamma=gamma,
        terminal=~left,
        start=start,
        labels=labels,
    )


def mdp_from_transitions(
    state: Int[np.ndarray, "N"],
    action: Int[np.ndarray, "N"],
    successor: Int[np.ndarray, "N"],
    prob: Float[np.ndarray, "N"],
    reward: Float[np.ndarray, "N"],
    ended: Bool[np.ndarray, "N"],
    *,
    num_states: int,
    num_actions: int,
    gamma: float,
    terminal: Bool[np.ndarray, "S"],
    start: Float[np.ndarray, "S"] | None = None,
    labels: Labels | None = None,
) -> MDP:
    """A model from a table of transitions, sorted by (state, action); rows of terminal states are dropped.

    Where a transition ends in a state that lives on, the transitions carry their discount
    themselves: 0 where they end, gamma elsewhere.

    Args:
        state, action, successor: numbers in range.  prob: of the transition given state and action.
        reward: of the transition.  ended: True where nothing follows.  terminal: states without future.
    Raises: MDPError: rows that are no distribution, a live state without a row.
    Source: White 2017, arXiv:1609.01995.  Oracle: MDP.from_dense on the same numbers.  Cost: O(N).
    """
    keep = ~terminal[state]
    state, action, successor = state[keep], action[keep], successor[keep]
    prob, reward, ended = prob[keep], reward[keep], ended[keep]
    first = np.flatnonzero(np.diff(state, prepend=-1) | np.diff(action, prepend=-1))
    mixed = bool(np.any(ended & ~terminal[successor]))
    pair = np.repeat(np.arange(len(first)), np.diff(first, append=len(state)))
    return MDP.from_pairs(
        pair_state=state[first],
        pair_action=action[first],
        indptr=np.concatenate([first, [len(state)]]),
        indices=successor,
        probs=prob,
        rewards=np.bincount(pair, weights=prob * reward, minlength=len(first)).astype(float),
        transition_rewards=reward,
        num_states=num_states,
        gamma=gamma,
        terminal=terminal,
        discounts=np.where(ended, 0.0, gamma) if mixed else None,
        start=start,
        num_actions=num_actions,
        labels=labels,
    )


def outcomes(
    result: Iterable | None,
    s: int,
    a: int,
    num_states: int,
    *,
    source: str = "step gave",
    needs_end: bool = False,
) -> list[tuple]:
    """(s, a, next state, probability, reward, terminated) of each outcome of s and a that can happen.

    Args:
        result: (probability, next state, reward[, terminated]) each; None = nothing.
        source: who says so, for the message.  needs_end: ``terminated`` may not be left out.
    Raises: MDPError: an outcome of another form, or a next state out of range.
    Source: the rows of Gymnasium's env.P.  Oracle: MDP.from_dense.  Cost: O(outcomes).
    """
    rows = []
    for outcome in () if result is None else result:
        try:
            p, s2, r, *ended = outcome
            row = (s, a, int(s2), float(p), float(r), bool(ended[0]) if ended else False)
            if len(ended) > 1 or (needs_end and not ended) or row[2] != s2:
                raise ValueError
        except (TypeError, ValueError):
            form = "reward, terminated)" if needs_end else "reward) or the same with terminated"
            raise MDPError(
                f"state {s}, action {a}: {source} the outcome {outcome!r}, expected (probability, next "
                f"state, {form}, the next state an integer.",
                state=s,
                action=a,
            ) from None
        if not 0 <= row[2] < num_states:
            raise MDPError(
                f"state {s}, action {a}: successor {s2} is out of range, states are 0..{num_states - 1}.",
                state=s,
                action=a,
            )
        rows.append(row)
    # a row of nothing but zeros is kept: the validation says that it sums to 0
    return [row for row in rows if row[3] != 0.0] or rows[:1]


# ---------------------------------------------------------------------- private
def _only_ends(
    state: np.ndarray, successor: np.ndarray, reward: np.ndarray, ended: np.ndarray, num_states: int
) -> np.ndarray:
    """[S] True where only terminated transitions lead, and from where none leads on or pays."""
    busy = np.bincount(state[(successor != state) | (reward != 0)], minlength=num_states) > 0
    into_end = np.bincount(successor[ended], minlength=num_states) > 0
    live = ~ended & (successor != state)
    return into_end & ~(np.bincount(successor[live], minlength=num_states) > 0) & ~busy


def _columns(batch: Any) -> tuple[np.ndarray, ...]:
    """(state, action, reward, successor, ended) as flat arrays, masked rows left out."""
    names = ("states", "actions", "rewards", "next states", "terminated")
    mask = None
    if isinstance(batch, tuple | list):
        if len(batch) != len(names):
            raise ShapeError(f"a batch has {len(batch)} columns, expected {len(names)}: {names}.")
        given = list(batch)
    else:
        given = [batch.obs, batch.actions, batch.rewards, batch.next_obs, batch.terminated]
        mask = batch.mask
        missing = [n for n, x in zip(names[:4], given, strict=False) if x is None]
        if missing:
            raise MDPError(
                f"the batch has no {', '.join(missing)}. Collect it with its successors (next_obs) and "
                "rewards: without them no transition is known."
            )
        if given[4] is None:
            given[4] = np.zeros(np.shape(given[0]), dtype=bool)
    columns = [_numbers(x) for x in given]
    for name, column in zip(names, columns, strict=True):
        if column.shape != columns[0].shape:
            raise ShapeError(
                f"{name} has shape {column.shape}, expected {columns[0].shape} as states has."
            )
    keep = np.ones(columns[0].shape, dtype=bool) if mask is None else _numbers(mask) > 0
    columns = [column[keep] for column in columns]
    if not len(columns[0]):
        raise MDPError(
            "the batch is empty: it holds no counted transition. At least one is needed."
        )
    for i in (0, 1, 3):
        if columns[i].dtype.kind not in "iu":
            raise TypeError(f"{names[i]} must be integers, got dtype {columns[i].dtype}.")
        columns[i] = columns[i].astype(np.int64)
    columns[2] = real_array(columns[2], "rewards")
    bad = ~np.isfinite(columns[2])
    if bad.any():
        k = int(np.argmax(bad))
        raise MDPError(f"rewards[{k}] is {columns[2][k]}; every reward must be finite.")
    columns[4] = columns[4].astype(bool)
    return tuple(columns)


def _numbers(x: Any) -> np.ndarray:
    """A NumPy array of an array, a list, or a torch tensor on any device."""
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)


def _count(numbers: np.ndarray, given: int | None, name: str) -> int:
    largest = int(numbers.max())
    if numbers.min() < 0 or (given is not None and largest >= given):
        worst = int(numbers.min()) if numbers.min() < 0 else largest
        raise MDPError(
            f"{name} {worst} is out of range: {name}s are numbered from 0"
            + (f" to num_{name}s - 1 = {given - 1}." if given is not None else ".")
        )
    return largest + 1 if given is None else given
