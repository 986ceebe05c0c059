"""What a running job shows."""

from __future__ import annotations

import io
import json
import sys
import threading
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from umbel.batch import display
from umbel.batch.display import _Bar, _PlainLines, line_of, replica_lines, say, share_done, showing
from umbel.ir.load_count import LoadCount
from umbel.ir.report import Left, Stats
from umbel.ir.tally import ReplicaTally
from umbel.jobs.progress import Progress, Reading
from umbel.jobs.read.records import ReadNotes
from umbel.jobs.store_reader import Totals
from umbel.jobs.summary import Summary, closing_lines, duration, warnings_of


def half_done() -> Progress:
    now = [100.0]
    progress = Progress(clock=lambda: now[0])
    progress.enter("run")
    now[0] = 110.0
    progress.rows, progress.done, progress.failed, progress.ran = 10, 5, 1, 4
    progress.to_run = progress.begun = 8
    progress.finished_prompt_tokens, progress.given = 400, 8.0
    progress.stats = lambda: Stats(planned_prompt_tokens=300, computed_prompt_tokens=150, output_tokens=100)
    progress.left = lambda: Left(output_tokens=300.0, prompt_tokens=150, seconds=7.0)
    return progress


def test_a_line_shows_rows_rate_savings_and_eta() -> None:
    reading = half_done().reading()
    assert reading.tokens_per_second == 25
    assert reading.saved_tokens == 250
    assert (reading.eta_seconds, reading.expected_tokens) == (7.0, 400.0)
    wanted = "5/10 rows · 100 of about 400 tokens · 25 tokens/s · 250 tokens saved by sharing · 1 failed"
    assert line_of(reading) == f"{wanted} · 10 s · about 7 s left"


TALLIES = tuple(
    ReplicaTally(i, "lost" if i == 1 else "running", f"node{i}", rows=i, output_tokens=9 * i, restarts=i == 1)
    for i in range(10)
)


def test_each_replica_has_a_line_and_those_beyond_are_counted() -> None:
    lines = list(replica_lines(TALLIES))
    assert lines[0] == "replica 0 on node0 running: 0 rows, 0 tokens"
    assert lines[1] == "replica 1 on node1 lost: 1 row, 9 tokens, started 1 time again"
    assert lines[8:] == ["2 more: 2 running"] and not list(replica_lines(()))


def test_replicas_stand_below_the_bar_and_behind_a_plain_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = half_done()
    progress.replicas = lambda: TALLIES[:2]
    screen = Console(file=io.StringIO(), width=100)
    screen.print(_Bar(progress))
    shown = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "5/10 rows" in shown[0] and [line.strip() for line in shown[1:]] == list(replica_lines(TALLIES[:2]))
    told = threading.Event()
    monkeypatch.setattr(display, "PLAIN_SECONDS", 0.001)
    monkeypatch.setattr(display, "line_of", lambda reading: told.set() or "a line")
    with showing(progress, quiet=False):
        assert told.wait(60.0)
    assert f"a line · {'; '.join(replica_lines(TALLIES[:2]))}\n" in capsys.readouterr().err


def test_a_reading_comes_back_from_its_record() -> None:
    progress = half_done()
    progress.replicas = lambda: TALLIES
    record = json.loads(json.dumps(asdict(progress.reading())))
    assert Reading.of(record) == progress.reading()


def test_rows_that_the_engine_does_not_have_yet_are_taken_to_be_like_those_that_it_has() -> None:
    progress = half_done()
    progress.to_run = 32
    reading = progress.reading()
    assert reading.expected_tokens == 1_600
    assert reading.eta_seconds == 7 + 3 * (10 + 7)


def test_before_anything_is_measured_the_plan_says_how_long() -> None:
    progress = half_done()
    progress.left, progress.planned_seconds = Left, 25.0
    assert progress.reading().eta_seconds == 15.0


def test_a_job_that_is_stopped_says_what_it_waits_for() -> None:
    progress = half_done()
    progress.stop(3)
    assert line_of(progress.reading()) == "stopping: 3 rows near the end; Ctrl-C again ends at once"


def test_the_bar_renders() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(_Bar(half_done()))
        assert "5/10 rows" in console.export_text()


