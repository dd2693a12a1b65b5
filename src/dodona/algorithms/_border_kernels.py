"""Prefix function, Z-function and the walk of one pattern, compiled by Numba. Meaning: borders.py."""

import numpy as np
from numba import njit


@njit(cache=True)
def prefix_kernel(p):
    """pi[i]: length of the longest border of p[0..i]."""
    pi = np.zeros(len(p), dtype=np.int32)
    k = 0
    for i in range(1, len(p)):
        while k > 0 and p[i] != p[k]:
            k = pi[k - 1]
        if p[i] == p[k]:
            k += 1
        pi[i] = k
    return pi


@njit(cache=True)
def strong_kernel(p, fall):
    """The failure function without candidates that would meet the same symbol again."""
    m = len(p)
    strong = np.empty(m + 1, dtype=np.int32)
    strong[0] = -1
    for j in range(1, m):
        k = fall[j]
        strong[j] = k if p[k] != p[j] else strong[k]
    strong[m] = fall[m]
    return strong


@njit(cache=True)
def z_kernel(p):
    """z[i]: length of the longest common prefix of p and p[i:]; z[0] = m."""
    m = len(p)
    z = np.zeros(m, dtype=np.int32)
    if m:
        z[0] = m
    begin, end = 0, 0  # the match that reaches furthest right
    for i in range(1, m):
        k = min(z[i - begin], end - i) if i < end else 0
        while i + k < m and p[k] == p[i + k]:
            k += 1
        if i + k > end:
            begin, end = i, i + k
        z[i] = k
    return z


@njit(cache=True)
def prefix_from_z_kernel(z):
    pi = np.zeros(len(z), dtype=np.int32)
    reached = 0  # everything left of it has its longest border: earlier i give longer ones
    for i in range(1, len(z)):
        for j in range(max(i, reached), i + z[i]):
            pi[j] = j - i + 1
        reached = max(reached, i + z[i])
    return pi


@njit(cache=True)
def z_from_prefix_kernel(pi):
    m = len(pi)
    z = np.zeros(m, dtype=np.int32)
    if m:
        z[0] = m
    for i in range(
        1, m
    ):  # a border that ends at i and does not grow further is a match of its length
        if pi[i] > 0:
            z[i - pi[i] + 1] = pi[i]
    i = 1
    while i < m:
        k = z[i]
        j = 1
        while j < k and z[i + j] <= z[j]:  # inside a match the text repeats the beginning
            z[i + j] = min(z[j], k - j)
            j += 1
        i += j
    return z


@njit(cache=True)
def count_prefixes_kernel(numbers, p, pi):
    """counts[j]: how often p[0..j] occurs in the text; both are classes of one alphabet."""
    m = len(p)
    counts = np.zeros(m + 1, dtype=np.int64)
    k = 0
    for c in numbers:
        while k > 0 and (k == m or p[k] != c):
            k = pi[k - 1]
        if p[k] == c:
            k += 1
        counts[k] += 1
    for k in range(m, 0, -1):  # whoever matched k symbols has matched the border of them, too
        counts[pi[k - 1]] += counts[k]
    return counts[1:]
