"""CSV and TSV: a line a row, lists and objects as JSON in their cells."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import IO, Any

import orjson

from umbel.jobs.write.formats.shape import TableShape, record_of

DELIMITERS = {"csv": ",", "tsv": "\t"}


def delimited_writer(stream: IO[bytes], kind: str, shape: TableShape) -> Callable[[list[bytes]], None]:
    """Writes lines as rows of a table in text; columns of answers that no row fills are left out."""
    names = shape.names(all_answers=False)
    _write(stream, [names], DELIMITERS[kind])

    def put(block: list[bytes]) -> None:
        records = [record_of(line, openai=shape.openai) for line in block]
        _write(stream, [[_cell(record.get(name)) for name in names] for record in records], DELIMITERS[kind])

    return put


def _write(stream: IO[bytes], rows: list[list[str]], delimiter: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    stream.write(text.getvalue().encode())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
