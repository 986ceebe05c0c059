"""The arithmetic of a decoder layer as plain functions over packed rows: one row per token, no batch dimension.

On CPU in float32 the result of a row never depends on how many other rows are in the call, to the last bit. Matrix
products of few rows would break that and are avoided here; `kernels/rows.py` has the other operations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.ir.spec import ModelSpec, RopeScaling
from umbel.kernels.rows import gated_silu

MANY_ROWS = 12


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The tensors of one layer; `[out, in]` as in a checkpoint, q, k, v and gate, up stacked along `out`."""

    attn_norm: Tensor
    qkv: Tensor
    o: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_bias: Tensor | None = None
    o_bias: Tensor | None = None
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`: [rows, in] -> [rows, out]."""
    rows = x.shape[0]
    n_missing = -rows % 4 if rows < MANY_ROWS else 0
    if n_missing == 0 or x.is_cuda or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    # MKL's sgemm sums in another order for 1, 2, 3, 5, 6, 7, 9, 10 and 11 rows than for 4, 8, 12 and more (measured for
    # 1 to 4 threads). Rows of zeros cost little, as a product this thin waits for the weights anyway.
    padded = F.pad(x, (0, 0, 0, n_missing))
    return F.linear(padded, weight, bias)[:rows]


def mlp(x: Tensor, w: LayerWeights) -> Tensor:
    """The feed-forward block: [rows, hidden] -> [rows, hidden]."""
    return linear(gated_silu(linear(x, w.gate_up, w.gate_up_bias)), w.down, w.down_bias)


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
