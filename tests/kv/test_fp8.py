"""Keys and values in fp8: how far they may be from what was written, and that attention in torch reads them so."""

from __future__ import annotations

import random

import pytest
import torch

from tests.attention.stage import attend, poison, random_job, random_qkv, spec_of, steps_of
from umbel.api import LLM
from umbel.attention.grid import GridAttention
from umbel.attention.pick import pick_attention
from umbel.attention.reference import ReferenceAttention
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.kv.fp8 import Fp8Store

CPU = torch.device("cpu")


def test_what_is_read_is_near_what_was_written() -> None:
    """Three bits of fraction: half a step of them, or of the smallest number that e4m3 has."""
    spec = spec_of(2, 1, 64)
    store = poison(Fp8Store(spec, 4, 16, CPU))
    k, v = (torch.randn(30, 2, 64) * torch.logspace(-6, 4, 64) for _ in range(2))
    v[3] = 0
    slots = torch.randperm(64)[:30]
    store.place(0, slots).write(k, v)
    for read, written in zip(store.read(0, slots), (k, v), strict=True):
        wanted = written.transpose(0, 1)
        unit = wanted.abs().amax(-1, keepdim=True) / 448
        assert ((read - wanted).abs() <= torch.maximum(wanted.abs() / 16, unit * 2.0**-10) * 1.0001).all()
    scales = k.abs().amax(-1).transpose(0, 1) / 448
    torch.testing.assert_close(store.key_scales[0][:, slots], scales)


def test_attention_in_torch_reads_it() -> None:
    spec, job = spec_of(2, 3, 16, window=150), random_job(random.Random(8), 6, longest=257)
    stores = [poison(Fp8Store(spec, job.demand(16), 16, CPU)) for _ in range(2)]
    tested, meaning = GridAttention(spec, stores[0], CPU), ReferenceAttention(spec, stores[1])
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for _, step in steps_of(job, job.demand(16), 16, 100):
        qkv = random_qkv(spec, step.n_rows, generator, torch.float32)
        tested.prepare(step), meaning.prepare(step)
        worst = max(worst, float((attend(tested, *qkv) - attend(meaning, *qkv)).abs().max()))
    assert worst < 2e-5
    assert isinstance(pick_attention(spec, stores[0], CPU), GridAttention)


def test_a_model_answers_with_it() -> None:
    """The demo model knows its labels by more than fp8 takes away; the pool counts in bytes."""
    llm = LLM("demo", dtype="float32", kv_cache_dtype="fp8", allow_lossy=True, threads=1)
    params = SamplingParams(temperature=0.0, max_tokens=8)
    prompts = [f"Add: {a} + {a + 3} =" for a in range(10, 60, 5)]
    usual = LLM("demo", dtype="float32", threads=1)
    answers, wanted = (engine.generate(prompts, params) for engine in (llm, usual))
    same = sum(a.outputs[0].token_ids == b.outputs[0].token_ids for a, b in zip(answers, wanted, strict=True))
    assert same >= 8
    assert llm.plan(prompts, params).decision("kv_dtype").value == "fp8"
    with pytest.raises(UsageError, match="kv_cache_dtype='fp4': must be one of auto, fp8, int8"):
        LLM("demo", kv_cache_dtype="fp4", allow_lossy=True)
