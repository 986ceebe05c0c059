"""Pages of keys for each answering row, by the largest score that one of their keys could have: Quest (arXiv
2406.10774) over the parts of a page that LServe (arXiv 2502.14866) looks at.

A page is a cell of the grid. Of every few keys of it the largest and the smallest number in each dimension are kept,
and no key there can have a larger product with a query than the sum of the larger of its products with these two. A
page is as good as the best of its parts, for the best query head of a group.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from umbel.attention.select.base import ANSWERS, Have, Ints, KeyBounds
from umbel.attention.select.scores import best_of_tiles, score_cells
from umbel.attention.select.tiles import RowTiles
from umbel.ir.spec import ModelSpec
from umbel.kernels.view import GRID, View

PART = 16  # keys
LEAST = 4  # pages that are read in any case: the first one and the last ones are among them


class PagePicks:
    """Each row of an answer reads a `budget` (a share) of the pages before its own: the first one, the last one, and
    those that could have the largest scores. All its own: no other row has a say."""

    rows = ANSWERS
    bounds = KeyBounds(PART)
    needs = (bounds,)

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        self.budget = settings["budget"]

    def keys_read(self, keys: Ints) -> Ints:
        """Implement `Selector.keys_read`: whole pages, and its own up to itself."""
        if self.budget >= 1:
            return keys
        cells = (keys - 1) // GRID
        return np.asarray(keys - GRID * np.maximum(cells - self._most(cells), 0))

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """Implement `Selector.pick`."""
        shape, mine = have.shape(layer), tiles.beyond(LEAST, answers=True)
        if not mine or self.budget >= 1:
            return None
        queries = q[torch.from_numpy(tiles.first[mine])].unflatten(1, (shape.n_kv_heads, shape.group_size))
        scores = score_cells(self.bounds, layer, queries, mine, tiles, have)
        cells = tiles.cell[mine]
        picked = best_of_tiles(scores, torch.from_numpy(cells), torch.from_numpy(self._most(cells)))
        return tiles.view(tiles.reading(mine, picked))

    def _most(self, cells: Ints) -> Ints:
        """How many of so many pages are read."""
        return np.maximum(LEAST, np.ceil(self.budget * cells).astype(np.int64))
