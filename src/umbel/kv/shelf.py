"""A folder of KV by the tokens that it belongs to: a file for each block of 128 tokens, named after all tokens up to
its end. What one job computed the next one reads.

A file is written beside its place and renamed, so that it is there whole or not at all; it holds its tokens, which are
compared, and a digest of its bytes, which is checked. Several jobs may use one folder. When the folder is full, blocks
that were wanted least often make room, those of earlier jobs before those of this one.
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from queue import Full, Queue
from threading import Thread

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from umbel.ir.kv_blocks import StoredKV

SUFFIX = ".kv"
READS = "reads.json"  # how many blocks the last job read there, and in how many seconds
WAITING = 8  # blocks that may wait to be written; where the disk is slower than the job, others are left out
LEAST_READS = 4  # blocks that are read before their seconds count
_STALE = 3600.0  # seconds after which what a killed job was writing is swept away
_LEVEL = 5  # frames from a warning to the code that runs the engine

TokenIds = NDArray[np.int32]


@dataclass(slots=True)
class _Entry:
    """A block in the folder: its bytes, how often it was wanted, when last; `fresh`: this job wrote it."""

    bytes: int
    wanted: int
    moment: float
    fresh: bool


class Shelf:
    """Blocks in `folder`, which is made, of at most `most_bytes` in all. Raises OSError where it cannot be made.

    `reads` counts blocks that were read, `read_seconds` how long that took, `read_tokens` what was wanted of them.
    """

    def __init__(self, folder: Path, most_bytes: int):
        self.folder, self.most_bytes = folder, most_bytes
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        self._entries = dict(_found_in(folder))
        self._bytes = sum(entry.bytes for entry in self._entries.values())
        self._queue: Queue[str | None] = Queue(WAITING)
        self._unwritten: dict[str, tuple[TokenIds, Mapping[str, Tensor]]] = {}
        self._writer: Thread | None = None
        self._off = False
        self.reads, self.read_seconds, self.read_tokens = 0, 0.0, 0
        self._earlier = read_seconds(folder)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def stored(self) -> StoredKV:
        """What is there now, and how long a block takes to read by this job, or else by an earlier one."""
        seconds = self.read_seconds / self.reads if self.reads >= LEAST_READS else self._earlier
        return StoredKV(frozenset(self._entries), seconds)

    def want(self, name: str) -> None:
        """A block that is there has one more reader."""
        self._entries[name].wanted += 1

    def read(self, name: str, tokens: TokenIds) -> Mapping[str, Tensor] | None:
        """The tensors of a block; None where it is gone, damaged or of other tokens, and then it is forgotten."""
        began = time.perf_counter()
        if (waiting := self._unwritten.get(name)) is not None and np.array_equal(waiting[0], tokens):
            return waiting[1]
        try:
            found = _read(self.folder / f"{name}{SUFFIX}", tokens)
            os.utime(self.folder / f"{name}{SUFFIX}")  # as the next job goes by when a block was wanted last
        except FileNotFoundError:
            found = None  # another job made room
        except (OSError, SafetensorError, ValueError) as error:
            self._warn(f"{name}{SUFFIX}: left out, as it cannot be used ({error})")
            found = None
        if found is None:
            self._drop(name)
            return None
        self._entries[name].moment = time.time()
        self.reads += 1
        self.read_seconds += time.perf_counter() - began
        return found

    def takes(self, name: str) -> bool:
        """Whether a block would be kept, as far as the disk keeps up."""
        return not (self._off or name in self._entries or self._queue.full())

    def write(self, name: str, tokens: TokenIds, block: Mapping[str, Tensor]) -> None:
        """Keep a block, which is written by the way; not where the disk does not keep up, or has no room for it."""
        size = sum(tensor.nbytes for tensor in block.values())
        if not self.takes(name) or not self._make_room(size):
            return
        if self._writer is None:
            self._writer = Thread(target=self._write_all, name="umbel-kv-dir", daemon=True)
            self._writer.start()
        self._unwritten[name] = tokens.copy(), block
        try:
            self._queue.put_nowait(name)
        except Full:
            del self._unwritten[name]
            return
        self._entries[name] = _Entry(size, 1, time.time(), fresh=True)
        self._bytes += size

    def close(self) -> None:
        """Wait until all is written."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
            self._writer = None

    def note_reads(self) -> None:
        """Leave word of how quick reading was, for plans."""
        if self.reads >= LEAST_READS:
            with suppress(OSError):  # it is only a price
                _note_reads(self.folder, self.reads, self.read_seconds)

    def _make_room(self, size: int) -> bool:
        while self._bytes + size > self.most_bytes and self._entries:
            name = min(self._entries, key=lambda one: self._rank(self._entries[one]))
            entry = self._entries[name]
            if entry.fresh and entry.wanted <= 1:
                return False  # what comes is wanted no more often than what it would push out
            (self.folder / f"{name}{SUFFIX}").unlink(missing_ok=True)
            self._drop(name)
        return self._bytes + size <= self.most_bytes

    @staticmethod
    def _rank(entry: _Entry) -> tuple[bool, int, float]:
        return entry.fresh, entry.wanted, entry.moment

    def _drop(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        self._bytes -= 0 if entry is None else entry.bytes

    def _write_all(self) -> None:
        while (name := self._queue.get()) is not None:
            try:
                if not self._off:
                    _write(self.folder, name, *self._unwritten[name])
            except (OSError, SafetensorError) as error:
                self._off = True
                self._warn(f"nothing more is kept there ({error})")
            self._unwritten.pop(name)

    def _warn(self, what: str) -> None:
        warnings.warn(f"kv_dir {self.folder}: {what}", stacklevel=_LEVEL)


def stored_in(folder: Path) -> StoredKV:
    """What is in a folder, which is not made where there is none."""
    return StoredKV(frozenset(path.stem for path in folder.glob(f"*{SUFFIX}")), read_seconds(folder))


def read_seconds(folder: Path) -> float | None:
    """Seconds in which the last job read a block there; None where none noted it."""
    try:
        found = json.loads((folder / READS).read_text(encoding="utf-8"))
        seconds = float(found["seconds"]) / int(found["blocks"])
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError):
        return None
    return seconds if 0 < seconds < math.inf else None


