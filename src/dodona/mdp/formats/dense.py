"""Dense arrays P and R to the flat rows of an MDP: the layout question, shapes, dropped rows.

Source: the three input forms of Zhao, Mathematical Foundations of RL, 2025, sec. 2.4.
"""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from dodona.errors import MDPError, ShapeError


def dense_to_rows(
    P: Any,
    R: Any,
    *,
    layout: Literal["sas", "ass"] | None,
    terminal: Any | Iterable[int] | None,
    action_mask: Any | None,
) -> dict[str, Any]:
    """The array fields of ``MDP`` for dense P and R; see ``MDP.from_dense`` for what they mean."""
    P, R = real_array(P, "P"), real_array(R, "R")
    layout = _layout(P, layout)
    if layout == "ass":
        P = P.transpose(1, 0, 2)
        R = R.transpose(1, 0, 2) if R.ndim == 3 else R
    S, A, _ = P.shape
    terminal = terminal_mask(terminal, S)
    if R.shape == (S, A):
        no_terminal_reward(R, terminal)
    feasible = feasible_mask(action_mask, S, A) & ~terminal[:, None]
    state, action = np.nonzero(feasible)
    rows = P[state, action]  # [L, S]
    # NaN and negative entries must reach the validation, so only true zeros are dropped.
    pair, successor = np.nonzero(rows != 0)
    probs = rows[pair, successor]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(pair, minlength=len(state)))])
    transition_rewards = None
    if R.shape == (S, A):
        rewards = R[state, action]
    elif R.shape in ((S,), (S, A, S)):
        transition_rewards = (
            R[successor] if R.ndim == 1 else R[state[pair], action[pair], successor]
        )
        rewards = np.bincount(pair, weights=probs * transition_rewards, minlength=len(state))
    else:
        raise ShapeError(
            f"R has shape {R.shape}; with P [S, A, S] = {P.shape} expected r(s, a) {(S, A)}, "
            f"r(s, a, s') {P.shape}, or {(S,)}: the reward for arriving in s'."
        )
    return {
        "sa_indptr": np.concatenate([[0], np.cumsum(feasible.sum(axis=1))]),
        "actions": action,
        "indptr": indptr,
        "indices": successor,
        "probs": probs,
        "rewards": rewards,
        "transition_rewards": transition_rewards,
        "terminal": terminal,
        "num_actions": A,
    }


def terminal_mask(terminal: Any | None, num_states: int) -> np.ndarray:
    """[S] bool from a mask, from state numbers, or from None."""
    mask = np.zeros(num_states, dtype=bool)
    if terminal is None:
        return mask
    given = np.asarray(list(terminal) if not hasattr(terminal, "shape") else terminal)
    if given.dtype == bool:
        if given.shape != (num_states,):
            raise ShapeError(f"terminal has shape {given.shape}, expected [S] = ({num_states},).")
        return given.copy()
    if given.size and (
        given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= num_states
    ):
        raise MDPError(
            f"terminal must be [S] bool or state numbers in 0..{num_states - 1}, got {given!r}."
        )
    mask[given.astype(np.int64)] = True
    return mask


def feasible_mask(action_mask: Any | None, num_states: int, num_actions: int) -> np.ndarray:
    """[S, A] bool from a mask of that shape, or all True from None."""
    shape = (num_states, num_actions)
    if action_mask is None:
        return np.ones(shape, dtype=bool)
    mask = np.asarray(action_mask, dtype=bool)
    if mask.shape != shape:
        raise ShapeError(f"action_mask has shape {mask.shape}, expected [S, A] = {shape}.")
    return mask


def real_array(array: Any, name: str) -> np.ndarray:
    """A float array of real numbers, float32 kept, or an MDPError that names the dtype."""
    try:
        array = np.asarray(array)
    except ValueError:  # what NumPy says of lists of unequal length
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise MDPError(
            f"{name} has dtype {array.dtype}; real numbers are expected. Ragged nested lists and "
            "complex numbers can not be probabilities or rewards; SciPy matrices go to MDP.from_scipy."
        )
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def no_terminal_reward(R: np.ndarray, terminal: np.ndarray) -> None:
    """MDPError where a terminal state has a reward in R [S, A]."""
    paid = terminal & np.any(np.nan_to_num(R) != 0, axis=1)
    if paid.any():
        s = int(np.argmax(paid))
        raise MDPError(
            f"state {s} is terminal and has reward {R[s].tolist()}. Nothing follows a terminal "
            "state, so nothing is paid there: put the reward on the transition into it, or leave "
            "the state out of `terminal` if it is absorbing.",
            state=s,
        )


def _layout(P: np.ndarray, layout: str | None) -> str:
    if layout not in (None, "sas", "ass"):
        raise MDPError(
            f"layout must be 'sas' (P[s, a, s']) or 'ass' (P[a, s, s']), got {layout!r}."
        )
    if P.ndim != 3:
        raise ShapeError(
            f"P has shape {P.shape}, expected [S, A, S] (or [A, S, S] with layout='ass')."
        )
    if P.size == 0:
        raise ShapeError(
            f"P is empty: shape {P.shape}. At least one state and one action are needed."
        )
    first, second, last = P.shape
    if first == second == last and layout is None:
        raise MDPError(
            f"P has shape {P.shape}: with as many actions as states the order can not be known. "
            "Pass layout='sas' for P[s, a, s'] or layout='ass' for P[a, s, s']."
        )
    if layout is None and first != last and second == last:
        raise ShapeError(
            f"P has shape {P.shape}, which reads as P[a, s, s']. Pass layout='ass' if that is meant; "
            "expected [S, A, S]."
        )
    layout = layout or "sas"
    if (first if layout == "sas" else second) != last:
        raise ShapeError(
            f"P has shape {P.shape}, which is not {'[S, A, S]' if layout == 'sas' else '[A, S, S]'}."
        )
    return layout
