"""Settings for all tests: no time limits on single examples, as shared machines stall; no history of earlier runs; GPU
kernels in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read where kernels are imported

settings.register_profile("umbel", deadline=None, print_blob=True)
settings.load_profile("umbel")


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What fixtures learn that live longer than a test goes to a folder of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UMBEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A command ends its process deaf to signals; this process goes on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _cache_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test teaches is not known to the next."""
    monkeypatch.setenv("UMBEL_CACHE", f"{tmp_path}-cache")