@pytest.mark.parametrize("columns", [30, 60, 80, 100, 140])
def test_the_bar_is_one_line(columns: int) -> None:
    """What is left of the time is shown as long as there is room for it."""
    console = Console(width=columns, record=True, file=io.StringIO())
    console.print(_Bar(half_done()))
    (line,) = console.export_text().splitlines()
    assert len(line) <= columns and "5/10 rows" in line
    assert ("about 7 s left" in line) == (columns >= 60)
    assert ("tokens saved" in line) == (columns >= 140)


def test_phases_have_names() -> None:
    progress = Progress()
    assert line_of(progress.reading()) == "starting"
    progress.enter("load")
    assert line_of(progress.reading()) == "loading the model"


def test_a_model_is_loaded_in_one_bar_or_a_few_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a log, a line for each quarter of it however often the display looks; on a terminal the bar is as full."""
    count = LoadCount()
    progress = Progress(loaded=count.share)
    progress.enter("load")
    lines = _PlainLines(progress)
    lines.show()
    assert share_done(progress.reading()) == 0.0
    count.expect(200)
    for _ in range(200):
        count.add(1)
        lines.show()
    assert share_done(progress.reading()) == 1.0
    told = ["", ", 0%", ", 25%", ", 50%", ", 75%", ", 100%"]
    assert capsys.readouterr().err.splitlines() == [f"loading the model{share}" for share in told]
    progress.enter("run")
    assert progress.reading().loaded is None and share_done(progress.reading()) == 0.0


def test_closing_lines_say_what_happened_and_warn() -> None:
    seconds = {"plan": 1.0, "load": 2.0, "run": 70.0, "write": 0.0}
    result = Summary("complete", 10, 9, 1, 2, 800, 150, 0, 100, 0, 3, seconds, {"empty_prompt": 1}, ("look",), "out")
    lines = closing_lines(result, quiet=False)
    assert lines[0] == "10 rows: 9 answered, 1 failed (2 kept from an earlier run) in 1 min 13 s; out"
    assert "150 of 800 prompt tokens computed (81% saved by sharing); 100 tokens of answers" in lines[1]
    assert "first token" not in lines[1]
    assert lines[2:] == ["  1 x empty_prompt", "warning: look"]
    assert closing_lines(replace(result, first_token_seconds=3.21), quiet=False)[1].endswith("first token after 3.2 s")
    assert closing_lines(result, quiet=True) == ["warning: look"]


@pytest.mark.parametrize(("lost", "told"), [(0, ()), (1, ("1 process of a",)), (3, ("3 processes of replicas were",))])
def test_replicas_that_were_lost_are_told(lost: int, told: tuple[str, ...]) -> None:
    found = warnings_of(Totals(4, 0, 10, 10, 0, {}), ReadNotes(), 0, lost)
    assert len(found) == len(told) and all(text.startswith(told) for text in found)


class Terminal(io.StringIO):
    """A stderr on which a bar is shown; `gone` from the moment on at which its window is closed."""

    gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_no_thread_of_a_display_outlives_it(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is left behind may free the model's memory while the interpreter ends, which aborts the process."""
    before = set(threading.enumerate())
    monkeypatch.setattr("sys.stderr", kind())
    monkeypatch.setattr(display, "PLAIN_SECONDS", 0.001)
    progress = half_done()
    with showing(progress, quiet=False):
        (thread,) = set(threading.enumerate()) - before
        while "5/10 rows" not in sys.stderr.getvalue():  # type: ignore[attr-defined]
            assert thread.is_alive()
    assert set(threading.enumerate()) == before and not thread.is_alive()


def test_a_terminal_that_is_gone_ends_the_display_only(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with showing(half_done(), quiet=False):
        terminal.gone = True
        say(["a line"])
        for thread in threading.enumerate():
            if thread.name == "umbel-progress":
                thread.join()
    say(["another line"])
    terminal.gone = False
    say(["a last line"])
    assert "a last line" in terminal.getvalue() and "another" not in terminal.getvalue()


def test_durations() -> None:
    assert [duration(s) for s in (0.04, 59.9, 61, 7_380)] == ["0.0 s", "59.9 s", "1 min 1 s", "2 h 3 min"]
