"""Random models by recipe, from a handful of states to millions: Garnets.

Source: Archibald, McKinnon, Thomas 1995; Bhatnagar et al. 2009.
"""

import numpy as np

from dodona.errors import InputError
from dodona.mdp.model import MDP

BLOCK = 1 << 20  # rows drawn at a time


def garnet(
    num_states: int,
    num_actions: int,
    branching: int,
    *,
    seed: int,
    sigma_r: float = 1.0,
    gamma: float = 0.95,
    terminal: int = 0,
    deterministic: bool = False,
    periodic: bool = False,
    reducible: bool = False,
    dtype: type = np.float64,
) -> MDP:
    """A random MDP: ``branching`` distinct successors per pair, probabilities the gaps of sorted uniforms.

    Args:
        sigma_r: rewards are N(0, sigma_r^2) per pair.
        terminal: so many states, the last ones, are terminal.
        deterministic: each pair has one successor, which wants branching=1.
        periodic: the even half of the states leads to the odd half and back; period two.
        reducible: the even and the odd half never reach each other; two closed classes.
        dtype: of the probabilities, float64 or float32.
    Raises:
        InputError: branching that the states to choose from can not give, options that exclude
            each other.
    Source: see the module.
    Oracle: the support, the sums and the stored hash of one instance (tests/mdp/test_worlds.py).
    Cost: O(L branching).
    """
    halves = periodic or reducible
    choice = num_states // 2 if halves else num_states
    if not 1 <= branching <= choice:
        raise InputError(
            f"branching must be in 1..{choice} ({'half of ' if halves else ''}num_states), got {branching}."
        )
    if periodic and reducible:
        raise InputError(
            "periodic and reducible exclude each other: one leads every step to the other half, one never."
        )
    if deterministic and branching != 1:
        raise InputError(f"a deterministic garnet has branching=1, got {branching}.")
    if not 0 <= terminal < num_states:
        raise InputError(f"terminal must leave a state alive: 0..{num_states - 1}, got {terminal}.")
    rng = np.random.default_rng(seed)
    L = num_states * num_actions
    indices = _distinct(rng, L, branching, choice)
    if halves:
        parity = np.repeat(np.arange(num_states) % 2, num_actions) ^ int(periodic)
        indices = 2 * indices + parity[:, None]
    probs = _gaps(rng, L, branching, dtype)
    L -= terminal * num_actions
    return MDP(
        sa_indptr=np.minimum(np.arange(num_states + 1) * num_actions, L),
        actions=np.tile(np.arange(num_actions, dtype=np.int32), num_states - terminal),
        indptr=np.arange(0, L * branching + 1, branching),
        indices=indices[:L].ravel(),
        probs=probs[:L].ravel(),
        rewards=sigma_r * rng.standard_normal(L),
        gamma=gamma,
        terminal=np.arange(num_states) >= num_states - terminal,
        num_actions=num_actions,
    )


def _distinct(rng: np.random.Generator, L: int, b: int, n: int) -> np.ndarray:
    """[L, b] distinct numbers below n per row: redraw the rows that have a repetition."""
    if b > n // 2 or b > 32:
        return np.stack([rng.choice(n, b, replace=False) for _ in range(L)]).astype(np.int32)
    out = rng.integers(0, n, (L, b), dtype=np.int32)
    todo = np.arange(L)
    while len(todo):
        ordered = np.sort(out[todo], axis=1)
        todo = todo[np.any(ordered[:, 1:] == ordered[:, :-1], axis=1)]
        out[todo] = rng.integers(0, n, (len(todo), b), dtype=np.int32)
    return out


def _gaps(rng: np.random.Generator, L: int, b: int, dtype: type) -> np.ndarray:
    """[L, b] gaps of b - 1 sorted uniforms, a block of rows at a time to spare the memory."""
    out = np.empty((L, b), dtype=dtype)
    for first in range(0, L, BLOCK):
        rows = out[first : first + BLOCK]
        cuts = np.sort(rng.random((len(rows), b - 1)), axis=1)
        rows[:] = np.diff(cuts, axis=1, prepend=0.0, append=1.0)
    return out
