"""The command line's grammar: every type, order of options and places, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from umbel.batch.declared import Argument, Option
from umbel.cli.arguments import call
from umbel.errors import UsageError


def run(*arguments: str) -> dict[str, Any]:
    """What the command was given."""
    given: dict[str, Any] = {}

    def command(
        source: Annotated[Path, Argument(help="What to read.")],
        model: Annotated[str, Option("-m", "--model", help="100% needed.")],
        other: Annotated[Path | None, Argument(metavar="ELSE", help="May be left out.")] = None,
        rows: Annotated[int | None, Option(help="How many.", min=1)] = None,
        heat: Annotated[float, Option(help="How hot.")] = 1.0,
        stop: Annotated[list[str] | None, Option(help="Repeatable.")] = None,
        order: Annotated[Literal["input", "finish"], Option(help="Which.")] = "input",
        dry_run: Annotated[bool, Option("-n", "--dry-run", help="Do nothing.")] = False,
    ) -> int:
        """Do something.

        In some detail.
        """
        given.update(source=source, model=model, other=other, rows=rows, heat=heat, stop=stop, order=order)
        given["dry_run"] = dry_run
        return 3

    assert call(command, arguments, "umbel try") == 3
    return given


DEFAULTS = {"other": None, "rows": None, "heat": 1.0, "stop": None, "order": "input", "dry_run": False}


@pytest.mark.parametrize(
    "line, given",
    [
        ("a.jsonl -m demo", {}),
        ("-m demo a.jsonl", {}),
        ("--model=demo --dry-run a.jsonl", {"dry_run": True}),
        ("a.jsonl --rows 5 b -m demo -n", {"rows": 5, "other": Path("b"), "dry_run": True}),
        ("-m demo --stop x a.jsonl --stop y", {"stop": ["x", "y"]}),
        ("-m demo --heat -0.5 a.jsonl --order finish", {"heat": -0.5, "order": "finish"}),
        ("-m other a.jsonl -m demo", {}),
    ],
)
def test_what_is_understood(line: str, given: dict[str, Any]) -> None:
    assert run(*line.split()) == {"source": Path("a.jsonl"), "model": "demo", **DEFAULTS, **given}


@pytest.mark.parametrize(
    "line, told",
    [
        ("a.jsonl", "-m/--model is missing; see umbel try --help"),
        ("-m demo", "SOURCE is missing"),
        ("a.jsonl -m", "expected one argument"),
        ("a.jsonl --modle demo", "no option '--modle' (did you mean '--model'?)"),
        ("a.jsonl --mod demo", "no option '--mod'"),
        ("a b c -m demo", "no argument 'c'"),
        ("a -m demo --rows 0", "--rows: 0: must be at least 1"),
        ("a -m demo --rows many", "--rows: invalid int value: 'many'"),
        ("a -m demo --order sideways", "choose from"),
    ],
)
def test_mistakes_are_named(line: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        run(*line.split())
    assert told in str(error.value)


def test_help_shows_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    for shown in ("umbel try [OPTIONS] SOURCE ELSE", "In some detail.", "100% needed.", "{input,finish}", "[1.0]"):
        assert shown in text
