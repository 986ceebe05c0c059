"""Every attention backend of the catalogue against the reference on random steps, in memory poisoned with NaN."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attention.stage import (
    BACKENDS,
    CAN,
    attend,
    mixed_spec,
    poison_free_pages,
    poisoned_store,
    random_job,
    random_qkv,
    random_sinks,
    spec_of,
    steps_of,
)
from tests.attention.test_view import random_view
from tests.sched.drive import Job
from umbel.attention.reference import ReferenceAttention
from umbel.ir.kv_shape import KVShape
from umbel.ir.spec import ModelSpec
from umbel.kernels.native.calls import INSTRUCTION_SETS

EACH = pytest.mark.parametrize("backend", BACKENDS)
NARROW = pytest.mark.parametrize("backend", [name for name in BACKENDS if "bfloat16" in CAN[name].dtypes])
WINDOWED = pytest.mark.parametrize("backend", [name for name in BACKENDS if CAN[name].windows])


def fitted(backend: str, n_kv_heads: int, group: int, head_dim: int, window: int | None) -> ModelSpec:
    """A model of that shape, as far as the backend's capability record allows."""
    can = CAN[backend]
    size = head_dim if not can.head_dims or head_dim in can.head_dims else can.head_dims[0]
    return spec_of(n_kv_heads, group, size, window if can.windows else None)


LOCAL = KVShape(4, 2, 16, 16, 0.25, window=50)
MIXTURES = {
    "windows": (LOCAL, replace(LOCAL, window=None), LOCAL, replace(LOCAL, window=1)),
    "heads": (LOCAL, KVShape(6, 1, 16, 16, 0.2), KVShape(4, 4, 16, 16, 0.25, window=50)),
    "sizes": (LOCAL, KVShape(4, 2, 24, 24, 0.2), KVShape(4, 2, 40, 40, 0.3, window=130)),
    "caps": (replace(LOCAL, cap=5.0), KVShape(4, 2, 24, 24, 0.2, cap=30.0), LOCAL),
    "sinks": (replace(LOCAL, sinks=True), KVShape(14, 2, 24, 24, 0.2, sinks=True), LOCAL),
    "caps and sinks": (replace(LOCAL, cap=5.0, sinks=True), KVShape(3, 3, 64, 64, 0.2, cap=5.0, sinks=True)),
    "values": (KVShape(4, 2, 48, 32, 0.2), KVShape(4, 2, 20, 40, 0.2), KVShape(2, 2, 192, 128, 0.1, window=50)),
    "latent": (KVShape(16, 1, 40, 32, 0.2, values_in_keys=True), KVShape(4, 1, 72, 20, 0.1, values_in_keys=True)),
    "common": tuple(KVShape(2, 1, size, size, size**-0.5) for size in (64, 80, 96, 112, 128, 160, 192, 256)),
}


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("backend", [name for name in BACKENDS if CAN[name].features])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_what_layers_may_be(backend: str, mixture: str, narrow: bool) -> None:
    """Each layer means the reference, and what is said to be read is the mean by bytes."""
    dtype, limit = (torch.bfloat16, 0.04) if narrow else (torch.float32, 2e-5)
    spec, job = mixed_spec(*MIXTURES[mixture]), random_job(random.Random(5), 6, longest=257, out=5)
    mine, theirs = (poisoned_store(spec, job.demand(16), 16, dtype) for _ in range(2))
    tested, reference = BACKENDS[backend](spec, mine), ReferenceAttention(spec, theirs)
    alone = [BACKENDS[backend](mixed_spec(shape), poisoned_store(mixed_spec(shape), 1, 16)) for shape in spec.shapes]
    generator = torch.Generator().manual_seed(0)
    for _, step in steps_of(job, job.demand(16), 16, 100):
        read, _ = tested.prepare(step), reference.prepare(step)
        parts = [(one.prepare(step), s.n_kv_heads * s.stored_dim) for one, s in zip(alone, spec.shapes, strict=True)]
        assert abs(read - sum(r * held for r, held in parts) / sum(held for _, held in parts)) <= 0.5
        for layer, shape in enumerate(spec.shapes):
            qkv, sinks = random_qkv(spec, step.n_rows, generator, dtype, layer), random_sinks(shape, generator)
            got, wanted = (attend(one, *qkv, layer=layer, sinks=sinks) for one in (tested, reference))
            assert got.shape == (step.n_rows, shape.n_heads, shape.value_dim) and got.dtype == dtype
            torch.testing.assert_close(got, wanted, atol=limit, rtol=2e-5)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if CAN[name].features])
