"""Windows that run together: the bytes are those of one window, each row counts once, and a stop loses nothing."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.fakes import CONTEXT, FakeEngine, make_job, write_rows
from tests.jobs.test_failpoints import Nth, die, in_child
from tests.jobs.test_windows import SIZES, in_windows, some_rows
from tests.parameters import some_of
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.ir.arrivals import Arrivals
from umbel.ir.budget import Budget
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.stops import Stops
from umbel.ir.workload import Workload
from umbel.jobs import store as store_module
from umbel.jobs.job import Job
from umbel.jobs.read.cuts import WindowSizes
from umbel.jobs.report.report import read_report
from umbel.runner.fake import FakeRunner


class Overlaps(FakeEngine):
    """Takes the next workload while rows of those before it run, and finishes rows of all of them at random."""

    together = 0  # the most workloads that ran at a time
    asked = 0  # times that it asked for more while rows ran

    def execute_all(self, arrivals: Arrivals, stops: Stops | None = None) -> Iterator[tuple[int, Output]]:
        rng, number = random.Random(len(self.seen)), 0
        running: dict[int, Iterator[Output]] = {}
        while (taken := self.next(arrivals, running)) is not None or running:
            if taken is not None:
                running[number] = self.execute(*taken)
                number += 1
            self.together = max(self.together, len(running))
            one = rng.choice(list(running))
            output = next(running[one], None)
            if output is None:
                del running[one]
            else:
                yield one, output

    def next(self, arrivals: Arrivals, running: dict[int, Iterator[Output]]) -> tuple[Workload, Plan] | None:
        self.asked += bool(running)
        return arrivals.take(wait=len(running) < 3)


class Polls(Overlaps):
    """Waits for a workload only when no row runs."""

    def next(self, arrivals: Arrivals, running: dict[int, Iterator[Output]]) -> tuple[Workload, Plan] | None:
        self.asked += bool(running)
        return arrivals.take(wait=not running)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", some_rows(150))


def job_of(source: Path, output: Path, engine: FakeEngine, sizes: WindowSizes = SIZES) -> Job:
    return in_windows(make_job(source, output, engine), sizes)


def test_the_bytes_are_those_of_one_window(source: Path, expected: bytes, tmp_path: Path) -> None:
    engine = Overlaps()
    summary = job_of(source, tmp_path / "out", engine).run()
    assert (tmp_path / "out").read_bytes() == expected
    assert (summary.rows, summary.failed, summary.left) == (150, 5, 0)
    assert engine.together >= 3
    assert sorted(engine.seen) == sorted(set(engine.seen)) and len(engine.seen) == 145


def test_the_report_counts_each_row_once(source: Path, tmp_path: Path) -> None:
    apart, together = FakeEngine(), Overlaps()
    for name, engine in (("apart", apart), ("together", together)):
        job_of(source, tmp_path / name, engine).run()
    one, other = (read_report(tmp_path / name) for name in ("apart", "together"))
    assert one["parts"] == other["parts"] > 5 and other["cut_short"] == 0
    for name in ("rows", "done", "failed", "cut", "output", "expected", "output_tokens"):
        sums = [sum(line[name] for line in report["tree"] if line["parent"] == -1) for report in (one, other)]
        assert sums[0] == sums[1], name
    for name in ("output_tokens", "computed_prompt_tokens", "steps"):
        assert other["figures"][name] == one["figures"][name]
    assert other["course"][-1][1:3] == one["course"][-1][1:3]


@pytest.mark.parametrize("seen", [1, 23, 80, 140])
def test_a_stop_loses_nothing(seen: int, source: Path, expected: bytes, tmp_path: Path) -> None:
    class Stops(Overlaps):
        def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
            for output in super().execute(workload, plan):
                if len(self.seen) == seen:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield output

    first = job_of(source, tmp_path / "out", Stops()).run()
    assert (first.status, first.ok + first.failed + first.left) == ("drained", 150)
    engine = Overlaps()
    second = job_of(source, tmp_path / "out", engine, WindowSizes(7, 3, 50)).run()
    assert second.resumed == first.ok + first.failed and len(engine.seen) == 145 - first.ok
    assert (tmp_path / "out").read_bytes() == expected
    report = read_report(tmp_path / "out")
    tops = [line for line in report["tree"] if line["parent"] == -1]
    assert sum(line["done"] for line in tops) == sum(line["rows"] for line in tops) == report["rows"]["planned"] == 145


@pytest.mark.parametrize(
    ("name", "n"),
    some_of(
        [("store.commit.before", 2), ("store.commit.after", 3), ("store.commit.after", 9)],
        [(f"store.commit.{when}", n) for when in ("before", "after") for n in (1, 4, 5, 6, 14)],
    ),
)
def test_a_kill_loses_nothing(
    name: str, n: int, source: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "GROUP_ROWS", 8)
    job = in_windows(make_job(source, tmp_path / "out", Overlaps(), at=Nth(name, n, die)))
    assert in_child(job.run) == signal.SIGKILL
    job_of(source, tmp_path / "out", Overlaps(), WindowSizes(11, 2, 30)).run()
    assert (tmp_path / "out").read_bytes() == expected
    report = read_report(tmp_path / "out")
    assert report["rows"]["planned"] == 145
    assert sum(line["done"] for line in report["tree"] if line["parent"] == -1) == 145


def test_under_a_budget_rows_are_chosen_when_those_before_them_are_done(source: Path, tmp_path: Path) -> None:
    engine = Polls()
    job = in_windows(make_job(source, tmp_path / "out", engine, budget=Budget(None, 150)))
    summary = job.run()
    assert summary.status == "budget" and engine.tokens <= 150
    assert engine.asked > 10 and engine.together == 1


def test_an_engine_that_joins_windows_gives_the_bytes_of_one(source: Path, tmp_path: Path) -> None:
    """The real loop, whose tokens depend on all that a sample could have seen."""
    directory = str(make_model(tmp_path / "model", "llama", max_position_embeddings=CONTEXT))

    def engine() -> LLM:
        return LLM(directory, device="cpu", chunk=16, runner=FakeRunner(300, 4, 300))

    make_job(source, tmp_path / "whole", engine()).run()  # type: ignore[arg-type]
    llm = engine()
    summary = job_of(source, tmp_path / "out", llm).run()  # type: ignore[arg-type]
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert summary.failed == 5 and read_report(tmp_path / "out")["parts"] > 5


def test_one_window_is_not_waited_for_twice(source: Path, expected: bytes, tmp_path: Path) -> None:
    engine = Polls()
    make_job(source, tmp_path / "out", engine).run()
    assert (tmp_path / "out").read_bytes() == expected and engine.together == 1
