"""The inner loops of matching, compiled by Numba: a trie, its failure links, and the walk along a text.

States are numbered breadth first, so the children of state v are first[v] .. first[v+1] - 1, sorted by
symbol, and a failure link always leads to a smaller number. Transitions of the first ``num_rows``
states are tabulated (``rows``); a deeper state looks among its children and else follows its failure
link until it stands on a tabulated one. A target that ends a pattern is stored as its complement, so
one sign test per symbol finds every occurrence.

``nodes [S+1, 4]`` keeps the fields of a state in one cache line: first child, failure link, class of
the incoming edge, and the state's own number (complemented where it ends a pattern).

Source: Aho & Corasick 1975; Knuth, Morris & Pratt 1977 is the trie of one pattern.
Not here: meaning. Which occurrences count is decided in aho_corasick.py and stopping.py.
"""

import numpy as np
from numba import njit

FIRST, FAIL, LABEL, CODE = 0, 1, 2, 3
LANES = 4  # stretches that one thread walks at once: hides the latency of a dependent load
LANE_FROM = 16  # a lane is at least so many times as long as the longest pattern


# ---------------------------------------------------------------------- building
@njit(cache=True)
def count_levels(numbers, starts, order, levels):
    """levels[d] += number of different prefixes of length d + 1; patterns come in sorted order."""
    previous, end = 0, 0
    for rank in range(len(order)):
        begin, stop = starts[order[rank]], starts[order[rank] + 1]
        shared = 0
        while (
            shared < min(stop - begin, end - previous)
            and numbers[begin + shared] == numbers[previous + shared]
        ):
            shared += 1
        for d in range(shared, stop - begin):
            levels[d] += 1
        previous, end = begin, stop


@njit(cache=True)
def grow_trie(numbers, starts, order, fresh, nodes, parent, depth, own, witness):
    """Number the prefixes breadth first; fresh[d] is the next free number at depth d + 1.

    own: lowest pattern that ends in the state, -1 for none. witness: one pattern that passes it.
    """
    path = np.zeros(len(fresh) + 1, dtype=np.int32)
    children = np.zeros(len(parent), dtype=np.int32)
    previous, end = 0, 0
    for rank in range(len(order)):
        pattern = order[rank]
        begin, stop = starts[pattern], starts[pattern + 1]
        shared = 0
        while (
            shared < min(stop - begin, end - previous)
            and numbers[begin + shared] == numbers[previous + shared]
        ):
            shared += 1
        for d in range(shared, stop - begin):
            state = fresh[d]
            fresh[d] += 1
            path[d + 1] = state
            parent[state] = path[d]
            children[path[d]] += 1
            depth[state] = d + 1
            witness[state] = pattern
            nodes[state, LABEL] = numbers[begin + d]
        last = path[stop - begin]
        if own[last] < 0 or pattern < own[last]:
            own[last] = pattern
        previous, end = begin, stop
    nodes[0, FIRST] = 1
    for state in range(len(parent)):
        nodes[state + 1, FIRST] = nodes[state, FIRST] + children[state]


@njit(cache=True)
def _child(nodes, state, number):
    """The child along a class, or -1. Deep states have one or two children, so a short search."""
    low, high = nodes[state, FIRST], nodes[state + 1, FIRST]
    while high - low > 8:
        middle = (low + high) // 2
        if nodes[middle, LABEL] <= number:
            low = middle
        else:
            high = middle
    for child in range(low, high):
        if nodes[child, LABEL] == number:
            return child
    return -1


