"""Which attention a model gets on the device it is on."""

from __future__ import annotations

import torch

from umbel.attention.base import AttentionBackend
from umbel.attention.capabilities import Case, Choice, choose
from umbel.attention.grid import GridAttention
from umbel.attention.native import NativeAttention
from umbel.config import EngineConfig
from umbel.ir.spec import ModelSpec
from umbel.kernels.dispatch import gpu_kernels, kernels
from umbel.kv.fp8 import Fp8Store
from umbel.kv.store import KVStore


def check_attention(config: EngineConfig, spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Choice:
    """What `pick_attention` will take, before there is any memory. Raises UsageError as it does."""
    case = Case.of(spec, dtype, device, fp8_kv=config.kv_cache_dtype == "fp8")
    return choose(case, config.attention_backend)


def pick_attention(spec: ModelSpec, store: KVStore, device: torch.device, asked: str = "auto") -> AttentionBackend:
    """The backend that was `asked` for, or the one that capabilities and prices choose: compiled
    kernels on a CPU, Triton's on a GPU, where there are any, else plain torch, as for fp8 on a CPU and on GPUs that do
    not have it. Raises UsageError when the one that was asked for cannot serve the model."""
    is_fp8 = isinstance(store, Fp8Store)
    dtype = torch.bfloat16 if is_fp8 else store.keys[0].dtype  # over fp8, queries may be of any type
    name = choose(Case.of(spec, dtype, device, fp8_kv=is_fp8), asked).name
    if name == "triton":
        from umbel.attention.triton import TritonAttention  # Triton is not everywhere

        return TritonAttention(spec, store, device)
    if name == "flashinfer":
        from umbel.attention.flashinfer import FlashInferAttention, PlacedFlashInferAttention

        return (FlashInferAttention if gpu_kernels() is None else PlacedFlashInferAttention)(spec, store, device)
    native = kernels().native
    return NativeAttention(spec, store, native) if name == "native" and native else GridAttention(spec, store, device)
