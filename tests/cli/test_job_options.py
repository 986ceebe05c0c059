"""One set of options for `umbel plan` and `umbel run`, and what other engines' options are answered with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from umbel.batch.declared import option_name, python_name
from umbel.cli.main import main
from umbel.foreign import FOREIGN, instead

DESTROYS = ("--overwrite", "--fresh")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"add {i % 3} 1"}) + "\n" for i in range(6)))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_a_dry_run_prints_what_plan_prints(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_CACHE", str(tmp_path / "cache"))
    given = (rows, "-m", "demo", "--temperature", "0", "--n", "1", "--max-tokens", "3", "--machine", "a100")
    code, plan, _ = said(capsys, "plan", *given)
    assert code == 0 and plan.startswith("PLAN  ") and "3 rows" in plan  # twins at temperature 0 are answered once
    assert said(capsys, "run", *given, "--dry-run", "-o", tmp_path / "out.jsonl")[:2] == (0, plan)
    assert not (tmp_path / "out.jsonl").exists() and not (tmp_path / "out.jsonl.umbel").exists()


OURS = ("--task",)  # whose values are answered, as it is an option here too


@pytest.mark.parametrize("option", [option for option in map(option_name, FOREIGN) if option not in OURS])
def test_options_of_other_engines_are_answered_with_what_there_is(
    option: str, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, "run", rows, "-m", "demo", "-o", rows.with_name("out.jsonl"), option, "1")
    assert (code, out) == (2, "") and option in err and str(instead(python_name(option), option_name)) in err
    assert "{" not in err
    assert not any(name in err for name in DESTROYS)


@pytest.mark.parametrize("slip", ["--refresh", "--freshh", "--overwrit", "--overwritten", "--fres"])
def test_no_slip_leads_to_an_option_that_destroys(slip: str, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "run", rows, "-m", "demo", "-o", rows.with_name("out.jsonl"), slip)
    assert code == 2 and slip in err
    assert not any(f"did you mean {name!r}" in err for name in DESTROYS)


def test_resume_and_overwrite_contradict_each_other(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("run", rows, "-m", "demo", "-o", rows.with_name("out.jsonl"), "--resume", "--overwrite")
    code, _, err = said(capsys, *given)
    assert code == 2 and "give one of them" in err


@pytest.mark.parametrize("given", [("--machine", "a100"), ("--json",), ("--html", "plan.html")])
def test_options_of_a_plan_are_refused_by_a_run(
    given: tuple[str, ...], rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(capsys, "run", rows, "-m", "demo", "-o", rows.with_name("out.jsonl"), *given)
    assert code == 2 and given[0] in err and "--dry-run" in err


def test_a_value_that_cannot_be_names_its_option(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "plan", rows, "-m", "demo", "--min-p", "1.5")
    assert code == 2 and "--min-p" in err and "1.5" in err


def test_the_package_runs_as_a_module() -> None:
    found = subprocess.run([sys.executable, "-m", "umbel", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("umbel ")


FORMS = [
    (("--regex", "a("), "--regex: structured_outputs.regex: .*unclosed group"),
    (("--json-schema", "schema.json"), "--json-schema: structured_outputs.json: .*Unimplemented keys"),
    (("--grammar", "none.lark"), "--grammar none.lark: cannot be read"),
    (("--regex", "a", "--json-schema", "schema.json"), "give one of them"),
]


@pytest.mark.parametrize(("given", "message"), FORMS)
def test_a_form_for_all_answers_is_checked_before_anything_is_loaded(
    given: tuple[str, ...],
    message: str,
    rows: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(rows.parent)
    Path("schema.json").write_text('{"not": {}}')
    for command in (("plan",), ("run", "-o", "out.jsonl")):
        code, out, err = said(capsys, *command, rows, "-m", "demo", *given)
        assert (code, out) == (2, "") and re.search(message, err.replace("\n", " "))
    assert not Path("out.jsonl.umbel").exists()


def test_answers_have_the_form_that_all_are_asked_for(
    rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row may have another one, or none."""
    monkeypatch.chdir(rows.parent)
    Path("forms.jsonl").write_text(
        '{"prompt": "x"}\n{"prompt": "y", "guided_choice": ["one", "two"]}\n'
        '{"prompt": "z", "response_format": {"type": "text"}}\n'
        '{"prompt": "u", "response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}\n'
    )
    given = ("-m", "demo", "--regex", "[0-9]{4}", "--max-tokens", "9", "-o", "out.jsonl", "--quiet")
    assert said(capsys, "run", "forms.jsonl", *given)[0] == 3
    first, second, third, fourth = map(json.loads, Path("out.jsonl").read_text().splitlines())
    assert re.fullmatch("[0-9]{4}", first["text"]) and second["text"] in ("one", "two")
    assert third["text"] and third["finish_reason"] == "length"
    assert fourth["error"]["code"] == "invalid_grammar" and "Unimplemented keys" in fourth["error"]["message"]
