"""JSON lines from a pipe, read once and as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import chain

from umbel.errors import EmptyInput, InvalidRequest
from umbel.jobs.read.formats.foreign import refuse_beginning
from umbel.jobs.read.formats.jsonl import endpoint_of, parse_line
from umbel.jobs.read.formats.lines import BOM, PACKED, Line, lines_in
from umbel.jobs.read.records import InputRow, ReadNotes, ReadOptions
from umbel.jobs.read.seen_ids import SeenIds
from umbel.jobs.read.source import parser_of

_WHOLE = (b"PAR1", b"ARROW1", b"[", *(packing.magic for packing in PACKED.values()))


def comes_by_line(pipe: BufferedReader) -> bool:
    """Whether what comes through a pipe can be read line by line: not a table, a JSON array or something packed. Waits
    for the first of it."""
    return not pipe.peek(8).removeprefix(BOM).lstrip().startswith(_WHOLE)


@dataclass(slots=True)
class PipedRows:
    """The rows of JSON lines, plain or OpenAI's as the first object shows; `notes` fills while they are read."""

    pipe: BufferedReader
    name: str
    options: ReadOptions
    notes: ReadNotes = field(default_factory=ReadNotes)

    def rows(self) -> Iterator[InputRow]:
        """Every row in order, as soon as its line is there, repeated ids made errors. Raises EmptyInput, InputError or
        UsageError."""
        refuse_beginning(self.pipe.peek(1), self.name, "jsonl")
        parser, ids, row = parser_of(self.options, self.notes), SeenIds(), 0
        lines = ((n, line) for n, line in lines_in(self.pipe, self.name) if _is_row(line))
        head = list[tuple[int, Line]]()
        parser.endpoint = None if parser.template is not None else endpoint_of(_noting(lines, head))
        parser.check_options()
        for number, line in chain(head, lines):
            yield from ids.check([parse_line(parser, row, number, line)])
            row += 1
        if not row:
            raise EmptyInput(f"empty_file: {self.name} has no rows")


def _is_row(line: Line) -> bool:
    return isinstance(line, InvalidRequest) or bool(line.strip())


def _noting(lines: Iterator[tuple[int, Line]], head: list[tuple[int, Line]]) -> Iterator[Line]:
    """The lines, each of them kept in `head` as well."""
    for number, line in lines:
        head.append((number, line))
        yield line
