"""Attention over the forest on a GPU: the step's list of work is made on the processor, then one launch a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from umbel.attention.kinds import LayerKinds
from umbel.attention.switch import shipped_switch
from umbel.attention.work import Cut, list_work
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.transfer import upload
from umbel.kernels.triton.forest import DeviceWork, Heads, Tiles, attend
from umbel.kernels.view import View
from umbel.kv.slots import write_slots
from umbel.kv.store import KVStore

ITEMS_PER_UNIT = 4  # pieces of work for each multiprocessor and KV head, so that all end at about the same time
LEAST_KEYS, MOST_KEYS = 256, 8192  # of a piece: shorter ones cost more to merge than they bring


@dataclass(frozen=True, slots=True)
class Lists:
    """A step for the device: `arrays` (int32), first the step's pages and positions, then for each kind of layer its
    items, runs, merges and entries (see `work.Work`); the slots to write to (`writes`, int64 `[rows]`) and the one that
    no row reads (`scratch`); of each kind of layer the partial results (`queries`); and `keys_read`, the mean."""

    arrays: tuple[np.ndarray, ...]
    writes: np.ndarray
    scratch: int
    queries: tuple[int, ...]
    keys_read: int

    @classmethod
    def nothing(cls, kinds: int) -> Lists:
        """The lists of a step without rows, for so many kinds of layers."""
        widths = ((), (), *(((5,), (4,), (3,), ()) * kinds))
        arrays = tuple(np.empty((0, *width), np.int32) for width in widths)
        return cls(arrays, np.empty(0, np.int64), 0, (0,) * kinds, 0)


def works_on(arrays: Sequence[Tensor], queries: Sequence[int]) -> tuple[DeviceWork, ...]:
    """The work of each kind of layer from the `arrays` of Lists that are on the device, and their `queries`."""
    pages, positions, *lists = arrays
    return tuple(
        DeviceWork(*lists[4 * kind : 4 * kind + 4], pages, positions, count) for kind, count in enumerate(queries)
    )


class TritonAttention:
    """The Triton backend; keys and values of the queries' type or of fp8, sums in float32."""

    name = "triton"

    def __init__(self, spec: ModelSpec, store: KVStore, device: torch.device, tiles: Tiles | None = None):
        self.store = store
        self.device = device
        self.share_factor = shipped_switch().share_factor
        heads_of = {shape: Heads.of(shape, store.page_size, tiles) for shape in spec.kv_shapes}
        self.heads = [heads_of[shape] for shape in spec.kv_shapes]
        self.kinds = LayerKinds.of(spec.kv_shapes, lambda shape: heads_of[shape].cut)
        on_gpu = device.type == "cuda"
        self._units = torch.cuda.get_device_properties(device).multi_processor_count if on_gpu else 1

    def prepare(self, step: Step) -> int:
        """List the step's work and send it to the device."""
        lists = self.lists(step)
        *arrays, writes = upload(self.device, *lists.arrays, lists.writes)
        self.use(works_on(arrays, lists.queries), writes)
        return lists.keys_read

    def lists(self, step: Step) -> Lists:
        """The work of a step as arrays for the device."""
        works = [list_work(step, self._cut(step, *kind)) for kind in self.kinds.kinds]
        of_kinds = [array for work in works for array in (work.items, work.runs, work.merges, work.entries)]
        arrays = tuple(array.astype(np.int32) for array in (step.pages, step.positions, *of_kinds))
        writes, scratch = write_slots(step, self.store.scratch), self.store.scratch
        read = self.kinds.mean_read([work.keys_read for work in works])
        return Lists(arrays, writes, scratch, tuple(work.queries for work in works), read)

    def use(self, works: tuple[DeviceWork, ...], writes: Tensor) -> None:
        """The work of each kind of layer, and where keys and values go (int64 `[rows]`), on the device."""
        self.works, self.writes = works, writes

    def place(self, layer: int) -> Place:
        """The rows' slots, on the device."""
        return self.store.place(layer, self.writes)

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """One launch over the list of work, and one to merge; obeys a view."""
        place, work = self.place(layer), self.works[self.kinds.of_layer[layer]]
        return attend(work, self.heads[layer], q, place.keys, place.values, place.scales, sinks, select)

    def _cut(self, step: Step, rows: int, group: int, n_sets: int, window: int | None) -> Cut:
        """Pieces that are as long as can be while there are enough of them for the chip."""
        below = step.below_end - step.row_begin
        keys = int(((step.end - step.start) * -(-below // rows)).sum()) * n_sets
        each = keys // (ITEMS_PER_UNIT * self._units) // LEAST_KEYS * LEAST_KEYS
        return Cut(rows, min(max(each, LEAST_KEYS), MOST_KEYS), group, window, self.share_factor)
