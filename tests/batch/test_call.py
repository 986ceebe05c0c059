"""`umbel.run`: the job of the command line from Python, with its options, its resume rules and its stops."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.jobs.fakes import FakeEngine, write_rows
from umbel.batch import loading
from umbel.batch.declared import declared
from umbel.batch.job_options import JobOptions
from umbel.batch.keywords import PLACED, job_options, keywords
from umbel.cli.main import main
from umbel.errors import JobStopped, UsageError
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload

ROWS = [{"custom_id": f"r{i}", "prompt": f"text {i}", "max_tokens": 3} for i in range(6)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", ROWS)


def test_a_call_writes_what_the_command_writes(source: Path, model: str, engine: FakeEngine, tmp_path: Path) -> None:
    given = [str(source), "-m", model, "--temperature", "0", "--max-tokens", "2", "--keep", "custom_id"]
    assert main(["run", *given, "-o", str(tmp_path / "by_command.jsonl"), "-q"]) == 0
    out = tmp_path / "by_call.jsonl"
    summary = umbel.run(source, str(out), model=model, temperature=0, max_tokens=2, keep=["custom_id"], quiet=True)
    assert (summary.status, summary.ok, summary.exit_code) == ("complete", 6, 0)
    assert out.read_bytes() == (tmp_path / "by_command.jsonl").read_bytes()
    assert main(["run", *given, "-o", str(out), "-q"]) == 0, "the command takes the call's job for its own"
    assert len(engine.seen) == 12


def test_several_files(source: Path, model: str, engine: FakeEngine, tmp_path: Path) -> None:
    more = write_rows(tmp_path / "more.jsonl", [{"prompt": "x", "max_tokens": 1}])
    assert umbel.run([source, str(more)], tmp_path / "out.jsonl", model=model, quiet=True).ok == 7
    assert umbel.run([str(source), more], tmp_path / "out.jsonl", model=model, quiet=True).status == "already_complete"


def test_the_same_call_continues_and_other_options_are_refused(
    source: Path, model: str, engine: FakeEngine, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    first = umbel.run(source, out, model=model, max_output_tokens_total=7, quiet=True)
    assert (first.status, first.exit_code) == ("budget", 5) and 0 < first.ok < 6
    second = umbel.run(source, out, model=model, quiet=True)
    assert (second.status, second.ok, second.resumed) == ("complete", 6, first.ok) and len(engine.seen) == 6
    assert umbel.run(source, out, model=model, quiet=True).status == "already_complete"
    with pytest.raises(UsageError, match=r"(?s)temperature.*overwrite") as error:
        umbel.run(source, out, model=model, temperature=0.5, quiet=True)
    assert "--" not in str(error.value)
    assert umbel.run(source, out, model=model, temperature=0.5, overwrite=True, quiet=True).resumed == 0


def test_a_summary_reads_like_the_command_s_closing_lines(
    source: Path, model: str, engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = umbel.run(source, tmp_path / "out.jsonl", model=model)
    assert repr(summary).startswith("6 rows: 6 answered, 0 failed in ")
    told = capsys.readouterr()
    assert told.out == "" and "6 rows" in told.err, "the plan is shown when it is made"
    assert "6 answered" not in told.err, "the figures are returned"


def test_a_notebook_shows_the_report_while_it_is_there(
    source: Path, model: str, engine: FakeEngine, tmp_path: Path
) -> None:
    summary = umbel.run(source, tmp_path / "out.jsonl", model=model, quiet=True)
    assert summary._repr_html_().startswith("<iframe srcdoc=") and "out.jsonl" in summary._repr_html_()
    assert main(["clean", str(tmp_path / "out.jsonl")]) == 0
    assert summary._repr_html_() == f"<pre>{summary!r}</pre>"


class Stopped(FakeEngine):
    """Sends this process a signal behind its second answer."""

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        for i, output in enumerate(super().execute(workload, plan)):
            yield output
            if i == 1:
                os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_keeps_what_is_done_and_the_same_call_goes_on(
    source: Path, model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, before = tmp_path / "out.jsonl", signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(loading, "_load", lambda *given: Stopped())
    with pytest.raises(JobStopped, match=r"stopped on request; 6 rows: \d answered.*run it again") as stopped:
        umbel.run(source, out, model=model, quiet=True)
    assert signal.getsignal(signal.SIGINT) == before and not out.exists()
    done = stopped.value.summary.ok  # type: ignore[attr-defined]
    engine = FakeEngine()
    monkeypatch.setattr(loading, "_load", lambda *given: engine)
    summary = umbel.run(source, out, model=model, quiet=True)
    assert summary.resumed == done > 0 and len(engine.seen) == 6 - done


def in_thread(act: Any) -> list[Any]:
    """What a function gives in another thread, or the error that it raises."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(act())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found


