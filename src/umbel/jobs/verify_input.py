"""The rows of an input file as `umbel verify` counts them, and the id that each should have in the output.

Shares no code with the readers: what it must agree with them on is written down in docs/bad_input.md.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

MAX_LINE_BYTES = 16 * 2**20
MAX_DEPTH = 512  # of lines whose ids are looked for
SNIFFED_LINES = 1_000
_URLS = ("/v1/chat/completions", "/v1/completions")
_BLOCK_BYTES = 2**16
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)
_QUOTED = re.compile(r'[^"]*(?:""[^"]*)*')
_BARE = re.compile(r"[^,\r\n]*")
_END = re.compile(r"[\r\n]*\Z")


def input_ids(path: Path, *, templated: bool) -> Iterator[str | None]:
    """The id that each input row should have in the output: its own, its number if it gives none, null if
    unreadable."""
    name = path.name.removesuffix(".gz").lower()
    if name.endswith((".parquet", ".pq")):
        yield from _parquet_ids(path)
    elif name.endswith(".csv"):
        yield from _csv_ids(path)
    else:
        yield from _json_ids(path, templated=templated)


def lines_of(path: Path, cap: int | None = MAX_LINE_BYTES, *, blank: bool = True) -> Iterator[bytes | None]:
    """Lines with their ends; None for one of more than `cap` bytes, and as the last where a gzip file is damaged.

    `blank` False leaves out blank lines, many at a time.
    """
    rest, skipping = b"", False
    for block in _blocks(path):
        if block is None:  # and with it goes the line that it cuts
            yield None
            return
        if not blank and not rest and not skipping and not block.strip():
            rest = b"" if block.endswith(b"\n") else block[-1:]
            continue
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if blank or skipping or line.strip():
                yield None if skipping or (cap is not None and len(line) > cap) else line + b"\n"
            skipping = False
        if cap is not None and len(rest) > cap:
            rest, skipping = b"", True
    if rest or skipping:
        yield None if skipping else rest


def _blocks(path: Path) -> Iterator[bytes | None]:
    """The bytes of a file, unpacked if it is gzip; None as the last where that is damaged."""
    with open(path, "rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        if packed:
            yield from _unpacked(stream)
            return
        while block := stream.read(_BLOCK_BYTES):
            yield block


def _unpacked(stream: BinaryIO) -> Iterator[bytes | None]:
    member: Any = zlib.decompressobj(wbits=31)
    complete = False
    while data := stream.read(_BLOCK_BYTES):
        while data:
            if complete and not (data := data.lstrip(b"\0")):
                break
            if complete:
                member, complete = zlib.decompressobj(wbits=31), False
            saved = member.copy()
            try:
                yield member.decompress(data, 2**20)
            except zlib.error:
                yield from _until_error(saved, data)
                yield None
                return
            complete = member.eof
            data = member.unused_data if complete else member.unconsumed_tail
    if not complete:
        yield None


def _until_error(member: Any, data: bytes) -> Iterator[bytes]:
    for byte in data:
        try:
            yield member.decompress(bytes([byte]))
        except zlib.error:
            return


def _json_ids(path: Path, *, templated: bool) -> Iterator[str | None]:
    lines = _without_mark(lines_of(path, blank=False))
    rows = [None if line is None else _identity(line) for line in lines if line is None or line.strip()]
    openai = not templated and _is_openai(rows[:SNIFFED_LINES])
    for row, item in enumerate(rows):
        if item is None:
            yield None
        elif "custom_id" not in item:
            yield None if openai else str(row)
        else:
            yield item["custom_id"]


def _without_mark(lines: Iterator[bytes | None]) -> Iterator[bytes | None]:
    for number, line in enumerate(lines):
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 0 and line is not None else line


def _is_openai(rows: list[dict[str, Any] | None]) -> bool:
    """Whether the first object is an OpenAI batch line, and no plain row comes before one with a known url."""
    objects = [row for row in rows if row and row["any"]]
    if not objects or not {"body", "url", "method"} & objects[0].keys():
        return False
    for item in objects:
        if item["plain"]:
            return False
        if item.get("url"):
            return True
    return True


def _identity(line: bytes) -> dict[str, Any] | None:
    """The keys of a JSON object that show its id and dialect, None for anything else."""
    if _is_deep(line):
        return None
    try:
        item = json.loads(line.decode("utf-8", "surrogateescape"), strict=False, parse_int=float)
    except (ValueError, RecursionError):
        return None
    if not isinstance(item, dict):
        return None
    kept: dict[str, Any] = {name: True for name in ("body", "method") if name in item}
    kept |= {"any": bool(item), "plain": bool(item.get("prompt") or item.get("messages"))}
    if "url" in item:
        kept["url"] = item["url"] in _URLS if isinstance(item["url"], str) else False
    if "custom_id" in item:
        kept["custom_id"] = _text_id(item["custom_id"])
    return kept


def _is_deep(line: bytes) -> bool:
    depth = 0
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return False
    for mark in _BRACKETS.finditer(line):
        if mark[0] in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif mark[0] in b"]}":
            depth -= 1
    return False


def _text_id(value: object) -> str | None:
    if not isinstance(value, str) or not value or any("\ud800" <= c <= "\udfff" for c in value):
        return None
    return value


def _csv_ids(path: Path) -> Iterator[str | None]:
    records = _csv_records(path)
    header = next(records, None) or []
    at = header.index("custom_id") if "custom_id" in header else None
    for row, cells in enumerate(records):
        if cells is None or len(cells) != len(header) or any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
            yield None
        else:
            yield str(row) if at is None else cells[at] or None


def _csv_records(path: Path) -> Iterator[list[str] | None]:
    """The cells of each record that is not blank, None for one that breaks a rule, which is its first line alone."""
    source = _without_mark(lines_of(path))
    waiting: deque[bytes | None] = deque()
    while True:
        record, state = _Record(), "open"
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
                end = _end(_BARE, text, at)
                self.cells.append(text[at:end])
                at = end
            if at > len(text):
                return "open"
            if _END.match(text, at):
                return "ended"
            if text[at] != ",":
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


def _parquet_ids(path: Path) -> Iterator[str | None]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as table:
        if "custom_id" not in table.schema_arrow.names:
            yield from map(str, range(table.metadata.num_rows))
            return
        row = 0
        for batch in table.iter_batches(1_024, columns=["custom_id"]):
            for cell in batch.column(0):
                yield _cell_id(cell, row)
                row += 1


def _cell_id(cell: Any, row: int) -> str | None:
    try:
        value = cell.as_py()
        value = value.decode() if isinstance(value, bytes) else value
    except (ValueError, OverflowError):
        return None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return str(row)
    if isinstance(value, (bool, list, dict)):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if isinstance(value, (date, time)):
        return value.isoformat()
    return (format(value, "f") if isinstance(value, Decimal) else str(value)) or None
