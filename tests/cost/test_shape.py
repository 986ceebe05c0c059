"""FLOPs and bytes against counts made by hand and by brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.cost.pairs import causal_pairs
from umbel.cost.shape import Shape
from umbel.ir.architecture import layer_matmuls
from umbel.ir.experts import Experts
from umbel.ir.layer import HeadNorm, Layer
from umbel.ir.spec import ModelSpec

SMOL = ModelSpec("llama", 49152, 576, 30, 9, 3, 64, 1536, 2048, 1e-5, 1e4, tied_embeddings=True)
BIASED, WITH_NORMS = (Layer(qkv_bias=True),), (Layer(head_norm=HeadNorm()),)
QWEN2 = ModelSpec("qwen2", 151936, 896, 24, 14, 2, 64, 4864, 32768, 1e-6, 1e6, layers=BIASED, tied_embeddings=True)
QWEN3 = ModelSpec(
    "qwen3",
    151936,
    1024,
    28,
    16,
    8,
    128,
    3072,
    40960,
    1e-6,
    1e6,
    layers=WITH_NORMS,
    tied_embeddings=True,
)
QWEN3_30B = ModelSpec(
    "qwen3_moe",
    151936,
    2048,
    48,
    32,
    4,
    128,
    6144,
    40960,
    1e-6,
    1e6,
    layers=WITH_NORMS,
    experts=Experts(128, 8, 768),
)
MIXTRAL = ModelSpec(
    "mixtral",
    32000,
    4096,
    32,
    32,
    8,
    128,
    14336,
    32768,
    1e-5,
    1e6,
    experts=Experts(8, 2, 14336),
)
LLAMA3 = ModelSpec("llama", 128256, 4096, 32, 32, 8, 128, 14336, 8192, 1e-5, 5e5)


@pytest.mark.parametrize(
    ("spec", "parameters"),
    [
        (SMOL, 134_515_008),
        (QWEN2, 494_032_768),
        (QWEN3, 596_049_920),
        (LLAMA3, 8_030_261_248),
        (QWEN3_30B, 30_532_122_624),
        (MIXTRAL, 46_702_792_704),
    ],
)
def test_weights_are_those_of_the_published_models(spec: ModelSpec, parameters: int) -> None:
    assert Shape.of(spec, "bfloat16").weight_bytes == 2 * parameters
    assert Shape.of(spec, "float32").weight_bytes == 4 * parameters


def test_costs_of_a_small_model_by_hand() -> None:
    spec = ModelSpec("llama", 100, 8, 3, 4, 2, 2, 16, 64, 1e-5, 1e4)
    shape = Shape.of(spec, "float32")
    beginning, ending = 8 * 8 + 8 * 4 + 8 * 4, 8 * 8 + 3 * 8 * 16  # of a layer: before and behind its attention
    assert sum(m.flops for layer in range(3) for m in layer_matmuls(spec, layer)) == 2 * 3 * (beginning + ending)
    assert shape.token_flops == 2 * (3 * beginning + 2 * ending)
    assert shape.pair_flops == 4 * 3 * 4 * 2
    assert shape.head_flops == 2 * (100 * 8 + ending)
    assert shape.kv_bytes == 2 * 3 * 2 * 2 * 4
    assert shape.layer_bytes == 4 * (3 * (beginning + 8) + 2 * (ending + 8))
    assert shape.head_bytes == 4 * (100 * 8 + 8 + ending + 8)


def test_a_token_costs_the_experts_that_it_uses() -> None:
    experts = Experts(count=6, per_token=2, width=5, dense_layers=(1,))
    spec = ModelSpec("qwen3_moe", 100, 8, 4, 4, 2, 2, 16, 64, 1e-5, 1e4, experts=experts)
    shape = Shape.of(spec, "float32")
    attention, gate, expert = 8 * 8 + 8 * 4 + 8 * 4 + 8 * 8, 3 * 8 * 16, 3 * 8 * 5
    last = 8 * 8 + 6 * 8 + 2 * expert
    assert shape.head_flops == 2 * (100 * 8 + last)
    assert shape.token_flops == 2 * (4 * attention + gate + 3 * (6 * 8 + 2 * expert) - last)
    layers = 4 * (attention + 8 + 8) + gate + 3 * (6 * 8 + 6 * expert)
    assert shape.weight_bytes == 4 * (layers + 8 + 2 * 100 * 8)
    assert shape.head_bytes == 4 * (100 * 8 + 8 + 8 * 8 + 6 * 8 + 6 * expert + 8)
    assert shape.layer_bytes + shape.head_bytes == 4 * (layers + 8 + 100 * 8)


def test_biases_count() -> None:
    spec = ModelSpec("llama", 100, 8, 3, 4, 2, 2, 16, 64, 1e-5, 1e4)
    both = dataclasses.replace(spec, layers=(Layer(o_bias=True, mlp_bias=True),))
    assert Shape.of(both, "float32").weight_bytes - Shape.of(spec, "float32").weight_bytes == 4 * 3 * (8 + 16 + 16 + 8)


@given(st.integers(0, 40), st.integers(0, 40), st.one_of(st.none(), st.integers(1, 50)))
def test_pairs_by_counting(start: int, more: int, window: int | None) -> None:
    seen = sum(min(p + 1, window or p + 1) for p in range(start, start + more))
    assert causal_pairs(np.array([start]), np.array([start + more]), window).tolist() == [seen]
