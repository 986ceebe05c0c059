"""The weights of a decoder layer, as what it computes with.

Layers work on packed rows: one row per token, no batch dimension. `linear/` has their products, `kernels/rows.py` the
other operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from umbel.ir.layer import Layer
from umbel.ir.spec import ModelSpec
from umbel.linear.base import Linear, LinearMethod, Weights
from umbel.models.block import Block, convert_block
from umbel.models.mixing import Mixing, convert_mixing
from umbel.models.norms import NoNorm, RowNorm, Scaled, convert_norm


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
        qkv, mixing, o = convert_mixing(named, method, spec, layer, number)
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


def _after(norm: RowNorm | None, layer: Layer) -> RowNorm | Scaled | None:
    """What is done to what attention or block give before it is added."""
    return norm if layer.residual_scale == 1.0 else Scaled(norm or NoNorm(), layer.residual_scale)
