"""Which keys each row of a step attends to, as work over a fixed grid of positions; numpy only.

Every sequence is cut at positions 0, G, 2G ... into grid cells, whatever the forest looks like. A row's attention is
the merge, in order of position, of one partial result per cell. So the bits of an answer do not depend on which other
rows run, where prompts fork, how they were chunked or what was preempted: sharing only decides who reads what together.

- A *wide* item is a range of rows that all see all of some consecutive cells: their KV is read once for all of them.
- A *narrow* item is a few rows of one sequence and one cell: read per item, with a mask by position.

A row reads the whole of every cell before the one it stands in, and of its own cell what it can see. A whole cell
belongs to the node that holds its last position (it may begin in an ancestor); the rows that read it are the node's own
rows behind it and all rows below, which is one range of rows:

      node 0:  |cell 0|cell 1|c        rows below node 0 read cells 0 and 1 together
      node 1:                 ell 2|   cell 2 begins in node 0 and belongs to node 1
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.step import Step
from umbel.kernels.view import GRID
from umbel.kv.slots import path_slots

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Wide:
    """Rows `[begin, end)` all see the cells whose KV slots are `slots` (`[cells * GRID]`)."""

    begin: int
    end: int
    slots: Ints


@dataclass(frozen=True, slots=True)
class Narrow:
    """Items of about one size: item i is rows `rows[i]` (`[items, q]`, -1 = none) against KV slots `slots[i]`
    (`[items, k]`); row r sees the first `visible[i, r]` of them, from `hidden[i, r]` on (sliding window).
    `rank[i]` counts the narrow items that come before it for the same rows."""

    rows: Ints
    slots: Ints
    visible: Ints
    hidden: Ints
    rank: Ints


@dataclass(frozen=True, slots=True)
class Layout:
    """The attention of one step; wide items come first for every row, in order of position, then narrow by rank."""

    wide: tuple[Wide, ...]
    narrow: tuple[Narrow, ...]
    kv_tokens_read: int


@dataclass(frozen=True, slots=True)
class _Groups:
    """Consecutive cells with the same rows: `node`, `first` cell, `cells`, rows `[begin, end)`; in order of position
    within every node, nodes depth-first."""

    node: Ints
    first: Ints
    cells: Ints
    begin: Ints
    end: Ints

    def pick(self, which: NDArray[np.bool_]) -> _Groups:
        return _Groups(self.node[which], self.first[which], self.cells[which], self.begin[which], self.end[which])


def lay_out(step: Step, min_wide_rows: int, window: int | None = None) -> Layout:
    """Cut a step into wide and narrow items. `min_wide_rows` rows or more may read a cell together; under a sliding
    `window` that hides anything, all items are narrow, since each row then sees other keys."""
    groups = _groups(step)
    hides = window is not None and bool((step.positions >= window).any())
    wide = np.zeros(len(groups.node), bool) if hides else _choose_wide(step, groups, min_wide_rows)
    wide_items = _wide_items(step, groups.pick(wide))
    node, cell, row, count = _narrow_items(step, groups.pick(~wide))
    narrow = _bucket(step, node, cell, row, count, window)
    read = sum(len(w.slots) for w in wide_items) + sum(int(n.visible.max(1).sum()) for n in narrow)
    return Layout(wide_items, narrow, read)


def _groups(step: Step) -> _Groups:
    """All (cells, rows that read them whole): one group for most nodes, one more per own cell for nodes in prefill."""
    first = step.start // GRID
    last = step.end // GRID  # cells first .. last - 1 end inside the node
    own_from = step.end - (step.row_end - step.row_begin)  # position of the node's first row
    # Cells before the one that the first own row stands in: all rows of the subtree read them.
    past = np.clip(own_from // GRID, first, last)
    whole = (past > first) & (step.below_end > step.row_begin)
    node = np.flatnonzero(whole)
    parts = [(node, first[node], (past - first)[node], step.row_begin[node], step.below_end[node])]
    own = np.flatnonzero((last > past) & (step.below_end > step.row_begin))
    for n in own.tolist():
        cells = np.arange(past[n], last[n])
        begin = step.row_begin[n] + (cells + 1) * GRID - own_from[n]
        ones = np.ones_like(cells)
        parts.append((n * ones, cells, ones, begin, step.below_end[n] * ones))
    node, at, cells, begin, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((at, node))
    groups = _Groups(node[order], at[order], cells[order], begin[order], end[order])
    return groups.pick(groups.end > groups.begin)


def _choose_wide(step: Step, groups: _Groups, min_rows: int) -> NDArray[np.bool_]:
    """Wide where enough rows read together, and everything above and before a wide group, so that for each row the
    wide items come first. (Rows that see a later cell are among those that see an earlier one.)"""
    wide = groups.end - groups.begin >= min_rows
    forced = np.zeros(len(step.parent), bool)
    for i in np.flatnonzero(wide)[::-1].tolist():
        node = int(step.parent[groups.node[i]])
        while node >= 0 and not forced[node]:
            forced[node] = True
            node = int(step.parent[node])
    return wide | forced[groups.node]


def _wide_items(step: Step, groups: _Groups) -> tuple[Wide, ...]:
    items = []
    for i in range(len(groups.node)):
        positions = np.arange(groups.first[i] * GRID, (groups.first[i] + groups.cells[i]) * GRID)
        slots = path_slots(step, groups.node[i : i + 1], positions[None])[0]
        items.append(Wide(int(groups.begin[i]), int(groups.end[i]), slots))
    return tuple(items)


def _narrow_items(step: Step, groups: _Groups) -> tuple[Ints, Ints, Ints, Ints]:
    """Narrow items as (node whose path holds the keys, cell, first row, rows), each within one sequence and one cell
    of query positions, ordered by first row and then by cell."""
    whole = _split_rows(step, groups)
    part = _partial_cells(step)
    node, cell, row, count = (np.concatenate(pair) for pair in zip(whole, part, strict=True))
    order = np.lexsort((cell, row))
    return node[order], cell[order], row[order], count[order]


def _split_rows(step: Step, groups: _Groups) -> tuple[Ints, Ints, Ints, Ints]:
    """Whole cells: each group's rows, cut where the node or the query's own cell changes, times its cells."""
    cuts = _query_blocks(step)
    low = np.searchsorted(cuts, groups.begin, side="right") - 1
    high = np.searchsorted(cuts, groups.end, side="left")
    blocks = high - low
    group = np.repeat(np.arange(len(blocks)), blocks)
    block = low[group] + np.arange(len(group)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    begin = np.maximum(cuts[block], groups.begin[group])
    end = np.minimum(np.append(cuts, step.n_rows)[block + 1], groups.end[group])
    cells = groups.cells[group]
    item = np.repeat(np.arange(len(group)), cells)
    cell = groups.first[group][item] + np.arange(len(item)) - np.repeat(np.cumsum(cells) - cells, cells)
    return groups.node[group][item], cell, begin[item], (end - begin)[item]


def _query_blocks(step: Step) -> Ints:
    """First rows of blocks that lie in one node and one grid cell of positions."""
    if step.n_rows == 0:
        return np.empty(0, np.int64)
    node = np.repeat(np.arange(len(step.parent)), step.row_end - step.row_begin)
    cell = step.positions // GRID
    changes = (np.diff(node) != 0) | (np.diff(cell) != 0)
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def _partial_cells(step: Step) -> tuple[Ints, Ints, Ints, Ints]:
    """The cell each row stands in, as far as it can see."""
    blocks = _query_blocks(step)
    node = np.searchsorted(step.row_end, blocks, side="right")
    return node, step.positions[blocks] // GRID, blocks, np.diff(np.append(blocks, step.n_rows))


_Q_SIZES = (1, 8, 32, GRID)
_K_STEP = 32


def _bucket(step: Step, node: Ints, cell: Ints, row: Ints, count: Ints, window: int | None) -> tuple[Narrow, ...]:
    """Gather items of like query and key counts, padded to the larger ones of their bucket."""
    if len(node) == 0:
        return ()
    seen = np.minimum(step.positions[row + count - 1] + 1 - cell * GRID, GRID)
    if window is not None:  # drop cells that have left the window of every row of the item
        near = step.positions[row] - window < (cell + 1) * GRID - 1
        node, cell, row, count, seen = node[near], cell[near], row[near], count[near], seen[near]
    rank = _ranks(row)
    q_size = np.array(_Q_SIZES)[np.searchsorted(_Q_SIZES, count)]
    k_size = -(-seen // _K_STEP) * _K_STEP
    key = q_size * (GRID + 1) + k_size
    items = []
    for value in np.unique(key):
        at = np.flatnonzero(key == value)
        items.append(_narrow(step, node[at], cell[at], row[at], count[at], seen[at], rank[at], window))
    return tuple(items)


def _ranks(row: Ints) -> Ints:
    """Position of each item among those with the same first row (items are sorted by first row, then cell)."""
    new = np.concatenate([[True], np.diff(row) != 0])
    first = np.flatnonzero(new)
    return np.arange(len(row)) - np.repeat(first, np.diff(np.append(first, len(row))))


def _narrow(
    step: Step, node: Ints, cell: Ints, row: Ints, count: Ints, seen: Ints, rank: Ints, window: int | None
) -> Narrow:
    offsets = np.arange(count.max())
    rows = np.where(offsets < count[:, None], row[:, None] + offsets, -1)
    reach = step.positions[rows] - cell[:, None] * GRID
    hidden = np.zeros_like(reach) if window is None else np.clip(reach + 1 - window, 0, GRID)
    # Keys past an item's last visible one repeat its first slot: masked, and never memory that was not written.
    keys = np.arange(-(-seen.max() // _K_STEP) * _K_STEP)
    positions = cell[:, None] * GRID + np.where(keys < seen[:, None], keys, 0)
    return Narrow(rows, path_slots(step, node, positions), np.minimum(reach + 1, seen[:, None]), hidden, rank)
