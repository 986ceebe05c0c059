"""What tests of jobs compare with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.fakes import make_job


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> bytes:
    """Output of an uninterrupted run over the test's `source`, in one window and without a budget."""
    assert make_job(source, tmp_path / "whole").run().exit_code in (0, 3)
    return (tmp_path / "whole").read_bytes()


@pytest.fixture(autouse=True, scope="session")
def fixed_start() -> Iterator[None]:
    """Jobs of tests begin in the same second, as OpenAI's lines show it; also those of fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield
