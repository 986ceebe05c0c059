"""llm-d's batch gateway: rows sorted by a hash of their system prompt, otherwise as they come.

A workload of tokens does not say where a system prompt ends. Here it is the first run that several rows share, to the
first token in which any two of them differ: where all chats begin alike, everything has one hash, as it would have
there with one system prompt for all. The hash decides nothing but which group comes first, so that any will do.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.ir.workload import Workload
from umbel.sim.case import SimCase
from umbel.sim.policies.setup import Setup, cached

Ints = NDArray[np.int64]

NONE = 2**32 - 1  # the hash of rows without a system prompt


def by_system_prompt(case: SimCase) -> Setup:
    """Rows as the gateway gives them to one engine."""
    return cached(case, "llm-d-hash", hash_order(case.workload, case.forest))


def hash_order(workload: Workload, forest: Forest) -> Ints:
    """The rows by the hash of their first shared run; rows that share nothing come last, and ties in order."""
    roots = np.flatnonzero(forest.parent < 0)
    hashes = np.full(len(roots), NONE, np.int64)
    for i in np.flatnonzero(forest.rows_below[roots] > 1).tolist():
        root = int(roots[i])
        hashes[i] = zlib.crc32(workload.prompt(int(forest.source[root]))[: forest.end[root]].tobytes())
    tree = np.searchsorted(roots, forest.leaf, side="right") - 1
    return np.argsort(hashes[tree], kind="stable")
