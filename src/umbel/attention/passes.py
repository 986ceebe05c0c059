"""The attention of one step as passes over ragged batches, for kernels that know rows and lists of pages; numpy only.

Every row reads its own path causally; a run that several sequences share is left out of the paths below it and read
once, whole, for all rows strictly below. The partial results of a row are merged afterwards:

    node 0 (shared)      pass 1   rows below node 0      x  all keys of node 0, not causal
     ├ node 1            own      rows of node 1         x  keys of node 1, causal at the end
     └ node 2            own      rows of node 2         x  keys of node 2, causal at the end
    (own rows of node 0  own      rows of node 0         x  keys of node 0, causal at the end)

Passes of one level are those of nodes with as many shared nodes above: their rows do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.attention.work import Cut, shared_nodes
from umbel.ir.step import Step

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pass:
    """A batch of requests: the queries of each, and the keys that they read in order.

    `rows`: the rows of the step that are its queries, a slice where they lie side by side. `q_begin` (`[requests + 1]`)
    cuts them into requests, `kv_begin` (`[requests + 1]`) cuts `pages`, each of `page_size` tokens, of which the last
    one of each request holds `last` (`[requests]`). `causal`: the last query of a request sees all its keys, the one
    before all but the last, and so on; otherwise every query sees all of them.
    """

    rows: slice | Ints
    q_begin: Ints
    kv_begin: Ints
    pages: Ints
    last: Ints
    page_size: int
    causal: bool

    @property
    def n_keys(self) -> int:
        """Keys of all requests."""
        full = np.diff(self.kv_begin) - 1
        return int((full * self.page_size + self.last).sum())


def list_passes(step: Step, cut: Cut) -> list[Pass]:
    """The pass of the rows' own paths, and then those of the shared nodes, one for each level that there is.

    Under a sliding window nothing is shared: a window that ends inside a run which other rows read as a whole cannot be
    said by the place of a key in its request.
    """
    shared = _passed(step, cut)
    own = np.flatnonzero(step.row_end > step.row_begin)
    passes = [_own_paths(step, own, shared, cut.window)]
    at = np.flatnonzero(shared)
    level = _shared_above(step, at, shared)
    return passes + [_whole_nodes(step, at[level == n]) for n in range(level.max(initial=-1) + 1)]


def _passed(step: Step, cut: Cut) -> NDArray[np.bool_]:
    """Which nodes are read apart (`[nodes]`): shared ones that at least two sequences strictly below read."""
    if cut.window is not None:
        return np.zeros(len(step.parent), bool)
    begins = step.row_begin[step.row_end > step.row_begin]
    readers = np.searchsorted(begins, step.below_end) - np.searchsorted(begins, step.row_end)
    return shared_nodes(step, cut) & (readers > 1)


def _shared_above(step: Step, at: Ints, shared: NDArray[np.bool_]) -> Ints:
    """How many shared nodes stand above each of some nodes."""
    count, above = np.zeros(len(at), np.int64), step.parent[at]
    while (inside := above >= 0).any():
        count += inside & shared[above]
        above = np.where(inside, step.parent[above], -1)
    return count


def _own_paths(step: Step, own: Ints, shared: NDArray[np.bool_], window: int | None) -> Pass:
    """The pass that reads, for every node that has rows, its path from the root without what is shared above, its own
    keys last."""
    request, node = [np.arange(len(own))], [own]
    number, above = request[0], step.parent[own]
    while len(inside := np.flatnonzero(above >= 0)):
        number, above = number[inside], above[inside]
        mine = ~shared[above]
        request.append(number[mine])
        node.append(above[mine])
        above = step.parent[above]
    requests, nodes = np.concatenate(request), np.concatenate(node)
    order = np.lexsort((nodes, requests))  # parents stand before children
    requests, nodes = requests[order], nodes[order]
    low = step.start[nodes]
    if window is not None:  # what no row of the request sees
        first = step.positions[step.row_begin[own]][requests] + 1 - window
        low = np.minimum(np.maximum(low, first), step.end[nodes])
    q_begin = np.append(step.row_begin[own], step.n_rows)
    return _pass(step, slice(0, step.n_rows), q_begin, requests, nodes, low, causal=True)


def _whole_nodes(step: Step, nodes: Ints) -> Pass:
    """All of some nodes, each for the rows strictly below it."""
    begin, end = step.row_end[nodes], step.below_end[nodes]
    q_begin = np.append(0, np.cumsum(end - begin))
    rows: slice | Ints = slice(int(begin[0]), int(end[-1]))
    if (begin[1:] != end[:-1]).any():
        rows = np.repeat(begin - q_begin[:-1], end - begin) + np.arange(q_begin[-1])
    return _pass(step, rows, q_begin, np.arange(len(nodes)), nodes, step.start[nodes], causal=False)


def _pass(step: Step, rows: slice | Ints, q_begin: Ints, request: Ints, node: Ints, low: Ints, *, causal: bool) -> Pass:
    """The pass in which each request reads positions from `low` (`[pieces]`) on of some nodes, in their order.

    Pages are the store's where only the last of a request can be part full, else of one token: lists are then as long
    as the contexts, but say exactly what is read.
    """
    final = np.append(request[1:] != request[:-1], True)  # the last piece of each request
    tokens = step.end[node] - step.start[node]
    whole = bool((tokens[~final] % step.page_size == 0).all())
    size = step.page_size if whole else 1
    skipped = (low - step.start[node]) // size  # pages of this size, of which none is seen
    count = np.maximum(-(-tokens // size) - skipped, 0)
    of = np.repeat(np.arange(len(count)), count)
    offset = (np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count) + skipped[of]) * size
    page = step.pages[step.page_begin[node[of]] + offset // step.page_size]
    pages = page if whole else page * step.page_size + offset % step.page_size
    kv_begin = np.append(0, np.cumsum(np.bincount(request, count, len(q_begin) - 1).astype(np.int64)))
    return Pass(rows, q_begin, kv_begin, pages, (tokens[final] - 1) % size + 1, size, causal)
