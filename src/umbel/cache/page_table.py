"""Which pages each node holds, in one flat array: a block of it per node, moved to a larger one as the node grows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from umbel.ir.columns import Columns, lengthen, runs

Ints = NDArray[np.int64]

_LEAST = 4  # pages that a block has room for, at least


class PageTable(Columns):
    """`count` (`[nodes]`): pages of each node. Blocks hold powers of two, and those given up are used again."""

    _FILLS: ClassVar[dict[str, float]] = {"count": 0, "_first": 0, "_room": 0}
    count: Ints
    _first: Ints
    _room: Ints

    def __init__(self, capacity: int):
        super().__init__(capacity)
        self._flat = np.zeros(64, np.int32)
        self._top = 0  # blocks are cut from here
        self._spare: dict[int, list[int]] = {}  # room -> where blocks of it begin that are not used

    def of(self, node: int) -> Ints:
        """The pages of one node, in order."""
        first = self._first.item(node)
        return self._flat[first : first + self.count.item(node)].astype(np.int64)

    def gather(self, nodes: Ints) -> tuple[Ints, Ints]:
        """The pages of many nodes, flat, and where those of each begin."""
        counts = self.count[nodes]
        return self._flat[runs(self._first[nodes], counts)].astype(np.int64), np.cumsum(counts) - counts

    def put(self, node: int, pages: Ints) -> None:
        """Give pages to a node that has none."""
        self._move(node, len(pages))
        first = self._first.item(node)
        self._flat[first : first + len(pages)] = pages
        self.count[node] = len(pages)

    def append(self, nodes: Ints, counts: Ints, pages: Ints) -> None:
        """Give `counts[i]` more pages to `nodes[i]` (each node at most once), from the flat list `pages`."""
        had = self.count[nodes]
        full = had + counts > self._room[nodes]
        for node, size in zip(nodes[full].tolist(), (had + counts)[full].tolist(), strict=True):
            self._move(node, size)
        self._flat[runs(self._first[nodes] + had, counts)] = pages
        self.count[nodes] = had + counts

    def cut(self, node: int, keep: int) -> Ints:
        """Take all pages but the first `keep` from a node; returns them."""
        first = self._first.item(node)
        pages = self._flat[first + keep : first + self.count.item(node)].astype(np.int64)
        self.count[node] = keep
        if keep == 0 and (room := self._room.item(node)):
            self._spare.setdefault(room, []).append(self._first.item(node))
            self._room[node] = 0
        return pages

    def _move(self, node: int, size: int) -> None:
        """Into a block that has room for `size` pages."""
        room = max(_LEAST, 1 << (size - 1).bit_length())
        spare = self._spare.get(room)
        if spare:
            first = spare.pop()
        else:
            first, self._top = self._top, self._top + room
            self._flat = lengthen(self._flat, self._top)
        count, old = self.count.item(node), self._room.item(node)
        if old:
            begin = self._first.item(node)
            self._flat[first : first + count] = self._flat[begin : begin + count]
            self._spare.setdefault(old, []).append(begin)
        self._first[node], self._room[node] = first, room
