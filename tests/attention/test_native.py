"""What the compiled attention reads, and that how its work is cut changes no bit."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from tests.attention.stage import (
    attend,
    mixed_spec,
    poisoned_store,
    random_job,
    random_qkv,
    random_sinks,
    spec_of,
    steps_of,
)
from tests.attention.test_view import random_view
from tests.sched.drive import Job
from umbel.attention.native import NativeAttention
from umbel.ir.kv_shape import KVShape
from umbel.ir.spec import ModelSpec
from umbel.kernels.native.calls import INSTRUCTION_SETS, Native
from umbel.kernels.view import View

if not INSTRUCTION_SETS:
    pytest.skip("no compiled kernels here", allow_module_level=True)
NATIVE = Native(INSTRUCTION_SETS[0])


def backend_of(spec: ModelSpec, pages: int, page_size: int, dtype: torch.dtype = torch.float32) -> NativeAttention:
    return NativeAttention(spec, poisoned_store(spec, pages, page_size, dtype), NATIVE)


@pytest.mark.parametrize("page_size", [1, 16])
def test_every_run_is_read_once(page_size: int) -> None:
    """Whatever forks where: the tokens of the step's nodes, each once, not once per row."""
    job = random_job(random.Random(page_size), 12)
    backend = backend_of(spec_of(1, 2, 16), job.demand(page_size), page_size)
    for _, step in steps_of(job, job.demand(page_size), page_size, 200):
        assert backend.prepare(step) == int((step.end - step.start).sum())


def test_a_window_bounds_what_is_read() -> None:
    prompts = [[i % 50 for i in range(2000)]]
    job = Job(prompts, [1], [5])
    backend = backend_of(spec_of(1, 2, 16, window=200), job.demand(16), 16)
    for _, step in steps_of(job, job.demand(16), 16, 100):
        assert backend.prepare(step) <= 200 + step.n_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group", [1, 3, 16])
@pytest.mark.parametrize("is_bent", [False, True])
def test_threads_and_blocks_change_no_bit(group: int, dtype: torch.dtype, is_bent: bool) -> None:
    """Also with caps, sinks, a window and values of another size."""
    plain = KVShape(2 * group, 2, 40, 40, 0.16)
    shape = replace(plain, value_dim=24, window=90, cap=5.0, sinks=True) if is_bent else plain
    spec, job = mixed_spec(shape), random_job(random.Random(group), 9)
    one, many = (backend_of(spec, job.demand(16), 16, dtype) for _ in range(2))
    generator = torch.Generator().manual_seed(group)
    for _, step in steps_of(job, job.demand(16), 16, 300):
        qkv, sinks = random_qkv(spec, step.n_rows, generator, dtype), random_sinks(shape, generator)
        torch.set_num_threads(1)
        one.prepare(step)
        wanted = attend(one, *qkv, sinks=sinks)
        torch.set_num_threads(7)
        many.prepare(step)
        assert many.forests[0].blocks >= min(step.n_rows, 2)
        assert torch.equal(attend(many, *qkv, sinks=sinks), wanted)


def test_wrong_shapes_are_refused() -> None:
    spec = spec_of(2, 2, 16)
    job = Job([[1, 2, 3]], [1], [2])
    backend = backend_of(spec, job.demand(16), 16)
    _, step = next(steps_of(job, job.demand(16), 16, 100))
    q, k, v = random_qkv(spec, step.n_rows, torch.Generator().manual_seed(0), torch.float32)
    backend.prepare(step)
    with pytest.raises(ValueError, match="rows"):
        attend(backend, q[:1], k, v)
    with pytest.raises(ValueError, match="rows"):
        attend(backend, q[..., :8], k, v)
    with pytest.raises(TypeError, match="float16, keys are"):
        attend(backend, q.half(), k, v)
    with pytest.raises(ValueError, match="a view with tiles of"):
        attend(backend, q, k, v, View.whole(step.n_rows + 1, 2, 1))
    # A query that is part of a wider tensor, as after one matmul for q, k and v, is read in place.
    wide = torch.cat((q, k, v), 1)
    parts = wide.split((spec.n_heads, spec.n_kv_heads, spec.n_kv_heads), 1)
    assert torch.equal(attend(backend, *parts), attend(backend, q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_others_read_changes_no_bit_of_a_row(dtype: torch.dtype) -> None:
    """A view of everything gives the bits of none, and each row of a view those of a view in which all rows are of its
    tile, cut for other threads."""
    spec, rng = spec_of(2, 3, 40), random.Random(5)
    job = random_job(rng, 5)
    backend = backend_of(spec, job.demand(16), 16, dtype)
    generator = torch.Generator().manual_seed(0)
    for at, (_, step) in enumerate(steps_of(job, job.demand(16), 16, 300)):
        qkv, view = random_qkv(spec, step.n_rows, generator, dtype), random_view(step, rng)
        torch.set_num_threads(1)
        backend.prepare(step)
        whole = replace(view, reads=torch.ones_like(view.reads))
        assert torch.equal(attend(backend, *qkv, whole), attend(backend, *qkv))
        got = attend(backend, *qkv, view)
        torch.set_num_threads(1 + at % 4)
        backend.prepare(step)
        for tile in range(len(view.reads)):
            alone = attend(backend, *qkv, replace(view, tile_of=torch.full_like(view.tile_of, tile)))
            assert torch.equal(got[view.tile_of == tile], alone[view.tile_of == tile])
