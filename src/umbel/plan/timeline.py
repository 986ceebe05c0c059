"""Walks a plan on a clock that counts steps: how full the KV pool gets and what each step has to do.

The walk follows the scheduler's rules (decodes first, then prompts in plan order while tokens and pages last; a shared
run is held until its last reader is done) but lets tokens and pages flow: it looks at rows when they start and when
they end, never at single steps, so that its cost grows with the rows and not with their lengths. Among very many rows,
neighbours that are small beside a step and the pool start and end as one.
"""

from __future__ import annotations

import heapq
from array import array
from dataclasses import dataclass, field
from math import ceil

import numpy as np
from numpy.typing import NDArray

from umbel.cost.roofline import Load
from umbel.cost.shape import causal_pairs
from umbel.ir.forest import Forest

Ints = NDArray[np.int64]

HEADROOM_TOKENS = 32  # growth that admission keeps free for every running sample, as the scheduler does
LAST_TOKEN, RELEASE = 0, 1  # events of a row; what it holds is released when the step of its last token is over


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a walk found: the load of its steps, how many there are, and the most KV held at a time."""

    load: Load
    steps: int
    kv_peak_tokens: int


EXACT_ROWS = 20_000  # from here on, neighbours are walked together


@dataclass(frozen=True, slots=True)
class Rows:
    """Per row, in plan order: what starting it adds (tokens, attention pairs, pages), and what it is like.

    An entry may stand for several neighbours: then it has their sums, and the mean of their lengths.
    """

    tokens: Ints  # prompt tokens that no earlier row has computed
    pairs: Ints  # of those tokens with the keys they see
    pages: Ints  # of the nodes it is the first to need
    prompt: Ints  # length of the whole prompt, per sample
    samples: Ints
    lengths: Ints
    first: Ints  # place in the order of the entry's first row

    @classmethod
    def of(
        cls, forest: Forest, order: Ints, samples: Ints, lengths: Ints, page_size: int, window: int | None = None
    ) -> Rows:
        """Charge every node to the first row below it."""
        first = np.searchsorted(forest.leaf[order], np.arange(forest.n_nodes))
        size = forest.end - forest.start
        pairs = causal_pairs(forest.start, forest.end, window)

        def charge(cost: Ints) -> Ints:
            return np.bincount(first, cost, len(order)).astype(np.int64)

        prompt = forest.end[forest.leaf[order]]
        pages = charge(-(-size // page_size))
        return cls(charge(size), charge(pairs), pages, prompt, samples[order], lengths[order], np.arange(len(order)))

    def together(self, chunk: int, pool: float) -> Rows:
        """Join neighbours while they take less than a quarter of a step and a 64th of the pool's pages."""
        if len(self.first) <= EXACT_ROWS:
            return self
        share = np.full(len(self.first), EXACT_ROWS / len(self.first))
        for amount, limit in ((self.tokens, chunk / 4), (self.samples, chunk / 16), (self.pages, pool / 64)):
            share = np.maximum(share, amount / limit)
        part = np.floor(np.cumsum(np.minimum(share, 1.0)))
        first = np.flatnonzero(np.diff(part, prepend=-1.0))

        def total(values: Ints) -> Ints:
            return np.add.reduceat(values, first)

        samples = total(self.samples)
        prompt, lengths = (total(v * self.samples) // samples for v in (self.prompt, self.lengths))
        tokens, pairs, pages = (total(v) for v in (self.tokens, self.pairs, self.pages))
        return Rows(tokens, pairs, pages, prompt, samples, lengths, first)


def walk(forest: Forest, order: Ints, rows: Rows, chunk: int, kv_tokens: int, page_size: int) -> Timeline:
    """Start and finish every row under the chunk and the pool; a row too big for the pool runs alone all the same."""
    rows = rows.together(chunk, kv_tokens / page_size)
    state = _Walk(forest, order, rows, chunk, kv_tokens / page_size, page_size)
    for rank in range(len(rows.first)):
        while state.events and not state.fits(rank):
            state.next_event()
        state.start(rank)
    while state.events:
        state.next_event()
    steps = ceil(state.now)
    state.ledger.add(steps - state.now, 0, 0, 0, 0)  # the last step is not full, yet costs its weights
    peak = min(ceil(state.peak), max(kv_tokens // page_size, 1)) * page_size if len(order) else 0
    return Timeline(state.ledger.load(), steps, peak)


@dataclass(slots=True)
class _Ledger:
    """Collects what happens between row events into entries of at least one step."""

    totals: list[float] = field(default_factory=lambda: [0.0] * 5)  # steps, tokens, samples, pairs, kv tokens read
    columns: tuple[array[float], ...] = field(default_factory=lambda: tuple(array("d") for _ in range(5)))

    def add(self, steps: float, *amounts: float) -> None:
        """Count `steps` steps that do these amounts in total."""
        self.totals[0] += steps
        for i, amount in enumerate(amounts, 1):
            self.totals[i] += amount
        if self.totals[0] >= 1.0:
            self.flush()

    def flush(self) -> None:
        """Close the entry: amounts per step. What took no time of its own is given a sliver of a step."""
        if any(self.totals):
            steps = max(self.totals[0], 1e-6)
            for column, total in zip(self.columns, (steps * steps, *self.totals[1:]), strict=True):
                column.append(total / steps)
        self.totals = [0.0] * 5

    def load(self) -> Load:
        """All entries."""
        self.flush()
        return Load(*(np.frombuffer(column) if column else np.zeros(0) for column in self.columns))


class _Walk:
    """The clocks, the running rows and the pages.

    `now` counts steps, with fractions. `progress` counts the tokens that a sample which always ran would have drawn: it
    falls behind `now` while more samples run than a step has tokens.
    """

    def __init__(self, forest: Forest, order: Ints, rows: Rows, chunk: int, pool: float, page_size: int):
        self.ledger = _Ledger()
        self.events: list[tuple[float, int, int]] = []  # heap of (progress when, LAST_TOKEN or RELEASE, rank)
        self.now = 0.0
        self.progress = 0.0
        self.peak = 0.0
        self.chunk, self.pool, self.page_size = chunk, pool, page_size
        # `.data`: plain numbers out of arrays, without a list of objects
        self.leaf, self.parent = forest.leaf[order].data, forest.parent.data
        self.node_pages = (-(-(forest.end - forest.start) // page_size)).data
        self.open = _readers(forest).data
        self.tokens, self.pairs, self.pages = rows.tokens.data, rows.pairs.data, rows.pages.data
        self.prompt, self.samples, self.lengths = rows.prompt.data, rows.samples.data, rows.lengths.data
        self.waste = _waste(rows, page_size).data
        self.first = np.append(rows.first, len(order)).data
        self.held = 0  # pages of prompt nodes, and of tails that wait for the end of their step
        # Sums over the samples that run:
        self.n_running = 0
        self.begun = 0.0  # progress at which they began
        self.context = 0  # lengths of their prompts
        self.headroom = 0  # tokens kept free for them
        self.full = 0  # pages of their tails at full length
        self.unfilled = 0.0  # pages that their tails leave empty

    def used(self) -> float:
        """Pages in use now: prompts, and tails with the part of their last pages that is empty."""
        return self.held + min(self.grown() / self.page_size + self.unfilled, self.full)

    def grown(self) -> float:
        """Tokens that running samples have generated after their first ones."""
        return self.n_running * self.progress - self.begun

    def fits(self, rank: int) -> bool:
        """Whether the next row finds tokens, and pages with some growth for itself and for those that run."""
        grow = self.samples[rank] * -(-min(HEADROOM_TOKENS, self.lengths[rank]) // self.page_size)
        ahead = min(self.used() + self.headroom / self.page_size, self.held + self.full)  # no tail outgrows its length
        return self.n_running < self.chunk and ahead + self.pages[rank] + grow <= self.pool

    def start(self, rank: int) -> None:
        """Compute what the row's prompt lacks, then let its samples run to their length."""
        left, total = float(self.tokens[rank]), self.tokens[rank]
        self.held += self.pages[rank]
        while left > 0:
            free = self.chunk - self.n_running
            steps = left / free
            if self.events and self.events[0][0] < self.progress + steps:
                steps = max(self.events[0][0] - self.progress, 0.0)
                self._advance(steps, 1.0, steps * free, steps * free / total * self.pairs[rank])
                left -= steps * free
                self.next_event()
            else:
                self._advance(steps, 1.0, left, left / total * self.pairs[rank])
                left = 0.0
        self.ledger.add(0.0, 0.0, self.samples[rank], 0.0, 0.0)  # first tokens
        heapq.heappush(self.events, (self.progress + self.lengths[rank] - 1, LAST_TOKEN, rank))
        self._count(rank, +1, self.progress)
        self.peak = max(self.peak, self.used())

    def next_event(self) -> None:
        """Let the clocks run to the next event: a row draws its last token, or gives back what nobody else needs."""
        when, event, rank = heapq.heappop(self.events)
        if when > self.progress:
            rate = min(1.0, self.chunk / max(self.n_running, 1))
            self._advance((when - self.progress) / rate, rate, 0.0, 0.0)
        self.peak = max(self.peak, self.used())
        tails = self.samples[rank] * -(-(self.lengths[rank] - 1) // self.page_size)
        if event == LAST_TOKEN:
            self._count(rank, -1, when - self.lengths[rank] + 1)
            self.held += tails
            heapq.heappush(self.events, (ceil(when), RELEASE, rank))
        else:
            self.held -= tails
            for place in range(self.first[rank], self.first[rank + 1]):
                self._release(self.leaf[place])

    def _count(self, rank: int, sign: int, begun: float) -> None:
        """Add a row to the sums over running samples (+1), or take it out of them (-1)."""
        samples, length = sign * self.samples[rank], self.lengths[rank]
        self.n_running += samples
        self.begun += samples * begun
        self.context += samples * self.prompt[rank]
        self.headroom += samples * min(HEADROOM_TOKENS, length)
        self.full += samples * -(-length // self.page_size)
        self.unfilled += sign * self.waste[rank]

    def _advance(self, steps: float, rate: float, tokens: float, pairs: float) -> None:
        """Run `steps` steps that compute `tokens` prompt tokens and give each running sample `rate` tokens a step."""
        grown = self.grown() + self.n_running * steps * rate / 2  # in the middle of the stretch
        decoded = self.n_running * steps * rate
        seen = (self.context + grown) * steps * rate
        read = (self.held * self.page_size + grown) * steps
        self.ledger.add(steps, tokens + decoded, decoded, pairs + seen, read)
        self.now += steps
        self.progress += steps * rate

    def _release(self, node: int) -> None:
        """One reader of `node` is done; the last one takes the node's pages along, and so on upwards."""
        while node >= 0:
            self.open[node] -= 1
            if self.open[node]:
                return
            self.held -= self.node_pages[node]
            node = self.parent[node]


def _readers(forest: Forest) -> Ints:
    """Per node: rows that end there and children, which all have to be done before it is."""
    ends = np.bincount(forest.leaf, minlength=forest.n_nodes)
    inner = forest.parent[forest.parent >= 0]
    return ends + np.bincount(inner, minlength=forest.n_nodes)


def _waste(rows: Rows, page_size: int) -> NDArray[np.float64]:
    """Per row: pages' worth of room that its tails leave empty, on average over their lives."""
    last = np.maximum(rows.lengths - 1, 0)  # the last token's KV is never stored
    full = last // page_size
    whole_pages = page_size * full * (full + 1) // 2 + (last - full * page_size) * (full + 1)  # over all tail lengths
    empty = whole_pages - last * (last + 1) / 2 / page_size
    return np.asarray(rows.samples * empty / np.maximum(last, 1))
