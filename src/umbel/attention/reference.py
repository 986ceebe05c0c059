"""What attention over the forest means, row by row, with nothing clever: the specification of every backend."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.kinds import LayerKinds
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.reference import attend
from umbel.kernels.sinks import check_sinks
from umbel.kernels.view import GRID, View
from umbel.kv.slots import path_slots, row_nodes, write_slots
from umbel.kv.store import KVStore

Ints = NDArray[np.int64]


class ReferenceAttention:
    """Gathers each row's whole context, or what a view leaves of it, and takes a softmax over it, in float64."""

    name = "reference"

    def __init__(self, spec: ModelSpec, store: KVStore):
        self.shapes = spec.kv_shapes
        self.store = store
        self.kinds = LayerKinds.of(self.shapes, lambda shape: shape.window)

    @classmethod
    def of(cls, spec: ModelSpec, store: KVStore, device: torch.device) -> ReferenceAttention:
        """The reference on the device that the store is on."""
        return cls(spec, store)

    def prepare(self, step: Step) -> int:
        """Find the KV slots of every row's context."""
        self.writes = torch.from_numpy(write_slots(step, self.store.scratch)).to(self.store.keys[0].device)
        self.contexts = [_contexts(step, window) for window in self.kinds.kinds]
        return self.kinds.mean_read([sum(len(slots) for _, slots in rows) for rows in self.contexts])

    def place(self, layer: int) -> Place:
        """The rows' slots."""
        return self.store.place(layer, self.writes)

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """A softmax for each row; obeys a view."""
        shape, contexts = self.shapes[layer], self.contexts[self.kinds.of_layer[layer]]
        check_sinks(shape, sinks)
        if select is not None:
            select.check(len(q), shape.n_kv_heads)
        of_groups = None if sinks is None else sinks.view(shape.n_kv_heads, shape.group_size)
        out = q.new_empty(*q.shape[:2], shape.value_dim)
        for row, (positions, slots) in enumerate(contexts):
            keys, values = (t.double() for t in self.store.read(layer, slots))  # [n_kv_heads, context, ...]
            query = q[row].double().view(shape.n_kv_heads, shape.group_size, -1)
            reads = None if select is None else _reads(select, row, positions).to(q.device)
            found = attend(query, keys, values, shape.scale, shape.cap or 0.0, of_groups, reads)
            out[row] = found.flatten(0, 1).to(q.dtype)
        return out


def _reads(view: View, row: int, positions: Ints) -> Tensor:
    """Which keys of its context a row reads: bool `[n_kv_heads, context]`."""
    cells = torch.from_numpy(positions // GRID)
    return view.reads[int(view.tile_of[row])].cpu()[:, cells] | (cells == cells[-1])


def _contexts(step: Step, window: int | None) -> list[tuple[Ints, Tensor]]:
    """The positions that each row sees, and the KV slots of these."""
    found = []
    for node, last in zip(row_nodes(step), step.positions.tolist(), strict=True):
        positions = np.arange(0 if window is None else max(0, last + 1 - window), last + 1)
        found.append((positions, torch.from_numpy(path_slots(step, node[None], positions[None])[0])))
    return found
