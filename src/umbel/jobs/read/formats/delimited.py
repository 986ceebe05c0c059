"""CSV, cells separated by commas or tabs: one record a row, over several lines where a cell in quotes has line ends."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from umbel.errors import InputError, InvalidRequest
from umbel.ir.limits import MAX_LINE_BYTES, shown
from umbel.jobs.read.formats.ids import is_unicode
from umbel.jobs.read.formats.lines import Line, read_lines
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.formats.table import check_columns, columns_read, fields_in
from umbel.jobs.read.records import InputRow

_OPEN = "a quotation mark opens a cell and none closes it"
_AFTER = "text follows the quotation mark that closes a cell, or a mark before it was never closed"
_RETURN = "a carriage return alone is no line end here; convert the file with: tr '\\r' '\\n'"


class _Lines:
    """Lines as text for the csv module, numbered; those of the current record can be read once more.

    Bytes that are not UTF-8 become lone surrogates. Raises InvalidRequest for a line that cannot be read, and for a
    record that is too long.
    """

    def __init__(self, path: Path):
        self._source = read_lines(path, blank=True)
        self._again: deque[tuple[int, Line]] = deque()
        self._taken: list[tuple[int, Line]] = []
        self._n_bytes = 0

    def begin(self) -> None:
        """Begin a record."""
        self._taken, self._n_bytes = [], 0

    def give_up(self) -> int:
        """Give up the current record at the cost of its first line alone, whose number is returned; the others are read
        again."""
        self._again.extendleft(reversed(self._taken[1:]))
        return self.first

    @property
    def first(self) -> int:
        """Number of the line with which the record begins."""
        return self._taken[0][0]

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        number, line = self._again.popleft() if self._again else next(self._source)
        self._taken.append((number, line))
        if isinstance(line, InvalidRequest):
            raise line
        self._n_bytes += len(line)
        if self._n_bytes > MAX_LINE_BYTES and len(self._taken) > 1:
            raise InvalidRequest("line_too_long", f"line {self.first}: {_OPEN} within {MAX_LINE_BYTES:,} bytes")
        if 0 in line:
            raise InvalidRequest("invalid_csv_line", f"line {number}: NUL byte at byte offset {line.index(0)}")
        return line.decode("utf-8", "surrogateescape")


def read_tsv(path: Path, parser: RowParser) -> Iterator[InputRow]:
    """The same as `read_csv` for cells that are separated by tabs."""
    return read_csv(path, parser, "\t")


def read_csv(path: Path, parser: RowParser, separator: str = ",") -> Iterator[InputRow]:
    """One `InputRow` per record; the first record names the columns.

    A record that cannot be read is one error row, for its first line; the lines after it are read on their own, so that
    a quotation mark that is never closed takes no other row with it. Raises InputError when there is no header,
    UsageError when a needed column is not there.
    """
    records = _records(path, separator)
    line, header = next(records, (1, []))
    if isinstance(header, InvalidRequest):
        raise InputError(f"input {path}: the header line cannot be read ({header})")
    _check_header(header, path)
    check_columns(header, parser)
    read = columns_read(header, parser)
    for row, (line, cells) in enumerate(records):
        fault = cells if isinstance(cells, InvalidRequest) else _fault(header, cells, line)
        if isinstance(cells, InvalidRequest) or fault is not None:
            yield parser.broken(row, line, fault or InvalidRequest("invalid_csv_line", ""))
        else:
            given = dict(zip(header, cells, strict=True))
            yield parser.parse(row, line, fields_in(given, read, parser), given)


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str] | InvalidRequest]]:
    """The records that are not blank, each with the number of its first line, or the error that keeps it from being
    read."""
    csv.field_size_limit(MAX_LINE_BYTES)  # the module's own default of 128 KB is too small for prompts
    lines = _Lines(path)
    records = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        lines.begin()
        try:
            cells = next(records)
        except StopIteration:
            return
        except InvalidRequest as error:
            yield lines.give_up(), error
        except csv.Error as error:
            yield lines.give_up(), InvalidRequest("invalid_csv_line", f"line {lines.first}: {_why(error)}")
        else:
            if cells:
                yield lines.first, cells


def _why(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text:
        return f"{_OPEN} before the end of the file"
    if "expected after" in text:
        return _AFTER
    return _RETURN if "new-line character" in text else text


def _check_header(header: Sequence[str], path: Path) -> None:
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise InputError(f"input {path}: column {shown(min(twice))} is named twice in the header")
    if not all(map(is_unicode, header)):
        raise InputError(f"input {path}: the header line is not UTF-8")


def _fault(header: Sequence[str], cells: Sequence[str], line: int) -> InvalidRequest | None:
    if len(cells) != len(header):
        message = f"line {line}: {len(cells)} cells, but the header names {len(header)} columns"
        return InvalidRequest("invalid_csv_line", message)
    for name, text in zip(header, cells, strict=True):
        if not text.isascii() and not is_unicode(text):
            return InvalidRequest("invalid_csv_line", f"line {line}: column {shown(name)} is not UTF-8", name)
    return None
