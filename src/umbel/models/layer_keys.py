"""Keys and values of a layer for hidden states that do not pass it, and projections that were trained for these.

A checkpoint has them under the names of ArcticInference (`self_attn.q_proj_swiftkv`, `k_proj_swiftkv` and
`v_proj_swiftkv` of the later layers, `model.norm_swiftkv`), beside the weights of the model itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.errors import ModelError
from umbel.ir.spec import ModelSpec
from umbel.linear.base import Linear, LinearMethod, Weights
from umbel.models.batch import ForwardBatch
from umbel.models.decoder import Decoder
from umbel.models.heads import LayerHeads
from umbel.models.mixing import Attending
from umbel.models.norms import RowNorm, convert_norm
from umbel.models.rotary import halves_order, in_order
from umbel.models.sources.base import StoredTensors
from umbel.models.sources.find import source_at
from umbel.models.tensor_file import DTYPES

TRAINED = re.compile(r"(.*\.layers\.(\d+)\.self_attn\.)k_proj_swiftkv\.weight")


@dataclass(frozen=True, slots=True)
class LayerKeys:
    """What makes a layer's keys and values alone: the `norm` of hidden states, the product `kv`, what is done to its
    heads, the layer's `number` among those that have attention, and that of its rotary positions."""

    norm: RowNorm
    kv: Linear
    heads: LayerHeads
    number: int
    rope: int

    def write(self, normed: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> None:
        """Store the keys and values of normed rows (`[rows, hidden]`), for which attention is laid out."""
        lap = batch.spans.lap
        product = lap("qkv", self.kv.apply(normed))
        lap("rotary", self.heads.place(product, batch.angles[self.rope], attention.place(self.number)))


@dataclass(frozen=True, slots=True)
class TrainedKeys:
    """Projections of a checkpoint for the layers from `first` on: of each layer queries, keys and values stacked (as
    `qkv` of `models/weights.py`), and the weight of the norm that they all read."""

    first: int
    stacked: Mapping[int, Tensor]
    norm: Tensor


def layer_keys(decoder: Decoder, weights: Weights, method: LinearMethod, layer: int) -> LayerKeys:
    """Those of a layer from its own weights, by the names of `models/weights.py`."""
    named = {
        name: weights[f"layers.{layer}.{name}"] for name in ("qkv", "qkv_bias") if f"layers.{layer}.{name}" in weights
    }
    return _keys_of(decoder, named, method, layer, decoder.layers[layer].attn_norm)


def trained_layer_keys(
    decoder: Decoder, trained: TrainedKeys, method: LinearMethod
) -> tuple[tuple[LayerKeys, ...], dict[int, Linear]]:
    """Those of all later layers from trained projections, and the products of queries, keys and values of these layers
    that go with them, by layer."""
    spec, device = decoder.spec, decoder.device
    if any(spec.layer(layer).qkv_bias for layer in trained.stacked):
        raise ModelError(f"q_proj_swiftkv of a {spec.family} model: products with a bias are not read here")
    norm = convert_norm(spec.layer(trained.first).norm, trained.norm.to(device, decoder.dtype), None, spec.norm_eps)
    keys, products = [], {}
    for layer, stacked in trained.stacked.items():
        weight = stacked.to(device, decoder.dtype)
        keys.append(_keys_of(decoder, {"qkv": weight}, method, layer, norm))
        products[layer] = method.convert(_turned(weight, spec, layer), None)
    return tuple(keys), products


def read_trained(directory: Path, spec: ModelSpec) -> TrainedKeys | None:
    """What a checkpoint has been trained for; None where it has nothing."""
    tensors = source_at(directory).tensors(spec)
    found = {int(match[2]): match[1] for name in tensors.entries if (match := TRAINED.fullmatch(name))}
    if not found:
        return None
    names = {
        layer: [f"{prefix}{part}_proj_swiftkv.weight" for part in "qkv"] for layer, prefix in sorted(found.items())
    }
    norm = next((name for name in tensors.entries if name.endswith("norm_swiftkv.weight")), "norm_swiftkv.weight")
    shapes = (spec.n_heads, spec.n_kv_heads, spec.n_kv_heads)
    stacked = {
        layer: torch.cat(
            [_read(tensors, name, (n * spec.head_dim, spec.hidden_size)) for n, name in zip(shapes, each, strict=True)]
        )
        for layer, each in names.items()
    }
    if sorted(stacked) != list(range(min(stacked), spec.n_layers)):
        raise ModelError(f"{directory}: k_proj_swiftkv in layers {sorted(stacked)}: all behind the first need one")
    return TrainedKeys(min(stacked), stacked, _read(tensors, norm, (spec.hidden_size,)))


def _read(tensors: StoredTensors, name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of a checkpoint. Raises ModelError for one that is missing, or of another shape."""
    entry = tensors.entries.get(name)
    if entry is None or entry.shape != shape or entry.dtype not in DTYPES:
        found = "missing" if entry is None else f"{entry.dtype} {list(entry.shape)}"
        raise ModelError(f"tensor {name} is {found}: {list(shape)} of floats are needed")
    whole = torch.empty(shape, dtype=DTYPES[entry.dtype])
    tensors.read_into(name, whole)
    return whole


def _turned(stacked: Tensor, spec: ModelSpec, layer: int) -> Tensor:
    """Rows of queries and keys in the order that rotations take."""
    order = halves_order(spec.layer(layer).rope, spec.head_dim)
    return in_order(stacked, order, spec.n_heads + spec.n_kv_heads)


def _keys_of(
    decoder: Decoder, named: Mapping[str, Tensor], method: LinearMethod, layer: int, norm: RowNorm
) -> LayerKeys:
    """Those of a layer, of products as `models/weights.py` stacks them."""
    spec, mixing = decoder.spec, decoder.layers[layer].mixing
    if not isinstance(mixing, Attending) or not isinstance(mixing.heads, LayerHeads):
        raise ModelError(f"layer {layer} of a {spec.family} model has no keys of its own")
    queries = spec.n_heads * spec.head_dim
    parts = {name: _turned(tensor.to(decoder.device), spec, layer)[queries:] for name, tensor in named.items()}
    kv = method.convert(parts["qkv"].contiguous(), parts.get("qkv_bias"))
    return LayerKeys(norm, kv, replace(mixing.heads, n_q=0), mixing.number, mixing.rope)
