"""Floors against counting by hand: token by token, step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.fakes import SPEC
from umbel.bench.floors import floor_of
from umbel.bench.workloads import Row, generate
from umbel.cost.shape import Shape
from umbel.ir.layer import Layer

SHAPE = Shape.of(SPEC, "float32")
ROWS = st.lists(
    st.builds(Row, st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(1, 5), st.integers(1, 3)),
    min_size=1,
    max_size=8,
)


def brute_force(rows: list[Row]) -> tuple[int, int, int]:
    """(distinct prompt tokens, FLOPs, bytes), one path, one token, one step at a time."""
    paths = {tuple(row.prompt[: i + 1]) for row in rows for i in range(len(row.prompt))}
    flops = sum(SHAPE.token_flops + SHAPE.pair_flops * len(path) for path in paths)
    n_bytes = SHAPE.layer_bytes + SHAPE.head_bytes + len(paths) * SHAPE.kv_bytes
    for step in range(max(row.max_tokens for row in rows)):
        live = [row for row in rows if row.max_tokens > step]
        flops += SHAPE.head_flops * sum(row.n for row in live)
        if step == 0:
            continue  # the first token comes out of the prompt
        shared = {tuple(row.prompt[: i + 1]) for row in live for i in range(len(row.prompt))}
        own = sum(row.n * step for row in live)
        written = sum(row.n for row in live)
        n_bytes += SHAPE.layer_bytes + SHAPE.head_bytes + SHAPE.kv_bytes * (len(shared) + own + written)
        for row in live:
            flops += row.n * (SHAPE.token_flops + SHAPE.pair_flops * (len(row.prompt) + step))
    return len(paths), flops, n_bytes


@given(ROWS)
def test_against_counting(rows: list[Row]) -> None:
    floor = floor_of(rows, SPEC, "float32")
    assert (floor.distinct_tokens, floor.flops, floor.n_bytes) == brute_force(rows)
    assert floor.prompt_tokens == sum(len(row.prompt) * row.n for row in rows)
    assert floor.output_tokens == sum(row.max_tokens * row.n for row in rows)


def test_published_counts() -> None:
    """W1 on the shape of Qwen3-0.6B: 6,144 distinct tokens of 69,632, 6.57 TFLOP with perfect sharing if every token
    passes all of the last layer, which only the 512 that are sampled must."""
    qwen = replace(
        SPEC, vocab_size=151936, hidden_size=1024, n_layers=28, n_heads=16, n_kv_heads=8, head_dim=128,
        intermediate_size=3072,
    )  # fmt: skip
    floor = floor_of(generate("W1", 101, 151936), qwen, "bfloat16")
    assert (floor.prompt_tokens, floor.distinct_tokens, floor.output_tokens) == (69_632, 6_144, 512)
    passed_by = 2 * (2048 * 1024 + 3 * 1024 * 3072) * (6_144 + 384 - 512)  # output projection, gate, up and down
    assert (floor.flops + passed_by) / 1e12 == pytest.approx(6.574, abs=0.001)
    assert floor.arithmetic(950e9) == pytest.approx(6.77, abs=0.01)


def test_windows_see_less() -> None:
    rows = [Row(list(range(40)), 5)]
    assert (
        floor_of(rows, replace(SPEC, layers=(Layer(window=8),)), "float32").flops
        < floor_of(rows, SPEC, "float32").flops
    )
