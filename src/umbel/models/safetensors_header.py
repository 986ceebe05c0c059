"""Checks the header of a safetensors file before any library or allocation trusts it.

Layout: 8 bytes little-endian header length, a JSON header padded with spaces, then the data. Every tensor names its
dtype, its shape and its byte range in the data; the ranges must tile the data without hole or overlap.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.errors import ModelError
from umbel.models.config_file import check_depth, is_int, shorten

MAX_HEADER_BYTES = 2**25  # 384 experts in each of 61 layers take a third of it; the format allows 100 MB
MAX_DIMENSIONS = 32
BYTES_PER_ELEMENT = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: its bytes are `begin .. end` of the data, which begin at `data_begin` of the file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    data_begin: int

    @property
    def file_offset(self) -> int:
        """Where its bytes begin in the file."""
        return self.data_begin + self.begin


def read_header(path: Path, max_bytes: int = MAX_HEADER_BYTES) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file by name, whose header is read up to `max_bytes`; raises ModelError, naming the
    file, when anything does not add up."""
    try:
        header, begin, file_bytes = _load(path, max_bytes)
        entries = [_entry(path, name, fields, begin) for name, fields in header.items() if name != "__metadata__"]
        _check_metadata(header.get("__metadata__"))
        _check_tiling(entries, file_bytes - begin)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}. The file is damaged or was not fully downloaded: fetch it again") from None
    return {entry.name: entry for entry in entries}


def _load(path: Path, max_bytes: int) -> tuple[dict[str, Any], int, int]:
    """The parsed header, where the data behind it begin, and the size of the file."""
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        if file_bytes < 8:
            raise ModelError(f"{file_bytes} bytes are too few for a safetensors file")
        n_bytes = int.from_bytes(file.read(8), "little")
        if n_bytes > min(max_bytes, file_bytes - 8):
            raise ModelError(
                f"header of {n_bytes:,} bytes; the file has {file_bytes:,}, the limit of this model is {max_bytes:,}"
            )
        raw = file.read(n_bytes)
    if not raw.startswith(b"{"):
        raise ModelError(f"header must start with '{{', found {raw[:8]!r}")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        # json.loads stops at anything but white space after the object, so padding with NUL bytes ends here too.
        raise ModelError(f"header is not JSON in UTF-8, padded with spaces ({error})") from None
    check_depth(header)
    return header, 8 + n_bytes, file_bytes


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ModelError("header has a name twice")
    return found


def _entry(path: Path, name: str, fields: Any, data_begin: int) -> TensorEntry:
    """One tensor's fields, checked one by one and against each other."""
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ModelError(f"tensor {shorten(name)} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES_PER_ELEMENT:
        raise ModelError(f"tensor {shorten(name)} has unknown dtype {shorten(dtype)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise ModelError(f"tensor {shorten(name)} has shape {shorten(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelError(f"tensor {shorten(name)} has data_offsets {shorten(offsets)}")
    n_bytes = math.prod(shape) * BYTES_PER_ELEMENT[dtype]
    if n_bytes != offsets[1] - offsets[0]:
        raise ModelError(f"tensor {shorten(name)}: {dtype} {shorten(shape)} does not fill bytes {shorten(offsets)}")
    return TensorEntry(path, name, dtype, tuple(shape), *offsets, data_begin)


def _are_sizes(value: Any) -> bool:
    """Whether a JSON value is a list of numbers that 64 bits can hold (their product may be larger)."""
    return isinstance(value, list) and all(is_int(v) and 0 <= v < 2**63 for v in value)


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelError("__metadata__ must map names to strings")


def _check_tiling(entries: list[TensorEntry], data_bytes: int) -> None:
    """Raise ModelError unless the byte ranges follow each other from 0 to the end of the data."""
    at = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != at:
            what = "overlaps the tensor before it" if entry.begin < at else f"leaves bytes {at} to {entry.begin} unused"
            raise ModelError(f"tensor {shorten(entry.name)} {what}")
        at = entry.end
    if at != data_bytes:
        raise ModelError(f"tensors take {at:,} bytes of data, the file has {data_bytes:,}")
