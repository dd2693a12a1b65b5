"""The inner loop of tile coding, compiled by Numba: which tile of every tiling a point falls into.

Not here: meaning and input checks (features.py).

Source: Steele, Lea & Flood 2014 (the finaliser of SplitMix64, which hashes tiles).
"""

import numpy as np
from numba import njit

MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def tile_indices(unit, tiles, offsets, strides, per_tiling, out):
    """out[i, t] = tile of point i in tiling t, counted through all tilings.

    unit [B, k] in [0, 1]; tiles [k] tiles along each axis; offsets [T, k] displacements in tiles,
    in [0, 1), so that an axis has tiles + 1 cells; strides [k] of the cells of one tiling.
    """
    num_tilings, dim = offsets.shape
    for i in range(len(unit)):
        for t in range(num_tilings):
            cell = t * per_tiling
            for d in range(dim):
                cell += strides[d] * int(unit[i, d] * tiles[d] + offsets[t, d])
            out[i, t] = cell


@njit(cache=True, nogil=True)
def hash_tiles(cells, size, seed):
    """Every number of ``cells`` becomes one in 0..size-1, the same one for the same seed."""
    flat = cells.ravel()
    for i in range(len(flat)):
        z = (np.uint64(flat[i]) + np.uint64(1)) * GOLDEN ^ seed
        z = (z ^ (z >> np.uint64(30))) * MIX[0]
        z = (z ^ (z >> np.uint64(27))) * MIX[1]
        z = z ^ (z >> np.uint64(31))
        flat[i] = np.int64(z % np.uint64(size))
