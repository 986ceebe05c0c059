"""The cost of a model per token: FLOPs and bytes of every operator, from its shape alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from umbel.cost.packed import experts_read, spared_bytes
from umbel.ir.architecture import layer_matmuls, layer_norms, learned
from umbel.ir.kv_shape import KVShape
from umbel.ir.spec import ModelSpec

BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Shape:
    """The costs of one model in one dtype.

    `token_flops`: of the dense layers, per token.
    `pair_flops`: of attention, per query and key that it sees in every layer.
    `head_flops`: of the end of the last layer and the output head, per sample.
    `layer_bytes`: of weights that steps read, with all experts: `expert_bytes`, of which a token skips `unused`.
    `head_bytes`: of the end of the last layer, the last norm and the output head.
    `weight_bytes`: of everything that is loaded.
    `kv_bytes`: of the keys and values of one token.
    `state_bytes`: of the state that layers keep of all tokens up to one, which each page of KV has.
    `hosted_layers`: that a module of transformers computes.

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
    state_bytes: int = 0
    hosted_layers: int = 0
    expert_bytes: int = 0
    unused: float = 0.0

    @classmethod
    def of(cls, spec: ModelSpec, dtype: str, kv_dtype: str = "auto") -> Shape:
        """The costs of a spec in `dtype` ("float32", "bfloat16" or "float16"), except int4 weights. KV is of `dtype`
        too when `kv_dtype` is "auto"; "fp8" and "int8" have a float32 scale beside each vector of
        a head."""
        width = BYTES[dtype]
        table, final = spec.vocab_size * spec.hidden_size, final_numbers(spec)
        norms = [n for layer in range(spec.n_layers) for n in layer_norms(spec, layer)]
        products = [m for layer in range(spec.n_layers) for m in layer_matmuls(spec, layer)]
        last = [m for m in layer_matmuls(spec, spec.n_layers - 1) if m.is_ending]
        layers = sum(m.weights + m.biases for m in products) + sum(n.width for n in norms)
        ending_flops = sum(m.flops for m in last)
        ending_weights = sum(m.weights + m.biases for m in last)
        ending_weights += sum(n.width for n in layer_norms(spec, spec.n_layers - 1) if n.is_ending)
        spared, spared_ending = spared_bytes(spec, width)
        offset = spec.edges.position_offset
        positions = 0 if offset is None else (spec.max_positions + offset) * spec.hidden_size
        expert_bytes, unused = experts_read(spec, width)
        return cls(
            expert_bytes=expert_bytes,
            unused=unused,
            hosted_layers=0 if spec.hosted is None else spec.n_layers,
            token_flops=sum(m.flops for m in products) + sum(r.flops for r in spec.recurrences) - ending_flops,
            pair_flops=sum(shape.pair_flops for shape in spec.kv_shapes),
            head_flops=2 * table + ending_flops,
            layer_bytes=(layers - ending_weights) * width - (spared - spared_ending),
            head_bytes=(table + final + ending_weights) * width - spared_ending,
            weight_bytes=(layers + final + table * (1 if spec.tied_embeddings else 2) + positions) * width - spared,
            kv_bytes=sum(_token_bytes(shape, width, kv_dtype) for shape in spec.kv_shapes),
            state_bytes=sum(one.kept_inputs * width + one.matrix_numbers * 4 for one in spec.recurrences),
        )


def final_numbers(spec: ModelSpec) -> int:
    """Numbers of the last norm, and of a bias of the logits."""
    norm = len(learned(spec.layers[-1].norm, "norm")) * spec.hidden_size
    return norm + spec.vocab_size * spec.edges.head_bias


def _token_bytes(shape: KVShape, width: int, kv_dtype: str) -> int:
    """Bytes that the keys and values of one token take in a layer."""
    if kv_dtype == "auto":
        return shape.stored_numbers * width
    return shape.stored_numbers + shape.n_kv_heads * (1 if shape.values_in_keys else 2) * BYTES["float32"]
