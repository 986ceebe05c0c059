"""What the rows of a layer get of other tokens, between the product before and the one behind: by attention, or by a
recurrence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.ir.layer import Layer
from umbel.ir.recurrence import Recurrence
from umbel.ir.spec import ModelSpec
from umbel.kernels.reference import sigmoid
from umbel.linear.base import Linear, LinearMethod, Weights
from umbel.models.batch import ForwardBatch
from umbel.models.gated_delta import GatedDelta, by_part
from umbel.models.heads import LayerHeads
from umbel.models.latent import LatentHeads, LatentWeights, convert_latent
from umbel.models.mamba2 import Mamba2
from umbel.models.recurrent import Convolution, Recurrent, ShortConv
from umbel.models.rotary import halves_order, in_order

LATENT_EPS = 1e-6  # of the norms of latents, whatever the model's own is


class Mixing(Protocol):
    """Attention of one layer, or what stands in its place."""

    def apply(self, product: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> Tensor:
        """From what the product "qkv" gave to what "o" reads (`[rows, inputs]`); `attention` was prepared for the
        rows."""
        ...


@dataclass(frozen=True, slots=True)
class Attending:
    """Attention: what is done to `heads`, the layer's `number` among those that have attention, that of its rotary
    positions, its `sinks` (float32 `[n_heads]`), if it has any, and how many numbers behind queries, keys and values
    are `gates` of what it gives."""

    heads: LayerHeads | LatentHeads
    number: int
    rope: int
    sinks: Tensor | None
    gates: int = 0

    def apply(self, product: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> Tensor:
        """Implement `Mixing.apply`."""
        lap, scales = batch.spans.lap, batch.query_scales[self.rope]
        if self.gates:
            product, gates = product[:, : -self.gates].contiguous(), product[:, -self.gates :]
        q = self.heads.place(product, batch.angles[self.rope], attention.place(self.number))
        q = lap("rotary", q if scales is None else q * scales)
        sinks = {} if self.sinks is None else {"sinks": self.sinks}
        seen = lap("attention", attention.attend(self.number, q, **sinks)).reshape(len(product), -1)
        return (seen.float() * sigmoid(gates.float())).to(seen.dtype) if self.gates else seen


@dataclass(frozen=True, slots=True)
class Recurring:
    """A recurrence: which, and the layer's `number` among those that have one."""

    recurrence: Recurrent
    number: int

    def apply(self, product: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> Tensor:
        """Implement `Mixing.apply`."""
        return batch.spans.lap("recurrence", self.recurrence.apply(product, batch.states[self.number]))


def convert_mixing(
    named: Weights, method: LinearMethod, spec: ModelSpec, layer: Layer, number: int
) -> tuple[Linear, Mixing, Linear]:
    """The product before attention or what stands in its place, that itself, and the product behind."""
    if layer.recurrence is not None:
        if layer.recurrence.is_by_key:
            named = dict(named) | {"qkv": by_part(named["qkv"], layer.recurrence)}
        qkv, o = (method.convert(named[name], named.get(f"{name}_bias")) for name in ("qkv", "o"))
        return qkv, Recurring(_recurrence_of(named, layer.recurrence, spec.norm_eps), number), o
    if layer.has_gate:
        named = dict(named) | {n: _gates_last(named[n], spec) for n in ("qkv", "qkv_bias") if n in named}
    qkv, heads, o = _attention_of(named, method, spec, layer)
    gates = spec.n_heads * spec.head_dim if layer.has_gate else 0
    return qkv, Attending(heads, number, spec.ropes.index(layer.rope), named.get("sinks"), gates), o


def _gates_last(stacked: Tensor, spec: ModelSpec) -> Tensor:
    """What has behind the rows of each head's query those of its gate, with all gates behind all values."""
    queries = 2 * spec.n_heads * spec.head_dim
    query, gate = stacked[:queries].unflatten(0, (spec.n_heads, 2, spec.head_dim)).unbind(1)
    return torch.cat((query.flatten(0, 1), stacked[queries:], gate.flatten(0, 1)))


def _attention_of(
    named: Weights, method: LinearMethod, spec: ModelSpec, layer: Layer
) -> tuple[Linear, LayerHeads | LatentHeads, Linear]:
    """The product before the attention of a layer, what is done to it, and the product behind."""
    if layer.latent is not None and layer.rope is not None:
        norms = {"kv_norm": named["kv_latent_norm"], "q_norm": named.get("q_latent_norm")}
        weights = LatentWeights(named["qkv"], named["kv_up"], o=named["o"], q_up=named.get("q_up"), **norms)
        return convert_latent(weights, layer.latent, layer.rope, LATENT_EPS, method)
    order, turning = halves_order(layer.rope, spec.head_dim), spec.n_heads + spec.n_kv_heads
    weight, bias = (in_order(named[n], order, turning) if n in named else None for n in ("qkv", "qkv_bias"))
    heads = LayerHeads.of(named, spec, layer)
    return method.convert(weight, bias), heads, method.convert(named["o"], named.get("o_bias"))


def _recurrence_of(named: Weights, own: Recurrence, eps: float) -> Recurrent:
    """The recurrence of a layer from its tensors, named as in `weights.py`."""
    if own.kind == "short_conv":
        return ShortConv(Convolution.of(named))
    return (Mamba2 if own.kind == "mamba2" else GatedDelta).of(named, own, eps)
