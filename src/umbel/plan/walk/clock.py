"""Walks a plan on a clock that counts steps: how full the KV pool gets and what each step has to do.

The walk follows the scheduler's rules (decodes first, then prompts in plan order while tokens last and the predicted
peak fits the pool; a shared run is held until its last reader is done) but lets tokens flow: it looks at samples when
they start and when they end, never at single steps, so that its cost grows with the samples and not with their lengths.
Among very many, neighbours that are small beside a step and the pool start and end as one.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from umbel import registry
from umbel.cost.flow import Flow
from umbel.cost.roofline import Load
from umbel.cost.windows import WHOLE, Windows
from umbel.ir.forest import Forest
from umbel.ir.plan import Curve
from umbel.plan.walk.bundles import bundle
from umbel.plan.walk.ledger import Ledger
from umbel.plan.walk.peak import PeakForecast
from umbel.plan.walk.samples import WalkSamples

Floats = NDArray[np.float64]

LAST_TOKEN, RELEASE = 0, 1  # events of a sample; what it holds is released when the step of its last token is over


@dataclass(frozen=True, slots=True)
class Timeline:
    """The result of a walk: the load of its steps, how many there are, and the most KV held at a time."""

    load: Load
    steps: int
    kv_peak_tokens: int
    ledger: Ledger
    page_size: int

    def curve(self, seconds: Floats) -> Curve:
        """The run as a bounded number of stretches, given the `seconds` of one step of each of the load's kinds."""
        return self.ledger.curve(seconds, self.page_size, self.kv_peak_tokens)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a run: tokens of a step (`chunk`), the pool's size, the rule of admission by name, keys seen.

    And what bounds its walk: of more than `detail` samples (None: of very many) neighbours are walked together.
    """

    chunk: int
    kv_tokens: int
    page_size: int
    admission: str = "past-future"
    windows: Windows = WHOLE
    detail: int | None = None


def walk(forest: Forest, rows: WalkSamples, limits: Limits) -> Timeline:
    """Start and finish every sample within the limits; one too big for the pool runs alone nevertheless."""
    page_size, pool = limits.page_size, limits.kv_tokens // limits.page_size
    forest, rows = bundle(forest, rows.together(limits.chunk, pool, limits.detail), page_size)
    state = _Walk(forest, rows, limits)
    for rank in range(len(rows.tokens)):
        state.propose(rank)
        while state.events and not state.fits():
            state.wait()
        state.start(rank)
    while state.events:
        state.next_event()
    steps = ceil(state.now - 1e-9)
    used = state.flow.used()
    state.ledger.add(steps - state.now, used, 0, 0, 0, 0)  # the last step is not full, yet costs its weights
    peak = min(ceil(state.peak), max(pool, 1)) * page_size if len(rows.leaf) else 0
    return Timeline(state.ledger.load(), steps, peak, state.ledger, page_size)


class _Walk:
    """The clock, the running samples and the pages.

    `now` counts steps, with fractions. The flow's `progress` falls behind it while more samples run than a step has
    tokens.
    """

    def __init__(self, forest: Forest, rows: WalkSamples, limits: Limits):
        self.ledger = Ledger()
        self.forecast = PeakForecast(forest, rows, limits.page_size)
        self.events: list[tuple[float, int, int]] = []  # heap of (progress when, LAST_TOKEN or RELEASE, rank)
        self.now = 0.0
        self.peak = 0.0
        self.chunk, self.page_size = limits.chunk, limits.page_size
        self.rule = registry.kind("admission", limits.admission)
        self.flow = Flow(limits.kv_tokens // limits.page_size, limits.page_size, self.rule, self._peak)
        self.windows = limits.windows.each
        # `.data`: plain numbers out of arrays, without a list of objects
        self.leaf, self.parent = rows.leaf.data, forest.parent.data
        self.node_pages = (-(-(forest.end - forest.start) // limits.page_size)).data
        self.open = rows.readers(forest).data
        self.tokens, self.pairs, self.pages = rows.tokens.data, rows.pairs.data, rows.pages.data
        self.prompt, self.samples = rows.prompt.data, rows.samples.data
        self.lengths, self.limits = rows.lengths.data, rows.limits.data
        self.first = rows.first.data
        self.alone, self.cells, self.node_cells = rows.alone.data, rows.cells.data, rows.node_cells.data
        self.common = 0  # tokens held whose KV is read together
        self.context = 0  # of the samples that run, lengths of their prompts
        self.apart = 0  # of these, tokens whose KV each reads by itself

    def propose(self, rank: int) -> None:
        """The entry that may start next."""
        flow = self.flow
        flow.samples, flow.pages = self.samples[rank], self.pages[rank]
        flow.length, flow.limit = self.lengths[rank], self.limits[rank]

    def fits(self) -> bool:
        """Whether the entry proposed finds tokens, and pages by the rule of admission."""
        return self.flow.n_running < self.chunk and bool(self.rule.fits(self.flow))

    def _peak(self) -> float:
        flow = self.flow
        return self.forecast.peak(flow.progress, flow.held, flow.samples, flow.length, flow.pages)

    def start(self, rank: int) -> None:
        """Compute what the row's prompt lacks, then let its samples run to their length."""
        flow, left, total = self.flow, float(self.tokens[rank]), self.tokens[rank]
        flow.held += self.pages[rank]
        self.common += self.cells[rank]
        self.ledger.see(flow.used())
        while left > 0:
            free = self.chunk - flow.n_running
            steps = left / free
            if self.events and self.events[0][0] < flow.progress + steps:
                steps = max(self.events[0][0] - flow.progress, 0.0)
                self._advance(steps, 1.0, steps * free, steps * free / total * self.pairs[rank])
                left -= steps * free
                self.next_event()
            else:
                self._advance(steps, 1.0, left, left / total * self.pairs[rank])
                left = 0.0
        samples = self.samples[rank]
        self.ledger.add(0.0, flow.used(), 0.0, samples, 0.0, samples * self.alone[rank])  # their first tokens
        end = flow.progress + self.lengths[rank] - 1
        heapq.heappush(self.events, (end, LAST_TOKEN, rank))
        self.forecast.start(self.first[rank], self.first[rank + 1], flow.progress, end, samples)
        self._count(rank, +1, flow.progress)
        self._look()

    def wait(self) -> None:
        """Let the clocks run to the next event, or until each sample has written so many pages of tokens more that the
        entry proposed fits: a later start ends with less. They are found by halves, since an answer may have very many.
        """
        tries = 0
        if self.rule.retries:
            tries = ceil((self.events[0][0] - self.flow.progress) / self.page_size) - 1
        pages = 1 + bisect_left(range(1, tries + 1), True, key=self._fits_after)
        if pages <= tries:
            self._advance_to(self.flow.progress + pages * self.page_size)
        else:
            self.next_event()

    def _fits_after(self, pages: int) -> bool:
        """Whether the entry proposed fits when each sample that runs has written so many pages of tokens more."""
        now, self.flow.progress = self.flow.progress, self.flow.progress + pages * self.page_size
        fits = self.fits()
        self.flow.progress = now
        return fits

    def next_event(self) -> None:
        """Let the clocks run to the next event: a row draws its last token, or gives back what no other row needs."""
        when, event, rank = heapq.heappop(self.events)
        self._advance_to(when)
        self._look()
        tails = self.samples[rank] * -(-(self.lengths[rank] - 1) // self.page_size)
        if event == LAST_TOKEN:
            begun = when - self.lengths[rank] + 1
            self.forecast.end(self.samples[rank], begun, when)
            self._count(rank, -1, begun)
            self.flow.held += tails
            self.flow.leaving += self.samples[rank]
            heapq.heappush(self.events, (ceil(when), RELEASE, rank))
        else:
            self.flow.held -= tails
            self.flow.leaving -= self.samples[rank]
            for place in range(self.first[rank], self.first[rank + 1]):
                self._release(self.leaf[place])

    def _look(self) -> None:
        used = self.flow.used()
        self.ledger.see(used)
        self.peak = max(self.peak, used)

    def _count(self, rank: int, sign: int, begun: float) -> None:
        """Add a row to the sums over running samples (+1), or take it out of them (-1)."""
        samples = sign * self.samples[rank]
        self.flow.count(samples, begun, self.lengths[rank], self.limits[rank])
        self.context += samples * self.prompt[rank]
        self.apart += samples * self.alone[rank]

    def _advance_to(self, when: float) -> None:
        if when > self.flow.progress:
            rate = min(1.0, self.chunk / max(self.flow.n_running, 1))
            self._advance((when - self.flow.progress) / rate, rate, 0.0, 0.0)

    def _advance(self, steps: float, rate: float, tokens: float, pairs: float) -> None:
        """Run `steps` steps that compute `tokens` prompt tokens and give each running sample `rate` tokens a step."""
        flow = self.flow
        decoded = flow.n_running * steps * rate
        grown, seen, apart = flow.grown() + decoded / 2, 0.0, 0.0  # in the middle of the stretch
        for window in self.windows:
            bound = flow.n_running * window.keys
            seen += window.pair_share * min(self.context + grown, bound)
            apart += window.kv_share * min(self.apart + grown, bound)
        seen *= steps * rate
        read = (self.common + apart * rate) * steps
        self.now += steps
        flow.progress += steps * rate
        self.ledger.add(steps, flow.used(), tokens + decoded, decoded, pairs + seen, read)

    def _release(self, node: int) -> None:
        """One reader of `node` is done; the last one takes the node's pages along, and so on upwards."""
        while node >= 0:
            self.open[node] -= 1
            if self.open[node]:
                return
            self.flow.held -= self.node_pages[node]
            self.common -= self.node_cells[node]
            self.forecast.free(node)
            node = self.parent[node]
