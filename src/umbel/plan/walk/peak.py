"""Looks ahead from one moment of a walk: the most pages that the running samples will use, with one more beside them.

Admission by the predicted peak (Past-Future, arXiv 2507.10150) with known lengths: a tail grows until its sample ends,
and a prompt's run is released with the last of its readers once none of them waits.
"""

from __future__ import annotations

from array import array
from math import ceil

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.plan.walk.samples import EXACT_SAMPLES, Ints, WalkSamples

Floats = NDArray[np.float64]

BINS = 256  # moments looked at; where answers are longer than that, each stands for several tokens
PHASES = 16  # in which tails begin a page; one, which is half a page too much or too little, among very many samples


class PeakForecast:
    """Running samples by the moment at which they end, in tokens of progress (walk.clock)."""

    def __init__(self, forest: Forest, rows: WalkSamples, page_size: int):
        longest = int(rows.lengths.max(initial=1))
        self._width = max(ceil(longest / (BINS - 4)), 1)
        self._page_size = page_size
        exact = len(rows.leaf) <= EXACT_SAMPLES and page_size <= PHASES
        self._phases = page_size if exact else 1
        self._samples = np.zeros((BINS, self._phases))
        self._before = np.zeros(BINS)  # pages' worth of progress before they began
        self._freed = np.zeros(BINS)  # pages of prompt nodes that go when the samples of that moment end
        self._bins = np.arange(BINS)
        self._leaf, self._parent = rows.leaf.data, forest.parent.data
        self._pages = (-(-(forest.end - forest.start) // page_size)).data
        self._missing = rows.readers(forest).data  # readers that have not started
        self._latest = array("d", bytes(8 * forest.n_nodes))  # when the last of those that have started ends

    def start(self, first: int, last: int, begun: float, end: float, samples: int = 1) -> None:
        """Add `samples` samples that run from `begun` to `end`, whose leaves are those from `first` to `last`
        (exclusive)."""
        self._count(samples, begun, end)
        for place in range(first, last):
            node, when = self._leaf[place], end
            while node >= 0:
                self._latest[node] = when = max(self._latest[node], when)
                self._missing[node] -= 1
                if self._missing[node]:
                    break
                self._freed[self._bin(when)] += self._pages[node]
                node = self._parent[node]

    def end(self, samples: int, begun: float, end: float) -> None:
        """Remove `samples` samples that ran from `begun` and have ended."""
        self._count(-samples, begun, end)

    def free(self, node: int) -> None:
        """Give the pages of a prompt node back."""
        self._freed[self._bin(self._latest[node])] -= self._pages[node]

    def peak(self, now: float, held: float, samples: int, length: int, pages: float) -> float:
        """The most pages in use from now on, if `samples` samples of this length start now with `pages` of prompt.

        `held` are the pages in use now that are no tails of running samples.
        """
        first = ceil(now / self._width)
        order = (self._bins + first) % BINS
        when = (self._bins + first) * self._width
        grown = self._tails(order, when)
        freed = self._freed[order]
        grown += held + pages - (freed.cumsum() - freed)
        soon = when < ceil(now) + length + self._width - 1
        grown[soon] += samples * np.ceil((when[soon] - ceil(now)) / self._page_size)
        return float(grown.max())

    def _tails(self, order: Ints, when: Ints) -> Floats:
        """Pages of the tails that still run at each moment."""
        running = self._samples[order][::-1].cumsum(0)[::-1]
        before = self._before[order][::-1].cumsum()[::-1]
        whole, part = when // self._page_size, when % self._page_size
        if self._phases == 1:
            return np.asarray(running[:, 0] * (when / self._page_size + 0.5) - before)
        late = np.zeros((BINS, self._phases + 1))
        running.cumsum(1, out=late[:, 1:])  # of those that began in one of the first phases of a page, one page more
        return np.asarray(late[:, -1] * whole + late[self._bins, part] - before)

    def _count(self, samples: int, begun: float, end: float) -> None:
        at, (before, phase) = self._bin(end), divmod(ceil(begun), self._page_size)
        exact = self._phases > 1
        self._samples[at, phase if exact else 0] += samples
        self._before[at] += samples * (before if exact else begun / self._page_size)

    def _bin(self, when: float) -> int:
        return ceil(when / self._width) % BINS
