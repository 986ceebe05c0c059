"""The samples that wait for a place, in plan order: those that were preempted, then those that never started."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Waiting:
    """A sample is known by its rank, its place in plan order; `rows` and `samples` say whose it is (`[ranks]`)."""

    def __init__(self, order: Ints, samples_per_row: Ints):
        counts = samples_per_row[order]
        first = np.cumsum(counts) - counts
        self.rows = np.repeat(order, counts)
        self.samples = np.arange(len(self.rows)) - np.repeat(first, counts)
        self._samples_per_row = samples_per_row
        self._first = np.empty(len(order), np.int64)  # per row: the rank of its first sample
        self._first[order] = first
        self._cursor = 0  # ranks from here on have never started
        self._preempted: list[int] = []  # heap
        self._dropped: set[int] = set()  # ranks from the cursor on that will not start

    def first(self) -> int | None:
        """The rank whose turn it is, None when none waits."""
        if self._preempted:
            return self._preempted[0]
        while self._cursor in self._dropped:
            self._dropped.discard(self._cursor)
            self._cursor += 1
        return self._cursor if self._cursor < len(self.rows) else None

    def take_first(self) -> None:
        """The rank whose turn it is starts."""
        if self._preempted:
            heapq.heappop(self._preempted)
        else:
            self._cursor += 1

    def put_back(self, rank: int) -> None:
        """A sample was preempted; it comes before those that never started."""
        heapq.heappush(self._preempted, rank)

    def drop(self, rank: int) -> bool:
        """Take a rank out for good; False if it was not waiting."""
        if rank in self._preempted:
            self._preempted.remove(rank)
            heapq.heapify(self._preempted)
            return True
        if rank < self._cursor or rank in self._dropped:
            return False
        self._dropped.add(rank)
        return True

    def ranks_of(self, row: int) -> range:
        """The ranks of a row's samples."""
        first = int(self._first[row])
        return range(first, first + int(self._samples_per_row[row]))
