"""A job from file to file: resume, refusals, stops, and what the summary says."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.fakes import FakeEngine, make_job, read_rows, write_rows
from umbel.errors import DiskFull, StoreBusy, StoreMismatch, UmbelError, UsageError
from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.jobs import store as store_module
from umbel.jobs.paths import store_path
from umbel.jobs.store import JobStore
from umbel.jobs.summary import closing_lines

ROWS = [{"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 2 + i % 4} for i in range(30)]


class StoppingEngine(FakeEngine):
    """Gives `rows` answers, then does `act`."""

    rows = 10
    signals: tuple[int, ...] = (signal.SIGTERM,)

    def act(self) -> None:
        for number in self.signals:
            os.kill(os.getpid(), number)

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        for i, output in enumerate(super().execute(workload, plan)):
            if i == self.rows:
                self.act()
            yield output


class FailingEngine(StoppingEngine):
    def act(self) -> None:
        raise MemoryError("simulated")


class ForgetfulEngine(FakeEngine):
    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        return (output for output in super().execute(workload) if output.row)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", ROWS)


def test_one_line_per_row_in_input_order(source: Path, expected: bytes, tmp_path: Path) -> None:
    assert [row["custom_id"] for row in read_rows(tmp_path / "whole")] == [row["custom_id"] for row in ROWS]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "whole", "whole.umbel"]


def test_order_finish_writes_rows_as_they_came(source: Path, expected: bytes, tmp_path: Path) -> None:
    make_job(source, tmp_path / "out", order="finish").run()
    assert (tmp_path / "out").read_bytes().splitlines() == expected.splitlines()[::-1]


class TwiceInterruptedEngine(StoppingEngine):
    """The first Ctrl-C arrives while something holds it off, the second right behind it."""

    def act(self) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_ends_at_once_and_loses_nothing(source: Path, expected: bytes, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_job(source, tmp_path / "out", TwiceInterruptedEngine()).run()
    make_job(source, tmp_path / "out").run()
    assert (tmp_path / "out").read_bytes() == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_drains_and_the_next_run_goes_on(number: int, source: Path, expected: bytes, tmp_path: Path) -> None:
    engine = StoppingEngine()
    engine.signals = (number,)
    first = make_job(source, tmp_path / "out", engine).run()
    assert (first.status, first.exit_code, first.ok) == ("drained", 75, 10)
    assert not (tmp_path / "out").exists()
    engine = FakeEngine()
    second = make_job(source, tmp_path / "out", engine).run()
    assert (second.status, second.resumed, len(engine.seen)) == ("complete", 10, 20)
    assert second.computed_prompt_tokens == 3 * (30 + 1)  # the row that was in flight counts twice
    assert (tmp_path / "out").read_bytes() == expected


def test_handlers_are_put_back(source: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    make_job(source, tmp_path / "out", StoppingEngine()).run()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_an_engine_that_dies_loses_no_finished_row(source: Path, expected: bytes, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        make_job(source, tmp_path / "out", FailingEngine()).run()
    engine = FakeEngine()
    make_job(source, tmp_path / "out", engine).run()
    assert len(engine.seen) == 20
    assert (tmp_path / "out").read_bytes() == expected


def test_rows_without_an_answer_are_not_passed_over(source: Path, expected: bytes, tmp_path: Path) -> None:
    with pytest.raises(UmbelError, match="no answer for 1 rows"):
        make_job(source, tmp_path / "out", ForgetfulEngine()).run()
    assert not (tmp_path / "out").exists()
    make_job(source, tmp_path / "out").run()
    assert (tmp_path / "out").read_bytes() == expected


def test_a_finished_job_is_not_run_again(source: Path, tmp_path: Path) -> None:
    make_job(source, tmp_path / "out").run()
    before = (tmp_path / "out").stat()
    engine = FakeEngine()
    summary = make_job(source, tmp_path / "out", engine).run()
    assert (summary.status, summary.rows, summary.ok, engine.seen) == ("already_complete", 30, 30, [])
    assert (tmp_path / "out").stat().st_mtime_ns == before.st_mtime_ns


def test_a_lost_output_is_written_again_without_the_model(source: Path, expected: bytes, tmp_path: Path) -> None:
    make_job(source, tmp_path / "out").run()
    (tmp_path / "out").unlink()
    engine = FakeEngine()
    make_job(source, tmp_path / "out", engine).run()
    assert (engine.seen, (tmp_path / "out").read_bytes()) == ([], expected)


def test_another_order_is_another_copy_of_the_store(source: Path, expected: bytes, tmp_path: Path) -> None:
    make_job(source, tmp_path / "out", order="finish").run()
    engine = FakeEngine()
    make_job(source, tmp_path / "out", engine).run()
    assert (engine.seen, (tmp_path / "out").read_bytes()) == ([], expected)


def test_bad_rows_are_kept_over_a_resume(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [b"{", *ROWS])
    make_job(source, tmp_path / "out", StoppingEngine()).run()
    summary = make_job(source, tmp_path / "out").run()
    assert (summary.exit_code, summary.failed, summary.resumed) == (3, 1, 11)


class TestRefusals:
    def test_output_equal_to_the_input(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "soft").symlink_to(source)
        (tmp_path / "hard").hardlink_to(source)
        (tmp_path / "dir").symlink_to(tmp_path)
        before = source.read_bytes()
        for name in ("in.jsonl", "soft", "hard", "dir/in.jsonl", "dir/../" + tmp_path.name + "/in.jsonl"):
            with pytest.raises(UsageError, match="overwrite the input"):
                make_job(source, tmp_path / name).run()
        assert source.read_bytes() == before

    def test_input_equal_to_the_store(self, source: Path, tmp_path: Path) -> None:
        store = source.rename(tmp_path / "out.umbel")
        with pytest.raises(UsageError, match="overwrite the input"):
            make_job(store, tmp_path / "out").run()

    def test_an_output_that_no_store_made(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("precious")
        with pytest.raises(UsageError, match=r"no job store beside it made it.*--overwrite"):
            make_job(source, tmp_path / "out").run()
        assert (tmp_path / "out").read_text() == "precious"
        assert not store_path(tmp_path / "out").exists()

    def test_an_output_that_was_changed_afterwards(self, source: Path, tmp_path: Path) -> None:
        make_job(source, tmp_path / "out").run()
        (tmp_path / "out").write_text("edited")
        with pytest.raises(UsageError, match="was changed"):
            make_job(source, tmp_path / "out").run()

    def test_a_changed_input_or_version(self, source: Path, tmp_path: Path) -> None:
        make_job(source, tmp_path / "out", StoppingEngine()).run()
        with pytest.raises(StoreMismatch, match="version: 1 -> 2"):
            make_job(source, tmp_path / "out", version="2").run()
        write_rows(source, ROWS[1:])
        with pytest.raises(StoreMismatch, match=r"input\.sha256.*\n.*input\.bytes"):
            make_job(source, tmp_path / "out").run()

    def test_a_job_that_is_running(self, source: Path, tmp_path: Path) -> None:
        store = JobStore(store_path(tmp_path / "out"))
        for fresh in (False, True):
            with pytest.raises(StoreBusy, match="another process"):
                make_job(source, tmp_path / "out", fresh=fresh).run()
        store.close()

    @pytest.mark.parametrize("name", [".", "nowhere/out"])
    def test_places_that_are_no_files(self, name: str, source: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError):
            make_job(source, tmp_path / name).run()


def test_fresh_starts_again_and_survives_a_stop(source: Path, expected: bytes, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    first = make_job(source, tmp_path / "out", StoppingEngine(), fresh=True).run()
    assert (first.status, (tmp_path / "out").read_text()) == ("drained", "old")
    make_job(source, tmp_path / "out").run()
    assert (tmp_path / "out").read_bytes() == expected


def test_a_full_disk_while_writing_leaves_no_half_file(source: Path, expected: bytes, tmp_path: Path) -> None:
    def full(name: str) -> None:
        if name == "output.write.after":
            raise OSError(28, "No space left on device")

    with pytest.raises(DiskFull, match=r"out: writing failed after [\d,]+ bytes \(No space left"):
        make_job(source, tmp_path / "out", at=full).run()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".out", "out"))) == ["out.umbel"]
    engine = FakeEngine()
    make_job(source, tmp_path / "out", engine).run()
    assert (engine.seen, (tmp_path / "out").read_bytes()) == ([], expected)


def test_a_failed_sync_stops_the_job(source: Path, tmp_path: Path) -> None:
    def fails(name: str) -> None:
        if name == "output.fsync.before":
            raise OSError(5, "Input/output error")

    with pytest.raises(DiskFull, match="Input/output error"):
        make_job(source, tmp_path / "out", at=fails).run()
    assert not (tmp_path / "out").exists()


def test_rows_that_end_by_length_are_warned_of(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "x", "max_tokens": 1}] + [{"prompt": "y"}] * 9)
    summary = make_job(source, tmp_path / "out").run()
    assert summary.ended_by_length == 1
    assert any("1 of 10 rows (10.0%) ended by length" in text for text in summary.warnings)


def test_the_summary_adds_up(source: Path, tmp_path: Path) -> None:
    summary = make_job(source, tmp_path / "out").run()
    rows = read_rows(tmp_path / "out")
    assert summary.prompt_tokens == sum(row["usage"]["prompt_tokens"] for row in rows)
    assert summary.output_tokens == sum(row["usage"]["completion_tokens"] for row in rows)
    assert set(summary.seconds) == {"plan", "load", "run", "write"}
    assert summary.as_dict()["rows"] == 30


def test_small_groups_commit_often(
    source: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "GROUP_ROWS", 4)
    reached: list[str] = []
    make_job(source, tmp_path / "out", at=reached.append).run()
    assert reached.count("store.commit.after") == 8
    assert (tmp_path / "out").read_bytes() == expected


class EndlessEngine(StoppingEngine):
    """Is stopped before it has any answer."""

    rows = 0

    def stats(self) -> Stats:
        return Stats(computed_prompt_tokens=77 * len(self.seen))


def test_what_was_computed_for_nothing_is_counted(source: Path, tmp_path: Path) -> None:
    summary = make_job(source, tmp_path / "out", EndlessEngine()).run()
    assert (summary.status, summary.prompt_tokens, summary.computed_prompt_tokens) == ("drained", 0, 77)
    assert "77 prompt tokens computed; 0 tokens of answers" in closing_lines(summary, quiet=False)[1]
