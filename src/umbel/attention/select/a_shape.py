"""The first cell and what is near: the A-shape of MInference (arXiv 2407.02490) for prompts, and StreamingLLM (arXiv
2309.17453) for answers. It looks at nothing, so that it costs nothing, and what stands in between is never read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from umbel.attention.select.base import ANSWERS, PROMPTS, Have, Ints, Need
from umbel.attention.select.tiles import RowTiles
from umbel.ir.spec import ModelSpec
from umbel.kernels.view import GRID, View


class AShape:
    """Rows of prompts read their own cell, the first one, and the nearest before their own: together a `budget` (a
    share) of all before it. The published window is of one size; a share is what other selectors take too."""

    rows = PROMPTS
    needs: tuple[Need, ...] = ()

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        self.budget = settings["budget"]

    def keys_read(self, keys: Ints) -> Ints:
        """Implement `Selector.keys_read`."""
        cells = (keys - 1) // GRID
        return np.asarray(keys - GRID * np.maximum(cells - 1 - self._near(cells), 0))

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """Implement `Selector.pick`."""
        if self.budget >= 1:
            return None
        reads = tiles.everything(have.shape(layer).n_kv_heads)
        for tile in tiles.beyond(1, self.rows == ANSWERS):
            cells = int(tiles.cell[tile])
            reads[tile, :, 1 : max(1, cells - int(self._near(np.array(cells))))] = False
        return tiles.view(reads)

    def _near(self, cells: Ints) -> Ints:
        """How many of so many cells are read beside the first one."""
        return np.maximum(np.ceil(self.budget * cells).astype(np.int64) - 1, 1)


class Streaming(AShape):
    """The same for tokens of answers."""

    rows = ANSWERS
