"""Pages of keys for each answering row, by the largest score that one of their keys could have: Quest (arXiv
2406.10774) over the parts of a page that LServe (arXiv 2502.14866) looks at.

A page is a cell of the grid. Of every few keys of it the largest and the smallest number in each dimension are kept,
and no key there can have a larger product with a query than the sum of the larger of its products with these two. A
page is as good as the best of its parts, for the best query head of a group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from umbel.attention.select.base import ANSWERS, Have, Ints, KeyBounds
from umbel.attention.select.covers import top_with_ends
from umbel.attention.select.tiles import RowTiles
from umbel.ir.spec import ModelSpec
from umbel.kernels.view import GRID, View

PART = 16  # keys
LEAST = 4  # pages that are read in any case: the first one and the last ones are among them


class PagePicks:
    """Each row of an answer reads a `budget` (a share) of the pages before its own: the first one, the last one, and
    those that could have the largest scores. All its own: no other row has a say."""

    rows = ANSWERS
    needs = (KeyBounds(PART),)

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        self.budget = settings["budget"]

    def keys_read(self, keys: Ints) -> Ints:
        """Implement `Selector.keys_read`: whole pages, and its own up to itself."""
        if self.budget >= 1:
            return keys
        cells = (keys - 1) // GRID
        most = np.maximum(LEAST, np.ceil(self.budget * cells).astype(np.int64))
        return keys - GRID * np.maximum(cells - most, 0)

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """Implement `Selector.pick`."""
        shape, rows = have.shape(layer), tiles.beyond(LEAST, answers=True)
        if not rows or self.budget >= 1:
            return None
        reads = tiles.everything(shape.n_kv_heads)
        for tile in rows:
            cells = int(tiles.cell[tile])
            query = q[int(tiles.first[tile])].view(shape.n_kv_heads, shape.group_size, -1)
            best = best_scores(query, have.parts(self.needs[0], layer, tile, cells))
            reads[tile, :, :cells] = top_with_ends(best.cpu(), max(LEAST, math.ceil(self.budget * cells)))
        return tiles.view(reads)


def best_scores(query: Tensor, bounds: Tensor) -> Tensor:
    """The largest score that a key of each page could have with a query head of each group, before it is scaled:
    `query` `[n_kv_heads, group, key_dim]`, `bounds` `[n_kv_heads, pages, parts, 2 * key_dim]`; gives `[n_kv_heads,
    pages]`."""
    signed = torch.cat((query.clamp_min(0), query.clamp_max(0)), -1)
    parts = torch.bmm(bounds.reshape(len(bounds), -1, bounds.shape[-1]), signed.transpose(1, 2))
    return parts.unflatten(1, bounds.shape[1:3]).amax((2, 3)).float()
