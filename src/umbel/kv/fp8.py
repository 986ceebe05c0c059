"""Keys and values in fp8 (e4m3), with a scale for each token and head. Lossy: answers may change.

Half the bytes of 16-bit ones: a pool holds nearly twice the tokens, and decoding reads half as much. No calibration is
needed, as each vector of a head is scaled to the largest number that e4m3 has when it is written; one scale for all, as
is often used, would clip what some models have in their keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.ir.spec import ModelSpec
from umbel.kernels.memory import empty
from umbel.kernels.reference import round_to_fp8
from umbel.kv.store import At, KVStore


class Fp8Store(KVStore):
    """Keys and values as e4m3; `key_scales` and `value_scales` (`[n_kv_heads, slots]` float32 per layer) are what one
    unit of them is worth."""

    def __init__(self, spec: ModelSpec, n_pages: int, page_size: int, device: torch.device):
        super().__init__(spec, n_pages, page_size, torch.float8_e4m3fn, device)
        slots = self.keys[0].shape[:2]
        self.key_scales, self.value_scales = (
            [empty(slots, torch.float32, device) for _ in range(spec.n_layers)] for _ in range(2)
        )

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """See KVStore."""
        for new, stored, scales in (
            (k, self.keys[layer], self.key_scales[layer]),
            (v, self.values[layer], self.value_scales[layer]),
        ):
            rounded, scale = round_to_fp8(new.transpose(0, 1))
            # As bytes, since torch on a CPU moves no fp8 by index.
            stored.view(torch.uint8).index_copy_(1, slots, rounded.view(torch.uint8))
            scales.index_copy_(1, slots, scale)

    def read(self, layer: int, at: At) -> tuple[Tensor, Tensor]:
        """See KVStore; in float32."""
        keys, values = super().read(layer, at)
        key_scales, value_scales = self.key_scales[layer][:, at], self.value_scales[layer][:, at]
        return keys.float() * key_scales.unsqueeze(-1), values.float() * value_scales.unsqueeze(-1)
