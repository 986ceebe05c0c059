"""Heads that look at the beginning and at what is near read nothing else: the streaming heads of LServe (arXiv
2502.14866) and DuoAttention (2410.10819).

There they are found by training gates, once for a model. Here they are measured, before each window of positions, by
the weights of the last queries: a head streams there if the first cell and the nearest have a share `mass` of them. All
other heads read everything. A KV head streams if all query heads that share it do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from umbel.attention.select.base import Have, QueryTail
from umbel.attention.select.lines import PROBES, weights_of
from umbel.attention.select.measured import ByMass, probes_by_group
from umbel.attention.select.tiles import RowTiles
from umbel.attention.select.windows import WINDOW, pick_by_windows
from umbel.ir.spec import ModelSpec
from umbel.kernels.view import GRID, View


class StreamingHeads(ByMass):
    """Rows of prompts read their window and, of the path before it, with heads that stream the first cell and the last
    `near` tokens, in whole cells."""

    needs = (QueryTail(PROBES, WINDOW),)

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        super().__init__(settings, spec)
        self.near = -(-int(settings["near"]) // GRID)

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """Implement `Selector.pick`."""
        if self.reads_all:
            return None

        def find(tile: int, end: int) -> Tensor:
            return self._streams(layer, tile, end, have)

        def reads(streams: Tensor, tile: int, cells: int) -> Tensor:
            return ~streams[:, None] | self._ends(cells)

        return pick_by_windows(layer, tiles, have, find, reads)

    def _ends(self, cells: int) -> Tensor:
        """The cells that a head reads that streams: bool `[cells]`."""
        at = torch.arange(cells)
        return (at == 0) | (at >= cells - self.near)

    def _streams(self, layer: int, tile: int, end: int, have: Have) -> Tensor:
        """Which KV heads stream behind position `end`: bool `[n_kv_heads]`."""
        shape = have.shape(layer)
        grouped, ends = probes_by_group(layer, tile, end, have), self._ends(end // GRID)
        found = []
        for mine, keys in zip(grouped, have.keys(layer, tile, end), strict=True):
            cells = weights_of(mine, keys.to(mine.dtype), shape).mean(1).unflatten(1, (-1, GRID)).sum(2).cpu()
            found.append((cells[:, ends].sum(1) >= self.mass).all())
        return torch.stack(found)
