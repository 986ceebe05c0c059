"""Failed rows retried alone, and stops that come when all is done."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.fakes import FakeEngine, make_job, read_rows, write_rows
from tests.jobs.test_failpoints import Nth, die, in_child
from umbel.ir.plan import Plan
from umbel.ir.request import Output, RowError
from umbel.ir.workload import Workload
from umbel.jobs.job import RETRYABLE

ROWS = [{"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 2} for i in range(20)]
ROWS += [{"custom_id": "bad", "prompt": ""}]


class Failing(FakeEngine):
    """Fails every fifth row, in the two ways that another run may mend."""

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        for output in super().execute(workload, plan):
            if output.row % 5 == 0:
                error = RowError(RETRYABLE[output.row // 5 % 2], "simulated", type="server_error", status=500)
                yield Output(output.row, output.prompt_tokens, error=error)
            else:
                yield output


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", ROWS)


def test_only_rows_that_may_succeed_are_run_again(source: Path, expected: bytes, tmp_path: Path) -> None:
    first = make_job(source, tmp_path / "out", Failing()).run()
    assert (first.failed, first.exit_code) == (5, 3)
    assert make_job(source, tmp_path / "out", FakeEngine()).run().status == "already_complete"
    engine = FakeEngine()
    second = make_job(source, tmp_path / "out", engine, retry_failed=True).run()
    assert sorted(engine.seen) == [0, 5, 10, 15]
    assert (second.status, second.failed, second.resumed) == ("complete", 1, 17)
    assert (tmp_path / "out").read_bytes() == expected


def test_without_failures_there_is_nothing_to_do(source: Path, expected: bytes, tmp_path: Path) -> None:
    engine = FakeEngine()
    assert make_job(source, tmp_path / "whole", engine, retry_failed=True).run().status == "already_complete"
    assert engine.seen == []


def test_a_retry_that_is_killed_is_still_owed(source: Path, expected: bytes, tmp_path: Path) -> None:
    make_job(source, tmp_path / "out", Failing()).run()
    before = read_rows(tmp_path / "out")
    retry = make_job(source, tmp_path / "out", at=Nth("store.forget.after", 1, die), retry_failed=True)
    assert in_child(retry.run) == signal.SIGKILL
    assert read_rows(tmp_path / "out") == before  # the old output stays until there is a new one
    engine = FakeEngine()
    summary = make_job(source, tmp_path / "out", engine).run()
    assert (summary.status, sorted(engine.seen)) == ("complete", [0, 5, 10, 15])
    assert (tmp_path / "out").read_bytes() == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_last_moment_changes_nothing(number: int, source: Path, expected: bytes, tmp_path: Path) -> None:
    def late(name: str) -> None:
        if name == "store.finish.after":
            os.kill(os.getpid(), number)

    summary = make_job(source, tmp_path / "out", at=late).run()
    assert (summary.status, (tmp_path / "out").read_bytes()) == ("complete", expected)


def test_the_last_job_of_a_process_ends_it_deaf_to_sigterm(source: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    job = make_job(source, tmp_path / "out")
    job.last = True
    try:
        job.run()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
