"""What the last queries before a window of rows see of their path, by cells of keys and by distance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.attention.select.base import Have
from umbel.ir.kv_shape import KVShape
from umbel.kernels.view import GRID

WINDOW = 1024  # positions whose rows share what was found of the path before them
PROBES = 64  # the last queries before a window
CELLS = WINDOW // GRID


@dataclass(frozen=True, slots=True)
class ProbeWeights:
    """Shares of the weights of the last queries before a window, for each KV head the largest of its query heads:
    `cells` (float32 `[n_kv_heads, cells]`) of each cell of keys, and `bands` (the same shape) of the distance in each
    band that has most: band b is of keys that lie `[GRID * b, GRID * (b + 1))` back."""

    cells: Tensor
    bands: Tensor

    @classmethod
    def of(cls, layer: int, tile: int, end: int, have: Have) -> ProbeWeights:
        """What the queries before position `end` of a tile's path see of it, one KV head after the other."""
        shape = have.shape(layer)
        queries, keys = have.queries(layer, tile, end - PROBES, end), have.keys(layer, tile, end)
        grouped = queries.transpose(0, 1).unflatten(0, (shape.n_kv_heads, shape.group_size))
        found = []
        for mine, own in zip(grouped, keys, strict=True):
            weights = weights_of(mine, own.to(mine.dtype), shape)
            by_cell = weights.mean(1).unflatten(1, (-1, GRID)).sum(2)
            by_band = by_distance(weights).unflatten(1, (-1, GRID)).amax(2)
            found.append((by_cell.amax(0), by_band.amax(0)))
        return cls(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def weights_of(queries: Tensor, keys: Tensor, shape: KVShape) -> Tensor:
    """The weights that the last queries of a path (`[heads, queries, dim]`) give to its keys (`[keys, dim]`): float32
    `[heads, queries, keys]`."""
    heads, n, dim = queries.shape
    scores = (queries.reshape(-1, dim) @ keys.T).float().mul_(shape.scale).view(heads, n, -1)
    if shape.cap is not None:
        scores = scores.div_(shape.cap).tanh_().mul_(shape.cap)
    later = torch.ones(n, n, dtype=torch.bool, device=scores.device).triu(1)
    scores[..., -n:].masked_fill_(later, -torch.inf)
    return scores.softmax(-1)


def by_distance(weights: Tensor) -> Tensor:
    """The mean weight at each distance back (`[heads, keys]`), from those of the last queries of a path to its keys
    (`[heads, queries, keys]`)."""
    heads, n, keys = weights.shape
    back, found = weights.flip(2), torch.zeros(heads, keys, device=weights.device)
    for row in range(n):
        ahead = n - 1 - row  # keys behind the query
        found[:, : keys - ahead] += back[:, row, ahead:]
    return found / n
