"""What is written beside the answers: whole, never over a file of the job or of anybody else, failures named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.jobs.fakes import make_job, read_rows, write_rows
from tests.tiny_models import make_model
from umbel.batch.extras import PAGE, SUMMARY, TRACE, write_page, writing
from umbel.cli.main import main
from umbel.errors import UsageError

MINE = b"somebody's work\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_model(tmp_path / "tiny")
    write_rows(tmp_path / "in.jsonl", [{"prompt": "the weather", "max_tokens": 2}])
    make_job(tmp_path / "in.jsonl", tmp_path / "out").run()
    return tmp_path


def listing(place: Path) -> dict[str, bytes]:
    """The files of a folder, and what is in them."""
    return {entry.name: entry.read_bytes() if entry.is_file() else b"" for entry in place.iterdir()}


def test_it_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), writing("--html", path) as out:
        out.write(b"half")
        out.flush()
        assert path.read_bytes() == b"old"
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
    write_page(path, "new")
    assert path.read_bytes() == b"new"
    longest = tmp_path / ("x" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    write_page(longest, "new")
    assert longest.read_bytes() == b"new"


def test_links_are_followed_and_pipes_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("page.html")
    write_page(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "page.html").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_page(tmp_path / "pipe", "new")
    reader.join()
    assert heard == [b"new"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_failure_is_named(tmp_path: Path) -> None:
    for path in (Path("/dev/full"), tmp_path / "nowhere" / "page.html", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match=r"^--html .*: cannot be written \("):
            write_page(path, "new")


@pytest.mark.parametrize("name", ["in.jsonl", "link"])
def test_the_page_of_a_plan_is_not_written_over_its_input(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (place / "in.jsonl").read_bytes()
    (place / "link").symlink_to("in.jsonl")
    assert main(["plan", str(place / "in.jsonl"), "-m", str(place / "tiny"), "--html", str(place / name)]) == 2
    assert "is the input of this job; choose another name" in capsys.readouterr().err
    assert (place / "in.jsonl").read_bytes() == before


@pytest.mark.parametrize("command", ["plan", "report"])
@pytest.mark.parametrize("name", ["out", "out.umbel", "mine", "in.jsonl", "tiny/config.json"])
def test_a_page_replaces_pages_only(command: str, name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "mine").write_bytes(MINE)
    given = ["plan", str(place / "in.jsonl"), "-m", str(place / "tiny")]
    given = given if command == "plan" else ["report", str(place / "out")]
    before = (place / name).read_bytes()
    assert main([*given, "--html", str(place / name)]) == 2
    assert "choose another name" in capsys.readouterr().err
    assert (place / name).read_bytes() == before
    for _ in range(2):
        assert main([*given, "--html", str(place / "page.html")]) == 0
    assert (place / "page.html").read_bytes().startswith(PAGE)


@pytest.mark.parametrize("option", ["--summary", "--profile"])
@pytest.mark.parametrize("name", ["in.jsonl", "other", "other.umbel", "other.umbel-wal", "mine.json"])
def test_a_run_writes_figures_and_traces_over_their_own_kind_only(
    option: str, name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine.json").write_bytes(MINE)
    (place / "t.json").symlink_to(name)  # a trace must end in .json
    given = ["run", str(place / "in.jsonl"), "-o", str(place / "other"), "-m", str(place / "tiny"), "-q"]
    before = listing(place)
    assert main([*given, f"{option}={place / 't.json'}"]) == 2
    assert "choose another name" in capsys.readouterr().err
    assert listing(place) == before


@pytest.mark.slow
def test_two_of_them_are_not_one_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["run", str(place / "in.jsonl"), "-o", str(place / "other"), "-m", str(place / "tiny"), "-q"]
    (place / "link.json").symlink_to("t.json")
    assert main([*given, f"--profile={place / 't.json'}", "--summary", str(place / "link.json")]) == 2
    assert "is the file of --summary of this job" in capsys.readouterr().err
    for _ in range(2):
        assert main([*given, f"--profile={place / 't.json'}", "--summary", str(place / "s.json")]) == 0
    assert (place / "s.json").read_bytes().startswith(SUMMARY)
    assert (place / "t.json").read_bytes().startswith(TRACE)
    assert json.loads((place / "s.json").read_bytes())["status"] == "already_complete"


def test_a_page_of_benchmarks_is_not_written_over_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_bytes(MINE)
    (tmp_path / "page-1.svg").write_bytes(MINE)
    for name in ("rows.jsonl", "page.md"):
        assert main(["bench", "--from", str(tmp_path / "rows.jsonl"), "--page", str(tmp_path / name)]) == 2
        assert "choose another name" in capsys.readouterr().err
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "page-1.svg").read_bytes() == MINE


def test_standard_output_goes_on_where_it_is(place: Path) -> None:
    """Into a file that has something in it already: nothing is cut off, and the plan's text comes behind the page."""
    command = [sys.executable, "-m", "umbel.cli.main", "plan", "in.jsonl", "-m", "tiny", "--html", "/dev/stdout"]
    (place / "log").write_bytes(MINE)
    with (place / "log").open("ab") as log:
        subprocess.run(command, cwd=place, stdout=log, check=True)
    text = (place / "log").read_bytes()
    assert text.startswith(MINE + PAGE)
    assert b"PLAN " in text.partition(b"</html>")[2]


def test_rows_beyond_the_pool_are_answered_as_their_message_says(place: Path) -> None:
    write_rows(place / "long.jsonl", [{"prompt": [5] * 60, "max_tokens": 2}, {"prompt": [6], "max_tokens": 2}])
    given = ["run", str(place / "long.jsonl"), "-o", str(place / "long"), "-m", str(place / "tiny"), "-q"]
    assert main([*given, "--kv-tokens", "32"]) == 3
    (error,) = [row["error"] for row in read_rows(place / "long") if row["error"]]
    assert (error["code"], error["message"].partition("; ")[2]) == (
        "kv_capacity_exceeded",
        "raise kv_tokens (of a job: --kv-tokens, with --retry-failed)",
    )
    assert main([*given, "--kv-tokens", "256", "--retry-failed"]) == 0
