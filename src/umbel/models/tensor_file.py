"""Reads tensors from one open file, and notices when it is changed meanwhile.

A mapped file is no way to do it: cutting one off kills the process that reads it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from umbel.errors import ModelError
from umbel.models.safetensors_header import TensorEntry

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I8": torch.int8, "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
READ_BYTES = 2**30  # of one call
BLOCK_BYTES = 4 * 2**20


class TensorFile:
    """One file of a checkpoint, opened once: what replaces it under its name later is not read."""

    def __init__(self, path: Path):
        """Raises ModelError when the file cannot be opened."""
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror or error}") from None
        weakref.finalize(self, os.close, self._file)
        self._scratch = threading.local()
        self._opened = self._state()

    def blocks(self, entry: TensorEntry) -> Iterator[Tensor]:
        """The values of a tensor as stored, in order, in pieces that hold until the next one is asked for. Raises
        ModelError when the file was changed since it was opened."""
        size = entry.end - entry.begin
        scratch: Tensor = self._scratch.__dict__.setdefault("block", torch.empty(BLOCK_BYTES, dtype=torch.uint8))
        for at in range(0, size, BLOCK_BYTES):
            block = scratch[: min(BLOCK_BYTES, size - at)]
            self._fill(block, entry.file_offset + at)
            yield block.view(DTYPES[entry.dtype])
        self._check()

    def read_into(self, entry: TensorEntry, whole: Tensor) -> None:
        """Fill a tensor of the stored type and shape, in the memory of the CPU. Raises as `blocks` does."""
        self._fill(whole.view(-1).view(torch.uint8), entry.file_offset)
        self._check()

    def read_bytes(self, offset: int, raw: Tensor) -> None:
        """Fill a tensor of bytes with those of the file from an offset on. Raises as `blocks` does."""
        self._fill(raw, offset)
        self._check()

    def _fill(self, raw: Tensor, offset: int) -> None:
        view, got = memoryview(raw.numpy()), 0
        while got < len(view):
            size = os.preadv(self._file, [view[got : got + READ_BYTES]], offset + got)
            if size == 0:
                raise self._changed()
            got += size

    def _check(self) -> None:
        if self._state() != self._opened:
            raise self._changed()

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._file)
        return found.st_size, found.st_mtime_ns

    def _changed(self) -> ModelError:
        return ModelError(f"{self.path} changed while it was read: start again when nothing writes to it")
