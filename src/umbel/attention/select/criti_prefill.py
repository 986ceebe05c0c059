"""Cells by extremes of queries and keys: CritiPrefill (arXiv 2409.12490), on the grid.

The largest and the smallest number in each dimension stand for a segment of queries and for 32 keys; a segment looks at
keys as much as the best of the four products says. The published segment is that of the rows themselves, which chunks
would cut: here it is the last queries of the cell before a tile. Scores of one layer are not mixed with those of the
layer before, and all layers are treated alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from umbel.attention.select.base import PROMPTS, Have, Ints, KeyBounds, QueryTail
from umbel.attention.select.covers import top
from umbel.attention.select.tiles import RowTiles
from umbel.attention.select.windows import CELLS, WINDOW, pick_by_windows
from umbel.ir.spec import ModelSpec
from umbel.kernels.view import GRID, View

LAST = 16  # queries of the cell before a tile that stand for it


class CritiPrefill:
    """Tiles of prompts read their window and a `budget` (a share) of the cells before it, the first one among them."""

    rows = PROMPTS
    bounds = KeyBounds(32)
    needs = (QueryTail(LAST, GRID), bounds)

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        self.budget = settings["budget"]

    def keys_read(self, keys: Ints) -> Ints:
        """Implement `Selector.keys_read`."""
        before = (keys - 1) // WINDOW * CELLS
        return np.asarray(keys - GRID * (before - self._count(before)))

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """Implement `Selector.pick`."""

        def reads(nothing: bool, tile: int, cells: int) -> Tensor:
            scores = self._scores(layer, tile, int(tiles.cell[tile]), cells, have)
            scores[:, 0] = torch.inf
            return top(scores, int(self._count(np.array(cells))))

        return None if self.budget >= 1 else pick_by_windows(layer, tiles, have, lambda tile, end: True, reads)

    def _count(self, cells: Ints) -> Ints:
        return np.ceil(self.budget * cells).astype(np.int64)

    def _scores(self, layer: int, tile: int, cell: int, cells: int, have: Have) -> Tensor:
        """How much the queries before a tile may look at each cell, the mean of a group: `[n_kv_heads, cells]`."""
        shape = have.shape(layer)
        queries = have.queries(layer, tile, cell * GRID - LAST, cell * GRID).float()
        extremes = torch.stack((queries.amax(0), queries.amin(0)), 1)  # [n_heads, 2, key_dim]
        asked = extremes.unflatten(0, (shape.n_kv_heads, shape.group_size)).flatten(1, 2)
        bounds = have.parts(self.bounds, layer, tile, cells).float().unflatten(3, (2, -1)).flatten(1, 3)
        products = torch.bmm(bounds, asked.transpose(1, 2)).mul_(shape.scale)
        each = products.view(shape.n_kv_heads, cells, -1, 2, shape.group_size, 2)
        return each.amax((3, 5)).flatten(1, 2).softmax(1).mean(2).unflatten(1, (cells, -1)).amax(2).cpu()
