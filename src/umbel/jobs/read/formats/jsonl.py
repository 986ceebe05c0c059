"""JSON lines, plain or in OpenAI's batch envelope, told apart by the first object in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from umbel.errors import InvalidRequest
from umbel.ir.limits import MAX_LINE_BYTES
from umbel.jobs.read.formats.decode import decode_leniently, decode_object
from umbel.jobs.read.formats.lines import Line, read_lines
from umbel.jobs.read.formats.parse import ENDPOINTS, RowParser, id_in
from umbel.jobs.read.records import InputRow

_SNIFF_LINES = 1_000
_DEFAULT_ENDPOINT = "/v1/chat/completions"


def find_endpoint(path: Path) -> str | None:
    """The url of an OpenAI batch file (the first known one in it), None for a file of plain rows."""
    return endpoint_of(line for _, line in read_lines(path))


def endpoint_of(lines: Iterable[Line]) -> str | None:
    """`find_endpoint` of lines, of which no more are read than are needed."""
    enveloped: bool | None = None
    rows = (line for line in lines if isinstance(line, InvalidRequest) or line.strip())
    for line in islice(rows, _SNIFF_LINES):
        item = _object_in(line) or {}
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
        if isinstance(line, InvalidRequest) or line.strip():
            yield parse_line(parser, row, number, line)
            row += 1


def parse_line(parser: RowParser, row: int, number: int, line: Line) -> InputRow:
    """Physical line `number`, the row of number `row`."""
    if isinstance(line, InvalidRequest):
        return parser.broken(row, number, line)
    try:
        item = decode_object(line, number)
    except InvalidRequest as error:
        return parser.broken(row, number, error, decode_leniently(line))
    return parser.parse(row, number, item)


def id_of(line: bytes, field: str = "custom_id", row: int | None = None) -> str | None:
    """The id in a line, which its `field` has; without one `row` as text (None if no row is given). None when the line
    cannot be read."""
    item = _object_in(line)
    if item is None:
        return None
    if field not in item:
        return None if row is None else str(row)
    return id_in(item, field)


def _object_in(line: Line) -> dict[str, Any] | None:
    """The object of a line, read leniently where necessary."""
    if isinstance(line, InvalidRequest) or not line.strip():
        return None
    try:
        return decode_object(line, 0)
    except InvalidRequest:
        return decode_leniently(line)
