"""Looking at a job while it runs, and removing what it leaves when it is complete."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import FakeEngine, make_job, read_rows, write_rows
from umbel.cli.main import main
from umbel.errors import StoreBusy, StoreDamaged, UsageError
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.jobs import store as store_module
from umbel.jobs import store_tables
from umbel.jobs.clean import clean
from umbel.jobs.paths import store_path
from umbel.jobs.report.report import read_report
from umbel.jobs.status import read_status
from umbel.jobs.store import JobStore
from umbel.jobs.write.export import export

ROWS = [{"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 2 + i % 4} for i in range(12)]


class Looked(FakeEngine):
    """Gives eight answers, then looks at its own job."""

    look: Callable[[], None]

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        for i, output in enumerate(super().execute(workload, plan)):
            if i == 8:
                self.look()
            yield output


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", ROWS)


def run(source: Path, output: Path, look: Callable[[], None]) -> None:
    engine = Looked(reverse=False)
    engine.look = look
    assert make_job(source, output, engine).run().exit_code == 0


def test_a_running_job_can_be_looked_at(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store_module, "GROUP_ROWS", 4)
    found: dict[str, Any] = {}

    def look() -> None:
        found["status"], found["report"] = read_status(output), read_report(output)
        found["exported"] = export(output, "input", output.with_name("so-far"), print)
        with pytest.raises(StoreBusy, match="another process is running this job"):
            JobStore(store_path(output))
        assert main(["status", str(output)]) == 0
        assert main(["export", str(output)]) == 0

    run(source, output, look)
    assert (found["status"]["status"], found["status"]["done"]) == ("running", 8)
    assert found["report"]["status"] == "running" and found["report"]["rows"]["stored"] == 8
    assert found["exported"] == 8
    whole = output.read_bytes().splitlines(keepends=True)
    assert output.with_name("so-far").read_bytes().splitlines(keepends=True) == whole[:8]
    told = capfd.readouterr()
    assert "out: running" in told.out and '"row-7"' in told.out and "8 rows exported" in told.err
    assert read_status(output)["status"] == "complete"


def test_nothing_is_overwritten_by_an_export(source: Path, output: Path) -> None:
    make_job(source, output).run()
    before = output.read_bytes()
    for target in (output, source, store_path(output)):
        with pytest.raises(UsageError):
            export(output, "input", target, print)
    assert output.read_bytes() == before and read_rows(source) == ROWS
    assert len(list(output.parent.iterdir())) == 3


def test_without_shared_memory_one_process_works_alone(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems of networks: the job runs, and readers wait until it is over."""
    opened = store_tables._opened

    def alone(path: Path, locking: str) -> sqlite3.Connection:
        if locking == "NORMAL":
            raise sqlite3.OperationalError("disk I/O error")
        return opened(path, locking)

    monkeypatch.setattr(store_tables, "_opened", alone)
    monkeypatch.setattr(store_tables, "READERS_SECONDS", 0.0)

    def look() -> None:
        with pytest.raises(StoreBusy):
            read_status(output)

    run(source, output, look)
    assert read_status(output)["done"] == 12


def test_a_lock_that_a_killed_process_has_left_holds_nobody_up(source: Path, output: Path) -> None:
    store_path(output).with_name("out.umbel-lock").touch()
    assert make_job(source, output).run().exit_code == 0
    assert {path.name for path in output.parent.iterdir()} == {"in.jsonl", "out", "out.umbel"}


def test_a_lock_that_is_no_file_is_refused(source: Path, output: Path, tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", tmp_path / "out.umbel-lock")
    with pytest.raises(StoreDamaged, match="is a link"):
        make_job(source, output).run()
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_complete_job_leaves_is_removed(source: Path, output: Path) -> None:
    make_job(source, output).run()
    answers, size = output.read_bytes(), store_path(output).stat().st_size
    assert clean(output) == size
    assert output.read_bytes() == answers
    assert {path.name for path in output.parent.iterdir()} == {"in.jsonl", "out"}


def test_a_store_that_is_needed_is_kept(source: Path, output: Path) -> None:
    def look() -> None:
        with pytest.raises(StoreBusy):
            clean(output)

    run(source, output, look)
    output.write_bytes(b"changed")
    with pytest.raises(UsageError, match="not the file that this job wrote"):
        clean(output)
    output.unlink()
    with pytest.raises(UsageError, match="not the file"):
        clean(output)
    assert make_job(source, output).run().status == "complete"
    with pytest.raises(UsageError, match="no job to look at"):
        clean(source)
