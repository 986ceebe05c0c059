"""Reads the header of a GGUF file, which comes from strangers: its metadata, and which tensors lie where.

Layout (version 2 and 3, little-endian): the magic, counts, typed keys and values, one record per tensor, then the data,
each tensor at a multiple of `general.alignment`. Every length is checked before it is believed, so that a damaged file
ends in an error and not in memory. The `gguf` package knows the types; its own reader takes a hundred times as long.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umbel.errors import ModelError
from umbel.models.config_file import shorten

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_HEADER_BYTES = 2**26  # the largest vocabularies take a tenth
MAX_KEYS, MAX_TENSORS, MAX_ITEMS, MAX_NAME_BYTES = 2**16, 2**17, 2**21, 2**16
MAX_DIMENSIONS = 4
SCALARS: Mapping[int, str] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
BLOCK_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor of a file: its type ("Q4_K"), its shape (outputs first), and where its bytes lie."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What stands in front of a file's data: values by key, tensors by name."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def read_gguf(path: Path) -> GgufHeader:
    """The header of a GGUF file; raises ModelError, naming the file, when anything does not add up."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise ModelError("not a regular file")
        return _header(path, _Cursor(file, found.st_size))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    finally:
        os.close(file)


def _header(path: Path, cursor: _Cursor) -> GgufHeader:
    if (magic := cursor.take(4)) != MAGIC:
        raise ModelError(f"begins with {bytes(magic)!r}, not with {MAGIC!r}: it is no GGUF file")
    version = cursor.number("I")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "big"), "little") in VERSIONS
        why = "its bytes are in the order of big-endian machines" if swapped else "convert the model again"
        raise ModelError(f"version {version} of GGUF; 2 and 3 can be read: {why}")
    n_tensors, n_keys = cursor.number("Q"), cursor.number("Q")
    if n_tensors > MAX_TENSORS or n_keys > MAX_KEYS:
        raise ModelError(f"claims {n_tensors:,} tensors and {n_keys:,} keys: damaged, or not fully downloaded")
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = cursor.text(MAX_NAME_BYTES)
        if key in metadata:
            raise ModelError(f"has the key {shorten(key)} twice")
        metadata[key] = cursor.value(key)
    records = [_record(cursor) for _ in range(n_tensors)]
    return GgufHeader(path, metadata, _placed(records, _alignment(metadata), cursor))


