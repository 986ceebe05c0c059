"""Rotary positions as config.json states them, in both styles; where it has both, as transformers 5 reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from umbel.errors import ModelError
from umbel.ir.layer import Rope, RopeScaling
from umbel.models.config_file import LIMITS, Config, flag_of, number_of, shorten, size_of
from umbel.models.family import Family
from umbel.models.known_keys import ROPE_KEYS, ROPE_KEYS_OF_SOME

ORIGINAL = "original_max_position_embeddings"
SHORT = "short_mscale"  # Phi-3.5-MoE's factor of cosines and sines within the original context
PARTIAL, GROWTH = "partial_rotary_factor", "llama_4_scaling_beta"


def rope_theta(config: Config, family: Family) -> float:
    """The base of the rotary frequencies: of the rotary settings, else of config.json itself, else the family's."""
    rope = {} if family.thetas else _rope(config)
    source = rope if rope.get("rope_theta") is not None else config
    return number_of(source, "rope_theta", family.rope_theta, low=1.0, high=1e12)


def rope_of(config: Config, family: Family, kind: str, head_dim: int) -> Rope:
    """The rotary positions of layers with attention of a `kind` ("full_attention", "sliding_attention"); whether pairs
    are interleaved is the layer's. Raises ModelError for ways that are not supported."""
    settings = _settings(config, family, kind)
    theta = None
    if family.thetas:
        key, default = family.thetas[kind]
        source = (
            settings if settings.get("rope_theta") is not None else {"rope_theta": config.get(key) if key else None}
        )
        theta = number_of(source, "rope_theta", default, low=1.0, high=1e12)
    growth = number_of(settings, GROWTH, 0.0, low=0.0, high=1e3) if GROWTH in family.obeyed else 0.0
    return Rope(theta, _scaling(config, family, settings), _dim(config, family, settings, head_dim), growth=growth)


def context_of(config: Config, family: Family) -> int:
    """Positions that a model can have: what it states, under linear scaling and YaRN so many times more, as vLLM has
    it; no more than where frequencies would begin to depend on a row's length."""
    stated = size_of(config, "max_position_embeddings")
    found = [_stretched(stated, _scaling(config, family, settings)) for _, settings in _every(config, family)]
    return min(min(found, default=stated), LIMITS["max_position_embeddings"])


def rope_notes(config: Config, family: Family) -> list[str]:
    """What the rotary settings say that is not used, by transformers neither, and what they make of the context."""
    name, found = _name(config), []
    other = config.get("rope_parameters")
    if name == "rope_scaling" and other and other != config[name]:
        found.append(f"config.json: rope_parameters={shorten(other)} is not used, as there is rope_scaling too")
    for _, settings in _every(config, family):
        kind = _kind(family, settings)
        known = ROPE_KEYS[kind] - (ROPE_KEYS_OF_SOME - family.obeyed)
        spare = {key: value for key, value in settings.items() if key not in known and value is not None}
        if "rope_type" in settings and settings.get("type", kind) != kind:
            spare["type"] = settings["type"]
        spare.pop("max_position_embeddings", None)
        if spare:
            found.append(f"config.json: {name}: rope_type {kind!r} does not use {shorten(spare)}")
    stated, context = size_of(config, "max_position_embeddings"), context_of(config, family)
    if context > stated:
        found.append(f"config.json: the context is {context:,}: {stated:,} positions, stretched by {name}, as in vLLM")
    if context < stated:
        why = "beyond that, rotary frequencies would depend on how long each row becomes"
        found.append(f"config.json: the context is {context:,} of {stated:,} positions: {why} ({name})")
    return found


def _stretched(stated: int, scaling: RopeScaling | None) -> int:
    """Positions under a scaling."""
    if scaling is None:
        return stated
    if scaling.kind == "linear":
        return int(stated * scaling.factor)
    original = scaling.original_max_position or stated
    if scaling.kind == "longrope":
        return min(stated, original)
    return max(stated, int(original * scaling.factor)) if scaling.kind == "yarn" else stated


def _name(config: Config) -> str:
    """The key that the rotary settings are taken from."""
    return "rope_scaling" if config.get("rope_scaling") else "rope_parameters"


def _rope(config: Config) -> Config:
    """Rotary settings that hold for all layers."""
    name = _name(config)
    rope = config.get(name) or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ModelError(f"{name}={shorten(rope)}: must be one object of settings that hold for all layers")
    return rope


def _settings(config: Config, family: Family, kind: str) -> Config:
    """Those of layers of a kind; where kinds differ, `rope_scaling` is of full attention."""
    if not family.thetas:
        return _rope(config)
    if config.get("rope_scaling"):
        return _rope(config) if kind == "full_attention" else {}
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(key not in family.thetas or not isinstance(rope[key], dict) for key in rope):
        raise ModelError(f"rope_parameters={shorten(rope)}: must be an object for each of {', '.join(family.thetas)}")
    return rope.get(kind, {})


def _every(config: Config, family: Family) -> Iterable[tuple[str, Config]]:
    """All rotary settings by the kind of layer."""
    return [(kind, _settings(config, family, kind)) for kind in family.thetas or ("full_attention",)]


