"""An attention backend as another package would bring it: a softmax over each row's whole path, in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.view import View, check_whole
from umbel.kv.slots import path_slots, row_nodes, write_slots
from umbel.kv.store import KVStore
from umbel.technique import Capability, Technique

ROW = Technique(
    "attention",
    "plain",
    exact=True,
    loads="plain_attention:PlainAttention",
    can=Capability(("cpu",), ("float32",), windows=False, reproducible="per row"),
)


class PlainAttention:
    """Gathers the keys and values of each row."""

    name = "plain"

    def __init__(self, spec: ModelSpec, store: KVStore, device: torch.device):
        self.spec, self.store, self.device = spec, store, device

    def prepare(self, step: Step) -> int:
        """Find where each row's path lies in the store."""
        self.writes = torch.from_numpy(write_slots(step, self.store.scratch)).to(self.device)
        paths = zip(row_nodes(step), step.positions.tolist(), strict=True)
        self.paths = [path_slots(step, node[None], torch.arange(last + 1).numpy()[None])[0] for node, last in paths]
        return sum(map(len, self.paths))

    def place(self, layer: int) -> Place:
        """The rows' slots."""
        return self.store.place(layer, self.writes)

    def attend(self, layer: int, q: Tensor, select: View | None = None) -> Tensor:
        """A row after the other."""
        check_whole(self.name, select)
        out, group = torch.empty_like(q), self.spec.kv_shape(0).group_size
        for row, slots in enumerate(self.paths):
            keys, values = self.store.read(layer, torch.from_numpy(slots).to(self.device))
            query = q[row].view(self.spec.n_kv_heads, group, -1) * self.spec.head_dim**-0.5
            out[row] = ((query @ keys.mT).softmax(-1) @ values).flatten(0, 1)
        return out
