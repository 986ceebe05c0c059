"""Which adapters the prompts of a Python call ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from umbel.errors import UsageError
from umbel.ir.adapter import Adapter
from umbel.ir.lora_request import LoRARequest
from umbel.ir.params import SamplingParams


def new_adapters(requests: Iterable[LoRARequest | None], known: Sequence[Adapter]) -> list[LoRARequest]:
    """Those that are to be loaded first, each once. Raises UsageError for a name that is another adapter's."""
    places = {adapter.name: _place(adapter.directory) for adapter in known}
    found = []
    for request in requests:
        if request is None or not request.lora_path:
            continue
        name, place = request.lora_name, _place(request.lora_path)
        if name not in places:
            places[name] = place
            found.append(request)
        elif places[name] != place:
            raise UsageError(f"lora_request: {name!r} is the adapter in {places[name]}, not in {place}: rename it")
    return found


def with_adapters(params: Sequence[SamplingParams], requests: Sequence[LoRARequest | None]) -> list[SamplingParams]:
    """The parameters of prompts, each with the adapter that it asks for; prompts go on sharing equal ones."""
    made: dict[tuple[int, str], SamplingParams] = {}
    return [
        one if request is None else made.setdefault((id(one), request.lora_name), one.clone(lora=request.lora_name))
        for one, request in zip(params, requests, strict=True)
    ]


def _place(directory: object) -> Path:
    return Path(str(directory)).expanduser().resolve()
