"""Jobs cut into windows give the same bytes as whole ones, keep groups together, and may be stopped between any two."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import CONTEXT, WIDTH, FakeEngine, FakeTokenizer, make_job, read_rows, write_rows
from tests.jobs.test_failpoints import Nth, die, in_child
from umbel.errors import InputError, ModelError
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.jobs import store as store_module
from umbel.jobs.job import Job
from umbel.jobs.read.cuts import WindowSizes
from umbel.jobs.read.prefetch import Ahead, Halt, Halted
from umbel.jobs.read.prepare import WindowBuilder
from umbel.jobs.read.records import ReadOptions
from umbel.jobs.read.source import Source
from umbel.jobs.read.windows import open_feed
from umbel.jobs.verify import verify

SIZES = WindowSizes(first=5, growth=2, rows=20, n_bytes=4_096)
TOPS = ("Read this and say what is meant: ", "Another task for you, do it well: ")


def some_rows(n: int, seed: int = 0) -> list[Any]:
    """Rows that share, shuffled, with all kinds of faults among them."""
    rng = random.Random(seed)
    rows: list[Any] = []
    for i in range(n):
        row: dict[str, Any] = {
            "prompt": rng.choice(TOPS)[: rng.randrange(8, 30)] + str(rng.randrange(60)),
            "max_tokens": 3,
        }
        if i % 3:
            row["custom_id"] = f"id-{i}"
        if i % 7 == 0:
            row["n"] = 2
        rows.append(row)
    rows[n // 5] = b"{broken"
    rows[n // 4] = {"custom_id": "empty", "prompt": ""}
    rows[n // 3] = {"custom_id": "id-1", "prompt": "the same id again"}
    rows[n // 2] = {"custom_id": "long", "prompt": "y" * (CONTEXT + 1)}
    rows[n // 2 + 1] = {"custom_id": "0", "prompt": "an id that is another row's number"}
    return rows


def in_windows(job: Job, sizes: WindowSizes = SIZES) -> Job:
    """The same job, its input taken for a large one."""
    job.feed = partial(open_feed, sizes=sizes, small=0)
    return job


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Other tests may have left some of their libraries'."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", some_rows(150))


def test_the_same_bytes_as_in_one_window(source: Path, expected: bytes, tmp_path: Path) -> None:
    engine = FakeEngine()
    summary = in_windows(make_job(source, tmp_path / "out", engine)).run()
    assert (tmp_path / "out").read_bytes() == expected
    assert (summary.rows, summary.failed, summary.left) == (150, 5, 0)
    assert len(engine.planned) > 5  # in several windows
    assert max(engine.planned) <= SIZES.rows
    assert verify(source, tmp_path / "out").faults == 0


def test_groups_are_kept_together(tmp_path: Path) -> None:
    rng = random.Random(1)
    heads = [f"{i:02} " + "".join(rng.choices("abcdefgh", k=50)) for i in range(20)]
    rows = [{"prompt": heads[i % 20], "max_tokens": 1} for i in range(200)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    feed = open_feed(Source(source, ReadOptions(width=WIDTH)), b"", builder, sizes=WindowSizes(22, 1, 22), small=0)
    windows = [w.workload for w in feed.windows()]
    assert sum(map(len, windows)) == 200
    per_window = [{int(key) % 20 for key in w.keys} for w in windows]
    assert sum(map(len, per_window)) == 20  # no group is in two windows


def builder() -> WindowBuilder:
    return WindowBuilder(FakeTokenizer(), WIDTH, CONTEXT)


@pytest.mark.parametrize("suffix", [".gz", ".csv", ".parquet"])
def test_inputs_without_places_are_cut_in_their_order(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / f"in{suffix}"
    rows = [{"custom_id": f"r{i % 140}", "prompt": f"text {i}"} for i in range(150)]
    if suffix == ".gz":
        source.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows)))
    elif suffix == ".csv":
        source.write_text("custom_id,prompt\n" + "".join(f"{row['custom_id']},{row['prompt']}\n" for row in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), source)
    make_job(source, tmp_path / "whole").run()
    engine = FakeEngine()
    job = in_windows(make_job(source, tmp_path / "out", engine), WindowSizes(first=40, growth=1, rows=40))
    job.feed = small_batches(job.feed)
    summary = job.run()
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert (summary.rows, summary.failed) == (150, 10)
    assert len(engine.planned) == 4


def small_batches(feed: Callable[..., Any]) -> Callable[..., Any]:
    """Sources that hand rows on ten at a time."""

    class Small(Source):
        def batches(self, size: int = 10) -> Iterator[list[Any]]:
            return Source.batches(self, size)

    return lambda source, *given, **more: feed(Small(source.path, source.options, source.notes), *given, **more)


def test_done_rows_are_not_read_again(source: Path, expected: bytes, tmp_path: Path) -> None:
    class Stops(FakeEngine):
        def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
            for output in super().execute(workload, plan):
                if len(self.seen) == 70:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield output

    first = in_windows(make_job(source, tmp_path / "out", Stops())).run()
    assert (first.status, first.exit_code) == ("drained", 75)
    assert first.ok + first.failed + first.left == 150
    engine = FakeEngine()
    second = in_windows(make_job(source, tmp_path / "out", engine), WindowSizes(7, 3, 50)).run()  # cut otherwise
    assert len(engine.seen) == 145 - first.ok
    assert second.resumed == first.ok + first.failed
    assert (tmp_path / "out").read_bytes() == expected


@pytest.mark.parametrize("n", [1, 2, 4, 7])
@pytest.mark.parametrize("name", ["store.commit.before", "store.commit.after"])
def test_killed_between_windows(
    name: str, n: int, source: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "GROUP_ROWS", 8)
    status = in_child(in_windows(make_job(source, tmp_path / "out", at=Nth(name, n, die))).run)
    assert status == signal.SIGKILL
    in_windows(make_job(source, tmp_path / "out"), WindowSizes(11, 2, 30)).run()
    assert (tmp_path / "out").read_bytes() == expected


def test_strict_looks_at_every_row_before_one_is_run(source: Path, tmp_path: Path) -> None:
    engine = FakeEngine()
    strict = ReadOptions(strict=True, width=WIDTH)
    with pytest.raises(InputError, match=r"5 of 150 rows are at fault, nothing was run:\n  line 31: invalid_json_line"):
        in_windows(make_job(source, tmp_path / "out", engine, options=strict)).run()
    assert engine.seen == []
    write_rows(source, [{"prompt": f"fine {i}"} for i in range(60)])
    in_windows(make_job(source, tmp_path / "fine", engine, options=strict)).run()
    assert len(engine.seen) == 60


def test_an_engine_that_dies_ends_the_thread_too(source: Path, expected: bytes, tmp_path: Path) -> None:
    class Dies(FakeEngine):
        def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
            if len(self.seen) > 40:
                raise MemoryError("simulated")
            yield from super().execute(workload, plan)

    with pytest.raises(MemoryError):
        in_windows(make_job(source, tmp_path / "out", Dies())).run()
    in_windows(make_job(source, tmp_path / "out")).run()
    assert (tmp_path / "out").read_bytes() == expected


def test_a_tokenizer_that_dies_ends_the_job(source: Path, expected: bytes, tmp_path: Path) -> None:
    class Dies(FakeTokenizer):
        left = 60

        def encode(self, texts: Any) -> list[list[int]]:
            self.left -= len(texts)
            if self.left < 0:
                raise ModelError("simulated")
            return super().encode(texts)

    job = in_windows(make_job(source, tmp_path / "out"))
    job.load_tokenizer = lambda now: Dies()
    with pytest.raises(ModelError):
        job.run()
    engine = FakeEngine()
    in_windows(make_job(source, tmp_path / "out", engine)).run()
    assert 0 < len(engine.seen) < 145  # what was finished before stays
    assert (tmp_path / "out").read_bytes() == expected


def test_an_empty_large_file_is_said_to_be_empty(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n" * 50)
    with pytest.raises(InputError, match="empty_file"):
        in_windows(make_job(source, tmp_path / "out")).run()
    assert not (tmp_path / "out.umbel").exists()


class TestAhead:
    def test_one_item_ahead_and_time_without_work_is_counted(self) -> None:
        made: list[int] = []
        now = [0.0]

        def items() -> Iterator[int]:
            for i in range(4):
                made.append(i)
                now[0] += 5.0
                yield i

        clock = iter(range(100))
        with Ahead(items(), Halt(), clock=lambda: float(next(clock))) as ahead:
            for item in ahead:
                assert len(made) <= item + 2
        assert made == [0, 1, 2, 3]
        assert ahead.starved_seconds == 3.0  # the clock's ticks around each wait but the first and the last

    def test_the_interpreter_is_left_as_it_was(self) -> None:
        before = sys.getswitchinterval()
        with Ahead(iter([1]), Halt()):
            assert sys.getswitchinterval() < before
        assert sys.getswitchinterval() == before

    def test_errors_come_through(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise ValueError("here")

        with pytest.raises(ValueError, match="here"), Ahead(items(), Halt()) as ahead:
            assert list(ahead) == [1]

    def test_leaving_early_stops_the_thread(self) -> None:
        halt, begun, ended = Halt(), threading.Event(), threading.Event()

        def items() -> Iterator[int]:
            yield 1
            begun.set()
            try:
                while True:
                    halt.check()
            except Halted:
                ended.set()
                raise

        with Ahead(items(), halt) as ahead:
            assert next(iter(ahead)) == 1
            assert begun.wait(600)
        assert ended.is_set()


def test_read_rows_of_a_job_in_windows_are_in_input_order(source: Path, tmp_path: Path) -> None:
    in_windows(make_job(source, tmp_path / "out")).run()
    ids = [row["custom_id"] for row in read_rows(tmp_path / "out")]
    assert ids[:3] == ["0", "id-1", "id-2"]
