"""GPU attention against the reference: on a GPU where there is one, else in Triton's interpreter, on small steps."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here")

from tests.attention.stage import (
    attend,
    mixed_spec,
    poison,
    poison_free_pages,
    poisoned_store,
    random_job,
    random_qkv,
    random_sinks,
    spec_of,
    steps_of,
)
from tests.attention.test_view import random_view
from tests.parameters import few_of
from tests.sched.drive import Job
from umbel.attention.reference import ReferenceAttention
from umbel.attention.triton import TritonAttention
from umbel.ir.kv_shape import KVShape
from umbel.ir.spec import ModelSpec
from umbel.kernels.triton.forest import Tiles
from umbel.kernels.view import View
from umbel.kv.fp8 import Fp8Store
from umbel.kv.store import KVStore

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def worst_of(
    spec: ModelSpec,
    job: Job,
    page_size: int,
    chunk: int,
    dtype: torch.dtype,
    tiles: Tiles,
    make_store: Callable[..., KVStore] = poisoned_store,
) -> float:
    """Largest difference from the reference over all steps of a job, in memory full of NaN."""
    pages = job.demand(page_size)
    mine, theirs = (make_store(spec, pages, page_size, dtype, DEVICE) for _ in range(2))
    tested, meaning = TritonAttention(spec, mine, DEVICE, tiles), ReferenceAttention(spec, theirs)
    generator, worst = torch.Generator().manual_seed(chunk), 0.0
    for scheduler, step in steps_of(job, pages, page_size, chunk):
        poison_free_pages(scheduler.pool, mine, theirs)
        q, k, v = (t.to(DEVICE) for t in random_qkv(spec, step.n_rows, generator, dtype))
        tested.prepare(step), meaning.prepare(step)
        got, wanted = attend(tested, q, k, v), attend(meaning, q, k, v)
        assert got.shape == wanted.shape and got.dtype == dtype and torch.isfinite(got).all()
        worst = max(worst, float((got.double() - wanted.double()).abs().max()))
    return worst


@pytest.mark.parametrize("group", few_of([1, 7], [2, 3, 4, 8, 16]))
def test_every_group_means_the_reference(group: int) -> None:
    job = random_job(random.Random(group), 4, longest=140, out=3)
    assert worst_of(spec_of(2 if group < 4 else 1, group, 32), job, 16, 120, torch.float32, Tiles()) < 2e-5


@pytest.mark.parametrize(
    ("dim", "dtype"),
    few_of(
        [(80, torch.float32), (128, torch.bfloat16)],
        [*((dim, torch.float32) for dim in (64, 96, 128, 256)), (80, torch.bfloat16)],
    ),
)
def test_every_head_size_means_the_reference(dim: int, dtype: torch.dtype) -> None:
    job = random_job(random.Random(dim), 4, longest=140, out=3)
    limit = 2e-5 if dtype == torch.float32 else 0.04
    assert worst_of(spec_of(1, 2, dim), job, 16, 200, dtype, Tiles()) < limit


@pytest.mark.parametrize("dtype", few_of([torch.bfloat16], [torch.float32]))
def test_keys_and_values_in_fp8(dtype: torch.dtype) -> None:
    """Both sides read the same rounded numbers, so that they differ no more than with exact ones."""
    job = random_job(random.Random(3), 3, longest=140, out=3)
    limit = 2e-5 if dtype == torch.float32 else 0.04
    assert (
        worst_of(spec_of(2 if dtype == torch.float32 else 1, 4, 32), job, 16, 200, dtype, Tiles(), poisoned_fp8) < limit
    )


@pytest.mark.parametrize(("window", "page_size"), few_of([(1, 16), (128, 16)], [(50, 1), (200, 1)]))
def test_windows_and_pages(window: int, page_size: int) -> None:
    job = random_job(random.Random(window), 4, longest=257, out=3)
    assert worst_of(spec_of(1, 4, 16, window), job, page_size, 90, torch.float32, Tiles(32, 16, 16)) < 2e-5


LAYERS = {
    "windows": (KVShape(4, 2, 16, 16, 0.25, window=30), KVShape(4, 2, 16, 16, 0.25)),
    "heads": (KVShape(4, 2, 16, 16, 0.25), KVShape(3, 1, 32, 32, 0.2, window=50)),
    "caps and sinks": (KVShape(4, 2, 32, 32, 0.25, cap=20.0), KVShape(4, 2, 32, 32, 0.25, cap=5.0, sinks=True)),
    "sinks": (KVShape(4, 2, 32, 32, 0.25, sinks=True),),
    "sizes": (KVShape(2, 1, 80, 80, 0.1), KVShape(2, 1, 48, 24, 0.1), KVShape(2, 1, 24, 40, 0.1)),
    "latent": (KVShape(4, 1, 72, 64, 0.1, values_in_keys=True),),
    "large latent": (KVShape(32, 1, 288, 272, 0.05, values_in_keys=True), KVShape(2, 1, 32, 32, 0.2)),
    "many heads": (KVShape(34, 2, 16, 16, 0.25),),
}


@pytest.mark.parametrize(
    "name",
    [
        *few_of(["latent"], ["windows", "caps and sinks", "heads", "sizes"]),
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("many heads", "large latent", "sinks")),
    ],
)
def test_what_layers_may_be(name: str) -> None:
    """Each layer means the reference, rows that are whole and rows that are merged."""
    spec = mixed_spec(*LAYERS[name])
    job = Job([[1] * 90 + [2 + i] * 20 for i in range(5)], [1] * 5, [3] * 5)
    mine, theirs = (poisoned_store(spec, job.demand(16), 16, device=DEVICE) for _ in range(2))
    tiles = None if name == "large latent" else Tiles(32, 16, 32)
    tested, meaning = TritonAttention(spec, mine, DEVICE, tiles), ReferenceAttention(spec, theirs)
    generator, merged = torch.Generator().manual_seed(1), 0
    for _, step in steps_of(job, job.demand(16), 16, 130):
        tested.prepare(step), meaning.prepare(step)
        merged += len(tested.works[0].merges)
        for layer, shape in enumerate(spec.shapes):
            qkv = [t.to(DEVICE) for t in random_qkv(spec, step.n_rows, generator, torch.float32, layer)]
            sinks = random_sinks(shape, generator)
            sinks = None if sinks is None else sinks.to(DEVICE)
            got, wanted = (attend(one, *qkv, layer=layer, sinks=sinks) for one in (tested, meaning))
            assert got.shape == (step.n_rows, shape.n_heads, shape.value_dim)
            torch.testing.assert_close(got, wanted, atol=2e-5, rtol=2e-5)
    assert merged > 5


def test_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs cut short, so that most rows merge several results."""
    monkeypatch.setattr("umbel.attention.triton.LEAST_KEYS", 32)
    monkeypatch.setattr("umbel.attention.triton.MOST_KEYS", 48)
    job = random_job(random.Random(5), 2, longest=110, out=2)
    assert worst_of(spec_of(1, 3, 32), job, 4, 300, torch.float32, Tiles(16, 16, 32)) < 2e-5


