"""The best cells by halving groups of them: HiP attention (arXiv 2406.09827; InfiniteHiP, 2502.08910), on the grid.

The cells before a window are cut into as many groups as are to be read. Each group is halved again and again, and of
all halves the better ones stay, judged by the first keys of their first cells: rounds grow with the logarithm of the
path, and what is scored of a round does not grow. Where neighbouring keys are not alike, it misses what stands in the
middle of a group; tests/attention/test_prompt_selectors.py has both cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from umbel.attention.select.base import PROMPTS, Have, Ints, KeyFirsts, QueryTail
from umbel.attention.select.tiles import RowTiles
from umbel.attention.select.windows import CELLS, WINDOW, pick_by_windows
from umbel.ir.spec import ModelSpec
from umbel.kernels.view import GRID, View

Score = Callable[[Tensor], Tensor]
LAST = 16  # queries of the cell before a tile that stand for it


class HalvedGroups:
    """Tiles of prompts read their window, the first cell, and a `budget` (a share) of those before the window, `most`
    of them at most."""

    rows = PROMPTS
    firsts = KeyFirsts(16)
    needs = (QueryTail(LAST, GRID), firsts)

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        self.budget, self.most = settings["budget"], int(settings["most"])

    def keys_read(self, keys: Ints) -> Ints:
        """Implement `Selector.keys_read`."""
        before = (keys - 1) // WINDOW * CELLS
        return np.asarray(keys - GRID * np.maximum(before - self._count(before) - 1, 0))

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """Implement `Selector.pick`."""

        def reads(nothing: bool, tile: int, cells: int) -> Tensor:
            heads, count = have.shape(layer).n_kv_heads, int(self._count(np.array(cells)))
            if count >= cells:
                return torch.ones(heads, cells, dtype=torch.bool)
            picked = descend(self._score(layer, tile, int(tiles.cell[tile]), cells, have), heads, cells, count)
            picked[:, 0] = True
            return picked

        return pick_by_windows(layer, tiles, have, lambda tile, end: True, reads)

    def _count(self, cells: Ints) -> Ints:
        """How many of so many cells are read beside the first one."""
        return np.clip(np.ceil(self.budget * cells).astype(np.int64), 1, self.most)

    def _score(self, layer: int, tile: int, cell: int, cells: int, have: Have) -> Score:
        """The scores of some cells for a tile."""
        shape = have.shape(layer)
        queries = have.queries(layer, tile, cell * GRID - LAST + 1, cell * GRID)[::2].float()
        grouped = queries.transpose(0, 1).reshape(shape.n_kv_heads, -1, queries.shape[2]).transpose(1, 2)
        firsts = have.parts(self.firsts, layer, tile, cells)

        def score(some: Tensor) -> Tensor:
            heads = torch.arange(len(firsts), device=firsts.device)[:, None]
            keys = firsts[heads, some.to(firsts.device)].float()  # [n_kv_heads, some, keys, key_dim]
            return torch.bmm(keys.flatten(1, 2), grouped).amax(2).unflatten(1, (some.shape[1], -1)).amax(2).cpu()

        return score


def descend(score: Score, heads: int, cells: int, count: int) -> Tensor:
    """The cells, `count` of so many at most, to which halving comes: bool `[heads, cells]`. `score` says how good some
    cells are of each head (int64 `[heads, some]`; float32 of the same shape)."""
    edges = torch.linspace(0, cells, count + 1).long()
    begin, end = edges[:-1].repeat(heads, 1), edges[1:].repeat(heads, 1)
    while int((end - begin).max()) > 1:
        middle = (begin + end + 1) // 2
        begin, end = torch.cat((begin, middle), 1), torch.cat((middle, end), 1)
        good = score(begin.clamp_max(cells - 1)).masked_fill(begin >= end, -torch.inf)
        order = good.sort(dim=1, descending=True, stable=True).indices[:, :count]
        begin, end = begin.gather(1, order), end.gather(1, order)
    return torch.zeros(heads, cells, dtype=torch.bool).scatter_(1, begin.clamp_max(cells - 1), True)
