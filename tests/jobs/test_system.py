"""--system: a system message for chats that have none, with columns in it, part of the job's fingerprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import write_rows
from umbel.cli.main import main
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.jobs.fingerprint import fingerprint
from umbel.jobs.read.records import ReadOptions
from umbel.jobs.read.source import Source

SYSTEM, USER = {"role": "system", "content": "Be b!"}, {"role": "user", "content": "a"}
OWN = [{"role": "developer", "content": "Mine."}, USER]


def chats(source: Path, **options: Any) -> list[Any]:
    """The conversations of a file, or the codes of rows that have none."""
    rows = list(Source(source, ReadOptions(SamplingParams(), system="Be {y}!", **options)).rows())
    return [row.request.messages if row.request is not None else row.error and row.error.code for row in rows]


@pytest.mark.parametrize("name", ["in.csv", "in.parquet", "in.jsonl"])
def test_columns_of_the_system_message(name: str, tmp_path: Path) -> None:
    source = tmp_path / name
    if name.endswith("jsonl"):
        write_rows(source, [{"x": "a", "y": "b"}, {"x": "a"}])
    elif name.endswith("csv"):
        source.write_text("x,y\na,b\n")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"x": ["a", "a"], "y": ["b", None]}), source)
    first, *others = chats(source, template="{x}", chat=True)
    assert first == [SYSTEM, USER] and others in ([], ["missing_required_parameter"])


def test_rows_that_are_chats_or_prompts(tmp_path: Path) -> None:
    rows = [{"messages": [USER]}, {"messages": OWN}, {"prompt": "a"}, {"prompt": [1, 2]}, {"prompt": [3], "y": None}]
    source = write_rows(tmp_path / "in.jsonl", [{"y": "b"} | row for row in rows])
    expected = [[SYSTEM, USER], OWN, [SYSTEM, USER], "invalid_value", "invalid_value"]
    assert chats(source) == expected


def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("x,yy\na,b\n")
    with pytest.raises(UsageError, match=r"--system: no column 'y'.*did you mean 'yy'"):
        chats(tmp_path / "in.csv", template="{x}", chat=True)
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [USER]}}
    with pytest.raises(UsageError, match="--system: the input has OpenAI batch lines"):
        chats(write_rows(tmp_path / "openai.jsonl", [line]))
    assert main(["plan", str(tmp_path / "in.csv"), "-m", "demo", "--prompt", "{x}", "--system", "{"]) == 2
    assert "--system '{'" in capsys.readouterr().err


def test_a_system_message_makes_a_chat_and_another_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("x\na\n")
    job = ["plan", str(tmp_path / "in.csv"), "-m", "demo", "--prompt", "Say {x}", "--max-tokens", "2", "--json"]
    assert main([*job, "--system", r"Be brief.\nBe kind."]) == 0
    (prompt,) = json.loads(capsys.readouterr().out)["prompts"]
    assert "system\nBe brief.\nBe kind.<" in prompt["text"] and "user\nSay a<" in prompt["text"]
    options = [ReadOptions(system=system) for system in (None, "a", "b")]
    parts = [fingerprint({}, each, {}, {}, "1") for each in options]
    assert len({part.get("read.system") for part in parts}) == 3
