"""How many layers tokens pass where a flow lets some out: for the price of a plan, and for its refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.ir.architecture import layer_matmuls
from umbel.ir.layer import Layer
from umbel.ir.spec import ModelSpec

Ints = NDArray[np.int64]


class PassedLayers(Protocol):
    """What a flow says of its price. It is made of the settings of its technique."""

    leaves_keys: bool
    """Whether tokens have keys and values in layers that they do not pass, which take their products."""

    def prompt_layers(self, n_layers: int) -> int:
        """Layers that a token of a prompt passes from which no one draws; one that is drawn from passes all."""
        ...

    def answer_layers(self, n_layers: int, place: Ints) -> Ints:
        """Layers that tokens of answers pass at such places behind their prompts (from 0)."""
        ...


class FirstLayers:
    """SwiftKV: tokens of prompts pass a share of the layers, at least one; those of answers pass all."""

    leaves_keys = True

    def __init__(self, settings: Mapping[str, float]):
        self.share = settings["layers"]

    def prompt_layers(self, n_layers: int) -> int:
        """Implement `PassedLayers.prompt_layers`."""
        return max(1, round(self.share * n_layers))

    def answer_layers(self, n_layers: int, place: Ints) -> Ints:
        """Implement `PassedLayers.answer_layers`."""
        return np.full(len(place), n_layers)


class FallingLayers:
    """SkipDecode: tokens of answers pass all layers at first, then fewer, linearly, down to a share `least` (two layers
    or more) behind `over` tokens."""

    leaves_keys = False

    def __init__(self, settings: Mapping[str, float]):
        self.least, self.over = settings["least"], int(settings["over"])

    def prompt_layers(self, n_layers: int) -> int:
        """Implement `PassedLayers.prompt_layers`."""
        return n_layers

    def answer_layers(self, n_layers: int, place: Ints) -> Ints:
        """Implement `PassedLayers.answer_layers`."""
        least = min(max(2, round(self.least * n_layers)), n_layers)
        return n_layers - (n_layers - least) * np.minimum(place, self.over) // self.over


def spared_flops(spec: ModelSpec, price: PassedLayers, skipped: float, tokens: float) -> float:
    """FLOPs of products that `tokens` spare which skip so many layers, each counted for each token, beside an engine in
    which all pass all: there, too, only tokens that are drawn from pass the end of the last layer."""
    if not skipped:
        return 0.0
    each = [sum(product.flops for product in layer_matmuls(spec, layer)) for layer in range(spec.n_layers)]
    layer = sum(each) / len(each)
    if not price.leaves_keys:
        return skipped * layer
    keys = 4 * spec.hidden_size * spec.n_kv_heads * spec.head_dim
    ending = sum(product.flops for product in layer_matmuls(spec, spec.n_layers - 1) if product.is_ending)
    return skipped * (layer - keys) - tokens * ending


def why_no_flow(spec: ModelSpec, price: PassedLayers) -> str:
    """Why rows of a model cannot pass some of its layers only; '' where they can."""
    if spec.hosted is not None:
        return f"{spec.family!r} models run through transformers, as a whole"
    if spec.recurrences:
        return f"layers of {spec.family!r} keep a state, which every row takes on"
    if not price.leaves_keys:
        return ""
    if spec.quantization is not None:
        return "the products of keys and values cannot be taken out of weights in 4 bits"
    if any(_is_odd(layer) for layer in spec.layers):
        return f"keys of {spec.family!r} are not made of one product, head by head"
    return ""


def _is_odd(layer: Layer) -> bool:
    """Whether keys and values of a layer cannot be made without its queries."""
    norm = layer.head_norm
    mixed = norm is not None and (norm.over != "head" or norm.is_rotated or norm.norm.kind != "rms")
    return layer.latent is not None or layer.has_gate or mixed