def _alignment(metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 2**16 or alignment & (alignment - 1):
        raise ModelError(f"general.alignment={shorten(alignment)}: must be a power of two up to 65,536")
    return alignment


def _record(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and offset of a tensor, as stored."""
    name, n_dims = cursor.text(MAX_NAME_BYTES), cursor.number("I")
    if not 1 <= n_dims <= MAX_DIMENSIONS:
        raise ModelError(f"tensor {shorten(name)} has {n_dims} dimensions: at most {MAX_DIMENSIONS} are accepted")
    shape = tuple(cursor.number("Q") for _ in range(n_dims))[::-1]  # stored with the innermost first
    return name, shape, cursor.number("I"), cursor.number("Q")


def _placed(
    records: list[tuple[str, tuple[int, ...], int, int]], alignment: int, cursor: _Cursor
) -> dict[str, GgufTensor]:
    """The tensors by name; their bytes lie in the file, behind the header, and apart from each other."""
    begin, found, at = -(-cursor.at // alignment) * alignment, dict[str, GgufTensor](), 0
    for name, shape, kind, offset in sorted(records, key=lambda record: record[3]):
        label, n_bytes = _size(name, kind, shape)
        if name in found:
            raise ModelError(f"has the tensor {shorten(name)} twice")
        if offset % alignment or offset < at:
            what = "overlaps the one before it" if offset < at else f"is not at a multiple of {alignment}"
            raise ModelError(f"tensor {shorten(name)} {what}")
        at = offset + n_bytes
        if begin + at > cursor.file_bytes:
            raise ModelError(
                f"tensor {shorten(name)} ends at byte {begin + at:,}, the file has {cursor.file_bytes:,}: "
                "it was not fully downloaded, fetch it again"
            )
        found[name] = GgufTensor(name, label, shape, begin + offset, n_bytes)
    return found


def _size(name: str, kind: int, shape: tuple[int, ...]) -> tuple[str, int]:
    """The name of a tensor's type, and its bytes."""
    gguf = gguf_package()
    try:
        known = gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise ModelError(f"tensor {shorten(name)} has the unknown type {kind}") from None
    block, block_bytes = gguf.GGML_QUANT_SIZES[known]
    if shape[-1] % block or math.prod(shape) >= 2**48:
        raise ModelError(f"tensor {shorten(name)}: {known.name} cannot have the shape {shorten(list(shape))}")
    return known.name, math.prod(shape) // block * block_bytes


def gguf_package() -> Any:
    """The package that knows GGUF's types. Raises ModelError where it is not installed."""
    try:
        import gguf  # here, as models in other files need none of it
    except ImportError as error:
        raise ModelError(f"a GGUF file needs the package gguf ({error}): pip install 'umbel[gguf]'") from None
    return gguf


class _Cursor:
    """A place in the header, which is read from the file in pieces as it is needed."""

    def __init__(self, file: int, file_bytes: int):
        self.file_bytes, self.at = file_bytes, 0
        self._file, self._read = file, bytearray()

    def take(self, size: int) -> bytearray:
        """The next bytes. Raises ModelError where the header or the file has no more."""
        begin, end = self.at, self.at + size
        if end > len(self._read):
            self._grow(end)
        self.at = end
        return self._read[begin:end]

    def number(self, form: str) -> Any:
        """The next number of a type (`struct`)."""
        return struct.unpack("<" + form, self.take(struct.calcsize(form)))[0]

    def text(self, most: int) -> str:
        """The next string, of at most so many bytes."""
        size = self.number("Q")
        if size > most:
            raise ModelError(f"a string of {size:,} bytes; at most {most:,} are read: the file is damaged")
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(f"a string is not UTF-8 ({error}): the file is damaged") from None

    def value(self, key: str) -> Any:
        """The value of a key."""
        kind = self.number("I")
        if kind != ARRAY:
            return self._scalar(key, kind)
        kind, count = self.number("I"), self.number("Q")
        if count > MAX_ITEMS:
            raise ModelError(f"{shorten(key)} has {count:,} items; at most {MAX_ITEMS:,} are read")
        if kind == STRING:
            return self._texts(count)
        form = self._form(key, kind)
        size = struct.calcsize(form)
        return np.frombuffer(self.take(count * size), np.dtype(form).newbyteorder("<")).tolist()

    def _texts(self, count: int) -> list[str]:
        """The next strings: there are hundreds of thousands of them, so this is `text` without a call for each."""
        found, read, at, size_at = [], self._read, self.at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            if at + 8 > len(read):
                self._grow(at + 8)
            end = at + 8 + size_at(read, at)[0]
            if end > len(read):
                self._grow(end)
            found.append(read[at + 8 : end])
            at = end
        self.at = at
        try:
            return [text.decode("utf-8") for text in found]
        except UnicodeDecodeError as error:
            raise ModelError(f"a string is not UTF-8 ({error}): the file is damaged") from None

    def _scalar(self, key: str, kind: int) -> Any:
        return self.text(MAX_HEADER_BYTES) if kind == STRING else self.number(self._form(key, kind))

    def _form(self, key: str, kind: int) -> str:
        if kind not in SCALARS:
            raise ModelError(f"{shorten(key)} has the unknown type {kind}")
        return SCALARS[kind]

    def _grow(self, end: int) -> None:
        if end > min(self.file_bytes, MAX_HEADER_BYTES):
            limit = f"the file has {self.file_bytes:,}, a header at most {MAX_HEADER_BYTES:,}"
            raise ModelError(f"its header goes on to byte {end:,}; {limit}: damaged, or not fully downloaded")
        while len(self._read) < end:
            block = os.pread(self._file, max(end - len(self._read), BLOCK_BYTES), len(self._read))
            if not block:
                raise ModelError("it became shorter while it was read")
            self._read += block
