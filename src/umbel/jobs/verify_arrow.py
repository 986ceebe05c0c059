"""Cells of Arrow tables and the ids among them, as `umbel verify` reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any


def parquet_rows(
    path: Path, column: str, row: int, *, needed: bool
) -> Iterator[tuple[str | None, dict[str, Any] | None]]:
    """The id of each row with its columns; without one of its own its number, from `row` on, or none where it is
    `needed`."""
    for batch in batches_of(path):
        names = batch.schema.names
        ids = batch.column(names.index(column)) if column in names else [None] * batch.num_rows
        columns = [cells_of(batch.column(name)) for name in names]
        for i, cells in enumerate(zip(*columns, strict=True)):
            missing = None if needed else str(row)
            yield missing if ids[i] is None else _cell_id(ids[i], missing), dict(zip(names, cells, strict=True))
            row += 1


def batches_of(path: Path) -> Iterator[Any]:
    """The record batches of a Parquet or Arrow file."""
    import pyarrow.ipc
    import pyarrow.parquet

    if path.suffix.lower() in (".arrow", ".feather", ".ipc"):
        with open(path, "rb") as stream:
            packed = stream.read(6) == b"ARROW1"
            stream.seek(0)
            if not packed:
                yield from pyarrow.ipc.open_stream(stream)
                return
            table = pyarrow.ipc.open_file(stream)
            yield from (table.get_batch(i) for i in range(table.num_record_batches))
        return
    with pyarrow.parquet.ParquetFile(path) as table:
        yield from table.iter_batches(1_024)


def cells_of(column: Any) -> list[Any]:
    """The cells of an Arrow column as Python's values, None where one has no such value; times of nanoseconds are
    texts as in ISO 8601, durations numbers."""
    import pyarrow

    kinds, kind = pyarrow.types, column.type
    if kinds.is_dictionary(kind):
        column, kind = column.dictionary_decode(), column.type.value_type
    if isinstance(kind, pyarrow.BaseExtensionType):
        column, kind = column.storage, kind.storage_type
    if kinds.is_duration(kind):
        column = column.cast("int64")
    if kinds.is_time64(kind) and kind.unit == "ns":
        column = column.cast("string")
    if kinds.is_timestamp(kind) and kind.unit == "ns":
        parts = [(None, None) if n is None else divmod(n, 1_000) for n in column.cast("int64").to_pylist()]
        rest = [nanoseconds for _, nanoseconds in parts]
        times = _cells(pyarrow.array([us for us, _ in parts], "int64").cast(pyarrow.timestamp("us", kind.tz)))
        return [_with_rest(when, more) for when, more in zip(times, rest, strict=True)]
    return _cells(column)


def _cells(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_cell(cell) for cell in column]


def _cell(cell: Any) -> Any:
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return None


def _with_rest(when: Any, nanoseconds: int | None) -> str | None:
    if when is None or not nanoseconds:
        return None if when is None else str(when.isoformat())
    text = when.isoformat(timespec="microseconds")
    return f"{text[:26]}{nanoseconds:03d}{text[26:]}"


def _cell_id(cell: Any, missing: str | None) -> str | None:
    try:
        value = cell.as_py()
        value = value.decode() if isinstance(value, bytes) else value
    except (ValueError, OverflowError):
        return None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return missing
    if isinstance(value, (bool, list, dict)):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if isinstance(value, (date, time)):
        return value.isoformat()
    return (format(value, "f") if isinstance(value, Decimal) else str(value)) or None
