"""The samples that wait for a place, in plan order: those that were preempted, then those that never started."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from umbel.cache.kv_forest import KVForest

Ints = NDArray[np.int64]


class Waiting:
    """A sample is known by its rank, its place in the order; `rows` and `samples` say whose it is (`[ranks]`).

    `kv` is for rules that look at what is cached.
    """

    def __init__(self, order: Ints, samples_per_row: Ints, kv: KVForest):
        counts = samples_per_row[order]
        first = np.cumsum(counts) - counts
        self.rows = np.repeat(order, counts)
        self.samples = np.arange(len(self.rows)) - np.repeat(first, counts)
        # Per row: the rank of its first sample, and how many it has (none where the order leaves the row out).
        self._first, self._count = np.zeros((2, len(samples_per_row)), np.int64)
        self._first[order], self._count[order] = first, counts
        self._preempted: list[int] = []  # heap
        self._started = np.zeros(len(self.rows) + 1, bool)  # by rank, or dropped; the last entry stays False
        self._cursor = 0  # all ranks before this one have started

    def first(self) -> int | None:
        """The rank whose turn it is, None when none waits."""
        return self._preempted[0] if self._preempted else self._first_new()

    def take(self, rank: int) -> None:
        """The rank whose turn it is starts."""
        if self._preempted:
            heapq.heappop(self._preempted)
        else:
            self._leave(rank)

    def put_back(self, rank: int) -> None:
        """A sample was preempted; it comes before those that never started."""
        heapq.heappush(self._preempted, rank)

    def drop(self, rank: int) -> bool:
        """Take a rank out for good; False if it was not waiting."""
        if rank in self._preempted:
            self._preempted.remove(rank)
            heapq.heapify(self._preempted)
            return True
        if self._started[rank]:
            return False
        self._leave(rank)
        return True

    def cached(self, node: int) -> None:
        """More of a prompt node is in the cache than before; of no account in plan order."""

    def ranks_of(self, row: int) -> range:
        """The ranks of a row's samples; none for a row that the order leaves out."""
        return range(int(self._first[row]), int(self._first[row] + self._count[row]))

    def _first_new(self) -> int | None:
        while self._started[self._cursor]:
            self._cursor += 1
        return self._cursor if self._cursor < len(self.rows) else None

    def _leave(self, rank: int) -> None:
        self._started[rank] = True
