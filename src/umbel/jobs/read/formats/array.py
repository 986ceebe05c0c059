"""One JSON array of objects: read whole, as the end of a row shows only in what follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson

from umbel.errors import InputError, InvalidRequest
from umbel.ir.limits import shown
from umbel.jobs.read.formats.lines import BOM, damage_of, open_bytes
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.records import InputRow

MAX_ARRAY_BYTES = 2**30  # it takes several times as much memory when it is read


def read_array(path: Path, parser: RowParser) -> Iterator[InputRow]:
    """One `InputRow` per entry; entries that are no objects become error rows. `line` counts entries from 1.

    Raises InputError for an array that cannot be read as JSON, or is too large to be read whole.
    """
    for row, item in enumerate(_entries(path)):
        if isinstance(item, dict):
            yield parser.parse(row, row + 1, item)
        else:
            message = f"entry {row + 1} of the array is not an object but {shown(item)}"
            yield parser.broken(row, row + 1, InvalidRequest("invalid_json_line", message))


def _entries(path: Path) -> list[object]:
    with open_bytes(path) as stream:
        data = stream.read(MAX_ARRAY_BYTES + 1)
        damage = damage_of(stream)
    if damage is not None:
        raise InputError(f"input {path}: the {damage}")
    if len(data) > MAX_ARRAY_BYTES:
        raise InputError(
            f"input {path}: a JSON array of more than {MAX_ARRAY_BYTES:,} bytes; write one object a line: jq -c '.[]'"
        )
    try:
        found = orjson.loads(data.removeprefix(BOM))
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"input {path}: not a JSON array: {error.msg} at {where}; nothing was run") from None
    assert isinstance(found, list)  # by its first byte
    return found
