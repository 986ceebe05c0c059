"""Columns and diagonals of the attention map: the vertical-slash pattern of MInference (arXiv 2407.02490), on the grid.

The published index is made of the last queries of a prompt. Here it is made of the last queries before each window of
positions, and used for the rows of that window: they read their own window whole, of the path before it the cells that
these queries looked at most, and those at the distances that they looked at most. The first cell is always among them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from umbel.attention.select.base import PROMPTS, Have, Ints, QueryTail
from umbel.attention.select.covers import top
from umbel.attention.select.lines import PROBES, ProbeWeights, below
from umbel.attention.select.tiles import RowTiles
from umbel.attention.select.windows import CELLS, WINDOW, pick_by_windows
from umbel.ir.spec import ModelSpec
from umbel.kernels.view import GRID, View

Index = tuple[Tensor, Tensor]


class VerticalSlash:
    """Rows of prompts read a `budget` (a share) of the cells before their window, half of them for columns and half for
    diagonals, which cover two cells each. What is found before a window is a fact of the path up to there."""

    rows = PROMPTS
    needs = (QueryTail(PROBES, WINDOW),)

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        self.budget = settings["budget"]

    def keys_read(self, keys: Ints) -> Ints:
        """Implement `Selector.keys_read`: columns, diagonals as if they met none of them, and the window."""
        if self.budget >= 1:
            return keys
        before = (keys - 1) // WINDOW * CELLS  # cells before the window
        columns, bands = self._counts(before)
        return np.asarray(keys - GRID * np.maximum(before - columns - 2 * bands, 0))

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """Implement `Selector.pick`."""
        if self.budget >= 1:
            return None

        def find(tile: int, end: int) -> Index:
            return self._choose(ProbeWeights.of(layer, tile, end, have))

        def reads(index: Index, tile: int, cells: int) -> Tensor:
            columns, bands = index
            return columns | below(bands, int(tiles.cell[tile]))

        return pick_by_windows(layer, tiles, have, find, reads)

    def _choose(self, lines: ProbeWeights) -> Index:
        """The cells and the bands of distances that are read: bool `[n_kv_heads, cells]` each."""
        cells = lines.cells.shape[1]
        columns = lines.cells.cpu().clone()
        columns[:, 0] = torch.inf
        most, bands = self._counts(np.array(cells))
        return top(columns, int(most)), top(lines.bands.cpu(), int(bands))

    def _counts(self, cells: Ints) -> tuple[Ints, Ints]:
        """How many columns and bands of distances are read of so many cells before a window."""
        columns, bands = np.ceil(self.budget * cells / 2), np.floor(self.budget * cells / 4)
        return np.maximum(columns, 1).astype(np.int64), np.maximum(bands, 1).astype(np.int64)
