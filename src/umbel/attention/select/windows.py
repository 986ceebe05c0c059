"""Picks for the rows of prompts by what is found before their window of positions, once for all of them.

Published indices are made of the last queries of a prompt or of a chunk. Here windows begin at fixed positions, rows
read their own whole, and what they read of the path before it is found when it is first needed and kept with the path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from torch import Tensor

from umbel.attention.select.base import PROMPTS, Have
from umbel.attention.select.tiles import RowTiles
from umbel.kernels.view import GRID, View

WINDOW = 1024  # positions whose rows share what was found of the path before them
CELLS = WINDOW // GRID

Found = TypeVar("Found")


def pick_by_windows(
    layer: int,
    tiles: RowTiles,
    have: Have,
    find: Callable[[int, int], Found],
    reads: Callable[[Found, int, int], Tensor],
) -> View | None:
    """The view of a step's rows of prompts. `find(tile, end)` says what is found of a tile's path up to the position
    `end`, where a window begins, and `reads(found, tile, cells)` what a tile reads of the `cells` before its window:
    bool `[n_kv_heads, cells]`."""
    far = tiles.beyond(CELLS - 1, answers=False)
    if not far:
        return None
    read = tiles.everything(have.shape(layer).n_kv_heads)
    for tile in far:
        cells = int(tiles.cell[tile]) // CELLS * CELLS
        spot = have.spot(tile, cells * GRID - 1)
        found = have.kept(layer, spot, PROMPTS)
        if found is None:
            found = find(tile, cells * GRID)
            have.keep(layer, spot, PROMPTS, found)
        read[tile, :, :cells] = reads(cast("Found", found), tile, cells)
    return tiles.view(read)
