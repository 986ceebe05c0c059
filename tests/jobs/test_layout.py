"""`--layout`: a job whose template has its lines in another order is the job of that template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel.cli.main import main
from umbel.errors import UsageError

WRITTEN = "Name: {name}\nKind: {kind}\nPlace: {place}\nIs it one?"
PLACE = " ".join(["the only place"] * 8)
BEST = "Place: {place}\nKind: {kind}\nName: {name}\nIs it one?"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve things of two kinds in one place."""
    path = tmp_path / "things.csv"
    rows = [f"thing {i},kind {i % 2},{PLACE}" for i in range(12)]
    path.write_text("\n".join(["name,kind,place", *rows]) + "\n")
    return path


def answers(source: Path, prompt: str, **options: Any) -> list[dict[str, Any]]:
    target = source.with_name("out.jsonl")
    given = {"model": "demo", "temperature": 0.8, "max_tokens": 3, "quiet": True, "include_prompt": True, "fresh": True}
    umbel.run(source, target, prompt=prompt, **given | options)
    return [json.loads(line) for line in target.read_text().splitlines()]


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", *words, "-m", "demo", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_job_is_that_of_the_other_template(source: Path) -> None:
    laid = answers(source, WRITTEN, layout="auto")
    assert laid == answers(source, BEST)
    assert laid[3]["prompt"] == f"Place: {PLACE}\nKind: kind 1\nName: thing 3\nIs it one?"
    assert answers(source, WRITTEN) != laid


def test_a_plan_says_unasked_what_it_would_save(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    off = planned(capsys, str(source), "--prompt", WRITTEN)
    found = off["layout"]
    assert found["columns"] == ["place", "kind", "name"] and not found["taken"]
    assert found["text"].startswith("--layout auto: order {place}, {kind}, {name}: about ")
    on = planned(capsys, str(source), "--prompt", WRITTEN, "--layout", "auto")
    assert on["layout"]["taken"] and on["computed_prompt_tokens"] < off["computed_prompt_tokens"]
    assert on["layout"]["computed"] < on["layout"]["written"] <= on["layout"]["total"]
    assert on["computed_prompt_tokens"] == planned(capsys, str(source), "--prompt", BEST)["computed_prompt_tokens"]


def test_pinned_columns_stay(source: Path) -> None:
    rows = answers(source, WRITTEN, layout="columns", pin="place")
    assert rows[0]["prompt"] == f"Kind: kind 0\nName: thing 0\nPlace: {PLACE}\nIs it one?"


def test_an_order_that_is_good_already_stays(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, str(source), "--prompt", BEST, "--layout", "auto")["layout"]
    assert not found["taken"] and "stay as they are written" in found["text"]


def test_rows_at_fault_change_nothing(tmp_path: Path) -> None:
    """Rows without a column are errors as ever, and the others are laid out."""
    source = tmp_path / "things.jsonl"
    rows: list[dict[str, Any]] = [{"name": f"thing {i}", "kind": "the same kind"} for i in range(6)]
    source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"name": "alone"}]))
    found = answers(source, "{name}\n{kind}", layout="auto")
    assert found[2]["prompt"] == "the same kind\nthing 2"
    assert found[6]["error"]["param"] == "kind"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "auto"}, r"layout: only means something with prompt"),
        ({"pin": "name"}, r"pin: only means something with prompt"),
        ({"layout": "auto", "prompt": "{name} {kind}"}, r"layout auto: prompt needs two lines side by side"),
        ({"layout": "auto", "prompt": "{name}\nand\n{kind}"}, r"needs two lines side by side with columns"),
        ({"layout": "auto", "prompt": WRITTEN, "pin": "nam"}, r"pin nam: prompt has no such column.*name"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(source: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        umbel.run(source, source.with_name("out.jsonl"), **{"model": "demo", "quiet": True} | options)
