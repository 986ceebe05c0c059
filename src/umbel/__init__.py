"""Umbel: the batch query engine for large language models; it plans the whole input before it runs."""

from __future__ import annotations

TYPE_CHECKING = False  # what is imported first of all imports nothing large itself
if TYPE_CHECKING:
    from typing import Any

    from umbel.api import LLM, RequestOutput
    from umbel.ir.choices import Chosen, Score
    from umbel.ir.params import SamplingParams

__all__ = ["LLM", "Chosen", "RequestOutput", "SamplingParams", "Score"]


def __getattr__(name: str) -> Any:
    # Imported when first used, so that `umbel plan` and `umbel --help` start without torch.
    if name in ("LLM", "RequestOutput"):
        from umbel import api

        return getattr(api, name)
    if name in ("Chosen", "Score"):
        from umbel.ir import choices

        return getattr(choices, name)
    if name == "SamplingParams":
        from umbel.ir.params import SamplingParams

        return SamplingParams
    raise AttributeError(f"module 'umbel' has no attribute {name!r}")
