"""Packed files to bytes, in bounded memory, and up to where a file is damaged: gzip to the exact byte, Zstandard to a
block."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO

_CHUNK_BYTES = 16 * 2**10
_OUT_BYTES = 256 * 2**10
_GZIP = 31  # zlib's number for a window of 32 KiB with gzip's header and checksum


class Unpacked(io.RawIOBase):
    """The contents of a packed file. At damage it ends, and `damage` says what is wrong."""

    packing: str
    damage: str | None

    def readable(self) -> bool:
        """True: the stream is for reading."""
        return True


class Gunzipped(Unpacked):
    """The contents of a gzip file of one or more members.

    The gzip module raises there, and loses what it had unpacked of the same piece; here every byte before the damage is
    returned, so that rows before it are the same however the file is read.
    """

    packing = "gzip"

    def __init__(self, packed: BinaryIO):
        self.damage = None
        self._packed = packed
        self._member: Any = zlib.decompressobj(_GZIP)
        self._begun = False
        self._left = b""  # packed bytes that were read and not yet unpacked
        self._out = memoryview(b"")

    def readinto(self, buffer: Any) -> int:
        """The next bytes; 0 at the end and at damage."""
        while not self._out and self.damage is None and self._more():
            pass
        n = min(len(buffer), len(self._out))
        buffer[:n] = self._out[:n]
        self._out = self._out[n:]
        return n

    def _more(self) -> bool:
        """Unpack a little more; False at the end of the file."""
        if self._member.eof:
            self._begin_member()
        if not self._left:
            self._left = self._packed.read(_CHUNK_BYTES)
            if not self._left:
                self.damage = "it ends before its end" if self._begun else None
                return False
        before = self._member.copy()
        try:
            self._out = memoryview(self._member.decompress(self._left, _OUT_BYTES))
        except zlib.error as error:
            self._out = memoryview(_before_damage(before, self._left))
            self.damage = str(error)
        else:
            self._begun = True
            self._left = self._member.unconsumed_tail or self._member.unused_data
        return True

    def _begin_member(self) -> None:
        """Begin what follows a member: another one, or zero bytes that fill up the file."""
        self._left = self._left.lstrip(b"\0")
        while not self._left and (data := self._packed.read(_CHUNK_BYTES)):
            self._left = data.lstrip(b"\0")
        self._member, self._begun = zlib.decompressobj(_GZIP), False


def _before_damage(member: Any, packed: bytes) -> bytes:
    """The bytes that a damaged piece gives before the damage, found byte by byte."""
    found = []
    try:
        for i in range(len(packed)):
            found.append(member.decompress(packed[i : i + 1]))
    except zlib.error:
        pass
    return b"".join(found)


class Unzstd(Unpacked):
    """The contents of a Zstandard file of one or more frames, by Arrow's reader."""

    packing = "Zstandard"

    def __init__(self, packed: BinaryIO):
        import pyarrow

        self.damage = None
        self._stream = pyarrow.CompressedInputStream(packed, "zstd")

    def readinto(self, buffer: Any) -> int:
        """The next bytes; 0 at the end and at damage."""
        if self.damage is not None:
            return 0
        try:
            data = self._stream.read(min(len(buffer), _OUT_BYTES))
        except OSError as error:
            self.damage, data = str(error), b""
        buffer[: len(data)] = data
        return len(data)


@dataclass(frozen=True, slots=True)
class Packing:
    """A way to pack a file: how such a file begins, and how it is unpacked."""

    magic: bytes
    unpack: type[Gunzipped] | type[Unzstd]


PACKED: Mapping[str, Packing] = MappingProxyType(
    {
        ".gz": Packing(b"\x1f\x8b", Gunzipped),
        ".zst": Packing(b"\x28\xb5\x2f\xfd", Unzstd),
    }
)
"""The packings that are read, by the end of a file's name."""
