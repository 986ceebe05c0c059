"""Which attention a model gets on the device it is on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from umbel import registry
from umbel.attention.base import AttentionBackend
from umbel.attention.capabilities import Case, Choice, choose
from umbel.attention.select.base import Selector
from umbel.attention.select.selected import SelectedAttention
from umbel.attention.select.tally import KeyTally
from umbel.config import EngineConfig
from umbel.ir.spec import ModelSpec
from umbel.kv.store import KVStore

KINDS = {torch.float8_e4m3fn: "fp8", torch.int8: "int8"}
"""What EngineConfig.kv_cache_dtype calls types of 8 bits."""


def check_attention(config: EngineConfig, spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Choice:
    """What `pick_attention` will take, before there is any memory. Raises UsageError as it does."""
    case = Case.of(spec, dtype, device, config.kv_cache_dtype, bool(config.technique))
    return choose(case, config.attention_backend)


def pick_attention(
    spec: ModelSpec,
    store: KVStore,
    device: torch.device,
    asked: str = "auto",
    techniques: Sequence[str] = (),
    tally: KeyTally | None = None,
) -> AttentionBackend:
    """The backend that was `asked` for, or the one that capabilities and prices choose: compiled kernels on a CPU,
    Triton's on a GPU, where there are any, else plain torch, as for fp8 on a CPU and on GPUs that do not have it.
    Where `techniques` say what is read, it is around one that obeys them, and `tally` counts that. Raises UsageError
    when the one that was asked for cannot serve the model."""
    kept = store.keys[0].dtype
    dtype = torch.bfloat16 if store.scaled else kept  # over 8 bits, queries may be of any type
    name = choose(Case.of(spec, dtype, device, KINDS.get(kept, "auto"), bool(techniques)), asked).name
    backend: AttentionBackend = registry.load("attention", name, spec, store, device)
    return SelectedAttention(backend, load_selectors(techniques, spec), spec, store, tally) if techniques else backend


def load_selectors(techniques: Sequence[str], spec: ModelSpec) -> list[Selector]:
    """The selectors that `--technique` names, each as NAME:setting=value."""
    found = []
    for asked in techniques:
        row = registry.find("select", asked.partition(":")[0])
        found.append(registry.load("select", row.name, row.settings_of(asked), spec))
    return found
