"""Some rows of a workload as a workload of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.ir.workload import Workload


def select_rows(workload: Workload, rows: NDArray[np.int64]) -> Workload:
    """Some rows of a workload, in the order given, with their keys and scopes."""
    lengths = np.diff(workload.offsets)[rows]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    at = np.arange(int(offsets[-1])) + np.repeat(workload.offsets[rows] - offsets[:-1], lengths)
    draw_keys, scope = (None if column is None else column[rows] for column in (workload.draw_keys, workload.scope))
    params = [workload.params[i] for i in rows.tolist()]
    return Workload(workload.tokens[at], offsets, params, workload.keys[rows], draw_keys, scope)
