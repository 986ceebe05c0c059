"""Attention over the forest by compiled kernels, on a CPU: paged keys and values are read in place.

The grid of positions is that of `layout.py`; how rows share cells and how the work is cut is in
`kernels/native/forest.cpp`, the arithmetic and why its bits depend on nothing else in the step in `attend.inc`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.attention.view import View, check_whole
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.dispatch import kernels
from umbel.kernels.native.calls import Native
from umbel.kernels.place import Place
from umbel.kv.store import KVStore


class NativeAttention:
    """The compiled backend; float32 or bfloat16 keys and values, sums in float32."""

    name = "native"

    def __init__(self, spec: ModelSpec, store: KVStore, native: Native):
        self.spec = spec
        self.store = store
        self.native = native
        self.scale = spec.attention_scale

    @classmethod
    def of(cls, spec: ModelSpec, store: KVStore, device: torch.device) -> NativeAttention:
        """The backend with the kernels of this process, which must be there, on a CPU."""
        native = kernels().native
        assert native is not None and device.type == "cpu"
        return cls(spec, store, native)

    def prepare(self, step: Step) -> int:
        """Lay the step out as cells, pieces and blocks of rows."""
        spec, scratch = self.spec, self.store.scratch
        self.forest = self.native.lay_out(step, scratch, spec.group_size, spec.n_kv_heads, spec.sliding_window)
        self.writes = torch.from_numpy(self.forest.writes)
        return int(self.forest.tokens_read)

    def place(self, layer: int) -> Place:
        """The rows' slots, as the forest was laid out."""
        return self.store.place(layer, self.writes)

    def attend(self, layer: int, q: Tensor, select: View | None = None) -> Tensor:
        """One call of the kernel; reads whole paths only."""
        check_whole(self.name, select)
        keys, values = self.store.keys[layer], self.store.values[layer]
        return self.native.attend(self.forest, q, keys, values, self.scale, self.spec.sliding_window)
