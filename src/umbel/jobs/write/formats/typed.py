"""Parquet and Arrow: columns with types, those of the input as they were there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from umbel.jobs.read.formats.returned import restored
from umbel.jobs.write.formats.shape import TableShape, answer_types, record_of, writable

GROUP_ROWS = 65_536
GROUP_BYTES = 64 * 2**20


@contextmanager
def typed_writer(
    stream: IO[bytes], kind: str, shape: TableShape, kinds: Mapping[str, pa.DataType]
) -> Iterator[Callable[[list[bytes]], None]]:
    """Writes lines as rows of a table. `kinds` are the types of columns that had one in the input.

    Rows are gathered into groups of 65,536, or 64 MiB.
    """
    kept = {name: kinds.get(name) or writable(kind) for name, kind in shape.kept.items()}
    answers = answer_types(shape)
    schema = pa.schema([(name, kept.get(name) or answers[name]) for name in shape.names(all_answers=True)])
    waiting: list[pa.RecordBatch] = []
    with _open(stream, kind, schema) as writer:

        def flush() -> None:
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting, schema).combine_chunks())
                waiting.clear()

        def put(block: list[bytes]) -> None:
            records = [record_of(line, openai=shape.openai) for line in block]
            waiting.append(_batch(records, schema, kept))
            if sum(len(b) for b in waiting) >= GROUP_ROWS or sum(b.nbytes for b in waiting) >= GROUP_BYTES:
                flush()

        yield put
        flush()


def _batch(records: list[dict[str, Any]], schema: pa.Schema, kept: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    columns = []
    for one in schema:
        values = [record.get(one.name) for record in records]
        columns.append(restored(values, one.type) if one.name in kept else pa.array(values, one.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _open(stream: IO[bytes], kind: str, schema: pa.Schema) -> AbstractContextManager[Any]:
    if kind == "parquet":
        return pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd")
    return pyarrow.ipc.new_file(stream, schema, options=pyarrow.ipc.IpcWriteOptions(compression="zstd"))
