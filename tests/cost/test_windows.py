"""Pairs and KV of models whose layers have other windows, against sums over the layers one by one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.attention.stage import mixed_spec
from umbel.cost.shape import Shape
from umbel.cost.windows import WHOLE, Windows
from umbel.ir.kv_shape import KVShape
from umbel.ir.layer import Layer
from umbel.ir.spec import ModelSpec

FULL = KVShape(8, 4, 16, 16, 0.25)
NEAR = KVShape(8, 2, 32, 24, 0.25, window=20)
NEARER = dataclasses.replace(FULL, window=5)
SPEC = mixed_spec(NEAR, FULL, NEAR, NEARER)


def test_flops_are_the_sum_over_the_layers() -> None:
    shape, windows = Shape.of(SPEC, "float32"), Windows.of(SPEC)
    start, end = np.array([0, 3, 30]), np.array([7, 25, 31])
    for begin, stop in zip(start.tolist(), end.tolist(), strict=True):
        flops = sum(
            min(position + 1, s.window or 999) * 2 * s.n_heads * (s.key_dim + s.value_dim)
            for s in SPEC.shapes
            for position in range(begin, stop)
        )
        assert windows.pairs(np.array([begin]), np.array([stop]))[0] * shape.pair_flops == pytest.approx(flops)
        assert windows.seen(np.arange(begin, stop) + 1).sum() * shape.pair_flops == pytest.approx(flops)
    assert windows.pairs(start, end).shape == (3,)


@pytest.mark.parametrize(("dtype", "kv_dtype"), [("float32", "auto"), ("bfloat16", "auto"), ("bfloat16", "fp8")])
def test_kv_bytes_are_the_sum_over_the_layers(dtype: str, kv_dtype: str) -> None:
    def of_vector(dim: int) -> int:
        return dim + 4 if kv_dtype == "fp8" else dim * {"float32": 4, "bfloat16": 2}[dtype]

    wanted = sum(s.n_kv_heads * (of_vector(s.key_dim) + of_vector(s.value_dim)) for s in SPEC.shapes)
    assert Shape.of(SPEC, dtype, kv_dtype).kv_bytes == wanted


def test_values_in_keys_take_no_bytes() -> None:
    spec = mixed_spec(KVShape(4, 1, 72, 64, 0.1, values_in_keys=True))
    assert Shape.of(spec, "bfloat16").kv_bytes == 72 * 2
    assert Shape.of(spec, "bfloat16", "fp8").kv_bytes == 72 + 4


def test_layers_that_are_alike_count_in_whole_numbers() -> None:
    plain = ModelSpec("llama", 100, 8, 3, 4, 2, 2, 16, 64, 1e-5, 1e4)
    assert Windows.of(plain) == WHOLE
    seen = Windows.of(dataclasses.replace(plain, layers=(Layer(window=4),))).seen(np.arange(1, 7))
    assert seen.tolist() == [1, 2, 3, 4, 4, 4]
    assert Windows.of(SPEC).unbounded_share == 4 * 32 / (4 * 32 + 2 * 2 * 56 + 4 * 32)
