"""One layer of a decoder, described once: loading, prices, tensor parallelism and the decoder all follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from umbel.ir.latent import Latent
from umbel.ir.recurrence import Recurrence


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched, None fields unused.

    `kind`: "linear", "llama3", "yarn" (2309.00071), "longrope" (2402.13753), or "alpha", which stretches the base.
    `attention_factor`: what cosines and sines are multiplied by. `beta_fast`, `beta_slow`: turns within the original
    context between which YaRN interpolates, at whole pairs if it `truncates`. `divisors`: LongRoPE's, of each pair.
    """

    kind: str
    factor: float
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position: int | None = None
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncates: bool = True
    divisors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions (RoFormer, 2104.09864).

    `theta`: the base of the frequencies, None: the model's. `dim`: how many numbers of a head turn, its first ones;
    None: all. `interleaved`: pairs are neighbours, else they stand half of `dim` apart. `growth`: queries at position
    `p` are multiplied by `1 + growth * log(1 + floor(p / original_max_position))` (Llama 4).
    """

    theta: float | None = None
    scaling: RopeScaling | None = None
    dim: int | None = None
    interleaved: bool = False
    growth: float = 0.0


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm of the last axis, by its root mean square ("rms") or its mean and variance ("layer").

    `has_weight`, `has_bias`: what it learned. `is_offset`: weights are stored as what they differ from 1 by (Gemma).
    `is_wide`: weights are applied before the result is rounded to the type of the rows.
    """

    kind: Literal["rms", "layer"] = "rms"
    has_weight: bool = True
    has_bias: bool = False
    is_offset: bool = False
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class HeadNorm:
    """The norm of queries and keys.

    `over`: what a mean is taken over and shares weights; "head": each head, all with the same weights; "heads": each
    head, with weights of its own; "all": all heads of a row together. `is_rotated`: it comes behind the rotation.
    """

    norm: Norm = Norm()
    over: Literal["head", "heads", "all"] = "head"
    is_rotated: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer computes; its sizes are the model's.

    `norm`: of what kind its norms are. `norms`: which there are, of "attn_norm" and "mlp_norm" (of what attention and
    MLP read), "attn_post_norm" and "mlp_post_norm" (of what they give). `is_parallel`: the MLP reads what the attention
    reads, through the same norm unless there is an "mlp_norm", and both are added at once.
    `activation`: "silu", "gelu", "gelu_tanh", "relu" or "relu2"; `is_gated`: of a gate, times another product.
    `rope`: None for a layer without rotary positions. `scale`: of the product of a query and a key, None: head size to
    the power of -1/2; `window`, `cap` and `sinks` as in `KVShape`. `has_gate`: what attention gives is multiplied by
    the sigmoid of a gate, which the product of queries has behind each head. `residual_scale`: of what attention and
    MLP add. `latent`: how keys and values are stored together, None: they are not. `recurrence`: what stands in the
    place of attention, None: nothing does.
    """

    norm: Norm = Norm()
    norms: tuple[str, ...] = ("attn_norm", "mlp_norm")
    head_norm: HeadNorm | None = None
    is_parallel: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    activation: str = "silu"
    is_gated: bool = True
    rope: Rope | None = Rope()
    scale: float | None = None
    window: int | None = None
    cap: float | None = None
    sinks: bool = False
    has_gate: bool = False
    residual_scale: float = 1.0
    latent: Latent | None = None
    recurrence: Recurrence | None = None


@dataclass(frozen=True, slots=True)
class Edges:
    """What a model does before its first layer and behind its last one.

    `embedding_scale`: of embeddings. `position_offset`: position `i` has the learned embedding `i + offset`, which is
    added; None: there are none. `head_bias`: logits have one. `logit_scale`: of logits. `logit_cap`: they then become
    `cap * tanh(logit / cap)`.
    """

    embedding_scale: float = 1.0
    position_offset: int | None = None
    head_bias: bool = False
    logit_scale: float = 1.0
    logit_cap: float | None = None


NO_EDGES = Edges()
