"""The shape of a decoder-only transformer, read from a model directory: enough to price it and to build it."""

from __future__ import annotations

from dataclasses import dataclass, field

from umbel.ir.experts import Experts
from umbel.ir.int4_format import Int4Format
from umbel.ir.kv_shape import KVShape


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched; `kind` is "linear", "dynamic", "llama3" or "yarn", None fields unused."""

    kind: str
    factor: float
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position: int | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything the decoder and the cost model need to know about an architecture (no weights, no torch).

    `notes` are texts for the user: what the model directory says that is not obeyed, or is worth knowing.
    """

    family: str
    vocab_size: int
    hidden_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tied_embeddings: bool = False
    sliding_window: int | None = None
    dtype: str = "float32"
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    quantization: Int4Format | None = None
    experts: Experts | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def group_size(self) -> int:
        """Query heads that share one KV head."""
        return self.n_heads // self.n_kv_heads

    @property
    def attention_scale(self) -> float:
        """What the product of a query and a key is multiplied by before the softmax."""
        return float(self.head_dim**-0.5)

    def kv_shape(self, layer: int) -> KVShape:
        """The attention of a layer, the same in all of them."""
        assert 0 <= layer < self.n_layers
        head, window = self.head_dim, self.sliding_window
        return KVShape(self.n_heads, self.n_kv_heads, head, head, self.attention_scale, window)

    @property
    def kv_shapes(self) -> tuple[KVShape, ...]:
        """The attention of every layer."""
        return tuple(self.kv_shape(layer) for layer in range(self.n_layers))
