"""Some rows of a workload as a workload of their own, and several workloads as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umbel.ir.documents import Documents
from umbel.ir.workload import Workload


def select_rows(workload: Workload, rows: NDArray[np.int64]) -> Workload:
    """Some rows of a workload, in the order given, with their keys and scopes."""
    lengths = np.diff(workload.offsets)[rows]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    at = np.arange(int(offsets[-1])) + np.repeat(workload.offsets[rows] - offsets[:-1], lengths)
    draw_keys, scope = (None if column is None else column[rows] for column in (workload.draw_keys, workload.scope))
    params = [workload.params[i] for i in rows.tolist()]
    found, documents = (workload.tokens[at], offsets, params, workload.keys[rows], draw_keys, scope), workload.documents
    if documents is None:
        return Workload(*found)
    return Workload(*found, documents.picked(workload.offsets[rows], workload.offsets[rows + 1], offsets[:-1]))


def join(loads: Sequence[Workload]) -> Workload:
    """The rows of several workloads as one, in order. Either all of them have draw keys or none."""
    if len(loads) == 1:
        return loads[0]
    ends = np.cumsum([len(load.tokens) for load in loads])
    offsets = [load.offsets[1:] + end - len(load.tokens) for load, end in zip(loads, ends, strict=True)]
    drawn = [load.draw_keys for load in loads if load.draw_keys is not None]
    scopes = [np.zeros(len(load), np.int64) if load.scope is None else load.scope for load in loads]
    scoped = any(load.scope is not None for load in loads)
    tokens = np.concatenate([load.tokens for load in loads])
    return Workload(
        tokens,
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        [p for load in loads for p in load.params],
        np.concatenate([load.keys for load in loads]),
        np.concatenate(drawn) if drawn else None,
        np.concatenate(scopes) if scoped else None,
        Documents.joined([load.documents for load in loads], ends - [len(load.tokens) for load in loads], tokens),
    )
