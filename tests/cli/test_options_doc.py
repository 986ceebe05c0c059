"""docs/options.md is what the commands take today."""

from __future__ import annotations

import argparse

import pytest

from tests.cli.options_doc import DOC, document, parser_of
from umbel.cli.main import COMMANDS


def test_the_page_is_current() -> None:
    assert DOC.read_text(encoding="utf-8") == document(), "write it again: python -m tests.cli.options_doc"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_name_of_an_option_stands_on_the_page(command: str) -> None:
    section = DOC.read_text(encoding="utf-8").split(f"\n## umbel {command}\n")[1].split("\n## ")[0]
    actions = [one for one in parser_of(command)._actions if not isinstance(one, argparse._HelpAction)]
    assert actions
    for action in actions:
        for name in action.option_strings or [str(action.metavar)]:
            assert f"`{name}`" in section or f"`{name} " in section, name
