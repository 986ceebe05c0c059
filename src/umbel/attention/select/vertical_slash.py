"""Columns and diagonals of the attention map: the vertical-slash pattern of MInference (arXiv 2407.02490), on the grid.

The published index is made of the last queries of a prompt, or, in chunks, of a chunk. Here it is made of the last
queries before each window of positions, and used for the rows of that window: they read their own window whole, of the
path before it the cells that these queries looked at most, and those at the distances that they looked at most. The
first cell is always among them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.select.base import PROMPTS, Have, QueryTail
from umbel.attention.select.lines import CELLS, PROBES, WINDOW, ProbeWeights
from umbel.attention.select.tiles import RowTiles
from umbel.ir.spec import ModelSpec
from umbel.kernels.view import GRID, View

Ints = NDArray[np.int64]
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
        far = np.flatnonzero(~tiles.answers & (tiles.cell >= CELLS))
        if not len(far) or self.budget >= 1:
            return None
        reads = tiles.everything(have.shape(layer).n_kv_heads)
        for tile in far.tolist():
            cell = int(tiles.cell[tile])
            end = cell // CELLS * CELLS
            columns, bands = self._index(layer, tile, end * GRID, have)
            reads[tile, :, :end] = columns | _below(bands, cell)
        return tiles.view(reads)

    def _index(self, layer: int, tile: int, end: int, have: Have) -> Index:
        """The cells and the bands of distances that are read of what stands before position `end`: bool `[n_kv_heads,
        cells]` each."""
        spot = have.spot(tile, end - 1)
        found = have.kept(layer, spot)
        if not isinstance(found, tuple):
            found = self._choose(ProbeWeights.of(layer, tile, end, have))
            have.keep(layer, spot, found)
        return found

    def _choose(self, lines: ProbeWeights) -> Index:
        cells = lines.cells.shape[1]
        columns = lines.cells.cpu().clone()
        columns[:, 0] = torch.inf
        most, bands = self._counts(np.array(cells))
        return top(columns, int(most)), top(lines.bands.cpu(), int(bands))

    def _counts(self, cells: Ints) -> tuple[Ints, Ints]:
        """How many columns and bands of distances are read of so many cells before a window."""
        columns, bands = np.ceil(self.budget * cells / 2), np.floor(self.budget * cells / 4)
        return np.maximum(columns, 1).astype(np.int64), np.maximum(bands, 1).astype(np.int64)


def top(scores: Tensor, count: int) -> Tensor:
    """Where the `count` largest of each row stand: bool of the same shape. Of equal ones the first are taken."""
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)


def _below(bands: Tensor, cell: int) -> Tensor:
    """The cells before the window that rows in a cell read for some bands of distances (bool `[n_kv_heads, cells]`):
    the keys at a distance in band b are in the two cells that lie b and b + 1 before."""
    cells = bands.shape[1]
    back = cell - torch.arange(cells)
    near, far = (torch.where(b < cells, b, 0) for b in (back, back - 1))
    return (bands[:, near] & (back < cells)) | (bands[:, far] & (back - 1 < cells))
