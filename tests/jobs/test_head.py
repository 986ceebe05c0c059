"""What a run shows first: the whole input, also where its plan is that of a first window."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import make_job, write_rows
from umbel.batch.display import show_plan
from umbel.jobs.read.cuts import WindowSizes
from umbel.jobs.read.windows import open_feed

ROWS = [{"prompt": f"{i % 4} {'x' * 40}", "max_tokens": 5} for i in range(40)]


def shown_window(source: Path) -> Any:
    """What the first window is said to be, once the lines are shown."""
    job, told = make_job(source, source.with_name("out.jsonl")), list[Any]()
    job.feed = partial(open_feed, sizes=WindowSizes(8, 8), small=0)
    job.progress.planned = lambda plan, window, rows: told.append((show_plan(plan, window, rows), window))
    job.run()
    ((_, window),) = told
    return window


def test_lines_of_json_are_counted_before_they_are_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    window = shown_window(write_rows(tmp_path / "in.jsonl", ROWS))
    assert (window.of_rows, window.planned) == (40, window.rows) and window.rows < 20
    assert window.share == pytest.approx(window.rows / 40, rel=0.05)
    text = capsys.readouterr().err
    found = re.search(r"plan          40 rows in windows, about ([\d,]+) prompt tokens in, about 200 out\n", text)
    assert found is not None and f"  first window  {window.rows} rows, about {5 * window.rows} out" in text


def test_a_table_is_counted_when_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("prompt,max_tokens\n" + "".join(f"{r['prompt']},5\n" for r in ROWS))
    window = shown_window(tmp_path / "in.csv")
    assert (window.of_rows, window.share) == (None, None)
    text = capsys.readouterr().err
    assert "plan          in windows; how many rows there are shows when all of the input is read\n" in text
    assert "  first window  " in text and "time          " not in text


def test_an_input_in_one_window_is_shown_as_its_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job(write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl")
    job.progress.planned = show_plan
    job.run()
    text = capsys.readouterr().err
    assert "plan          40 rows, about 200 out" in text and "window" not in text
