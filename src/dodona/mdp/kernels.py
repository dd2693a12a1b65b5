"""The inner loops of planning, compiled by Numba: fused passes over the rows of an MDP.

One pass reads every transition once and never materialises q, P_pi or any copy of the rows, so a
sweep costs its bytes: 12 per transition and 16 per pair. States are split into a fixed number of
blocks, each written by one thread, so results do not depend on the number of threads.

All kernels take the model as ``sa_indptr [S+1], indptr [L+1], indices [nnz], weights [nnz],
rewards [L], scale``; pair l has value q_l = rewards_l + scale sum_k weights_k values[indices_k].
A chosen pair stands for a chosen action (``choice[s]`` = pair index, -1 in terminal states).

Not here: meaning. What the numbers prove is in certificate.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numba import get_num_threads, njit, prange, set_num_threads

NUM_BLOCKS = 64  # enough for 32 cores; a block of a 1M-state model is still 16k states
WORTH_A_THREAD = (
    200_000  # transitions: 0.3 ms of work, against which waking and meeting cost little
)


@contextmanager
def threads_for(num_transitions: int) -> Iterator[None]:
    """As many threads as the work is worth, of those that Numba may use. Results do not depend on it."""
    before = get_num_threads()
    set_num_threads(max(1, min(before, num_transitions // WORTH_A_THREAD)))
    try:
        yield
    finally:
        set_num_threads(before)


@njit(cache=True, inline="always")
def _pair_value(pair, indptr, indices, weights, rewards, scale, values):
    # unsigned, because a signed index may count from the end: the test for that, on every
    # transition, stood between the loads and cost a third of the whole sweep
    total = 0.0
    for k in range(np.uint64(indptr[pair]), np.uint64(indptr[pair + 1])):
        total += weights[k] * values[np.uint32(indices[k])]
    return rewards[pair] + scale * total


@njit(cache=True, parallel=True, nogil=True)
def optimality_sweep(
    sa_indptr, indptr, indices, weights, rewards, scale, values, out, choice, keep
):
    """out = f(values), choice = greedy pairs; returns min and max of out - values, and max |out|.

    A choice that is within ``keep`` of the maximum stays (policy iteration must not wander among
    ties); with keep < 0 the first maximum is taken.
    """
    S = len(out)
    low = np.zeros(NUM_BLOCKS)
    high = np.zeros(NUM_BLOCKS)
    size = np.zeros(NUM_BLOCKS)
    low[:] = np.inf
    high[:] = -np.inf
    for block in prange(NUM_BLOCKS):
        least, most, largest = np.inf, -np.inf, 0.0
        for s in range(block * S // NUM_BLOCKS, (block + 1) * S // NUM_BLOCKS):
            first, last = sa_indptr[s], sa_indptr[s + 1]
            if first == last:
                out[s] = 0.0
                choice[s] = -1
                continue
            best, arg, kept = -np.inf, first, -np.inf
            for pair in range(first, last):
                q = _pair_value(pair, indptr, indices, weights, rewards, scale, values)
                if q > best:
                    best, arg = q, pair
                if pair == choice[s]:
                    kept = q
            if kept < best - keep or keep < 0.0:
                choice[s] = arg
            out[s] = best
            change = best - values[s]
            least = min(least, change)
            most = max(most, change)
            largest = max(largest, abs(best))
        low[block] = least
        high[block] = most
        size[block] = largest
    return low.min(), high.max(), size.max()


@njit(cache=True, parallel=True, nogil=True)
def policy_sweep(choice, indptr, indices, weights, rewards, scale, values, out):
    """out = T_choice(values); returns min and max of out - values over live states, and max |out|."""
    S = len(out)
    low = np.zeros(NUM_BLOCKS)
    high = np.zeros(NUM_BLOCKS)
    size = np.zeros(NUM_BLOCKS)
    low[:] = np.inf
    high[:] = -np.inf
    for block in prange(NUM_BLOCKS):
        least, most, largest = np.inf, -np.inf, 0.0
        for s in range(block * S // NUM_BLOCKS, (block + 1) * S // NUM_BLOCKS):
            if choice[s] < 0:
                out[s] = 0.0
                continue
            q = _pair_value(choice[s], indptr, indices, weights, rewards, scale, values)
            out[s] = q
            change = q - values[s]
            least = min(least, change)
            most = max(most, change)
            largest = max(largest, abs(q))
        low[block] = least
        high[block] = most
        size[block] = largest
    return low.min(), high.max(), size.max()


@njit(cache=True, nogil=True)
def ordered_sweep(
    order, sa_indptr, indptr, indices, weights, rewards, scale, omega, values, choice
):
    """In place, state after state in ``order``: v <- v + omega (max q - v). Gauss-Seidel for omega 1.

    Returns the largest change. Serial on purpose: each state sees the ones before it.
    """
    largest = 0.0
    for s in order:
        first, last = sa_indptr[s], sa_indptr[s + 1]
        if first == last:
            continue
        best, arg = -np.inf, first
        for pair in range(first, last):
            q = _pair_value(pair, indptr, indices, weights, rewards, scale, values)
            if q > best:
                best, arg = q, pair
        change = best - values[s]
        values[s] += omega * change
        choice[s] = arg
        largest = max(largest, abs(change))
    return largest


@njit(cache=True, parallel=True, nogil=True)
def colour_sweep(colours, colour, sa_indptr, indptr, indices, weights, rewards, scale, values, out):
    """out = f(values) on the states of one colour, a copy elsewhere: half of a red-black sweep."""
    for s in prange(len(out)):
        if colours[s] != colour or sa_indptr[s] == sa_indptr[s + 1]:
            out[s] = values[s]
            continue
        best = -np.inf
        for pair in range(sa_indptr[s], sa_indptr[s + 1]):
            q = _pair_value(pair, indptr, indices, weights, rewards, scale, values)
            best = max(best, q)
        out[s] = best


@njit(cache=True, nogil=True)
def component_sweeps(
    order, starts, sa_indptr, indptr, indices, weights, rewards, scale, threshold, limit, values
):
    """Solve one strongly connected component after the other, successors first, in place.

    Each component is swept until its largest change is at most ``threshold`` or ``limit`` times.
    Returns the number of state updates.
    """
    updates = 0
    for c in range(len(starts) - 1):
        for _ in range(limit):
            largest = 0.0
            for i in range(starts[c], starts[c + 1]):
                s = order[i]
                first, last = sa_indptr[s], sa_indptr[s + 1]
                if first == last:
                    continue
                best = -np.inf
                for pair in range(first, last):
                    q = _pair_value(pair, indptr, indices, weights, rewards, scale, values)
                    best = max(best, q)
                largest = max(largest, abs(best - values[s]))
                values[s] = best
                updates += 1
            if largest <= threshold:
                break
    return updates


@njit(cache=True, nogil=True)
def prioritized_updates(
    num_updates, heap_key, heap_state, where, pred_indptr, preds,
    sa_indptr, indptr, indices, weights, rewards, scale, values,
):  # fmt: skip
    """Update the states of largest |Bellman residual| first; heap holds every state once.

    After an update the residuals of the state and of its predecessors are recomputed. heap_key,
    heap_state, where are a binary max-heap with positions; they carry over between calls.
    """
    size = len(heap_key)
    for _ in range(num_updates):
        s = heap_state[0]
        if heap_key[0] == 0.0:
            return
        values[s] = _best(s, sa_indptr, indptr, indices, weights, rewards, scale, values)
        _place(where[s], 0.0, size, heap_key, heap_state, where)
        for k in range(pred_indptr[s], pred_indptr[s + 1]):
            p = preds[k]
            best = _best(p, sa_indptr, indptr, indices, weights, rewards, scale, values)
            _place(where[p], abs(best - values[p]), size, heap_key, heap_state, where)


@njit(cache=True)
def _best(s, sa_indptr, indptr, indices, weights, rewards, scale, values):
    if sa_indptr[s] == sa_indptr[s + 1]:
        return 0.0
    best = -np.inf
    for pair in range(sa_indptr[s], sa_indptr[s + 1]):
        best = max(best, _pair_value(pair, indptr, indices, weights, rewards, scale, values))
    return best


@njit(cache=True)
def _place(i, key, size, heap_key, heap_state, where):
    """Give heap position i a new key and restore the order."""
    state = heap_state[i]
    while i > 0 and heap_key[(i - 1) // 2] < key:
        parent = (i - 1) // 2
        heap_key[i], heap_state[i] = heap_key[parent], heap_state[parent]
        where[heap_state[i]] = i
        i = parent
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and heap_key[child + 1] > heap_key[child]:
            child += 1
        if heap_key[child] <= key:
            break
        heap_key[i], heap_state[i] = heap_key[child], heap_state[child]
        where[heap_state[i]] = i
        i = child
    heap_key[i], heap_state[i] = key, state
    where[state] = i


@njit(cache=True, parallel=True, nogil=True)
def pair_values(indptr, indices, weights, rewards, scale, values, out):
    """out[l] = q of every pair, where a caller really needs them all."""
    for pair in prange(len(out)):
        out[pair] = _pair_value(pair, indptr, indices, weights, rewards, scale, values)


@njit(cache=True, parallel=True, nogil=True)
def row_mass_extremes(indptr, indices, weights, terminal):
    """Smallest and largest weight that a pair sends to non-terminal states; (0, 0) without pairs."""
    L = len(indptr) - 1
    low = np.full(NUM_BLOCKS, np.inf)
    high = np.zeros(NUM_BLOCKS)
    for block in prange(NUM_BLOCKS):
        least, most = np.inf, 0.0
        for pair in range(block * L // NUM_BLOCKS, (block + 1) * L // NUM_BLOCKS):
            total = 0.0
            for k in range(np.uint64(indptr[pair]), np.uint64(indptr[pair + 1])):
                if not terminal[np.uint32(indices[k])]:
                    total += weights[k]
            least = min(least, total)
            most = max(most, total)
        low[block] = least
        high[block] = most
    return min(low.min(), high.max()), high.max()


@njit(cache=True)
def first_bad_row(indptr, indices, probs, rewards, num_states, tolerance):
    """(kind, pair, what was got) of the first invalid pair; kind 0 = none. See validation._validate_rows."""
    for pair in range(len(rewards)):
        if not np.isfinite(rewards[pair]):
            return 4, pair, rewards[pair]
        if indptr[pair] == indptr[pair + 1]:
            return 5, pair, 0.0
        total = 0.0
        for k in range(indptr[pair], indptr[pair + 1]):
            if not (probs[k] >= 0.0 and probs[k] <= 1.0 + tolerance):
                return 2, pair, float(probs[k])
            if indices[k] < 0 or indices[k] >= num_states:
                return 3, pair, float(indices[k])
            total += probs[k]
        if not abs(total - 1.0) <= tolerance:
            return 1, pair, total
    return 0, 0, 0.0
