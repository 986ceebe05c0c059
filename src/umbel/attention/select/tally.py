"""Counts the keys that rows read and those that there are, where selectors pick: for reports, beside the plan's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.attention.select.tiles import RowTiles
from umbel.ir.kv_shape import KVShape
from umbel.ir.step import Step
from umbel.kernels.view import GRID, View


class KeyTally:
    """Keys `read` and the `whole` of them, in a layer on average and for the mean of its KV heads. Of a sliding window,
    whole cells."""

    def __init__(self, layers: int):
        self._layers = layers
        self.read = self.whole = 0.0

    def open(self, step: Step, tiles: RowTiles) -> None:
        """A step begins."""
        self._tiles, self._begins = tiles, step.positions[tiles.first]
        own = np.bincount(tiles.tile_of.numpy(), step.positions % GRID + 1, len(tiles.first))
        self._rows, self._own = np.bincount(tiles.tile_of.numpy(), minlength=len(tiles.first)), float(own.sum())

    def add(self, view: View | None, shape: KVShape) -> None:
        """One of its layers is read so; `view` lies on the processor."""
        cell, first = self._tiles.cell, np.zeros_like(self._tiles.cell)
        if shape.window is not None:
            first = np.maximum(self._begins - shape.window + 1, 0) // GRID
        whole = (cell - first) * GRID * self._rows
        read = whole if view is None else self._picked(view, first) * GRID * self._rows
        self.whole += (float(whole.sum()) + self._own) / self._layers
        self.read += (float(read.sum()) + self._own) / self._layers

    def _picked(self, view: View, first: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cells before its own that each tile reads, from `first` on: the mean of the heads."""
        reads = view.reads.numpy()
        at = np.arange(reads.shape[2])
        before = (at >= first[:, None]) & (at < self._tiles.cell[:, None])
        return np.asarray((reads & before[:, None]).sum(2).mean(1))
