"""Umbel: the batch query engine for large language models; it plans the whole input before it runs."""

from __future__ import annotations

TYPE_CHECKING = False  # what is imported first of all imports nothing large itself
if TYPE_CHECKING:
    from typing import Any

    from umbel.api import LLM, RequestOutput
    from umbel.batch.call import run
    from umbel.batch.mapping import map
    from umbel.ir.choices import Chosen, Score
    from umbel.ir.lora_request import LoRARequest
    from umbel.ir.params import SamplingParams
    from umbel.ir.pooling import PoolingParams
    from umbel.ir.request import Completion as CompletionOutput
    from umbel.ir.structured import StructuredOutputsParams

__all__ = [
    "LLM",
    "Chosen",
    "CompletionOutput",
    "LoRARequest",
    "PoolingParams",
    "RequestOutput",
    "SamplingParams",
    "Score",
    "StructuredOutputsParams",
    "map",
    "run",
]

_HOMES = {
    "CompletionOutput": "umbel.ir.request",
    "LLM": "umbel.api",
    "LoRARequest": "umbel.ir.lora_request",
    "Chosen": "umbel.ir.choices",
    "PoolingParams": "umbel.ir.pooling",
    "RequestOutput": "umbel.api",
    "SamplingParams": "umbel.ir.params",
    "Score": "umbel.ir.choices",
    "StructuredOutputsParams": "umbel.ir.structured",
    "map": "umbel.batch.mapping",
    "run": "umbel.batch.call",
}
_OTHER_NAMES = {"CompletionOutput": "Completion"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("umbel")
    # Imported when first used, so that `umbel plan` and `umbel --help` start without torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'umbel' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), _OTHER_NAMES.get(name, name))
