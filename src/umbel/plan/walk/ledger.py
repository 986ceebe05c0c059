"""The amounts between two events of a walk, kept as steps of one kind: for the price, and as a curve for pictures."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from umbel.cost.roofline import Load
from umbel.ir.plan import Curve

Floats = NDArray[np.float64]

STRETCHES = 512  # of a curve at most
_NAMES = ("steps", "tokens", "samples", "pairs", "kv_read", "begin", "end", "high")


@dataclass(slots=True)
class Ledger:
    """Collects the amounts between events into entries of at least one step.

    `totals`: steps, tokens, samples drawn, pairs and KV tokens read of the current entry.
    `begin`, `level`, `high`: pages in use when it begins, now, and the most in between.
    """

    totals: list[float] = field(default_factory=lambda: [0.0] * 5)
    begin: float = 0.0
    level: float = 0.0
    high: float = 0.0
    columns: tuple[array[float], ...] = field(default_factory=lambda: tuple(array("d") for _ in _NAMES))

    def add(self, steps: float, pages: float, *amounts: float) -> None:
        """Count `steps` steps that do these amounts in total, evenly, and lead to so many pages in use.

        Entries begin and end with a step: one that has begun is filled first, so that amounts late in it cost no step
        of their own.
        """
        left, first, lacking = steps, self.level, 1.0 - self.totals[0]
        for part in (lacking if lacking < 1.0 else 0.0, floor(left - lacking % 1.0)):
            if 0.0 < part < left:
                left -= part
                self._put(part / steps, pages + (first - pages) * left / steps, steps, amounts)
                self.flush()
        self._put(left / steps if steps else 1.0, pages, steps, amounts)
        if self.totals[0] >= 1.0:
            self.flush()

    def see(self, pages: float) -> None:
        """Note how many pages are in use now, also when that is a leap."""
        if not self.totals[0]:
            self.begin = pages
        self.level = pages
        self.high = max(self.high, pages)

    def flush(self) -> None:
        """Close the entry: amounts per step. An entry without time of its own gets a sliver of a step."""
        if any(self.totals):
            steps = max(self.totals[0], 1e-6)
            per_step = (total / steps for total in self.totals[1:])
            for column, value in zip(self.columns, (steps, *per_step, self.begin, self.level, self.high), strict=True):
                column.append(value)
        self.totals = [0.0] * 5
        self.begin, self.high = self.level, 0.0

    def _put(self, part: float, pages: float, steps: float, amounts: tuple[float, ...]) -> None:
        totals = self.totals
        totals[0] += steps * part
        for i, amount in enumerate(amounts, 1):
            totals[i] += amount * part
        self.level = pages
        self.high = max(self.high, pages)

    def load(self) -> Load:
        """The entries as a load."""
        self.flush()
        return Load(*(self._column(name) for name in _NAMES[:5]))

    def curve(self, seconds: Floats, page_size: int, most: int) -> Curve:
        """The entries as stretches of equal width, given the `seconds` of one step of each; `most` bounds the KV
        tokens."""
        steps, tokens, samples = (self._column(name) for name in ("steps", "tokens", "samples"))
        if not len(steps):
            return Curve.flat()
        at = np.append(0.0, np.cumsum(steps))
        edges = np.linspace(0.0, at[-1], min(STRETCHES, ceil(at[-1] - 1e-6)) + 1)
        width = np.diff(edges)

        def upto(per_step: Floats) -> Floats:
            return np.asarray(np.interp(edges, at, np.append(0.0, np.cumsum(per_step * steps))))

        pages = self._highest(at, edges)
        computed, running = np.diff(upto(tokens)) / width, np.diff(upto(samples)) / width
        return Curve(edges[1:], upto(seconds)[1:], computed, running, np.minimum(pages * page_size, most))

    def _highest(self, at: Floats, edges: Floats) -> Floats:
        """The most pages in use in each stretch; between an entry's begin and end they grow evenly."""
        begin, end, high = (self._column(name) for name in ("begin", "end", "high"))
        x, y = np.repeat(at, 2)[1:-1], np.stack((begin, end), 1).reshape(-1)
        between = np.interp(edges, x, y)
        pages = np.maximum(between[1:], between[:-1])
        place = np.clip(np.searchsorted(edges, at[1:] - 1e-9, "left") - 1, 0, len(pages) - 1)
        np.maximum.at(pages, place, high)
        return np.ceil(pages)

    def _column(self, name: str) -> Floats:
        column = self.columns[_NAMES.index(name)]
        return np.frombuffer(column) if column else np.zeros(0)
