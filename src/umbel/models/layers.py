"""The weights of a decoder layer, as what it computes with.

Layers work on packed rows: one row per token, no batch dimension. `linear/` has their products, `kernels/rows.py` the
other operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.ir.layer import Layer
from umbel.ir.spec import ModelSpec
from umbel.linear.base import Linear, LinearMethod, Weights
from umbel.models.block import Block, convert_block
from umbel.models.gated_delta import by_part
from umbel.models.heads import LayerHeads
from umbel.models.latent import LatentHeads, LatentWeights, convert_latent
from umbel.models.mixing import Attending, Mixing, Recurring, convert_recurrence
from umbel.models.norms import NoNorm, RowNorm, Scaled, convert_norm
from umbel.models.rotary import halves_order, in_order

LATENT_EPS = 1e-6  # of the norms of latents, whatever the model's own is


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer: q, k, v are one product, `mixing` is attention or what stands in its place, `block` is what follows.

    `attn_norm`, `mlp_norm`: of what attention and block read, `attn_post`, `block_post`: what is done to what they
    give, None: nothing. In a parallel layer the block reads what the attention reads, or `mlp_norm` of the same rows.
    """

    attn_norm: RowNorm
    qkv: Linear
    mixing: Mixing
    o: Linear
    attn_post: RowNorm | Scaled | None
    mlp_norm: RowNorm | None
    block: Block
    block_post: RowNorm | Scaled | None
    is_parallel: bool

    @classmethod
    def of(cls, named: Weights, method: LinearMethod, spec: ModelSpec, layer: Layer, number: int) -> LayerWeights:
        """The layer made from its tensors as a checkpoint has them, named as in `weights.py`; `number`: of the layer
        among those that have attention, or among those that do not."""
        qkv, mixing, o = _mixing_of(named, method, spec, layer, number)
        norms = {
            name: convert_norm(layer.norm, named.get(name), named.get(f"{name}_bias"), spec.norm_eps)
            for name in layer.norms
        }
        return cls(
            attn_norm=norms.get("attn_norm", NoNorm()),
            qkv=qkv,
            mixing=mixing,
            o=o,
            attn_post=_after(norms.get("attn_post_norm"), layer),
            mlp_norm=norms.get("mlp_norm", None if layer.is_parallel else NoNorm()),
            block=convert_block(named, method, spec, layer),
            block_post=_after(norms.get("mlp_post_norm"), layer),
            is_parallel=layer.is_parallel,
        )


def _mixing_of(
    named: Weights, method: LinearMethod, spec: ModelSpec, layer: Layer, number: int
) -> tuple[Linear, Mixing, Linear]:
    """The product before attention or what stands in its place, that itself, and the product behind."""
    if layer.recurrence is not None:
        if layer.recurrence.is_by_key:
            named = dict(named) | {"qkv": by_part(named["qkv"], layer.recurrence)}
        qkv, o = (method.convert(named[name], named.get(f"{name}_bias")) for name in ("qkv", "o"))
        return qkv, Recurring(convert_recurrence(named, layer.recurrence, spec.norm_eps), number), o
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


def _after(norm: RowNorm | None, layer: Layer) -> RowNorm | Scaled | None:
    """What is done to what attention or block give before it is added."""
    return norm if layer.residual_scale == 1.0 else Scaled(norm or NoNorm(), layer.residual_scale)
