"""The loops of replay, compiled by Numba: windows of n steps, the ring, gathering, the sum tree.

Observations and actions travel as bytes, so that one compiled loop serves images, vectors and state
numbers alike. A row enters the ring when nothing about it can change any more: until then it waits in
the window of its environment.
Not here: input checks, torch (replay.py).

Source: Lin 1992 (replay); Schaul et al., arXiv:1511.05952 (sum tree).
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class Rows(NamedTuple):
    """Transitions that are final, [N] each: the ring, or what was gathered from it.

    obs, next_obs, actions: [N, bytes] uint8.  rewards: the sum of k discounted rewards.
    discounts: gamma^k (1 - terminated).  terminated, truncated: of the last of the k steps.
    """

    obs: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_obs: np.ndarray
    discounts: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class Window(NamedTuple):
    """Transitions of every environment that still collect rewards: [B, n, ...], a ring per environment.

    obs, actions: bytes.  rewards, discounts: so far, float64.  first, count: [B] oldest slot, and how many.
    last_obs: [B, bytes] the newest successor of each.
    """

    obs: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    discounts: np.ndarray
    first: np.ndarray
    count: np.ndarray
    last_obs: np.ndarray


class Steps(NamedTuple):
    """One step of every environment, [B] each; mask False: a row that only resets."""

    obs: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    mask: np.ndarray


@njit(cache=True, nogil=True)
def push(ring: Rows, window: Window, steps: Steps, head: int, gamma: float) -> int:
    """Add a step of every environment; rows that became final go to the ring from ``head`` on.

    Returns how many did. An ending finishes every row of its environment's window, each with the
    rewards that it still got.
    """
    capacity, n = len(ring.rewards), window.rewards.shape[1]
    written = 0
    for env in range(len(steps.rewards)):
        if not steps.mask[env]:
            continue
        slot = (window.first[env] + window.count[env]) % n
        window.obs[env, slot] = steps.obs[env]
        window.actions[env, slot] = steps.actions[env]
        window.rewards[env, slot] = 0.0
        window.discounts[env, slot] = 1.0
        window.count[env] += 1
        for k in range(window.count[env]):
            i = (window.first[env] + k) % n
            window.rewards[env, i] += window.discounts[env, i] * steps.rewards[env]
            window.discounts[env, i] *= gamma
        ended = steps.terminated[env] or steps.truncated[env]
        window.last_obs[env] = steps.next_obs[env]
        num_final = window.count[env] if ended else max(0, window.count[env] - n + 1)
        for _ in range(num_final):
            at = (head + written) % capacity
            _finish(ring, at, window, env, steps.terminated[env], steps.truncated[env])
            written += 1
    return written


@njit(cache=True, nogil=True)
def close(ring: Rows, window: Window, head: int) -> int:
    """Finish every row of every window as a time limit would; returns how many there were."""
    written = 0
    for env in range(len(window.count)):
        while window.count[env]:
            _finish(ring, (head + written) % len(ring.rewards), window, env, False, True)
            written += 1
    return written


@njit(cache=True, nogil=True)
def _finish(
    ring: Rows, at: int, window: Window, env: int, terminated: bool, truncated: bool
) -> None:
    """Move the oldest row of an environment's window into the ring."""
    i = window.first[env]
    ring.obs[at] = window.obs[env, i]
    ring.actions[at] = window.actions[env, i]
    ring.rewards[at] = window.rewards[env, i]
    ring.next_obs[at] = window.last_obs[env]
    ring.discounts[at] = 0.0 if terminated else window.discounts[env, i]
    ring.terminated[at] = terminated
    ring.truncated[at] = truncated
    window.first[env] = (i + 1) % window.rewards.shape[1]
    window.count[env] -= 1


@njit(cache=True, nogil=True)
def gather(ring: Rows, indices: np.ndarray, out: Rows) -> None:
    """Copy rows of the ring; every row is read once, all of its fields together."""
    for b in range(len(indices)):
        i = indices[b]
        out.obs[b] = ring.obs[i]
        out.actions[b] = ring.actions[i]
        out.rewards[b] = ring.rewards[i]
        out.next_obs[b] = ring.next_obs[i]
        out.discounts[b] = ring.discounts[i]
        out.terminated[b] = ring.terminated[i]
        out.truncated[b] = ring.truncated[i]


# ---------------------------------------------------------------------- sum tree
# tree [2 L], L a power of two: node i has the children 2i and 2i + 1, the root is 1, leaves begin at L
@njit(cache=True, nogil=True)
def set_leaves(tree: np.ndarray, indices: np.ndarray, priorities: np.ndarray) -> None:
    """Write leaves in order (the last of equal indices counts); sums are made anew, so they never drift."""
    leaves = len(tree) // 2
    for b in range(len(indices)):
        node = leaves + indices[b]
        tree[node] = priorities[b]
        node //= 2
        while node:
            tree[node] = tree[2 * node] + tree[2 * node + 1]
            node //= 2


@njit(cache=True, nogil=True)
def fill_leaves(tree: np.ndarray, begin: int, num: int, capacity: int, priority: float) -> None:
    """The same priority for ``num`` leaves from ``begin`` on, around the end of the ring."""
    leaves = len(tree) // 2
    for b in range(num):
        node = leaves + (begin + b) % capacity
        tree[node] = priority
        node //= 2
        while node:
            tree[node] = tree[2 * node] + tree[2 * node + 1]
            node //= 2


@njit(cache=True, nogil=True)
def draw_leaves(tree: np.ndarray, uniforms: np.ndarray, indices: np.ndarray) -> None:
    """One leaf from each of N equal parts of the total: leaf i with probability tree[i] / total, stratified."""
    leaves, num = len(tree) // 2, len(uniforms)
    for b in range(num):
        mass = (b + uniforms[b]) / num * tree[1]
        node = 1
        while node < leaves:
            node *= 2
            # rounding may leave mass where the right side has none: an empty leaf must never be drawn
            if mass >= tree[node] and tree[node + 1] > 0.0:
                mass -= tree[node]
                node += 1
        indices[b] = node - leaves
