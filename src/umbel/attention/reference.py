"""What attention over the forest means, row by row, with nothing clever: the specification of every backend."""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.reference import attend
from umbel.kv.slots import path_slots, row_nodes, write_slots
from umbel.kv.store import KVStore


class ReferenceAttention:
    """Gathers each row's whole context and takes a softmax over it, in float64."""

    def __init__(self, spec: ModelSpec, store: KVStore):
        self.spec = spec
        self.store = store

    def prepare(self, step: Step) -> int:
        """Find the KV slots of every row's context."""
        self.writes = torch.from_numpy(write_slots(step, self.store.scratch)).to(self.store.keys[0].device)
        self.contexts = []
        for row, node in enumerate(row_nodes(step)):
            last = int(step.positions[row])
            first = max(0, last + 1 - self.spec.sliding_window) if self.spec.sliding_window else 0
            positions = torch.arange(first, last + 1).numpy()
            self.contexts.append(torch.from_numpy(path_slots(step, node[None], positions[None])[0]))
        return sum(len(c) for c in self.contexts)

    def forward(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See AttentionBackend."""
        self.store.write(layer, self.writes, k, v)
        out = torch.empty_like(q)
        for row, slots in enumerate(self.contexts):
            keys, values = (t.double() for t in self.store.read(layer, slots))  # [n_kv_heads, context, head_dim]
            query = q[row].double().view(self.spec.n_kv_heads, self.spec.group_size, -1)
            out[row] = attend(query, keys, values).flatten(0, 1).to(q.dtype)
        return out