@njit(cache=True)
def link_states(nodes, parent, own, link, rows, num_classes):
    """Failure links, dictionary links and the tabulated rows, breadth first.

    link: nearest proper suffix that is a whole pattern, 0 for none. rows hold plain numbers here.
    """
    num_rows = len(rows) // num_classes
    for state in range(len(parent)):
        fail = np.int64(0)
        if parent[state] > 0:
            number = nodes[state, LABEL]
            fail = nodes[parent[state], FAIL]
            while fail >= num_rows:
                child = _child(nodes, fail, number)
                if child >= 0:
                    break
                fail = nodes[fail, FAIL]
            fail = child if fail >= num_rows else rows[fail * num_classes + number]
        nodes[state, FAIL] = fail
        if state > 0:
            link[state] = fail if own[fail] >= 0 else link[fail]
        ends = own[state] >= 0 or link[state] > 0
        nodes[state, CODE] = ~state if ends else state
        if state < num_rows:
            row = state * num_classes
            if state > 0:
                rows[row : row + num_classes] = rows[fail * num_classes : (fail + 1) * num_classes]
            for child in range(nodes[state, FIRST], nodes[state + 1, FIRST]):
                rows[row + nodes[child, LABEL]] = child


@njit(cache=True)
def encode_rows(nodes, rows, factor):
    """Numbers to what the walk reads: target * factor, complemented where a pattern ends."""
    for i in range(len(rows)):
        state = rows[i]
        rows[i] = state * factor if nodes[state, CODE] >= 0 else ~(state * factor)


# ---------------------------------------------------------------------- walking
@njit(cache=True, inline="always")
def _class(code, low, classes):
    # unsigned: a code below low wraps to a huge number, and the last entry of the table is "other"
    return classes[min(np.uint64(np.int64(code) - low), np.uint64(len(classes) - 1))]


@njit(cache=True, inline="always")
def _move(rows, at, code, low, classes):
    return np.int64(rows[np.uint64(at + _class(code, low, classes))])


@njit(cache=True, nogil=True)
def walk_rows(codes, low, classes, rows, num_classes, state, reach, only_first, ends, states):
    """Walk where every state is tabulated; returns (number of hits, state at the end, symbols read).

    ends[i], states[i]: where the i-th hit ends (exclusive) and the state there, in order.
    reach: length of the longest pattern, less one. A long text is cut into LANES stretches that are
    walked side by side; each but the first begins ``reach`` symbols early, which is enough to see
    every occurrence that ends in it. only_first: stop behind the first hit.
    """
    n = len(codes)
    lane = n // LANES
    if only_first or lane < LANE_FROM * (reach + 1):
        lane = 0
    k0, k1, k2, k3 = 0, lane, 2 * lane, 3 * lane
    s0, s1, s2, s3 = np.int64(state) * num_classes, np.int64(0), np.int64(0), np.int64(0)
    if lane:
        t0, t1, t2, t3 = codes[:k1], codes[k1:k2], codes[k2:k3], codes[k3 : k3 + lane]
        for i in range(lane - reach, lane):
            s1 = _move(rows, s1, t0[i], low, classes)
            s2 = _move(rows, s2, t1[i], low, classes)
            s3 = _move(rows, s3, t2[i], low, classes)
            s1, s2, s3 = max(s1, ~s1), max(s2, ~s2), max(s3, ~s3)
        for i in range(lane):
            s0 = _move(rows, s0, t0[i], low, classes)
            s1 = _move(rows, s1, t1[i], low, classes)
            s2 = _move(rows, s2, t2[i], low, classes)
            s3 = _move(rows, s3, t3[i], low, classes)
            if (s0 | s1 | s2 | s3) < 0:
                if s0 < 0:
                    s0 = ~s0
                    ends[k0], states[k0] = i + 1, s0 // num_classes
                    k0 += 1
                if s1 < 0:
                    s1 = ~s1
                    ends[k1], states[k1] = lane + i + 1, s1 // num_classes
                    k1 += 1
                if s2 < 0:
                    s2 = ~s2
                    ends[k2], states[k2] = 2 * lane + i + 1, s2 // num_classes
                    k2 += 1
                if s3 < 0:
                    s3 = ~s3
                    ends[k3], states[k3] = 3 * lane + i + 1, s3 // num_classes
                    k3 += 1
        k0 = _close_up(ends, states, k0, lane, k1)
        k0 = _close_up(ends, states, k0, 2 * lane, k2)
        k0 = _close_up(ends, states, k0, 3 * lane, k3)
        s0 = s3
    for i in range(LANES * lane, n):
        s0 = _move(rows, s0, codes[i], low, classes)
        if s0 < 0:
            s0 = ~s0
            ends[k0], states[k0] = i + 1, s0 // num_classes
            k0 += 1
            if only_first:
                return k0, s0 // num_classes, i + 1
    return k0, s0 // num_classes, n


