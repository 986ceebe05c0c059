"""What a job took and cost over its runs, and the other work that it ran beside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.jobs.fakes import make_job, write_rows
from umbel.jobs.neighbours import Neighbours, Used, used_now
from umbel.jobs.report.report import read_report
from umbel.jobs.report.text import report_text
from umbel.jobs.summary import closing_lines


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", [{"prompt": f"row {i}", "max_tokens": 4} for i in range(20)])


def seen(*moments: Used | None) -> Neighbours:
    """Neighbours of 4 processors that see these moments one after the other."""
    left: Iterator[Used | None] = iter(moments)
    return Neighbours(lambda: next(left), 4)


def test_other_work_is_what_this_process_did_not_do() -> None:
    busy = seen(Used(100.0, 10.0, 0.0), Used(160.0, 30.0, 20.0))  # 60 seconds of all, 20 of them ours, in 20
    assert busy.text() == "beside other work, which kept 2.0 of 4 processors busy"


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(Used(160.0, 65.0, 20.0), id="a little"),
        pytest.param(Used(160.0, 10.0, 0.5), id="too short to know"),
        pytest.param(None, id="not counted here"),
    ],
)
def test_little_work_of_others_is_not_worth_a_word(end: Used | None) -> None:
    assert seen(Used(100.0, 10.0, 0.0), end).text() == ""


def test_own_work_counts_as_own() -> None:
    before = used_now()
    sum(range(3_000_000))
    after = used_now()
    assert before is not None and after is not None and after.own > before.own and after.at > before.at


def test_a_job_says_what_it_cost_and_ran_beside(source: Path, tmp_path: Path) -> None:
    """Both runs count, the price of the first is known to the second, and the report has what the end said."""
    output = tmp_path / "out.jsonl"
    job = make_job(source, output)
    job.spec = replace(job.spec, price=3600.0)
    job.neighbours = seen(Used(0.0, 0.0, 0.0), Used(40.0, 0.0, 10.0))
    summary = job.run()
    spent = summary.spent
    assert (
        spent["cost"]
        == pytest.approx(sum(spent["seconds"].values()))
        == pytest.approx(sum(summary.seconds.values()), abs=1e-3)
    )
    lines = closing_lines(summary, quiet=False)
    assert any(line.endswith("beside other work, which kept 4.0 of 4 processors busy") for line in lines)
    assert any(line.startswith("cost ") and line.endswith(" at 3,600.00 an hour") for line in lines)
    text = report_text(read_report(output))
    assert "kept 4.0 of 4 processors busy" in text and "at 3,600.00 an hour" in text and " loading, " in text
    again = make_job(source, output).run()
    assert again.spent["price"] == 3600.0 and again.spent["cost"] > spent["cost"]


def test_without_a_price_nothing_is_said_of_one(source: Path, tmp_path: Path) -> None:
    summary = make_job(source, tmp_path / "out.jsonl").run()
    assert summary.spent["cost"] is None and not any("cost" in line for line in closing_lines(summary, quiet=False))
