"""Which attention a model gets on the device it is on."""

from __future__ import annotations

import torch

from umbel.attention.base import AttentionBackend
from umbel.attention.grid import GridAttention
from umbel.attention.native import NativeAttention
from umbel.ir.spec import ModelSpec
from umbel.kernels.dispatch import gpu_kernels, kernels
from umbel.kv.store import KVStore


def pick_attention(spec: ModelSpec, store: KVStore, device: torch.device) -> AttentionBackend:
    """Compiled kernels on a CPU, Triton's on a GPU, where there are any, else plain torch."""
    if device.type == "cuda" and gpu_kernels() is not None:
        from umbel.attention.triton import TritonAttention  # Triton is not everywhere

        return TritonAttention(spec, store, device)
    native = kernels().native
    if native is None or device.type != "cpu":
        return GridAttention(spec, store, device)
    return NativeAttention(spec, store, native)
