"""The formats of input files, by the end of their names, and by their first bytes where a name says too little."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.jobs.read.formats.array import read_array
from umbel.jobs.read.formats.arrow import arrow_kinds, arrow_room, read_arrow
from umbel.jobs.read.formats.delimited import read_csv, read_tsv
from umbel.jobs.read.formats.foreign import check_file
from umbel.jobs.read.formats.jsonl import read_jsonl
from umbel.jobs.read.formats.lines import BOM, PACKED, open_bytes, room_behind
from umbel.jobs.read.formats.parquet import kinds_of, parquet_room, read_parquet
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.formats.prompt_lines import read_prompt_lines
from umbel.jobs.read.records import InputRow

_ARRAY = re.compile(rb"\[\s*(\{|$)")
_OBJECT = re.compile(rb'\{\s*"')
_MAY_BE_JSON = frozenset({"jsonl", "json", "tsv", "txt"})
_HEAD_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class InputFormat:
    """How files of one format are read.

    `suffixes`: ends of names, those of packing (.gz, .zst) aside.
    `read`: rows of a file; `room_behind`: how much of so many bytes it leaves, counted after unpacking.
    `text`: files may be packed, and must not hold something else that is text as well.
    `by_line`: each line is a row that can be read alone.
    `table`: there are columns, all of which come back; `kinds`: their Arrow types, where they have any.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path, RowParser], Iterator[InputRow]]
    room_behind: Callable[[Path, int], int] = room_behind
    text: bool = True
    by_line: bool = False
    table: bool = False
    kinds: Callable[[Path, RowParser], Mapping[str, Any]] = lambda path, parser: {}


LINES = InputFormat("jsonl", (".jsonl", ".ndjson"), read_jsonl, by_line=True)
ARRAY = InputFormat("json", (".json",), read_array)
FORMATS = (
    LINES,
    ARRAY,
    InputFormat("csv", (".csv",), read_csv, table=True),
    InputFormat("tsv", (".tsv", ".tab"), read_tsv, table=True),
    InputFormat("txt", (".txt",), read_prompt_lines),
    InputFormat("parquet", (".parquet", ".pq"), read_parquet, parquet_room, text=False, table=True, kinds=kinds_of),
    InputFormat(
        "arrow",
        (".arrow", ".feather", ".ipc"),
        read_arrow,
        arrow_room,
        text=False,
        table=True,
        kinds=arrow_kinds,
    ),
)


def format_of(path: Path) -> InputFormat:
    """The format of an input file. JSON is read as lines or as one array by what it begins with; JSON lines are read
    under the name of any text, and under names that end in nothing known. Raises UsageError when there is no such
    file."""
    check_file(path)
    suffix = suffix_of(path)
    found = next((one for one in FORMATS if suffix in one.suffixes), LINES)
    if found.name not in _MAY_BE_JSON:
        return found
    begin = _beginning(path)
    if found is LINES or found is ARRAY:
        return ARRAY if _ARRAY.match(begin) else LINES
    return LINES if _OBJECT.match(begin) else found


def suffix_of(path: Path) -> str:
    """The end of a name that tells the format, without the one that tells how it is packed."""
    name = Path(path.name).stem if path.suffix.lower() in PACKED else path.name
    return Path(name).suffix.lower()


def _beginning(path: Path) -> bytes:
    """The first line of a file that is not blank, or a part of it."""
    with open_bytes(path) as stream:
        head = stream.read(_HEAD_BYTES).removeprefix(BOM).lstrip()
    return head.split(b"\n", 1)[0].strip()
