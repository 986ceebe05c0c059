"""A pattern and a budget for each head, from what it looks at: FlexPrefill (arXiv 2502.20766), with covers of mass.

Before each window of positions the weights of the last queries are summed up by cells (see windows.py). Where products
of means predict these sums, the head is *aware*: each tile reads the cells that the mean query of the cell before it
would look at. Else it has *lines*: cells that all queries look at, and distances. The published count of lines divides
a count of tokens by the size of a block, and keeps less than it says. Here each head's cells and lines are the fewest
whose measured share of the weights is at least `mass`, the one that reaches it included, so that the queries that were
measured keep that much on every head; rows behind them keep about as much as they look alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.attention.select.base import Have, KeyMeans, QueryTail
from umbel.attention.select.covers import cover
from umbel.attention.select.lines import PROBES, below, key_or_distance, predicted, weights_of
from umbel.attention.select.measured import ByMass, probes_by_group
from umbel.attention.select.tiles import RowTiles
from umbel.attention.select.windows import WINDOW, pick_by_windows
from umbel.ir.kv_shape import KVShape
from umbel.kernels.view import GRID, View

TAU = 0.1  # the distance, the root of Jensen-Shannon's divergence, below which a prediction is taken
LAST = 16  # queries of a cell of which the mean stands for the next cell


@dataclass(frozen=True, slots=True)
class HeadIndex:
    """What is read of the path before a window: for each KV head `columns` and `bands` (bool `[n_kv_heads, cells]`),
    and which query heads are `aware` (bool `[n_heads]`) and add cells for each tile."""

    columns: Tensor
    bands: Tensor
    aware: Tensor


class FlexPrefill(ByMass):
    """Rows of prompts read, for each head, cells that have a share `mass` of the weights that the last queries before
    their window gave."""

    means = KeyMeans(GRID)
    needs = (QueryTail(PROBES, WINDOW), QueryTail(LAST, GRID), means)

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """Implement `Selector.pick`."""
        if self.reads_all:
            return None

        def find(tile: int, end: int) -> HeadIndex:
            return self._index(layer, tile, end, have)

        def reads(index: HeadIndex, tile: int, cells: int) -> Tensor:
            read = index.columns | below(index.bands, int(tiles.cell[tile]))
            return read | self._for_tile(layer, tile, int(tiles.cell[tile]), cells, index, have)

        return pick_by_windows(layer, tiles, have, find, reads)

    def _index(self, layer: int, tile: int, end: int, have: Have) -> HeadIndex:
        shape = have.shape(layer)
        keys, means = have.keys(layer, tile, end), have.parts(self.means, layer, tile, end // GRID)[:, :, 0]
        grouped = probes_by_group(layer, tile, end, have)
        found = [self._of_head(*parts, shape) for parts in zip(grouped, keys, means, strict=True)]
        columns, bands, aware = (torch.stack(parts) for parts in zip(*found, strict=True))
        columns[:, 0] = True
        return HeadIndex(columns, bands, aware.flatten())

    def _of_head(self, queries: Tensor, keys: Tensor, means: Tensor, shape: KVShape) -> tuple[Tensor, Tensor, Tensor]:
        """What a KV head's columns and bands are, and which of its query heads are aware."""
        weights = weights_of(queries, keys.to(queries.dtype), shape)
        cells = weights.mean(1).unflatten(1, (-1, GRID)).sum(2)
        aware = distance(cells, predicted(queries, means, shape)) < TAU
        on_columns, on_bands = (each.unflatten(1, (-1, GRID)).sum(2) for each in key_or_distance(weights))
        both = torch.cat((on_columns, on_bands), 1)
        price = torch.cat((on_columns, on_bands / 2), 1)  # a band takes two cells
        taken = cover(both, self.mass, price).unflatten(1, (2, -1)) & ~aware[:, None, None]
        columns = taken[:, 0] | (cover(cells, self.mass) & aware[:, None])
        return columns.any(0).cpu(), taken[:, 1].any(0).cpu(), aware.cpu()

    def _for_tile(self, layer: int, tile: int, cell: int, cells: int, index: HeadIndex, have: Have) -> Tensor:
        """What aware heads add for a tile: bool `[n_kv_heads, cells]`."""
        if not index.aware.any():
            return torch.zeros_like(index.columns)
        shape = have.shape(layer)
        queries = have.queries(layer, tile, cell * GRID - LAST, cell * GRID).transpose(0, 1)
        grouped = queries.unflatten(0, (shape.n_kv_heads, shape.group_size))
        means = have.parts(self.means, layer, tile, cells)[:, :, 0]
        found = [predicted(*parts, shape) for parts in zip(grouped, means, strict=True)]
        taken = cover(torch.cat(found), self.mass).cpu() & index.aware[:, None]
        return taken.unflatten(0, (shape.n_kv_heads, -1)).any(1)


def distance(some: Tensor, others: Tensor) -> Tensor:
    """The root of the Jensen-Shannon divergence of distributions over the last axis, in nats."""
    middle = (some + others) / 2
    both = torch.special.xlogy(some, some / middle) + torch.special.xlogy(others, others / middle)
    return (both.nan_to_num().sum(-1) / 2).clamp_min(0).sqrt()