def test_sinks_are_given_to_layers_that_have_some_and_to_no_others(backend: str) -> None:
    spec, job = mixed_spec(LOCAL, replace(LOCAL, sinks=True)), Job([[1, 2, 3]], [1], [2])
    tested = BACKENDS[backend](spec, poisoned_store(spec, 4, 16))
    _, step = next(steps_of(job, 4, 16, 100))
    tested.prepare(step)
    qkv = random_qkv(spec, step.n_rows, torch.Generator().manual_seed(0), torch.float32)
    for layer, sinks in ((0, torch.zeros(4)), (1, None), (1, torch.zeros(3)), (1, torch.zeros(4).double())):
        with pytest.raises(ValueError, match=r"sinks .*: the layer has"):
            attend(tested, *qkv, layer=layer, sinks=sinks)


def compare(
    backend: str, spec: ModelSpec, seed: int, page_size: int, chunk: int, n_rows: int, dtype: torch.dtype, longest: int
) -> float:
    """Largest difference between the two backends over all steps of a random job."""
    rng = random.Random(seed)
    job = random_job(rng, n_rows, longest, out=6)
    pages = max(job.demand(page_size) // rng.choice((1, 2, 4)), job.largest_row(page_size))
    mine, theirs = (poisoned_store(spec, pages, page_size, dtype) for _ in range(2))
    tested, reference = BACKENDS[backend](spec, mine), ReferenceAttention(spec, theirs)
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for scheduler, step in steps_of(job, pages, page_size, chunk):
        poison_free_pages(scheduler.pool, mine, theirs)
        q, k, v = random_qkv(spec, step.n_rows, generator, dtype)
        tested.prepare(step), reference.prepare(step)
        got, wanted = attend(tested, q, k, v), attend(reference, q, k, v)
        assert got.shape == wanted.shape and got.dtype == q.dtype
        assert torch.isfinite(wanted).all() and torch.isfinite(got).all()
        worst = max(worst, float((got.double() - wanted.double()).abs().max()))
    return worst


@EACH
@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    n_kv_heads=st.integers(1, 3),
    group=st.integers(1, 16),
    head_dim=st.sampled_from((8, 16, 20, 24, 36, 64, 80, 128)),
    page_size=st.sampled_from((1, 4, 16)),
    chunk=st.sampled_from((30, 64, 128, 500, 5000)),
    window=st.sampled_from((None, None, None, 1, 50, 128, 200)),
    n_rows=st.integers(1, 8),
)
def test_backends_mean_the_reference(
    backend: str,
    seed: int,
    n_kv_heads: int,
    group: int,
    head_dim: int,
    page_size: int,
    chunk: int,
    window: int | None,
    n_rows: int,
) -> None:
    spec = fitted(backend, n_kv_heads, group, head_dim, window)
    assert compare(backend, spec, seed, page_size, chunk, n_rows, torch.float32, longest=200) < 2e-5


@EACH
@pytest.mark.parametrize("window", [None, 150])
def test_long_contexts(backend: str, window: int | None) -> None:
    assert compare(backend, fitted(backend, 2, 3, 32, window), 7, 16, 333, 10, torch.float32, longest=300) < 2e-5


