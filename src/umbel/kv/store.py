"""The device tensors behind the KV pages: one slab of keys and one of values per layer."""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.ir.spec import ModelSpec
from umbel.kernels.memory import empty
from umbel.kernels.place import Place

At = slice | Tensor
"""Slots that lie side by side, or any (int64, of any shape)."""


class KVStore:
    """Keys and values, `[n_kv_heads, slots, head_dim]` per layer; slot = page * page_size + offset.

    Heads come first, so that a run of side-by-side pages is one matrix per head. The last page (`scratch`) is never
    read: rows whose KV must not be written are sent there.
    """

    scaled = False  # whether keys and values have dequantisation scales

    def __init__(self, spec: ModelSpec, n_pages: int, page_size: int, dtype: torch.dtype, device: torch.device):
        shape = (spec.n_kv_heads, (n_pages + 1) * page_size, spec.head_dim)
        self.n_pages, self.page_size = n_pages, page_size
        self.scratch = n_pages * page_size
        self.keys = [empty(shape, dtype, device) for _ in range(spec.n_layers)]
        self.values = [empty(shape, dtype, device) for _ in range(spec.n_layers)]

    def place(self, layer: int, slots: Tensor) -> Place:
        """Where keys and values of a layer go that are for `slots` (int64 `[rows]`)."""
        return Place(self.keys[layer], self.values[layer], slots)

    def read(self, layer: int, at: At) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer in some slots: two of `[n_kv_heads, *slots, head_dim]`."""
        return self.keys[layer][:, at], self.values[layer][:, at]
