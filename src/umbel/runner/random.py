"""Counter-based randomness: one uniform number per (seed, row, sample, position), whatever else is in the batch.

Philox4x32-10 (Salmon et al., SC 2011), vectorised: the seed is the key, row, sample and position are the counter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def philox(counter: NDArray[np.uint64], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Ten rounds over 32-bit words held in uint64: `counter` `[4, k]`, `key` `[2, k]` -> `[4, k]`."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1  # 32 x 32 bits: no overflow in 64
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return np.stack([c0, c1, c2, c3])


def uniform(seeds: Ints, keys: Ints, samples: Ints, positions: Ints) -> NDArray[np.float64]:
    """Numbers in (0, 1), 53 bits each, one per entry."""
    key = _words(seeds)
    row = _words(keys)
    counter = np.stack([row[0], row[1], samples.astype(np.uint64) & _LOW, positions.astype(np.uint64) & _LOW])
    out = philox(counter, key)
    bits = (out[0] << np.uint64(21)) ^ (out[1] >> np.uint64(11))  # 53 bits
    return (bits.astype(np.float64) + 0.5) / 2.0**53


def _words(values: Ints) -> NDArray[np.uint64]:
    """64-bit integers as two 32-bit words (`[2, k]`)."""
    unsigned = values.astype(np.int64).view(np.uint64)
    return np.stack([unsigned & _LOW, unsigned >> _SHIFT])
