"""Records of CSV and TSV as `umbel verify` reads them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from umbel.jobs.verify_lines import MAX_LINE_BYTES, lines_of, without_mark

_QUOTED = re.compile(r'[^"]*(?:""[^"]*)*')
_BARE = MappingProxyType({mark: re.compile(rf"[^{mark}\r\n]*") for mark in (",", "\t")})
_END = re.compile(r"[\r\n]*\Z")


def records_of(path: Path, delimiter: str = ",", cap: int | None = MAX_LINE_BYTES) -> Iterator[list[str] | None]:
    """The cells of each record that is not blank, None for one that breaks a rule, which is its first line alone."""
    source = without_mark(lines_of(path, cap))
    waiting: deque[bytes | None] = deque()
    while True:
        record, state = _Record(delimiter), "open"
        while state == "open":
            if not waiting:
                waiting.extend(islice(source, 1))
            if not waiting:
                break
            state = record.take(waiting.popleft())
        if not record.lines:
            return
        if state != "ended":
            waiting.extendleft(reversed(record.lines[1:]))
            yield None
        elif record.cells:
            yield record.cells


@dataclass(slots=True)
class _Record:
    """A CSV record while it is read; `parts` is the text so far of a cell whose quotation mark is not closed yet."""

    delimiter: str
    lines: list[bytes | None] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    n_bytes: int = 0

    def take(self, line: bytes | None) -> str:
        """Add a line. The record is then "open" (the next line belongs to it), "ended" or "broken"."""
        self.lines.append(line)
        self.n_bytes += len(line or b"")
        if line is None or b"\0" in line or (len(self.lines) > 1 and self.n_bytes > MAX_LINE_BYTES):
            return "broken"
        text, at = line.decode("utf-8", "surrogateescape"), 0
        if len(self.lines) == 1 and _END.match(text):
            return "ended"
        while True:
            if len(self.lines) > 1 and self.parts:
                at = self._quoted(text, at)
            elif text.startswith('"', at):
                at = self._quoted(text, at + 1)
            else:
                end = _end(_BARE[self.delimiter], text, at)
                self.cells.append(text[at:end])
                at = end
            if at > len(text):
                return "open"
            if _END.match(text, at):
                return "ended"
            if text[at] != self.delimiter:
                return "broken"
            at += 1

    def _quoted(self, text: str, at: int) -> int:
        """Read on in a cell in quotation marks; returns where it ends, beyond the text when it goes on."""
        end = _end(_QUOTED, text, at)
        self.parts.append(text[at:end])
        if end == len(text):
            return end + 1
        self.cells.append("".join(self.parts).replace('""', '"'))
        self.parts = []
        return end + 1


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()
