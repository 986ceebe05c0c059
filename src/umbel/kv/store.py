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
    """Keys and values, `[n_kv_heads, slots, key_dim or value_dim]` per layer; slot = page * page_size + offset.

    Heads come first, so that a run of side-by-side pages is one matrix per head. The last page (`scratch`) is never
    read: rows whose KV must not be written are sent there. Layers may differ in heads and sizes; values that are a part
    of the keys are a view of them.
    """

    scaled = False  # whether keys and values have dequantisation scales

    def __init__(self, spec: ModelSpec, n_pages: int, page_size: int, dtype: torch.dtype, device: torch.device):
        slots = (n_pages + 1) * page_size
        self.n_pages, self.page_size = n_pages, page_size
        self.scratch = n_pages * page_size
        self.keys = [empty((s.n_kv_heads, slots, s.key_dim), dtype, device) for s in spec.kv_shapes]
        self.values = [
            keys[..., : s.value_dim] if s.values_in_keys else empty((s.n_kv_heads, slots, s.value_dim), dtype, device)
            for s, keys in zip(spec.kv_shapes, self.keys, strict=True)
        ]

    @property
    def n_bytes(self) -> int:
        """Bytes of the keys and values."""
        return sum(
            keys.nbytes + (0 if values.data_ptr() == keys.data_ptr() else values.nbytes)
            for keys, values in zip(self.keys, self.values, strict=True)
        )

    def place(self, layer: int, slots: Tensor) -> Place:
        """Where keys and values of a layer go that are for `slots` (int64 `[rows]`)."""
        return Place(self.keys[layer], self.values[layer], slots)

    def read(self, layer: int, at: At) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer in some slots: `[n_kv_heads, *slots, key_dim]` and `[..., value_dim]`."""
        return self.keys[layer][:, at], self.values[layer][:, at]
