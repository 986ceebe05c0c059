"""What rows read of their paths in one layer: some cells of the grid of positions, for each KV head.

Backends whose capability record says `selects` obey such a view; to the others it is not given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GRID = 128
"""Positions of a cell: see `attention/layout.py`."""


@dataclass(frozen=True, slots=True)
class View:
    """The cells that rows read: cell c holds the positions `[GRID * c, GRID * (c + 1))` of a row's path.

    Rows that read alike are of one tile: `tile_of` (int32 `[rows]`). `reads` (bool `[tiles, n_kv_heads, cells]`) says
    which cells a tile reads with a KV head and the query heads that share it; there are cells for all positions.
    Causality and a sliding window hold as always, and a row always reads the cell that it stands in, so that none reads
    nothing.
    """

    tile_of: Tensor
    reads: Tensor

    @classmethod
    def whole(cls, rows: int, n_kv_heads: int, cells: int) -> View:
        """Everything, for so many rows of paths of so many cells."""
        return cls(torch.zeros(rows, dtype=torch.int32), torch.ones(1, n_kv_heads, cells, dtype=torch.bool))

    def on(self, device: torch.device) -> View:
        """The view on a device."""
        return View(self.tile_of.to(device), self.reads.to(device))

    def check(self, rows: int, n_kv_heads: int) -> None:
        """Raise ValueError or TypeError for a view that is not of so many rows and KV heads, contiguous, on one
        device."""
        if self.tile_of.dtype != torch.int32 or self.reads.dtype != torch.bool:
            raise TypeError(f"a view of {self.tile_of.dtype} tiles and {self.reads.dtype} cells, not int32 and bool")
        tiles, heads = self.reads.shape[:2]
        fits = self.tile_of.shape == (rows,) and heads == n_kv_heads
        if not fits or not self.reads.is_contiguous() or not self.tile_of.is_contiguous():
            shapes = f"tiles of {tuple(self.tile_of.shape)} rows and {tuple(self.reads.shape)} cells"
            raise ValueError(f"a view with {shapes} for {rows} rows and {n_kv_heads} KV heads")
        if rows and not 0 <= int(self.tile_of.min()) <= int(self.tile_of.max()) < tiles:
            raise ValueError(f"a view whose rows are of tile {int(self.tile_of.max())} at most, of {tiles}")


def check_whole(backend: str, select: View | None) -> None:
    """Raise ValueError where a backend that reads whole paths is given something else."""
    if select is not None:
        tiles = len(select.reads)
        raise ValueError(f"{backend} attention reads whole paths: it was given a view of {tiles} tiles of rows")
