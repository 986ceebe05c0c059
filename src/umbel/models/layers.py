"""The weights of a decoder layer, and the angles of its rotary embedding.

Layers work on packed rows: one row per token, no batch dimension. `linear/` has their products, `kernels/rows.py` the
other operations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.ir.experts import Experts
from umbel.ir.spec import ModelSpec, RopeScaling
from umbel.linear.base import Linear, LinearMethod, Weights
from umbel.models.block import Block, convert_block


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer: q, k, v are one product, `block` is what follows the attention; norms `[width]`."""

    attn_norm: Tensor
    qkv: Linear
    o: Linear
    mlp_norm: Tensor
    block: Block
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None

    @classmethod
    def of(cls, named: Weights, method: LinearMethod, experts: Experts | None = None) -> LayerWeights:
        """The layer made from its tensors as a checkpoint has them, named as in `weights.py`."""
        return cls(
            attn_norm=named["attn_norm"],
            qkv=method.convert(named["qkv"], named.get("qkv_bias")),
            o=method.convert(named["o"], named.get("o_bias")),
            mlp_norm=named["mlp_norm"],
            block=convert_block(named, method, experts),
            q_norm=named.get("q_norm"),
            k_norm=named.get("k_norm"),
        )


def inverse_frequencies(spec: ModelSpec) -> Tensor:
    """Radians per position of each rotary pair, scaled as the spec says: float32 [head_dim / 2]."""
    exponents = torch.arange(0, spec.head_dim, 2, dtype=torch.float32) / spec.head_dim
    frequencies = 1.0 / (spec.rope_theta**exponents)
    scaling = spec.rope_scaling
    if scaling is None:
        return frequencies
    return frequencies / scaling.factor if scaling.kind == "linear" else _llama3_frequencies(frequencies, scaling)


def _llama3_frequencies(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1: short wavelengths stay, long ones are divided by the factor, those between are interpolated."""
    low, high, context = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_position
    if low is None or high is None or context is None:
        raise ValueError(f"llama3 rope scaling without its bounds: {scaling}")
    wavelengths = 2 * math.pi / frequencies
    scaled = torch.where(wavelengths > context / low, frequencies / scaling.factor, frequencies)
    smooth = (context / wavelengths - low) / (high - low)
    between = (1 - smooth) * scaled / scaling.factor + smooth * scaled
    is_between = ~(wavelengths < context / high) & ~(wavelengths > context / low)
    return torch.where(is_between, between, scaled)


def rotary_angles(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each row's rotary angles, computed in float32: two of [rows, 1, head_dim / 2]."""
    angles = positions.to(torch.float32)[:, None, None] * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)
