"""Attention over paths of which a part is forgotten: around a backend that need not know."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.attention.forget.base import ALL, NOTHING, Keeper
from umbel.attention.select.memory import SlotMemory
from umbel.ir.kept import Edit
from umbel.ir.kv_shape import KVShape
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.view import View
from umbel.kv.slots import row_nodes, slots_of
from umbel.kv.store import KVStore


class KeptAttention:
    """A backend, and a keeper whose edits are made before each step. Implements `AttentionBackend`."""

    def __init__(self, inner: AttentionBackend, keeper: Keeper, spec: ModelSpec, store: KVStore):
        self.inner, self.keeper, self.store, self.shapes = inner, keeper, store, spec.kv_shapes
        n_slots = (store.n_pages + 1) * store.page_size
        self.asked, self.noted = SlotMemory(n_slots), SlotMemory(n_slots)
        self._slots, self._rows = np.zeros(0, np.int64), torch.zeros(0, dtype=torch.int64)

    @property
    def name(self) -> str:
        """The name of the backend."""
        return self.inner.name

    def prepare(self, step: Step) -> int:
        """Forget what is to be forgotten, and lay the step out."""
        for edit in step.kept.edits if step.kept is not None else ():
            self.noted.admit(edit.targets)
            for layer in range(len(self.shapes)):
                self._make(layer, edit)
        rows = self._wanted(step)
        self._slots, self._rows = slots_of(step, row_nodes(step)[rows], step.positions[rows]), torch.from_numpy(rows)
        self.asked.admit(self._slots)
        return self.inner.prepare(step)

    def place(self, layer: int) -> Place:
        """Where keys and values go."""
        return self.inner.place(layer)

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """Attention over what is there, with the queries kept that the keeper needs."""
        if len(self._slots):
            self.asked.write(layer, self._slots, q[self._rows.to(q.device)])
        return self.inner.attend(layer, q, select, sinks)

    def _wanted(self, step: Step) -> np.ndarray:
        """Rows whose queries the keeper needs."""
        if self.keeper.needs == NOTHING:
            return np.zeros(0, np.int64)
        if self.keeper.needs == ALL:
            return np.arange(step.n_rows)
        last = step.row_end[step.row_end > step.row_begin] - 1
        return last if step.answers is None else last[~step.answers[row_nodes(step)[last]]]

    def _make(self, layer: int, edit: Edit) -> None:
        """Keep in one layer what the keeper chooses."""
        path = StoredPath(self, layer, edit)
        places = self.keeper.choose(path).to(self.store.keys[layer].device)
        sources, targets = (torch.from_numpy(slots).to(places.device) for slots in (edit.sources, edit.targets))
        if path.noted is not None:
            kept = path.noted.gather(1, places[:, :, None].expand(-1, -1, path.noted.shape[2]))
            self.noted.write(layer, edit.targets, kept.transpose(0, 1))
        heads = torch.arange(len(places), device=places.device)[:, None]
        for stored in _stored(self.store.place(layer, targets)):
            found = stored[heads, sources[places]]
            stored[:, targets] = found


def _stored(place: Place) -> Iterator[Tensor]:
    """All that is stored of a layer, `[n_kv_heads, slots, ...]` each, in types that torch copies by index."""
    for stored in (place.keys, place.values, *(place.scales or ())):
        yield stored.view(torch.uint8) if stored.itemsize == 1 else stored


class StoredPath:
    """Implements `RowPath` for the keeper, of one layer; `noted` is what it noted."""

    def __init__(self, kept: KeptAttention, layer: int, edit: Edit):
        self.edit = edit
        self.noted: Tensor | None = None
        self._kept, self._layer = kept, layer

    @property
    def shape(self) -> KVShape:
        """The layer's attention."""
        return self._kept.shapes[self._layer]

    @cached_property
    def _both(self) -> tuple[Tensor, Tensor]:
        store = self._kept.store
        slots = torch.from_numpy(self.edit.sources).to(store.keys[self._layer].device)
        keys, values = store.read(self._layer, slots)
        return keys.float(), values.float()

    @property
    def keys(self) -> Tensor:
        """The keys at all places."""
        return self._both[0]

    @property
    def values(self) -> Tensor:
        """The values at all places."""
        return self._both[1]

    def queries(self, begin: int, end: int) -> Tensor:
        """Queries that were kept."""
        gone = self.edit.end - len(self.edit.sources)
        slots = self.edit.sources[begin - gone : end - gone]
        return self._kept.asked.read(self._layer, slots).transpose(0, 1).float()

    @property
    def notes(self) -> Tensor | None:
        """What was noted of the memory that was there."""
        count = len(self.edit.sources) - self.edit.raw
        if not self.edit.before:
            return None
        return self._kept.noted.read(self._layer, self.edit.sources[:count]).transpose(0, 1)

    def note(self, numbers: Tensor) -> None:
        """Note something of all places."""
        self.noted = numbers
