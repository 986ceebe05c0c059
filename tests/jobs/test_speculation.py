"""A job whose steps check proposed tokens writes the bytes of one whose steps do not, and says how many came true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.drafters import check_all
from tests.jobs.fakes import write_rows
from tests.scripted_model import make_scripted
from tests.tiny_models import write_tokenizer
from umbel.cli.main import main


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows, and a model whose answers run in a circle."""
    check_all(monkeypatch)
    make_scripted(tmp_path / "model", lambda folder: write_tokenizer(folder, ""), "ZZ", "ABCDA")
    rows = [{"custom_id": f"r{i}", "prompt": f"{i}:{'ABCD'[i]}", "max_tokens": 20 + i, "logprobs": 1} for i in range(4)]
    write_rows(tmp_path / "in.jsonl", rows)
    return tmp_path


def run(place: Path, name: str, *more: str) -> dict[str, Any]:
    """Run the job; its summary."""
    given = ["run", str(place / "in.jsonl"), "-o", str(place / name), "--model", str(place / "model"), *more]
    assert main([*given, "--temperature", "0", "--dtype", "float32", "--summary", str(place / "summary.json")]) == 0
    found: dict[str, Any] = json.loads((place / "summary.json").read_text())
    return found


def test_the_same_bytes_and_what_came_true(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, checked = run(place, "off", "--speculate", "off"), run(place, "on", "--speculate", "ngram")
    assert (place / "on").read_bytes() == (place / "off").read_bytes()
    assert plain["drafted_tokens"] == plain["accepted_tokens"] == 0
    assert checked["drafted_tokens"] >= checked["accepted_tokens"] > 40
    assert checked["steps"] < plain["steps"] / 2
    capsys.readouterr()
    for name, summary in (("off", plain), ("on", checked)):
        assert main(["report", str(place / name)]) == 0
        told = f"{summary['accepted_tokens']:,} of {summary['drafted_tokens']:,} proposed tokens came true"
        assert (told in capsys.readouterr().out) == (name == "on")


def test_it_can_be_taken_up_with_another_drafter(place: Path) -> None:
    """Answers do not depend on who proposes, so a job that was stopped may go on otherwise."""
    run(place, "whole", "--speculate", "off")
    given = ["run", str(place / "in.jsonl"), "-o", str(place / "cut"), "--model", str(place / "model")]
    given += ["--temperature", "0", "--dtype", "float32"]
    assert main([*given, "--speculate", "ngram", "--max-output-tokens-total", "30"]) == 5
    assert run(place, "cut", "--speculate", "off")["resumed"] > 0
    assert (place / "cut").read_bytes() == (place / "whole").read_bytes()


def test_a_drafter_that_is_not_there_is_refused_by_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["run", str(place / "in.jsonl"), "-o", str(place / "out"), "--model", str(place / "model")]
    assert main([*given, "--speculate", "ngrams"]) == 2
    told = capsys.readouterr().err
    assert "speculate='ngrams': must be one of auto, off, " in told and "did you mean 'ngram'" in told
