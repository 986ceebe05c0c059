"""Which model a row names: the job's, under one of its names, or one of its adapters, as with vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.errors import InvalidRequest
from umbel.ir.limits import refuse, shown
from umbel.jobs.read.records import ReadOptions


def for_model(item: Mapping[str, Any], options: ReadOptions) -> Mapping[str, Any]:
    """The fields of a row; of one whose `model` is an adapter those of a row that asks for it by `lora`. Raises
    InvalidRequest for a model that is not loaded, and for two adapters."""
    name = item.get("model")
    if not isinstance(name, str) or name not in options.loras:
        _check_model(name, options)
        return item
    if item.get("lora") not in (None, name):
        refuse("invalid_value", "lora", f"lora={shown(item['lora'])}, but model={shown(name)}: give one of them")
    return {**item, "lora": name}


def _check_model(name: object, options: ReadOptions) -> None:
    if name is None or options.models is None:
        return
    if not isinstance(name, str):
        refuse("invalid_type", "model", f"model={shown(name)}: must be a string")
    if name not in options.models:
        names = ", ".join(sorted({*options.models, *options.loras}))
        message = f"model {shown(name)} is not loaded; this job runs {names} (--served-model-name adds a name)"
        raise InvalidRequest("model_not_found", message, "model", status=404)
