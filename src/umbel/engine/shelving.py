"""The KV of prompts in a folder that outlives the job: which one belongs to an engine, and how its blocks get there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from umbel.config import EngineConfig
from umbel.engine.arithmetic import arithmetic_of
from umbel.errors import UsageError
from umbel.ir.kv_blocks import BLOCK, StoredKV
from umbel.ir.spec import ModelSpec
from umbel.kv.blocks import fits, put, take
from umbel.kv.shelf import LEAST_READS, Shelf, stored_in
from umbel.kv.store import KVStore
from umbel.models.digest import hash_model

Ints = NDArray[np.int64]
GIB = 2**30
FORMAT = 1


class StoredBlocks:
    """A shelf as the scheduler sees it, for one KV store. Blocks are read while that takes fewer `seconds` each than
    computing one does."""

    size = BLOCK

    def __init__(self, shelf: Shelf, store: KVStore, seconds: float):
        self._shelf, self._store, self._seconds = shelf, store, seconds

    def __contains__(self, name: str) -> bool:
        return name in self._shelf

    def want(self, name: str) -> None:
        """Implement `Blocks.want`."""
        self._shelf.want(name)

    def fetch(self, name: str, tokens: NDArray[np.int32], slots: Ints, first: int) -> bool:
        """Implement `Blocks.fetch`."""
        found = self._shelf.read(name, tokens) if self._pays() else None
        if found is None or not fits(self._store, found, len(tokens)):
            return False
        put(self._store, torch.from_numpy(slots), found, first)
        self._shelf.read_tokens += len(slots)
        return True

    def _pays(self) -> bool:
        """Whether reading was faster so far than computing, once there is something to go by."""
        reads = self._shelf.reads
        return reads < LEAST_READS or self._shelf.read_seconds < self._seconds * reads

    def keep(self, name: str, tokens: NDArray[np.int32], slots: Ints) -> None:
        """Implement `Blocks.keep`."""
        if self._shelf.takes(name):
            self._shelf.write(name, tokens, take(self._store, torch.from_numpy(slots)))


def open_shelf(config: EngineConfig, spec: ModelSpec, directory: Path) -> Shelf | None:
    """The shelf that `kv_dir` asks for; None where none is. Raises UsageError for what cannot be kept there, and for a
    folder that cannot be made or written."""
    folder = _folder_of(config, spec, directory)
    if folder is None:
        return None
    try:
        shelf = Shelf(folder, round(config.kv_dir_gib * GIB))
    except OSError as error:
        raise UsageError(
            f"kv_dir={config.kv_dir!r}: {error.strerror or error}; name a folder that can be made"
        ) from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"kv_dir={config.kv_dir!r}: {folder} cannot be written; name another folder")
    return shelf


def stored_kv(config: EngineConfig, spec: ModelSpec, directory: Path) -> StoredKV | None:
    """What an engine would find in the folder that `kv_dir` asks for, for a plan; None where none is. Raises UsageError
    for what cannot be kept there."""
    folder = _folder_of(config, spec, directory)
    return None if folder is None else stored_in(folder)


def _folder_of(config: EngineConfig, spec: ModelSpec, directory: Path) -> Path | None:
    if config.kv_dir is None:
        return None
    check_kv_dir(config, spec)
    return Path(config.kv_dir).expanduser() / f"{FORMAT}-{identity_of(config, spec, directory)}"


def identity_of(config: EngineConfig, spec: ModelSpec, directory: Path) -> str:
    """A digest of all that the bytes of KV depend on beside tokens: the model's files and the engine's arithmetic."""
    parts: Mapping[str, object] = {
        **config.identity,
        **arithmetic_of(config, spec),
        **({} if config.load_format == "dummy" else hash_model(directory)),
        "size": BLOCK,
    }
    kept = sorted((name, str(value)) for name, value in parts.items() if name != "seed" or _is_random(config))
    return blake2b(repr(kept).encode(), digest_size=8).hexdigest()


def _is_random(config: EngineConfig) -> bool:
    """Whether weights are drawn by the seed."""
    return config.load_format == "dummy"


def check_kv_dir(config: EngineConfig, spec: ModelSpec) -> None:
    """Raise UsageError for engines whose KV is not that of tokens alone, or not all here."""
    if not config.kv_dir_gib > 0:
        raise UsageError(f"kv_dir_gib={config.kv_dir_gib!r}: must be above 0")
    if config.tensor_parallel_size > 1:
        why, what = f"tensor_parallel_size={config.tensor_parallel_size}", "each rank has a part of the KV"
    elif config.technique:
        why, what = f"technique={config.technique[0]!r}", "what it keeps beside keys and values is not in a block"
    elif spec.recurrences:
        why, what = f"{spec.family!r} models", "their layers have states beside keys and values"
    else:
        return
    raise UsageError(f"kv_dir={config.kv_dir!r} with {why}: {what}; leave one of them out")
