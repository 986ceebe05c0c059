"""Cells by the scores of pooled heads: ProxyAttn (arXiv 2509.24745), with a budget for each head.

The query heads that share a KV head share its keys too, so that the mean of their queries is one head in their place:
it ranks the cells before a window, at a part of the cost of ranking by all. How many of the best ones are read is up to
each head: as many as it needs for a share `mass` of what its own mean query would look at, if the keys of a cell were
their mean. Ranks are right where heads are alike; where they are not, budgets are what helps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.attention.select.base import Have, KeyMeans, QueryTail
from umbel.attention.select.covers import cover
from umbel.attention.select.lines import PROBES, predicted, weights_of
from umbel.attention.select.measured import ByMass, probes_by_group
from umbel.attention.select.tiles import RowTiles
from umbel.attention.select.windows import WINDOW, pick_by_windows
from umbel.ir.kv_shape import KVShape
from umbel.kernels.view import GRID, View

STRIDE = 4  # every so many of the last queries are scored


class ProxyAttn(ByMass):
    """Rows of prompts read their window, the first cell, and for each head the best cells by its group's mean query."""

    means = KeyMeans(GRID)
    needs = (QueryTail(PROBES, WINDOW), means)

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """Implement `Selector.pick`."""
        if self.reads_all:
            return None

        def find(tile: int, end: int) -> Tensor:
            return self._choose(layer, tile, end, have)

        return pick_by_windows(layer, tiles, have, find, lambda found, tile, cells: found)

    def _choose(self, layer: int, tile: int, end: int, have: Have) -> Tensor:
        """What is read before position `end`: bool `[n_kv_heads, cells]`."""
        shape = have.shape(layer)
        grouped = probes_by_group(layer, tile, end, have)
        means = have.parts(self.means, layer, tile, end // GRID)[:, :, 0]
        found = []
        for mine, keys, mean in zip(grouped, have.keys(layer, tile, end), means, strict=True):
            ranked = proxy_scores(mine, keys.to(mine.dtype), shape)
            count = int(cover(predicted(mine, mean, shape), self.mass).sum(1).max())
            ranked[0] = torch.inf
            taken = torch.zeros(len(ranked), dtype=torch.bool)
            taken[ranked.sort(descending=True, stable=True).indices[:count].cpu()] = True
            found.append(taken)
        return torch.stack(found)


def proxy_scores(queries: Tensor, keys: Tensor, shape: KVShape) -> Tensor:
    """What the mean of the heads that share some keys (`queries` `[heads, queries, dim]`) looks at in each cell:
    float32 `[cells]`."""
    pooled = queries.mean(0, keepdim=True)
    weights = weights_of(pooled[:, STRIDE - 1 :: STRIDE], keys, shape, STRIDE)
    return weights.mean(1).unflatten(1, (-1, GRID)).sum(2)[0]
