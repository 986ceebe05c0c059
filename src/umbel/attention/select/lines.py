"""What the last queries before a window of rows see of their path, by cells of keys and by distance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.attention.select.base import Have
from umbel.ir.kv_shape import KVShape
from umbel.kernels.view import GRID

PROBES = 64  # the last queries before a window


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


def weights_of(queries: Tensor, keys: Tensor, shape: KVShape, stride: int = 1) -> Tensor:
    """The weights that every so many of the last queries of a path, the very last among them (`[heads, queries, dim]`),
    give to its keys (`[keys, dim]`): float32 `[heads, queries, keys]`."""
    heads, n, dim = queries.shape
    scores = (queries.reshape(-1, dim) @ keys.T).float().mul_(shape.scale).view(heads, n, -1)
    if shape.cap is not None:
        scores = scores.div_(shape.cap).tanh_().mul_(shape.cap)
    ends = torch.arange(stride, n * stride + 1, stride, device=scores.device)
    later = torch.arange(n * stride, device=scores.device) >= ends[:, None]
    scores[..., -n * stride :].masked_fill_(later, -torch.inf)
    return scores.softmax(-1)


def predicted(queries: Tensor, means: Tensor, shape: KVShape) -> Tensor:
    """The shares of cells that the mean of some queries (`[heads, queries, dim]`) would look at, if all keys of a cell
    were their mean (`[cells, dim]`): float32 `[heads, cells]`."""
    scores = (queries.float().mean(1) @ means.float().T) * shape.scale
    return (scores if shape.cap is None else shape.cap * (scores / shape.cap).tanh()).softmax(-1)


def by_distance(weights: Tensor) -> Tensor:
    """The mean weight at each distance back (`[heads, keys]`), from those of the last queries of a path to its keys
    (`[heads, queries, keys]`)."""
    heads, n, keys = weights.shape
    found = weights.new_zeros(heads, keys + n)  # by place: place p is at the distance `keys` - 1 - p
    for row in range(n):
        found[:, n - 1 - row :][:, :keys] += weights[:, row]
    return found[:, :keys].flip(1) / n


def key_or_distance(weights: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of weights (`[heads, queries, keys]`, of the last queries of a path) on keys and on distances back,
    `[heads, keys]` each: each weight counts for its key or for its distance, for what has more of the mean query, so
    that together they are one."""
    heads, n, keys = weights.shape
    by_key, by_place = weights.mean(1), weights.new_zeros(heads, keys + n)
    by_place[:, :keys] = by_distance(weights).flip(1)
    on_keys, on_places = torch.zeros_like(by_key), torch.zeros_like(by_place)
    for row in range(n):
        mine, ahead = weights[:, row], n - 1 - row  # keys behind the query
        steady = mine * (by_key >= by_place[:, ahead : ahead + keys])
        on_keys += steady
        on_places[:, ahead : ahead + keys] += mine - steady
    return on_keys / n, on_places[:, :keys].flip(1) / n


def below(bands: Tensor, cell: int) -> Tensor:
    """The cells before the window that rows in a cell read for some bands of distances (bool `[heads, cells]`): the
    keys at a distance in band b are in the two cells that lie b and b + 1 before."""
    cells = bands.shape[1]
    back = cell - torch.arange(cells)
    near, far = (torch.where(b < cells, b, 0) for b in (back, back - 1))
    return (bands[:, near] & (back < cells)) | (bands[:, far] & (back - 1 < cells))