@pytest.mark.slow
def test_runs_are_the_same_to_the_bit() -> None:
    job = random_job(random.Random(6), 4, longest=140, out=3)
    spec = spec_of(2, 2, 64)
    backends = [
        TritonAttention(spec, poisoned_store(spec, job.demand(16), 16, device=DEVICE), DEVICE) for _ in range(2)
    ]
    generator = torch.Generator().manual_seed(0)
    for _, step in steps_of(job, job.demand(16), 16, 150):
        qkv = [t.to(DEVICE) for t in random_qkv(spec, step.n_rows, generator, torch.float32)]
        for backend in backends:
            backend.prepare(step)
        one, other = (attend(backend, *qkv) for backend in backends)
        assert torch.equal(one, other)


def poisoned_fp8(spec: ModelSpec, n_pages: int, page_size: int, _: torch.dtype, device: torch.device) -> KVStore:
    """A store in fp8, scales included, full of NaN."""
    return poison(Fp8Store(spec, n_pages, page_size, device))


def test_wrong_shapes_are_refused() -> None:
    spec, job = spec_of(2, 2, 16), Job([[1, 2, 3]], [1], [2])
    backend = TritonAttention(spec, poisoned_store(spec, 4, 16, device=DEVICE), DEVICE)
    _, step = next(steps_of(job, 4, 16, 100))
    q, k, v = (t.to(DEVICE) for t in random_qkv(spec, step.n_rows, torch.Generator(), torch.float32))
    backend.prepare(step)
    with pytest.raises(ValueError, match="heads of 16"):
        attend(backend, q[:, :3], k, v)


def test_views_are_obeyed_and_a_whole_one_changes_no_bit() -> None:
    """Also under a window."""
    spec, rng = mixed_spec(KVShape(4, 2, 16, 16, 0.25), KVShape(4, 2, 16, 16, 0.25, window=150)), random.Random(8)
    base = [rng.randrange(50) for _ in range(270)]
    job, tiles = Job([base, [*base[:200], 1, 2]], [1, 1], [2, 2]), Tiles()
    mine, theirs = (poisoned_store(spec, job.demand(16), 16, torch.float32, DEVICE) for _ in range(2))
    tested, meaning = TritonAttention(spec, mine, DEVICE, tiles), ReferenceAttention(spec, theirs)
    generator = torch.Generator().manual_seed(0)
    for _, step in steps_of(job, job.demand(16), 16, 400):
        view = random_view(step, rng)
        whole = View(view.tile_of, torch.ones_like(view.reads))
        tested.prepare(step), meaning.prepare(step)
        for layer in range(2):
            qkv = [t.to(DEVICE) for t in random_qkv(spec, step.n_rows, generator, torch.float32, layer)]
            got, wanted = (attend(backend, *qkv, view, layer) for backend in (tested, meaning))
            assert (got.double() - wanted.double()).abs().max() < 2e-5
            assert torch.equal(attend(tested, *qkv, whole, layer), attend(tested, *qkv, layer=layer))
