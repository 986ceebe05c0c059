"""The samples of a plan as the walk on the clock sees them: what starting each adds, and how it runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cost.pairs import READ_CELL
from umbel.cost.windows import WHOLE, Windows
from umbel.ir.forest import Forest

Ints = NDArray[np.int64]

EXACT_SAMPLES = 20_000  # from here on, neighbours are walked together
LONG_SAMPLES = 250_000  # from here on, entries grow to a whole step each
TOGETHER = 4  # samples that must share a cell of KV for attention to read it once for all of them


@dataclass(frozen=True, slots=True)
class WalkSamples:
    """The samples of a plan in its order (`[samples]`), by what starting each adds.

    An entry may stand for several neighbours: then it has their sums, and the means of their lengths and limits. Entry
    i stands for the samples `first[i]` to `first[i + 1]`; `leaf` has one entry for each sample, `node_cells` one for
    each node.
    """

    tokens: Ints  # prompt tokens that no earlier sample has computed
    pairs: Ints  # of those tokens with the keys they see
    pages: Ints  # of the nodes it is the first to need
    cells: Ints  # of those nodes, tokens whose KV several samples read together
    prompt: Ints  # length of the whole prompt
    alone: Ints  # of it, tokens whose KV a sample reads by itself
    samples: Ints
    lengths: Ints
    limits: Ints  # tokens that an answer may have at most
    first: Ints
    leaf: Ints
    node_cells: Ints  # tokens of a node whose KV several samples read together

    @classmethod
    def of(
        cls,
        forest: Forest,
        order: Ints,
        samples: Ints,
        lengths: Ints,
        page_size: int,
        windows: Windows = WHOLE,
        limits: Ints | None = None,
    ) -> WalkSamples:
        """Charge every node to the first sample below it; nodes of which no row is in `order` cost nothing. `limits`
        (`[rows]`, None: the lengths) are the tokens that answers may have."""
        each = np.repeat(order, samples[order])
        leaf, n = forest.leaf[each], len(each)
        first = _first_below(forest, leaf)
        needed = first < n
        size = forest.end - forest.start
        pairs = windows.pairs(forest.start, forest.end)

        def charge(cost: Ints) -> Ints:
            return np.bincount(first[needed], cost[needed], n).astype(np.int64)

        tokens, pages = charge(size), charge(-(-size // page_size))
        node_cells, together = _reads(forest, leaf)
        prompt, ones = forest.end[leaf], np.ones(n, np.int64)
        alone, cells, firsts = prompt - together[leaf], charge(node_cells), np.arange(n + 1)
        length = lengths[each]
        limit = length if limits is None else np.maximum(limits[each], length)
        return cls(tokens, charge(pairs), pages, cells, prompt, alone, ones, length, limit, firsts, leaf, node_cells)

    def together(self, chunk: int, pool: float, detail: int | None = None) -> WalkSamples:
        """Join neighbours, where there are more than `detail` samples (EXACT_SAMPLES).

        They are joined as long as they take less than a quarter of a step (of runs so long that a step is nothing, less
        than a whole one) and a 64th of the pool's pages; where less detail than usual is wanted, half a step, and any
        number of them that is a small part of the whole.
        """
        n, detail = len(self.leaf), EXACT_SAMPLES if detail is None else detail
        if n <= detail:
            return self
        share = np.full(n, detail / n)
        step = chunk / 4 * min(max(n / LONG_SAMPLES, 1), 4)
        if detail < EXACT_SAMPLES:
            step = max(step, chunk / 2, float(self.tokens.sum()) / (2 * detail))
        for amount, limit in ((self.tokens, step), (self.samples, chunk / 16), (self.pages, pool / 64)):
            share = np.maximum(share, amount / limit)
        part = np.floor(np.cumsum(np.minimum(share, 1.0)))
        first = np.flatnonzero(np.diff(part, prepend=-1.0))
        samples = np.diff(np.append(first, n))
        each = (self.prompt, self.alone, self.lengths, self.limits)
        prompt, alone, lengths, limits = (np.add.reduceat(v, first) // samples for v in each)
        tokens, pairs = (np.add.reduceat(v, first) for v in (self.tokens, self.pairs))
        pages, cells = (np.add.reduceat(v, first) for v in (self.pages, self.cells))
        first = np.append(first, n)
        leaf, node_cells = self.leaf, self.node_cells
        return WalkSamples(
            tokens, pairs, pages, cells, prompt, alone, samples, lengths, limits, first, leaf, node_cells
        )

    def readers(self, forest: Forest) -> Ints:
        """The number of readers of each node: samples that end there and children that are read, which all must end
        before it is released."""
        ends = np.bincount(self.leaf, minlength=forest.n_nodes)
        read = _first_below(forest, self.leaf) < len(self.leaf)
        inner = forest.parent[read & (forest.parent >= 0)]
        return ends + np.bincount(inner, minlength=forest.n_nodes)


def _reads(forest: Forest, leaf: Ints) -> tuple[Ints, Ints]:
    """For each node: its tokens that samples below it read together, and the position up to which prompts that end
    there do so.

    Attention reads whole cells of a grid of positions at once for all that share them, the rest for each sample.
    """
    ended = np.append(0, np.cumsum(np.bincount(leaf, minlength=forest.n_nodes)))
    shared = ended[forest.subtree_end] - ended[:-1] >= TOGETHER
    cells = np.where(shared, forest.end // READ_CELL - forest.start // READ_CELL, 0) * READ_CELL
    nearest = np.arange(forest.n_nodes)
    while (lone := (nearest >= 0) & ~shared[nearest]).any():  # as often as nodes stand below each other unshared
        nearest[lone] = forest.parent[nearest[lone]]
    return cells, np.where(nearest >= 0, forest.end[nearest] // READ_CELL * READ_CELL, 0)


def _first_below(forest: Forest, leaf: Ints) -> Ints:
    """The place of the first sample below each node; `len(leaf)` where there is none. `leaf` is per sample."""
    n = len(leaf)
    if np.all(leaf[1:] >= leaf[:-1]):  # a walk of the forest in the order of its numbers
        first = np.searchsorted(leaf, np.arange(forest.n_nodes))
        return np.where(np.searchsorted(leaf, forest.subtree_end) > first, first, n)
    first = np.full(forest.n_nodes, n, np.int64)
    np.minimum.at(first, leaf, np.arange(n))
    earliest, parent = first.data, forest.parent.data
    for node in range(forest.n_nodes - 1, -1, -1):  # children stand behind their parents
        above = parent[node]
        if above >= 0 and earliest[node] < earliest[above]:
            earliest[above] = earliest[node]
    return first
