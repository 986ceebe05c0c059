"""A process that answers many requests holds as much at the end as in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.growth import WAYS, watched

from tests.tiny_models import make_model

REQUESTS = 10_000
MOST_MIB = 8.0
"""Of growth in the second half: 1.6 KiB a request, where a prompt, its answer and their record take more."""


@pytest.mark.nightly
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_kept_of_requests_that_are_answered(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_CACHE", str(tmp_path / "cache"))
    held = watched(way, str(make_model(tmp_path / "model", "qwen3")), REQUESTS)
    middle, end = held[len(held) // 2], held[-1]
    assert (end.descriptors, end.threads) == (middle.descriptors, middle.threads)
    assert end.mib <= middle.mib + MOST_MIB, held
