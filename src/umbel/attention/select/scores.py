"""How well cells fit the queries of tiles, by what was kept of their keys: one call for all tiles of a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.select.base import Have, KeyNeed
from umbel.attention.select.tiles import RowTiles
from umbel.kernels.dispatch import kernels
from umbel.kernels.native.summaries import score_summaries

Ints = NDArray[np.int64]


def score_cells(need: KeyNeed, layer: int, queries: Tensor, tiles: Sequence[int], of: RowTiles, have: Have) -> Tensor:
    """The largest product that a query of each KV head's group has with a part of each cell before the tile's own, or
    could have, of the `queries` of some tiles (`[tiles, n_kv_heads, group, key_dim]`): float32 `[tiles, n_kv_heads,
    most cells]` on the processor, -inf where a tile has no more."""
    held, at = have.summaries(need, layer, [(tile, int(of.cell[tile])) for tile in tiles])
    asked = need.asked(queries)
    native = kernels().native
    if native is not None and held.device.type == "cpu" and held.dtype in (torch.float32, torch.bfloat16):
        return score_summaries(native, asked, held, at)
    out = torch.full((len(tiles), asked.shape[1], max(map(len, at))), -torch.inf)
    for tile, rows in enumerate(at):
        parts = held[torch.from_numpy(rows).to(held.device)].transpose(0, 1).flatten(1, 2).float()
        products = torch.bmm(parts, asked[tile].float().transpose(1, 2))
        out[tile, :, : len(rows)] = products.unflatten(1, (len(rows), -1)).amax((2, 3)).cpu()
    return out


def best_of_tiles(scores: Tensor, cells: Tensor, counts: Tensor) -> Tensor:
    """The `counts` best cells of each tile (int64 `[tiles]`) by their scores (`[tiles, n_kv_heads, most cells]`), of
    which it has `cells`, the first and the last one among them: bool as `scores`. Of equal ones the first are taken."""
    scores = scores.clone()
    scores[:, :, 0] = torch.inf
    last = (cells - 1)[:, None, None].expand(-1, scores.shape[1], 1)
    scores.scatter_(2, last, torch.inf)
    order = scores.sort(dim=2, descending=True, stable=True).indices
    taken = torch.arange(scores.shape[2]) < counts[:, None, None]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(2, order, taken.expand_as(order))
