"""Operators add up to the price list, and what a step does is counted as a plain reading of it says."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_models import make_model
from umbel.cost.cards import named
from umbel.cost.load import Load
from umbel.cost.operators import DECODE, MIXED, PREFILL, Ceilings, Operator, StepWork, kind_of, operators
from umbel.cost.roofline import Price
from umbel.cost.shape import Shape
from umbel.cost.windows import Windows, WindowShare
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.measure.probe import Probe, make_step
from umbel.models.families import read_spec

MODELS = {
    "llama": ("llama", {}),
    "llama tied, biases": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "mistral window": ("mistral", {"sliding_window": 50}),
    "mixtral": ("mixtral", {}),
    "qwen3_moe, some dense": ("qwen3_moe", {"num_hidden_layers": 4, "mlp_only_layers": [0]}),
    "qwen3_moe, dense at the end": ("qwen3_moe", {"num_hidden_layers": 3, "mlp_only_layers": [2]}),
}
PROBES = (Probe(1, 15), Probe(16, 40, shared=96), Probe(1, 0, 64), Probe(3, 10, 7, shared=33), Probe(1, 100, 90))


@pytest.fixture(params=MODELS)
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> ModelSpec:
    family, overrides = MODELS[request.param]
    return read_spec(make_model(tmp_path / "model", family, **overrides))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_operators_add_up_to_the_price_list(spec: ModelSpec, dtype: str, probe: Probe) -> None:
    work = StepWork.of(make_step(probe, spec.vocab_size), kv_read := probe.shared + 70, Windows.of(spec))
    price = Price(Shape.of(spec, dtype), named("h200"), dtype, spec.n_layers)
    load = Load.one(work.tokens, work.logit_rows, work.pairs, kv_read)
    every = operators(spec, dtype)
    assert sum(o.flops(work) for o in every) == price.flops(load)[0]
    # Activations may stay in a cache; a price has all experts of the last layer in every step with logits.
    layers = [replace(o, activation_bytes=0, logit_bytes=0, logit_weight_bytes=0) for o in every]
    ending = [Operator(o.name, logit_weight_bytes=o.logit_weight_bytes) for o in every]
    assert sum(o.n_bytes(work) for o in (*layers, *ending)) == pytest.approx(price.n_bytes(load)[0], abs=2)
    silent = replace(work, logit_rows=0, samples=0)
    bytes_of_silent = price.n_bytes(replace(load, samples=np.zeros(1)))[0]
    assert sum(o.n_bytes(silent) for o in layers) == pytest.approx(bytes_of_silent, abs=2)


def test_few_rows_read_few_experts(tmp_path: Path) -> None:
    """8 experts, 3 for each row, by drawing them."""
    spec = read_spec(make_model(tmp_path / "model", "qwen3_moe"))
    (experts,) = (o for o in operators(spec, "float32") if o.name == "experts")
    assert [o.name for o in operators(spec, "float32")][-5:] == ["o", "router", "experts", "head", "sampling"]
    one, rng = 3 * 40 * 64 * 4, np.random.default_rng(0)
    for rows in (1, 2, 5, 40):
        work = StepWork(rows, 0, 0, 0, 0, 0, 0, 0)
        drawn = [len({e for _ in range(rows) for e in rng.permutation(8)[:3]}) for _ in range(2000)]
        assert experts.n_bytes(work) == pytest.approx(np.mean(drawn) * one, rel=0.02)
        assert experts.n_bytes(replace(work, logit_rows=rows)) == 2 * experts.n_bytes(work)
    assert experts.n_bytes(StepWork(1, 0, 0, 0, 0, 0, 0, 0)) == 3 * one


def read_plainly(step: Step, window: int | None) -> tuple[int, int, int]:
    """Pairs, decoding rows and their pairs, row by row."""
    pairs = decoding = decoding_pairs = 0
    for begin, end in zip(step.row_begin.tolist(), step.row_end.tolist(), strict=True):
        for row in range(begin, end):
            seen = min(int(step.positions[row]) + 1, window or 10**9)
            pairs += seen
            if end - begin == 1 and row in step.sampling.at:
                decoding += 1
                decoding_pairs += seen
    return pairs, decoding, decoding_pairs


@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_work_is_counted(probe: Probe, window: int | None) -> None:
    step = make_step(probe, 300)
    work = StepWork.of(step, 11, Windows((WindowShare(window or inf),)))
    assert (work.pairs, work.decoding, work.decoding_pairs) == read_plainly(step, window)
    assert (work.tokens, work.samples, work.logit_rows) == (probe.tokens, probe.count, probe.count)
    assert work.kv_tokens == 11 + probe.tokens
    assert work.in_use == probe.shared + int((probe.pasts + probe.new).sum())


def test_rows_that_only_want_logits_write_no_kv_and_samples_of_a_row_share_them() -> None:
    step = make_step(Probe(4, 10), 300)
    again = replace(step, fresh=np.array([True, False, True, False]))
    assert StepWork.of(again, 0).kv_tokens == 2
    shared = replace(step, sampling=replace(step.sampling, at=np.zeros(4, np.int64)))
    assert (StepWork.of(shared, 0).samples, StepWork.of(shared, 0).logit_rows, StepWork.of(shared, 0).decoding) == (
        4,
        1,
        1,
    )


def test_kinds_follow_the_arithmetic(spec: ModelSpec) -> None:
    every = operators(spec, "float32")

    def kind(tokens: int, pairs: int, decoding: int, decoding_pairs: int) -> str:
        return kind_of(StepWork(tokens, pairs, 1, 1, 0, decoding, decoding_pairs, 0), every)

    assert kind(64, 640, 64, 640) == DECODE
    assert kind(64, 640, 0, 0) == PREFILL
    assert kind(64, 640, 32, 320) == MIXED
    assert kind(100, 0, 5, 0) == PREFILL
    assert kind(100, 0, 95, 0) == DECODE
    # A few rows with long contexts can outweigh many new tokens.
    token, pair = (sum(getattr(o, name) for o in every) for name in ("token_flops", "pair_flops"))
    long = 100 * token // pair
    assert kind(101, long, 1, long) == MIXED
    assert kind(101, 20 * long, 1, 20 * long) == DECODE


def test_ceilings_keep_the_better_of_each() -> None:
    low, high = Ceilings(1e9, 5e9, "first"), Ceilings(2e9, 4e9, "second")
    assert low.or_better(high) == high.or_better(low) == Ceilings(2e9, 5e9, "second")
