"""What a terminal takes: lines of its width, broken between words, and emphasis."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import TextIO

from umbel.plan.explain.text import WIDTH

NARROWEST = 60
_STYLES = (
    (r"(?m)^(PLAN|REPORT)(?=  )", "bold"),
    (r"(?m)^FAULTS(?=  ).*$", "bold red"),
    (r"(?m)^BUDGET(?=  ).*$", "bold yellow"),
    (r"(?m)^(decisions|refused|levels .*|forest.*)$", "bold"),
    (r"(?m)^  [a-z][a-z0-9_ ]{13}", "cyan"),  # names of entries
)


def columns_of(stream: TextIO) -> int | None:
    """The columns of a terminal, as COLUMNS says or as they are; None for what is no terminal."""
    if (asked := os.environ.get("COLUMNS", "")).isdecimal() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError, AttributeError):  # a file, a pipe, something in memory, a stream that is closed
        return None


def width_of(stream: TextIO) -> int:
    """How long lines of a plan or a report may be: at least 60 characters, and no longer than reads well."""
    return min(max(columns_of(stream) or WIDTH, NARROWEST), WIDTH)


def broken(lines: Iterable[str], columns: int | None) -> Iterator[str]:
    """Lines that go on below, a little further in, where a terminal has not so many columns."""
    for line in lines:
        if columns is None or len(line) <= columns:
            yield line
            continue
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        yield from wrap(line, max(columns, NARROWEST), subsequent_indent=indent, break_long_words=False)


def show(text: str) -> None:
    """Print a plan or a report; on a terminal with emphasis, in colour unless NO_COLOR is set."""
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.text import Text

    styled = Text(text, end="")
    for pattern, style in _STYLES:
        styled.highlight_regex(re.compile(pattern), style)
    Console(file=sys.stdout, highlight=False).print(styled, end="", soft_wrap=True)