def _note_reads(folder: Path, blocks: int, seconds: float) -> None:
    beside = folder / f".{READS}.{os.getpid()}"
    beside.write_text(json.dumps({"blocks": blocks, "seconds": seconds}), encoding="utf-8")
    beside.replace(folder / READS)


def _sweep(folder: Path) -> None:
    """Remove what jobs that were killed had begun to write."""
    for path in folder.glob(".*"):
        with suppress(OSError):  # another job swept it, or finished it
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink()


def _found_in(folder: Path) -> dict[str, _Entry]:
    found = {}
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            stat = path.stat()
        except OSError:  # another job made room
            continue
        found[path.stem] = _Entry(stat.st_size, 0, stat.st_mtime, fresh=False)
    return found


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _write(folder: Path, name: str, tokens: TokenIds, block: Mapping[str, Tensor]) -> None:
    tensors = {**{key: tensor.contiguous() for key, tensor in block.items()}, "tokens": torch.from_numpy(tokens)}
    beside = folder / f".{name}.{os.getpid()}"
    try:
        save_file(tensors, beside, {"digest": _digest(tensors)})
        beside.replace(folder / f"{name}{SUFFIX}")
    finally:
        beside.unlink(missing_ok=True)


def _read(path: Path, tokens: TokenIds) -> dict[str, Tensor]:
    """Raises ValueError where the file is damaged, or holds other tokens."""
    with safe_open(path, "pt") as file:
        said = (file.metadata() or {}).get("digest")
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    if said != _digest(found):
        raise ValueError("its bytes are not those that were written")
    if not np.array_equal(found.pop("tokens").numpy(), tokens):
        raise ValueError("it is of other tokens")
    return found
