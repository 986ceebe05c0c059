"""Tensors on large pages: whole, on their own, aligned, freed with their last view."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path

import pytest
import torch

from umbel.kernels.memory import HUGE, empty

PAGES = Path("/sys/kernel/mm/transparent_hugepage")
SHAPES = [(), (3, 5), (0, 4), (1 << 20,), (3, 1 << 20), (7, 333, 1001)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32, torch.uint8])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_has_memory_of_its_own(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    a, b = empty(shape, dtype), empty(shape, dtype)
    assert a.shape == b.shape == shape and a.dtype == b.dtype == dtype and a.is_contiguous()
    a.fill_(1), b.fill_(2)
    assert bool((a == 1).all()) and bool((b == 2).all())


@pytest.mark.skipif(not PAGES.exists(), reason="the kernel was built without large pages, or is not Linux")
def test_large_ones_begin_on_a_large_page() -> None:
    assert empty((HUGE,), torch.uint8).data_ptr() % HUGE == 0
    assert empty((5, HUGE), torch.float32).data_ptr() % HUGE == 0


def test_a_system_without_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert empty((2, HUGE), torch.uint8).fill_(3).sum() == 6 * HUGE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_goes_with_the_last_view() -> None:
    def pages() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1])

    before, size = pages(), 64 << 20
    part = empty((size,), torch.uint8).fill_(1)[-10:]
    assert (pages() - before) * mmap.PAGESIZE > size * 0.9
    assert part.sum() == 10
    del part
    assert (pages() - before) * mmap.PAGESIZE < size * 0.5
