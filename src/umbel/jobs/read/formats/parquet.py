"""Parquet: one table row a row, a batch of them in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.errors import InputError, InvalidRequest, UsageError
from umbel.ir.body import EFFECTIVE_FIELDS
from umbel.jobs.read.formats.cells import Cells, cells_of
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.formats.returned import given_back, kind_back
from umbel.jobs.read.formats.table import check_columns, columns_read
from umbel.jobs.read.records import InputRow

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 1_024


def read_parquet(path: Path, parser: RowParser) -> Iterator[InputRow]:
    """One `InputRow` per table row. Raises InputError, UsageError."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            wanted = TableColumns.of(path, table.schema_arrow.names, parser)
            yield from table_rows(table.iter_batches(BATCH_ROWS, columns=wanted.names), wanted, parser)
    except FileNotFoundError as error:
        raise UsageError(f"input {path}: {error.strerror or error}") from error
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"input {path}: not a readable Parquet file ({error})") from error


def kinds_of(path: Path, parser: RowParser) -> dict[str, pyarrow.DataType]:
    """The types of the columns that come back, by their names there. Raises InputError."""
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"input {path}: not a readable Parquet file ({error})") from error
    return kinds_back(schema, parser)


def kinds_back(schema: pyarrow.Schema, parser: RowParser) -> dict[str, pyarrow.DataType]:
    """The types of those columns of a table that come back, by their names there."""
    return {shown: kind_back(schema.field(name).type) for name, shown in parser.keeping.names(schema.names)}


def table_rows(batches: Iterable[pyarrow.RecordBatch], wanted: TableColumns, parser: RowParser) -> Iterator[InputRow]:
    """The rows of a table, whose batches have the wanted columns."""
    row = 0
    for batch in batches:
        for item, cells in wanted.rows(batch):
            yield _parse(parser, row, item, cells)
            row += 1


def parquet_room(path: Path, n_bytes: int) -> int:
    """How much of so many bytes a table leaves, counted before it was packed; below 0 when it has more. Raises
    InputError when it cannot be read."""
    import pyarrow
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"input {path}: not a readable Parquet file ({error})") from error
    return n_bytes - sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))


@dataclass(frozen=True, slots=True)
class TableColumns:
    """The columns of a table that are looked at: those `read` for requests, and those `kept` to come back."""

    read: list[str]
    kept: list[str]

    @classmethod
    def of(cls, path: Path, names: Sequence[str], parser: RowParser) -> TableColumns:
        """Of all columns, those that a parser uses; others, which may be wide, are not read at all. Raises InputError,
        UsageError."""
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InputError(f"input {path}: column {min(twice)!r} is there twice")
        check_columns(names, parser)
        return cls(columns_read(names, parser), [name for name, _ in parser.keeping.names(names)])

    @property
    def names(self) -> list[str]:
        """All of them."""
        return list(dict.fromkeys([*self.read, *self.kept]))

    def rows(self, batch: pyarrow.RecordBatch) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The rows of a batch: the cells that are read, and those that come back."""
        read = _rows([_column(batch.column(name), name) for name in self.read], self.read, batch.num_rows)
        kept = _rows([given_back(batch.column(name)) for name in self.kept], self.kept, batch.num_rows)
        return zip(read, kept, strict=True)


def _rows(columns: Sequence[Cells], names: Sequence[str], count: int) -> Iterator[dict[str, Any]]:
    if not columns:
        return iter([{}] * count)
    return (dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True))


def _column(column: pyarrow.Array, name: str) -> Cells:
    """The cells of a column. In a sampling field decimals become numbers, and whole floats become integers, as a column
    of integers with gaps is stored as floats."""
    import pyarrow

    if name not in EFFECTIVE_FIELDS:
        return cells_of(column, name)
    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    return [int(v) if isinstance(v, float) and v.is_integer() else v for v in cells_of(column, name)]


def _parse(parser: RowParser, row: int, item: dict[str, Any], cells: dict[str, Any]) -> InputRow:
    fault = next((v for v in item.values() if isinstance(v, InvalidRequest)), None)
    given = {name: value for name, value in item.items() if _is_given(name, value, parser)}
    if parser.id_field in given:
        given[parser.id_field] = _id(given[parser.id_field])
    if fault is not None:
        return parser.broken(row, row + 1, fault, given, cells)
    return parser.parse(row, row + 1, given, cells)


def _is_given(name: str, value: object, parser: RowParser) -> bool:
    """Whether a cell counts. Null cells count as missing, except for a template, which tells them from missing
    columns."""
    if value is None:
        return name in parser.data and name != parser.id_field
    return not isinstance(value, InvalidRequest) or name == parser.id_field


def _id(value: object) -> object:
    """A cell as an id. Whole numbers are ids too, also as floats, which is what integers become in a column with
    gaps."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
