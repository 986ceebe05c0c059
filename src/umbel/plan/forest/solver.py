"""Chooses which forks of a tree to open, exactly: facility location on a tree by convex functions, in near-linear time.

Everything below an opened node starts from its depth; opening costs. Let F(v, a) be the best that the subtree of v can
make when a is the depth of the nearest opened node above it. Parts that are no choice earn `slope * a`, so

    g(v, a) = sum of F(child, a) + base(v) * a                                       v stays closed
    F(v, a) = max(g(v, a), g(v, d) - price(v) - slope(v) * (d - a)),  d = depth(v)   v is opened

`slope(v)` is never more than the slopes of its parts together, so all F are convex and v is opened exactly when a lies
below one threshold. A function is kept as the places where its slope jumps: children are merged into the largest, jumps
below a threshold or above the parent's depth are dropped for good. That makes O(n log^2 n) for any shape of tree, where
a table over (node, opened ancestor) would take O(nodes * height).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Choices:
    """Nodes that may be opened, depth first, one entry each.

    `parent`: the nearest choice above (-1: none).
    `floor`: the depth that is open above where there is no parent.
    `depth`: where the node ends.
    `price`: what opening costs.
    `slope`: what a unit of depth above is worth to an opened node.
    `base`: what it is worth to the parts of a closed one that are no choices themselves.
    """

    parent: Ints
    floor: Floats
    depth: Floats
    price: Floats
    slope: Floats
    base: Floats


def open_best(choices: Choices) -> NDArray[np.bool_]:
    """The opened nodes (`[choices]`) whose sum is highest; of equal sums one with fewer nodes."""
    limit = _thresholds(choices)
    parent, floor, depth = choices.parent.tolist(), choices.floor.tolist(), choices.depth.tolist()
    opened = np.zeros(len(limit), bool)
    for node, above in enumerate(parent):  # from here on `floor` is the nearest opened depth, the node included
        if above >= 0:
            floor[node] = floor[above]
        if floor[node] < limit[node]:
            opened[node] = True
            floor[node] = depth[node]
    return opened


def _thresholds(choices: Choices) -> list[float]:
    """The threshold of each node: it is opened when the nearest opened depth above it lies below this."""
    parent, depth = choices.parent.tolist(), choices.depth.tolist()
    price, slope = choices.price.tolist(), choices.slope.tolist()
    curves = [_Curve(base) for base in choices.base.tolist()]
    limits = [0.0] * len(parent)
    for node in range(len(parent) - 1, -1, -1):
        curve, above = curves.pop(), parent[node]
        limits[node] = curve.open(depth[node], slope[node], price[node])
        if above >= 0:
            curve.cut(depth[above])
            curves[above] = curves[above].merged(curve)
    return limits


@dataclass(slots=True)
class _Jump:
    """A place where the slope grows; `size` is 0 once it is dropped."""

    at: float
    size: float

    def __lt__(self, other: _Jump) -> bool:
        return self.at < other.at


@dataclass(slots=True)
class _Curve:
    """A convex function up to a constant: `slope` at 0, and its jumps, from both ends."""

    slope: float
    jumps: float = 0.0  # sum of sizes
    moment: float = 0.0  # sum of size * at
    low: list[_Jump] = field(default_factory=list)  # heap, lowest first
    high: list[tuple[float, int, _Jump]] = field(default_factory=list)  # heap of (-at, tie, jump)

    def open(self, depth: float, slope: float, price: float) -> float:
        """Take the best of staying and of opening at `depth`; returns the threshold."""
        rise = (self.slope - slope + self.jumps) * depth - self.moment  # of the difference, from 0 to `depth`
        if rise <= price:
            return 0.0
        # Below the threshold the difference is `price` less than at `depth`: climb to it from the bottom.
        left, at, steep = rise - price, 0.0, self.slope - slope
        while (jump := self._lowest()) is not None and steep * (jump.at - at) <= left:
            left -= steep * (jump.at - at)
            at = jump.at
            steep += jump.size
            self._remove(heappop(self.low))
        limit = min(at + left / steep, depth) if steep > 0 else depth
        self.slope = slope
        self._add(_Jump(limit, steep))
        return limit

    def cut(self, depth: float) -> None:
        """Drop what lies at or above `depth`: nothing above the node is opened deeper."""
        while self.high and (not self.high[0][2].size or self.high[0][2].at >= depth):
            self._remove(heappop(self.high)[2])
        if not self.high:
            self.low.clear()
            self.jumps = self.moment = 0.0  # without what rounding has left

    def merged(self, other: _Curve) -> _Curve:
        """The sum of both curves; the smaller one is merged into the larger."""
        small, large = sorted((self, other), key=lambda c: len(c.low))
        large.slope += small.slope
        for jump in small.low:
            if jump.size:
                large._add(jump)
        return large

    def _lowest(self) -> _Jump | None:
        while self.low and not self.low[0].size:
            heappop(self.low)
        return self.low[0] if self.low else None

    def _add(self, jump: _Jump) -> None:
        heappush(self.low, jump)
        heappush(self.high, (-jump.at, id(jump), jump))
        self.jumps += jump.size
        self.moment += jump.size * jump.at

    def _remove(self, jump: _Jump) -> None:
        self.jumps -= jump.size
        self.moment -= jump.size * jump.at
        jump.size = 0.0
