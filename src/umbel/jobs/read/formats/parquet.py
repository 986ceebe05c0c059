"""Parquet: one table row a row, a batch of them in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.errors import InputError, InvalidRequest, UsageError
from umbel.ir.body import EFFECTIVE_FIELDS
from umbel.jobs.read.formats.cells import Cells, cells_of
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.formats.table import check_columns
from umbel.jobs.read.records import InputRow

if TYPE_CHECKING:
    import pyarrow

_BATCH_ROWS = 1_024
_READ = EFFECTIVE_FIELDS | {"custom_id", "prompt", "messages", "model"}


def read_parquet(path: Path, parser: RowParser) -> Iterator[InputRow]:
    """One `InputRow` per table row. Raises InputError, UsageError."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise InputError(f"input {path}: column {min(twice)!r} is there twice")
            check_columns(names, parser)
            row = 0
            for batch in table.iter_batches(_BATCH_ROWS, columns=_wanted(names, parser)):
                for item in _items(batch):
                    yield _parse(parser, row, item)
                    row += 1
    except FileNotFoundError as error:
        raise UsageError(f"input {path}: {error.strerror or error}") from error
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"input {path}: not a readable Parquet file ({error})") from error


def unpacked_bytes(path: Path) -> int:
    """Bytes of the table before they were packed. Raises InputError when it cannot be read."""
    import pyarrow
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"input {path}: not a readable Parquet file ({error})") from error
    return sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))


def _items(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of a batch as objects."""
    names = batch.schema.names
    columns = [_column(column, name) for name, column in zip(names, batch.columns, strict=True)]
    if not columns:
        return
    for cells in zip(*columns, strict=True):
        yield dict(zip(names, cells, strict=True))


def _column(column: pyarrow.Array, name: str) -> Cells:
    """The cells of a column. In a sampling field decimals become numbers, and whole floats become integers, as a column
    of integers with gaps is stored as floats."""
    import pyarrow

    if name not in EFFECTIVE_FIELDS:
        return cells_of(column, name)
    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    return [int(v) if isinstance(v, float) and v.is_integer() else v for v in cells_of(column, name)]


def _parse(parser: RowParser, row: int, item: dict[str, Any]) -> InputRow:
    read = _READ if parser.template is None else parser.template.columns | {"custom_id"}
    fault = next((v for name, v in item.items() if isinstance(v, InvalidRequest) and name in read), None)
    kept = {name: value for name, value in item.items() if _is_kept(name, value, parser)}
    if "custom_id" in kept:
        kept["custom_id"] = _id(kept["custom_id"])
    if fault is not None:
        return parser.broken(row, row + 1, fault, kept)
    return parser.parse(row, row + 1, kept)


def _is_kept(name: str, value: object, parser: RowParser) -> bool:
    """Whether a cell counts. Null cells count as missing, except for a template, which tells them from missing
    columns."""
    if value is None:
        return parser.template is not None and name in parser.template.columns and name != "custom_id"
    return not isinstance(value, InvalidRequest) or name == "custom_id"


def _id(value: object) -> object:
    """A cell as an id. Whole numbers are ids too, also as floats, which is what integers become in a column with
    gaps."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _wanted(names: Sequence[str], parser: RowParser) -> list[str]:
    """The columns to read: a template leaves out those it does not use, which may be wide."""
    if parser.template is None:
        return list(names)
    return [name for name in names if name == "custom_id" or name in parser.template.columns]
