"""Which attention a model gets on the device it is on."""

from __future__ import annotations

import torch

from umbel import registry
from umbel.attention.base import AttentionBackend
from umbel.attention.capabilities import Case, Choice, choose
from umbel.config import EngineConfig
from umbel.ir.spec import ModelSpec
from umbel.kv.store import KVStore


def check_attention(config: EngineConfig, spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Choice:
    """What `pick_attention` will take, before there is any memory. Raises UsageError as it does."""
    case = Case.of(spec, dtype, device, fp8_kv=config.kv_cache_dtype == "fp8")
    return choose(case, config.attention_backend)


def pick_attention(spec: ModelSpec, store: KVStore, device: torch.device, asked: str = "auto") -> AttentionBackend:
    """The backend that was `asked` for, or the one that capabilities and prices choose: compiled kernels on a CPU,
    Triton's on a GPU, where there are any, else plain torch, as for fp8 on a CPU and on GPUs that do not have it.
    Raises UsageError when the one that was asked for cannot serve the model."""
    dtype = torch.bfloat16 if store.scaled else store.keys[0].dtype  # over fp8, queries may be of any type
    name = choose(Case.of(spec, dtype, device, fp8_kv=store.scaled), asked).name
    backend: AttentionBackend = registry.load("attention", name, spec, store, device)
    return backend
