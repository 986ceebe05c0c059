"""Tables as Python holds them (pandas, polars, Arrow, `datasets`, lists of dicts): written for a job, and returned with
columns of answers. These libraries are not imported here: a caller who has a table of one has imported it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pyarrow as pa
import pyarrow.parquet

from umbel.errors import UsageError
from umbel.ir.limits import shown


class TableFrame(ABC):
    """A table of a caller."""

    suffix: ClassVar[str] = ".parquet"

    def __init__(self, data: Any):
        self.data = data

    @abstractmethod
    def names(self) -> list[str]:
        """The names of its columns."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def table(self, wanted: Collection[str]) -> pa.Table:
        """Some of its columns."""

    @abstractmethod
    def extended(self, names: Mapping[str, str], answers: pa.Table) -> Any:
        """A table of the caller's kind: the columns under new `names`, and the answers behind them."""

    def write(self, path: Path, wanted: Collection[str]) -> None:
        """Write some columns to a file. Raises UsageError for values that it cannot hold."""
        try:
            pyarrow.parquet.write_table(self.table(wanted).replace_schema_metadata(None), path)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"the table cannot be written as Parquet: {error}") from None


class ArrowFrame(TableFrame):
    """A pyarrow.Table; also what any library gives through Arrow's stream interface."""

    def names(self) -> list[str]:
        """The columns, in order."""
        return list(self.data.column_names)

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def table(self, wanted: Collection[str]) -> pa.Table:
        """The columns themselves."""
        return self.data.select([name for name in self.names() if name in wanted])

    def extended(self, names: Mapping[str, str], answers: pa.Table) -> Any:
        """A new pyarrow.Table."""
        found = self.data.rename_columns([names[name] for name in self.names()])
        for name in answers.column_names:
            found = found.append_column(name, answers.column(name))
        return found


class PandasFrame(TableFrame):
    """A pandas.DataFrame; its index is kept."""

    def names(self) -> list[str]:
        """The columns as texts, in order."""
        return [str(name) for name in self.data.columns]

    def __len__(self) -> int:
        return len(self.data)

    def table(self, wanted: Collection[str]) -> pa.Table:
        """The columns without their index."""
        chosen = self.data.loc[:, [name in wanted for name in self.names()]]
        return pa.Table.from_pandas(chosen, preserve_index=False)

    def extended(self, names: Mapping[str, str], answers: pa.Table) -> Any:
        """A new DataFrame with the same index."""
        found = answers.to_pandas()
        found.index = self.data.index
        other = {name: names[str(name)] for name in self.data.columns if names[str(name)] != str(name)}
        return self.data.rename(columns=other).assign(**{name: found[name] for name in found.columns})


class PolarsFrame(TableFrame):
    """A polars.DataFrame."""

    def names(self) -> list[str]:
        """The columns, in order."""
        return list(self.data.columns)

    def __len__(self) -> int:
        return int(self.data.height)

    def table(self, wanted: Collection[str]) -> pa.Table:
        """The columns as Arrow."""
        return self.data.select([name for name in self.names() if name in wanted]).to_arrow()

    def extended(self, names: Mapping[str, str], answers: pa.Table) -> Any:
        """A new DataFrame."""
        return self.data.rename(dict(names)).hstack(type(self.data)(answers).get_columns())


class DatasetFrame(TableFrame):
    """A datasets.Dataset, in the order of its indices."""

    def names(self) -> list[str]:
        """The columns, in order."""
        return list(self.data.column_names)

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def table(self, wanted: Collection[str]) -> pa.Table:
        """The columns as Arrow, in the order of the indices."""
        chosen = self.data.select_columns([name for name in self.names() if name in wanted])
        return chosen.with_format("arrow")[:]

    def extended(self, names: Mapping[str, str], answers: pa.Table) -> Any:
        """A new Dataset."""
        found = self.data.rename_columns({name: other for name, other in names.items() if name != other})
        for name in answers.column_names:
            found = found.add_column(name, answers.column(name).combine_chunks())
        return found


class ListFrame(TableFrame):
    """A list of dicts, of which each may have keys of its own."""

    suffix = ".jsonl"

    def names(self) -> list[str]:
        """The keys of all dicts, in the order in which they first appear."""
        return list(dict.fromkeys(str(name) for row in self.data for name in row))

    def __len__(self) -> int:
        return len(self.data)

    def table(self, wanted: Collection[str]) -> pa.Table:
        """The columns as Arrow, null where a dict has no such key."""
        names = [name for name in self.names() if name in wanted]
        return pa.table({name: [row.get(name) for row in self.data] for name in names})

    def write(self, path: Path, wanted: Collection[str]) -> None:
        """Write some columns as JSON lines. Raises UsageError for values that JSON cannot hold."""
        options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        try:
            with open(path, "wb") as file:
                for row in self.data:
                    cells = {name: value for name, value in row.items() if str(name) in wanted}
                    file.write(orjson.dumps(cells, default=str, option=options))
        except TypeError as error:
            raise UsageError(f"the rows cannot be written as JSON: {error}") from None

    def extended(self, names: Mapping[str, str], answers: pa.Table) -> Any:
        """New dicts."""
        added = answers.to_pylist()
        pairs = zip(self.data, added, strict=True)
        return [{**{names[str(name)]: value for name, value in row.items()}, **answer} for row, answer in pairs]


_KINDS: Mapping[tuple[str, str], type[TableFrame]] = {
    ("pandas", "DataFrame"): PandasFrame,
    ("polars", "DataFrame"): PolarsFrame,
    ("pyarrow", "Table"): ArrowFrame,
    ("datasets", "Dataset"): DatasetFrame,
}


def frame_of(data: Any) -> TableFrame:
    """The table that `data` is. Raises UsageError for something else, and for two columns of one name."""
    found = _frame(data)
    names = found.names()
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"the table has several columns named {shown(twice)}: rename all but one")
    return found


def _frame(data: Any) -> TableFrame:
    for one in type(data).__mro__:
        if kind := _KINDS.get((one.__module__.partition(".")[0], one.__name__)):
            return kind(data)
    if isinstance(data, list | tuple) and all(isinstance(row, Mapping) for row in data):
        return ListFrame(data)
    if hasattr(data, "__arrow_c_stream__"):
        return ArrowFrame(pa.table(data))
    raise UsageError(
        f"a {type(data).__name__} is no table that is known here: give a DataFrame of pandas or polars, an Arrow "
        "table, a datasets.Dataset or a list of dicts; umbel.run takes files"
    )
