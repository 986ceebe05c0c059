"""Which kind of source a path is."""

from __future__ import annotations

from pathlib import Path

from umbel.models.sources.base import ModelSource
from umbel.models.sources.directory import Directory
from umbel.models.sources.gguf_file import GgufFile

GGUF = ".gguf"


def source_at(path: Path) -> ModelSource:
    """The model at a path that `resolve_model` gave; nothing is read yet."""
    return GgufFile(path) if path.suffix == GGUF and not path.is_dir() else Directory(path)
