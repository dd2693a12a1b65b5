"""Tabular Gymnasium environments as MDPs: their own table ``env.unwrapped.P``, read as it is.

P[s][a] is a list of (probability, next state, reward, terminated). A state entered only by
terminated transitions is terminal; where one is entered both ways, the transitions carry their
discount themselves: 0 where they terminate.

Source: Gymnasium toy_text (Farama Foundation), environments' source.
"""

from typing import Any

import numpy as np

from dodona.errors import InputError, nearest
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
        InputError: unknown id (nearest names), or no table (what is missing is named).
        MDPError: rows of the table that are no distribution.
    Source: see the module.
    Oracle: a dense solve of the same table, Monte Carlo in the environment.  Cost: O(nnz).
    """
    opened = isinstance(env, str)
    env = open_environment(env) if opened else env
    base = env.unwrapped
    table = getattr(base, "P", None)
    if table is None:
        name = getattr(getattr(env, "spec", None), "id", type(base).__name__)
        raise InputError(
            f"{name} has no table env.unwrapped.P, so it is not a finite MDP that can be read. "
            "Tabular ones are FrozenLake, Taxi, CliffWalking; for others use MDP.from_function."
        )
    S = len(table)
    state, action, successor, prob, reward, ended = [], [], [], [], [], []
    for s in range(S):
        for a in sorted(table[s]):
            for p, s2, r, done in table[s][a]:
                if p > 0:
                    state.append(s)
                    action.append(a)
                    successor.append(int(s2))
                    prob.append(float(p))
                    reward.append(float(r))
                    ended.append(bool(done))
    columns = (np.array(x) for x in (state, action, successor, prob, reward, ended))
    state, action, successor, prob, reward, ended = columns
    start = getattr(base, "initial_state_distrib", None)
    if start is None:
        start = np.eye(S)[int(env.reset(seed=0)[0])]
    start = np.asarray(start, dtype=np.float64)
    fields = _fields(S, state, action, successor, prob, reward, ended, start > 0)
    mixed = fields.pop("ended")
    discounts = None if mixed is None else np.where(mixed, 0.0, gamma)
    mdp = MDP.from_pairs(
        **fields,
        num_states=S,
        gamma=gamma,
        discounts=discounts,
        start=start,
        num_actions=int(base.action_space.n),
        labels=_labels(base, S),
    )
    if opened:
        env.close()
    return mdp


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


def _fields(S, state, action, successor, prob, reward, ended, first_states) -> dict[str, Any]:
    into_end = np.bincount(successor[ended], minlength=S) > 0
    outside = ~ended & (state != successor)
    into_live = np.bincount(successor[outside], minlength=S) > 0
    terminal = into_end & ~into_live & ~first_states
    # a terminated transition into a state that also lives on needs its own discount
    mixed = bool(np.any(ended & ~terminal[successor]))
    keep = ~terminal[state]
    state, action, successor = state[keep], action[keep], successor[keep]
    prob, reward, ended = prob[keep], reward[keep], ended[keep]
    new = np.concatenate([[True], (np.diff(state) != 0) | (np.diff(action) != 0)])
    first = np.flatnonzero(new)
    pair = np.cumsum(new) - 1
    return {
        "pair_state": state[first],
        "pair_action": action[first],
        "indptr": np.concatenate([first, [len(state)]]),
        "indices": successor,
        "probs": prob,
        "rewards": np.bincount(pair, weights=prob * reward),
        "transition_rewards": reward,
        "terminal": terminal,
        "ended": ended if mixed else None,
    }


def _labels(base: Any, S: int) -> Labels:
    name = type(base).__name__
    actions = next((v for k, v in ACTIONS.items() if name.startswith(k)), None)
    shape = getattr(base, "shape", None)
    if hasattr(base, "nrow") and hasattr(base, "ncol"):
        shape = (int(base.nrow), int(base.ncol))
    grid = tuple(int(n) for n in shape) if shape is not None and np.prod(shape) == S else None
    return Labels(actions=actions, grid=grid)
