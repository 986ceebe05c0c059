"""Samples wait in lines, the most urgent rows in front: lower priorities first, as vLLM counts them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree
from umbel.sched.request_table import RequestTable
from umbel.sched.waiting import Waiting

Ints = NDArray[np.int64]
Entry = tuple[bool, float, int]  # whether it never started, its key in the line, its rank


class Lines(Waiting):
    """A line for each priority: those that were preempted come first, then those that never started, in plan order.

    Other rules have lines of their own (`line`), an order in each (`key`), or choose among the lines of one priority
    (`pick`).
    """

    def __init__(self, kv: KVTree, requests: RequestTable):
        super().__init__(kv, requests)
        self.requests = requests
        self._lines: dict[tuple[int, int], list[Entry]] = {}  # heaps, by priority and what `line` says
        self._paused: set[int] = set()  # ranks that were preempted and wait

    def line(self, row: int) -> int:
        """Which of the lines of its priority a row's samples wait in."""
        return 0

    def key(self, row: int) -> float:
        """Where a row's samples stand in their line; those with the lowest key come first."""
        return 0.0

    def pick(self, lines: Sequence[int]) -> int:
        """Whose turn it is among the lines of one priority, none of them empty."""
        return min(lines)

    def learn(self, rows: Ints, tokens: Ints) -> None:
        """Samples of these rows have drawn so many tokens (`[samples]`)."""

    def extend(self, order: Ints, samples_per_row: Ints, first_sample: Ints | None = None) -> None:
        """Add rows, which stand in the table of requests already."""
        begin = len(self.rows)
        super().extend(order, samples_per_row, first_sample)
        for rank in range(begin, len(self.rows)):
            self._push(rank, is_new=True)

    def levels(self) -> list[int]:
        """Priorities of which a sample waits, ascending."""
        return sorted({priority for priority, _ in self.lines()})

    def lines(self) -> list[tuple[int, int]]:
        """The priority and the number of each line in which a sample waits."""
        for place in list(self._lines):
            self._clear(place)
        return list(self._lines)

    def first(self) -> int | None:
        """The rank whose turn it is, None when none waits."""
        levels = self.levels()
        if not levels:
            return None
        place = levels[0], self.pick([line for priority, line in self._lines if priority == levels[0]])
        return self._lines[place][0][-1]

    def take(self, rank: int) -> None:
        """The rank whose turn it is starts."""
        if rank in self._paused:
            self._paused.discard(rank)
        else:
            self._leave(rank)

    def put_back(self, rank: int) -> None:
        """A sample was preempted; it comes before those of its line that never started."""
        self._paused.add(rank)
        self._push(rank, is_new=False)

    def drop(self, rank: int) -> bool:
        """Take a rank out for good; False if it was not waiting."""
        waits = rank in self._paused or self.waits(rank)
        if waits:
            self.take(rank)
        return waits

    def _push(self, rank: int, *, is_new: bool) -> None:
        row = self.rows[rank]
        place = self.requests.priority.item(row), self.line(row)
        heapq.heappush(self._lines.setdefault(place, []), (is_new, self.key(row), rank))

    def _clear(self, place: tuple[int, int]) -> None:
        """Drop what does not wait any more from the front of a line, and the line where nothing does."""
        line = self._lines[place]
        while line and not (self.waits(line[0][-1]) if line[0][0] else line[0][-1] in self._paused):
            heapq.heappop(line)
        if not line:
            del self._lines[place]
