"""Which models and settings let documents be computed apart from their prompts, and be read anywhere."""

from __future__ import annotations

import numpy as np

from umbel import registry
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload


def reuses(config: EngineConfig) -> str:
    """The technique that computes documents apart, as it was asked for; '' where none does."""
    for asked in config.technique:
        if (row := registry.at("technique", asked)) is not None and row.family == "reuse":
            return asked
    return ""


def kept_tokens(config: EngineConfig, workload: Workload) -> int:
    """Tokens of documents that are kept beside the pool, at most."""
    documents = workload.documents
    for row, asked in registry.asked_of("reuse", config.technique) if documents is not None else ():
        assert documents is not None
        first = np.unique(documents.number, return_index=True)[1]
        distinct = int((documents.end - documents.begin)[first].sum())
        return min(int(row.settings_of(asked)["kept"]), distinct)
    return 0


def check_reuse(config: EngineConfig, spec: ModelSpec) -> None:
    """Raise UsageError for documents apart with a model, or a setting, that cannot bear it."""
    if (asked := reuses(config)) and (why := why_no_reuse(config, spec)):
        raise UsageError(f"technique={asked!r}: {why}")


def why_no_reuse(config: EngineConfig, spec: ModelSpec) -> str:
    """Why documents cannot be computed apart with a model and other settings, '' where they can."""
    if why := _of_model(spec):
        return f"{why}; documents can be moved where keys are rotated by positions"
    return f"{why}; leave one of them out" if (why := _of_settings(config)) else ""


def _of_model(spec: ModelSpec) -> str:
    """Why keys of a model cannot be moved, '' where they can."""
    family, layers = f"{spec.family!r} models", spec.layers
    if spec.hosted is not None:
        return f"{family} run through transformers, whose positions are not ours"
    if spec.recurrences:
        return f"layers of {family} keep a state, which has no place in a prompt"
    if any(layer.latent is not None for layer in layers):
        return f"{family} store one vector for keys and values, of which a part is rotated"
    if spec.edges.position_offset is not None:
        return f"{family} add a learned vector of the position to each token, so that its keys and values are of it"
    if any(layer.rope is not None and layer.rope.growth for layer in layers):
        return f"queries of {family} grow with their positions, so that a document depends on where it stands"
    if any(layer.head_norm is not None and layer.head_norm.is_rotated for layer in layers):
        return f"{family} norm keys behind their rotation, which then is none any more"
    if any(adapter.places for adapter in spec.adapters):
        return "a soft prompt stands before every prompt, and documents would be computed without it"
    return ""


def _of_settings(config: EngineConfig) -> str:
    """Why documents cannot be computed apart with these settings, '' where they can."""
    if config.kv_cache_dtype != "auto":
        return f"kv_cache_dtype={config.kv_cache_dtype!r} rounds keys once, and moved ones would be rounded twice"
    if config.keep != "auto":
        return f"keep={config.keep!r} keeps beginnings by their tokens, whatever documents they have"
    if config.prefix in ("paper", "one-level"):
        return f"prefix={config.prefix!r} ends shared runs at whole pages, and documents end within some"
    if config.replicated:
        return "replicas are sent prompts without their documents"
    return ""
