"""The attention of one step as a list of pieces of work for a GPU: row tiles against runs of keys; numpy only.

Every tile of rows that lie side by side reads some runs of keys, and a long list of runs is cut into several pieces, so
that there is work for the whole chip. A run that several sequences share gets tiles of its own (one pass, whose result
is merged with the rest of each row) when that saves more traffic than the partial results cost; otherwise it is read by
each sequence below as a part of its own list, and merges with nothing:

      node 0 (shared)  ──  one pass: rows below node 0 in tiles, keys in pieces
       ├ node 1        ──  rows of node 1: runs of node 1 (and of what is above and not shared)
       └ node 2        ──  rows of node 2: likewise

A prompt in prefill, a decode, samples of one prompt and a tree of drafts are all the same thing here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.step import Step

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """How work is cut: `rows` in a tile at most, `keys` in a piece (about), `group` query heads per KV head, sliding
    `window` if any. `share_factor`: a shared run gets a pass of its own when the keys it spares, times this, are more
    than the partial results of its readers (in queries); 0.5 is a guess until a GPU has been measured (`switch.json`).
    """

    rows: int
    keys: int
    group: int
    window: int | None = None
    share_factor: float = 0.5


@dataclass(frozen=True, slots=True)
class Work:
    """Pieces in the order in which they should start, the largest passes first.

    `items` `[items, 5]`: first row, rows, first run, end of runs, and where its partial results go (in queries of one
    KV head; -1: the result is whole and goes straight out). `runs` `[runs, 4]`: entry in the step's pages, offset in
    that page, position of the first key, keys. `merges` `[rows that merge, 3]`: row, first entry and end of its
    `entries` (where its queries' partial results begin, in the order in which they are merged). `queries`: partial
    results, `keys_read`: keys that the items read in all.
    """

    items: Ints
    runs: Ints
    merges: Ints
    entries: Ints
    queries: int
    keys_read: int


def list_work(step: Step, cut: Cut) -> Work:
    """Cut the attention of a step."""
    tiles, reads = _reads(step, cut)
    runs, tile = _pieces(step, cut, tiles, reads)
    items = _items(cut, tiles, runs, tile)
    items, merges, entries, queries = _partials(step.n_rows, items, cut.group)
    return Work(items, runs, merges, entries, queries, int(runs[:, 3].sum()))


def shared_nodes(step: Step, cut: Cut) -> NDArray[np.bool_]:
    """Which nodes get a pass of their own (`[nodes]`)."""
    own = np.flatnonzero(step.row_end > step.row_begin)
    begins = step.row_begin[own]
    readers = np.searchsorted(begins, step.below_end) - np.searchsorted(begins, step.row_begin)
    spared = (readers - 1) * (step.end - step.start)
    queries = (step.below_end - step.row_begin) * cut.group
    return (readers > 1) & (cut.share_factor * spared > queries)


def _reads(step: Step, cut: Cut) -> tuple[Ints, Ints]:
    """Tiles (`[tiles, 2]`: rows [begin, end)) and which node each reads (`[reads, 2]`: tile, node), by tile."""
    shared = shared_nodes(step, cut)
    at = np.flatnonzero(shared)
    passes, pass_of = _tiles(step.row_begin[at], step.below_end[at], cut.rows)
    own = np.flatnonzero(step.row_end > step.row_begin)
    rest, rest_of = _tiles(step.row_begin[own], step.row_end[own], cut.rows)
    tile, node = [np.arange(len(passes))], [at[pass_of]]
    number, above = np.arange(len(rest)) + len(passes), own[rest_of]
    while len(number):
        mine = ~shared[above]
        tile.append(number[mine])
        node.append(above[mine])
        above = step.parent[above]
        number, above = number[above >= 0], above[above >= 0]
    found = np.stack((np.concatenate(tile), np.concatenate(node)), 1)
    return np.concatenate((passes, rest)), found[np.lexsort((found[:, 1], found[:, 0]))]


def _tiles(begin: Ints, end: Ints, rows: int) -> tuple[Ints, Ints]:
    """Ranges of rows cut into tiles of `rows` (`[tiles, 2]`), and which range each is of."""
    count = -(-(end - begin) // rows)
    of = np.repeat(np.arange(len(begin)), count)
    first = begin[of] + (np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)) * rows
    return np.stack((first, np.minimum(first + rows, end[of])), 1), of


def _pieces(step: Step, cut: Cut, tiles: Ints, reads: Ints) -> tuple[Ints, Ints]:
    """Runs of at most `cut.keys` keys that some row of their tile sees, and the tile of each."""
    tile, node = reads.T
    least, most = (f.reduceat(*_spread(step.positions, tiles))[::2] for f in (np.minimum, np.maximum))
    high = np.minimum(most[tile] + 1, step.end[node])
    low = step.start[node]
    if cut.window is not None:
        low = np.maximum(low, least[tile] + 1 - cut.window)
    seen = high > low
    tile, node, low, high = tile[seen], node[seen], low[seen], high[seen]
    count = -(-(high - low) // cut.keys)
    of = np.repeat(np.arange(len(count)), count)
    first = low[of] + (np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)) * cut.keys
    offset = first - step.start[node[of]]
    page, inside = np.divmod(offset, step.page_size)
    runs = np.stack((step.page_begin[node[of]] + page, inside, first, np.minimum(high[of] - first, cut.keys)), 1)
    return runs, tile[of]


def _spread(positions: Ints, tiles: Ints) -> tuple[Ints, Ints]:
    """What `reduceat` takes for the ranges `tiles`, of which every second result is one; a last value is added since
    ranges may end at the end."""
    return np.append(positions, 0), tiles.ravel()


def _items(cut: Cut, tiles: Ints, runs: Ints, tile: Ints) -> Ints:
    """Runs of one tile that follow each other, about `cut.keys` keys together, are one item (`[items, 4]`)."""
    before = np.cumsum(runs[:, 3]) - runs[:, 3]
    starts = np.flatnonzero(np.diff(tile, prepend=-1))
    inside = before - np.repeat(before[starts], np.diff(starts, append=len(tile)))
    turn = inside // cut.keys
    new = np.flatnonzero((np.diff(tile, prepend=-1) != 0) | (np.diff(turn, prepend=-1) != 0))
    rows = tiles[tile[new]]
    return np.stack((rows[:, 0], rows[:, 1] - rows[:, 0], new, np.append(new, len(runs))[1:]), 1)


def _partials(n_rows: int, items: Ints, group: int) -> tuple[Ints, Ints, Ints, int]:
    """Where the partial results of items go, and which of them each row merges."""
    row, count = items[:, 0], items[:, 1]
    changes = np.bincount(row, minlength=n_rows + 1) - np.bincount(row + count, minlength=n_rows + 1)
    several = np.concatenate(([0], np.cumsum(np.cumsum(changes)[:n_rows] > 1)))
    partial = several[row + count] > several[row]
    queries = np.where(partial, count * group, 0)
    place = np.where(partial, np.cumsum(queries) - queries, -1)
    which = np.repeat(np.flatnonzero(partial), count[partial])
    first = np.repeat(np.cumsum(count[partial]) - count[partial], count[partial])
    inside = np.arange(len(which)) - first
    rows, entries = row[which] + inside, place[which] + inside * group
    order = np.argsort(rows, kind="stable")
    rows, entries = rows[order], entries[order]
    begin = np.flatnonzero(np.diff(rows, prepend=-1))
    merges = np.stack((rows[begin], begin, np.append(begin, len(rows))[1:]), 1)
    return np.column_stack((items, place)), merges, entries, int(queries.sum())
