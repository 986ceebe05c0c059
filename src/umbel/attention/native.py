"""Attention over the forest by compiled kernels, on a CPU: paged keys and values are read in place.

The grid of positions is that of `layout.py`; how rows share cells and how the work is cut is in
`kernels/native/forest.cpp`, the arithmetic and why its bits depend on nothing else in the step in `attend.inc`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from umbel.attention.kinds import LayerKinds
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.dispatch import kernels
from umbel.kernels.native.calls import Native
from umbel.kernels.place import Place
from umbel.kernels.view import View
from umbel.kv.store import KVStore

if TYPE_CHECKING:
    from umbel.kernels.native import _umbel


class NativeAttention:
    """The compiled backend; float32, bfloat16 or int8 keys and values, sums in float32."""

    name = "native"

    def __init__(self, spec: ModelSpec, store: KVStore, native: Native):
        self.shapes = spec.kv_shapes
        self.store = store
        self.native = native
        self.kinds = LayerKinds.of(self.shapes, lambda shape: (shape.group_size, shape.n_kv_heads, shape.window))
        self.forests: list[_umbel.Forest] = []

    @classmethod
    def of(cls, spec: ModelSpec, store: KVStore, device: torch.device) -> NativeAttention:
        """The backend with the kernels of this process, which must be there, on a CPU."""
        native = kernels().native
        assert native is not None and device.type == "cpu"
        return cls(spec, store, native)

    def prepare(self, step: Step) -> int:
        """Lay the step out as cells, pieces and blocks of rows."""
        laid_out = [self.native.lay_out(step, self.store.scratch, *kind) for kind in self.kinds.kinds]
        for forest, new in zip(self.forests, laid_out, strict=False):
            forest.replace(new)  # which calls read that were recorded
        self.forests = self.forests or laid_out
        self.writes = torch.from_numpy(self.forests[0].writes)
        return self.kinds.mean_read([int(forest.tokens_read) for forest in self.forests])

    def place(self, layer: int) -> Place:
        """The rows' slots, as the forest was laid out."""
        return self.store.place(layer, self.writes)

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """One call of the kernel; obeys a view."""
        shape, forest = self.shapes[layer], self.forests[self.kinds.of_layer[layer]]
        return self.native.attend(forest, q, self.store.place(layer, self.writes), shape, sinks, select)
