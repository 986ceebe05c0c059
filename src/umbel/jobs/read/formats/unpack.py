"""Gzip to bytes, in bounded memory, and up to the exact byte at which a file is damaged."""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO

MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 16 * 2**10
_OUT_BYTES = 256 * 2**10
_GZIP = 31  # zlib's number for a window of 32 KiB with gzip's header and checksum


class Unpacked(io.RawIOBase):
    """The contents of a gzip file of one or more members. At damage it ends, and `damage` says what is wrong.

    The gzip module raises there, and loses what it had unpacked of the same piece; here every byte before the damage is
    returned, so that rows before it are the same however the file is read.
    """

    def __init__(self, packed: BinaryIO):
        self.damage: str | None = None
        self._packed = packed
        self._member: Any = zlib.decompressobj(_GZIP)
        self._begun = False
        self._left = b""  # packed bytes that were read and not yet unpacked
        self._out = memoryview(b"")

    def readable(self) -> bool:
        """True: the stream is for reading."""
        return True

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
