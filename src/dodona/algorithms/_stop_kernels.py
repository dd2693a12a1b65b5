"""Tables over a vocabulary, the step of a batch, and repetition counts, compiled by Numba.

Meaning: stopping.py and repeats.py.
"""

import numpy as np
from numba import njit

from dodona.algorithms._machine_kernels import _move


@njit(cache=True, nogil=True)
def fill_token_table(
    codes, starts, low, classes, rows, num_classes, stopped, after, hit
):  # fmt: skip
    """after, hit [S, V]: where each token leads from each state, and where in it a stop ends (-1)."""
    for state in range(len(stopped)):
        for token in range(len(starts) - 1):
            at, found = np.int64(state) * num_classes, -1
            if not stopped[state]:
                for i in range(starts[token], starts[token + 1]):
                    at = _move(rows, at, codes[i], low, classes)
                    if at < 0:
                        at, found = ~at, i + 1 - starts[token]
                        break
            after[state, token] = at // num_classes
            hit[state, token] = found


@njit(cache=True, nogil=True)
def step_batch(after, hit, which, state, tokens, out_state, out_hit):
    """One token per row; returns the first row whose state or token is out of range, else -1.

    ``hit`` is read only behind a stop (which >= 0): one cache miss a row instead of two.
    """
    S, V = after.shape
    for b in range(len(tokens)):
        s, v = state[b], tokens[b]
        if s < 0 or s >= S or v < 0 or v >= V:
            return b
        out_state[b] = after[s, v]
        out_hit[b] = hit[s, v] if which[out_state[b]] >= 0 else -1
    return -1


@njit(cache=True, nogil=True)
def step_repeats(tokens, recent, runs, age, needed, out):
    """Compare each row's token with those 1..P steps before.

    recent [B, 2 P] holds the last P tokens twice, so that they lie in a row, oldest first, from
    age % P on; runs [B, P]: equal ones in a row, entry j belongs to period P - j; needed [P] likewise.
    """
    P = runs.shape[1]
    for b in range(len(tokens)):
        token, place = tokens[b], age[b] % P
        last, row = recent[b, place : place + P], runs[b]
        first = P - min(age[b], P)
        repeats = np.int32(0)
        for j in range(P):  # no branch, one width of integers: this loop is vectorised
            row[j] = (row[j] + np.int32(1)) * np.int32((last[j] == token) & (j >= first))
            repeats |= np.int32(row[j] >= needed[j])
        out[b] = repeats != 0
        recent[b, place] = recent[b, place + P] = token
        age[b] += 1
