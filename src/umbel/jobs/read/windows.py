"""Cuts an input into windows: rows that are prepared and run together, groups with a common beginning unbroken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.errors import InputChanged
from umbel.ir.limits import MAX_LINE_BYTES
from umbel.jobs.read.cuts import WindowSizes, cut
from umbel.jobs.read.formats.jsonl import parse_line
from umbel.jobs.read.formats.lines import Line, too_long
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.formats.vectors import FIELDS as VECTOR_FIELDS
from umbel.jobs.read.outline import Outline, outline, repeats
from umbel.jobs.read.prepare import Window, WindowBuilder
from umbel.jobs.read.records import InputRow, Style, line_of
from umbel.jobs.read.seen_ids import repeated
from umbel.jobs.read.source import BATCH_ROWS, Source
from umbel.jobs.read.source_files import SourceFiles

SMALL_BYTES = 16 * 2**20
MOST_OPEN = 64  # files at a time
_TOKEN_BYTES = 4  # of ordinary text, where only tokens are counted


class Feed(Protocol):
    """An input as windows. `rows` counts the rows of the whole input, None until it is known."""

    rows: int | None

    @property
    def whole(self) -> bool:
        """Whether all rows are in one window."""

    def windows(self) -> Iterator[Window]:
        """The rows that are not done, all of them once."""


@dataclass(slots=True)
class InOrder:
    """Windows in the order of the input, for files that can only be read from front to back; one window when `sizes` is
    None.

    `done` flags the rows to leave out; they are read, as their ids count.
    """

    source: Source | SourceFiles
    done: bytes | bytearray
    builder: Callable[[], WindowBuilder]
    sizes: WindowSizes | None = None
    rows: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all rows are in one window."""
        return self.sizes is None

    def windows(self) -> Iterator[Window]:
        """The windows, of growing size."""
        builder, read, size = self.builder(), 0, self.sizes.first if self.sizes else 0
        for batch in self.source.batches():
            read += len(batch)
            builder.take([row for row in batch if row.row >= len(self.done) or not self.done[row.row]])
            if self.sizes and (builder.rows >= size or builder.n_tokens * _TOKEN_BYTES >= self.sizes.n_bytes):
                yield builder.build()
                size = min(size * self.sizes.growth, self.sizes.rows)
        self.rows = read
        if builder.rows or not self.sizes:
            yield builder.build()


@dataclass(slots=True)
class Grouped:
    """Windows of files of JSON lines in the order of their outline; rows that are done are never read.

    `cheapest_first` takes windows of short rows before those of long ones, for runs that may not reach all.
    """

    source: Source | SourceFiles
    parsers: list[RowParser]
    found: Outline
    done: bytes | bytearray
    builder: Callable[[], WindowBuilder]
    sizes: WindowSizes
    cheapest_first: bool = False
    rows: int | None = None
    whole: bool = False
    _repeats: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = len(self.found)
        implicit = self.parsers[0].endpoint is None and self.source.options.id_column is None
        with LineFiles(self.source.files, self.found) as files:
            self._repeats = repeats(self.found, files.line, implicit=implicit, id_field=self.parsers[0].id_field)
        if not self.source.check():  # what was scanned is what was hashed
            raise InputChanged(
                f"input {self.source.name}: was written to while it was read; run the same command again"
            )

    def windows(self) -> Iterator[Window]:
        """The windows, of growing size, cut where neighbours share least."""
        order, shared = _left(self.found, self.done)
        n_bytes = self.found.n_bytes()[order]
        with LineFiles(self.source.files, self.found) as files:
            cuts = list(cut(shared, n_bytes, self.sizes))
            if self.cheapest_first:
                cuts.sort(key=lambda ends: int(n_bytes[slice(*ends)].sum()) / (ends[1] - ends[0]))
            for start, end in cuts:
                builder, rows = self.builder(), np.sort(order[start:end])
                for at in range(0, len(rows), BATCH_ROWS):
                    builder.take(self._believed(files, rows[at : at + BATCH_ROWS]))
                share = float(n_bytes[start:end].sum()) / max(1.0, float(n_bytes.sum()))
                yield replace(builder.build(), share=share)

    def _believed(self, files: LineFiles, rows: NDArray[np.int64]) -> list[InputRow]:
        """The rows of these numbers, read again where the file was touched meanwhile."""
        while True:
            batch = list(files.rows(rows, self.parsers, self._repeats))
            if self.source.check():
                return batch


