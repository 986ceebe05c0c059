"""Takes the row next of whose prompt most is cached, as SGLang does (arXiv 2312.07104, section 3), in O(log n) a row.

Every prompt node with cached tokens stands in a heap by the depth its tokens reach, with the first row below it that
waits. Entries are not kept up to date: one that is not true any more is put right or dropped when it comes up.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree
from umbel.sched.request_table import RequestTable
from umbel.sched.waiting import Waiting

Ints = NDArray[np.int64]


class LongestPrefix(Waiting):
    """Waiting samples by their cached prompt tokens, ties in order; preempted ones come first, as in plan order."""

    def __init__(self, kv: KVTree, requests: RequestTable):
        super().__init__(kv, requests)
        self._kv = kv
        self._lots: list[_Lot] = []
        self._first_ranks: list[int] = []
        self._heap: list[tuple[int, int, int]] = []  # (-cached tokens down to the node, first rank below, node)

    def extend(self, order: Ints, samples_per_row: Ints, first_sample: Ints | None = None) -> None:
        """Add rows, whose nodes are in the forest already."""
        begin = len(self.rows)
        super().extend(order, samples_per_row, first_sample)
        self._lots.append(_Lot.of(self._kv.leaf[np.array(self.rows[begin:])], begin, self._kv))
        self._first_ranks.append(begin)

    def cached(self, node: int) -> None:
        """More of a prompt node is in the cache than before: the rows below it may be next."""
        rank = self._least(node)
        if rank is not None:
            heapq.heappush(self._heap, (-self._depth(node), rank, node))

    def _first_new(self) -> int | None:
        while self._heap:
            depth, rank, node = self._heap[0]
            if self._kv.n_pages[node] and self._depth(node) == -depth:
                least = self._least(node)
                if least == rank:
                    return rank
                if least is not None:
                    heapq.heapreplace(self._heap, (depth, least, node))
                    continue
            heapq.heappop(self._heap)
        return super()._first_new()

    def _leave(self, rank: int) -> None:
        super()._leave(rank)
        at = bisect_right(self._first_ranks, rank) - 1
        self._lots[at].remove(rank - self._first_ranks[at])

    def _least(self, node: int) -> int | None:
        ranks = (lot.least(node) for lot in self._lots)
        return next((rank for rank in ranks if rank is not None), None)

    def _depth(self, node: int) -> int:
        return self._kv.start.item(node) + self._kv.held.item(node)


@dataclass(frozen=True, slots=True)
class _Lot:
    """The ranks of rows that were added together, sorted by leaf: those below node i stand at `begin[i]` to `end[i]`,
    and `place` says where each rank stands."""

    waiting: _Minima
    begin: list[int]
    end: list[int]
    place: Ints

    @classmethod
    def of(cls, leaves: Ints, first_rank: int, kv: KVTree) -> _Lot:
        """The ranks from `first_rank` on, whose rows end at these leaves (`[ranks]`)."""
        ranks = np.argsort(kv.labels.low[leaves], kind="stable")
        place = np.empty_like(ranks)
        place[ranks] = np.arange(len(ranks))
        begin, end = kv.labels.within(np.arange(kv.n_nodes), leaves[ranks])
        return cls(_Minima((first_rank + ranks).tolist()), begin.tolist(), end.tolist(), place)

    def least(self, node: int) -> int | None:
        """The first rank that waits below a node, None where there is none, or the node came later."""
        return self.waiting.least(self.begin[node], self.end[node]) if node < len(self.begin) else None

    def remove(self, rank: int) -> None:
        """A rank, counted within the lot, does not wait any more."""
        self.waiting.remove(int(self.place[rank]))


class _Minima:
    """A row of numbers of which the least in a range is found, and one is removed, in logarithmic time."""

    def __init__(self, values: list[int]):
        self._n = len(values)
        self._none = max(values, default=0) + 1
        self._tree = [self._none] * self._n + values  # entry i is the lesser of entries 2i and 2i + 1
        for i in range(self._n - 1, 0, -1):
            self._tree[i] = min(self._tree[2 * i], self._tree[2 * i + 1])

    def least(self, begin: int, end: int) -> int | None:
        """The least number at places `begin` to `end` (exclusive), None when all are gone."""
        tree, found = self._tree, self._none
        begin, end = begin + self._n, end + self._n
        while begin < end:
            if begin & 1:
                found = min(found, tree[begin])
                begin += 1
            if end & 1:
                end -= 1
                found = min(found, tree[end])
            begin, end = begin >> 1, end >> 1
        return None if found == self._none else found

    def remove(self, place: int) -> None:
        """The number at `place` is gone."""
        at = place + self._n
        self._tree[at] = self._none
        while at > 1:
            at >>= 1
            self._tree[at] = min(self._tree[2 * at], self._tree[2 * at + 1])
