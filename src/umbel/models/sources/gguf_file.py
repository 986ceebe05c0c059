"""A model in one GGUF file, read as the directory of transformers that it was made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from umbel.errors import ModelError
from umbel.ir.spec import ModelSpec
from umbel.models.config_file import MAX_CONFIG_BYTES, Config, naming
from umbel.models.sources.base import StoredTensors
from umbel.models.sources.gguf_config import FACTORS, architecture_of, config_of, format_notes, generation_of
from umbel.models.sources.gguf_header import GgufHeader, GgufTensor, read_gguf
from umbel.models.sources.gguf_tokenizer import has_tokenizer, tokenizer_config_of, tokenizer_of

MAX_FACTORS_BYTES = 2**12


@dataclass(slots=True)
class GgufFile:
    """A file whose header is read when something of it is asked for."""

    path: Path
    _header: GgufHeader | None = field(default=None, init=False)

    def place(self, name: str) -> Path:
        """The file itself, whatever part of it is meant."""
        return self.path

    def has(self, name: str) -> bool:
        """Whether the file says what a file of this name would."""
        of_text = name in ("tokenizer.json", "tokenizer_config.json")
        return name in MADE and (not of_text or has_tokenizer(self._metadata))

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """What a file of this name would hold, as JSON. Raises ModelError."""
        if name == "tokenizer.json" and not self.has(name):
            raise ModelError(f"{self.path}: it holds no tokenizer: give prompts as token ids")
        made = self.read_json(name)
        return None if made is None else json.dumps(made, ensure_ascii=False).encode("utf-8", "surrogatepass")

    def read_json(self, name: str, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any] | None:
        """What a file of this name would hold. Raises ModelError."""
        if not self.has(name):
            return None
        header = self._read_header()
        with naming(self.path):
            return MADE[name](header)

    def templates(self) -> Mapping[str, Path]:
        """None: they are in what tokenizer_config.json would be."""
        return {}

    def notes(self, config: Config) -> list[str]:
        """Which weights are decoded when they are loaded. Raises ModelError for those that are not read."""
        return format_notes(self._read_header())

    def has_other_head(self, spec: ModelSpec) -> bool:
        """False: a head is stored only where it is not the embedding."""
        return False

    def lacks_head(self, spec: ModelSpec) -> bool:
        """False: such a head is the embedding."""
        return False

    def tensors(self, spec: ModelSpec) -> StoredTensors:
        """Its tensors. Raises ModelError."""
        from umbel.models.sources.gguf_tensors import GgufTensors  # here, as it needs torch

        header = self._read_header()
        with naming(self.path):
            _, row = architecture_of(header)
        return GgufTensors(header, row, {"attn_q": spec.n_heads, "attn_k": spec.n_kv_heads})

    @property
    def _metadata(self) -> Mapping[str, Any]:
        return self._read_header().metadata

    def _read_header(self) -> GgufHeader:
        if self._header is None:
            self._header = _header_at(self.path, _stamp(self.path))
        return self._header


@lru_cache(maxsize=1)
def _header_at(path: Path, stamp: tuple[int, ...]) -> GgufHeader:
    """The header of a file as it is now: of a large vocabulary it takes a second to read, and many ask for it."""
    return read_gguf(path)


def _stamp(path: Path) -> tuple[int, ...]:
    """What tells a file from another of its name, and from itself after a change; empty where it cannot be read."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _config(header: GgufHeader) -> dict[str, Any]:
    factors = header.tensors.get(FACTORS)
    return config_of(header, None if factors is None else _factors(header.path, factors))


def _factors(path: Path, tensor: GgufTensor) -> np.ndarray:
    if tensor.kind != "F32" or tensor.n_bytes > MAX_FACTORS_BYTES:
        raise ModelError(f"{FACTORS}: must be at most {MAX_FACTORS_BYTES // 4} numbers of type F32")
    return np.fromfile(path, np.float32, tensor.n_bytes // 4, offset=tensor.offset)


MADE: Mapping[str, Callable[[GgufHeader], dict[str, Any] | None]] = {
    "config.json": _config,
    "generation_config.json": lambda header: generation_of(header.metadata),
    "tokenizer.json": lambda header: tokenizer_of(header.metadata),
    "tokenizer_config.json": lambda header: tokenizer_config_of(header.metadata),
}
"""What is made of a header, by the name of the file that would hold it."""
