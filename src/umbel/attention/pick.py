"""Which attention a model gets on the device it is on."""

from __future__ import annotations

import torch

from umbel.attention.base import AttentionBackend
from umbel.attention.grid import GridAttention
from umbel.attention.native import NativeAttention
from umbel.ir.spec import ModelSpec
from umbel.kernels.dispatch import converts_fp8, gpu_kernels, kernels
from umbel.kv.fp8 import Fp8Store
from umbel.kv.store import KVStore


def pick_attention(spec: ModelSpec, store: KVStore, device: torch.device) -> AttentionBackend:
    """Compiled kernels on a CPU, Triton's on a GPU, where there are any, else plain torch, as for fp8 on a CPU and on
    GPUs that do not have it."""
    is_fp8 = isinstance(store, Fp8Store)
    if device.type == "cuda" and gpu_kernels() is not None and (not is_fp8 or converts_fp8(device)):
        from umbel.attention.triton import TritonAttention  # Triton is not everywhere

        return TritonAttention(spec, store, device)
    native = kernels().native
    if native is None or device.type != "cpu" or is_fp8:
        return GridAttention(spec, store, device)
    return NativeAttention(spec, store, native)
