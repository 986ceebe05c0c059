"""Counter-based randomness: a stream for each row and a 64-bit word for each of its draws, whatever is in the batch.

Philox4x32-10 (Salmon et al., SC 2011), vectorised, with seed or stream as its key. The word keys the noise of one draw
over the whole vocabulary (`kernels.reference.exponentials`).
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from umbel.errors import UsageError

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


def streams(seeds: Ints, keys: Ints, own: NDArray[np.bool_]) -> Ints:
    """The stream of each row (`[rows]`), which keys its randomness: its seed alone where the row brought its `own`,
    else the job's seed with the row's key."""
    shared = ~own
    row = _words(np.where(shared, keys, 0))
    counter = np.stack([row[0], row[1], own.astype(np.uint64), np.zeros(len(keys), np.uint64)])
    return _word(philox(counter, _words(seeds)))


def noise_keys(streams: Ints, samples: Ints, positions: Ints) -> Ints:
    """64 random bits for each draw (`[k]`), as the bits of an int64: for a row's stream, sample and position."""
    none = np.zeros(len(streams), np.uint64)
    counter = np.stack([samples.astype(np.uint64) & _LOW, positions.astype(np.uint64) & _LOW, none, none])
    return _word(philox(counter, _words(streams)))


def key_of(name: int | str) -> int:
    """The key of a row named so: a whole number of 64 bits is its own key, a text is hashed. Raises UsageError."""
    if isinstance(name, str):
        return int.from_bytes(
            blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little", signed=True
        )
    if isinstance(name, bool) or not isinstance(name, (int, np.integer)) or not -(2**63) <= name < 2**63:
        raise UsageError(f"key {name!r:.80}: must be a text or a whole number of 64 bits")
    return int(name)


def _word(output: NDArray[np.uint64]) -> Ints:
    """The first two of four 32-bit words as one of 64 (`[4, k]` -> `[k]`)."""
    words: Ints = ((output[0] << _SHIFT) | output[1]).view(np.int64)
    return words


def _words(values: Ints) -> NDArray[np.uint64]:
    """64-bit integers as two 32-bit words (`[2, k]`)."""
    unsigned = values.astype(np.int64).view(np.uint64)
    return np.stack([unsigned & _LOW, unsigned >> _SHIFT])
