"""Which adapter prompts of a Python call are computed with, as vLLM's callers write it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from umbel.errors import UsageError


@dataclass(frozen=True, slots=True)
class LoRARequest:
    """An adapter by name, and where it lies (vLLM's record of this name). `lora_int_id` is vLLM's, and says nothing
    here. Without a path it is one that the engine was given."""

    lora_name: str
    lora_int_id: int = 0
    lora_path: str | os.PathLike[str] = ""

    @classmethod
    def of(cls, given: Any) -> LoRARequest | None:
        """One given as such, as vLLM's own record, or as a name; None for none. Raises UsageError."""
        if given is None or isinstance(given, cls):
            return given
        if isinstance(given, str):
            return cls(given)
        name, path = (getattr(given, field, None) for field in ("lora_name", "lora_path"))
        if not isinstance(name, str) or not isinstance(path, str | os.PathLike):
            raise UsageError(f"lora_request={given!r:.80}: give LoRARequest(name, number, directory), or a name")
        return cls(name, 0, path)


def requests_for(given: Any, count: int) -> list[LoRARequest | None]:
    """The adapter of each of `count` prompts, from one for all or a list. Raises UsageError for one of another
    length."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        return [LoRARequest.of(given)] * count
    if len(given) != count:
        raise UsageError(f"{count} prompts but {len(given)} lora requests: give one, or one for each")
    return [LoRARequest.of(one) for one in given]