@NARROW
@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    group=st.integers(1, 8),
    head_dim=st.sampled_from((8, 20, 64, 80, 96, 128, 256)),
    page_size=st.sampled_from((1, 16)),
    chunk=st.sampled_from((30, 128, 500)),
    window=st.sampled_from((None, None, 1, 50, 129)),
)
def test_bfloat16_stays_near_the_reference(
    backend: str, seed: int, group: int, head_dim: int, page_size: int, chunk: int, window: int | None
) -> None:
    """Queries, keys, values and outputs in bfloat16: the float64 result, give or take a rounding or two."""
    spec = fitted(backend, 2, group, head_dim, window)
    assert compare(backend, spec, seed, page_size, chunk, 6, torch.bfloat16, longest=257) < 0.04


@pytest.mark.parametrize("backend", INSTRUCTION_SETS)
@pytest.mark.parametrize("length", [40, 700])
def test_bfloat16_is_as_near_as_that_of_torch(backend: str, length: int) -> None:
    """Root mean square of the error against float64, beside that of scaled_dot_product_attention."""
    spec = spec_of(2, 2, 128)
    job = Job([[i % 50 for i in range(length)]], [1], [1])
    mine, theirs = (poisoned_store(spec, job.demand(16), 16, torch.bfloat16) for _ in range(2))
    tested, reference = BACKENDS[backend](spec, mine), ReferenceAttention(spec, theirs)
    _, step = next(steps_of(job, job.demand(16), 16, 1000))
    q, k, v = random_qkv(spec, step.n_rows, torch.Generator().manual_seed(0), torch.bfloat16)
    tested.prepare(step), reference.prepare(step)
    wanted = attend(reference, q.double(), k, v)
    heads = (t.transpose(0, 1)[None] for t in (q, k, v))
    plain = F.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
    mine_off, theirs_off = ((out - wanted).square().mean().sqrt() for out in (attend(tested, q, k, v), plain))
    assert mine_off < 1.1 * theirs_off


@WINDOWED
@pytest.mark.parametrize("window", [16, 127, 128, 129])
def test_lengths_around_the_window(backend: str, window: int) -> None:
    """Sequences of W - 1, W, W + 1 and 2 W tokens: the classic off-by-one."""
    rng = random.Random(window)
    prompts = [[rng.randrange(50) for _ in range(n)] for n in (1, window - 1, window, window + 1, 2 * window)]
    spec = fitted(backend, 1, 2, 16, window)
    job = Job(prompts, [1] * 5, [3] * 5)
    mine, theirs = (poisoned_store(spec, job.demand(4), 4) for _ in range(2))
    tested, reference = BACKENDS[backend](spec, mine), ReferenceAttention(spec, theirs)
    generator = torch.Generator().manual_seed(0)
    for _, step in steps_of(job, job.demand(4), 4, 50):
        qkv = random_qkv(spec, step.n_rows, generator, torch.float32)
        tested.prepare(step), reference.prepare(step)
        torch.testing.assert_close(attend(tested, *qkv), attend(reference, *qkv), atol=1e-5, rtol=1e-5)


@EACH
def test_a_view_is_obeyed_or_refused_as_the_record_says(backend: str) -> None:
    rng, spec = random.Random(1), fitted(backend, 2, 2, 16, None)
    job = random_job(rng, 3, longest=300, out=3)
    mine, theirs = (poisoned_store(spec, job.demand(4), 4) for _ in range(2))
    tested, reference = BACKENDS[backend](spec, mine), ReferenceAttention(spec, theirs)
    for _, step in steps_of(job, job.demand(4), 4, 160):
        q, k, v = random_qkv(spec, step.n_rows, torch.Generator().manual_seed(0), torch.float32)
        view = random_view(step, rng)
        tested.prepare(step), reference.prepare(step)
        if CAN[backend].selects:
            assert (attend(tested, q, k, v, view) - attend(reference, q, k, v, view)).abs().max() < 2e-5
        else:
            with pytest.raises(ValueError, match="attention reads whole paths: it was given a view"):
                attend(tested, q, k, v, view)
