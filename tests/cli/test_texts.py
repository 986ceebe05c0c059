"""Long texts on a command line: escapes, and files."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from tests.jobs.fakes import write_rows
from umbel.cli.main import main
from umbel.cli.texts import written


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (r"a\nb\tc", "a\nb\tc"),
        (r"C:\\new \d \\\n", "C:\\new \\d \\\n"),
        ("@@home {x}", "@home {x}"),
        ("mail@home", "mail@home"),
        ("\\", "\\"),
    ],
)
def test_escapes(given: str, text: str) -> None:
    assert written(given) == text


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"\xef\xbb\xbfSay \\n {x}\xc3\xa4\r\n\r\n")
    assert written(f"@{file}") == "Say \\n {x}ä\r\n"


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [("none", None, "write @@ for"), ("bytes", b"\xff", "UTF-8"), ("", None, "directory"), ("a\0b", None, "null byte")],
)
def test_files_that_cannot_be_read(name: str, data: bytes | None, told: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ArgumentTypeError, match=told):
        written(f"@{tmp_path}/{name}")


def test_stop_tokens_are_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = ["plan", str(write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}])), "-m", "demo", "--max-tokens", "2"]
    assert main([*job, "--stop-token-ids", "2,7", "--stop-token-id", "9"]) == 0
    capsys.readouterr()
    assert main([*job, "--stop-token-ids", "2,x"]) == 2
    assert "'2,x': must be whole numbers" in capsys.readouterr().err
