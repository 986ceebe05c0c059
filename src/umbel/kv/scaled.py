"""Keys and values of 8 bits, with a scale for each token and head."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from umbel.ir.spec import ModelSpec
from umbel.kernels.memory import empty
from umbel.kernels.place import Place
from umbel.kv.store import At, KVStore


class ScaledStore(KVStore):
    """Keys and values as `dtype`, of 8 bits, with their dequantisation scales: `key_scales` and `value_scales` (float32
    `[n_kv_heads, slots]` per layer)."""

    scaled = True
    dtype: ClassVar[torch.dtype]

    def __init__(self, spec: ModelSpec, n_pages: int, page_size: int, device: torch.device):
        super().__init__(spec, n_pages, page_size, self.dtype, device)
        self.key_scales = [empty(keys.shape[:2], torch.float32, device) for keys in self.keys]
        self.value_scales = [
            scales if shape.values_in_keys else empty(scales.shape, torch.float32, device)
            for shape, scales in zip(spec.kv_shapes, self.key_scales, strict=True)
        ]

    def place(self, layer: int, slots: Tensor) -> Place:
        """The place of `KVStore`, with the scales."""
        scales = self.key_scales[layer], self.value_scales[layer]
        return Place(self.keys[layer], self.values[layer], slots, scales)

    def read(self, layer: int, at: At) -> tuple[Tensor, Tensor]:
        """The keys and values of `KVStore`, in float32."""
        keys, values = super().read(layer, at)
        key_scales, value_scales = self.key_scales[layer][:, at], self.value_scales[layer][:, at]
        return keys.float() * key_scales.unsqueeze(-1), values.float() * value_scales.unsqueeze(-1)
