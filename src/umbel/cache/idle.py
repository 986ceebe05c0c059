"""Nodes that hold pages while no running sample reads them: they can be evicted, in the order of a Keep rule, those
that rows wait for behind all others where that is asked for."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from umbel.cache.keep import Keep, LastReader, LeastRecent
from umbel.cache.labels import Labels


class Idle:
    """The evictable nodes; `pages` is what they hold together."""

    def __init__(self, keep: Keep, labels: Labels):
        self.keep, self.pages = keep, 0
        self._labels, self._epoch = labels, labels.epoch
        self._nodes: dict[int, tuple[int, int]] = {}  # node -> when it was read last, its pages
        self._heap: list[tuple[int, int, int, int]] = []  # (key, -label, node, moment); entries may be out of date
        self._later: list[tuple[int, int, int, int]] = []  # the same, of nodes that turned out to be waited for
        self._waiting: Sequence[int] | None = None  # per node the samples that wait for it, where these are spared
        self._clock = 0

    def __contains__(self, node: int) -> bool:
        return node in self._nodes

    def __iter__(self) -> Iterator[int]:
        return iter(self._nodes)

    def by_use(self) -> None:
        """From now on the node that was read least recently goes first, as rows do not run in the order of nodes, on
        which the default rule relies."""
        if self.keep == LastReader():
            self.follow(LeastRecent(retains=False))

    def follow(self, keep: Keep, spare: Sequence[int] | None = None) -> None:
        """Go by another rule from now on. `spare`: nodes with samples to come (so many, per node) go last, as their
        next use is known."""
        self.keep, self._epoch, self._waiting = keep, -1, spare

    def let_go(self, node: int) -> bool:
        """No sample waits for a node any more. False where it is not kept, and removed."""
        if not self.keep.retains:
            self.remove(node)
            return False
        heapq.heappush(self._heap, self._entry(node, self._nodes[node][0]))
        return True

    def tick(self, depth: int) -> int:
        """A path of `depth` nodes is no longer read: its moment, for its first node; one less for each further one."""
        self._clock += depth
        return self._clock

    def add(self, node: int, pages: int, moment: int) -> None:
        """A node without readers holds so many pages."""
        self._nodes[node] = moment, pages
        self.pages += pages
        heapq.heappush(self._heap, self._entry(node, moment))

    def remove(self, node: int) -> int:
        """The node is read again, or gone; returns its moment."""
        moment, pages = self._nodes.pop(node)
        self.pages -= pages
        return moment

    def pop(self) -> int | None:
        """The node to evict first, which is removed; None when there is none."""
        if self._epoch != self._labels.epoch:
            self._epoch = self._labels.epoch  # nodes were labelled again: their keys are made again
            self._heap = [self._entry(node, moment) for node, (moment, _) in self._nodes.items()]
            heapq.heapify(self._heap)
            self._later = []
        while self._heap or self._later:
            is_last = not self._heap
            entry = heapq.heappop(self._later if is_last else self._heap)
            _, _, node, moment = entry
            if node in self._nodes and self._nodes[node][0] == moment:
                if not is_last and self._waiting is not None and self._waiting[node]:
                    heapq.heappush(self._later, entry)
                    continue
                self.remove(node)
                return node
        return None

    def _entry(self, node: int, moment: int) -> tuple[int, int, int, int]:
        label = self._labels.low.item(node)
        return self.keep.key(label, moment), -label, node, moment
