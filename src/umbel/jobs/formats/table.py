"""CSV and Parquet: a table whose columns are `prompt` or `messages`, or feed a prompt template."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from umbel.errors import InputError, InvalidRequest, UsageError
from umbel.ir.limits import MAX_LINE_BYTES
from umbel.jobs.formats.lines import read_lines
from umbel.jobs.formats.parse import RowParser
from umbel.jobs.rows import InputRow

_PARQUET_BATCH_ROWS = 1_024


class _TextLines:
    """Lines as text for the csv module; bytes that are not UTF-8 come through as lone surrogates, long lines raise."""

    def __init__(self, path: Path):
        self._lines = read_lines(path)
        self.number = 0

    def __iter__(self) -> _TextLines:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        if line is None:
            raise InvalidRequest("line_too_long", f"line {self.number}: longer than {MAX_LINE_BYTES:,} bytes, skipped")
        return line.decode("utf-8", "surrogateescape")


def read_csv(path: Path, parser: RowParser) -> Iterator[InputRow]:
    """One `InputRow` per record; the first record names the columns. Sampling fields are not read from CSV.

    Raises InputError when there is no header, UsageError when a needed column is not there.
    """
    csv.field_size_limit(MAX_LINE_BYTES)  # the module's own default of 128 KB is too small for prompts
    lines = _TextLines(path)
    records = csv.reader(lines)
    header = _header(records, path)
    _check_columns(header, parser)
    row = 0
    while True:
        try:
            cells = next(records)
            if not cells:  # a blank line
                continue
            item = _record(header, cells, lines.number)
        except StopIteration:
            return
        except InvalidRequest as error:
            yield parser.broken(row, lines.number, error)
        except csv.Error as error:
            yield parser.broken(row, lines.number, InvalidRequest("invalid_csv_line", f"line {lines.number}: {error}"))
        else:
            yield parser.parse(row, lines.number, item)
        row += 1


def read_parquet(path: Path, parser: RowParser) -> Iterator[InputRow]:
    """One `InputRow` per table row, one batch of rows in memory at a time. Raises InputError, UsageError."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            _check_columns(names, parser)
            row = 0
            for batch in table.iter_batches(_PARQUET_BATCH_ROWS, columns=_wanted(names, parser)):
                for item in batch.to_pylist():
                    yield parser.parse(row, row + 1, _cells(item))
                    row += 1
    except FileNotFoundError as error:
        raise UsageError(f"input {path}: {error.strerror or error}") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"input {path}: not a readable Parquet file ({error})") from error


def _header(records: Iterator[list[str]], path: Path) -> list[str]:
    try:
        header = next((record for record in records if record), [])
    except (csv.Error, InvalidRequest) as error:
        raise InputError(f"input {path}: the header line cannot be read ({error})") from None
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise InputError(f"input {path}: column {min(twice)!r} is named twice in the header")
    return header


def _record(header: Sequence[str], cells: Sequence[str], line: int) -> dict[str, Any]:
    if len(cells) != len(header):
        message = f"line {line}: {len(cells)} cells, but the header names {len(header)} columns"
        raise InvalidRequest("invalid_csv_line", message)
    item: dict[str, Any] = dict(zip(header, cells, strict=True))
    for name, text in item.items():
        if not text.isascii() and not _encodable(text):
            raise InvalidRequest("invalid_csv_line", f"line {line}: column {name!r} is not UTF-8", name)
    return item


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_columns(names: Sequence[str], parser: RowParser) -> None:
    if not names:
        return  # an empty file, which the source reports
    if parser.template is not None:
        parser.template.check_columns(names)
    elif not {"prompt", "messages"} & set(names):
        advice = "build prompts with --prompt '... {column}'"
        raise UsageError(f"no column 'prompt' or 'messages'; {advice} from: {', '.join(names)}")


def _wanted(names: Sequence[str], parser: RowParser) -> list[str]:
    """Leave out the columns a template does not read, which may be wide."""
    if parser.template is None:
        return list(names)
    return [name for name in names if name == "custom_id" or name in parser.template.columns]


def _cells(item: dict[str, Any]) -> dict[str, Any]:
    """Null cells are cells that are not there; whole-number ids are ids."""
    kept = {name: value for name, value in item.items() if value is not None}
    if isinstance(kept.get("custom_id"), int):
        kept["custom_id"] = str(kept["custom_id"])
    return kept
