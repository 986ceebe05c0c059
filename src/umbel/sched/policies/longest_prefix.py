"""Takes the row next of whose prompt most is cached, as SGLang does (arXiv 2312.07104, section 3), in O(log n) a row.

Every prompt node with cached tokens stands in a heap by the depth its tokens reach, with the first row below it that
waits. Entries are not kept up to date: one that is not true any more is put right or dropped when it comes up.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from umbel.cache.kv_forest import KVForest
from umbel.sched.waiting import Waiting

Ints = NDArray[np.int64]


class LongestPrefix(Waiting):
    """Waiting samples by their cached prompt tokens, ties in order; preempted ones come first, as in plan order."""

    def __init__(self, order: Ints, samples_per_row: Ints, kv: KVForest):
        super().__init__(order, samples_per_row, kv)
        self._kv = kv
        self._start: list[int] = kv.forest.start.tolist()
        leaf = kv.forest.leaf[self.rows]
        ranks = np.argsort(leaf, kind="stable")  # ranks below any node stand side by side
        self._place = np.empty_like(ranks)
        self._place[ranks] = np.arange(len(ranks))
        nodes = np.arange(kv.forest.n_nodes)
        self._begin: list[int] = np.searchsorted(leaf[ranks], nodes).tolist()
        self._end: list[int] = np.searchsorted(leaf[ranks], kv.forest.subtree_end[nodes]).tolist()
        self._new = _Minima(ranks.tolist())
        self._heap: list[tuple[int, int, int]] = []  # (-cached tokens down to the node, first rank below, node)

    def cached(self, node: int) -> None:
        """More of a prompt node is in the cache than before: the rows below it may be next."""
        rank = self._new.least(self._begin[node], self._end[node])
        if rank is not None:
            heapq.heappush(self._heap, (-self._depth(node), rank, node))

    def _first_new(self) -> int | None:
        while self._heap:
            depth, rank, node = self._heap[0]
            if node in self._kv.pages and self._depth(node) == -depth:
                least = self._new.least(self._begin[node], self._end[node])
                if least == rank:
                    return rank
                if least is not None:
                    heapq.heapreplace(self._heap, (depth, least, node))
                    continue
            heapq.heappop(self._heap)
        return super()._first_new()

    def _leave(self, rank: int) -> None:
        super()._leave(rank)
        self._new.remove(int(self._place[rank]))

    def _depth(self, node: int) -> int:
        return self._start[node] + int(self._kv.held[node])


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
