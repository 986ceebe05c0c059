"""What tests of jobs compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.fakes import make_job


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> bytes:
    """Output of an uninterrupted run over the test's `source`, in one window and without a budget."""
    assert make_job(source, tmp_path / "whole").run().exit_code in (0, 3)
    return (tmp_path / "whole").read_bytes()


@pytest.fixture(autouse=True)
def fixed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of a test begin in the same second, as OpenAI's lines show it."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
