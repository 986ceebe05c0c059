"""Keys and values in int8: what is written, by every instruction set as in torch, and attention that reads them."""

from __future__ import annotations

import random

import pytest
import torch

from tests.attention.stage import BACKENDS, CAN, attend, poison, random_job, random_qkv, spec_of, steps_of
from umbel.api import LLM
from umbel.attention.native import NativeAttention
from umbel.attention.pick import pick_attention
from umbel.attention.reference import ReferenceAttention
from umbel.ir.params import SamplingParams
from umbel.kernels import reference
from umbel.kernels.dispatch import kernels
from umbel.kernels.native.calls import INSTRUCTION_SETS, Native
from umbel.kernels.place import Place
from umbel.kernels.rotation import HeadRotation
from umbel.kv.int8 import Int8Store
from umbel.kv.store import KVStore

CPU = torch.device("cpu")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
READERS = [name for name in BACKENDS if CAN[name].int8_kv]
READINGS = [
    (name, dtype)
    for name in READERS
    for dtype in (torch.float32, torch.bfloat16)
    if str(dtype).removeprefix("torch.") in CAN[name].dtypes
]


def store_of(n_kv_heads: int, group: int, dim: int, pages: int) -> Int8Store:
    store = Int8Store(spec_of(n_kv_heads, group, dim), pages, 16, CPU)
    poison(store)
    return store


def test_what_is_read_is_near_what_was_written() -> None:
    """Half a step of 127."""
    store = store_of(2, 1, 64, 4)
    k, v = (torch.randn(30, 2, 64) * torch.logspace(-6, 4, 64) for _ in range(2))
    v[3] = 0
    slots = torch.randperm(64)[:30]
    store.place(0, slots).write(k, v)
    for read, written in zip(store.read(0, slots), (k, v), strict=True):
        wanted = written.transpose(0, 1)
        assert ((read - wanted).abs() <= wanted.abs().amax(-1, keepdim=True) / 254 * 1.0001).all()
    k[5, 1, 2], k[6, 0, 0] = torch.nan, torch.inf
    store.place(0, slots).write(k, v)
    assert (~store.read(0, slots)[0].isfinite()).any(-1).nonzero().tolist() == [[0, 6], [1, 5]]


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
@DTYPES
@pytest.mark.parametrize("dim", [8, 20, 64, 128])
def test_kernels_write_the_same_bytes_as_torch(name: str, dtype: torch.dtype, dim: int) -> None:
    rows, n_q, n_k = 9, 4, 2
    heads = torch.randn(rows, n_q + 2 * n_k, dim, generator=torch.Generator().manual_seed(dim)).to(dtype)
    heads[4, -1] = 0
    angles = torch.rand(rows, 1, dim // 2)
    rotation = HeadRotation(n_q, n_k, (angles.cos().to(dtype), angles.sin().to(dtype)), None, 1e-6)
    mine, theirs = store_of(n_k, 2, dim, 2), store_of(n_k, 2, dim, 2)
    slots = torch.randperm(32)[:rows]
    rotated = heads.clone()
    Native(name).rotate(rotated, rotation, mine.place(0, slots))
    k, v = rotated[:, n_q : n_q + n_k], rotated[:, n_q + n_k :]
    theirs.place(0, slots).write(k, v)
    for a, b in ((mine.keys, theirs.keys), (mine.values, theirs.values)):
        assert torch.equal(a[0][:, slots], b[0][:, slots])
    for a, b in ((mine.key_scales, theirs.key_scales), (mine.value_scales, theirs.value_scales)):
        assert torch.equal(a[0][:, slots], b[0][:, slots])
    torch.testing.assert_close(k, reference.norm_and_rotate(heads, rotation)[1], rtol=2.0**-6, atol=1e-5)


@pytest.mark.parametrize(("name", "dtype"), READINGS)
@pytest.mark.parametrize("window", [None, 150])
@pytest.mark.parametrize(("group", "dim"), [(1, 16), (3, 20), (2, 64), (4, 128)])
def test_attention_reads_it(name: str, dtype: torch.dtype, window: int | None, group: int, dim: int) -> None:
    """On random forests, with NaN in all that was not written; in bfloat16 give or take a rounding or two."""
    spec, job = spec_of(2, group, dim, window=window), random_job(random.Random(8), 6, longest=257)
    stores = [Int8Store(spec, job.demand(16), 16, CPU) for _ in range(2)]
    tested, meaning = BACKENDS[name](spec, poison(stores[0])), ReferenceAttention(spec, poison(stores[1]))
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for _, step in steps_of(job, job.demand(16), 16, 100):
        qkv = random_qkv(spec, step.n_rows, generator, dtype)
        tested.prepare(step), meaning.prepare(step)
        worst = max(worst, float((attend(tested, *qkv) - attend(meaning, *qkv)).abs().max()))
    assert worst < (2e-5 if dtype == torch.float32 else 0.04)


@pytest.mark.skipif(kernels().native is None, reason="no compiled kernels in use")
def test_compiled_kernels_are_taken_for_it() -> None:
    assert isinstance(pick_attention(spec_of(2, 2, 64), store_of(2, 2, 64, 4), CPU), NativeAttention)


@pytest.mark.skipif(not INSTRUCTION_SETS, reason="nothing was compiled")
def test_scales_and_types_that_do_not_belong_together_are_refused() -> None:
    native, store = Native(INSTRUCTION_SETS[0]), store_of(2, 2, 16, 2)
    job = random_job(random.Random(1), 1, longest=16)
    _, step = next(steps_of(job, job.demand(16), 16, 100))
    forest = native.lay_out(step, 0, 2, 2, None)
    q = torch.zeros(step.n_rows, 4, 16)
    floats = KVStore(spec_of(2, 2, 16), 2, 16, torch.float32, CPU)
    scales = store.key_scales[0], store.value_scales[0]
    for place in (
        Place(store.keys[0], store.values[0], torch.zeros(1, dtype=torch.int64)),
        Place(floats.keys[0], floats.values[0], torch.zeros(1, dtype=torch.int64), scales),
    ):
        with pytest.raises(TypeError, match="keys are"):
            native.attend(forest, q, place, spec_of(2, 2, 16).kv_shape(0))


def test_a_model_answers_with_it_alone_as_among_others() -> None:
    """The demo model knows its sums by more than int8 takes away; the pool counts in bytes."""
    llm = LLM("demo", dtype="float32", kv_cache_dtype="int8", allow_lossy=True, threads=1)
    params = SamplingParams(temperature=0.0, max_tokens=8, logprobs=1)
    prompts = [f"Add: {a} + {a + 3} =" for a in range(10, 60, 5)]
    usual = LLM("demo", dtype="float32", threads=1)
    answers, wanted = (engine.generate(prompts, params) for engine in (llm, usual))
    same = sum(a.outputs[0].token_ids == b.outputs[0].token_ids for a, b in zip(answers, wanted, strict=True))
    assert same >= 9
    assert llm.plan(prompts, params).decision("kv_dtype").value == "int8"
    for prompt, among in zip(prompts[::4], answers[::4], strict=True):
        (alone,) = llm.generate([prompt], params)
        assert alone.outputs[0].cumulative_logprob == among.outputs[0].cumulative_logprob
