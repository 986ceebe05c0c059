"""The price list against counters on real steps of real decoders: FLOPs, weight bytes, KV bytes, attention pairs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.attention.stage import CPU, random_job, steps_of
from tests.cost.counting import Counting, tensors_of
from tests.mixtures import PLAIN, make_mixture
from tests.sched.drive import VOCAB
from tests.tiny_models import FAMILIES, make_model
from umbel.attention.grid import MIN_QUERIES, GridAttention
from umbel.attention.layout import lay_out
from umbel.attention.reference import ReferenceAttention
from umbel.cost.cards import named
from umbel.cost.load import Load
from umbel.cost.meter import Meter
from umbel.cost.roofline import Price
from umbel.cost.shape import Shape
from umbel.cost.windows import Windows
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels import rows
from umbel.kv.store import KVStore
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.weights import dummy_weights
from umbel.runner.base import run_step
from umbel.runner.torch_runner import TorchRunner

PAGES, PAGE, CHUNK = 200, 16, 80
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2 biases": ("qwen2", {}),
    "qwen2 untied": ("qwen2", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
    "qwen3 normed heads": ("qwen3", {}),
    "mistral": ("mistral", {"num_hidden_layers": 3}),
    "mistral window": ("mistral", {"sliding_window": 50}),
}


def steps() -> Iterator[Step]:
    """Prompts and decodes, apart and shared, of one token to a full chunk."""
    for seed in (3, 4):
        for _, step in steps_of(random_job(random.Random(seed), 6, longest=140, out=6), PAGES, PAGE, CHUNK):
            yield step


class Stage:
    """One decoder with a runner and its prices."""

    def __init__(self, folder: Path, model: tuple[str, dict[str, Any]], dtype: str):
        family, overrides = model
        make = make_model if family in FAMILIES else make_mixture
        self.spec: ModelSpec = read_spec(make(folder, family, vocab_size=VOCAB, **overrides))
        kind = getattr(torch, dtype)
        self.dtype = dtype
        self.decoder = Decoder(self.spec, dummy_weights(self.spec, kind))
        self.store = KVStore(self.spec, PAGES, PAGE, kind, CPU)
        for slab in (*self.store.keys, *self.store.values):
            slab.zero_()
        self.runner = TorchRunner(self.decoder, GridAttention(self.spec, self.store, CPU), CPU)
        self.shape = Shape.of(self.spec, dtype)
        self.price = Price(self.shape, named("h200"), dtype, self.spec.n_layers)

    def count(self, step: Step) -> Counting:
        with Counting(self.decoder) as counting:
            run_step(self.runner, step)
        return counting

    def pairs(self, step: Step) -> int:
        """Query-key pairs by brute force: the contexts that the reference backend would gather."""
        return ReferenceAttention(self.spec, self.store).prepare(step)

    def cells(self, step: Step) -> int:
        """Pairs that grid attention multiplies: whole cells, and items padded to like sizes."""
        group = self.spec.kv_shape(0).group_size
        layout = lay_out(step, -(-MIN_QUERIES // group), self.spec.kv_shape(0).window)
        wide = sum((w.end - w.begin) * group * len(w.slots) for w in layout.wide)
        narrow = (len(n.rows) * max(MIN_QUERIES, n.rows.shape[1] * group) * n.slots.shape[1] for n in layout.narrow)
        return wide + sum(narrow)


@pytest.fixture(autouse=True)
def plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted are torch's operations: compiled kernels do the same work where the count cannot see it."""
    monkeypatch.setattr(rows, "kernels_for", lambda *tensors: None)


@pytest.fixture(params=SHAPES)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(tmp_path / "model", SHAPES[request.param], "float32")


def executed_rows(rows: int, dtype: str) -> int:
    """Rows that a dense layer multiplies by torch on a processor to give `rows`: in float32 they come in blocks of 16,
    so that a row's bits never depend on how many others there are (linear/dense.py)."""
    return rows + (-rows % 16 if dtype == "float32" else 0)


def check(stage: Stage, step: Step) -> tuple[int, int]:
    """One step against the price list; gives its useful and its executed dense FLOPs."""
    counted, shape = stage.count(step), stage.shape
    samples = len(np.unique(step.sampling.at))
    rows, drawn = executed_rows(step.n_rows, stage.dtype), executed_rows(samples, stage.dtype)
    assert counted.dense == rows * shape.token_flops + drawn * shape.head_flops
    assert counted.stored == step.n_rows * shape.kv_bytes
    # two products a layer, with all heads of all queries
    assert counted.batched == stage.cells(step) * shape.pair_flops // stage.spec.kv_shape(0).group_size
    meter = Meter(Windows.of(stage.spec))
    meter.add(step, 0, 1.0)
    pairs = stage.pairs(step)
    assert meter.load().pairs.tolist() == [pairs]
    useful = Load.one(step.n_rows, samples, pairs, 0)
    assert stage.price.flops(useful)[0] <= counted.dense + counted.batched
    dense = int(stage.price.flops(Load.one(step.n_rows, samples, 0, 0))[0])
    assert sum(counted.weights.values()) == shape.layer_bytes + (shape.head_bytes if samples else 0)
    assert int(stage.price.n_bytes(useful)[0]) == sum(counted.weights.values()) + counted.stored
    return dense, counted.dense


def test_operators_cost_what_the_price_list_says(stage: Stage) -> None:
    """Dense layers and head exactly; what is executed beyond the useful is the padding of blocks, no more."""
    pairs = [check(stage, step) for step in steps()]
    assert len(pairs) > 10
    assert any(useful == executed for useful, executed in pairs)
    assert any(useful < executed for useful, executed in pairs)


def test_sixteen_bits_are_not_padded(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "model", SHAPES["llama"], "bfloat16")
    assert all(useful == executed for useful, executed in (check(stage, step) for step in steps()))


MIXTURES = {
    "qwen3_moe": ("qwen3_moe", {"num_hidden_layers": 3, "mlp_only_layers": [1]}),
    "a shared expert": ("qwen2_moe", PLAIN["qwen2_moe"]),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_cost_what_the_price_list_says(name: str, tmp_path: Path) -> None:
    """In 16 bits, as single rows of an expert are padded too; few rows do not read all that is priced."""
    stage = Stage(tmp_path / "model", MIXTURES[name], "bfloat16")
    shape, read = stage.shape, []
    for step in islice(steps(), 0, None, 3):
        counted, samples = stage.count(step), len(np.unique(step.sampling.at))
        assert counted.dense == step.n_rows * shape.token_flops + samples * shape.head_flops
        priced = shape.layer_bytes + (shape.head_bytes if samples else 0)
        read.append(sum(counted.weights.values()) / priced)
    assert min(read) < 1 and max(read) == 1
    assert sum({id(t): t.nbytes for t in tensors_of(stage.decoder)}.values()) == shape.weight_bytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["qwen2_moe", "granitemoeshared", "ernie4_5_moe", "glm4_moe", "minimax_m2"])
def test_all_of_a_mixture_that_is_loaded_is_priced(family: str, dtype: str, tmp_path: Path) -> None:
    """With routers and corrections that stay in float32."""
    stage = Stage(tmp_path / "model", (family, PLAIN[family]), dtype)
    assert sum({id(t): t.nbytes for t in tensors_of(stage.decoder)}.values()) == stage.shape.weight_bytes


def test_all_that_is_loaded_is_priced(stage: Stage) -> None:
    tensors = tensors_of(stage.decoder)
    assert sum({id(t): t.nbytes for t in tensors}.values()) == stage.shape.weight_bytes
