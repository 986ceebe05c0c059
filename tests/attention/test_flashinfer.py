"""The FlashInfer backend on what its calls mean, against the reference, in memory full of NaN; never on FlashInfer."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import pytest
import torch

from tests.attention import fake_flashinfer
from tests.attention.stage import (
    CPU,
    attend,
    poison_free_pages,
    poisoned_store,
    random_job,
    random_qkv,
    spec_of,
    steps_of,
)
from tests.sched.drive import Job
from umbel.attention.flashinfer import FlashInferAttention
from umbel.attention.reference import ReferenceAttention
from umbel.ir.spec import ModelSpec

ALWAYS, NEVER = 1e9, 0.0  # makes a pass of its own
WRAPPER = fake_flashinfer.BatchPrefillWithPagedKVCacheWrapper


@pytest.fixture(autouse=True)
def flashinfer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meaning in place of the package, whether that is installed or not."""
    monkeypatch.setitem(sys.modules, "flashinfer", fake_flashinfer.module())


def compare(
    spec: ModelSpec, job: Job, page_size: int, chunk: int, share_factor: float, dtype: torch.dtype = torch.float32
) -> tuple[float, int, set[object]]:
    """Largest difference from the reference over all steps of a job, the most passes that one took, sizes of pages and
    kinds of row lists."""
    pages = job.demand(page_size)
    mine, theirs = (poisoned_store(spec, pages, page_size, dtype) for _ in range(2))
    tested, meaning = FlashInferAttention(spec, mine, CPU), ReferenceAttention(spec, theirs)
    tested.cut = replace(tested.cut, share_factor=share_factor)
    generator, worst, most, kinds = torch.Generator().manual_seed(chunk), 0.0, 0, set()
    for scheduler, step in steps_of(job, pages, page_size, chunk):
        poison_free_pages(scheduler.pool, mine, theirs)
        q, k, v = random_qkv(spec, step.n_rows, generator, dtype)
        before = WRAPPER.planned
        assert tested.prepare(step) > 0
        meaning.prepare(step)
        got, wanted = attend(tested, q, k, v), attend(meaning, q, k, v)
        assert got.shape == wanted.shape and got.dtype == dtype and torch.isfinite(got).all()
        worst = max(worst, float((got.double() - wanted.double()).abs().max()))
        most = max(most, WRAPPER.planned - before)
        kinds |= {*tested._sizes, *map(type, tested._rows)}
    return worst, most, kinds


@pytest.mark.parametrize("share_factor", [ALWAYS, NEVER, 0.5])
@pytest.mark.parametrize("group", range(1, 9))
def test_every_group_means_the_reference(group: int, share_factor: float) -> None:
    job = random_job(random.Random(group), 6, longest=257, out=5)
    worst, most, _ = compare(spec_of(2, group, 16), job, 16, 120, share_factor)
    assert worst < 2e-5
    assert share_factor == 0.5 or (most > 1) == (share_factor == ALWAYS)


@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize("chunk", [30, 100, 5000])
def test_pages_and_chunks(page_size: int, chunk: int) -> None:
    job = random_job(random.Random(page_size + chunk), 7, longest=300, out=8)
    assert compare(spec_of(1, 3, 16), job, page_size, chunk, ALWAYS)[0] < 2e-5


def test_several_levels_and_prompts_on_the_way() -> None:
    """A tree of three levels whose middle is still in prefill while others decode below it."""
    base, middle = [1] * 40, [2] * 33
    job = Job([base + middle + [3 + i] * 30 for i in range(4)] + [[*base, 9, i] for i in range(4)], [2] * 8, [4] * 8)
    worst, most, kinds = compare(spec_of(2, 2, 16), job, 16, 48, ALWAYS)
    assert worst < 2e-5 and most >= 3
    assert {1, 16} < kinds, "both whole pages and slots were to be listed"
    assert {slice, torch.Tensor} < kinds, "rows were to lie side by side, and apart"


@pytest.mark.parametrize("window", [1, 50, 128, 200])
@pytest.mark.parametrize("page_size", [1, 16])
def test_windows_share_nothing(window: int, page_size: int) -> None:
    job = random_job(random.Random(window), 5, longest=257, out=4)
    worst, most, _ = compare(spec_of(1, 4, 16, window), job, page_size, 90, ALWAYS)
    assert worst < 2e-5 and most == 1


def test_windows_read_no_more_than_they_see() -> None:
    spec = spec_of(1, 1, 16, 20)
    job = Job([[1] * 200], [1], [9])
    backend = FlashInferAttention(spec, poisoned_store(spec, 20, 16), CPU)
    read = [backend.prepare(step) for _, step in steps_of(job, 20, 16, 300)]
    assert read[0] == 200 and max(read[1:]) < 20 + 16, "a page more than the window at most"


def test_in_bfloat16() -> None:
    """Partial results are rounded to bfloat16 before they are merged, as FlashInfer's are."""
    job = random_job(random.Random(3), 6, longest=200, out=5)
    assert compare(spec_of(2, 4, 64), job, 16, 120, ALWAYS, torch.bfloat16)[0] < 0.06


def test_keys_are_read_where_they_are() -> None:
    spec = spec_of(2, 2, 16)
    store = poisoned_store(spec, 3, 16)
    keys, values = FlashInferAttention(spec, store, CPU)._paged(0, 4)
    assert keys.data_ptr() == store.keys[0].data_ptr() and values.data_ptr() == store.values[0].data_ptr()
