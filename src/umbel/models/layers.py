"""The weights of a decoder layer, as what it computes with.

Layers work on packed rows: one row per token, no batch dimension. `linear/` has their products, `kernels/rows.py` the
other operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from umbel.ir.layer import Layer
from umbel.ir.spec import ModelSpec
from umbel.linear.base import Linear, LinearMethod, Weights
from umbel.models.block import Block, convert_block
from umbel.models.heads import LayerHeads
from umbel.models.latent import LatentHeads, LatentWeights, convert_latent
from umbel.models.norms import NoNorm, RowNorm, Scaled, convert_norm
from umbel.models.rotary import halves_order, in_order

LATENT_EPS = 1e-6  # of the norms of latents, whatever the model's own is


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer: q, k, v are one product, `heads` what is done to them, `block` is what follows the attention.

    `attn_norm`, `mlp_norm`: of what attention and block read, `attn_post`, `block_post`: what is done to what they
    give, None: nothing. In a parallel layer the block reads what the attention reads, or `mlp_norm` of the same rows.
    `sinks` (float32 `[n_heads]`): those of attention, if it has any.
    """

    attn_norm: RowNorm
    qkv: Linear
    heads: LayerHeads | LatentHeads
    o: Linear
    attn_post: RowNorm | Scaled | None
    mlp_norm: RowNorm | None
    block: Block
    block_post: RowNorm | Scaled | None
    is_parallel: bool
    sinks: Tensor | None = None

    @classmethod
    def of(cls, named: Weights, method: LinearMethod, spec: ModelSpec, layer: Layer) -> LayerWeights:
        """The layer made from its tensors as a checkpoint has them, named as in `weights.py`."""
        qkv, heads, o = _attention_of(named, method, spec, layer)
        norms = {
            name: convert_norm(layer.norm, named.get(name), named.get(f"{name}_bias"), spec.norm_eps)
            for name in layer.norms
        }
        return cls(
            attn_norm=norms.get("attn_norm", NoNorm()),
            qkv=qkv,
            heads=heads,
            o=o,
            attn_post=_after(norms.get("attn_post_norm"), layer),
            mlp_norm=norms.get("mlp_norm", None if layer.is_parallel else NoNorm()),
            block=convert_block(named, method, spec, layer),
            block_post=_after(norms.get("mlp_post_norm"), layer),
            is_parallel=layer.is_parallel,
            sinks=named.get("sinks"),
        )


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
