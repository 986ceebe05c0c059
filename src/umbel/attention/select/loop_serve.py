"""Pages by what the last tokens looked at, found again every few tokens: the decoding half of LoopServe (arXiv
2507.13681).

Before each 64th position the weights of the last 8 queries over their whole path are summed up by pages, and the best
pages are read from there on, with all that came since. Nothing is forgotten: what the next tokens look at comes back.
The first queries of an answer are those that end its prompt, so that what is read follows the question.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from umbel.attention.select.base import ANSWERS, Have, Ints, QueryTail
from umbel.attention.select.covers import top
from umbel.attention.select.lines import weights_of
from umbel.attention.select.tiles import RowTiles
from umbel.ir.spec import ModelSpec
from umbel.kernels.view import GRID, View

LAST, EVERY = 8, 64  # queries, and positions between two choices
LEAST = 4  # pages that are read in any case


class LoopServe:
    """Each row of an answer reads a `budget` (a share) of the pages before its own, the first and the last of them."""

    rows = ANSWERS
    needs = (QueryTail(LAST, EVERY),)

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        self.budget = settings["budget"]

    def keys_read(self, keys: Ints) -> Ints:
        """Implement `Selector.keys_read`."""
        cells = (keys - 1) // GRID
        return np.asarray(keys - GRID * np.maximum(cells - self._count(cells), 0))

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """Implement `Selector.pick`."""
        if self.budget >= 1:
            return None
        reads = tiles.everything(have.shape(layer).n_kv_heads)
        for tile in tiles.beyond(LEAST, answers=True):
            cells, end = int(tiles.cell[tile]), int(tiles.position[tile]) // EVERY * EVERY
            mass = self._mass(layer, tile, end, have)[:, :cells].clone()
            mass[:, 0] = mass[:, -1] = torch.inf
            reads[tile, :, :cells] = top(mass, int(self._count(np.array(cells))))
        return tiles.view(reads)

    def _count(self, cells: Ints) -> Ints:
        return np.maximum(LEAST, np.ceil(self.budget * cells).astype(np.int64))

    def _mass(self, layer: int, tile: int, end: int, have: Have) -> Tensor:
        """What the queries before position `end` looked at in each page, the most of a group: `[n_kv_heads, pages]`."""
        spot = have.spot(tile, end - 1)
        found = have.kept(layer, spot, ANSWERS)
        if not isinstance(found, Tensor):
            found = self._measure(layer, tile, end, have)
            have.keep(layer, spot, ANSWERS, found)
        return found

    def _measure(self, layer: int, tile: int, end: int, have: Have) -> Tensor:
        shape = have.shape(layer)
        grouped = have.queries(layer, tile, end - LAST, end).transpose(0, 1).unflatten(0, (shape.n_kv_heads, -1))
        found = []
        for mine, keys in zip(grouped, have.keys(layer, tile, end), strict=True):
            weights = weights_of(mine, keys.to(mine.dtype), shape).mean(1)
            padded = torch.nn.functional.pad(weights, (0, -end % GRID))
            found.append(padded.unflatten(1, (-1, GRID)).sum(2).amax(0))
        return torch.stack(found).cpu()