def _left(found: Outline, done: bytes | bytearray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The outline's order without the rows that are done; neighbours share at least as much as is given."""
    flags = np.zeros(len(found), bool)
    upto = min(len(done), len(found))
    flags[:upto] = np.frombuffer(done, np.uint8, upto) != 0
    kept = ~flags[found.order]
    return found.order[kept], found.shared[kept]


class LineFiles:
    """The rows of files by number, read where they lie. Some files are held open at a time."""

    def __init__(self, files: Sequence[Source], found: Outline):
        self._files = files
        self._found = found
        self._n_bytes = found.n_bytes()
        self._open: dict[int, int] = {}  # by file, its descriptor

    def __enter__(self) -> LineFiles:
        return self

    def __exit__(self, *error: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def line(self, row: int) -> Line:
        """The bytes of a row's line, its end included, or the error that keeps it from being read."""
        return self._line(row, int(self._found.files_of(row)))

    def _line(self, row: int, file: int) -> Line:
        size = min(int(self._n_bytes[row]), MAX_LINE_BYTES + 1)
        data = os.pread(self._descriptor(file), size, int(self._found.offsets[row] - self._found.bases[file]))
        end = data.find(b"\n")
        if end >= 0:
            return data[: end + 1]
        return data if len(data) <= MAX_LINE_BYTES else too_long(int(self._found.lines[row]))

    def _descriptor(self, file: int) -> int:
        if file not in self._open:
            if len(self._open) >= MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[file] = os.open(self._files[file].path, os.O_RDONLY)
        return self._open[file]

    def rows(
        self, numbers: NDArray[np.int64], parsers: Sequence[RowParser], seen: Mapping[int, int]
    ) -> Iterator[InputRow]:
        """The rows of those numbers, each by the parser of its file; `seen` names those whose id an earlier row has,
        and that one."""
        files, lines = self._found.files_of(numbers).tolist(), self._found.lines[numbers].tolist()
        for row, file, line in zip(numbers.tolist(), files, lines, strict=True):
            parser = parsers[file]
            parsed = parse_line(parser, row - parser.first, line, self._line(row, file))
            yield repeated(parsed, self._where(seen[row])) if row in seen else parsed

    def _where(self, row: int) -> str:
        return line_of(int(self._found.lines[row]), self._files[int(self._found.files_of(row))].file)


def open_feed(
    source: Source | SourceFiles,
    done: bytes | bytearray,
    builder: Callable[[], WindowBuilder],
    *,
    meanwhile: Callable[[], object] = lambda: None,
    cheapest_first: bool = False,
    sizes: WindowSizes | None = None,
    small: int = SMALL_BYTES,
) -> Feed:
    """The way to cut an input into windows: one when it has no more than `small` bytes, by groups where rows can be
    read alone, else in its own order. `meanwhile` runs while a large file is scanned. Raises what reading raises."""
    parsers = source.parsers()
    if source.room_behind(small) >= 0:
        return InOrder(source, done, builder)
    sizes = sizes or WindowSizes()
    if not source.seekable:
        return InOrder(source, done, builder, sizes)
    paths, parser = [file.path for file in source.files], parsers[0]
    found = outline(paths, _markers(parser), meanwhile, parser.id_field)
    if not len(found):
        return InOrder(source, done, builder)  # which says that the input is empty
    for parser, first in zip(parsers, found.firsts.tolist(), strict=True):
        parser.first = first
    return Grouped(source, parsers, found, done, builder, sizes, cheapest_first)


def _markers(parser: RowParser) -> list[bytes]:
    """How the field that a prompt begins with is written in a line, in up to 8 bytes."""
    if parser.template is not None:
        columns = [name for _, name in parser.template.parts if name is not None]
        return [f'"{columns[0]}"'.encode()[:8]]
    if parser.style in VECTOR_FIELDS:
        return [b'"input"', b'"query"', b'"queries', b'"text_1"']
    return [b'"message', b'"prompt"'] if parser.style == Style.CHAT else [b'"prompt"', b'"message']
