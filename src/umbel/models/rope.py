"""Rotary positions as config.json states them, in both styles; where it has both, as transformers 5 reads them."""

from __future__ import annotations

from umbel.errors import ModelError
from umbel.ir.layer import RopeScaling
from umbel.models.config_file import LIMITS, Config, number_of, shorten, size_of
from umbel.models.known_keys import ROPE_KEYS


def rope_theta(config: Config, default: float) -> float:
    """The base of the rotary frequencies: of the rotary settings, else of config.json itself, else `default`."""
    rope = _rope(config)
    source = rope if rope.get("rope_theta") is not None else config
    return number_of(source, "rope_theta", default, low=1.0, high=1e12)


def rope_scaling(config: Config) -> RopeScaling | None:
    """How frequencies are stretched, None where they are not. Raises ModelError for ways that are not supported."""
    rope, kind = _rope(config), _kind(config)
    if kind == "default":
        return None
    factor = number_of(rope, "factor", None, low=1.0, high=1e6)
    if kind == "linear":
        return RopeScaling("linear", factor)
    low = number_of(rope, "low_freq_factor", None, low=1e-6, high=1e6)
    high = number_of(rope, "high_freq_factor", None, low=1e-6, high=1e6)
    if high <= low:
        raise ModelError(f"high_freq_factor={high} must be above low_freq_factor={low}")
    key = "original_max_position_embeddings"
    source = config if config.get(key) is not None else rope  # in this order, as transformers
    context = size_of(source, key, size_of(config, "max_position_embeddings"))
    return RopeScaling("llama3", factor, low, high, context)


def context_of(config: Config) -> int:
    """Positions that a model can have: under linear scaling so many times more than it states, as vLLM has it."""
    stated, scaling = size_of(config, "max_position_embeddings"), rope_scaling(config)
    if scaling is None or scaling.kind != "linear":
        return stated
    return min(int(stated * scaling.factor), LIMITS["max_position_embeddings"])


def rope_notes(config: Config) -> list[str]:
    """What the rotary settings say that is not used, by transformers neither, and what they make of the context."""
    name, rope, kind = _name(config), _rope(config), _kind(config)
    found = []
    other = config.get("rope_parameters")
    if name == "rope_scaling" and other and other != rope:
        found.append(f"config.json: rope_parameters={shorten(other)} is not used, as there is rope_scaling too")
    spare = {key: value for key, value in rope.items() if key not in ROPE_KEYS[kind] and value is not None}
    if "rope_type" in rope and rope.get("type", kind) != kind:
        spare["type"] = rope["type"]
    if spare:
        found.append(f"config.json: {name}: rope_type {kind!r} does not use {shorten(spare)}")
    stated, context = size_of(config, "max_position_embeddings"), context_of(config)
    if context != stated:
        found.append(f"config.json: the context is {context:,}: {stated:,} positions, stretched by {name}, as in vLLM")
    return found


def _name(config: Config) -> str:
    """The key that the rotary settings are taken from."""
    return "rope_scaling" if config.get("rope_scaling") else "rope_parameters"


def _rope(config: Config) -> Config:
    name = _name(config)
    rope = config.get(name) or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ModelError(f"{name}={shorten(rope)}: must be one object of settings that hold for all layers")
    if rope.get("partial_rotary_factor") not in (None, 1.0):
        raise ModelError(f"{name}: partial_rotary_factor={shorten(rope['partial_rotary_factor'])}: must be 1")
    return rope


def _kind(config: Config) -> str:
    rope = _rope(config)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if not isinstance(kind, str) or kind not in ROPE_KEYS:
        raise ModelError(f"rope_type={shorten(kind)}: must be one of {', '.join(ROPE_KEYS)}")
    return kind
