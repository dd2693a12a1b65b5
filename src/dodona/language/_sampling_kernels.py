"""A token per row by the inverse of a softmax's sum, compiled by Numba.

Meaning: sampling.py.
"""

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def draw_rows(logits, uniforms, temperature, tokens, logp, logp_raw, entropy):
    """A token per row from softmax(logits / temperature) by the inverse of its sum, in float64.

    logp under that law, logp_raw under softmax(logits), entropy of the latter. Returns the first row whose
    logits have no softmax, else -1.
    """
    num_rows, size = logits.shape
    p = np.empty(size)
    for b in range(num_rows):
        row = logits[b]
        highest = np.float64(row[0])
        for v in range(1, size):
            highest = max(highest, np.float64(row[v]))
        total, moment = 0.0, 0.0
        for v in range(size):
            x = np.float64(row[v]) - highest
            p[v] = math.exp(x)
            total += p[v]
            if p[v] > 0.0:
                moment += p[v] * x
        if not (total > 0.0 and total < np.inf):
            return b
        log_total = math.log(total)
        entropy[b] = log_total - moment / total
        drawn = total
        if temperature != 1.0:
            drawn = 0.0
            for v in range(size):
                p[v] = math.exp((np.float64(row[v]) - highest) / temperature)
                drawn += p[v]
        level, below, token = uniforms[b] * drawn, 0.0, -1
        for v in range(size):
            below += p[v]
            if below > level and p[v] > 0.0:
                token = v
                break
        if token < 0:  # a level that rounding put above the whole sum
            token = size - 1
            while p[token] == 0.0:
                token -= 1
        tokens[b] = token
        x = np.float64(row[token]) - highest
        logp_raw[b] = x - log_total
        logp[b] = x / temperature - math.log(drawn)
    return -1
