"""Cuts an input into windows: rows that are prepared and run together, groups with a common beginning unbroken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.errors import InputChanged
from umbel.ir.limits import MAX_LINE_BYTES
from umbel.jobs.read.cuts import WindowSizes, cut
from umbel.jobs.read.formats.jsonl import parse_line
from umbel.jobs.read.formats.lines import Line, too_long
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.outline import Outline, outline, repeats
from umbel.jobs.read.prepare import Window, WindowBuilder
from umbel.jobs.read.records import InputRow, Style
from umbel.jobs.read.source import BATCH_ROWS, Source, repeated

SMALL_BYTES = 16 * 2**20
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

    source: Source
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
    """Windows of a file of JSON lines in the order of its outline; rows that are done are never read.

    `cheapest_first` takes windows of short rows before those of long ones, for runs that may not reach all.
    """

    source: Source
    parser: RowParser
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
        implicit = self.parser.endpoint is None
        with LineFile(self.source.path, self.found) as file:
            self._repeats = repeats(self.found, file.line, implicit=implicit)
        if not self.source.check():  # what was scanned is what was hashed
            raise InputChanged(
                f"input {self.source.path}: was written to while it was read; run the same command again"
            )

    def windows(self) -> Iterator[Window]:
        """The windows, of growing size, cut where neighbours share least."""
        order, shared = _left(self.found, self.done)
        n_bytes = self.found.n_bytes()[order]
        with LineFile(self.source.path, self.found) as file:
            cuts = list(cut(shared, n_bytes, self.sizes))
            if self.cheapest_first:
                cuts.sort(key=lambda ends: int(n_bytes[slice(*ends)].sum()) / (ends[1] - ends[0]))
            for start, end in cuts:
                builder, rows = self.builder(), np.sort(order[start:end])
                for at in range(0, len(rows), BATCH_ROWS):
                    builder.take(self._believed(file, rows[at : at + BATCH_ROWS]))
                yield builder.build()

    def _believed(self, file: LineFile, rows: NDArray[np.int64]) -> list[InputRow]:
        """The rows of these numbers, read again where the file was touched meanwhile."""
        while True:
            batch = list(file.rows(rows, self.parser, self._repeats))
            if self.source.check():
                return batch


def _left(found: Outline, done: bytes | bytearray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The outline's order without the rows that are done; neighbours share at least as much as is given."""
    flags = np.zeros(len(found), bool)
    upto = min(len(done), len(found))
    flags[:upto] = np.frombuffer(done, np.uint8, upto) != 0
    kept = ~flags[found.order]
    return found.order[kept], found.shared[kept]


class LineFile:
    """The rows of a file by number, read where they lie."""

    def __init__(self, path: Path, found: Outline):
        self._found = found
        self._n_bytes = found.n_bytes()
        self._file = os.open(path, os.O_RDONLY)

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    def line(self, row: int) -> Line:
        """The bytes of a row's line, its end included, or the error that keeps it from being read."""
        size = min(int(self._n_bytes[row]), MAX_LINE_BYTES + 1)
        data = os.pread(self._file, size, int(self._found.offsets[row]))
        end = data.find(b"\n")
        if end >= 0:
            return data[: end + 1]
        return data if len(data) <= MAX_LINE_BYTES else too_long(int(self._found.lines[row]))

    def rows(self, numbers: NDArray[np.int64], parser: RowParser, seen: dict[int, int]) -> Iterator[InputRow]:
        """The rows of those numbers; `seen` names those whose id was used before, and on which line."""
        lines = self._found.lines[numbers].tolist()
        for row, number in zip(numbers.tolist(), lines, strict=True):
            parsed = parse_line(parser, row, number, self.line(row))
            yield repeated(parsed, seen[row]) if row in seen else parsed


def open_feed(
    source: Source,
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
    parser = source.parser()
    if not source.holds_more(small):
        return InOrder(source, done, builder)
    sizes = sizes or WindowSizes()
    if not source.seekable or source.options.id_column is not None:  # the scan looks for custom_id alone
        return InOrder(source, done, builder, sizes)
    found = outline(source.path, _markers(parser), meanwhile)
    if not len(found):
        return InOrder(source, done, builder)  # which says that the file is empty
    return Grouped(source, parser, found, done, builder, sizes, cheapest_first)


def _markers(parser: RowParser) -> list[bytes]:
    """How the field that a prompt begins with is written in a line, in up to 8 bytes."""
    if parser.template is not None:
        columns = [name for _, name in parser.template.parts if name is not None]
        return [f'"{columns[0]}"'.encode()[:8]]
    return [b'"message', b'"prompt"'] if parser.style == Style.CHAT else [b'"prompt"', b'"message']
