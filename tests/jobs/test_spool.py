"""Inputs that are no regular files: pipes are copied first, everything else is refused at once; nothing hangs."""

from __future__ import annotations

import gzip
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from umbel.cli.main import main
from umbel.errors import UsageError
from umbel.jobs.read import spool
from umbel.jobs.read.source import Source
from umbel.jobs.read.spool import readable

ROWS = b'{"prompt": "one", "max_tokens": 1}\n' * 3


def umbel(*arguments: Any, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "umbel.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=300, check=False, **more)


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_plan_of_what_comes_through_a_pipe(name: str, packed: bool) -> None:
    done = umbel("plan", name, "--model", "demo", "--json", input=gzip.compress(ROWS) if packed else ROWS)
    assert (done.returncode, json.loads(done.stdout)["rows"]) == (0, 3)


def test_a_run_of_what_comes_through_a_pipe(tmp_path: Path) -> None:
    command = ("run", "-", "-o", tmp_path / "out.jsonl", "--model", "demo", "-q", "--threads", "1")
    assert umbel(*command, input=ROWS).returncode == 0
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.umbel"]
    assert umbel(*command, input=ROWS).returncode == 0  # the same content is the same job
    other = umbel(*command, input=ROWS + ROWS)
    assert other.returncode == 2 and b"input.sha256" in other.stderr


@pytest.mark.parametrize(
    "name, data",
    [("p.fifo", ROWS), ("p.csv", b"prompt\na\nb\nc\n"), ("p.csv.gz", gzip.compress(b"prompt\na\nb\nc\n"))],
)
def test_a_fifo_goes_by_its_name(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    with readable(path, tmp_path) as copy:
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert copy.parent == tmp_path
        assert len(list(Source(copy).rows())) == 3
    writer.join()
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_fifo_that_nobody_writes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "WRITER_SECONDS", 0.05)
    os.mkfifo(tmp_path / "p")
    with pytest.raises(UsageError, match="nothing was written"), readable(tmp_path / "p"):
        pass


def test_no_copy_is_left_when_the_job_fails(tmp_path: Path) -> None:
    numbers = os.pipe()
    os.write(numbers[1], ROWS)
    os.close(numbers[1])
    with pytest.raises(MemoryError), readable(Path(f"/dev/fd/{numbers[0]}"), tmp_path):
        raise MemoryError
    os.close(numbers[0])
    assert not list(tmp_path.iterdir())


def test_parquet_is_known_by_its_content(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pa.parquet.write_table(pa.table({"prompt": ["a", "b"]}), tmp_path / "in.parquet")
    numbers = os.pipe()
    os.write(numbers[1], (tmp_path / "in.parquet").read_bytes())
    os.close(numbers[1])
    with readable(Path(f"/dev/fd/{numbers[0]}"), tmp_path) as copy:
        assert len(list(Source(copy).rows())) == 2
    os.close(numbers[0])


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/dev/null", "socket", "directory", "x" * 255, "x" * 256, "a\0b", "none"]
)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_other_things_are_refused_by_name(
    name: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        Path("directory").mkdir()
        more = ["-o", "out.jsonl"] if verb == "run" else []
        assert main([verb, name, "--model", "demo", *more]) == 2
    said = capsys.readouterr().err
    assert said.startswith("umbel: input ") and said.count("\n") == 1
    assert not Path("out.jsonl.umbel").exists()


def test_a_terminal_is_no_input() -> None:
    master, slave = os.openpty()
    done = umbel("plan", "-", "--model", "demo", stdin=slave)
    os.close(master)
    os.close(slave)
    assert done.returncode == 2 and b"terminal" in done.stderr


def test_the_checker_wants_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "p")
    assert main(["verify", str(tmp_path / "p"), str(tmp_path / "p")]) == 2
    assert "not a regular file" in capsys.readouterr().err
