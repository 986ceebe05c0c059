"""One path whose heads look at what was planted, as selectors see it, and how much of their weights a view keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.select.base import KeyNeed, Selector
from umbel.attention.select.tiles import RowTiles
from umbel.ir.kv_shape import KVShape
from umbel.kernels.view import GRID, View

DIM = 64
STRENGTH = 2.0
"""Of what is looked at: a score of 16, where those of all other keys are about N(0, 2)."""


def head_of(kind: str, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Queries and keys (`[length, DIM]`) of a head that looks at 8 tokens ("columns"), 2 distances ("diagonals"), the
    first token and what is near ("a-shape"), cells whose keys are alike ("blocks"), or at nothing more than at anything
    else ("flat")."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(length, DIM, generator=generator)
    queries = 0.05 * torch.randn(length, DIM, generator=generator)
    direction = torch.randn(DIM, generator=generator)
    direction *= math.sqrt(DIM) / direction.norm()
    if kind == "columns":
        keys[torch.randperm(length // 2, generator=generator)[:8]] = direction
        queries += STRENGTH * direction
    elif kind == "diagonals":
        for back in (torch.randperm(length // 3, generator=generator)[:2] + 200).tolist():
            queries[back:] += STRENGTH * keys[: length - back]
    elif kind == "a-shape":
        keys[0] = direction
        queries += STRENGTH * direction
        queries[20:] += STRENGTH * keys[:-20]
    elif kind == "blocks":
        keys = 0.2 * keys
        for cell in (1, 4, 6):
            keys[cell * GRID : (cell + 1) * GRID] += direction
        queries += STRENGTH * direction
    return queries, keys


@dataclass
class OnePath:
    """What a selector may look at, of one path: queries `[length, n_heads, dim]`, keys `[n_kv_heads, length, dim]`.
    Implements `Have`."""

    q: Tensor
    k: Tensor
    notes: dict[tuple[int, str], object] = field(default_factory=dict)
    scored: int = 0  # keys and summaries of keys that were handed out

    @classmethod
    def of(cls, *kinds: str, length: int) -> OnePath:
        """A path with a KV head and one query head for each kind."""
        pairs = [head_of(kind, length, seed) for seed, kind in enumerate(kinds)]
        return cls(torch.stack([q for q, _ in pairs], 1), torch.stack([k for _, k in pairs]))

    def shape(self, layer: int) -> KVShape:
        """As many KV heads as there are."""
        return KVShape(self.q.shape[1], len(self.k), self.q.shape[2], self.q.shape[2], self.q.shape[2] ** -0.5)

    def spot(self, tile: int, position: int) -> int:
        """The position."""
        return position

    def keys(self, layer: int, tile: int, end: int) -> Tensor:
        """The first keys."""
        self.scored += end
        return self.k[:, :end]

    def queries(self, layer: int, tile: int, begin: int, end: int) -> Tensor:
        """Some queries."""
        return self.q[begin:end]

    def parts(self, need: KeyNeed, layer: int, tile: int, cells: int) -> Tensor:
        """A summary of the first cells."""
        self.scored += cells * GRID // need.keys
        return need.of(self.k[:, : cells * GRID].unflatten(1, (cells, GRID // need.keys, need.keys)))

    def summaries(
        self, need: KeyNeed, layer: int, tiles: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, list[NDArray[np.int64]]]:
        """Those of all cells, in order."""
        most = max(cells for _, cells in tiles)
        held = self.parts(need, layer, 0, most).transpose(0, 1).contiguous()
        return held, [np.arange(cells) for _, cells in tiles]

    def kept(self, layer: int, spot: int, rows: str) -> object | None:
        """What was kept."""
        return self.notes.get((spot, rows))

    def keep(self, layer: int, spot: int, rows: str, found: object) -> None:
        """Keep it."""
        self.notes[spot, rows] = found

    def weights(self, begin: int, end: int) -> Tensor:
        """The weights of dense attention of some rows: `[n_heads, end - begin, end]`, in double."""
        q, k = self.q[begin:end].double(), self.k[:, :end].double()
        each = k.repeat_interleave(self.q.shape[1] // len(self.k), 0)
        scores = torch.einsum("nhd,hkd->hnk", q, each) * self.shape(0).scale
        later = torch.arange(end) > torch.arange(begin, end)[:, None]
        return scores.masked_fill(later, -torch.inf).softmax(-1)


def tiles_of(begin: int, end: int, answers: bool = False) -> RowTiles:
    """The tiles of the rows `[begin, end)` of one path."""
    positions = np.arange(begin, end)
    starts = np.ones(len(positions), bool)
    starts[1:] = answers | (positions[1:] % GRID == 0)
    first = np.flatnonzero(starts)
    tile_of = torch.from_numpy((np.cumsum(starts) - 1).astype(np.int32))
    nodes = np.zeros(len(first), np.int64)
    cell = positions[first] // GRID
    is_answer, whole = np.full(len(first), answers), np.zeros(len(first), bool)
    return RowTiles(first, positions[first], nodes, cell, is_answer, whole, tile_of, (end - 1) // GRID + 1)


def view_of(selector: Selector, path: OnePath, begin: int, end: int) -> View:
    """What a selector picks for some rows of a path."""
    tiles = tiles_of(begin, end, selector.rows == "answers")
    view = selector.pick(0, path.q[begin:end], tiles, path)
    return view or View(tiles.tile_of, tiles.everything(len(path.k)))


def kept(view: View, path: OnePath, begin: int, end: int) -> Tensor:
    """The share of the weights of dense attention on what rows read: `[n_heads, end - begin]`."""
    group = path.q.shape[1] // len(path.k)
    reads = view.reads[view.tile_of.long()].repeat_interleave(group, 1).repeat_interleave(GRID, 2)[:, :, :end]
    own = torch.arange(end) // GRID == (torch.arange(begin, end) // GRID)[:, None]
    return (path.weights(begin, end) * (reads.transpose(0, 1) | own)).sum(-1)
