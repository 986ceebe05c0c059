"""The cost of a model per token: FLOPs and bytes of every operator, from its shape alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from umbel.cost.packed import spared_bytes
from umbel.ir.architecture import layer_matmuls, layer_norms
from umbel.ir.kv_shape import KVShape
from umbel.ir.spec import ModelSpec

BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Shape:
    """The costs of one model in one dtype.

    `token_flops`: of the dense layers, per token.
    `pair_flops`: of attention, per query and key that it sees in every layer.
    `head_flops`: of the end of the last layer and the output head, per sample.
    `layer_bytes`: of weights that every step reads, with all experts, as in steps of many rows.
    `head_bytes`: of the end of the last layer, the last norm and the output head.
    `weight_bytes`: of everything that is loaded.
    `kv_bytes`: of the keys and values of one token.

    The part of the last layer behind its attention is counted with the output head: only rows that are sampled from
    pass it, as no other row's hidden state is read there.
    """

    token_flops: int
    pair_flops: int
    head_flops: int
    layer_bytes: int
    head_bytes: int
    weight_bytes: int
    kv_bytes: int

    @classmethod
    def of(cls, spec: ModelSpec, dtype: str, kv_dtype: str = "auto") -> Shape:
        """The costs of a spec in `dtype` ("float32", "bfloat16" or "float16"), except int4 weights. KV is of `dtype`
        too when `kv_dtype` is "auto"; "fp8" has a float32 scale beside each vector of a head."""
        width = BYTES[dtype]
        table, norms = spec.vocab_size * spec.hidden_size, layer_norms(spec)
        products = [m for layer in range(spec.n_layers) for m in layer_matmuls(spec, layer)]
        last = [m for m in layer_matmuls(spec, spec.n_layers - 1) if m.is_ending]
        layers = sum(m.weights + m.biases for m in products) + spec.n_layers * sum(norms.values())
        ending_flops = sum(m.flops for m in last)
        ending_weights = sum(m.weights + m.biases for m in last) + norms["mlp_norm"]
        spared, spared_ending = spared_bytes(spec, width)
        return cls(
            token_flops=sum(m.flops for m in products) - ending_flops,
            pair_flops=sum(shape.pair_flops for shape in spec.kv_shapes),
            head_flops=2 * table + ending_flops,
            layer_bytes=(layers - ending_weights) * width - (spared - spared_ending),
            head_bytes=(table + spec.hidden_size + ending_weights) * width - spared_ending,
            weight_bytes=(layers + spec.hidden_size + table * (1 if spec.tied_embeddings else 2)) * width - spared,
            kv_bytes=sum(_token_bytes(shape, width, kv_dtype) for shape in spec.kv_shapes),
        )


def _token_bytes(shape: KVShape, width: int, kv_dtype: str) -> int:
    """Bytes that the keys and values of one token take in a layer."""
    if kv_dtype == "auto":
        return shape.stored_numbers * width
    return shape.stored_numbers + shape.n_kv_heads * (1 if shape.values_in_keys else 2) * BYTES["float32"]
