"""Attention over the forest on a GPU: the step's list of work is made on the processor, then one launch a layer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from umbel.attention.switch import shipped_switch
from umbel.attention.work import Cut, Work, list_work
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.triton.forest import DeviceWork, Heads, Tiles, attend
from umbel.kernels.triton.rows import TritonRows
from umbel.kv.slots import write_slots
from umbel.kv.store import KVStore

ITEMS_PER_UNIT = 4  # pieces of work for each multiprocessor and KV head, so that all end at about the same time
LEAST_KEYS, MOST_KEYS = 256, 8192  # of a piece: shorter ones cost more to merge than they bring


class TritonAttention:
    """The Triton backend; keys, values and queries of one type, sums in float32."""

    def __init__(self, spec: ModelSpec, store: KVStore, device: torch.device, tiles: Tiles | None = None):
        self.store = store
        self.device = device
        self.tiles = tiles or Tiles()
        self.rows = TritonRows()
        self.worth = shipped_switch().worth
        window = spec.sliding_window
        self.heads = Heads(
            spec.n_kv_heads, spec.group_size, spec.head_dim, spec.head_dim**-0.5, store.page_size, window
        )
        on_gpu = device.type == "cuda"
        self._units = torch.cuda.get_device_properties(device).multi_processor_count if on_gpu else 1

    def prepare(self, step: Step) -> int:
        """See AttentionBackend."""
        work = list_work(step, self._cut(step))
        self.work = self._upload(step, work)
        self.writes = torch.from_numpy(write_slots(step, self.store.scratch)).to(self.device)
        return work.keys_read

    def forward(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See AttentionBackend."""
        keys, values = self.store.keys[layer], self.store.values[layer]
        self.rows.write(k, v, keys, values, self.writes)
        return attend(self.work, self.heads, self.tiles, q, keys, values)

    def _cut(self, step: Step) -> Cut:
        """Pieces that are as long as can be while there are enough of them for the chip."""
        heads, rows = self.heads, max(self.tiles.wide // self.heads.group, 1)
        below = step.subtree_end - step.row_begin
        keys = int(((step.end - step.start) * -(-below // rows)).sum()) * heads.n_kv_heads
        each = keys // (ITEMS_PER_UNIT * self._units) // LEAST_KEYS * LEAST_KEYS
        return Cut(rows, min(max(each, LEAST_KEYS), MOST_KEYS), heads.group, heads.window, self.worth)

    def _upload(self, step: Step, work: Work) -> DeviceWork:
        """Everything in one transfer."""
        parts = work.items, work.runs, work.merges, work.entries, step.pages, step.positions
        flat = torch.from_numpy(np.concatenate([p.ravel() for p in parts]).astype(np.int32))
        if self.device.type == "cuda":
            flat = flat.pin_memory()
        pieces = flat.to(self.device, non_blocking=True).split([p.size for p in parts])
        return DeviceWork(*(piece.view(p.shape) for piece, p in zip(pieces, parts, strict=True)), work.queries)
