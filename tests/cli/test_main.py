"""The command line: exit codes, nearest names, what is refused before a model is loaded, and how little is imported."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import FakeEngine, write_rows
from tests.tiny_models import make_model
from umbel.batch import loading as assemble
from umbel.cli.main import main
from umbel.cli.run import process_start

ROWS = [{"custom_id": f"r{i}", "prompt": f"text {i}", "max_tokens": 3} for i in range(4)]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Stands in for the model; `seen` tells what it was asked."""
    fake = FakeEngine()
    monkeypatch.setattr(assemble, "_load", lambda *given: fake)
    return fake


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_model(tmp_path / "tiny")
    write_rows(tmp_path / "in.jsonl", ROWS)
    return tmp_path


def run(place: Path, *more: str, source: str = "in.jsonl", output: str = "out.jsonl") -> int:
    return main(["run", str(place / source), "-o", str(place / output), "--model", str(place / "tiny"), *more])


def test_a_job_and_its_summary(place: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--summary", str(place / "s.json"), "--max-tokens", "2", "--temperature", "0.5") == 0
    summary = json.loads((place / "s.json").read_text())
    assert {"rows": 4, "ok": 4, "failed": 0, "preemptions": 0}.items() <= summary.items()
    assert {"plan", "load", "run"} <= summary["seconds"].keys()
    assert {"prompt_tokens", "computed_prompt_tokens", "output_tokens"} <= summary.keys()
    assert 0 < summary["first_token_seconds"] < time.monotonic() - process_start()
    told = capsys.readouterr()
    assert told.out == ""
    assert "4 rows: 4 answered, 0 failed" in told.err


def test_failed_rows_give_3_and_a_second_run_does_nothing(
    place: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(place / "in.jsonl", [*ROWS, {"prompt": ""}])
    assert run(place) == 3
    assert run(place, "--summary", str(place / "s.json")) == 3
    assert len(engine.seen) == 4
    assert json.loads((place / "s.json").read_text())["first_token_seconds"] is None
    assert "already complete" in capsys.readouterr().err


def test_a_budget_gives_5_and_the_same_command_goes_on(
    place: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = ["--max-output-tokens-total", "7", "--deadline", "1h"]
    assert run(place, *budget) == 5
    assert "stopped by its budget; 4 rows: 2 answered, 0 failed, 2 to go" in capsys.readouterr().err
    assert main(["verify", str(place / "in.jsonl"), str(place / "out.jsonl")]) == 3
    assert run(place, *budget) == 0
    assert run(place, "--retry-failed") == 0
    assert len(engine.seen) == 4


def test_the_process_is_known_to_have_begun(place: Path) -> None:
    now = time.monotonic()
    assert now - 86_400 < process_start() <= now


def test_vllms_names_work(place: Path, engine: FakeEngine) -> None:
    paths = ["-i", str(place / "in.jsonl"), "--output-file", str(place / "out")]
    assert main(["run", *paths, "-m", str(place / "tiny")]) == 0


def test_templates_over_csv(place: Path, engine: FakeEngine) -> None:
    (place / "in.csv").write_text("text,label\ngood day,a\nbad day,b\n")
    assert run(place, "--prompt", "Classify: {text}", "--chat", source="in.csv", output="out.parquet") == 0
    assert len(engine.seen) == 2


def test_rows_may_name_the_model(place: Path, engine: FakeEngine) -> None:
    rows = [{"prompt": "x", "model": name} for name in ("tiny", str(place / "tiny"), "gpt", "other")]
    write_rows(place / "in.jsonl", rows)
    assert run(place, "--served-model-name", "gpt", "--summary", str(place / "s.json")) == 3
    assert json.loads((place / "s.json").read_text())["errors"] == {"model_not_found": 1}


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--temprature", "1"], "--temperature"),
        (["--max-tokens", "0"], "--max-tokens: max_tokens=0: must be from 1"),
        (["--temperature", "101"], "must be from 0 to 100"),
        (["--dtype", "float31"], "did you mean 'float32'"),
        (["--order", "sideways"], "input"),
        (["--chunk", "0"], "chunk=0"),
        (["--deadline", "soon"], "--deadline 'soon': give seconds"),
        (["--max-output-tokens-total", "0"], "must be at least 1"),
        (["--chat"], "--chat: only means something with --prompt"),
        (["--prompt", "no column"], "names no column"),
        (["--prompt", "{txt}", "--fresh"], None),
        (["--model", "nowhere/at-all-no-such-model/x"], "nowhere"),
        (["--summary", "/nowhere/s.json"], "no directory"),
    ],
)
def test_bad_arguments_stop_before_the_model_loads(
    arguments: list[str], told: str | None, place: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(place, *arguments)
    assert engine.seen == []
    if told is None:  # a column that JSON rows lack makes error rows, since each row may have its own
        assert code == 3
        return
    assert code == 2
    assert told in capsys.readouterr().err
    assert not (place / "out.jsonl").exists() and not (place / "out.jsonl.umbel").exists()


@pytest.mark.parametrize(
    "name, content, code", [("empty.jsonl", b"", 2), ("bad.parquet", b"PAR1", 4), ("x.gz", b"{}", 4)]
)
def test_unreadable_inputs(name: str, content: bytes, code: int, place: Path, engine: FakeEngine) -> None:
    (place / name).write_bytes(content)
    assert run(place, source=name) == code
    assert sorted(p.name for p in place.iterdir() if p.name.startswith("out")) == []


def test_strict_runs_nothing(place: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(place / "in.jsonl", [*ROWS, {"prompt": "", "custom_id": "bad"}])
    assert run(place, "--strict") == 4
    assert (engine.seen, (place / "out.jsonl").exists()) == ([], False)
    assert "empty_prompt" in capsys.readouterr().err


def test_missing_input_and_other_jobs(place: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, source="nowhere.jsonl") == 2
    assert main(["run", "-o", str(place / "o"), "-m", str(place / "tiny")]) == 2
    assert run(place) == 0
    assert run(place, "--seed", "5") == 2
    assert "engine.seed: 0 -> 5" in capsys.readouterr().err
    assert run(place, "--seed", "5", "--fresh") == 0


def test_a_damaged_model_directory_is_named(
    place: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "tiny" / "config.json").write_text("{")
    assert run(place) == 2
    assert "config.json" in capsys.readouterr().err


def test_verify(place: Path, engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    run(place)
    paths = [str(place / "in.jsonl"), str(place / "out.jsonl")]
    assert main(["verify", *paths]) == 0
    assert "sound" in capsys.readouterr().out
    (place / "out.jsonl").write_text("{}\n")
    assert main(["verify", *paths, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["sound"] is False


def test_help_version_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "verify" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert main([]) == 2
    assert main(["rnu"]) == 2
    assert "did you mean 'run'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "plan", "sim", "doctor", "bench", "verify"])
def test_options_of_other_engines_are_answered_by_every_command(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--gpu-memory-utilization", "0.9"]) == 2
    assert "no option '--gpu-memory-utilization': the KV pool is" in capsys.readouterr().err


LIGHT = {"--help": [], "run": ["--help"], "verify": ["--help"], "plan": ["--help"]}


def test_a_plan_imports_what_it_needs(place: Path) -> None:
    heavy = ["torch", "transformers", "pyarrow", "jinja2", "sqlite3", "rich", "importlib.metadata", "umbel.api"]
    code = "import sys; from umbel.cli.main import main; main(sys.argv[1:]); print([m for m in %r if m in sys.modules])"
    arguments = [sys.executable, "-c", code % heavy, "plan", str(place / "in.jsonl"), "-m", str(place / "tiny")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", LIGHT)
def test_help_imports_nothing_heavy(command: str) -> None:
    code = "import sys; from umbel.cli.main import main; main(sys.argv[1:]); print([m for m in %r if m in sys.modules])"
    heavy = ["torch", "transformers", "pyarrow", "numpy" if command == "--help" else "torch"]
    arguments: list[Any] = [sys.executable, "-c", code % heavy, command, *LIGHT[command]]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "generation_config.json"])
def test_a_model_that_changes_between_fingerprint_and_loading(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answers of other files must not be kept under the fingerprint of the first; the advice to start again works."""
    file, fake = place / "tiny" / name, FakeEngine()

    def load_slowly(*given: Any) -> FakeEngine:
        text = b"{}" if name.startswith("generation") else file.read_bytes()
        (place / "new").write_bytes(text)
        (place / "new").replace(file)
        return fake

    with monkeypatch.context() as patch:
        patch.setattr(assemble, "_load", load_slowly)
        assert run(place) == 2
    assert f"{name} changed while the model was read: start the job again" in capsys.readouterr().err
    assert not fake.seen
    monkeypatch.setattr(assemble, "_load", lambda *given: fake)
    assert run(place) == 0


LONG_AGO = 1_000.0  # seconds


@pytest.fixture
def old_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has run for long, as a notebook has."""
    monkeypatch.setattr("umbel.cli.run.process_start", lambda: time.monotonic() - LONG_AGO)


def test_called_from_python_times_count_from_the_call(place: Path, engine: FakeEngine, old_process: None) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run(place, "--summary", str(place / "s.json"), "--deadline", "900s") == 0
    assert 0 < json.loads((place / "s.json").read_text())["first_token_seconds"] < LONG_AGO
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_command_of_its_own_counts_from_the_start_of_its_process(
    place: Path, engine: FakeEngine, old_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["run", str(place / "in.jsonl"), "-o", str(place / "out.jsonl"), "-m", str(place / "tiny")]
    for name in ("await_stops", "show_what_can_be_shown"):
        monkeypatch.setattr(f"umbel.cli.main.{name}", lambda **more: None)
    monkeypatch.setattr("umbel.cli.main.finish", lambda code: code)
    monkeypatch.setattr(sys, "argv", ["umbel", *given, "--summary", str(place / "s.json")])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main() == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert json.loads((place / "s.json").read_text())["first_token_seconds"] > LONG_AGO
