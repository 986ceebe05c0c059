"""Every setting of an engine is an option, the same of every command that takes it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import pytest

from umbel.batch.declared import Argument, Option
from umbel.batch.engine_options import EngineOptions
from umbel.cli.arguments import call
from umbel.config import EngineConfig
from umbel.errors import UsageError

APART = {"model", "seed"}  # which not all commands take


def test_every_setting_has_an_option_with_its_default() -> None:
    assert EngineOptions().config("demo") == EngineConfig("demo")
    names = {"skip" if field.name == "skip_pass" else field.name for field in fields(EngineOptions)}
    assert names == {field.name for field in fields(EngineConfig)} - APART


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--max-num-batched-tokens 64 --block-size 32", {"chunk": 64, "page_size": 32}),
        ("--page-size 8 --skip-pass order --skip-pass pack", {"page_size": 8, "skip": ("order", "pack")}),
        ("--linear int8 --allow-lossy --kv-tokens 640", {"linear": "int8", "allow_lossy": True, "kv_tokens": 640}),
    ],
)
def test_options_become_settings(line: str, wanted: dict[str, Any]) -> None:
    found: list[EngineConfig] = []

    def command(engine: EngineOptions) -> None:
        """Take them."""
        found.append(engine.config("demo"))

    assert call(command, line.split(), "umbel try") == 0
    assert found == [EngineConfig("demo", **wanted)]


@dataclass(frozen=True)
class Group:
    """Options that belong together, one of which must be given."""

    size: Annotated[int, Option(help="How large.", min=2)]
    name: Annotated[str | None, Option("-n", help="What it is called.")] = None


def test_a_group_stands_for_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    found: list[Any] = []

    def command(place: Annotated[str, Argument(help="Where.")], group: Group, dry: bool = False) -> None:
        """Take a group."""
        found.append((place, group, dry))

    call(command, ["here", "--size", "3", "-n", "x"], "umbel try", dry=True)
    assert found == [("here", Group(3, "x"), True)]
    with pytest.raises(UsageError, match="--size is missing"):
        call(command, ["here"], "umbel try")
    with pytest.raises(UsageError, match="must be at least 2"):
        call(command, ["here", "--size", "1"], "umbel try")
    with pytest.raises(SystemExit):
        call(command, ["--help"], "umbel try")
    assert "--size INT" in capsys.readouterr().out
