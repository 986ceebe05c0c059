"""The rows of a step in tiles of the position grid: rows that may be picked for together; numpy only.

A tile is rows that lie side by side in one node and one cell of positions; where samples answer, each row is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umbel.ir.step import Step
from umbel.kernels.view import GRID, View
from umbel.kv.slots import row_nodes

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowTiles:
    """Per tile (`[tiles]`) its `first` row and the `position` of that, its `node` of the step, its `cell`, whether it
    `answers`, and whether it is `whole`: its rows read everything; `tile_of` each row (int32 `[rows]`), and how many
    `cells` the longest path has."""

    first: Ints
    position: Ints
    node: Ints
    cell: Ints
    answers: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    tile_of: Tensor
    cells: int

    @classmethod
    def of(cls, step: Step) -> RowTiles:
        """The tiles of a step."""
        node, cell = row_nodes(step), step.positions // GRID
        answers = np.zeros(len(node), bool) if step.answers is None else step.answers[node]
        whole = np.zeros(len(node), bool) if step.whole is None else step.whole[node]
        begins = np.ones(len(node), bool)
        begins[1:] = (np.diff(node) != 0) | (np.diff(cell) != 0) | answers[1:]
        first = np.flatnonzero(begins)
        tile_of = torch.from_numpy((np.cumsum(begins) - 1).astype(np.int32))
        return cls(
            first,
            step.positions[first],
            node[first],
            cell[first],
            answers[first],
            whole[first],
            tile_of,
            int(cell.max(initial=0)) + 1,
        )

    def beyond(self, cells: int, answers: bool) -> list[int]:
        """The tiles of prompts, or of answers, that have more than so many cells before their own and may be picked
        for."""
        return np.flatnonzero((self.answers == answers) & (self.cell > cells) & ~self.whole).tolist()

    def everything(self, n_kv_heads: int) -> Tensor:
        """What tiles read that read everything: bool `[tiles, n_kv_heads, cells]`."""
        return torch.ones(len(self.first), n_kv_heads, self.cells, dtype=torch.bool)

    def reading(self, some: list[int], picked: Tensor) -> Tensor:
        """What tiles read of which some read `picked` of the cells before their own (bool `[some, n_kv_heads, cells]`),
        and the others everything: as `everything`."""
        reads = self.everything(picked.shape[1])
        own = torch.arange(picked.shape[2]) >= torch.from_numpy(self.cell[some])[:, None, None]
        reads[torch.tensor(some), :, : picked.shape[2]] = picked | own
        return reads

    def view(self, reads: Tensor) -> View:
        """The view in which tiles read so."""
        return View(self.tile_of, reads)
