"""The samples that wait for a place, in plan order: those that were preempted, then those that never started."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree
from umbel.sched.request_table import RequestTable

Ints = NDArray[np.int64]


class Waiting:
    """A sample is known by its rank, its place in the order; `rows` and `samples` say whose it is (`[ranks]`). Rows
    that are added later come behind all that are there. `kv` is for rules that look at what is cached, `requests` for
    those that ask whose row it is."""

    def __init__(self, kv: KVTree, requests: RequestTable) -> None:
        self.rows, self.samples = array("q"), array("q")
        # Per row: the rank of its first sample, and how many it has (none where the order leaves the row out).
        self._first, self._count = array("q"), array("q")
        self._preempted: list[int] = []  # heap
        self._started = bytearray()  # by rank: 1 once it has started or was dropped
        self._cursor = 0  # all ranks before this one have started

    def extend(self, order: Ints, samples_per_row: Ints, first_sample: Ints | None = None) -> None:
        """Add rows, numbered behind those that are there: `samples_per_row` (`[new rows]`), of which those in `order`
        (numbers among the new ones) wait. Their samples are numbered from `first_sample` on (None: from 0)."""
        old, begin = len(self._count), len(self.rows)
        counts = samples_per_row[order]
        first = np.cumsum(counts) - counts
        n_new, number = int(counts.sum()), np.zeros_like(order) if first_sample is None else first_sample[order]
        per_row = np.zeros((2, len(samples_per_row)), np.int64)
        per_row[:, order] = begin + first, counts
        self.rows.frombytes(np.repeat(order + old, counts).tobytes())
        self.samples.frombytes((np.arange(n_new) - np.repeat(first - number, counts)).tobytes())
        self._first.frombytes(per_row[0].tobytes())
        self._count.frombytes(per_row[1].tobytes())
        self._started += bytes(n_new)

    def extend_started(self, samples: Sequence[int]) -> range:
        """Add a row for each of some samples, which have started already; returns their ranks."""
        row, ranks = len(self._count), range(len(self.rows), len(self.rows) + len(samples))
        self.rows.extend(range(row, row + len(samples)))
        self.samples.extend(samples)
        self._first.extend(ranks)
        self._count.extend([1] * len(samples))
        self._started += b"\1" * len(samples)
        return ranks

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

    def waits(self, rank: int) -> bool:
        """Whether a sample has never started, nor was it dropped."""
        return not self._started[rank]

    def drop(self, rank: int) -> bool:
        """Take a rank out for good; False if it was not waiting."""
        if not self._started[rank]:
            self._leave(rank)
        elif rank in self._preempted:
            self._preempted.remove(rank)
            heapq.heapify(self._preempted)
        else:
            return False
        return True

    def new_among(self, count: int) -> int:
        """How many of the next `count` ranks have never started."""
        first = self._first_new()
        return 0 if first is None else self._started.count(0, first, first + count)

    def rows_to_start(self) -> Ints:
        """The row of each sample that has never started."""
        started = np.frombuffer(bytes(self._started), np.uint8)
        rows: Ints = np.frombuffer(self.rows.tobytes(), np.int64)[started == 0]
        return rows

    def cached(self, node: int) -> None:
        """More of a prompt node is in the cache than before; plan order does not look at it."""

    def ranks_of(self, row: int) -> range:
        """The ranks of a row's samples; none for a row that the order leaves out."""
        first = self._first[row]
        return range(first, first + self._count[row])

    def _first_new(self) -> int | None:
        started, at = self._started, self._cursor
        while at < len(started) and started[at]:
            at += 1
        self._cursor = at
        return at if at < len(started) else None

    def _leave(self, rank: int) -> None:
        self._started[rank] = True
