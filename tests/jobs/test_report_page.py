"""The page of a report: its pictures and figures are those of the record, and no text of a job is more than text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.jobs.fakes import make_job, write_rows
from tests.plan.test_page import check_balanced
from tests.plan.workloads import MACHINE, SPEC, of
from umbel.cli.main import main
from umbel.config import EngineConfig
from umbel.ir.params import SamplingParams
from umbel.ir.report import Stats
from umbel.ir.request import Completion, Output, RowError
from umbel.ir.workload import Workload
from umbel.jobs.report.actuals import COURSE_POINTS, Recording
from umbel.jobs.report.lengths import EDGES, added, counted, stretches
from umbel.jobs.report.page import report_page
from umbel.jobs.report.pictures import histogram, interval
from umbel.jobs.report.report import read_report, report_of
from umbel.jobs.report.sums import fold
from umbel.jobs.report.text import report_text
from umbel.plan.explain.text import duration
from umbel.plan.planner import make_plan

EVIL = "<script>alert('x')</script>"


@pytest.fixture
def report(tmp_path: Path) -> dict[str, Any]:
    """The report of a job of 30 rows that share a beginning, one of them at fault."""
    rows = [{"prompt": f"{EVIL} say {i}", "max_tokens": 2 + 3 * (i % 4)} for i in range(29)]
    job = make_job(write_rows(tmp_path / "in.jsonl", [*rows, {"prompt": ""}]), tmp_path / "out.jsonl")
    job.about = lambda: {"model": "<b>m</b>", "command": "umbel run in.jsonl", "job": ""}
    job.run()
    return dict(json.loads(json.dumps(read_report(tmp_path / "out.jsonl"))))


def test_what_a_run_was_is_kept_for_its_report(report: dict[str, Any]) -> None:
    assert report["about"] == {"model": "<b>m</b>", "command": "umbel run in.jsonl", "job": ""}
    html = report_page(report, report_text(report))
    assert "<span>model</span> &lt;b&gt;m&lt;/b&gt;" in html
    assert "<code>umbel run in.jsonl</code>" in html
    assert "<span>job</span>" not in html  # what is not known is not said


def test_text_of_prompts_is_text(report: dict[str, Any]) -> None:
    html = report_page(report, report_text(report))
    check_balanced(html)
    assert report["tree"][0]["text"].startswith(EVIL)
    assert "<script" not in html and "&lt;script&gt;" in html


def test_figures_are_those_of_the_record(report: dict[str, Any]) -> None:
    html = report_page(report, report_text(report))
    tiles = dict(re.findall(r"<div class=\"tile\">([^<]*)<b>([^<]*)</b>", html))
    figures = report["figures"]
    assert tiles["rows done"] == str(report["rows"]["stored"]) == "30"
    assert tiles["tokens out"] == str(figures["output_tokens"]["actual"])
    assert tiles["KV peak"] == f"{figures['kv_peak_tokens']['actual']:,}"
    assert tiles["time"] == duration(figures["seconds"]["actual"])
    counts = {unescape(name): int(n) for name, n in re.findall(r"<dt>([^<]*)</dt><dd>(\d+)</dd>", html)}
    assert counts["empty_prompt"] == report["errors"]["empty_prompt"] == 1
    assert {name: counts[name] for name in report["reasons"]} == report["reasons"]
    bars = re.findall(r"<title>(\d+) answers? (planned|answered) with ([\d–]+) tokens</title>", html)
    for kind in ("planned", "answered"):
        drawn = [int(n) for n, which, _ in bars if which == kind]
        assert drawn == [one[kind] for one in report["lengths"] if one[kind]]
        assert sum(drawn) == report["rows"]["answered"] == sum(report["reasons"].values())


def test_planned_lengths_are_those_of_the_rows_that_have_an_answer(report: dict[str, Any]) -> None:
    asked = [min(2 + 3 * (i % 4), 99) for i in range(29)]
    planned = np.zeros(len(EDGES), np.int64)
    for low in asked:
        planned[max(i for i, edge in enumerate(EDGES) if edge <= low)] += 1
    assert [one["planned"] for one in report["lengths"]] == planned[
        EDGES.index(report["lengths"][0]["low"]) : EDGES.index(report["lengths"][-1]["low"]) + 1
    ].tolist()


def test_samples_that_were_to_have_no_tokens_are_no_answers() -> None:
    """As of prompts that are scored; of the others every sample counts, those of failed rows do not."""
    scored, plain = SamplingParams(max_tokens=0, n=2, prompt_logprobs=0), SamplingParams(max_tokens=3, n=2)
    workload = Workload.of([[1, i] for i in range(4)], [scored, plain, plain, plain])
    recording = Recording()
    recording.begin(make_plan(workload, SPEC, EngineConfig("tiny"), MACHINE), workload)
    none, cut = Completion(0, "", (), "length"), Completion(0, "", (1, 2, 3), "length")
    ended = Completion(1, "", (), "stop")
    for output in (Output(0, 2, (none, none)), Output(1, 2, (cut, ended)), Output(2, 2, error=RowError("code", "why"))):
        recording.add(output)
    told = report_of(fold(recording.plan_record(), recording.as_dict(Stats())))
    assert told["reasons"] == {"length": 1, "stop": 1}
    assert [(one["low"], one["planned"], one["answered"]) for one in told["lengths"]] == [
        (0, 0, 1), (1, 0, 0), (2, 0, 0), (3, 2, 1),
    ]  # fmt: skip


def test_stretches_hold_every_length_once() -> None:
    lengths = [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 100, 5_000, 10**7]
    counts = counted(lengths)
    assert counts.sum() == len(lengths)
    none = [0] * len(EDGES)
    once = {"planned": counts.tolist(), "answered": counts.tolist()}
    both = added(once, {"planned": [1] * len(EDGES), "answered": none})
    found = stretches(both)
    for one in found:
        here = sum(one["low"] <= length <= one["high"] for length in lengths)
        assert (one["answered"], one["planned"]) == (here, here + 1)
    assert all(a["high"] + 1 == b["low"] for a, b in pairwise(found))
    assert stretches({"planned": none, "answered": none}) == []


def test_a_histogram_is_as_high_as_its_counts() -> None:
    shown = [{"low": 4, "high": 5, "planned": 10, "answered": 5}, {"low": 6, "high": 7, "planned": 0, "answered": 20}]
    drawn = [r for r in ElementTree.fromstring(histogram(shown)).iter("rect") if r.find("title") is not None]
    bars = [(r.get("class"), float(r.get("height", 0)), float(r.get("x", 0))) for r in drawn]
    assert [kind for kind, _, _ in bars] == ["bar tokens", "bar real", "bar real"]
    assert [round(high / bars[1][1], 1) for _, high, _ in bars] == [2.0, 1.0, 4.0]
    assert [x for _, _, x in bars] == sorted(x for _, _, x in bars)


@pytest.mark.parametrize("actual", [0.5, 3.0, 40.0])
def test_a_time_is_drawn_in_its_interval(actual: float) -> None:
    root = ElementTree.fromstring(interval(1.0, 2.0, 4.0, actual, size=1.0, unit="time, seconds"))
    place = {r.get("class"): r for r in root.iter("rect") if r.find("title") is not None}
    begin, wide = (float(place["band"].get(name, 0)) for name in ("x", "width"))
    zero, took = (float(place["bar real"].get(name, 0)) for name in ("x", "width"))
    assert (begin - zero) / took == pytest.approx(1.0 / actual, rel=0.02)
    assert wide / took == pytest.approx(3.0 / actual, rel=0.02)
    assert zero + took <= 720 and begin + wide <= 720


def test_the_page_says_whether_the_time_lies_within(report: dict[str, Any]) -> None:
    figure = report["figures"]["seconds"]
    for low, word in ((0.0, "within"), (figure["actual"] * 2, "outside")):
        told = {**report, "seconds_range": [low, figure["actual"] * 3]}
        assert f"What it took lies {word} the interval" in report_page(told, "")


def test_the_course_of_a_run_is_measured_at_its_steps() -> None:
    """KV in use between two points is the mean over their steps; points stay few however long a run takes."""
    now, workload = [0.0], of([[1, 2, 3, i] for i in range(4)])
    recording = Recording(clock=lambda: now[0])
    recording.begin(make_plan(workload, SPEC, EngineConfig("tiny"), MACHINE), workload)
    stats = Stats()

    def engine() -> Any:
        nonlocal stats
        for step in range(1_000):
            now[0] += 0.1
            stats = Stats(steps=step + 1, computed_prompt_tokens=step, kv_token_steps=stats.kv_token_steps + 10 * step)
            recording.sample(partial(replace, stats))
        yield 0, Output(0, 4, (Completion(0, "", (1,), "stop"),))

    list(recording.watch(engine()))
    sums = fold(json.loads(json.dumps(recording.plan_record())), json.loads(json.dumps(recording.as_dict(stats))))
    course = sums["course"]
    assert COURSE_POINTS // 4 < len(course) <= COURSE_POINTS
    assert course[-1] == [pytest.approx(100.0), 1_000, 999, 10 * sum(range(1_000))]
    seconds, steps, _, held = (np.diff(column, prepend=0) for column in np.array(course).T)
    moved = steps > 0
    means = held[moved] / steps[moved]
    assert (np.diff(means) > 0).all() and means[-1] > 9_900  # grows by ten tokens a step
    assert np.allclose(seconds[moved], steps[moved] * 0.1)


def test_what_is_printed_is_what_json_and_page_say(report: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "out.jsonl"), "--json", "--html", str(page)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["about"] == report["about"] and told["lengths"] == report["lengths"]
    assert page.read_text(encoding="utf-8") == report_page(told, report_text(told))


def test_a_page_is_shown_where_no_file_was_named(
    report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the output, under a name that says whose it is; a file that is no page is left alone."""
    monkeypatch.setattr("umbel.batch.extras.has_display", lambda: False)
    page = tmp_path / "out.jsonl.html"
    assert main(["report", str(tmp_path / "out.jsonl"), "--open"]) == 0
    assert f"the page is {page}" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == report_page(report, report_text(report))
    page.write_text("mine")
    assert main(["report", str(tmp_path / "out.jsonl"), "--open"]) == 2
    assert page.read_text() == "mine"
