"""Which attention a model gets on the device it is on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from umbel import registry
from umbel.attention.base import AttentionBackend
from umbel.attention.capabilities import Case, Choice, choose
from umbel.attention.forget.base import Keeper
from umbel.attention.forget.kept import KeptAttention
from umbel.attention.select.base import Selector
from umbel.attention.select.selected import SelectedAttention
from umbel.attention.select.tally import KeyTally
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.spec import ModelSpec
from umbel.kv.store import KVStore

KINDS = {torch.float8_e4m3fn: "fp8", torch.int8: "int8"}
"""What EngineConfig.kv_cache_dtype calls types of 8 bits."""


def check_attention(config: EngineConfig, spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Choice:
    """What `pick_attention` will take, before there is any memory. Raises UsageError as it does."""
    check_keeper(config, spec)
    selects = bool(registry.asked_of("select", config.technique))
    case = Case.of(spec, dtype, device, config.kv_cache_dtype, selects)
    return choose(case, config.attention_backend)


def check_keeper(config: EngineConfig, spec: ModelSpec) -> None:
    """Raise UsageError for a technique that forgets, with a model or a setting that cannot bear it."""
    windows = {shape.window for shape in spec.kv_shapes if shape.window is not None}
    for row, asked in registry.asked_of("forget", config.technique):
        why = ""
        if spec.recurrences:
            why = f"layers of {spec.family!r} keep a state, of which no part can be forgotten"
        elif windows:
            why = f"layers of {spec.family!r} have windows of {max(windows)} positions, which would be of places then"
        elif any(shape.values_in_keys for shape in spec.kv_shapes):
            why = f"layers of {spec.family!r} keep one vector for keys and values, which heads cannot forget one by one"
        elif config.keep != "auto":
            why = f"keep={config.keep!r} keeps prompts for rows to come, and memories belong to one row"
        if why:
            raise UsageError(f"technique={asked!r}: {why}; {row.name} is for {row.needs}")


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
    selectors, keeper = load_selectors(techniques, spec), load_keeper(techniques, spec)
    name = choose(Case.of(spec, dtype, device, KINDS.get(kept, "auto"), bool(selectors)), asked).name
    backend: AttentionBackend = registry.load("attention", name, spec, store, device)
    if keeper is not None:
        return KeptAttention(backend, keeper, spec, store)
    return SelectedAttention(backend, selectors, spec, store, tally) if selectors else backend


def load_selectors(techniques: Sequence[str], spec: ModelSpec) -> list[Selector]:
    """The selectors that `--technique` names, each as NAME:setting=value."""
    named = registry.asked_of("select", techniques)
    return [registry.load("select", row.name, row.settings_of(asked), spec) for row, asked in named]


def load_keeper(techniques: Sequence[str], spec: ModelSpec) -> Keeper | None:
    """The keeper that `--technique` names; None where nothing is forgotten."""
    for row, asked in registry.asked_of("forget", techniques):
        keeper: Keeper = registry.load("forget", row.name, row.settings_of(asked), spec)
        return keeper
    return None
