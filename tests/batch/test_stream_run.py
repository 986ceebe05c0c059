"""`umbel run ... -o -`: answers go to standard output as they come, into whatever reads it."""

from __future__ import annotations

import gzip
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import write_rows
from umbel.cli.main import main

CHAT = {"messages": [{"role": "user", "content": "add 2 2"}], "max_tokens": 4, "logprobs": True, "top_logprobs": 2}
OPENAI = [
    {"custom_id": f"c{i}", "method": "POST", "url": "/v1/chat/completions", "body": {**CHAT, "seed": i}}
    for i in range(6)
]
PLAIN: list[Any] = [
    *({"prompt": f"add {i % 3} 1", "max_tokens": 5, "n": 1 + i % 2, "label": i} for i in range(8)),
    {"prompt": "good? ", "choices": ["yes", "no"]},
    b"{broken",
    {"prompt": [5, 6, 7], "max_tokens": 2, "custom_id": "ids"},
]
LINE = b'{"prompt": "add 1 1", "max_tokens": 3}\n'


def umbel(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "umbel.cli.main", "run", *map(str, arguments), "-m", "demo", "--threads", "1"]


@pytest.fixture(autouse=True)
def fixed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("rows, code", [(PLAIN, 3), pytest.param(OPENAI, 0, marks=pytest.mark.slow)])
def test_a_stream_has_the_bytes_of_a_file(
    rows: list[Any], code: int, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], in_folder: None
) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(source.read_bytes()))
    given = ("-m", "demo", "-q", "--temperature", "0.7")
    assert main(["run", "in.jsonl", "-o", "out.jsonl", *given]) == code
    for name, output in (("in.jsonl", "-"), ("in.jsonl.gz", "/dev/stdout")):
        capfdbinary.readouterr()
        assert main(["run", name, "-o", output, *given, "--summary", "s.json"]) == code
        assert capfdbinary.readouterr().out == (tmp_path / "out.jsonl").read_bytes()
        assert json.loads((tmp_path / "s.json").read_bytes())["rows"] == len(rows)
    there = {"in.jsonl", "in.jsonl.gz", "out.jsonl", "out.jsonl.umbel", "s.json"}
    assert {path.name for path in tmp_path.iterdir()} == there


@pytest.mark.parametrize(
    "option",
    [
        *(["--errors", "e.jsonl"], ["--deadline", "5m"], ["--max-output-tokens-total", "5"], ["--retry-failed"]),
        *(["--resume"], ["--overwrite"], ["--strict"], ["--profile"], ["--grace", "1s"], ["-dp", "2"]),
    ],
)
def test_what_a_stream_cannot_do_is_refused_by_name(
    option: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(tmp_path / "in.jsonl", PLAIN)
    option = ["--data-parallel-size", "2"] if option[0] == "-dp" else option
    assert main(["run", str(source), "-o", "-", "-m", "demo", *option]) == 2
    out, err = capfd.readouterr()
    assert out == "" and f"umbel: {option[0]}: not where answers go to - as they come" in err


def test_a_summary_does_not_overwrite_the_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_rows(tmp_path / "in.jsonl", PLAIN)
    assert main(["run", str(source), "-o", "-", "-m", "demo", "--summary", str(source)]) == 2
    assert "is the input of this job" in capfd.readouterr().err


@pytest.mark.slow
def test_a_line_is_answered_before_the_next_one_comes() -> None:
    with subprocess.Popen(umbel("-", "-o", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as done:
        assert done.stdin is not None and done.stdout is not None
        for row in range(3):
            done.stdin.write(LINE)
            assert select.select([done.stdout], [], [], 240)[0], "an answer without the end of the input"
            assert json.loads(os.read(done.stdout.fileno(), 65_536))["custom_id"] == str(row)
        done.stdin.close()
        assert done.stdout.read() == b"" and done.wait(60) == 0


@pytest.mark.nightly
def test_a_reader_that_leaves(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(LINE * 3_000)
    done = subprocess.Popen(
        umbel(tmp_path / "in.jsonl", "-o", "-", "-q"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert done.stdout is not None and json.loads(done.stdout.readline())["custom_id"] == "0"
    done.stdout.close()
    _, err = done.communicate(timeout=120)
    assert (done.returncode, err) == (141, b"")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop(number: signal.Signals) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(umbel("-", "-o", "-", "-q"), bufsize=0, **pipes) as done:
        assert done.stdin is not None and done.stdout is not None and done.stderr is not None
        done.stdin.write(LINE)
        assert done.stdout.readline().endswith(b"}\n")
        done.send_signal(number)
        assert done.wait(60) == 128 + number
        assert done.stderr.read() == f"umbel: stopped by {number.name}\n".encode()


@pytest.mark.nightly
def test_a_table_through_a_pipe_is_read_whole(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": ["add 1 1", "add 2 2"], "max_tokens": [2, 2]}), tmp_path / "in.parquet")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        umbel("-", "-o", "-"),
        input=(tmp_path / "in.parquet").read_bytes(),
        capture_output=True,
        timeout=240,
        check=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert [json.loads(line)["custom_id"] for line in done.stdout.splitlines()] == ["0", "1"]
    assert done.stderr.count(b"nothing is kept") == 1 and b"2 rows: 2 answered" in done.stderr
    assert not list(temporary.iterdir())
