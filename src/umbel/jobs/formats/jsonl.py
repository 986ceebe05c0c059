"""JSON lines, plain or in OpenAI's batch envelope, told apart by the first object in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from umbel.errors import InvalidRequest
from umbel.ir.limits import MAX_LINE_BYTES
from umbel.jobs.formats.decode import decode_object
from umbel.jobs.formats.lines import read_lines
from umbel.jobs.formats.parse import ENDPOINTS, RowParser, too_long
from umbel.jobs.rows import InputRow

_SNIFF_LINES = 1_000
_DEFAULT_ENDPOINT = "/v1/chat/completions"


def find_endpoint(path: Path) -> str | None:
    """The url of an OpenAI batch file (the first known one in it), None for a file of plain rows."""
    enveloped: bool | None = None
    for number, line in read_lines(path):
        if number > _SNIFF_LINES:
            break
        try:
            item = decode_object(line, number) if line is not None and not line.isspace() else {}
        except InvalidRequest:
            continue
        if enveloped is None and item:
            enveloped = "body" in item or "url" in item or "method" in item
        if enveloped is False or item.get("prompt") or item.get("messages"):
            return None
        if isinstance(url := item.get("url"), str) and url in ENDPOINTS:
            return url
    return _DEFAULT_ENDPOINT if enveloped else None


def read_jsonl(path: Path, parser: RowParser, cap: int = MAX_LINE_BYTES) -> Iterator[InputRow]:
    """One `InputRow` per line that is not blank; broken lines become error rows."""
    row = 0
    for number, line in read_lines(path, cap):
        if line is None or line.strip():
            yield parse_line(parser, row, number, line, cap)
            row += 1


def parse_line(parser: RowParser, row: int, number: int, line: bytes | None, cap: int = MAX_LINE_BYTES) -> InputRow:
    """Physical line `number`, the row of number `row`; None stands for a line of more than `cap` bytes."""
    if line is None:
        return replace(parser.broken(row, number, InvalidRequest("line_too_long", "")), error=too_long(number, cap))
    try:
        item = decode_object(line, number)
    except InvalidRequest as error:
        return parser.broken(row, number, error)
    return parser.parse(row, number, item)
