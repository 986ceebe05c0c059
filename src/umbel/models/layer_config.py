"""What config.json says of single layers: which have a window, which kind of positions, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from umbel.errors import ModelError
from umbel.ir.layer import Layer
from umbel.models.config_file import Config, flag_of, shorten, size_of
from umbel.models.family import Family
from umbel.models.rope import rope_of

FULL, SLIDING = "full_attention", "sliding_attention"
OLD_KINDS = {"attention": FULL, "mamba": "linear_attention"}  # old names, and what transformers 5 calls them
ACTIVATIONS: Mapping[str, str] = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "relu": "relu", "relu2": "relu2",
}  # fmt: skip
"""Names of activations in config.json, and what `ir/layer.py` calls them."""


def layers_of(config: Config, family: Family, n_layers: int, head_dim: int) -> tuple[Layer, ...]:
    """What the layers compute; one where they are all alike."""
    window, kinds = _windows(config, family, n_layers)
    plain = family.layer(config)
    plain = replace(plain, activation=_activation(config, family, plain))
    by_kind = {kind: _of_kind(plain, config, family, kind, window, head_dim) for kind in dict.fromkeys(kinds)}
    layers = _with_recurrences(tuple(by_kind[kind] for kind in kinds), config, family)
    layers = layers if family.vary is None else family.vary(config, layers)
    return layers[:1] if len(set(layers)) == 1 else layers


def _with_recurrences(layers: tuple[Layer, ...], config: Config, family: Family) -> tuple[Layer, ...]:
    """The layers, of which those that say so have a recurrence in the place of attention."""
    if family.recurrence is None:
        return layers
    own, kinds = family.recurrence(config), _layer_kinds(config)
    if family.recurrent not in kinds or FULL not in kinds:
        raise ModelError(f"layer_types={shorten(kinds)}: must have {family.recurrent} as well as {FULL}")
    return tuple(
        replace(layer, recurrence=own, head_norm=None) if kind == family.recurrent else layer
        for layer, kind in zip(layers, kinds, strict=True)
    )


def _of_kind(plain: Layer, config: Config, family: Family, kind: str, window: int | None, head_dim: int) -> Layer:
    """A layer with the window and the rotary positions of its kind."""
    rope = plain.rope
    if rope is not None:
        rope = replace(rope_of(config, family, kind, head_dim), interleaved=rope.interleaved)
    return replace(plain, window=window if kind == SLIDING else None, rope=rope)


def _activation(config: Config, family: Family, plain: Layer) -> str:
    name = config.get("hidden_act", plain.activation)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ModelError(f"hidden_act={shorten(name)}: must be one of {', '.join(ACTIVATIONS)}")
    if family.experts is not None and ACTIVATIONS[name] != "silu":
        raise ModelError(f"hidden_act={shorten(name)}: experts compute 'silu' (or 'swish') only")
    return ACTIVATIONS[name]


def _windows(config: Config, family: Family, n_layers: int) -> tuple[int | None, list[str]]:
    """The window, None where there is none, and the kind of attention of each layer."""
    asked = family.window in ("always", "typed") or flag_of(config, "use_sliding_window")
    counts = family.window != "never" and asked
    # Unlike elsewhere, null differs from a missing key: it means that there is no window.
    has_window = counts and config.get("sliding_window", family.window_size) is not None
    window = size_of(config, "sliding_window", family.window_size or 4096) if has_window else None
    derived = _derived_kinds(config, family, n_layers, window)
    kinds = [FULL if kind == family.recurrent else kind for kind in _layer_kinds(config)] or derived
    if len(kinds) != n_layers or not set(kinds) <= {FULL, SLIDING}:
        raise ModelError(f"layer_types={shorten(kinds)}: must be {FULL} or {SLIDING} for each of {n_layers} layers")
    decides = family.window in ("asks", "typed")
    if kinds != derived and not (decides and (window is not None or SLIDING not in kinds)):
        raise ModelError(f"layer_types={shorten(kinds)} and a sliding window of {window} contradict each other")
    return window, kinds


def _derived_kinds(config: Config, family: Family, n_layers: int, window: int | None) -> list[str]:
    """The kinds of layers where `layer_types` is missing."""
    if window is None:
        return [FULL] * n_layers
    if family.window == "typed" and family.every_full:
        step = size_of(config, "sliding_window_pattern", family.every_full)
        return [SLIDING if (layer + 1) % step else FULL for layer in range(n_layers)]
    n_full = min(n_layers, size_of(config, "max_window_layers", 28, low=0)) if family.window == "asks" else 0
    return [FULL] * n_full + [SLIDING] * (n_layers - n_full)


def _layer_kinds(config: Config) -> list[str]:
    """What `layer_types` says, under the names of transformers 5; empty where the key is missing."""
    kinds = config.get("layer_types") or []
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise ModelError(f"layer_types={shorten(kinds)}: must be a list of names")
    return [OLD_KINDS.get(kind, kind) for kind in kinds]
