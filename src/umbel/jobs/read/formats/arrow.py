"""Arrow tables: files of record batches (also Feather's) and streams of them, one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from umbel.errors import InputError, UsageError
from umbel.jobs.read.formats.parquet import BATCH_ROWS, TableColumns, kinds_back, table_rows
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.records import InputRow

if TYPE_CHECKING:
    import pyarrow

_MAGIC = b"ARROW1"  # of a file; a stream has none


def read_arrow(path: Path, parser: RowParser) -> Iterator[InputRow]:
    """One `InputRow` per table row. Raises InputError, UsageError."""
    with _opened(path) as (schema, batches):
        wanted = TableColumns.of(path, schema.names, parser)
        parts = (batch.select(wanted.names).slice(at, BATCH_ROWS) for batch in batches for at in _begins(batch))
        yield from table_rows(parts, wanted, parser)


def arrow_kinds(path: Path, parser: RowParser) -> dict[str, pyarrow.DataType]:
    """The types of the columns that come back, by their names there. Raises InputError."""
    with _opened(path) as (schema, _):
        return kinds_back(schema, parser)


def arrow_room(path: Path, n_bytes: int) -> int:
    """How much of so many bytes a table leaves in memory; below 0 when it has more. Raises InputError when it cannot
    be read."""
    with _opened(path) as (_, batches):
        for batch in batches:
            n_bytes -= batch.nbytes
            if n_bytes < 0:
                break
    return n_bytes


def _begins(batch: pyarrow.RecordBatch) -> range:
    return range(0, batch.num_rows, BATCH_ROWS)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]]:
    import pyarrow
    import pyarrow.ipc

    try:
        with pyarrow.memory_map(str(path)) as stream:
            if stream.read(len(_MAGIC)) == _MAGIC:
                file = pyarrow.ipc.open_file(stream)
                yield file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
            else:
                stream.seek(0)
                reader = pyarrow.ipc.open_stream(stream)
                yield reader.schema, iter(reader)
    except FileNotFoundError as error:
        raise UsageError(f"input {path}: {error.strerror or error}") from error
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"input {path}: not a readable Arrow file ({error})") from error