@njit(cache=True)
def _close_up(ends, states, count, begin, stop):
    """Move the hits of one lane behind those before it."""
    for i in range(begin, stop):
        ends[count], states[count] = ends[i], states[i]
        count += 1
    return count


@njit(cache=True, nogil=True)
def walk_links(
    codes, low, classes, rows, num_classes, nodes, state, only_first, ends, states
):  # fmt: skip
    """Walk where deep states have no row: the failure form. Results as of walk_rows."""
    num_rows = len(rows) // num_classes
    count, v = 0, np.int64(state)
    for i in range(len(codes)):
        number = _class(codes[i], low, classes)
        found = np.int64(-1)
        while v >= num_rows:
            found = _child(nodes, v, number)
            if found >= 0:
                break
            v = nodes[v, FAIL]
        v = nodes[found, CODE] if found >= 0 else rows[v * num_classes + number]
        if v < 0:
            v = ~v
            ends[count], states[count] = i + 1, v
            count += 1
            if only_first:
                return count, v, i + 1
    return count, v, len(codes)


# ---------------------------------------------------------------------- choosing
@njit(cache=True, nogil=True)
def keep_apart(ends, length):
    """Keep, in place, the ends of occurrences that do not overlap, from left to right; their number."""
    k, free = 0, ends[0] - length
    for i in range(len(ends)):
        if ends[i] - length >= free:
            free = ends[i]
            ends[k] = free
            k += 1
    return k


@njit(cache=True, nogil=True)
def count_outputs(states, own, link):
    """Number of patterns that end at all hits together."""
    total = 0
    for state in states:
        v = state if own[state] >= 0 else link[state]
        while v > 0:
            total += 1
            v = link[v]
    return total


@njit(cache=True, nogil=True)
def list_outputs(ends, states, own, link, lengths, out):
    """out [k, 3]: (which, start, end) of every pattern at every hit, longest first."""
    k = 0
    for i in range(len(ends)):
        v = states[i] if own[states[i]] >= 0 else link[states[i]]
        while v > 0:
            out[k, 0] = own[v]
            out[k, 1] = ends[i] - lengths[own[v]]
            out[k, 2] = ends[i]
            k += 1
            v = link[v]


@njit(cache=True, nogil=True)
def list_earliest(ends, states, own, link, lengths, free, out):
    """The longest pattern at each hit that starts at ``free`` or later; the next starts behind it.

    Returns (number of matches, free).
    """
    k = 0
    for i in range(len(ends)):
        v = states[i] if own[states[i]] >= 0 else link[states[i]]
        while v > 0 and ends[i] - lengths[own[v]] < free:
            v = link[v]
        if v > 0:
            free = ends[i]
            out[k, 0], out[k, 1], out[k, 2] = own[v], ends[i] - lengths[own[v]], free
            k += 1
    return k, free


@njit(cache=True, nogil=True)
def keep_leftmost(matches, offset, final, state, depth, nodes, free):
    """Greedy choice among matches in order of preference, in place, as far as the text decides.

    Args:
        matches [k, 3]: (which, start, end), by start, the preferred one first.
        offset: symbols read, the state behind them is ``state``. free: where a match may start.
        final: no text follows.
    Returns (number kept, state): the state without the symbols that matches have taken. What starts
    at its word or later is not decided, so a match that shortens it may decide the next one.
    """
    k = 0
    for i in range(len(matches)):
        if matches[i, 1] < free:
            continue
        while depth[state] > offset - free:
            state = nodes[state, FAIL]
        if matches[i, 1] >= offset - depth[state] and not final:
            break
        free = matches[i, 2]
        matches[k] = matches[i]
        k += 1
    while depth[state] > offset - free:
        state = nodes[state, FAIL]
    return k, state
