"""What attention works on: pairs of a query and a key it sees, in cells of positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

READ_CELL = 128  # positions whose KV attention reads at once for all rows that share them (attention.layout.GRID)


def causal_pairs(start: Ints, end: Ints, window: int | None = None) -> Ints:
    """Number of keys seen by the queries at positions `start` to `end`: each sees itself and what is before it in its
    window."""

    def before(position: Ints) -> Ints:
        if window is None:
            return position * (position + 1) // 2
        ramp = np.minimum(position, window)
        return np.asarray(ramp * (ramp + 1) // 2 + (position - ramp) * window)

    return before(end) - before(start)