def test_other_threads_run_jobs_and_leave_signals_alone(
    source: Path, model: str, engine: FakeEngine, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    out = tmp_path / "out.jsonl"
    (error,) = in_thread(lambda: umbel.run(source, out, model=model, deadline="1h", quiet=True))
    assert isinstance(error, UsageError) and str(error).startswith("deadline: needs the main thread")
    (summary,) = in_thread(lambda: umbel.run(source, out, model=model, quiet=True))
    assert summary.ok == 6 and signal.getsignal(signal.SIGTERM) == before


def test_every_option_of_the_command_is_a_keyword() -> None:
    """Each long name, with underscores; what is not given is as the command has it."""
    options = declared(JobOptions)
    known = keywords(options)
    for option in options:
        for name in option.names if option.name not in PLACED else ():
            assert not name.startswith("--") or known[name[2:].replace("-", "_")] is option
    asked = job_options("demo", ["in.jsonl"], "out.jsonl", {})
    assert asked.sampling == JobOptions("demo").sampling and asked.engine == JobOptions("demo").engine
    assert asked.file == ["in.jsonl"] and asked.output.output == "out.jsonl"


@pytest.mark.parametrize(
    ("keyword", "value", "found"),
    [
        ("keep", ["a", "b"], ("reading", "keep_columns", "a,b")),
        ("keep", [], ("reading", "keep_columns", "none")),
        ("keep", "all", ("reading", "keep_columns", "all")),
        ("choices", ("yes", "no"), ("reading", "choices", "yes,no")),
        ("stop", "end", ("sampling", "stop", ["end"])),
        ("stop_token_ids", (3, 4), ("sampling", "stop_token_ids", [3, 4])),
        ("deadline", 90, ("budget", "deadline", "90")),
        ("skip_special_tokens", False, ("sampling", "keep_special_tokens", True)),
        ("no_skip_special_tokens", True, ("sampling", "keep_special_tokens", True)),
        ("skip_special_tokens", True, ("sampling", "keep_special_tokens", False)),
        ("errors", "bad.jsonl", ("output", "errors", Path("bad.jsonl"))),
        ("temperature", 0, ("sampling", "temperature", 0.0)),
        ("max_num_batched_tokens", 64, ("engine", "chunk", 64)),
        ("keep_cached", "lru", ("engine", "keep", "lru")),
        ("order", "finish", ("output", "order", "finish")),
        ("deadline", None, ("budget", "deadline", None)),
    ],
)
def test_values_as_python_has_them(keyword: str, value: object, found: tuple[str, str, object]) -> None:
    group, name, wanted = found
    asked = job_options("demo", ["in.jsonl"], "out.jsonl", {keyword: value})
    assert getattr(getattr(asked, group), name) == wanted


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"temprature": 1}, r"no option 'temprature' \(did you mean 'temperature'\?\)"),
        ({"gpu_memory_utilization": 0.9}, "the KV pool is what the plan derives .*; kv_tokens sets its size"),
        ({"freshh": True}, "docs/options.md"),
        ({"order": "sideways"}, "order='sideways': must be one of input, finish"),
        ({"max_tokens": "many"}, "max_tokens='many': must be a whole number"),
        ({"max_tokens": True}, "max_tokens=True: must be a whole number"),
        ({"chat": "yes"}, "chat='yes': must be True or False"),
        ({"choices": ["a", "b,c"]}, "choices='b,c': must be a text without a comma"),
        ({"errors": 7}, "errors=7: must be a path"),
        ({"fresh": True, "overwrite": True}, "fresh and overwrite are one option"),
        ({"output": "x"}, "no option 'output'"),
    ],
)
def test_keywords_that_cannot_be(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        job_options("demo", ["in.jsonl"], "out.jsonl", given)


def test_mistakes_are_told_in_names_of_python(source: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out--top-p.jsonl"
    for given, told in (
        ({"min_p": 1.5}, "min_p: min_p=1.5"),
        ({"chat": True}, "chat: only means something with prompt"),
        ({"summary": tmp_path / "no" / "where"}, f"summary {tmp_path}"),
    ):
        with pytest.raises(UsageError) as error:
            umbel.run(source, out, model=model, **given)
        assert str(error.value).startswith(told), error.value
    with pytest.raises(UsageError, match=r"out--top-p\.jsonl"):
        umbel.run(out, tmp_path / "out.jsonl", model=model)


def test_a_file_of_figures(source: Path, model: str, engine: FakeEngine, tmp_path: Path) -> None:
    summary = umbel.run(source, tmp_path / "o.jsonl", model=model, summary=tmp_path / "s.json", quiet=True)
    assert json.loads((tmp_path / "s.json").read_text())["ok"] == summary.ok == 6
