"""Cells of a table on their way back: as JSON in a row of the output, and from there into a column as it was.

JSON has neither dates nor decimals nor bytes. They are texts there: dates and times as in ISO 8601 with all their
digits, decimals with theirs, bytes in base64; durations are a number in the unit of their column, NaN is null.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from umbel.errors import InvalidRequest
from umbel.jobs.read.formats.cells import Cells, cells_of

if TYPE_CHECKING:
    import pyarrow

_CLOCK = re.compile(r"(.{19})(?:\.\d+)?(.*)")


def given_back(column: pyarrow.Array) -> Cells:
    """The cells of a column as JSON writes them; null where one cannot be read."""
    import pyarrow
    import pyarrow.types as kinds

    column = _plain(column)
    kind = column.type
    if _is_bytes(kind):
        return [None if value is None else b64encode(value).decode() for value in column.to_pylist()]
    if kinds.is_duration(kind):
        return list(column.cast(pyarrow.int64()).to_pylist())
    if kinds.is_time64(kind) and kind.unit == "ns":
        return list(column.cast(pyarrow.string()).to_pylist())
    if not (kinds.is_timestamp(kind) and kind.unit == "ns"):
        return _readable(column)
    counts = column.cast(pyarrow.int64()).to_pylist()
    whole = [None if count is None else count // 1_000 for count in counts]  # a cast would round times before 1970 up
    texts = _readable(pyarrow.array(whole, pyarrow.int64()).cast(pyarrow.timestamp("us", kind.tz)))
    return list(map(_with_nanoseconds, texts, counts))


def _readable(column: pyarrow.Array) -> Cells:
    return [None if isinstance(value, InvalidRequest) else value for value in cells_of(column, "")]


def kind_back(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The type of a column that comes back: its own, text in JSON where that cannot be had from JSON."""
    import pyarrow

    if isinstance(kind, pyarrow.BaseExtensionType):
        kind = kind.storage_type
    return kind if _comes_back(kind, top=True) else pyarrow.string()


def common_kind(one: pyarrow.DataType, other: pyarrow.DataType) -> pyarrow.DataType | None:
    """The type for a column that has one of these types in some files and the other in others; None where their cells
    cannot be told apart in JSON, or have no type in common."""
    import pyarrow
    import pyarrow.types as kinds

    if one == other:
        return one
    one, other = (kind.value_type if kinds.is_dictionary(kind) else kind for kind in (one, other))
    clash = _is_bytes(one) != _is_bytes(other) or kinds.is_duration(one) or kinds.is_duration(other)
    if clash and not (kinds.is_null(one) or kinds.is_null(other)):
        return None
    schemas = [pyarrow.schema([pyarrow.field("column", kind)]) for kind in (one, other)]
    try:
        return pyarrow.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pyarrow.ArrowException:
        return None


def restored(values: Sequence[Any], kind: pyarrow.DataType) -> pyarrow.Array:
    """A column of a type that `kind_back` gave, from its cells in JSON. Raises an ArrowException for others."""
    import pyarrow
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        return restored(values, kind.value_type).dictionary_encode().cast(kind)
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        texts = [v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in values]
        return pyarrow.array(texts, kind)
    if _is_bytes(kind):
        return pyarrow.array([None if value is None else b64decode(value) for value in values], kind)
    if kinds.is_timestamp(kind):
        return pyarrow.array(values, pyarrow.string()).cast(kind)
    if kinds.is_duration(kind):
        return pyarrow.array(values, pyarrow.int64()).cast(kind)
    if kinds.is_time64(kind) and kind.unit == "ns":
        return pyarrow.array([_nanoseconds(value) for value in values], pyarrow.int64()).cast(kind)
    if kinds.is_float16(kind):
        return pyarrow.array(values, pyarrow.float32()).cast(kind)
    back = _back(kind)
    return pyarrow.array(values if back is None else [back(value) for value in values], kind)


def _plain(column: pyarrow.Array) -> pyarrow.Array:
    """A column without what its type only wraps."""
    import pyarrow
    import pyarrow.types as kinds

    if isinstance(column.type, pyarrow.BaseExtensionType):
        column = column.storage
    return column.dictionary_decode() if kinds.is_dictionary(column.type) else column


def _is_bytes(kind: pyarrow.DataType) -> bool:
    import pyarrow.types as kinds

    return kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind)


def _is_list(kind: pyarrow.DataType) -> bool:
    import pyarrow.types as kinds

    return kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)


def _comes_back(kind: pyarrow.DataType, *, top: bool = False) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        return top and _comes_back(kind.value_type, top=True)
    if _is_list(kind):
        return _comes_back(kind.value_type)
    if kinds.is_struct(kind):
        return all(_comes_back(kind.field(i).type) for i in range(kind.num_fields))
    if _is_bytes(kind) or kinds.is_duration(kind) or kinds.is_time64(kind):
        return top
    plain = (kinds.is_string, kinds.is_large_string, kinds.is_integer, kinds.is_floating, kinds.is_boolean)
    timed = (kinds.is_timestamp, kinds.is_date, kinds.is_time32, kinds.is_decimal, kinds.is_null)
    return any(of_kind(kind) for of_kind in (*plain, *timed))


def _back(kind: pyarrow.DataType) -> Callable[[Any], Any] | None:
    """What turns a value in JSON into one that pyarrow takes for a type; None where it takes it as it is."""
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        backs = {kind.field(i).name: _back(kind.field(i).type) for i in range(kind.num_fields)}
        if not any(backs.values()):
            return None
        return _maybe(lambda value: {name: _apply(backs.get(name), entry) for name, entry in value.items()})
    if _is_list(kind):
        inner = _back(kind.value_type)
        return None if inner is None else _maybe(lambda value: [inner(entry) for entry in value])
    if kinds.is_decimal(kind):
        return _maybe(Decimal)
    if kinds.is_timestamp(kind):
        return _maybe(datetime.fromisoformat)
    if kinds.is_date(kind):
        return _maybe(date.fromisoformat)
    return _maybe(time.fromisoformat) if kinds.is_time(kind) else None


def _apply(back: Callable[[Any], Any] | None, value: Any) -> Any:
    return value if back is None else back(value)


def _maybe(back: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else back(value)


def _with_nanoseconds(text: str | None, value: int | None) -> str | None:
    """A time in ISO 8601 with its nanoseconds, where it has any below a microsecond."""
    found = None if text is None or value is None or value % 1_000 == 0 else _CLOCK.fullmatch(text)
    return text if found is None or value is None else f"{found[1]}.{value % 10**9:09d}{found[2]}"


def _nanoseconds(text: str | None) -> int | None:
    if text is None:
        return None
    clock, _, part = text.partition(".")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((hours * 60 + minutes) * 60 + seconds) * 10**9 + int(f"{part:0<9}")
