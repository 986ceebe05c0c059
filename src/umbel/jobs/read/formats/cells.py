"""Cells of a Parquet table as JSON lines would hold them: text, numbers, true, false, lists and objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from umbel.errors import InvalidRequest
from umbel.ir.contain import concerns_row
from umbel.ir.limits import shown

if TYPE_CHECKING:
    import pyarrow

Cells = Sequence[Any]
"""Values of a column; an InvalidRequest where a cell cannot be read."""


def cells_of(column: pyarrow.Array, name: str) -> Cells:
    """The values of a column of a batch; missing cells (null, NaN) are None."""
    import pyarrow
    import pyarrow.types as kinds

    kind = column.type
    if kinds.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if (
        kinds.is_timestamp(kind) and kind.unit == "ns"
    ):  # Python has no such times; with pandas there it would give its own
        column = column.cast(pyarrow.timestamp("us", kind.tz), safe=False)
    convert = None if _is_json(kind) else _missing_nan if kinds.is_floating(kind) else plain
    try:
        values = column.to_pylist()
        return values if convert is None else [convert(value) for value in values]
    except BaseException as error:
        if not concerns_row(error):
            raise
    return [_cell(column, i, name, convert or plain) for i in range(len(column))]


def _cell(column: pyarrow.Array, i: int, name: str, convert: Callable[[Any], Any]) -> Any:
    """A single cell, in a column where at least one cannot be read."""
    try:
        return convert(column[i].as_py())
    except BaseException as error:
        if not concerns_row(error):
            raise
        return InvalidRequest("invalid_value", f"column {shown(name)}: {_why(error, column, i)}", name)


def _why(error: BaseException, column: pyarrow.Array, i: int) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"the cell is not UTF-8: byte 0x{error.object[error.start]:02x} at byte offset {error.start}"
    return f"the cell of type {column.type} cannot be read ({type(error).__name__})"


def _is_json(kind: pyarrow.DataType) -> bool:
    """Whether values of an Arrow type exist in JSON."""
    import pyarrow.types as kinds

    if kinds.is_list(kind) or kinds.is_large_list(kind):
        return _is_json(kind.value_type)
    if kinds.is_struct(kind):
        return all(_is_json(kind.field(i).type) for i in range(kind.num_fields))
    text = kinds.is_string(kind) or kinds.is_large_string(kind)
    return text or kinds.is_integer(kind) or kinds.is_boolean(kind) or kinds.is_null(kind)


def _missing_nan(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def plain(value: Any) -> Any:
    """A value as JSON lines would hold it: bytes as their UTF-8 text, dates and times as in ISO 8601, decimals with
    all their digits, maps as objects, NaN as null. Raises UnicodeDecodeError for bytes that are no text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return None if value.is_nan() else format(value, "f")
    if isinstance(value, float):
        return _missing_nan(value)
    if isinstance(value, list):
        if value and all(isinstance(entry, tuple) for entry in value):
            return {str(plain(name)): plain(entry) for name, entry in value}
        return [plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(plain(name)): plain(entry) for name, entry in value.items()}
    return value if value is None or isinstance(value, (str, int)) else str(value)
