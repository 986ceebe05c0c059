"""Goal 8, sampled: a store with a flipped bit, a cut or garbage at its end is mended or refused, never wrong."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.jobs.fakes import make_job, write_rows
from umbel.errors import UmbelError

ROWS = [{"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 2 + i % 4} for i in range(60)]
TRIES = 80


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finished")
    make_job(write_rows(directory / "in.jsonl", ROWS), directory / "out").run()
    return directory


def resume(finished: Path, place: Path, data: bytes) -> str:
    """Resume with `data` as the store and the output gone; "right" or the name of the refusal."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "out.umbel").write_bytes(data)
    for _ in range(2):  # a store that dropped damaged rows says: run again
        try:
            make_job(finished / "in.jsonl", place / "out").run()
        except UmbelError as error:
            refusal = type(error).__name__
            assert not (place / "out").exists()
        else:
            assert (place / "out").read_bytes() == (finished / "out").read_bytes()
            return "right"
    return refusal


def test_flipped_bytes(finished: Path, tmp_path: Path, seed: int) -> None:
    data = (finished / "out.umbel").read_bytes()
    rng = random.Random(5 + seed)
    seen = set()
    for _ in range(TRIES):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        seen.add(resume(finished, tmp_path / "job", bytes(damaged)))
    assert "right" in seen
    assert seen <= {"right", "StoreDamaged", "StoreMismatch", "DiskFull", "UsageError"}


def test_cuts_and_garbage(finished: Path, tmp_path: Path, seed: int) -> None:
    data = (finished / "out.umbel").read_bytes()
    rng = random.Random(6 + seed)
    for cut in [0, 1, 100, 4_096, *(rng.randrange(len(data)) for _ in range(12))]:
        assert resume(finished, tmp_path / "job", data[:cut]) in {"right", "StoreDamaged", "StoreMismatch"}
    assert resume(finished, tmp_path / "job", data + b"garbage" * 1_000) == "right"
