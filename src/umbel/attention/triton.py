"""Attention over the forest on a GPU: the step's list of work is made on the processor, then one launch a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from umbel.attention.switch import shipped_switch
from umbel.attention.view import View, check_whole
from umbel.attention.work import Cut, list_work
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.transfer import upload
from umbel.kernels.triton.forest import DeviceWork, Heads, Tiles, attend
from umbel.kv.slots import write_slots
from umbel.kv.store import KVStore

ITEMS_PER_UNIT = 4  # pieces of work for each multiprocessor and KV head, so that all end at about the same time
LEAST_KEYS, MOST_KEYS = 256, 8192  # of a piece: shorter ones cost more to merge than they bring


@dataclass(frozen=True, slots=True)
class Lists:
    """A step for the device: `arrays` (int32) as a DeviceWork has them, the slots to write to (`writes`, int64
    `[rows]`) and the one that no row reads (`scratch`), partial results (`queries`), and `keys_read`."""

    arrays: tuple[np.ndarray, ...]
    writes: np.ndarray
    scratch: int
    queries: int
    keys_read: int

    @classmethod
    def nothing(cls) -> Lists:
        """The lists of a step without rows."""
        widths = ((5,), (4,), (3,), (), (), ())
        return cls(tuple(np.empty((0, *width), np.int32) for width in widths), np.empty(0, np.int64), 0, 0, 0)


class TritonAttention:
    """The Triton backend; keys and values of the queries' type or of fp8, sums in float32."""

    name = "triton"

    def __init__(self, spec: ModelSpec, store: KVStore, device: torch.device, tiles: Tiles | None = None):
        self.store = store
        self.device = device
        self.tiles = tiles or Tiles()
        self.share_factor = shipped_switch().share_factor
        window = spec.sliding_window
        self.heads = Heads(
            spec.n_kv_heads, spec.group_size, spec.head_dim, spec.attention_scale, store.page_size, window
        )
        on_gpu = device.type == "cuda"
        self._units = torch.cuda.get_device_properties(device).multi_processor_count if on_gpu else 1

    def prepare(self, step: Step) -> int:
        """List the step's work and send it to the device."""
        lists = self.lists(step)
        *parts, writes = upload(self.device, *lists.arrays, lists.writes)
        self.use(DeviceWork(*parts, queries=lists.queries), writes)
        return lists.keys_read

    def lists(self, step: Step) -> Lists:
        """The work of a step as arrays for the device."""
        work = list_work(step, self._cut(step))
        arrays = work.items, work.runs, work.merges, work.entries, step.pages, step.positions
        writes = write_slots(step, self.store.scratch)
        narrow = tuple(array.astype(np.int32) for array in arrays)
        return Lists(narrow, writes, self.store.scratch, work.queries, work.keys_read)

    def use(self, work: DeviceWork, writes: Tensor) -> None:
        """The work of the layers that follow, and where their keys and values go (int64 `[rows]`), on the device."""
        self.work, self.writes = work, writes

    def place(self, layer: int) -> Place:
        """The rows' slots, on the device."""
        return self.store.place(layer, self.writes)

    def attend(self, layer: int, q: Tensor, select: View | None = None) -> Tensor:
        """One launch over the list of work, and one to merge; reads whole paths only."""
        check_whole(self.name, select)
        place = self.place(layer)
        return attend(self.work, self.heads, self.tiles, q, place.keys, place.values, place.scales)

    def _cut(self, step: Step) -> Cut:
        """Pieces that are as long as can be while there are enough of them for the chip."""
        heads, rows = self.heads, max(self.tiles.wide // self.heads.group, 1)
        below = step.below_end - step.row_begin
        keys = int(((step.end - step.start) * -(-below // rows)).sum()) * heads.n_kv_heads
        each = keys // (ITEMS_PER_UNIT * self._units) // LEAST_KEYS * LEAST_KEYS
        return Cut(rows, min(max(each, LEAST_KEYS), MOST_KEYS), heads.group, heads.window, self.share_factor)
