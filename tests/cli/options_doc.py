"""Writes docs/options.md from what `umbel COMMAND --help` is made of: `python -m tests.cli.options_doc`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from umbel.cli.main import COMMANDS, main

DOC = Path(__file__).parents[2] / "docs" / "options.md"
HEAD = """# Options

Every command with its options, as `umbel COMMAND --help` has them. Several names of one option mean the same; a value
in brackets is the default. What the inputs and outputs look like, and the exit codes: [files](files.md).

This page is written by `python -m tests.cli.options_doc`.
"""


def document() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n## umbel {name}\n{''.join(_parts(parser_of(name)))}" for name in COMMANDS)


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command, which it makes from its function's signature when it is called."""
    found: list[argparse.ArgumentParser] = []
    with patch("argparse.ArgumentParser.print_help", lambda parser, file=None: found.append(parser)):
        main([command, "--help"])
    return found[0]


def _parts(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What the command is for, and a table for each group of its options."""
    for part in (parser.description or "").split("\n\n"):
        yield f"\n{_plain(part)}\n"
    for group in parser._action_groups:
        rows = [_row(parser, action) for action in group._group_actions if action.dest != "help"]
        if rows:
            title = (group.title or "").capitalize()
            yield f"\n| {title} | |\n| --- | --- |\n" + "".join(rows)
        if rows and group.description:
            yield f"\n`{group.description.removeprefix('e.g. ')}`\n"


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    takes = (
        formatter._format_args(action, formatter._get_default_metavar_for_optional(action)) if action.nargs != 0 else ""
    )
    names = [f"`{name}`" for name in action.option_strings] or [f"`{action.metavar}`"]
    if takes and action.option_strings:
        names[-1] = f"`{action.option_strings[-1]} {_plain(takes)}`"
    return f"| {', '.join(names)} | {_plain(formatter._expand_help(action)) if action.help else ''} |\n".replace(
        "\\|", "|"
    )


def _plain(text: str) -> str:
    """A text on one line that a table can hold."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    DOC.write_text(document(), encoding="utf-8")
