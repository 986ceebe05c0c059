"""Plain text: each line that is not blank is a prompt, or the column `text` of a template."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from umbel.errors import InvalidRequest
from umbel.jobs.read.formats.lines import read_lines
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.records import InputRow

COLUMN = "text"


def read_prompt_lines(path: Path, parser: RowParser) -> Iterator[InputRow]:
    """One `InputRow` per line that is not blank, its line end left out. Raises UsageError when a template names another
    column."""
    if parser.template is not None:
        parser.template.check_columns([COLUMN])
    name, row = ("prompt" if parser.template is None else COLUMN), 0
    if parser.system is not None:
        parser.system.check_columns([name])
    for number, line in read_lines(path):
        if isinstance(line, InvalidRequest):
            yield parser.broken(row, number, line)
        elif not line.strip():
            continue
        else:
            yield _parse(parser, row, number, line.rstrip(b"\r\n"), name)
        row += 1


def _parse(parser: RowParser, row: int, number: int, line: bytes, name: str) -> InputRow:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        where = f"byte 0x{line[error.start]:02x} at byte offset {error.start} of the line"
        return parser.broken(row, number, InvalidRequest("invalid_value", f"line {number}: not UTF-8: {where}"), {})
    return parser.parse(row, number, {name: text})
