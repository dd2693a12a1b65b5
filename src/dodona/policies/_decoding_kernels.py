"""Pieces of a decoding step between its matrix products, compiled by Numba.

Meaning: _decoding.py. Rows are walked in order and rows of one prompt are adjacent, so the keys and values
of a prompt are read from memory once for its whole group.
"""

import math

import numpy as np
from numba import njit

# sums may be regrouped into vectors; nan and inf keep their meaning
LOOSE = {"reassoc", "contract", "arcp", "nsz"}


@njit(cache=True, nogil=True)
def gather_rows(table, rows, out):
    """out[b] = table[rows[b]]."""
    for b in range(len(rows)):
        out[b] = table[rows[b]]


@njit(cache=True, nogil=True, fastmath=LOOSE)
def rms_norm(x, gain, eps, out):
    """out = x / sqrt(mean x^2 + eps) gain, row by row."""
    num_rows, width = x.shape
    for b in range(num_rows):
        total = x[b, 0] * x[b, 0]
        for i in range(1, width):
            total += x[b, i] * x[b, i]
        scale = x.dtype.type(1.0 / math.sqrt(total / width + eps))
        for i in range(width):
            out[b, i] = x[b, i] * scale * gain[i]


@njit(cache=True, nogil=True, fastmath=LOOSE)
def attend(
    qkv, cos, sin, shared_keys, shared_values, lengths, prompt, own_keys, own_values, slot, step, out,
):  # fmt: skip
    """One token per row attends to its prompt, to the tokens after it and to itself.

    qkv [B, 3 H D]; cos, sin [context, D / 2]; shared_keys, shared_values [N, H, W, D] of prompts with these
    lengths [N], prompt [B] which one; own_keys, own_values [S, H, C, D] of the tokens after them, slot [B]
    whose; step: how many of those there are. Key and value of this token are written there; out [B, H D].
    """
    num_heads, size = own_keys.shape[1], own_keys.shape[3]
    width, half = num_heads * size, size // 2
    weights = np.empty(shared_keys.shape[2] + step + 1, dtype=qkv.dtype)
    powers = np.empty(len(weights), dtype=np.int32)
    query = np.empty(size, dtype=qkv.dtype)
    scale = qkv.dtype.type(1.0 / math.sqrt(size))
    for b in range(len(qkv)):
        n = lengths[prompt[b]]
        turn, lean = cos[n + step], sin[n + step]
        for h in range(num_heads):
            q = qkv[b, h * size : (h + 1) * size]
            k = qkv[b, width + h * size : width + (h + 1) * size]
            before, values = shared_keys[prompt[b], h], shared_values[prompt[b], h]
            own, own_value = own_keys[slot[b], h], own_values[slot[b], h]
            for i in range(half):
                query[i] = (q[i] * turn[i] - q[half + i] * lean[i]) * scale
                query[half + i] = (q[half + i] * turn[i] + q[i] * lean[i]) * scale
                own[step, i] = k[i] * turn[i] - k[half + i] * lean[i]
                own[step, half + i] = k[half + i] * turn[i] + k[i] * lean[i]
            for i in range(size):
                own_value[step, i] = qkv[b, 2 * width + h * size + i]
            highest = _scores(query, before, n, weights)
            highest = max(highest, _scores(query, own, step + 1, weights[n:]))
            total = _exponentials(weights[: n + step + 1], highest, powers)
            mixed = out[b, h * size : (h + 1) * size]
            mixed[:] = 0
            _mix(weights, values, n, mixed)
            _mix(weights[n:], own_value, step + 1, mixed)
            share = qkv.dtype.type(1.0) / total
            for i in range(size):
                mixed[i] *= share


@njit(cache=True, nogil=True, fastmath=LOOSE)
def _scores(query, keys, count, out):
    """out[j] = query . keys[j]; returns the largest. Four at a time: one alone waits for its own sum."""
    zero, highest = query.dtype.type(0.0), query.dtype.type(-np.inf)
    whole = count - count % 4
    for j in range(0, whole, 4):
        a, b, c, d = zero, zero, zero, zero
        for i in range(len(query)):
            a += query[i] * keys[j, i]
            b += query[i] * keys[j + 1, i]
            c += query[i] * keys[j + 2, i]
            d += query[i] * keys[j + 3, i]
        out[j], out[j + 1], out[j + 2], out[j + 3] = a, b, c, d
        highest = max(highest, max(max(a, b), max(c, d)))
    for j in range(whole, count):
        a = zero
        for i in range(len(query)):
            a += query[i] * keys[j, i]
        out[j] = a
        highest = max(highest, a)
    return highest


@njit(cache=True, nogil=True, fastmath=LOOSE)
def _mix(weights, values, count, out):
    """out += sum_j weights[j] values[j], four at a time."""
    whole = count - count % 4
    for j in range(0, whole, 4):
        a, b, c, d = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        for i in range(len(out)):
            out[i] += (a * values[j, i] + b * values[j + 1, i]) + (
                c * values[j + 2, i] + d * values[j + 3, i]
            )
    for j in range(whole, count):
        a = weights[j]
        for i in range(len(out)):
            out[i] += a * values[j, i]


@njit(cache=True, nogil=True, fastmath=LOOSE)
def _exponentials(x, highest, powers):
    """x <- exp(x - highest); returns the sum.

    In float32 by the polynomial of Cephes' expf, exp(y) = 2^n exp(r), |r| <= log(2) / 2, with 2^n put together
    from its bits: the compiler makes vectors of it, and of math.exp it does not.
    """
    total = x.dtype.type(0.0)
    if x.itemsize == 8:
        for j in range(len(x)):
            x[j] = math.exp(x[j] - highest)
            total += x[j]
        return total
    one, half = np.float32(1.0), np.float32(0.5)
    for j in range(len(x)):
        y = max(x[j] - highest, np.float32(-87.0))
        n = math.floor(y * np.float32(1.44269504) + half)
        m = np.float32(n)
        r = (y - m * np.float32(0.693359375)) + m * np.float32(2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + half
        x[j] = (p * r) * r + (r + one)
        powers[j] = np.int32(np.int32(n) + np.int32(127)) << np.int32(23)
    scales = powers.view(np.float32)
    for j in range(len(x)):
        x[j] *= scales[j]
        total += x[j]
    return total
