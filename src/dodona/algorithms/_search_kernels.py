"""Many positions in one sorted array, compiled by Numba: the halvings of a block of queries interleaved.

A single search waits for memory once per halving. Here every query of a block takes its step before
any takes the next one, so the misses of a block overlap; the step itself has no branch to guess.
Source: Khuong & Morin 2015, arXiv:1509.05053 (branch-free search).
"""

import numpy as np
from numba import njit

BLOCK = 64  # queries in flight: more than the misses that a core keeps open


@njit(cache=True, nogil=True)
def positions(a, queries, right, nan_position, out):
    """out[j] = first i with a[i] >= queries[j], or > where ``right``; a [n], n >= 1, contiguous.

    ``nan_position`` answers queries that are NaN.
    """
    n, num_queries = len(a), len(queries)
    base = np.zeros(BLOCK, np.int64)
    block = np.zeros(BLOCK, queries.dtype)
    for start in range(0, num_queries, BLOCK):
        for j in range(BLOCK):
            base[j] = 0
            block[j] = queries[min(start + j, num_queries - 1)]
        length = n
        while length > 1:
            half = length >> 1
            # a product and no condition: LLVM must not make a branch of it
            if right:
                for j in range(BLOCK):
                    base[j] += half * np.int64(a[base[j] + half - 1] <= block[j])
            else:
                for j in range(BLOCK):
                    base[j] += half * np.int64(a[base[j] + half - 1] < block[j])
            length -= half
        for j in range(min(BLOCK, num_queries - start)):
            x, element = block[j], a[base[j]]
            if x != x:
                out[start + j] = nan_position
            else:
                out[start + j] = base[j] + (element < x or (right and element == x))
