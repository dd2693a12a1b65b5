"""Tabular Gymnasium environments as MDPs: their own table ``env.unwrapped.P``, read as it is.

P[s][a] is a list of (probability, next state, reward, terminated). A state entered only by
terminated transitions is terminal; where one is entered both ways, the transitions carry their
discount themselves: 0 where they terminate.

Source: Gymnasium toy_text (Farama Foundation), environments' source.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dodona.errors import InputError, MDPError, ShapeError, nearest
from dodona.mdp.formats.builders import mdp_from_transitions, outcomes
from dodona.mdp.model import MDP, Labels

ACTIONS = {
    "FrozenLake": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "Taxi": ("down", "up", "right", "left", "pick up", "drop off"),
}


def mdp_from_gymnasium(env: Any, *, gamma: float) -> MDP:
    """The MDP of a tabular environment, given as an environment or as its id.

    Args:
        env: gymnasium.Env with a table ``unwrapped.P``, or an id such as "FrozenLake8x8-v1".
        gamma: discount in [0, 1].
    Raises:
        InputError: unknown id (nearest names), no table or an empty one (what is missing is named).
        MDPError: outcomes of another form, successors out of range, rows that are no distribution.
        ShapeError: a start distribution over other states.
    Source: see the module.
    Oracle: a dense solve of the same table, Monte Carlo in the environment.  Cost: O(nnz).
    """
    if isinstance(env, str):
        env = open_environment(env)
        try:
            return mdp_from_gymnasium(env, gamma=gamma)
        finally:
            env.close()
    base = env.unwrapped
    table = getattr(base, "P", None)
    if table is None:
        name = getattr(getattr(env, "spec", None), "id", type(base).__name__)
        raise InputError(
            f"{name} has no table env.unwrapped.P, so it is not a finite MDP that can be read. "
            "Tabular ones are FrozenLake, Taxi, CliffWalking; for others use MDP.from_function."
        )
    state, action, successor, prob, reward, ended = _columns(table)
    start = _start(env, len(table))
    return mdp_from_transitions(
        state, action, successor, prob, reward, ended,
        num_states=len(table),
        num_actions=int(base.action_space.n),
        gamma=gamma,
        terminal=_terminal(state, successor, ended, start),
        start=start,
        labels=_labels(base, len(table)),
    )  # fmt: skip


def open_environment(env_id: str) -> Any:
    """gymnasium.make with an InputError that names the nearest ids."""
    import gymnasium

    try:
        return gymnasium.make(env_id)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise InputError(f"the environment '{env_id}' can not be made: {error}") from None
    except gymnasium.error.Error as error:
        hint = nearest(env_id, gymnasium.registry)
        hint = (
            hint
            if hint.startswith("Did")
            else "Tabular ones: FrozenLake-v1, Taxi-v4, CliffWalking-v1."
        )
        raise InputError(
            f"Gymnasium has no environment '{env_id}' ({type(error).__name__}). {hint}"
        ) from None


def _columns(table: Any) -> tuple[np.ndarray, ...]:
    """(state, action, successor, probability, reward, terminated) of every outcome, sorted."""
    S, rows = len(table), []
    if not S:
        raise InputError("the table env.unwrapped.P is empty: it has no state. One is needed.")
    for s in range(S):
        try:
            row = table[s]
        except (KeyError, IndexError):
            raise MDPError(
                f"the table env.unwrapped.P has {S} states and no row of state {s}; expected the rows "
                f"of 0..{S - 1}. Number its states so, or use MDP.from_function.",
                state=s,
            ) from None
        for a in sorted(row) if isinstance(row, Mapping) else range(len(row)):
            rows += outcomes(row[a], s, a, S, source="P holds", needs_end=True)
    if not rows:
        raise InputError("the table env.unwrapped.P is empty: no state has an outcome.")
    kinds = (np.int64, np.int64, np.int64, float, float, bool)
    return tuple(np.array([r[i] for r in rows], dtype=kind) for i, kind in enumerate(kinds))


def _start(env: Any, S: int) -> np.ndarray:
    """[S] distribution of the first state; where the environment holds none, its state under seed 0."""
    start = getattr(env.unwrapped, "initial_state_distrib", None)
    if start is None:
        first = int(env.reset(seed=0)[0])
        if not 0 <= first < S:
            raise MDPError(f"reset gave state {first}, the states of P are 0..{S - 1}.")
        return np.eye(S)[first]
    start = np.asarray(start, dtype=np.float64)
    if start.shape != (S,):
        raise ShapeError(
            f"initial_state_distrib has shape {start.shape}, expected [S] = ({S},) as P has states."
        )
    return start


def _terminal(
    state: np.ndarray, successor: np.ndarray, ended: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """[S] True where only terminated transitions lead, and nothing begins; what its row says is idle."""
    into_end = np.bincount(successor[ended], minlength=len(start)) > 0
    outside = ~ended & (state != successor)
    into_live = np.bincount(successor[outside], minlength=len(start)) > 0
    return into_end & ~into_live & ~(start > 0)


def _labels(base: Any, S: int) -> Labels:
    name = type(base).__name__
    actions = next((v for k, v in ACTIONS.items() if name.startswith(k)), None)
    shape = getattr(base, "shape", None)
    if hasattr(base, "nrow") and hasattr(base, "ncol"):
        shape = (int(base.nrow), int(base.ncol))
    grid = tuple(int(n) for n in shape) if shape is not None and np.prod(shape) == S else None
    return Labels(actions=actions, grid=grid)
