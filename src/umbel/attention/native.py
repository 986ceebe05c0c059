"""Attention over the forest by compiled kernels, on a CPU: paged keys and values are read in place.

The grid of positions is that of `layout.py`; how rows share cells and how the work is cut is in
`kernels/native/forest.cpp`, the arithmetic and why its bits depend on nothing else in the step in `attend.inc`.
"""

from __future__ import annotations

from torch import Tensor

from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.native.calls import Native
from umbel.kv.store import KVStore


class NativeAttention:
    """The compiled backend; float32 or bfloat16 keys and values, sums in float32."""

    def __init__(self, spec: ModelSpec, store: KVStore, native: Native):
        self.spec = spec
        self.store = store
        self.native = native

    def prepare(self, step: Step) -> int:
        """See AttentionBackend."""
        spec, scratch = self.spec, self.store.scratch
        self.forest = self.native.lay_out(step, scratch, spec.group_size, spec.n_kv_heads, spec.sliding_window)
        return int(self.forest.tokens_read)

    def forward(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See AttentionBackend."""
        keys, values = self.store.keys[layer], self.store.values[layer]
        return self.native.attend(self.forest, (q, k, v), keys, values, self.spec.sliding_window)
