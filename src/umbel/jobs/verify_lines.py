"""Lines of files as `umbel verify` reads them: plain or packed, bounded in length."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAX_LINE_BYTES = 16 * 2**20
_BLOCK_BYTES = 2**16


def lines_of(path: Path, cap: int | None = MAX_LINE_BYTES, *, blank: bool = True) -> Iterator[bytes | None]:
    """Lines with their ends; None for one of more than `cap` bytes, and as the last where a gzip file is damaged.

    `blank` False leaves out blank lines, many at a time.
    """
    rest, skipping = b"", False
    for block in blocks_of(path):
        if block is None:  # and with it goes the line that it cuts
            yield None
            return
        if not blank and not rest and not skipping and not block.strip():
            rest = b"" if block.endswith(b"\n") else block[-1:]
            continue
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if blank or skipping or line.strip():
                yield None if skipping or (cap is not None and len(line) > cap) else line + b"\n"
            skipping = False
        if cap is not None and len(rest) > cap:
            rest, skipping = b"", True
    if rest or skipping:
        yield None if skipping else rest


def blocks_of(path: Path) -> Iterator[bytes | None]:
    """The bytes of a file, unpacked if it is gzip or Zstandard; None as the last where that is damaged."""
    with open(path, "rb") as stream:
        head = stream.read(4)
        stream.seek(0)
        if head[:2] == b"\x1f\x8b":
            yield from _unpacked(stream)
            return
        if head == b"\x28\xb5\x2f\xfd":
            yield from _from_zstd(stream)
            return
        while block := stream.read(_BLOCK_BYTES):
            yield block


def _from_zstd(stream: BinaryIO) -> Iterator[bytes | None]:
    import pyarrow

    try:
        with pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, "r"), "zstd") as unpacked:
            while block := unpacked.read(_BLOCK_BYTES):
                yield block
    except OSError:
        yield None


def _unpacked(stream: BinaryIO) -> Iterator[bytes | None]:
    member: Any = zlib.decompressobj(wbits=31)
    complete = False
    while data := stream.read(_BLOCK_BYTES):
        while data:
            if complete and not (data := data.lstrip(b"\0")):
                break
            if complete:
                member, complete = zlib.decompressobj(wbits=31), False
            saved = member.copy()
            try:
                yield member.decompress(data, 2**20)
            except zlib.error:
                yield from _until_error(saved, data)
                yield None
                return
            complete = member.eof
            data = member.unused_data if complete else member.unconsumed_tail
    if not complete:
        yield None


def _until_error(member: Any, data: bytes) -> Iterator[bytes]:
    for byte in data:
        try:
            yield member.decompress(bytes([byte]))
        except zlib.error:
            return


def without_mark(lines: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """Lines without the byte order mark of the first."""
    for number, line in enumerate(lines):
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 0 and line is not None else line
