"""The families of models that the decoder computes: rows of data, a file for each group of relatives."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from umbel.models.architectures import (
    deepseek,
    gemma,
    glm,
    gpt2,
    lfm2,
    llama,
    mamba_hybrids,
    mixtures,
    olmo,
    parallel,
    qwen_hybrid,
    routed,
)
from umbel.models.family import Family

FAMILIES: Mapping[str, Family] = MappingProxyType({
    **llama.ROWS, **gemma.ROWS, **olmo.ROWS, **glm.ROWS, **parallel.ROWS, **gpt2.ROWS, **mixtures.ROWS,
    **routed.ROWS, **deepseek.ROWS, **lfm2.ROWS, **qwen_hybrid.ROWS,
    **mamba_hybrids.ROWS,
})  # fmt: skip
"""By `model_type`."""
