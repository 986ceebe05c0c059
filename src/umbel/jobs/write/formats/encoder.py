"""From lines to the bytes of a file, in the format of its name."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from umbel.jobs.write.formats.named import Format

Put = Callable[[list[bytes]], object]
Lines = Callable[[], Iterable[bytes]]
"""Gives the lines of an output, each time that it is called."""


@contextmanager
def encoder(stream: IO[bytes], form: Format, lines: Lines, kinds: Mapping[str, Any]) -> Iterator[Put]:
    """What takes blocks of lines and writes them to a stream. Tables look over all `lines` first, for their columns;
    `kinds` are the Arrow types of columns that had one in the input."""
    if form.kind == "lines":
        with _packed(stream, form.packing) as packed:
            yield lambda block: packed.write(b"\n".join(block) + b"\n")
        return
    from umbel.jobs.write.formats.shape import TableShape

    shape = TableShape.of(lines())
    if form.is_typed:
        from umbel.jobs.write.formats.typed import typed_writer

        with typed_writer(stream, form.kind, shape, kinds) as put:
            yield put
        return
    from umbel.jobs.write.formats.delimited import delimited_writer

    with _packed(stream, form.packing) as packed:
        yield delimited_writer(packed, form.kind, shape)


class _KeptOpen(io.RawIOBase):
    """A stream that stays open when what writes to it is closed."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream

    def writable(self) -> bool:
        """True: the stream is for writing."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes; returns how many."""
        return self._stream.write(data)


@contextmanager
def _packed(stream: IO[bytes], packing: str) -> Iterator[IO[bytes]]:
    """A stream that packs what is written to it, always into the same bytes."""
    if packing == "gzip":
        with gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0, compresslevel=6) as packed:
            yield packed  # type: ignore[misc]  (it has all that is used)
    elif packing == "zstd":
        import pyarrow

        with (
            pyarrow.PythonFile(_KeptOpen(stream), "w") as target,
            pyarrow.CompressedOutputStream(target, "zstd") as packed,
        ):
            yield packed
    else:
        yield stream
