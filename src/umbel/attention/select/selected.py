"""Attention of which selectors say what it reads: around a backend that obeys views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.attention.select.base import KeyNeed, QueryTail, Selector
from umbel.attention.select.memory import PathNotes, SlotMemory
from umbel.attention.select.tally import KeyTally
from umbel.attention.select.tiles import RowTiles
from umbel.ir.kv_shape import KVShape
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.view import GRID, View
from umbel.kv.slots import path_slots, row_nodes, write_slots
from umbel.kv.store import KVStore

Ints = NDArray[np.int64]


class StepPaths:
    """The paths of a step's tiles as KV slots, found once for all layers."""

    def __init__(self, step: Step, tiles: RowTiles, scratch: int):
        self.step, self.tiles = step, tiles
        written, last = write_slots(step, scratch), step.positions % GRID == GRID - 1
        self.rows = np.flatnonzero(step.fresh)
        self.slots, self.positions = written[self.rows], step.positions[self.rows]
        full = np.flatnonzero(step.fresh & last)  # rows that fill their cell
        self.full = written[full]
        cells = step.positions[full, None] - np.arange(GRID)[::-1]
        self.of_full = path_slots(step, row_nodes(step)[full], cells) if len(full) else np.empty((0, GRID), np.int64)
        self._paths: dict[int, Ints] = {}

    def slots_of(self, tile: int) -> Ints:
        """The KV slots of a tile's path before its first row."""
        if tile not in self._paths:
            before = np.arange(int(self.tiles.position[tile]))
            self._paths[tile] = path_slots(self.step, self.tiles.node[tile : tile + 1], before[None])[0]
        return self._paths[tile]

    def ends_of(self, tile: int, cells: int) -> Ints:
        """The last slots of the first cells of a tile's path."""
        return self.slots_of(tile)[GRID - 1 : cells * GRID : GRID]


class SelectedAttention:
    """A backend, and some selectors of what it reads. Implements `AttentionBackend`, and `Have` for the selectors."""

    def __init__(
        self,
        inner: AttentionBackend,
        selectors: Sequence[Selector],
        spec: ModelSpec,
        store: KVStore,
        tally: KeyTally | None = None,
    ):
        self.inner, self.selectors, self.store = inner, tuple(selectors), store
        self.shapes, self.tally = spec.kv_shapes, tally or KeyTally(len(spec.kv_shapes))
        n_slots = (store.n_pages + 1) * store.page_size
        needs = dict.fromkeys(need for selector in selectors for need in selector.needs)
        self.tails = tuple(need for need in needs if isinstance(need, QueryTail))
        self.logged = SlotMemory(n_slots)
        self.of_keys = {need: SlotMemory(n_slots) for need in needs if not isinstance(need, QueryTail)}
        self.notes = PathNotes()

    @property
    def name(self) -> str:
        """The name of the backend."""
        return self.inner.name

    def prepare(self, step: Step) -> int:
        """Lay the step out, and find what it will leave to selectors."""
        read = self.inner.prepare(step)
        self.paths = paths = StepPaths(step, RowTiles.of(step), self.store.scratch)
        self.tally.open(step, paths.tiles)
        self.notes.forget(paths.slots)
        for memory in self.of_keys.values():
            memory.admit(paths.full)
        wanted = np.zeros(len(paths.positions), bool)
        for tail in self.tails:
            wanted |= paths.positions % tail.every >= tail.every - tail.count
        self.tail_slots, self.tail_rows = paths.slots[wanted], torch.from_numpy(paths.rows[wanted])
        self.logged.admit(self.tail_slots)
        return read

    def place(self, layer: int) -> Place:
        """Where keys and values go."""
        return self.inner.place(layer)

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """Attention with what the selectors leave of what `select` does."""
        view = self.picked(layer, q, select)
        self.tally.add(view, self.shapes[layer])
        return self.inner.attend(layer, q, view and view.on(q.device), sinks)

    def picked(self, layer: int, q: Tensor, select: View | None = None) -> View | None:
        """What the selectors leave of what `select` does, on the processor; None: everything."""
        self._note(layer, q)
        found = [selector.pick(layer, q, self.paths.tiles, self) for selector in self.selectors]
        return _together([select, *found])

    def _note(self, layer: int, q: Tensor) -> None:
        """Keep of the step's queries and keys what is needed."""
        if len(self.tail_slots):
            self.logged.write(layer, self.tail_slots, q[self.tail_rows.to(q.device)])
        for need, memory in self.of_keys.items():
            if len(self.paths.full):
                keys, _ = self.store.read(layer, torch.from_numpy(self.paths.of_full).to(q.device))
                parts = keys.to(q.dtype).unflatten(2, (-1, need.keys))  # [n_kv_heads, cells, parts, keys, key_dim]
                memory.write(layer, self.paths.full, need.of(parts).transpose(0, 1))

    # -- what selectors look at: see Have ------------------------------------------------------------------------------

    def shape(self, layer: int) -> KVShape:
        """The layer's attention."""
        return self.shapes[layer]

    def spot(self, tile: int, position: int) -> int:
        """The slot of a position of a tile's path."""
        return int(self.paths.slots_of(tile)[position])

    def keys(self, layer: int, tile: int, end: int) -> Tensor:
        """The keys of a tile's path up to `end`, in place where they lie side by side."""
        slots = self.paths.slots_of(tile)[:end]
        if (np.diff(slots) == 1).all():
            return self.store.read(layer, slice(int(slots[0]), int(slots[-1]) + 1))[0]
        return self.store.read(layer, torch.from_numpy(slots).to(self.store.keys[layer].device))[0]

    def queries(self, layer: int, tile: int, begin: int, end: int) -> Tensor:
        """Queries of a tile's path that were kept."""
        return self.logged.read(layer, self.paths.slots_of(tile)[begin:end])

    def parts(self, need: KeyNeed, layer: int, tile: int, cells: int) -> Tensor:
        """What was needed of the keys of the first cells of a tile's path."""
        return self.of_keys[need].read(layer, self.paths.ends_of(tile, cells)).transpose(0, 1)

    def summaries(self, need: KeyNeed, layer: int, tiles: Sequence[tuple[int, int]]) -> tuple[Tensor, list[Ints]]:
        """What was needed of the keys of the first cells of several paths, in place."""
        memory = self.of_keys[need]
        return memory.held(layer), [memory.where(self.paths.ends_of(tile, cells)) for tile, cells in tiles]

    def kept(self, layer: int, spot: int, rows: str) -> object | None:
        """What was found of the path up to a spot."""
        return self.notes.get(layer, spot, rows)

    def keep(self, layer: int, spot: int, rows: str, found: object) -> None:
        """Keep what was found."""
        self.notes.put(layer, spot, rows, found)


def _together(views: Sequence[View | None]) -> View | None:
    """What all of several views leave; those of selectors are of the same tiles."""
    found = [view for view in views if view is not None]
    if not found:
        return None
    reads = found[0].reads
    for other in found[1:]:
        reads = reads & other.reads
    return View(found[0].tile_of, reads)
