"""What a user should know although no row failed: from the model, its tokenizer and the input to every place that shows
it, for finished, stopped, killed and resumed jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import CONFIG, CONTEXT, SPEC, WIDTH, FakeTokenizer, make_job, write_rows
from tests.jobs.test_report import BrokenEngine
from umbel.batch.display import show_plan
from umbel.cli.main import main
from umbel.cost.cards import named
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.workload import Workload
from umbel.jobs.job import Job
from umbel.jobs.read.cuts import WindowSizes
from umbel.jobs.read.prepare import prepare
from umbel.jobs.read.records import ReadNotes, ReadOptions, note_texts
from umbel.jobs.read.source import Source
from umbel.jobs.read.windows import open_feed
from umbel.jobs.report.page import report_page
from umbel.jobs.report.report import read_report
from umbel.jobs.report.text import report_text
from umbel.jobs.signals import Drain
from umbel.jobs.summary import closing_lines
from umbel.plan.planner import make_plan

MODEL = "generation_config.json: 'x' is not obeyed"
FILES = "tokenizer_config.json: 'y' is not obeyed"


@dataclass
class NotingEngine(BrokenEngine):
    """Its model has a note, and it takes lossy techniques."""

    after: int = 1_000

    def plan_for(self, workload: Workload) -> Plan:
        config = replace(CONFIG, linear="fp8", allow_lossy=True)
        return make_plan(workload, replace(SPEC, notes=(MODEL,)), config, named("a100"))


class NotingTokenizer(FakeTokenizer):
    """Has a note, and finds something to say of each text that begins with b."""

    notes = (FILES,)

    def __init__(self, notes: ReadNotes):
        self.found = notes

    def encode(self, texts: Any) -> list[list[int]]:
        for text in texts:
            if text.startswith("b"):
                self.found.note("begin with b")
        return super().encode(texts)


def noting_job(tmp_path: Path, engine: BrokenEngine, rows: int = 12) -> Job:
    source = tmp_path / "in.jsonl"
    if not source.exists():
        write_rows(source, [{"prompt": f"{'ab'[i % 2]} {i}", "max_tokens": 6} for i in range(rows)])
    job = make_job(source, tmp_path / "out.jsonl", engine)
    job.load_tokenizer = lambda now: NotingTokenizer(job._notes)
    return job


EXPECTED = (MODEL, FILES, "6 rows: begin with b")


def test_a_finished_job_shows_them_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = noting_job(tmp_path, NotingEngine())
    job.progress.planned = show_plan
    summary = job.run()
    assert (summary.exact, summary.lossy, summary.notes) == (False, ("linear fp8",), EXPECTED)
    assert [summary.as_dict()[name] for name in ("exact", "lossy", "notes")] == [False, ("linear fp8",), EXPECTED]
    begun = capsys.readouterr().err
    assert all(f"  note          {text}\n" in begun for text in EXPECTED)
    assert "  answers       lossy: linear fp8\n" in begun
    for quiet in (False, True):
        assert [line for line in closing_lines(summary, quiet=quiet) if line.startswith("note: ")] == [
            f"note: {text}" for text in EXPECTED
        ]
    assert ", lossy: linear fp8; " in closing_lines(summary, quiet=False)[1]
    report = read_report(tmp_path / "out.jsonl")
    assert (report["exact"], report["lossy"], report["notes"]) == (False, ["linear fp8"], list(EXPECTED))
    text = report_text(report)
    assert "  answers       lossy: linear fp8\n" in text
    assert all(f"  note          {note}\n" in text for note in EXPECTED)
    html = report_page(report, text)
    assert "<li>6 rows: begin with b</li>" in html and '<div class="tile">answers<b>lossy</b>' in html
    assert main(["report", str(tmp_path / "out.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == list(EXPECTED)


@pytest.mark.parametrize("error", [Drain, RuntimeError])
def test_a_job_that_was_stopped_and_resumed(tmp_path: Path, error: type[BaseException]) -> None:
    """Rows that were read twice count once, rows that a resume does not read any more stay counted."""
    job = noting_job(tmp_path, NotingEngine(after=5, error=error))
    if error is Drain:
        assert job.run().notes == EXPECTED
    else:
        with pytest.raises(RuntimeError):
            job.run()
    report = read_report(tmp_path / "out.jsonl")
    assert (report["exact"], report["lossy"], report["notes"]) == (False, ["linear fp8"], list(EXPECTED))
    assert noting_job(tmp_path, NotingEngine()).run().notes == EXPECTED
    again = noting_job(tmp_path, NotingEngine()).run()
    assert (again.status, again.exact, again.notes) == ("already_complete", False, EXPECTED)
    report = read_report(tmp_path / "out.jsonl")
    assert (report["parts"], report["exact"], report["notes"]) == (2, False, list(EXPECTED))


def test_notes_of_later_windows_are_there_at_the_end(tmp_path: Path) -> None:
    job = noting_job(tmp_path, NotingEngine(), rows=60)
    job.feed = partial(open_feed, sizes=WindowSizes(first=11, growth=1, rows=11), small=0)
    assert job.run().notes == (MODEL, FILES, "30 rows: begin with b")
    assert read_report(tmp_path / "out.jsonl")["notes"] == [MODEL, FILES, "30 rows: begin with b"]


def test_rows_that_strict_reads_twice_count_once(tmp_path: Path) -> None:
    job = noting_job(tmp_path, NotingEngine(), rows=60)
    job.spec = replace(job.spec, options=replace(job.spec.options, strict=True))
    job.feed = partial(open_feed, sizes=WindowSizes(first=11, growth=1, rows=11), small=0)
    assert job.run().notes == (MODEL, FILES, "30 rows: begin with b")


def test_an_exact_job_says_so(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": ""}])
    summary = make_job(source, tmp_path / "out.jsonl").run()
    assert (summary.exact, summary.lossy, summary.notes) == (True, (), ())
    assert " tokens of answers, all exact; " in closing_lines(summary, quiet=False)[1]
    report = read_report(tmp_path / "out.jsonl")
    assert (report["exact"], report["notes"]) == (True, [])
    assert "  answers       all exact\n" in report_text(report)


def test_notes_are_there_though_no_row_came_to_the_engine(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": ""}])
    job = make_job(source, tmp_path / "out.jsonl")
    job.load_tokenizer = lambda now: NotingTokenizer(job._notes)
    assert job.run().notes == (FILES,)
    report = read_report(tmp_path / "out.jsonl")
    assert report["notes"] == [FILES] and f"  note          {FILES}\n" in report_text(report)
    assert f"<li>{FILES.replace(chr(39), '&#39;')}</li>" in report_page(report, "")


def test_many_notes_are_listed_in_json_alone() -> None:
    notes = ReadNotes()
    for i in range(150):
        notes.note(f"kind {i}")
        notes.note("kind 0", rows=9)
    assert len(notes.noted) == 100
    assert note_texts(notes.noted)[:2] == ("1,351 rows: kind 0", "1 row: kind 1")


SHORT = "/v1/completions without max_tokens: at most 16 tokens are generated"


def completions(url: str) -> list[dict[str, Any]]:
    """Rows with limits of every kind, most of them without."""
    limits: list[dict[str, Any]] = [{}, {"max_tokens": None}, {"max_completion_tokens": None, "temperature": 0}]
    limits += [{"max_tokens": 3}, {"max_completion_tokens": 4}, {"max_tokens": 0}]
    prompt = {"messages": [{"role": "user", "content": "a"}]} if "chat" in url else {"prompt": "a"}
    bodies = [{"custom_id": str(i), "body": prompt | limit} for i, limit in enumerate(limits)]
    return [{"method": "POST", "url": url, **body} for body in bodies]


@pytest.mark.parametrize("default", [None, 7])
@pytest.mark.parametrize("url", ["/v1/completions", "/v1/chat/completions", None])
def test_completions_without_a_limit_get_sixteen_tokens(url: str | None, default: int | None, tmp_path: Path) -> None:
    rows = completions(url or "/v1/completions")
    source = write_rows(tmp_path / "in.jsonl", rows if url else [row["body"] for row in rows])
    options = ReadOptions(SamplingParams(max_tokens=default), width=WIDTH)
    notes = ReadNotes()
    prepared = prepare(Source(source, options, notes), FakeTokenizer(), WIDTH, CONTEXT)
    unset = 16 if url == "/v1/completions" and default is None else default
    assert [p.max_tokens for p in prepared.workload.params] == [unset, unset, unset, 3, 4]
    found = [text for text in note_texts(notes.noted) if SHORT in text]
    assert [text.partition(" ")[0] for text in found] == (["3"] if unset == 16 else [])
    summary = make_job(source, tmp_path / "out.jsonl", options=options).run()
    assert [text for text in summary.notes if SHORT in text] == found


def test_rows_that_are_read_twice_count_once(tmp_path: Path) -> None:
    rows = [row for row in completions("/v1/completions") if row["custom_id"] != "5"]
    options = ReadOptions(width=WIDTH, strict=True)
    job = make_job(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", options=options)
    job.feed = partial(open_feed, sizes=WindowSizes(2, 2), small=0)
    (note,) = job.run().notes
    assert note.startswith("3 rows: ") and SHORT in note
