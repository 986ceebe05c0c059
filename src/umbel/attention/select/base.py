"""The seam of what rows read: a Selector says it for each layer, from what it declared that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.select.tiles import RowTiles
from umbel.ir.kv_shape import KVShape
from umbel.kernels.view import View

Ints = NDArray[np.int64]

PROMPTS, ANSWERS = "prompts", "answers"


@dataclass(frozen=True, slots=True)
class QueryTail:
    """A need: the last `count` queries before each multiple of `every` positions are kept."""

    count: int
    every: int


@dataclass(frozen=True, slots=True)
class KeyBounds:
    """A need: the largest and smallest number in each dimension of every `keys` keys of a cell, once it is full."""

    keys: int

    def of(self, keys: Tensor) -> Tensor:
        """The largest numbers of some keys (`[..., keys, key_dim]`) before the smallest: bfloat16 `[..., 2 * key_dim]`,
        which is half as much to read. They are moved outwards by more than is rounded, so that they stay bounds."""
        most, least = keys.amax(-2).float(), keys.amin(-2).float()
        return torch.cat((most + most.abs() / 256, least - least.abs() / 256), -1).bfloat16()

    def asked(self, queries: Tensor) -> Tensor:
        """What queries (`[..., key_dim]`) are multiplied by bounds as: `[..., 2 * key_dim]`."""
        return torch.cat((queries.clamp_min(0), queries.clamp_max(0)), -1)


@dataclass(frozen=True, slots=True)
class KeyMeans:
    """A need: the mean of every `keys` keys of a cell, once it is full."""

    keys: int

    def of(self, keys: Tensor) -> Tensor:
        """The mean of some keys (`[..., keys, key_dim]`): `[..., key_dim]`."""
        return keys.mean(-2)

    def asked(self, queries: Tensor) -> Tensor:
        """What queries are multiplied by means as: themselves."""
        return queries


@dataclass(frozen=True, slots=True)
class KeyFirsts:
    """A need: the first of every `keys` keys of a cell, once it is full."""

    keys: int

    def of(self, keys: Tensor) -> Tensor:
        """The first of some keys (`[..., keys, key_dim]`): `[..., key_dim]`."""
        return keys[..., 0, :]

    def asked(self, queries: Tensor) -> Tensor:
        """What queries are multiplied by keys as: themselves."""
        return queries


KeyNeed = KeyBounds | KeyMeans | KeyFirsts
Need = QueryTail | KeyNeed


class Have(Protocol):
    """What a Selector may look at, of a step's paths in one layer: what it declared, and keys. All of it depends on the
    path alone, wherever chunks end and whatever else is in the step."""

    def shape(self, layer: int) -> KVShape:
        """The layer's attention."""
        ...

    def spot(self, tile: int, position: int) -> int:
        """What stands for the path of a tile up to a position, that included: equal for tiles that share it."""
        ...

    def keys(self, layer: int, tile: int, end: int) -> Tensor:
        """The keys at positions below `end` of a tile's path: `[n_kv_heads, end, key_dim]`."""
        ...

    def queries(self, layer: int, tile: int, begin: int, end: int) -> Tensor:
        """The queries at positions `[begin, end)`, which a QueryTail has kept: `[end - begin, n_heads, key_dim]`."""
        ...

    def parts(self, need: KeyNeed, layer: int, tile: int, cells: int) -> Tensor:
        """What was needed of the keys of the first cells of a tile's path, which are full: `[n_kv_heads, cells, parts,
        width]`."""
        ...

    def summaries(self, need: KeyNeed, layer: int, tiles: Sequence[tuple[int, int]]) -> tuple[Tensor, list[Ints]]:
        """The same of several tiles, each with a count of cells: all that is held (`[rows, n_kv_heads, parts, width]`),
        and which of its rows are those of each tile."""
        ...

    def kept(self, layer: int, spot: int, rows: str) -> object | None:
        """What `keep` was given of the path up to a spot, for rows of a kind; None where it was not."""
        ...

    def keep(self, layer: int, spot: int, rows: str, found: object) -> None:
        """Keep what was found of a path, as long as its memory holds that path."""
        ...


class Selector(Protocol):
    """Says what rows read. A pick may depend on the paths of the rows alone, and of prompts only on what stands before
    the tile: then chunks, neighbours and preemption change no byte, and rows that share a path share its picks."""

    @property
    def rows(self) -> str:
        """Whose rows it picks for: PROMPTS, in tiles of one node and cell, or ANSWERS, whose tiles are single rows."""
        ...

    @property
    def needs(self) -> tuple[Need, ...]:
        """What must be kept for it: made once, however many ask for it."""
        ...

    def keys_read(self, keys: Ints) -> Any:
        """Its price: the keys that its rows read at most which have so many up to their own (any shape)."""
        ...

    def pick(self, layer: int, q: Tensor, tiles: RowTiles, have: Have) -> View | None:
        """What the rows of a step read in a layer, whose queries are `q` (`[rows, n_heads, key_dim]`); rows that are
        not its own read everything, None: all do."""
        ...
