"""Least squares with coefficients that cannot be negative, from a Gram matrix (Lawson and Hanson 1974, chapter 23)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SLACK = 1e-10


def solve_nonnegative(gram: Floats, cross: Floats) -> Floats:
    """The `z >= 0` with the smallest `z @ gram @ z - 2 * cross @ z`; `gram` (`[k, k]`) is positive definite.

    Active set: coefficients join one by one while that lowers the error, and leave when a joint solution pushes them
    below zero. Ends after at most 10 k changes, whatever the rounding.
    """
    k = len(cross)
    z, used = np.zeros(k), np.zeros(k, bool)
    for _ in range(10 * k):
        slope = np.where(used, -np.inf, cross - gram @ z)
        best = int(slope.argmax())
        if slope[best] <= _SLACK * max(1.0, float(np.abs(cross).max())):
            break
        used[best] = True
        z = _settle(gram, cross, z, used)
    return z


def _settle(gram: Floats, cross: Floats, z: Floats, used: NDArray[np.bool_]) -> Floats:
    """Move towards the free optimum of the coefficients in use, dropping (from `used`) those that reach zero first."""
    while used.any():
        target = np.zeros_like(z)
        target[used] = np.linalg.solve(gram[np.ix_(used, used)], cross[used])
        sinking = used & (target <= 0)
        if not sinking.any():
            return target
        step = (z[sinking] / np.maximum(z[sinking] - target[sinking], 1e-300)).min()
        z = z + step * (target - z)
        gone = sinking & (z <= _SLACK)
        used[gone if gone.any() else sinking] = False
        z[~used] = 0.0
    return np.zeros_like(z)
