"""The entry for every input file: the right reader, unique ids, rows in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from umbel.errors import EmptyInput
from umbel.ir.limits import shown
from umbel.ir.request import RowError
from umbel.jobs.read.changes import HashedInput
from umbel.jobs.read.formats.foreign import refuse_foreign
from umbel.jobs.read.formats.jsonl import find_endpoint
from umbel.jobs.read.formats.known import LINES, format_of
from umbel.jobs.read.formats.lines import is_packed, open_bytes
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.formats.template import Template
from umbel.jobs.read.records import InputRow, ReadNotes, ReadOptions, n_chars_of
from umbel.jobs.read.unique import IdIndex

BATCH_ROWS = 2_048
BATCH_CHARS = 8 * 2**20


@dataclass(slots=True)
class Source:
    """An input file and how to read it; `notes` fills while it is read, `watch` notices that it changes."""

    path: Path
    options: ReadOptions = field(default_factory=ReadOptions)
    notes: ReadNotes = field(default_factory=ReadNotes)
    watch: HashedInput | None = None

    def check(self) -> bool:
        """Whether the rows read since the last check are valid; else they must be read again. Raises InputChanged when
        the file is not the one that its job was started with."""
        return self.watch is None or self.watch.check()

    def rows(self) -> Iterator[InputRow]:
        """Every row in order, repeated ids made errors. Raises EmptyInput, InputError or UsageError."""
        for batch in self.batches():
            yield from batch

    def batches(self, size: int = BATCH_ROWS) -> Iterator[list[InputRow]]:
        """The rows in lists of up to `size`, fewer of long ones, one list in memory at a time."""
        ids, rows, done = _Ids(), self._reader(), 0
        while True:
            batch = _batch(rows, size)
            if not self.check():
                rows = islice(self._reader(), done, None)
                continue
            if not batch:
                break
            done += len(batch)
            yield ids.check(batch)
        if not done:
            raise EmptyInput(f"empty_file: {self.path} has no rows")

    def holds_more(self, n_bytes: int) -> bool:
        """Whether the rows take more than so many bytes, counted after unpacking."""
        return format_of(self.path).more_than(self.path, n_bytes)

    @property
    def seekable(self) -> bool:
        """Whether single rows can be read alone: JSON lines that are not packed."""
        if not format_of(self.path).by_line:
            return False
        with open_bytes(self.path) as stream:
            return stream.seekable() and not is_packed(stream)

    def parser(self) -> RowParser:
        """The parser that makes rows from objects. Raises UsageError when the file cannot be opened."""
        template = Template.parse(self.options.template) if self.options.template is not None else None
        found = format_of(self.path)
        if found.text:
            refuse_foreign(self.path, found.name)
        parser = RowParser(self.options, self.notes, None, template, table=found.table)
        if found is LINES:
            parser.endpoint = find_endpoint(self.path) if template is None else None
            parser.check_options()
        return parser

    def kinds(self) -> Mapping[str, Any]:
        """The Arrow types of the columns that come back, by their names there, where the input has types."""
        return format_of(self.path).kinds(self.path, self.parser())

    def _reader(self) -> Iterator[InputRow]:
        parser = self.parser()
        return format_of(self.path).read(self.path, parser)


def _batch(rows: Iterator[InputRow], size: int) -> list[InputRow]:
    batch, n_chars = [], 0
    for row in islice(rows, size):
        batch.append(row)
        if (request := row.request) is not None:
            prompt = request.prompt
            n_chars += len(prompt) if isinstance(prompt, str) else n_chars_of(request)
            if n_chars > BATCH_CHARS:
                break
    return batch


class _Ids:
    """Makes a row whose id was used before an error row that names both lines."""

    def __init__(self) -> None:
        self._index = IdIndex()
        self._any_explicit = False

    def check(self, batch: list[InputRow]) -> list[InputRow]:
        if not self._any_explicit and not any(row.explicit_id for row in batch):
            return batch  # row numbers alone cannot clash
        if not self._any_explicit:
            self._any_explicit = True
            self._backfill(batch[0].row)
        named = [i for i, row in enumerate(batch) if row.custom_id is not None]
        ids = [batch[i].custom_id or "" for i in named]
        seen = self._index.add(ids, [batch[i].line for i in named])
        for at, first in seen.items():
            batch[named[at]] = repeated(batch[named[at]], first)
        return batch

    def _backfill(self, rows: int) -> None:
        for start in range(0, rows, BATCH_ROWS):
            numbers = range(start, min(rows, start + BATCH_ROWS))
            self._index.add([str(n) for n in numbers], [n + 1 for n in numbers])


def repeated(row: InputRow, first: int) -> InputRow:
    """The row as an error row, because its id was given on line `first` already."""
    message = f"custom_id {shown(row.custom_id)} on line {row.line} was already used on line {first}"
    return replace(row, request=None, error=RowError("duplicate_custom_id", message, "custom_id"))
