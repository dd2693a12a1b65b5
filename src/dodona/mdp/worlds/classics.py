"""Small models of the literature whose answers are written down: two states, a loop, a walk, a star, tokens.

Source of each: its docstring.  Golden numbers: tests/mdp/test_worlds.py.
"""

from collections.abc import Callable

import numpy as np

from dodona.errors import InputError
from dodona.mdp.model import MDP, Labels


def mdptoolbox_small(*, gamma: float = 0.9) -> MDP:
    """Two states, two actions; v*(.9) = (42.44186047, 36.04651163).

    Source: mdptoolbox.example.small; values re-derived.
    """
    P = [[[0.5, 0.5], [0.8, 0.2]], [[0.0, 1.0], [0.1, 0.9]]]
    return MDP.from_dense(P, [[5.0, 10.0], [-1.0, 2.0]], gamma=gamma, layout="ass")


def puterman_two_state(*, gamma: float = 0.95) -> MDP:
    """Stay for 5 (and slip to the bad state half of the time) or take 10 and go there; it costs 1 a step.

    For gamma > 10/11: v* = ((5 - 5.5 gamma) / ((1 - gamma / 2)(1 - gamma)), -1 / (1 - gamma)).
    Source: Puterman 1994, sec. 3.1.
    """
    P = [[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]]
    feasible = np.array([[True, True], [True, False]])
    R = [[5.0, 10.0], [-1.0, 0.0]]
    return MDP.from_dense(P, R, gamma=gamma, layout="sas", action_mask=feasible)


def exit_loop(*, gamma: float = 0.9) -> MDP:
    """One live state: exit pays 1 and ends, loop pays 0. Adding 1 to every reward turns the optimum.

    The counter-example to affine invariance with termination (loop 10 > exit 2).  Source: ours.
    """
    P = [[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]
    labels = Labels(actions=("exit", "loop"))
    return MDP.from_dense(
        P, [[1.0, 0.0], [0, 0]], gamma=gamma, layout="sas", terminal=[1], labels=labels
    )


def random_walk(num_states: int = 5, *, gamma: float = 1.0, left_reward: float = 0.0) -> MDP:
    """Inner states 1..n with one action that steps left or right evenly; ends 0 and n+1.

    Reaching n+1 pays 1, reaching 0 pays left_reward; v(i) = i / (n+1) with 0, (2i - n - 1)/(n+1)
    with -1.  Source: Sutton & Barto 2018, ex. 6.2 (5 states) and sec. 7.1 (19 states, -1).
    """
    n = num_states
    P, R = np.zeros((n + 2, 1, n + 2)), np.zeros((n + 2, 1, n + 2))
    inner = np.arange(1, n + 1)
    P[inner, 0, inner - 1] = P[inner, 0, inner + 1] = 0.5
    R[1, 0, 0], R[n, 0, n + 1] = left_reward, 1.0
    start = np.eye(n + 2)[(n + 1) // 2]
    return MDP.from_dense(P, R, gamma=gamma, layout="sas", terminal=[0, n + 1], start=start)


def baird_star(*, gamma: float = 0.99) -> MDP:
    """Seven states; "dashed" leads to one of the first six, "solid" to the last; all rewards are 0.

    With linear features off-policy semi-gradient TD diverges on it; here is only the model.
    Source: Baird 1995; Sutton & Barto 2018, sec. 11.2.
    """
    P = np.zeros((7, 2, 7))
    P[:, 0, :6] = 1 / 6
    P[:, 1, 6] = 1.0
    labels = Labels(actions=("dashed", "solid"))
    return MDP.from_dense(P, np.zeros((7, 2)), gamma=gamma, layout="sas", labels=labels)


def token_mdp(num_tokens: int, max_length: int, reward: Callable[[tuple[int, ...]], float]) -> MDP:
    """Writing one token after the other: states are prefixes, the whole sequence is paid at its end.

    A sequence has exactly ``max_length`` tokens. State 0 is the empty prefix, its children follow
    level by level, the last state is the end. gamma is 1.

    Args: reward: pays a sequence, a tuple of max_length token numbers.
    Raises: InputError: num_tokens or max_length < 1, or more than ten million prefixes.
    Source: the token view of language models, Ramamurthy et al. 2023, arXiv:2210.01241, sec. 3.1.
    Oracle: enumeration of all sequences.  Cost: num_tokens^max_length calls of reward.
    """
    V, T = num_tokens, max_length
    if V < 1 or T < 1:
        raise InputError(f"num_tokens and max_length must be >= 1, got {V} and {T}.")
    levels = [V**t for t in range(T)]
    S = sum(levels)
    if S * V > 10**7:
        raise InputError(f"{V} tokens in sequences of {T} make {S * V} prefixes, more than 10^7.")
    # children of prefix k (level by level, as in a heap of arity V) are V k + 1 ... V k + V
    to = np.minimum(V * np.arange(S)[:, None] + 1 + np.arange(V), S)
    R = np.zeros((S, V))
    R[S - levels[-1] :] = np.reshape(
        [float(reward(sequence)) for sequence in np.ndindex(*[V] * T)], (-1, V)
    )
    return MDP(
        sa_indptr=np.concatenate([np.arange(0, S * V + 1, V), [S * V]]),
        actions=np.tile(np.arange(V), S),
        indptr=np.arange(S * V + 1),
        indices=to.ravel(),
        probs=np.ones(S * V),
        rewards=R.ravel(),
        gamma=1.0,
        terminal=np.arange(S + 1) == S,
        start=np.eye(1, S + 1)[0],
        num_actions=V,
    )
