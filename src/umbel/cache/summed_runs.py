"""The sums of last hidden states by the runs of prompts: each is computed once for all rows that want a mean.

As for log-probabilities (`scored_runs.py`): rows that want means are added together with what they share, and a run
that is computed again, as it had to be evicted, has its sum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.sums import UNIT, Ints, RowRanges, StateSums


@dataclass(slots=True, eq=False)
class SummedRun:
    """A run of so many tokens, and the sum of those that were computed."""

    length: int
    units: Ints | None = None
    bad: bool = False


class SummedRuns:
    """Which runs of a KV tree are summed, what steps are to sum, and what rows get in the end.

    `open` are the runs by their nodes, while they have tokens that were never computed: empty where nothing is wanted.
    """

    def __init__(self) -> None:
        self.open: dict[int, SummedRun] = {}
        self._paths: dict[int, list[SummedRun]] = {}  # by row
        self._asked: deque[list[SummedRun]] = deque()  # of steps under way

    def add(self, row: int, path: list[tuple[int, int]]) -> None:
        """A row wants the mean over its prompt. `path`: the nodes that hold it, and how many tokens each has."""
        self._paths[row] = [self.open.setdefault(node, SummedRun(length)) for node, length in path]

    def drop_node(self, node: int) -> None:
        """A node is gone."""
        self.open.pop(node, None)

    def drop_row(self, row: int) -> None:
        """A row is not wanted any more."""
        self._paths.pop(row, None)

    def take(self, row: int) -> NDArray[np.float32] | None:
        """The mean that a row wanted whose prompt was computed, NaN where it has none; None for other rows."""
        path = self._paths.pop(row, None)
        if path is None:
            return None
        found = [run.units for run in path if run.units is not None]
        total = np.sum(found, axis=0, dtype=np.int64)
        scale = np.nan if any(run.bad for run in path) else UNIT / sum(run.length for run in path)
        return np.asarray(np.asarray(total) * scale, np.float32)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def ask(self, counts: Mapping[int, int], held: Ints, seen: Ints, row_of: Callable[[int], int]) -> RowRanges | None:
        """What a step is to sum; the arguments are those of `ScoredRuns.ask`."""
        found = [
            (row_of(node) + low - held.item(node), row_of(node) + counts[node])
            for node, _, low in self._wanted(counts, held, seen)
        ]
        if not found:
            return None
        begin, end = zip(*found, strict=True)
        return RowRanges(np.array(begin, np.int64), np.array(end, np.int64))

    def begin(self, counts: Mapping[int, int], held: Ints, seen: Ints) -> None:
        """That step is under way."""
        asked = list(self._wanted(counts, held, seen))
        if asked:
            self._asked.append([run for _, run, _ in asked])
        for node, run, _ in asked:
            if held.item(node) + counts[node] == run.length:
                del self.open[node]

    def land(self, found: StateSums) -> None:
        """The eldest step under way that sums anything is done."""
        for i, run in enumerate(self._asked.popleft()):
            run.units = found.units[i] if run.units is None else run.units + found.units[i]
            run.bad |= bool(found.bad[i])

    def _wanted(self, counts: Mapping[int, int], held: Ints, seen: Ints) -> Iterator[tuple[int, SummedRun, int]]:
        """Runs of which the step computes tokens for the first time, and the first of these."""
        for node, count in counts.items():
            run, low = self.open.get(node), max(held.item(node), seen.item(node))
            if run is not None and low < held.item(node) + count:
                yield node, run, low
