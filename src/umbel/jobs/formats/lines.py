"""Bytes to physical lines: plain or gzip, bounded in length, numbered as an editor would."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from umbel.errors import InputError, UsageError
from umbel.ir.limits import MAX_LINE_BYTES

BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"
_NEWLINE = 0x0A


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """An input open for reading, unpacked when it is gzip (by content, not by name). Raises UsageError, InputError."""
    try:
        raw = open(path, "rb")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UsageError(f"input {path}: {error.strerror or error}") from error
    with raw:
        if raw.peek(2)[:2] == _GZIP_MAGIC:
            with io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb"), 1 << 18) as unpacked:
                yield unpacked
        elif path.suffix == ".gz" and raw.peek(1):
            raise InputError(f"input {path}: named .gz but not a gzip file")
        else:
            yield raw


def is_packed(stream: BinaryIO) -> bool:
    """Whether an open input is being unpacked while it is read."""
    return isinstance(getattr(stream, "raw", None), gzip.GzipFile)


def read_lines(path: Path, cap: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes | None]]:
    """Physical lines with their numbers from 1, line ends included; None stands for a line of more than `cap` bytes.

    Only "\\n" ends a line. At most about twice `cap` bytes are held at a time, however long a line is. A byte order
    mark at the start is dropped. Raises InputError when the file is a damaged gzip or cannot be read on.
    """
    with open_bytes(path) as stream:
        try:
            for number, line in enumerate(_bounded(stream, cap), 1):
                yield number, line.removeprefix(BOM) if number == 1 and line else line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"input {path}: damaged or cut gzip file ({error})") from error
        except OSError as error:
            raise InputError(f"input {path}: reading failed: {error.strerror or error}") from error


def _bounded(stream: BinaryIO, cap: int) -> Iterator[bytes | None]:
    readline = stream.readline
    while line := readline(cap + 1):
        if len(line) > cap and line[-1] != _NEWLINE:
            del line
            _skip_line(stream)
            yield None
        else:
            yield line


def _skip_line(stream: BinaryIO) -> None:
    while (part := stream.readline(1 << 18)) and part[-1] != _NEWLINE:
        pass
