"""The entry for every input: the right reader, unique ids, rows in batches, of one file or of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from umbel.errors import EmptyInput
from umbel.jobs.read.changes import HashedInput
from umbel.jobs.read.formats.foreign import refuse_foreign
from umbel.jobs.read.formats.jsonl import find_endpoint
from umbel.jobs.read.formats.known import LINES, format_of
from umbel.jobs.read.formats.lines import is_packed, open_bytes
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.formats.template import Template
from umbel.jobs.read.records import InputRow, ReadNotes, ReadOptions, n_chars_of
from umbel.jobs.read.seen_ids import SeenIds

BATCH_ROWS = 2_048
BATCH_CHARS = 8 * 2**20


@dataclass(slots=True)
class Source:
    """An input file and how to read it; `notes` fills while it is read, `watch` notices that it changes.

    `file` is the name that comes back on its rows where it is one of several.
    """

    path: Path
    options: ReadOptions = field(default_factory=ReadOptions)
    notes: ReadNotes = field(default_factory=ReadNotes)
    watch: HashedInput | None = None
    file: str | None = None

    @property
    def files(self) -> tuple[Source, ...]:
        """The files of the input."""
        return (self,)

    @property
    def name(self) -> str:
        """The input as messages name it."""
        return str(self.path)

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
        ids, empty = SeenIds(), True
        for batch in self.parts(size):
            empty = False
            yield ids.check(batch)
        if empty:
            raise EmptyInput(f"empty_file: {self.path} has no rows")

    def parts(self, size: int, first: int = 0) -> Iterator[list[InputRow]]:
        """The same without a look at their ids; rows are numbered from `first`."""
        rows, done = self._reader(first), 0
        while True:
            batch = _batch(rows, size)
            if not self.check():
                rows = islice(self._reader(first), done, None)
                continue
            if not batch:
                return
            done += len(batch)
            yield batch

    def room_behind(self, n_bytes: int) -> int:
        """How much of so many bytes the rows leave, counted after unpacking; below 0 when they take more."""
        return format_of(self.path).room_behind(self.path, n_bytes)

    @property
    def typed(self) -> bool:
        """Whether its columns have types."""
        return not format_of(self.path).text

    @property
    def seekable(self) -> bool:
        """Whether single rows can be read alone: JSON lines that are not packed."""
        if not format_of(self.path).by_line:
            return False
        with open_bytes(self.path) as stream:
            return stream.seekable() and not is_packed(stream)

    def parser(self) -> RowParser:
        """The parser that makes rows from objects. Raises UsageError when the file cannot be opened."""
        found = format_of(self.path)
        if found.text:
            refuse_foreign(self.path, found.name)
        parser = parser_of(self.options, self.notes, table=found.table, file=self.file)
        if found is LINES:
            parser.endpoint = find_endpoint(self.path) if parser.template is None else None
            parser.check_options()
        return parser

    def parsers(self) -> list[RowParser]:
        """The parser of each file of the input."""
        return [self.parser()]

    def kinds(self) -> Mapping[str, Any]:
        """The Arrow types of the columns that come back, by their names there, where the input has types."""
        return format_of(self.path).kinds(self.path, self.parser())

    def read(self, parser: RowParser) -> Iterator[InputRow]:
        """Every row, as a parser makes it."""
        return format_of(self.path).read(self.path, parser)

    def _reader(self, first: int) -> Iterator[InputRow]:
        parser = self.parser()
        parser.first = first
        return self.read(parser)


def parser_of(options: ReadOptions, notes: ReadNotes, *, table: bool = False, file: str | None = None) -> RowParser:
    """A parser of rows, its templates read. Raises UsageError for one that cannot be read."""
    template = None if options.template is None else Template.parse(options.template)
    system = None if options.system is None else Template.parse(options.system, "--system", constant=True)
    return RowParser(options, notes, None, template, system, options.documents, table=table, file=file)


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
