"""Labels that keep a growing tree in depth-first order: an interval of integers per node, inside that of its parent.

Sorting any nodes by their labels gives them depth-first, and "is below" is one comparison, whatever was added where
and when (order maintenance: Dietz and Sleator, STOC 1987). Each node has a gap that new children take their intervals
from. Where a gap is used up, all nodes are labelled again, evenly, which keeps their order.

    node    [low                                                 high)
             |  spare: for splits  |  gap: for children  |  children
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from umbel.ir.columns import Columns

Ints = NDArray[np.int64]

_LAST = 1 << 62
_GAP = 1 << 32  # labels that each node of a planted forest gets for itself, where there is room


class Labels(Columns):
    """`low`, `high` (`[nodes]`): the interval of each node, `low` its own label; -1 for nodes that are not there.

    `gap` to `gap_end` are labels that no child has yet, and those between `low` and `spare` are for nodes that will be
    put above this one. `epoch` counts how often all labels were given out again.
    """

    _FILLS: ClassVar[dict[str, float]] = {"low": -1, "high": -1, "spare": -1, "gap": -1, "gap_end": -1}
    low: Ints
    high: Ints
    spare: Ints
    gap: Ints
    gap_end: Ints

    def __init__(self, capacity: int):
        super().__init__(capacity)
        self.epoch = 0
        self._top = 0  # labels from here on are for new roots

    def plant(self, nodes: Ints, subtree_end: Ints, parent: int = -1) -> None:
        """Label a forest below `parent` (-1: beside all others): its nodes depth-first, `subtree_end` as in Forest."""
        if len(nodes) == 0:
            return
        begin, unit = self._wide(parent, len(nodes))
        self._spread(nodes, begin + unit * np.arange(len(nodes)), begin + unit * subtree_end, unit)

    def put(self, node: int, parent: int) -> None:
        """Label one node for which nothing below or above is to come before it is given room (`widen`): a tip."""
        if self.gap.item(parent) >= self.gap_end.item(parent):
            self.relabel()
        low = self.gap.item(parent)
        self.gap[parent] = self.high[node] = low + 1
        self.low[node] = low

    def widen(self, node: int, parent: int) -> None:
        """Give a node that was `put` and has nothing below it another label, with room for children."""
        self.low[node] = -1
        low, unit = self._wide(parent, 1)
        self.low[node], self.high[node] = low, low + unit
        self.spare[node] = self.gap[node] = low + unit // 4
        self.gap_end[node] = low + unit

    def put_above(self, node: int, upper: int) -> None:
        """Label `upper` as the new parent of `node`, around everything that is below."""
        if self.spare.item(node) - self.low.item(node) < 4:
            self.relabel()
        low, spare = self.low.item(node), self.spare.item(node)
        at = (low + spare) // 2
        self.low[upper], self.high[upper], self.low[node] = low, self.high[node], at
        quarter = (low + at) // 2
        self.spare[upper] = self.gap[upper] = quarter
        self.gap_end[upper] = at

    def drop(self, node: int) -> None:
        """Remove a node; its labels are not used again before all nodes are labelled again."""
        self.low[node] = -1

    def order(self, nodes: Ints) -> Ints:
        """The nodes depth-first: parents before their children, subtrees side by side."""
        return nodes[np.argsort(self.low[nodes], kind="stable")]

    def within(self, nodes: Ints, ordered: Ints) -> tuple[Ints, Ints]:
        """Which of the `ordered` nodes are in the subtree of each of `nodes`, as ranges (first, stop)."""
        labels = self.low[ordered]
        return np.searchsorted(labels, self.low[nodes]), np.searchsorted(labels, self.high[nodes])

    def relabel(self) -> None:
        """Give all labels out again, evenly, in the same order."""
        nodes = self.order(np.flatnonzero(self.low >= 0))
        _, end = self.within(nodes, nodes)
        unit = _LAST // 2 // max(len(nodes), 1)
        self._spread(nodes, unit * np.arange(len(nodes)), unit * end, unit)
        self._top = unit * len(nodes)
        self.epoch += 1

    def _wide(self, parent: int, parts: int) -> tuple[int, int]:
        """Labels for `parts` nodes with children of their own: where they begin, and how many each gets."""
        for _ in range(2):
            left = _LAST - self._top if parent < 0 else self.gap_end.item(parent) - self.gap.item(parent)
            unit = min(left // (2 * parts), _GAP)
            if unit >= 64:
                break
            self.relabel()
        if parent < 0:
            self._top += unit * parts
            return self._top - unit * parts, unit
        self.gap_end[parent] -= unit * parts
        return self.gap_end.item(parent), unit

    def _spread(self, nodes: Ints, low: Ints, high: Ints, unit: int) -> None:
        self.low[nodes], self.high[nodes] = low, high
        self.spare[nodes] = self.gap[nodes] = low + unit // 4
        self.gap_end[nodes] = low + unit
