"""`umbel report`: what it says of finished, stopped, killed and resumed jobs, from their stores alone.

The printed reports of canonical workloads are kept beside the plans; UMBEL_WRITE_SNAPSHOTS=1 writes them again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.jobs.fakes import FakeEngine, make_job, write_rows
from tests.plan.loops import END, FadingRunner, loop_of
from tests.plan.workloads import CANONICAL, MACHINE, SPEC
from umbel.cli.main import main
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.jobs.paths import store_path
from umbel.jobs.read.cuts import WindowSizes
from umbel.jobs.read.windows import open_feed
from umbel.jobs.report.actuals import Recording
from umbel.jobs.report.page import report_page
from umbel.jobs.report.report import MAX_RUNS, pruned, read_report, report_of
from umbel.jobs.report.sums import fold
from umbel.jobs.report.text import percent, report_text
from umbel.jobs.signals import Drain
from umbel.plan.explain.text import explain
from umbel.plan.planner import make_plan

SNAPSHOTS = Path(__file__).parents[1] / "plan" / "snapshots"


def replayed(workload: Workload) -> tuple[Plan, dict]:  # type: ignore[type-arg]
    """A plan, and the report of its run by the production loop on a clock of its own."""
    plan = make_plan(workload, SPEC, EngineConfig("tiny"), MACHINE)
    runner = FadingRunner()
    loop = loop_of(workload, plan, runner, (END,))
    recording = Recording(clock=lambda: runner.seconds)
    recording.begin(plan, workload)
    done = [output for _, output in recording.watch((0, output) for output in loop.run())]
    sums = fold(recording.plan_record(), recording.as_dict(loop.stats()))
    cut = sum(any(c.finish_reason == "length" for c in o.outputs) for o in done)
    rows = {"stored": len(done), "answered": len(done), "failed": 0, "cut": cut, "planned": len(workload)}
    return plan, {"output": "out.jsonl", "status": "complete", "rows": rows, "errors": {}, **report_of(sums)}


@pytest.mark.parametrize("name", CANONICAL)
def test_printed_report(name: str) -> None:
    _, report = replayed(CANONICAL[name]())
    text = report_text(json.loads(json.dumps(report)))
    path = SNAPSHOTS / f"{name}.report.txt"
    if os.environ.get("UMBEL_WRITE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["three_levels", "conversations", "many_groups", "duplicates"])
def test_the_report_prints_the_tree_of_the_plan(name: str) -> None:
    plan, report = replayed(CANONICAL[name]())
    planned = explain(plan).split("forest\n")[1].splitlines()
    told = report_text(report).split("forest\n")[1].splitlines()
    assert [line.split(" | ")[0] for line in told] == planned


def test_figures_are_those_of_the_run() -> None:
    workload = CANONICAL["no_limit"]()
    plan, report = replayed(workload)
    figures = report["figures"]
    runner = FadingRunner()
    loop = loop_of(workload, plan, runner, (END,))
    outputs = list(loop.run())
    stats = loop.stats()
    assert figures["steps"]["actual"] == stats.steps
    assert figures["computed_prompt_tokens"]["actual"] == stats.computed_prompt_tokens == plan.forest.n_tokens
    assert figures["kv_peak_tokens"]["actual"] == stats.kv_peak_tokens
    assert figures["seconds"]["actual"] == pytest.approx(runner.seconds)
    made = sum(o.output_tokens for o in outputs)
    assert figures["output_tokens"]["actual"] == made < plan.estimates.output_tokens
    assert figures["output_tokens"]["error_percent"] == pytest.approx(100 * (made / plan.estimates.output_tokens - 1))
    assert sum(line["output"] for line in report["tree"] if line["parent"] == -1) == made


@dataclass
class BrokenEngine(FakeEngine):
    """Stops after some rows with an exception: a drain, or something unforeseen."""

    after: int = 3
    error: type[BaseException] = Drain

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        for n, output in enumerate(super().execute(workload, plan)):
            if n == self.after:
                raise self.error
            yield output


def rows_file(tmp_path: Path, n: int = 12) -> Path:
    return write_rows(
        tmp_path / "in.jsonl", [*({"prompt": f"say {i % 4}", "max_tokens": 6} for i in range(n)), {"prompt": ""}]
    )


def test_a_finished_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.jsonl"
    summary = make_job(rows_file(tmp_path), output).run()
    report = read_report(output)
    assert (report["status"], report["parts"], report["cut_short"]) == ("complete", 1, 0)
    assert report["rows"] == {"stored": 13, "answered": 12, "failed": 1, "cut": 0, "planned": 12}
    assert report["errors"] == {"empty_prompt": 1}
    assert report["figures"]["output_tokens"] == {
        "planned": 72, "due": 72, "actual": 60, "error_percent": pytest.approx(-100 / 6)
    }  # fmt: skip
    assert summary.against_plan["output_tokens"]["actual"] == 60
    assert main(["report", str(output)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        f"REPORT  {output}: complete\n  rows          13 rows done, 12 answered, 1 failed; 0 ended by length\n"
    )
    assert "1 x empty_prompt" in text
    assert re.search(r"output tokens +72 +60 +-17 %\n", text)


@pytest.mark.parametrize(("error", "status"), [(Drain, "drained"), (RuntimeError, "killed")])
def test_a_job_that_was_stopped(tmp_path: Path, error: type[BaseException], status: str) -> None:
    output = tmp_path / "out.jsonl"
    job = make_job(rows_file(tmp_path), output, BrokenEngine(after=5, error=error))
    if error is Drain:
        job.run()
    else:
        with pytest.raises(RuntimeError):
            job.run()
    report = read_report(output)
    assert (report["status"], report["parts"]) == (status, 1)
    assert report["rows"]["stored"] == 6
    assert report["figures"]["output_tokens"]["planned"] == 72
    assert (report["figures"]["output_tokens"]["due"], report["figures"]["output_tokens"]["actual"]) == (
        30,
        30,
    )  # one answer was lost
    text = report_text(report)
    assert "7 planned but not run" in text and "due" in text


def test_a_job_that_was_resumed_twice_counts_every_row_once(tmp_path: Path) -> None:
    source, output = rows_file(tmp_path), tmp_path / "out.jsonl"
    make_job(source, output, BrokenEngine(after=3)).run()
    with pytest.raises(RuntimeError):
        make_job(source, output, BrokenEngine(after=4, error=RuntimeError)).run()
    make_job(source, output).run()
    report = read_report(output)
    assert (report["status"], report["parts"], report["cut_short"]) == ("complete", 3, 2)
    assert report["rows"]["planned"] == 12
    tops = [line for line in report["tree"] if line["parent"] == -1]
    assert sum(line["done"] for line in tops) == sum(line["rows"] for line in tops) == 12
    figures = report["figures"]["output_tokens"]
    assert (figures["planned"], figures["due"], figures["actual"]) == (72, 72, 70)  # two answers were made twice
    assert sum(line["output"] for line in tops) == 60
    assert "3 windows or runs, 2 of them cut short" in report_text(report)


def test_a_job_in_windows_is_one_report(tmp_path: Path) -> None:
    prompts = [f"{'ab' * 10}{'cd' * (i % 3)}{i % 7}" for i in range(60)]
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": p, "max_tokens": 6} for p in prompts])
    output = tmp_path / "out.jsonl"
    job = make_job(source, output)
    job.feed = partial(open_feed, sizes=WindowSizes(first=11, growth=1, rows=11), small=0)
    job.run()
    report = read_report(output)
    assert (report["status"], report["cut_short"]) == ("complete", 0)
    assert report["parts"] >= 5
    assert report["rows"]["planned"] == report["rows"]["stored"] == 60
    figures = report["figures"]["output_tokens"]
    assert figures["planned"] == figures["due"] and figures["actual"] == sum(
        line["output"] for line in report["tree"] if line["parent"] == -1
    )
    steps = report["curve"]["steps"]
    assert steps == sorted(steps) and steps[-1] == pytest.approx(report["figures"]["steps"]["planned"], rel=1e-3)


def test_a_job_without_a_plan_has_a_report_all_the_same(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    make_job(write_rows(tmp_path / "in.jsonl", [{"prompt": ""}]), output).run()
    report = read_report(output)
    assert (report["parts"], report["tree"], report["figures"]) == (0, [], {})
    assert "nothing was planned" in report_text(report)
    assert "<svg" not in report_page(report, report_text(report))


def test_no_store_is_a_usage_error_and_makes_none(tmp_path: Path) -> None:
    for odd in (Path("/"), tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match=r"is a directory|no job to look at"):
            read_report(odd)
    with pytest.raises(UsageError, match="no job to look at"):
        read_report(tmp_path / "out.jsonl")
    assert not store_path(tmp_path / "out.jsonl").exists()


def test_json_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, page = tmp_path / "a<i>b.jsonl", tmp_path / "page.html"
    make_job(rows_file(tmp_path), output).run()
    assert main(["report", str(output), "--json", "--html", str(page)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(json.dumps(read_report(output)))
    html = page.read_text(encoding="utf-8")
    assert "a<i>b" not in html and "a&lt;i&gt;b" in html
    assert not re.search(r"(src|href)=|https?://|@import|url\(", html)
    pictures = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(pictures) == 5  # time, forest, work, KV, lengths
    for picture in pictures:
        ElementTree.fromstring(picture)
    assert main(["report", str(output), "--html", str(tmp_path / "no" / "page.html")]) == 2
    assert "there is no directory" in capsys.readouterr().err


def test_a_tree_of_many_runs_is_pruned_without_losing_a_row() -> None:
    lines = [line(-1, "run", 0, rows=1_000, tokens=50, saved_tokens=9_000, done=1_000)]
    for i in range(100):
        lines.append(line(0, "run", i + 1, rows=10, tokens=5, saved_tokens=i, done=10))
        lines.append(line(len(lines) - 1, "own", i + 1, rows=10, tokens=20, done=10))
    kept = pruned(lines)
    assert sum(v["kind"] == "run" for v in kept) == MAX_RUNS
    below = [v for v in kept if v["parent"] == 0]
    assert sum(v["rows"] for v in below) == sum(v["done"] for v in below) == 1_000
    (rest,) = [v for v in below if v["kind"] == "rest"]
    assert rest["branches"] == 100 - (MAX_RUNS - 1)
    assert sum(v["tokens"] for v in kept) == sum(v["tokens"] for v in lines)
    assert sum(v["saved_tokens"] for v in kept) == sum(v["saved_tokens"] for v in lines)


def line(parent: int, kind: str, key: int, **figures: int) -> dict[str, int | str]:
    names = (
        "rows",
        "tokens",
        "saved_tokens",
        "saved_seconds",
        "output_tokens",
        "done",
        "failed",
        "cut",
        "output",
        "expected",
    )
    return {
        "parent": parent,
        "kind": kind,
        "key": f"{kind} {key}",
        "end": 0,
        "branches": 1,
        **dict.fromkeys(names, 0),
        **figures,
    }


@pytest.mark.parametrize(
    ("error", "text"),
    [(None, "-"), (0.0, "exact"), (0.004, "+0.0 %"), (4.96, "+5.0 %"), (-0.31, "-0.3 %"), (347.3, "+347 %")],
)
def test_errors_read_well(error: float | None, text: str) -> None:
    assert percent(error) == text
