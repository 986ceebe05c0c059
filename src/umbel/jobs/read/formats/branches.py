"""The fields of a row that ask for scores instead of an answer: `continuations`, `choices`, `calibration_prompt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.ir.branches import Branches
from umbel.ir.limits import check_id_list, refuse, shown

FIELDS = frozenset({"continuations", "choices", "calibration_prompt"})
MOST = 4_096  # continuations of a row
MOST_TOKENS = 2**20


def branches_of(item: Mapping[str, Any], default: Branches | None) -> Branches | None:
    """What a row asks for, else the `default` of the command line; None for an answer. Raises InvalidRequest."""
    asked = {name: item[name] for name in ("continuations", "choices") if item.get(name) is not None}
    prior = item.get("calibration_prompt")
    if len(asked) == 2:
        refuse("invalid_value", "choices", "both continuations and choices are given: a row has one of them")
    if prior is not None and (not isinstance(prior, str) or not prior):
        refuse("invalid_type", "calibration_prompt", f"calibration_prompt={shown(prior)}: must be a text")
    if "continuations" in asked:
        if prior is not None:
            refuse("invalid_value", "calibration_prompt", "calibration_prompt: only means something with choices")
        return Branches(tuple(_continuation(one) for one in _listed("continuations", asked["continuations"])))
    if "choices" in asked:
        return Branches(_choices(asked["choices"]), True, prior or (default.calibration_prompt if default else None))
    if prior is None:
        return default
    if default is None:
        refuse("invalid_value", "calibration_prompt", "calibration_prompt: only means something with choices")
    return Branches(default.continuations, True, prior)


def _listed(name: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        refuse("invalid_type", name, f"{name}={shown(value)}: must be a list")
    if not 1 <= len(value) <= MOST:
        refuse("invalid_value", name, f"{name} has {len(value):,} entries: must be from 1 to {MOST:,}")
    return value


def _continuation(value: object) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    return check_id_list("continuations", value, MOST_TOKENS)


def _choices(value: object) -> tuple[str, ...]:
    choices = _listed("choices", value)
    for one in choices:
        if not isinstance(one, str) or not one:
            refuse("invalid_type", "choices", f"choices entry {shown(one)}: must be a text that is not empty")
    return tuple(choices)