def _kind(family: Family, settings: Config) -> str:
    kind = settings.get("rope_type") or settings.get("type") or "default"
    kind = family.rope_names.get(kind, kind) if isinstance(kind, str) else kind
    if not isinstance(kind, str) or kind not in ROPE_KEYS:
        raise ModelError(f"rope_type={shorten(kind)}: must be one of {', '.join(ROPE_KEYS)}")
    return kind


def _dim(config: Config, family: Family, settings: Config, head_dim: int) -> int | None:
    """How many numbers of a head turn, None: all."""
    source = settings if settings.get(PARTIAL) is not None else config
    share = number_of(source, PARTIAL, family.rotary_share or 1.0, low=0.0, high=1.0)
    if share == 1.0:
        return None
    if family.rotary_share is None:
        raise ModelError(f"{PARTIAL}={shorten(share)}: must be 1 in this family")
    dim = int(head_dim * share)
    if dim % 2 or not dim:
        raise ModelError(f"{PARTIAL}={share:g} of head_dim={head_dim} is {dim}: must be even, as positions turn pairs")
    return dim


def _scaling(config: Config, family: Family, settings: Config) -> RopeScaling | None:
    """How frequencies are stretched, None where they are not."""
    return READERS[_kind(family, settings)](config, family, settings)


def _unscaled(config: Config, family: Family, settings: Config) -> None:
    return None


def _linear(config: Config, family: Family, settings: Config) -> RopeScaling:
    return RopeScaling("linear", _factor(settings))


def _dynamic(config: Config, family: Family, settings: Config) -> RopeScaling | None:
    """Frequencies change with the length of a row only beyond the context, or by a fixed `alpha` (Hunyuan)."""
    _factor(settings)
    if "alpha" not in family.obeyed or not settings.get("alpha"):
        return None
    return RopeScaling("alpha", number_of(settings, "alpha", None, low=1.0, high=1e6))


def _llama3(config: Config, family: Family, settings: Config) -> RopeScaling:
    factor = _factor(settings)
    low = number_of(settings, "low_freq_factor", None, low=1e-6, high=1e6)
    high = number_of(settings, "high_freq_factor", None, low=1e-6, high=1e6)
    if high <= low:
        raise ModelError(f"high_freq_factor={high} must be above low_freq_factor={low}")
    return RopeScaling("llama3", factor, low, high, _original(config, settings))


def _yarn(config: Config, family: Family, settings: Config) -> RopeScaling:
    """YaRN (2309.00071); cosines and sines are multiplied by a factor that follows from `factor`."""
    original = _original(config, settings)
    factor = _factor(settings, size_of(config, "max_position_embeddings") / original)
    mscale, of_all = (number_of(settings, key, 0.0, low=0.0, high=1e3) for key in ("mscale", "mscale_all_dim"))
    stretch = _yarn_factor(factor, mscale) / _yarn_factor(factor, of_all) if mscale and of_all else _yarn_factor(factor)
    return replace(
        RopeScaling("yarn", factor, original_max_position=original),
        attention_factor=number_of(settings, "attention_factor", stretch, low=0.0, high=1e3),
        beta_fast=number_of(settings, "beta_fast", 32.0, low=1e-6, high=1e6) or 32.0,
        beta_slow=number_of(settings, "beta_slow", 1.0, low=1e-6, high=1e6) or 1.0,
        truncates=settings.get("truncate") is None or flag_of(settings, "truncate"),
    )


def _yarn_factor(factor: float, mscale: float = 1.0) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope(config: Config, family: Family, settings: Config) -> RopeScaling:
    """LongRoPE (2402.13753): a divisor for each frequency, as they are within the original context."""
    original = _original(config, settings)
    factor = _factor(settings, size_of(config, "max_position_embeddings") / original, low=1e-6)
    stretch = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return replace(
        RopeScaling("longrope", factor, original_max_position=original),
        attention_factor=number_of(
            settings, SHORT if SHORT in family.obeyed else "attention_factor", stretch, low=0.0, high=1e3
        ),
        divisors=_divisors(settings, "short_factor"),
    )


def _divisors(settings: Config, key: str) -> tuple[float, ...]:
    values = settings.get(key)
    if not isinstance(values, list) or not 0 < len(values) <= LIMITS["head_dim"]:
        raise ModelError(f"{key}={shorten(values)}: must be a list of a number for each rotary pair")
    return tuple(number_of({key: value}, key, None, low=1e-6, high=1e6) for value in values)


def _factor(settings: Config, default: float | None = None, *, low: float = 1.0) -> float:
    return number_of(settings, "factor", default, low=low, high=1e6)


def _original(config: Config, settings: Config) -> int:
    """Positions of the model before it was stretched; config.json itself comes first, as in transformers."""
    source = config if config.get(ORIGINAL) is not None else settings
    return size_of(source, ORIGINAL, size_of(config, "max_position_embeddings"))


READERS: Mapping[str, Callable[[Config, Family, Config], RopeScaling | None]] = MappingProxyType({
    "default": _unscaled, "linear": _linear, "dynamic": _dynamic, "llama3": _llama3, "yarn": _yarn,
    "longrope": _longrope,
})  # fmt: skip
