"""An input that changes while its job runs is noticed before a row of the changed file is run."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.jobs.fakes import FakeEngine, FakeTokenizer, make_job, read_rows
from tests.jobs.test_windows import in_windows
from tests.parameters import by_night, some_of
from umbel.errors import InputChanged
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.jobs.read.changes import HashedInput, stamp_of
from umbel.jobs.read.cuts import WindowSizes
from umbel.jobs.read.outline import outline
from umbel.jobs.read.prepare import WindowBuilder
from umbel.jobs.read.source import Source
from umbel.jobs.read.windows import Grouped
from umbel.models.digest import hash_file

N = 5_000
SIZES = WindowSizes(first=500, growth=2, rows=1_500)
CSV = "custom_id,prompt\n" + "".join(f"r{i},text {i}\n" for i in range(N))
JSONL = "".join(json.dumps({"custom_id": f"r{i}", "prompt": f"text {i}", "max_tokens": 3}) + "\n" for i in range(N))


def data_of(name: str) -> bytes:
    text = (CSV if "csv" in name else JSONL).encode()
    return gzip.compress(text) if name.endswith(".gz") else text


def rename_over(path: Path, data: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(data)
    os.replace(new, path)


def write_back(path: Path, data: bytes) -> None:
    """New bytes, the old size and the old mtime."""
    before = path.stat()
    with open(path, "r+b") as stream:
        stream.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def other(data: bytes) -> bytes:
    """The same file with another text in each row."""
    if data.startswith(b"\x1f\x8b"):
        return gzip.compress(gzip.decompress(data).replace(b"text", b"TEXT"))
    return data.replace(b"text", b"TEXT")


CHANGES: dict[str, Callable[[Path, bytes], object]] = {
    "another text": lambda path, data: path.write_bytes(other(data)),
    "another text, mtime put back": lambda path, data: write_back(path, other(data)),
    "renamed over": lambda path, data: rename_over(path, other(data)),
    "cut": lambda path, data: os.truncate(path, len(data) // 2),
    "appended": lambda path, data: path.write_bytes(data + data[-40:]),
    "gone": lambda path, data: path.unlink(),
}
HARMLESS: dict[str, Callable[[Path, bytes], object]] = {
    "touched": lambda path, data: os.utime(path),
    "written again": lambda path, data: path.write_bytes(data),
    "renamed over by a copy": rename_over,
}


class Changes(FakeEngine):
    """Changes the input when the first window is run."""

    change: Callable[[], object]

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        if not self.seen:
            self.change()
        yield from super().execute(workload, plan)


def changing(path: Path, change: Callable[[Path, bytes], object]) -> Changes:
    engine, data = Changes(), path.read_bytes()
    engine.change = lambda: change(path, data)
    return engine


@pytest.fixture(params=some_of(["in.jsonl"], ["in.csv", "in.jsonl.gz"]))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    path.write_bytes(data_of(path.name))
    return path


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_stops_the_job_and_what_was_answered_is_kept(name: str, source: Path, tmp_path: Path) -> None:
    data = source.read_bytes()
    make_job(source, tmp_path / "expected").run()
    with pytest.raises(InputChanged, match=r"changed while the job ran.*--overwrite"):
        in_windows(make_job(source, tmp_path / "out", changing(source, CHANGES[name])), SIZES).run()
    assert not (tmp_path / "out").exists()
    source.write_bytes(data)
    summary = in_windows(make_job(source, tmp_path / "out"), SIZES).run()
    assert summary.resumed > 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize("name", HARMLESS)
def test_the_same_bytes_are_the_same_file(name: str, source: Path, tmp_path: Path) -> None:
    summary = in_windows(make_job(source, tmp_path / "out", changing(source, HARMLESS[name])), SIZES).run()
    assert (summary.exit_code, summary.rows) == (0, N)


class Restored(HashedInput):
    """A watch over a file that is half written when it is read, and whole again when that is looked at."""

    data: bytes = b""

    def check(self) -> bool:
        if self.path.read_bytes() != self.data:
            self.path.write_bytes(self.data)
        return super().check()


def half_written(source: Path) -> Restored:
    watch = Restored(source, stamp_of(source), time.time_ns(), hash_file(source))
    watch.data = source.read_bytes()
    source.write_bytes(watch.data[: len(watch.data) // 5])
    return watch


def test_what_was_read_of_a_half_written_file_is_read_again(source: Path) -> None:
    expected = list(Source(source).rows())
    watch = half_written(source)
    assert list(Source(source, watch=watch).rows()) == expected


def test_rows_by_number_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(data_of(path.name))
    source = Source(path)
    found, parser = outline([path], [b'"prompt"'], lambda: None), source.parser()

    def builder() -> WindowBuilder:
        return WindowBuilder(FakeTokenizer(), 512, 4096)

    feed = Grouped(source, [parser], found, b"", builder, SIZES)
    source.watch = half_written(path)
    windows = list(feed.windows())
    assert sum(len(w.workload) for w in windows) == N and not any(w.faults for w in windows)


def test_a_scan_of_a_half_written_file_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(data_of(path.name))
    watch = half_written(path)
    source = Source(path, watch=watch)
    found = outline([path], [b'"prompt"'], lambda: None)
    with pytest.raises(InputChanged, match="run the same command again"):
        Grouped(source, source.parsers(), found, b"", lambda: WindowBuilder(FakeTokenizer(), 512, 4096), SIZES)


def test_a_change_before_the_first_row_is_read(source: Path, tmp_path: Path) -> None:
    job = make_job(source, tmp_path / "out")
    source.write_bytes(source.read_bytes()[:-9])
    with pytest.raises(InputChanged):
        job.run()
    assert not (tmp_path / "out.umbel").exists()


def test_an_input_of_one_window_may_change_once_it_is_read(source: Path, tmp_path: Path) -> None:
    engine = changing(source, lambda path, data: path.unlink())
    assert make_job(source, tmp_path / "out", engine).run().exit_code == 0
    assert len(read_rows(tmp_path / "out")) == N


def test_a_file_that_nothing_touches_is_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"x")
    stamp = stamp_of(path)
    watch = HashedInput(path, stamp, time.time_ns() + 10**9, "no such digest")
    watch.check()
    written_just_now = HashedInput(path, stamp, stamp[3] if stamp else 0, "no such digest")
    with pytest.raises(InputChanged):
        written_just_now.check()


def test_batches_of_long_rows_are_short(tmp_path: Path) -> None:
    from umbel.jobs.read.source import Source

    path = tmp_path / "in.jsonl.gz"
    line = json.dumps({"prompt": "x" * 1_000_000}).encode() + b"\n"
    path.write_bytes(gzip.compress(line * 30))
    assert max(map(len, Source(path).batches())) == 9


@pytest.mark.parametrize("name", by_night(["in.jsonl.gz"], ["in.parquet"]))
def test_small_files_that_hold_much_are_cut_into_windows(name: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    from umbel.jobs.read.prepare import WindowBuilder
    from umbel.jobs.read.source import Source
    from umbel.jobs.read.windows import open_feed

    texts = [f"{i} " + "pad " * 5_000 for i in range(2_500)]
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress("".join(json.dumps({"prompt": text}) + "\n" for text in texts).encode()))
    else:
        pa.parquet.write_table(pa.table({"prompt": texts}), path, compression="zstd")
    assert path.stat().st_size < 2**20
    feed = open_feed(Source(path), b"", lambda: WindowBuilder(FakeTokenizer(), 512, 64))
    assert not feed.whole
    assert [window.rows for window in feed.windows()][-1] < 2_500
