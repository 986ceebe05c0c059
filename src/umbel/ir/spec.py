"""The shape of a decoder-only transformer, read from a model directory: enough to price it and to build it."""

from __future__ import annotations

from dataclasses import dataclass, field

from umbel.ir.adapter import Adapter
from umbel.ir.experts import Experts
from umbel.ir.hosted import Hosted
from umbel.ir.int4_format import Int4Format
from umbel.ir.kv_shape import KVShape
from umbel.ir.layer import NO_EDGES, Edges, Layer, Rope
from umbel.ir.pooling import WRITER, Pooler
from umbel.ir.recurrence import Recurrence


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything the decoder and the cost model need to know about an architecture (no weights, no torch).

    `layers`: what the layers compute, by turns where there are fewer than `n_layers`. `rope_theta`: of layers whose
    `Rope` has none. `adapters`: of which each row may name one. `sampling`: defaults of SamplingParams that the model's
    files state, for rows that do not set them. `pooler`: what it gives instead of tokens. `notes`: messages for the
    user, such as settings of the model directory that are ignored.
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
    norm_eps: float
    rope_theta: float
    layers: tuple[Layer, ...] = (Layer(),)
    edges: Edges = NO_EDGES
    tied_embeddings: bool = False
    dtype: str = "float32"
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    quantization: Int4Format | None = None
    experts: Experts | None = None
    hosted: Hosted | None = None
    pooler: Pooler = WRITER
    adapters: tuple[Adapter, ...] = ()
    sampling: tuple[tuple[str, float], ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def layer(self, index: int) -> Layer:
        """What one layer computes."""
        assert 0 <= index < self.n_layers
        return self.layers[index % len(self.layers)]

    def kv_shape(self, layer: int) -> KVShape:
        """The attention of a layer."""
        if self.hosted is not None:
            return self.hosted.layers[layer].kv
        own, head = self.layer(layer), self.head_dim
        scale = float(head**-0.5) if own.scale is None else own.scale
        if own.latent is not None:
            return own.latent.kv_shape(self.n_heads, own.scale)
        return KVShape(self.n_heads, self.n_kv_heads, head, head, scale, own.window, own.cap, own.sinks)

    @property
    def kv_shapes(self) -> tuple[KVShape, ...]:
        """The attention of every layer that has one, in order."""
        return tuple(self.kv_shape(layer) for layer in range(self.n_layers) if self.layer(layer).recurrence is None)

    def number(self, layer: int) -> int:
        """The number of a layer among those that have attention, or among those that have a recurrence."""
        has = [self.layer(each).recurrence is None for each in range(layer + 1)]
        return has.count(has[layer]) - 1

    @property
    def ropes(self) -> tuple[Rope | None, ...]:
        """The distinct rotary positions of the layers."""
        return tuple(dict.fromkeys(layer.rope for layer in self.layers))

    @property
    def recurrences(self) -> tuple[Recurrence, ...]:
        """What the other layers have in its place, in order."""
        found = (self.layer(layer).recurrence for layer in range(self.n_layers))
        return tuple(recurrence for recurrence in found if recurrence is not None)
