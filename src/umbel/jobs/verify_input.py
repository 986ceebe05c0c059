"""The rows of an input file as `umbel verify` counts them, and the id that each should have in the output.

Shares no code with the readers: what it must agree with them on is written down in docs/bad_input.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from umbel.jobs.verify_arrow import parquet_rows
from umbel.jobs.verify_delimited import records_of
from umbel.jobs.verify_lines import blocks_of, lines_of, without_mark

MAX_DEPTH = 512  # of lines whose ids are looked for
SNIFFED_LINES = 1_000
_HEAD_BYTES = 4_096
_ARROW = (".parquet", ".pq", ".arrow", ".feather", ".ipc")
_TABS = (".tsv", ".tab")
_URLS = ("/v1/chat/completions", "/v1/completions")
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)


InputFields = dict[str, Any]
"""The fields or columns of a row, by name."""


def input_ids(path: Path, *, templated: bool) -> Iterator[str | None]:
    """The id that each input row should have in the output: its own, its number if it gives none, null if
    unreadable."""
    for name, _ in input_rows(path, templated=templated):
        yield name


def is_table(path: Path) -> bool:
    """Whether an input is a table, by its name."""
    return _name(path).endswith((*_ARROW, ".csv")) or (_name(path).endswith(_TABS) and not _is_object(_beginning(path)))


def input_rows(
    path: Path, *, templated: bool, id_column: str | None = None, first: int = 0
) -> Iterator[tuple[str | None, InputFields | None]]:
    """The id of each row with its fields; None instead of them where none of them come back. Rows are numbered from
    `first`."""
    name, column, needed = _name(path), id_column or "custom_id", id_column is not None
    if name.endswith(_ARROW):
        yield from parquet_rows(path, column, first, needed=needed)
    elif is_table(path):
        yield from _csv_rows(path, column, first, "," if name.endswith(".csv") else "\t")
    elif name.endswith(".txt") and not _is_object(_beginning(path)):
        yield from _text_rows(path, first, templated=templated, needed=needed)
    elif not name.endswith((".txt", *_TABS)) and re.match(rb"\[\s*(\{|$)", _beginning(path)):
        yield from _array_rows(path, column, first, needed=needed)
    else:
        yield from _json_rows(path, column, first, templated=templated, needed=needed)


def _name(path: Path) -> str:
    return re.sub(r"\.(gz|zst)$", "", path.name.lower())


def _beginning(path: Path) -> bytes:
    """The first line that is not blank, or a part of it."""
    head = b""
    for block in blocks_of(path):
        head += block or b""
        if len(head) >= _HEAD_BYTES:
            break
    return head[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0].strip()


def _is_object(begin: bytes) -> bool:
    return re.match(rb'\{\s*"', begin) is not None


def _text_rows(
    path: Path, row: int, *, templated: bool, needed: bool
) -> Iterator[tuple[str | None, InputFields | None]]:
    for line in without_mark(lines_of(path)):
        if line is not None and not line.strip():
            continue
        try:
            text = None if line is None else line.rstrip(b"\r\n").decode()
        except UnicodeDecodeError:
            text = ""
        fields = {"text" if templated else "prompt": text}
        yield None if text is None or needed else str(row), fields if text else None
        row += 1


def _array_rows(
    path: Path, column: str, first: int, *, needed: bool
) -> Iterator[tuple[str | None, InputFields | None]]:
    data = b"".join(block or b"" for block in blocks_of(path)).removeprefix(b"\xef\xbb\xbf")
    for row, item in enumerate(json.loads(data), first):
        if not isinstance(item, dict):
            yield None, None
        elif column not in item:
            yield None if needed else str(row), item
        else:
            yield _text_id(item[column], whole=needed), item


def _json_rows(
    path: Path, column: str, first: int, *, templated: bool, needed: bool
) -> Iterator[tuple[str | None, InputFields | None]]:
    lines = without_mark(lines_of(path, blank=False))
    items = (None if line is None else _object_in(line) for line in lines if line is None or line.strip())
    some = list(islice(items, SNIFFED_LINES))
    openai = not templated and _is_openai([item and _kind_of(item) for item in some])
    for row, item in enumerate(chain(some, items), first):
        if item is None:
            yield None, None
        elif column not in item:
            yield None if openai or needed else str(row), None if openai else item
        else:
            yield _text_id(item[column], whole=needed), None if openai else item


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


def _object_in(line: bytes) -> InputFields | None:
    """The JSON object of a line, None for anything else."""
    if _is_deep(line):
        return None
    try:
        item = json.loads(line.decode("utf-8", "surrogateescape"), strict=False, parse_int=_whole)
    except (ValueError, RecursionError):
        return None
    return item if isinstance(item, dict) else None


def _whole(digits: str) -> float:
    """A whole number, as a float beyond 64 bits."""
    return int(digits) if len(digits) <= 20 else float(digits)


def _kind_of(item: InputFields) -> dict[str, Any]:
    """What of an object shows its dialect."""
    kept: dict[str, Any] = {name: True for name in ("body", "method") if name in item}
    kept |= {"any": bool(item), "plain": bool(item.get("prompt") or item.get("messages"))}
    if "url" in item:
        kept["url"] = item["url"] in _URLS if isinstance(item["url"], str) else False
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


def _text_id(value: object, *, whole: bool = False) -> str | None:
    if whole and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value or any("\ud800" <= c <= "\udfff" for c in value):
        return None
    return value


def _csv_rows(path: Path, column: str, first: int, mark: str) -> Iterator[tuple[str | None, InputFields | None]]:
    records = records_of(path, mark)
    header = next(records, None) or []
    at = header.index(column) if column in header else None
    for row, cells in enumerate(records, first):
        if cells is None or len(cells) != len(header) or any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
            yield None, None
        else:
            yield str(row) if at is None else cells[at] or None, dict(zip(header, cells, strict=True))
